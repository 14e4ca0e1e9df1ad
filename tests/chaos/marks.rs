//! What tasks leave behind when they begin and when they end: lines in a file, which survive
//! whatever happens to the process that wrote them. Times are those of the machine's clock, which
//! all processes share.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment, since 1970.
pub(crate) type Moment = Duration;

pub(crate) fn now() -> Moment {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// One run of a task began or ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) number: u64,
    pub(crate) begins: bool,
    pub(crate) at: Moment,
    /// The process that ran it.
    pub(crate) pid: u32,
    /// Whether the broker had delivered the message before.
    pub(crate) redelivered: bool,
}

impl Mark {
    fn line(&self) -> String {
        let Self { number, begins, at, pid, redelivered } = self;
        let (begins, redelivered) = (u8::from(*begins), u8::from(*redelivered));
        format!("{number} {begins} {} {pid} {redelivered}\n", at.as_micros())
    }

    fn read(line: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        let mut field = || fields.next()?.parse::<u64>().ok();
        Some(Self {
            number: field()?,
            begins: field()? == 1,
            at: Duration::from_micros(field()?),
            pid: u32::try_from(field()?).ok()?,
            redelivered: field()? == 1,
        })
    }
}

/// The file of one run.
#[derive(Clone)]
pub(crate) struct Marks(PathBuf);

impl Marks {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("chaos-{name}-{}-{}", std::process::id(), crate::dice::seed());
        let path = std::env::temp_dir().join(name);
        File::create_new(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn remove(self) {
        std::fs::remove_file(self.0).unwrap();
    }
}

/// The marks so far, in the order in which they were written.
pub(crate) struct Trail {
    marks: Vec<Mark>,
    file: File,
    read: u64,
}

impl Trail {
    pub(crate) fn of(marks: &Marks) -> Self {
        Self { marks: Vec::new(), file: File::open(&marks.0).unwrap(), read: 0 }
    }

    /// Reads what was added.
    pub(crate) fn follow(&mut self) -> &[Mark] {
        let mut text = String::new();
        self.file.seek(SeekFrom::Start(self.read)).unwrap();
        self.file.read_to_string(&mut text).unwrap();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.read += whole as u64;
        self.marks.extend(text[..whole].lines().map(|line| Mark::read(line).unwrap()));
        &self.marks
    }
}

/// Leaves a mark of the task `number`: one short line in one write, which is never torn.
pub(crate) fn leave(
    path: &Path,
    number: u64,
    begins: bool,
    redelivered: bool,
) -> std::io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    let mark = Mark { number, begins, at: now(), pid: std::process::id(), redelivered };
    file.write_all(mark.line().as_bytes())
}
