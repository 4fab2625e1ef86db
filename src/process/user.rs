//! Who the worker is: looking users up, and becoming one (`ngx_worker_process_init`).
#![allow(unsafe_code, reason = "the user database and the identity of a process are only reachable through libc")]

use std::ffi::CString;

use super::{
    errno::Errno,
    log::{Level, Log},
    needs::{Affinity, Identity},
    sys,
};

/// The identity could not be taken; the log says why. nginx ends such a worker with code 2, "fatal".
#[derive(Debug, thiserror::Error)]
#[error("could not take the worker's identity")]
pub(super) struct Refused;

/// The number of the user `name`. As with `getpwnam`, the error number may be 0 when there simply is no such user.
pub(super) fn user_id(name: &[u8]) -> Result<u32, Errno> {
    let name = CString::new(name).map_err(|_| Errno(0))?;
    clear_errno();
    // SAFETY: a terminated string; the record is read before anybody else asks (the master has one thread).
    unsafe { libc::getpwnam(name.as_ptr()).as_ref() }.map(|entry| entry.pw_uid).ok_or_else(Errno::last)
}

/// The number of the group `name`; the same rules as for [`user_id`].
pub(super) fn group_id(name: &[u8]) -> Result<u32, Errno> {
    let name = CString::new(name).map_err(|_| Errno(0))?;
    clear_errno();
    // SAFETY: as in `user_id`.
    unsafe { libc::getgrnam(name.as_ptr()).as_ref() }.map(|entry| entry.gr_gid).ok_or_else(Errno::last)
}

/// The limit of open files: soft and hard.
pub(super) fn open_files_limit() -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives the call.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    (limit.rlim_cur, limit.rlim_max)
}

/// Turns this process, still root and of one thread, into the worker the configuration asks for: priority, limits,
/// group, groups, user, core dumps, working directory. In nginx's order and with its messages.
pub(super) fn become_worker(identity: &Identity, threads: usize, log: &Log) -> Result<(), Refused> {
    if identity.priority != 0 {
        // SAFETY: no memory involved.
        let failed = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, identity.priority) } == -1;
        if failed {
            let errno = Errno::last();
            log.write(Level::Alert, format!("setpriority({}) failed ({errno})", identity.priority));
        }
    }
    set_limits(identity, threads, log);
    if let Some(user) = identity.user.as_ref().filter(|_| sys::is_superuser()) {
        let name = CString::new(user.name.as_slice()).unwrap_or_default();
        // SAFETY: `name` is terminated; the rest are numbers. The process has one thread.
        unsafe {
            if libc::setgid(user.gid) == -1 {
                let errno = Errno::last();
                log.write(Level::Emerg, format!("setgid({}) failed ({errno})", user.gid));
                return Err(Refused);
            }
            if libc::initgroups(name.as_ptr(), user.gid as _) == -1 {
                let errno = Errno::last();
                let name = name.to_string_lossy();
                log.write(Level::Emerg, format!("initgroups({name}, {}) failed ({errno})", user.gid));
            }
            if libc::setuid(user.uid) == -1 {
                let errno = Errno::last();
                log.write(Level::Emerg, format!("setuid({}) failed ({errno})", user.uid));
                return Err(Refused);
            }
        }
    }
    allow_core_dumps(log);
    if let Some(directory) = &identity.working_directory
        && let Err(error) = std::env::set_current_dir(directory)
    {
        let errno = Errno::from(error);
        log.write(Level::Alert, format!("chdir(\"{}\") failed ({errno})", directory.display()));
        return Err(Refused);
    }
    Ok(())
}

/// `worker_rlimit_nofile` is meant per worker process of nginx. Ours holds all threads, so it gets the sum, and
/// without the directive whatever the hard limit allows.
fn set_limits(identity: &Identity, threads: usize, log: &Log) {
    let (soft, hard) = open_files_limit();
    if let Some(each) = identity.rlimit_nofile {
        let wanted = each.saturating_mul(threads.max(1) as u64);
        let top = if sys::is_superuser() { wanted } else { hard.min(wanted).max(each) };
        let all = set_limit(libc::RLIMIT_NOFILE as i32, top, top);
        if let Err(errno) = all.or_else(|_| set_limit(libc::RLIMIT_NOFILE as i32, each, each)) {
            log.write(Level::Alert, format!("setrlimit(RLIMIT_NOFILE, {each}) failed ({errno})"));
        }
    } else if soft < hard {
        // macOS calls its hard limit unlimited and then refuses it; the soft limit stays as it is there.
        let _ = set_limit(libc::RLIMIT_NOFILE as i32, hard, hard);
    }
    if let Some(core) = identity.rlimit_core
        && let Err(errno) = set_limit(libc::RLIMIT_CORE as i32, core, core)
    {
        log.write(Level::Alert, format!("setrlimit(RLIMIT_CORE, {core}) failed ({errno})"));
    }
}

fn set_limit(resource: i32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` outlives the call.
    match unsafe { libc::setrlimit(resource as _, &raw const limit) } {
        -1 => Err(Errno::last()),
        _ => Ok(()),
    }
}

/// Leaving root switches core dumps off; nginx switches them on again.
fn allow_core_dumps(log: &Log) {
    #[cfg(target_os = "linux")]
    // SAFETY: no memory involved.
    if unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) } == -1 {
        let errno = Errno::last();
        log.write(Level::Alert, format!("prctl(PR_SET_DUMPABLE) failed ({errno})"));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = log;
}

/// Binds this thread to the processors of worker number `index` (`ngx_get_cpu_affinity`).
pub(super) fn set_affinity(affinity: &Affinity, index: usize, log: &Log) {
    let Some(mask) = affinity.of(index) else { return };
    #[cfg(target_os = "linux")]
    {
        // SAFETY: an all-zero set is valid, and the processors are checked to fit into it.
        let failed = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            for &processor in mask.iter().filter(|&&processor| processor < libc::CPU_SETSIZE as usize) {
                libc::CPU_SET(processor, &mut set);
            }
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) == -1
        };
        if failed {
            let errno = Errno::last();
            log.write(Level::Alert, format!("sched_setaffinity() failed ({errno})"));
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (mask, log);
}

fn clear_errno() {
    #[cfg(target_os = "linux")]
    // SAFETY: the pointer is this thread's own errno.
    unsafe {
        *libc::__errno_location() = 0;
    }
    #[cfg(target_os = "macos")]
    // SAFETY: as above.
    unsafe {
        *libc::__error() = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_user_zero() {
        assert_eq!(user_id(b"root"), Ok(0));
    }

    #[test]
    fn nobody_answers_to_a_made_up_name() {
        assert!(user_id(b"no-such-user-here").is_err());
        assert!(group_id(b"no-such-group-here").is_err());
    }
}
