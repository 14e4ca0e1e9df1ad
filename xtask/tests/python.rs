//! The virtual environment has what the interop tests import.

use xtask::Python;

#[test]
fn celery_and_both_compressions_are_there() {
    let python = Python::ensure().unwrap();
    let script = "import celery, msgpack, kombu.compression as c; \
        c.get_encoder('zstd'), c.get_encoder('gzip'); print(celery.__version__)";
    let output =
        std::process::Command::new(python.interpreter()).args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("5.7."));
}
