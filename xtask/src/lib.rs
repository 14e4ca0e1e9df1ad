//! The harness: what tests, the demo and the benches need around them.
//!
//! It finds or starts a RabbitMQ ([`Broker`]), gives every test a virtual host ([`TestVhost`]) or
//! a node of its own that can be killed ([`PrivateNode`]), runs the project's programs
//! ([`Spawned`]) and installs Python with Celery ([`Python`]). It knows nothing of celeriac's
//! own types, so that celeriac's tests can use it, and it blocks: no async runtime is needed.
//!
//! Invariant: whatever it starts ends with the process that asked for it, also when that process
//! is killed with -9.

mod apt;
pub mod broker;
pub mod build_tools;
mod compose;
mod error;
mod install;
pub mod management;
pub mod node;
mod node_files;
pub mod paths;
pub mod process;
pub mod proxy;
pub mod python;
pub mod redis;
pub mod shared;
mod slim_home;
pub mod url;
pub mod vhost;
pub mod wait;

pub use broker::Broker;
pub use error::{Error, Result};
pub use management::Management;
pub use node::{NodeOptions, PrivateNode};
pub use process::Spawned;
pub use proxy::Proxy;
pub use python::Python;
pub use redis::Redis;
pub use vhost::{FetchedMessage, QueueDepth, TestVhost};
pub use wait::wait_until;

/// Tells the person at the terminal what takes time or what was tried in vain.
pub(crate) fn note(text: &str) {
    use std::io::Write;
    // Nothing is lost when nobody reads standard error.
    let _ = writeln!(std::io::stderr(), "note: {text}");
}
