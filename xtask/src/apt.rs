//! Installing Debian packages where the user may do so without being asked for a password.
//!
//! It never configures anything and never removes anything.

use std::process::{Command, Stdio};

use crate::{Error, Result, note};

/// Installs packages as root or through a passwordless sudo.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    let sudo = match privilege() {
        Privilege::Root => false,
        Privilege::Sudo => true,
        Privilege::None => {
            return Err(Error::new(format!(
                "{list} is not installed and this user may not install it: \
                 run `sudo apt-get install {list}`"
            )));
        }
    };
    note(&format!("installing {list} with apt-get"));
    // A failed update is not the end: the lists on the machine may do.
    let updated = apt_get(sudo, &["update", "--quiet"]);
    let mut arguments = vec!["install", "--quiet", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    apt_get(sudo, &arguments).map_err(|error| match updated {
        Ok(()) => error,
        Err(update) => Error::new(format!("{error} ({update})")),
    })
}

/// Whether this user may install packages here without being asked.
pub(crate) fn may_install() -> bool {
    !matches!(privilege(), Privilege::None)
}

enum Privilege {
    Root,
    Sudo,
    None,
}

fn privilege() -> Privilege {
    let quiet = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output()
    };
    if !quiet("apt-get", &["--version"]).is_ok_and(|output| output.status.success()) {
        return Privilege::None;
    }
    if quiet("id", &["-u"]).is_ok_and(|output| output.stdout.trim_ascii() == b"0") {
        return Privilege::Root;
    }
    match quiet("sudo", &["-n", "true"]) {
        Ok(output) if output.status.success() => Privilege::Sudo,
        _ => Privilege::None,
    }
}

fn apt_get(sudo: bool, arguments: &[&str]) -> Result<()> {
    // RUNLEVEL tells invoke-rc.d not to start services. `env` carries the variables past sudo,
    // which drops them.
    let environment =
        ["DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "APT_LISTCHANGES_FRONTEND=none"];
    let mut command = Command::new(if sudo { "sudo" } else { "env" });
    if sudo {
        command.args(["-n", "env"]);
    }
    let output = command
        .args(environment)
        .arg("apt-get")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::while_doing("failed to run apt-get", error))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no output");
    Err(Error::new(format!("`apt-get {}` failed: {last}", arguments.join(" "))))
}
