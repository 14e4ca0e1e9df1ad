//! What every test starts with: a virtual host, a client on it, and workers for it.

use std::future::Future;
use std::time::Duration;

use celeriac::client::config::QueueSetting;
use celeriac::worker::{RunningWorker, Stopped};
use celeriac::{App, Client, Config, Worker};
use serde_json::Value;
use xtask::{QueueDepth, TestVhost};

use crate::probe::Probe;

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Bundle {
    pub(crate) vhost: TestVhost,
    pub(crate) client: Client,
    /// What the tasks of this test's workers report to.
    pub(crate) probe: Probe,
    pub(crate) _at_last: OpensAtLast,
}

/// Lets all tasks go on when the test is over: a runtime waits for the threads that it has given to
/// blocking tasks, and a test that has failed would never end.
pub(crate) struct OpensAtLast(Probe);

impl Drop for OpensAtLast {
    fn drop(&mut self) {
        self.0.open_for_good();
    }
}

/// Fails the test instead of waiting for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("the deadline has passed")
}

/// Settings for one virtual host.
pub(crate) fn config(vhost: &TestVhost) -> Config {
    Config::builder().broker_url([vhost.url().parse().unwrap()]).build()
}

/// Stops a worker and waits for it.
pub(crate) async fn stop(worker: RunningWorker) {
    worker.handle().shutdown();
    assert_eq!(within(worker.wait()).await.unwrap(), Stopped::Warm);
}

impl Bundle {
    /// A virtual host with a client and no worker.
    pub(crate) async fn new(hint: &str) -> Self {
        Self::with(hint, |_| {}).await
    }

    /// The same with other settings of the client.
    pub(crate) async fn with(hint: &str, change: impl FnOnce(&mut Config)) -> Self {
        Self::on(TestVhost::create(hint).unwrap(), change).await
    }

    /// The same on a virtual host that is there.
    pub(crate) async fn on(vhost: TestVhost, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(&vhost);
        change(&mut config);
        let client = within(Client::connect(config)).await.unwrap();
        let probe = Probe::default();
        Self { vhost, client, _at_last: OpensAtLast(probe.clone()), probe }
    }

    /// A worker with the settings of the client.
    pub(crate) async fn worker(&self) -> RunningWorker {
        self.worker_with(|worker| worker).await
    }

    /// The same, changed.
    pub(crate) async fn worker_with(&self, change: impl FnOnce(Worker) -> Worker) -> RunningWorker {
        let config = self.client.config().clone();
        let app = App::builder().config(config).state(self.probe.clone()).build();
        let worker = change(Worker::new(app).hostname("test@host"));
        within(worker.start()).await.unwrap()
    }

    /// A worker that runs one task at a time.
    pub(crate) async fn narrow_worker(&self) -> RunningWorker {
        self.worker_with(|worker| worker.concurrency(1).blocking_slots(1)).await
    }

    /// Waits until the default queue holds this much.
    pub(crate) fn wait_for_depth(&self, ready: u64, unacked: u64) {
        self.vhost.wait_for_depth("celeriac", QueueDepth { ready, unacked }, PATIENCE).unwrap();
    }

    /// Waits until nothing of the default queue is unsettled, and checks that nothing waits.
    pub(crate) fn settled(&self) {
        self.wait_for_depth(0, 0);
        // The figures above may be those of a second ago, before anything was sent.
        assert!(self.vhost.messages("celeriac").unwrap().is_empty());
    }

    /// Names of the reply queues.
    pub(crate) fn reply_queues(&self) -> Vec<String> {
        let mut queues = self.vhost.queues().unwrap();
        queues.retain(|queue| queue.starts_with("celeriac.reply."));
        queues
    }

    /// Waits until at least `count_min` connections whose given name ends in `role` are seen, and
    /// tells their names in the broker.
    pub(crate) fn connections(&self, role: &str, count_min: usize) -> Vec<String> {
        let what = format!("{count_min} connections for {role} are seen");
        let probe = || {
            let connections = self.vhost.connections().ok()?;
            let text = |connection: &Value, key: &str| Some(connection[key].as_str()?.to_owned());
            let found = connections.iter().filter_map(|connection| {
                let given = text(connection, "user_provided_name")?;
                given.ends_with(role).then(|| text(connection, "name")).flatten()
            });
            Some(found.collect::<Vec<_>>()).filter(|found| found.len() >= count_min)
        };
        self.vhost.wait_until(&what, probe).unwrap()
    }

    /// Cuts connections by their names in the broker.
    pub(crate) fn cut(&self, names: &[String]) {
        for name in names {
            self.vhost.management().delete(&["connections", name]).unwrap();
        }
    }

    /// Cuts the connections for `role`, and waits until there are new ones.
    pub(crate) fn cut_and_wait(&self, role: &str) {
        let old = self.connections(role, 1);
        self.cut(&old);
        let back = || {
            let now = self.connections(role, old.len());
            now.iter().all(|name| !old.contains(name)).then_some(())
        };
        self.vhost.wait_until("the connections are back", back).unwrap();
    }
}

/// A setting for a queue that no worker of the tests consumes unless told to.
pub(crate) fn queue(name: &str) -> QueueSetting {
    QueueSetting::named(name)
}
