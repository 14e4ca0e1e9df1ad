//! Programs that must not compile, and what the compiler has to say to them.
//!
//! Each file of `tests/ui` is such a program; its lines `//~ text` are what the errors must
//! contain. The compiler is called directly with the library that this test is linked with, so
//! that a program costs a fraction of a second and nothing is built twice.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of the built libraries, in which this test lies too.
fn libraries() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    test.parent().expect("a folder").to_owned()
}

/// The library as it was built last, for this test.
fn celeriac() -> PathBuf {
    let files = std::fs::read_dir(libraries()).expect("readable").flatten();
    let built = files.filter(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        let suffix = name.strip_prefix("libceleriac-").and_then(|it| it.strip_suffix(".rlib"));
        suffix.is_some_and(|hash| !hash.contains('-'))
    });
    let newest = built.max_by_key(|file| file.metadata().and_then(|it| it.modified()).ok());
    newest.expect("cargo builds the library before the tests").path()
}

/// What the compiler says to `program`; `None` if it compiles.
fn errors(program: &Path) -> Option<String> {
    let output = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()))
        .args(["--edition", "2024", "--crate-type", "bin", "--emit", "metadata", "--cap-lints"])
        .args(["allow", "--color", "never", "-o"])
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join(program.file_name().expect("a name")))
        .arg("-L")
        .arg(format!("dependency={}", libraries().display()))
        .arg("--extern")
        .arg(format!("celeriac={}", celeriac().display()))
        .arg(program)
        .output()
        .expect("the compiler runs");
    if output.status.success() {
        return None;
    }
    Some(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The problem with a program, if there is one.
fn problem(program: &Path) -> Option<String> {
    let text = std::fs::read_to_string(program).expect("readable");
    let expected: Vec<_> =
        text.lines().filter_map(|line| line.trim().strip_prefix("//~ ")).collect();
    if expected.is_empty() {
        return errors(program).map(|errors| format!("should compile:\n{errors}"));
    }
    let Some(errors) = errors(program) else { return Some("compiles".to_owned()) };
    let missing: Vec<_> = expected.into_iter().filter(|text| !errors.contains(text)).collect();
    (!missing.is_empty()).then(|| format!("does not say {missing:?} but:\n{errors}"))
}

#[test]
fn programs_that_do_not_fit_do_not_compile_and_are_told_why() {
    let files = std::fs::read_dir(main_folder().join("tests/ui")).expect("readable").flatten();
    let mut programs: Vec<_> = files.map(|file| file.path()).collect();
    programs.retain(|path| path.extension().is_some_and(|it| it == "rs"));
    programs.sort();
    assert!(programs.len() > 5, "the programs are missing");
    let problems: Vec<_> = programs
        .iter()
        .filter_map(|path| problem(path).map(|it| format!("{}: {it}", path.display())))
        .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
}
