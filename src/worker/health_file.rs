//! The file by which others on this machine see that the worker is well: its time of change.
//!
//! It is touched while the worker is well, left alone while it is not, and removed when the worker
//! ends. Who looks at it decides how old it may be. So a process that hangs is noticed as well as
//! one that knows of its trouble. **Invariant:** a file system that does not answer holds up
//! nothing but the file.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tracing::warn;

/// The file; removed when this is dropped.
#[derive(Debug)]
pub(super) struct HealthFile {
    path: Arc<PathBuf>,
    /// The last time that it was touched.
    touching: Option<JoinHandle<io::Result<()>>>,
    has_failed: bool,
}

impl HealthFile {
    /// Touches nothing yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path: Arc::new(path), touching: None, has_failed: false }
    }

    /// Says that the worker is well now, unless it is being said still.
    pub(super) async fn touch(&mut self) {
        if let Some(touching) = self.touching.take_if(|touching| touching.is_finished()) {
            let result = touching.await.unwrap_or_else(|failed| Err(io::Error::other(failed)));
            self.heard(&result);
        }
        let path = Arc::clone(&self.path);
        // It may be on a disk that does not answer.
        self.touching.get_or_insert_with(|| tokio::task::spawn_blocking(move || write(&path)));
    }

    /// Once is enough: who looks at the file sees that it is not there.
    fn heard(&mut self, result: &io::Result<()>) {
        if let Err(error) = result
            && !self.has_failed
        {
            warn!(%error, path = %self.path.display(), "failed to write the health file");
        }
        self.has_failed = result.is_err();
    }
}

impl Drop for HealthFile {
    fn drop(&mut self) {
        // It grows too old by itself.
        let _ = fs::remove_file(&*self.path);
    }
}

/// What is in it is for people.
fn write(path: &PathBuf) -> io::Result<()> {
    fs::write(path, format!("healthy {}\n", jiff::Timestamp::now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("celeriac-health-{}-{name}", std::process::id()))
    }

    async fn touched(file: &mut HealthFile) {
        file.touch().await;
        let result = file.touching.take().unwrap().await.unwrap();
        file.heard(&result);
    }

    #[tokio::test]
    async fn it_is_there_once_touched_and_goes_when_dropped() {
        let path = path("own");
        let mut file = HealthFile::new(path.clone());
        assert!(!path.exists());
        for _ in 0..2 {
            touched(&mut file).await;
            assert!(fs::read_to_string(&path).unwrap().starts_with("healthy 2"));
            assert!(!file.has_failed);
        }
        drop(file);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_place_where_it_cannot_be_is_no_end() {
        let mut file = HealthFile::new(path("none").join("below"));
        touched(&mut file).await;
        assert!(file.has_failed);
    }
}
