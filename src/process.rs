//! What this program can learn about a process and do to one: take its own standard input, send
//! signals, read the resident size, tell how it ended.
//!
//! Starts nothing and watches nothing. **Invariant:** a signal goes only to an id that the caller
//! has not waited for yet, which nobody else can have got.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process};

/// Takes standard input away from the program, which finds an empty one from now on.
///
/// A parent puts a pipe or a socket there that ends when the parent does.
pub(crate) fn take_stdin() -> io::Result<OwnedFd> {
    let taken = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(taken)
}

/// Sends a signal; a process that is gone is none of our concern.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Ends this process as `kill -9` does: nothing is cleaned up, nothing can hold it.
pub(crate) fn kill_self() -> ! {
    send(std::process::id(), Signal::KILL);
    // Only where the system would not let us.
    std::process::abort()
}

/// Memory of a process that is in RAM, in KiB; `None` where `/proc` does not tell.
pub(crate) fn resident_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// The signal of this name, with or without `SIG`, in any case, or of this number: `TERM`,
/// `SIGKILL`, `usr1`, `15`.
pub(crate) fn signal_named(name: &str) -> Option<Signal> {
    let name = name.trim().to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let number: Option<i32> = name.parse().ok();
    let wanted = |(known, signal): &&(&str, Signal)| {
        *known == name || number.is_some_and(|number| signal.as_raw() == number)
    };
    SIGNALS.iter().find(wanted).map(|(_, signal)| *signal)
}

/// The program that runs, also after its file was replaced by a newer one: children are to be
/// the same as their parent.
pub(crate) fn this_program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let running = PathBuf::from("/proc/self/exe");
    Ok(if !path.exists() && running.exists() { running } else { path })
}

/// How a process ended: `exit code 3`, `SIGKILL`.
pub(crate) fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(number)) => {
            let known = SIGNALS.iter().find(|(_, signal)| signal.as_raw() == number);
            known.map_or_else(|| format!("signal {number}"), |(name, _)| format!("SIG{name}"))
        }
        (None, None) => status.to_string(),
    }
}

const SIGNALS: [(&str, Signal); 16] = [
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("BUS", Signal::BUS),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("TERM", Signal::TERM),
    ("TRAP", Signal::TRAP),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("XCPU", Signal::XCPU),
];

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn signals_have_their_names() {
        assert_eq!(signal_named("SIGKILL"), Some(Signal::KILL));
        assert_eq!(signal_named("usr1"), Some(Signal::USR1));
        assert_eq!(signal_named("15"), Some(Signal::TERM));
        assert_eq!(signal_named("9"), Some(Signal::KILL));
        for unknown in ["SIGLOUD", "", "SIG", "0", "-9", "4711"] {
            assert_eq!(signal_named(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn the_end_of_a_process_is_told_by_code_or_signal() {
        let end = |script| {
            let status = Command::new("sh").args(["-c", script]).status().unwrap();
            ending(status)
        };
        assert_eq!(end("exit 3"), "exit code 3");
        assert_eq!(end("kill -9 $$"), "SIGKILL");
    }

    #[test]
    fn our_own_size_is_known() {
        assert!(resident_kib(std::process::id()).is_some_and(|size| size > 100));
        assert_eq!(resident_kib(u32::MAX), None);
    }
}
