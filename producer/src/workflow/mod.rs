//! Workflows as people write them: expressions on the command line, trees in files.

pub(crate) mod expression;
pub(crate) mod tree;
pub(crate) mod words;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use celeriac::cli;
use celeriac::protocol::Signature;

use crate::exit::Failure;
use tree::Language;

/// The longest text of a workflow, 16 MiB: more does not fit into messages either.
const BYTES_MAX: u64 = 16 << 20;

/// Reads the tree of a file, or of standard input for "-".
pub(crate) fn open(path: &Path) -> Result<Signature, Failure> {
    read_with(tree::parse, path)
}

/// The same; what a run with `--json --graph json` has shown stands for its workflow.
pub(crate) fn open_shown(path: &Path) -> Result<Signature, Failure> {
    read_with(tree::parse_shown, path)
}

type Parse = fn(&str, Language) -> Result<Signature, String>;

fn read_with(parse: Parse, path: &Path) -> Result<Signature, Failure> {
    let is_stdin = path.as_os_str() == "-";
    let language = match path.extension().and_then(|it| it.to_str()) {
        _ if is_stdin => Language::Json,
        Some("json") => Language::Json,
        Some("toml") => Language::Toml,
        _ => {
            let path = path.display();
            return Err(Failure::usage(format!("{path} must end in .json or .toml, or be \"-\"")));
        }
    };
    let text = if is_stdin { read(io::stdin().lock()) } else { File::open(path).and_then(read) };
    let text = text.map_err(|error| {
        Failure::usage(format!("failed to read {}: {}", path.display(), cli::sentence(&error)))
    })?;
    parse(&text, language).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

fn read(source: impl Read) -> io::Result<String> {
    let mut text = String::new();
    source.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 16 MiB"));
    }
    Ok(text)
}
