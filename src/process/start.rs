//! From the command line to a master that serves, to a test of the configuration, or to a signal for another master.

use std::{io::Write, process::ExitCode, sync::Arc};

use super::{
    bundle::Bundle,
    command,
    daemon::{self, Waiting},
    files,
    invocation::{Invocation, Order},
    log::{self, Level, Log},
    master::{self, Birth, Cycle},
    needs::Needs,
    pid,
    program::{Program, Reading, Ready, Report},
    resources::{Facts, Recorder},
    signals::Signals,
    sockets::{Listeners, inherited},
    sys,
    title::{self, Title},
};

/// Does what the command line asks for (`main` of nginx, from the point where the options are known).
pub fn run<P: Program>(program: P, invocation: Invocation) -> ExitCode {
    let title = Title::prepare();
    let parent = sys::parent_id();
    let level = if invocation.test { Level::Info } else { Level::Notice };
    let log = Log::at_start(&invocation.error_log, level);
    let inherited = inherited::take(&log);

    let mut resources = Recorder::live(Facts::gather());
    let reading = program.read(&invocation, &mut resources);
    print_reports(&reading, &invocation, &log);
    let Reading { ready, dump, .. } = reading;
    let Some(Ready { needs, generation }) = ready else { return failed(&invocation) };
    // The worker builds its own; the master only needs the list.
    drop(generation);

    if invocation.order.is_some() && !invocation.test {
        return order(&invocation, &needs, &log);
    }
    let (facts, answers) = resources.into_parts();
    let daemonized = inherited.is_some() || needs.daemon;
    let process_name = sys::process_name();
    let bundle = Bundle { invocation: invocation.clone(), facts, answers, process_name, daemonized, respawned: 0 };
    if invocation.test {
        return test(&invocation, bundle, needs, &dump, &log);
    }

    let is_inherited = inherited.is_some();
    let previous = inherited.unwrap_or_default();
    let Ok(cycle) = Cycle::open(bundle, needs, &previous, false, &log) else { return ExitCode::FAILURE };
    previous.delete_files_beyond(&cycle.listeners, &log);
    drop(previous);
    match begin(&invocation, log, &cycle, is_inherited, parent, title) {
        Ok(birth) => master::run(Arc::new(program), birth, cycle),
        Err(code) => {
            cycle.listeners.delete_files(!is_inherited, &Log::default());
            code
        }
    }
}

/// Leaves the terminal, takes the signals and writes the pid file.
fn begin(
    invocation: &Invocation,
    mut log: Log,
    cycle: &Cycle,
    inherited: bool,
    parent: i32,
    title: Title,
) -> Result<Birth, ExitCode> {
    let daemonized = inherited || cycle.needs.daemon;
    let (waiting, parent) = if cycle.needs.daemon && !inherited {
        let first = i32::try_from(std::process::id()).unwrap_or_default();
        (daemon::detach(&log)?, first)
    } else {
        (Waiting::nobody(), parent)
    };
    log.redirect(files::outputs(&cycle.needs.error_logs, &cycle.logs));
    let signals = Signals::install().map_err(|errno| {
        log.write(Level::Emerg, format!("sigaction() failed ({errno})"));
        ExitCode::FAILURE
    })?;
    pid::write(&cycle.needs.pid, false, &log).map_err(|_| ExitCode::FAILURE)?;
    if cycle.needs.master_process {
        title.set(&title::master(&invocation.arguments));
    } else {
        sys::set_environment(&cycle.needs.identity.environment());
    }
    Ok(Birth { invocation: invocation.clone(), log, signals, waiting, daemonized, inherited, parent })
}

/// Prints what the reading found, and `syntax is ok` in between where nginx does.
fn print_reports<G>(reading: &Reading<G>, invocation: &Invocation, log: &Log) {
    let (early, late): (Vec<_>, Vec<_>) = reading.reports.iter().partition(|report| !report.after_syntax);
    for report in early {
        print_report(report, invocation, log);
    }
    if reading.syntax_ok && invocation.test && !invocation.quiet {
        let file = invocation.conf_file.display();
        log::console(format!("the configuration file {file} syntax is ok").as_bytes());
    }
    for report in late {
        print_report(report, invocation, log);
    }
}

fn print_report(report: &Report, invocation: &Invocation, log: &Log) {
    log.write(report.level, &report.text);
    // A remark on how the file was read is for whoever typed the command, too.
    if report.level == Level::Notice && !invocation.quiet && !log.is_on_stderr() {
        log::console(&[b"[notice] ", &report.text[..]].concat());
    }
    if !report.picture.is_empty() {
        let _ = std::io::stderr().write_all(report.picture.as_bytes());
    }
}

fn failed(invocation: &Invocation) -> ExitCode {
    if invocation.test {
        log::console(format!("configuration file {} test failed", invocation.conf_file.display()).as_bytes());
    }
    ExitCode::FAILURE
}

/// `-t`: opens what a start would open, except for addresses in use, and leaves it (`ngx_init_cycle`).
fn test(
    invocation: &Invocation,
    bundle: Bundle,
    needs: Needs,
    dump: &[(std::path::PathBuf, Vec<u8>)],
    log: &Log,
) -> ExitCode {
    // With an order nothing is opened, as in nginx.
    if invocation.order.is_none() {
        let pid_file = needs.pid.clone();
        let opens = pid::write(&pid_file, true, log).is_ok()
            && Cycle::open(bundle, needs, &Listeners::default(), true, log).is_ok();
        if !opens {
            return failed(invocation);
        }
    }
    if !invocation.quiet {
        log::console(format!("configuration file {} test is successful", invocation.conf_file.display()).as_bytes());
    }
    if invocation.dump {
        let mut text = Vec::new();
        for (path, content) in dump {
            text.extend_from_slice(format!("# configuration file {}:\n", path.display()).as_bytes());
            text.extend_from_slice(content);
            text.push(b'\n');
        }
        let _ = std::io::stdout().write_all(&text).and(std::io::stdout().flush());
    }
    ExitCode::SUCCESS
}

/// `-s`: finds the master and tells it (`ngx_signal_process`).
fn order(invocation: &Invocation, needs: &Needs, log: &Log) -> ExitCode {
    log.write(Level::Notice, "signal process started");
    let Some(order) = invocation.order else { return ExitCode::FAILURE };
    let Some(pid) = pid::read(&needs.pid, log) else { return ExitCode::FAILURE };
    if order == Order::Reload
        && let Some((serves, lines)) = command::reload(&needs.pid, pid)
    {
        let _ = std::io::stderr().write_all(&lines);
        return if serves { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let signal = order.signal();
    match sys::kill(pid, signal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(errno) => {
            log.write(Level::Alert, format!("kill({pid}, {signal}) failed ({errno})"));
            ExitCode::FAILURE
        }
    }
}
