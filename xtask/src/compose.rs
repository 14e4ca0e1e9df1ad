//! The RabbitMQ of `compose.yaml`, where a Docker engine answers.
//!
//! Only the service `rabbitmq` is touched, and its data is left alone.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::succeeds;
use crate::{Error, Result, paths};

/// Whether there is a compose file and an engine that could run it.
pub(crate) fn is_available() -> bool {
    // The client is often there without an engine.
    paths::root().join("compose.yaml").is_file()
        && succeeds("docker", &["info"], Duration::from_secs(5))
        && succeeds("docker", &["compose", "version"], Duration::from_secs(5))
}

/// Starts the service; it answers some seconds later.
pub(crate) fn up() -> Result<()> {
    compose(&["up", "--detach", "rabbitmq"])
}

/// Stops the service and removes its container.
pub(crate) fn down() -> Result<()> {
    compose(&["rm", "--stop", "--force", "rabbitmq"])
}

fn compose(arguments: &[&str]) -> Result<()> {
    let output = Command::new("docker")
        .arg("compose")
        .args(arguments)
        .current_dir(paths::root())
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!("`docker compose {}` failed: {}", arguments.join(" "), text.trim())))
}
