//! What the build needs beside Rust's toolchain and its linker: `make`, for the allocator of the
//! binaries.

use std::process::{Command, Stdio};

use crate::{Result, apt};

/// Makes sure that `make` is there, by Debian's package where the user may install it.
///
/// # Errors
/// A sentence on what to run, when it is missing and cannot be installed.
pub fn find_or_install() -> Result<()> {
    let mut version = Command::new("make");
    version.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if version.status().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    apt::install(&["make"])
}
