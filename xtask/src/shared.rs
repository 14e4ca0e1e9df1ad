//! The one private node that all tests of a checkout share.
//!
//! Plain `cargo test` runs many processes, at once and one after another; the first one starts
//! the node, each holds a lease on it, and it ends by itself [`GRACE_S`] seconds after the last.
//! `cargo xtask broker up` pins it until `cargo xtask broker down`.
//!
//! Invariant: at most one node per build directory, whoever asks at the same time.

use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::install::Installation;
use crate::node::NodeOptions;
use crate::node_files::{Leftovers, NodeFiles, kill_node, running_pid};
use crate::process::is_alive;
use crate::{Error, Management, Result, note, paths, wait_until};

/// How long the node outlives its last user, in seconds: from one test binary to the next.
pub const GRACE_S: u32 = 30;

/// Where the running node is; `state.json` in its directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// AMQP URL with user and password.
    pub url: String,
    /// Base URL of the management API.
    pub management_url: String,
    /// Process of the node's keeper, which ends with the node.
    pub keeper_pid: u32,
}

/// Keeps the shared node alive; given back when dropped, or when the process ends.
#[derive(Debug)]
pub struct Lease {
    /// Where the node is.
    pub state: State,
    /// Whether this call started it.
    pub started: bool,
    _lock: File,
}

/// Uses the running node, or starts it.
pub(crate) fn lease(installation: impl FnOnce() -> Result<Installation>) -> Result<Lease> {
    let directory = directory();
    fs::create_dir_all(&directory)
        .map_err(|error| Error::while_doing(format!("creating {}", directory.display()), error))?;
    let starting = open(&directory.join("starting"))?;
    starting.lock()?;
    // While a keeper ends its node this waits, so a node that is seen below stays.
    let lock = open(&directory.join("lease"))?;
    lock.lock_shared()?;
    if let Some(state) = running() {
        return Ok(Lease { state, started: false, _lock: lock });
    }
    let installation = installation()?;
    note("starting a private RabbitMQ node");
    kill_node(&directory)?;
    let hash = paths::checkout_hash();
    let files = NodeFiles::create(installation, directory.clone(), hash, &NodeOptions::default())?;
    let mut keeper = files.launch(GRACE_S, Leftovers::Keep)?;
    files.wait_ready(&mut keeper)?;
    let state = State {
        url: files.url()?.text(),
        management_url: files.management().base().to_owned(),
        keeper_pid: keeper.id(),
    };
    let json = serde_json::to_string_pretty(&state)
        .map_err(|error| Error::while_doing("writing state.json", error))?;
    fs::write(directory.join("state.json"), json)?;
    Ok(Lease { state, started: true, _lock: lock })
}

/// The running node, if there is one. It may end at any time unless a lease is held.
pub fn running() -> Option<State> {
    let text = fs::read_to_string(directory().join("state.json")).ok()?;
    let state: State = serde_json::from_str(&text).ok()?;
    running_pid(&directory())?;
    Management::new(&state.management_url, "guest", "guest").answers().then_some(state)
}

/// Keeps the node running without users, until [`down`].
pub fn pin() -> Result<()> {
    fs::write(directory().join("pinned"), "")?;
    Ok(())
}

/// Whether the node is pinned.
pub fn is_pinned() -> bool {
    directory().join("pinned").exists()
}

/// Ends the node, whoever uses it; fine when there is none.
pub fn down() -> Result<()> {
    let directory = directory();
    let keeper_pid = running().map(|state| state.keeper_pid);
    let _ = fs::remove_file(directory.join("pinned"));
    let _ = fs::remove_file(directory.join("state.json"));
    kill_node(&directory)?;
    // The keeper ends the node's port mapper.
    wait_until("the keeper of the node is gone", Duration::from_secs(60), || {
        keeper_pid.is_none_or(|pid| !is_alive(pid)).then_some(())
    })
}

fn directory() -> PathBuf {
    paths::target().join("rabbitmq").join("shared")
}

// Locks need no content, and truncating would need a lock.
fn open(path: &std::path::Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| Error::while_doing(format!("opening {}", path.display()), error))
}
