//! A Redis server for comparisons: nothing of celeriac needs one.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::process::{Spawned, succeeds};
use crate::{Result, apt, paths};

/// Debian's server on a free port of this machine, which keeps nothing on disk and ends when this
/// is dropped.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    _server: Spawned,
}

const PROGRAM: &str = "redis-server";

impl Redis {
    /// Starts one; installs Debian's package where there is none.
    pub fn start() -> Result<Self> {
        if !succeeds(PROGRAM, &["--version"], Duration::from_secs(20)) {
            apt::install(&[PROGRAM])?;
        }
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let directory: PathBuf = paths::target();
        std::fs::create_dir_all(&directory)?;
        let mut command = Command::new(PROGRAM);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]);
        command.args(["--appendonly", "no", "--dir"]).arg(directory);
        let server = Spawned::start(&mut command)?;
        server.wait_for_line("Ready to accept connections", Duration::from_secs(120))?;
        Ok(Self { port, _server: server })
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }
}
