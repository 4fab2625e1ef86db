//! What a process holds, from /proc.

use std::fs;

/// The processes whose parent this is.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let parent = |child| stat(child, 4).and_then(|field| i32::try_from(field).ok());
    let mut found: Vec<i32> = processes().into_iter().filter(|child| parent(*child) == Some(pid)).collect();
    found.sort_unstable();
    found
}

/// Every process there is.
pub(crate) fn processes() -> Vec<i32> {
    fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The words a process was started with, or the title it gave itself; nothing when it is gone.
pub(crate) fn command_line(pid: i32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ").trim_end().to_owned()
}

/// The name of a process, as `ps -o comm` shows it.
pub(crate) fn name(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// The names of a process's threads, sorted.
pub(crate) fn threads(pid: i32) -> Vec<String> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let name = |task: std::io::Result<fs::DirEntry>| fs::read_to_string(task.ok()?.path().join("comm")).ok();
    let mut names: Vec<String> = tasks.filter_map(name).map(|name| name.trim_end().to_owned()).collect();
    names.sort();
    names
}

/// Whether a signal has stopped all threads of a process.
pub(crate) fn stopped(pid: i32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    // The state stands behind the name in brackets.
    stats.all(|stat| stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('T')))
}

/// How many files, sockets included, a process has open; 0 when it is gone.
pub(crate) fn open_files(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// How much memory of its own a process occupies, in KiB; 0 when it is gone.
pub(crate) fn memory(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    field.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// The effective user id of a process.
pub(crate) fn owner(pid: i32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

/// When a process was started, in clock ticks since the machine was: with its id, what tells it from all others.
pub(crate) fn started(pid: i32) -> Option<u64> {
    // A process that has ended and is only waited for counts as gone.
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let state = text.rsplit_once(')')?.1.trim_start().chars().next()?;
    if state == 'Z' { None } else { stat(pid, 22) }
}

/// A field of /proc/PID/stat by its number in proc(5).
fn stat(pid: i32, number: usize) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in brackets and may hold blanks.
    text.rsplit_once(')')?.1.split_whitespace().nth(number - 3)?.parse().ok()
}
