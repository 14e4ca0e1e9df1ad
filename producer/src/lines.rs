//! Lines of a file or of standard input, as a stream that waits for its reader.
//!
//! **Invariant:** no more than [`AHEAD_MAX`] lines are held, and no line grows beyond
//! [`LINE_BYTES_MAX`].

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::thread;

use tokio::sync::mpsc;

/// Lines that are read ahead.
pub(crate) const AHEAD_MAX: usize = 1_000;

/// The longest line; what RabbitMQ takes in a message by default is less.
const LINE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// A line that is not empty, with its number from 1 on.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) number: u64,
    pub(crate) bytes: Vec<u8>,
}

/// Opens `path`, or standard input for `-`, and starts to read it.
pub(crate) fn open(path: &Path) -> io::Result<mpsc::Receiver<io::Result<Line>>> {
    let (sender, receiver) = mpsc::channel(AHEAD_MAX);
    let file = if path.as_os_str() == "-" { None } else { Some(File::open(path)?) };
    // Reading standard input cannot be cancelled, so it has a thread that nobody waits for.
    thread::Builder::new().name("lines".to_owned()).spawn(move || match file {
        Some(file) => read(BufReader::with_capacity(1 << 16, file), &sender),
        None => read(io::stdin().lock(), &sender),
    })?;
    Ok(receiver)
}

/// The size of the file, if it is one.
pub(crate) fn size(path: &Path) -> Option<u64> {
    path.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len())
}

fn read(mut source: impl BufRead, sender: &mpsc::Sender<io::Result<Line>>) {
    let mut number = 0;
    loop {
        number += 1;
        let mut bytes = Vec::new();
        let line = match source.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes) {
            Ok(0) => return,
            Ok(read) if read as u64 == LINE_BYTES_MAX && bytes.last() != Some(&b'\n') => {
                Err(io::Error::new(io::ErrorKind::InvalidData, format!("line {number} has no end")))
            }
            Ok(_) => Ok(Line { number, bytes }),
            Err(error) => Err(error),
        };
        let is_empty = matches!(&line, Ok(line) if line.bytes.trim_ascii().is_empty());
        let is_last = line.is_err();
        if !is_empty && sender.blocking_send(line).is_err() || is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_numbers_and_empty_ones_are_left_out() {
        let (sender, mut receiver) = mpsc::channel(AHEAD_MAX);
        read(&b"one\n\n  \r\nfour\nfive"[..], &sender);
        drop(sender);
        let mut lines = Vec::new();
        while let Some(line) = receiver.blocking_recv() {
            let line = line.unwrap();
            lines.push((line.number, String::from_utf8(line.bytes).unwrap()));
        }
        assert_eq!(lines, [(1, "one\n".into()), (4, "four\n".into()), (5, "five".into())]);
    }
}
