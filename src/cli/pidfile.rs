//! A file that holds the process id while the worker runs.
//!
//! **Invariant:** the file of another living process is never touched, and at the end only a file
//! with our own id in it is removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The file; removed when this is dropped.
#[derive(Debug)]
pub(super) struct Pidfile {
    path: PathBuf,
}

/// Why there is no pidfile.
#[derive(Debug, thiserror::Error)]
pub(super) enum PidfileError {
    #[error("the pidfile {} belongs to the running process {pid}; stop it first", path.display())]
    InUse { path: PathBuf, pid: u32 },
    #[error("failed to write the pidfile {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl Pidfile {
    /// Writes our process id to `path`; the file of a process that is gone is replaced.
    pub(super) fn create(path: &Path) -> Result<Self, PidfileError> {
        let io = |source| PidfileError::Io { path: path.to_path_buf(), source };
        let mut file = match create_new(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if let Some(pid) = owner(path).filter(|pid| is_another_process(*pid)) {
                    return Err(PidfileError::InUse { path: path.to_path_buf(), pid });
                }
                fs::remove_file(path).map_err(io)?;
                create_new(path).map_err(io)?
            }
            other => other.map_err(io)?,
        };
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self { path: path.to_path_buf() })
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        if owner(&self.path) == Some(std::process::id()) {
            // Nobody can be told any more, and a stale file is replaced by the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

fn owner(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Whether `pid` lives. Our own id does not count: in a container every start may get the same.
fn is_another_process(pid: u32) -> bool {
    if pid == std::process::id() {
        return false;
    }
    if Path::new("/proc/self").exists() {
        // "pid (name) state …": Z and X are dead, and only their parent has not looked yet.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        return state.is_some_and(|state| !state.starts_with(['Z', 'X']));
    }
    // Elsewhere in Unix; asking costs no `unsafe` this way.
    let mut kill = Command::new("kill");
    kill.args(["-0", &pid.to_string()]).stderr(Stdio::null());
    kill.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("celeriac-pidfile-{}-{name}", std::process::id()))
    }

    #[test]
    fn it_holds_our_id_and_goes_when_dropped() {
        let path = path("own");
        let pidfile = Pidfile::create(&path).unwrap();
        assert_eq!(owner(&path), Some(std::process::id()));
        drop(pidfile);
        assert!(!path.exists());
    }

    #[test]
    fn the_file_of_a_living_process_is_left_alone() {
        let path = path("other");
        let parent = std::os::unix::process::parent_id();
        fs::write(&path, parent.to_string()).unwrap();
        let error = Pidfile::create(&path).unwrap_err();
        assert!(error.to_string().contains(&format!("running process {parent}")), "{error}");
        assert_eq!(owner(&path), Some(parent));
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn the_file_of_a_process_that_is_gone_is_replaced() {
        let path = path("stale");
        for stale in [u32::MAX.to_string(), "rubbish".to_owned(), std::process::id().to_string()] {
            fs::write(&path, stale).unwrap();
            let pidfile = Pidfile::create(&path).unwrap();
            assert_eq!(owner(&path), Some(std::process::id()));
            drop(pidfile);
        }
    }
}
