//! A virtual host with the stock worker, and the binary that is tested.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use xtask::{Spawned, TestVhost};

use crate::run::{Run, celeriac};

pub(crate) const SOON: Duration = Duration::from_secs(120);

/// One test's part of the broker.
pub(crate) struct Setup {
    pub(crate) vhost: TestVhost,
    pub(crate) url: String,
}

pub(crate) fn setup(hint: &str) -> Setup {
    let vhost = TestVhost::create(hint).unwrap();
    let url = vhost.url().to_owned();
    Setup { vhost, url }
}

impl Setup {
    pub(crate) fn celeriac(&self, args: &[&str], input: &str) -> Run {
        celeriac(args, &[("CELERIAC_BROKER_URL", &self.url)], input)
    }

    pub(crate) fn worker(&self) -> Spawned {
        self.worker_with(&[])
    }

    pub(crate) fn worker_with(&self, args: &[&str]) -> Spawned {
        let mut command = Command::new(xtask::process::binary("celeriac-worker").unwrap());
        let command = command.args(args).env("CELERIAC_BROKER_URL", &self.url);
        let worker = Spawned::start(command).unwrap();
        worker.wait_for_line(" ready.", SOON).unwrap();
        worker
    }
}

/// The lines of `--json`.
pub(crate) fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
