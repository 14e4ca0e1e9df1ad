//! Python with Celery in a virtual environment under the build directory.
//!
//! Installed once per content of a requirements file; nothing outside the directory is touched,
//! except that Debian's packages python3 and python3-venv are installed where they are missing.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::succeeds;
use crate::{Error, Result, apt, note, paths};

/// What the benchmark needs beyond Celery.
pub const BENCH_REQUIREMENTS: &str = "benches/requirements.txt";

/// What the comparison of chords needs beyond Celery.
pub const CHORDS_REQUIREMENTS: &str = "benches/chords-requirements.txt";

/// Flower, the monitor with which the tests look at workers.
pub const FLOWER_REQUIREMENTS: &str = "tests/interop/flower-requirements.txt";

const BASE: &str = "tests/interop/requirements.txt";

/// A ready virtual environment.
#[derive(Clone, Debug)]
pub struct Python {
    interpreter: PathBuf,
}

impl Python {
    /// The environment with Celery of `tests/interop/requirements.txt`.
    pub fn ensure() -> Result<Self> {
        Self::with(&[])
    }

    /// The same with what further requirements files name, e.g. [`BENCH_REQUIREMENTS`].
    pub fn with(requirements: &[&str]) -> Result<Self> {
        let target = paths::target();
        fs::create_dir_all(&target)?;
        let lock = OpenOptions::new().create(true).append(true).open(target.join("python.lock"))?;
        lock.lock()?;
        let directory = target.join("python");
        let python = Self { interpreter: directory.join("bin").join("python") };
        let works = || succeeds(&python.interpreter, &["--version"], Duration::from_secs(20));
        let base = Requirements::read(&directory, BASE)?;
        if !base.are_installed() || !works() {
            note(&format!("creating a Python environment in {}", directory.display()));
            create(&directory)?;
            base.install(&python)?;
        }
        for file in requirements {
            let further = Requirements::read(&directory, file)?;
            if !further.are_installed() {
                further.install(&python)?;
            }
        }
        Ok(python)
    }

    /// The interpreter of the environment.
    pub fn interpreter(&self) -> &Path {
        &self.interpreter
    }

    /// A command that runs a script; a relative path starts at the root of the checkout.
    ///
    /// Output is not buffered, so that a test sees each line at once.
    pub fn command(&self, script: impl AsRef<Path>) -> Command {
        let mut command = self.base();
        command.arg(paths::root().join(script));
        command
    }

    /// A command that runs a module, e.g. `celery`.
    pub fn module(&self, name: &str) -> Command {
        let mut command = self.base();
        command.args(["-m", name]);
        command
    }

    fn base(&self) -> Command {
        let mut command = Command::new(&self.interpreter);
        command.env("PYTHONUNBUFFERED", "1").env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

/// One requirements file, and the copy of it that says what is installed.
struct Requirements {
    path: PathBuf,
    wanted: String,
    stamp: PathBuf,
}

impl Requirements {
    fn read(directory: &Path, file: &str) -> Result<Self> {
        let path = paths::root().join(file);
        let wanted = fs::read_to_string(&path)
            .map_err(|error| Error::while_doing(format!("reading {}", path.display()), error))?;
        let stamp = directory.join(format!("installed-{}", file.replace('/', "-")));
        Ok(Self { path, wanted, stamp })
    }

    fn are_installed(&self) -> bool {
        fs::read_to_string(&self.stamp).is_ok_and(|installed| installed == self.wanted)
    }

    fn install(&self, python: &Python) -> Result<()> {
        note(&format!("installing {}", self.path.display()));
        let mut pip = python.module("pip");
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]);
        run(pip.arg(&self.path))?;
        // Written last, so that an interrupted installation is done again.
        fs::write(&self.stamp, &self.wanted)?;
        Ok(())
    }
}

fn create(directory: &Path) -> Result<()> {
    let create = || run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(directory));
    // Debian splits venv off Python and says so only when it is used.
    create().or_else(|first| {
        apt::install(&["python3", "python3-venv"])
            .and_then(|()| create())
            .map_err(|second| Error::new(format!("{first}; {second}")))
    })
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::while_doing(format!("failed to run {program}"), error))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n");
    Err(Error::new(format!("{program} failed:\n{last}")))
}
