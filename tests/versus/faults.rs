//! Every `fixtures/faults/NAME.conf` through `-t`: nginx's first message and exit status, from nginx and from us; and the
//! whole of what we say, pictures included, as `NAME.stderr` has it (`BLESS=1` writes these files).
//!
//! A line `# differs: WHY` in a file marks a known difference: shown, not counted as a failure.

use super::support::oracle;
use crate::support::{binary, project, replaced};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What `-t` said and how it ended.
struct Verdict {
    status: Option<i32>,
    stderr: String,
}

impl Verdict {
    /// The first message, from its severity on: `[emerg] unknown directive "x" in NAME.conf:3`.
    fn message(&self) -> String {
        let mark = |line: &str| {
            ["[emerg]", "[alert]", "[crit]", "[error]", "[warn]", "[notice]"].iter().find_map(|level| line.find(level))
        };
        let Some(line) = self.stderr.lines().find_map(|line| mark(line).map(|at| &line[at..])) else {
            return String::new();
        };
        // A line of the log has `PID#TID: ` behind the severity, one for the console has not.
        let (level, text) = line.split_once(' ').unwrap_or((line, ""));
        let text = text.split_once(": ").filter(|(ids, _)| is_ids(ids)).map_or(text, |(_, text)| text);
        format!("{level} {text}")
    }

    /// nginx's last word.
    fn conclusion(&self) -> &'static str {
        if self.stderr.contains(" test failed\n") {
            "test failed"
        } else if self.stderr.contains(" test is successful\n") {
            "test is successful"
        } else {
            "no conclusion"
        }
    }
}

/// `PID#TID`.
fn is_ids(text: &str) -> bool {
    text.split_once('#')
        .is_some_and(|(pid, tid)| !pid.is_empty() && (pid.to_owned() + tid).bytes().all(|byte| byte.is_ascii_digit()))
}

/// Runs `-t` over a file, in a prefix of its own; paths of this machine are taken out of what it says.
fn test(program: &Path, file: &Path) -> Verdict {
    let prefix = tempfile::tempdir().expect("a temporary directory");
    let text = fs::read(file).expect("read");
    let names_pid = String::from_utf8_lossy(&text).lines().any(|line| line.trim_start().starts_with("pid "));
    let mut command = Command::new(program);
    command.arg("-t").arg("-p").arg(format!("{}/", prefix.path().display()));
    command.arg("-e").arg(prefix.path().join("error.log")).arg("-c").arg(file);
    if !names_pid {
        command.arg("-g").arg(format!("pid {}/nginx.pid;", prefix.path().display()));
    }
    let output = command
        .env("TIDEGATE_PICTURES", "always")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let folder = file.parent().expect("a folder").display().to_string();
    let stderr = String::from_utf8_lossy(&output.stderr)
        .replace(&format!("{folder}/"), "")
        .replace(&prefix.path().display().to_string(), "PREFIX");
    Verdict { status: output.status.code(), stderr }
}

/// The files, by name.
fn all() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(project("fixtures/faults"))
        .expect("list")
        .map_while(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .collect();
    files.sort();
    assert!(files.len() >= 100, "only {} faulty configurations found", files.len());
    files
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[test]
fn every_fault_is_told_in_nginx_words() {
    let Some(nginx) = oracle() else { return };
    let ours = binary();
    let files = all();
    let half = files.len().div_ceil(2);
    // Two at a time: a run is mostly the start of a process.
    let told: Vec<(String, bool)> = std::thread::scope(|scope| {
        let parts: Vec<_> = files
            .chunks(half)
            .map(|part| {
                scope.spawn(|| part.iter().filter_map(|file| difference(&nginx, &ours, file)).collect::<Vec<_>>())
            })
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("no panic")).collect()
    });
    let known = told.iter().filter(|(_, known)| *known).count();
    for (text, _) in told.iter().filter(|(_, known)| *known) {
        eprintln!("known to differ: {text}");
    }
    let new: Vec<&str> = told.iter().filter(|(_, known)| !known).map(|(text, _)| text.as_str()).collect();
    eprintln!("faults: {} files, {} equal, {known} known to differ", files.len(), files.len() - told.len());
    assert!(new.is_empty(), "{} of {} differ, nginx <> ours:\n{}", new.len(), files.len(), new.join("\n"));
}

/// What differs for one file, and whether that is known.
fn difference(nginx: &Path, ours: &Path, file: &Path) -> Option<(String, bool)> {
    let (theirs, mine) = (test(nginx, file), test(ours, file));
    let sides = |verdict: &Verdict| format!("{:?} {} ({})", verdict.status, verdict.message(), verdict.conclusion());
    assert!(!theirs.message().is_empty(), "{}: nginx finds no fault:\n{}", name(file), theirs.stderr);
    if sides(&theirs) == sides(&mine) {
        return None;
    }
    let text = String::from_utf8_lossy(&fs::read(file).expect("read")).into_owned();
    let why = text.lines().find_map(|line| line.strip_prefix("# differs: "));
    let place = name(file);
    let sides = format!("    {}\n <> {}", sides(&theirs), sides(&mine));
    Some(match why {
        Some(why) => (format!("{place}: {why}\n{sides}"), true),
        None => (format!("{place}:\n{sides}"), false),
    })
}

#[test]
fn what_we_say_about_a_fault_is_as_blessed() {
    if replaced() {
        eprintln!("NOTICE: another program stands in tidegate's place: its texts are not compared with ours");
        return;
    }
    let bless = std::env::var_os("BLESS").is_some();
    let mut told = Vec::new();
    for file in all() {
        let said = test(&binary(), &file).stderr;
        let expected = file.with_extension("stderr");
        if bless {
            fs::write(&expected, &said).expect("write");
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            told.push(format!("{}:\n{said}", name(&file)));
        }
    }
    assert!(told.is_empty(), "{} texts are new or changed (BLESS=1 takes them over):\n{}", told.len(), told.join("\n"));
}

#[test]
fn a_message_is_found_behind_dates_and_ids() {
    let verdict = |text: &str| Verdict { status: Some(1), stderr: text.to_owned() };
    let console = "nginx: [emerg] unknown directive \"x\" in a.conf:1\n";
    let log = "2026/01/02 03:04:05 [emerg] 12#12: unknown directive \"x\" in a.conf:1\n";
    assert_eq!(verdict(console).message(), "[emerg] unknown directive \"x\" in a.conf:1");
    assert_eq!(verdict(log).message(), verdict(console).message());
    assert_eq!(verdict("nginx: [emerg] a#b: c\n").message(), "[emerg] a#b: c");
}
