//! A RabbitMQ node for one test, which may be stopped, killed and started again.
//!
//! Starting one takes seconds, so only fault tests have their own; others share one through
//! [`TestVhost`].
//!
//! Invariant: the node ends with its test process, also when that is killed with -9.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use crate::install::Installation;
use crate::node_files::{Leftovers, NodeFiles, kill_node};
use crate::process::{signal, wait_child};
use crate::url::AmqpUrl;
use crate::{Error, Management, Result, TestVhost, paths, wait_until};

/// Twice what Mnesia's log waits for more, and a bit.
const KEPT_AFTER: Duration = Duration::from_secs(5);
const KEPT_WITHIN: Duration = Duration::from_secs(90);

// A node writes its queues on a graceful stop.
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// What a private node is to have beyond the usual.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// Lines for `rabbitmq.conf`, e.g. `consumer_timeout = 60000`.
    pub config: Vec<String>,
    /// Environment of the node, e.g. `("ERL_FULLSWEEP_AFTER", "0")`.
    pub environment: Vec<(String, String)>,
    /// Certificates; the node then also listens for TLS.
    pub tls: Option<TlsFiles>,
}

/// The certificates of a node.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Who signs, as PEM.
    pub ca: PathBuf,
    /// The node's certificate, as PEM.
    pub certificate: PathBuf,
    /// The node's key, as PEM.
    pub key: PathBuf,
    /// Whether clients without a certificate are refused.
    pub client_certificate_required: bool,
}

/// A running node; dropping it kills it and removes its data.
#[derive(Debug)]
pub struct PrivateNode {
    files: NodeFiles,
    keeper: Option<Child>,
    url: AmqpUrl,
    url_text: String,
    // Locked as long as this process lives; the keeper watches it.
    lease: File,
}

impl PrivateNode {
    /// Starts a node with the usual settings.
    pub fn start() -> Result<Self> {
        Self::start_with(&NodeOptions::default())
    }

    /// Starts a node with settings of its own.
    pub fn start_with(options: &NodeOptions) -> Result<Self> {
        let installation = Installation::find_or_install()?;
        let id = paths::random();
        let directory = paths::target().join("rabbitmq").join(format!("node-{:08x}", id >> 32));
        let files = NodeFiles::create(installation, directory, id, options)?;
        let lease = File::open(files.lease())?;
        lease.lock_shared()?;
        let url = files.url()?;
        let mut node = Self { files, keeper: None, url_text: url.text(), url, lease };
        node.start_again()?;
        Ok(node)
    }

    /// `amqp://guest:guest@127.0.0.1:PORT/%2F`, the same after each start.
    pub fn url(&self) -> &str {
        &self.url_text
    }

    /// The same with another virtual host, which the caller has created.
    pub fn url_for_vhost(&self, vhost: &str) -> String {
        self.url.with_vhost(vhost).text()
    }

    /// A virtual host on this node.
    pub fn vhost(&self, hint: &str) -> Result<TestVhost> {
        TestVhost::create_on(&self.url, self.management(), hint)
    }

    /// `amqps://guest:guest@localhost:PORT/%2F`; answers only with [`NodeOptions::tls`].
    pub fn tls_url(&self) -> String {
        format!("amqps://guest:guest@localhost:{}/%2F", self.files.ports.tls)
    }

    /// The node's management API.
    pub fn management(&self) -> Management {
        self.files.management()
    }

    /// The process of the node, when it runs.
    pub fn pid(&self) -> Option<u32> {
        self.files.pid()
    }

    /// The port of the node's own port mapper, which ends with the node.
    pub fn epmd_port(&self) -> u16 {
        self.files.ports.epmd
    }

    /// Stops the node as an operator would; fine when it does not run.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(pid) = self.files.pid() {
            signal(pid, "TERM")?;
        }
        self.await_keeper()
    }

    /// Kills the node with -9 and returns when it is gone; fine when it does not run.
    pub fn kill_9(&mut self) -> Result<()> {
        kill_node(&self.files.directory)?;
        self.await_keeper()
    }

    /// Waits until what was declared is on disk: nothing more is written about it.
    ///
    /// RabbitMQ 3 keeps what it knows of queues, exchanges and bindings in Mnesia, whose log stays
    /// in memory for up to two seconds: a node that is killed within them has forgotten a queue,
    /// with all that was confirmed in it. No event tells that it is written.
    pub fn wait_until_kept(&self) -> Result<()> {
        let log = self.files.directory.join("data/node/LATEST.LOG");
        let (mut size, mut since) = (0, Instant::now());
        let is_kept = || {
            let now = fs::metadata(&log).ok()?.len();
            if now != size {
                (size, since) = (now, Instant::now());
            }
            (since.elapsed() >= KEPT_AFTER).then_some(())
        };
        wait_until("the node writes nothing more down", KEPT_WITHIN, is_kept)
    }

    /// Starts the stopped or killed node again, with its data and on its ports.
    pub fn start_again(&mut self) -> Result<()> {
        if self.keeper.is_some() {
            return Err(Error::new("the node runs already"));
        }
        let keeper = self.keeper.insert(self.files.launch(0, Leftovers::Remove)?);
        self.files.wait_ready(keeper)
    }

    /// Stops the node gracefully and starts it again.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// Runs `rabbitmqctl` on this node and returns what it printed.
    ///
    /// It takes about two seconds; [`Self::management`] is faster where it can do the same.
    pub fn rabbitmqctl(&self, arguments: &[&str]) -> Result<String> {
        let output = self.files.ctl().args(arguments).output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        Err(Error::new(format!("rabbitmqctl {} failed: {}", arguments.join(" "), text.trim())))
    }

    fn await_keeper(&mut self) -> Result<()> {
        match self.keeper.take() {
            Some(mut keeper) => wait_child(&mut keeper, STOP_WITHIN).map(drop),
            None => Ok(()),
        }
    }
}

impl Drop for PrivateNode {
    fn drop(&mut self) {
        // The pid file appears some time after the start, so a half-started node is killed
        // through its keeper, which sees that the directory's lease is free.
        let _ = kill_node(&self.files.directory);
        let _ = self.lease.unlock();
        let _ = self.await_keeper();
        let _ = fs::remove_dir_all(&self.files.directory);
    }
}
