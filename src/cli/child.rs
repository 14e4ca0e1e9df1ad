//! A worker process among several: its place, and what it says to its parent with its exit code.

use std::io;
use std::path::{Path, PathBuf};

use crate::supervisor::{self, RECYCLE, RETIRE};
use crate::worker::Stopped;

/// Marks a child: its place from 1 on and the parent's process id, with a colon between them.
pub(super) const MARK: &str = "CELERIAC_CHILD";

/// This process is a child of a worker with `--processes`.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChildOf {
    /// From 1 on.
    pub(super) place: usize,
}

impl ChildOf {
    /// What the environment says. From here on, a child ends with its parent.
    ///
    /// # Errors
    /// If the mark is another process's, which a program that a task has started would inherit.
    pub(super) fn parent() -> io::Result<Option<Self>> {
        let Some(mark) = std::env::var_os(MARK) else { return Ok(None) };
        let parent = std::os::unix::process::parent_id();
        let place = mark.to_str().and_then(|mark| read(mark, parent)).ok_or_else(|| {
            io::Error::other(format!("{MARK} is set by a worker for its own children; unset it"))
        })?;
        supervisor::end_with_parent()?;
        Ok(Some(Self { place }))
    }

    /// `one@host` becomes `one-3@host`.
    pub(super) fn hostname(self, node: &str) -> String {
        let (name, host) = node.split_once('@').unwrap_or((node, ""));
        format!("{name}-{}@{host}", self.place)
    }

    /// A file of this child alone: `health` becomes `health-3`.
    pub(super) fn path(self, path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("-{}", self.place));
        name.into()
    }

    /// The exit code after a warm stop: 0 if a signal was the cause.
    pub(super) fn exit_code(stopped: Stopped, by_signal: bool, recycled: bool) -> u8 {
        match (stopped, by_signal, recycled) {
            (Stopped::Cold, ..) => 1,
            (Stopped::Warm, true, _) => 0,
            (Stopped::Warm, false, true) => RECYCLE,
            // A remote command: another one in its place would not be what was meant.
            (Stopped::Warm, false, false) => RETIRE,
        }
    }
}

/// The mark for the child of a place, counted from 0.
pub(super) fn mark(place: usize) -> String {
    format!("{}:{}", place + 1, std::process::id())
}

fn read(mark: &str, parent: u32) -> Option<usize> {
    let (place, pid) = mark.split_once(':')?;
    let place = place.parse().ok().filter(|place| *place > 0)?;
    (pid.parse() == Ok(parent)).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_counts_only_for_the_child_of_its_parent() {
        assert_eq!(read(&mark(2), std::process::id()), Some(3));
        assert_eq!(read(&mark(2), 1), None);
        for wrong in ["", "1", "0:7", "x:7", "1:", ":7"] {
            assert_eq!(read(wrong, 7), None, "{wrong}");
        }
    }

    #[test]
    fn the_names_of_children_tell_their_places() {
        let child = ChildOf { place: 3 };
        assert_eq!(child.hostname("one@box.org"), "one-3@box.org");
        assert_eq!(child.path(Path::new("/run/health")), Path::new("/run/health-3"));
    }
}
