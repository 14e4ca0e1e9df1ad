//! What the process with the id 1 owes: whoever loses its parent becomes its child, and stays a
//! zombie until it is waited for.

use std::fs;

use rustix::process::{Pid, WaitOptions, waitpid};
use tracing::debug;

/// Waits for children that have ended and that are not among `ours`, which are left to whoever
/// started them. Reads all of `/proc`, so not to be called often.
pub(super) fn reap(ours: &[u32]) {
    let parent = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else { return };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if ours.contains(&pid) || !is_zombie_of(parent, &stat) {
            continue;
        }
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw);
        if id.is_some() && matches!(waitpid(id, WaitOptions::NOHANG), Ok(Some(_))) {
            debug!(pid, "an orphan has ended");
        }
    }
}

/// Reads "pid (name) state parent …"; the name may hold anything, but no later field a bracket.
fn is_zombie_of(parent: u32, stat: &str) -> bool {
    let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
    let mut fields = rest.split(' ');
    fields.next() == Some("Z") && fields.next().and_then(|it| it.parse().ok()) == Some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zombie_is_told_by_its_state_and_its_parent() {
        assert!(is_zombie_of(1, "77 (sh) Z 1 77 77 0"));
        assert!(is_zombie_of(1, "77 (a) Z 9) Z 1 77"));
        assert!(!is_zombie_of(1, "77 (sh) S 1 77"));
        assert!(!is_zombie_of(1, "77 (sh) Z 12 77"));
        assert!(!is_zombie_of(1, ""));
    }
}
