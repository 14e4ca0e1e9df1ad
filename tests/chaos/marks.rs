//! What tasks leave behind when they run: a line in a file, which survives whatever happens to
//! the process that wrote it.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The file of one run.
#[derive(Clone)]
pub(crate) struct Marks(PathBuf);

impl Marks {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("chaos-{name}-{}-{}", std::process::id(), crate::dice::seed());
        Self(std::env::temp_dir().join(name))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// How often each task has run.
    pub(crate) fn read(&self) -> HashMap<u64, u32> {
        let mut runs = HashMap::new();
        for line in std::fs::read_to_string(&self.0).unwrap().lines() {
            *runs.entry(line.parse().unwrap()).or_default() += 1;
        }
        runs
    }

    pub(crate) fn remove(self) {
        std::fs::remove_file(self.0).unwrap();
    }
}

/// Leaves the mark of the task `number`: one short line in one write, which is never torn.
pub(crate) fn leave(path: &Path, number: u64) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(format!("{number}\n").as_bytes())
}
