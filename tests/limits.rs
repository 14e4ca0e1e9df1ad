//! Limits of the whole fleet, kept by real processes of which some are killed with -9.
//!
//! What is limited is a connection to this test: it sees which process has how many at once.

#![cfg(all(unix, feature = "cli"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use celeriac::{AsyncResult, Client, Config, Signature};
use xtask::process::{binary, signal};
use xtask::{QueueDepth, Spawned, TestVhost};

const SOON: Duration = Duration::from_secs(120);

/// What calls need, and may have few of at once.
#[derive(Clone)]
struct Scarce {
    address: String,
    shared: Arc<(Mutex<Seen>, Condvar)>,
}

/// What was seen so far.
#[derive(Default)]
struct Seen {
    uses: Vec<Use>,
    /// Uses beyond this one are answered at once.
    is_open: bool,
    /// The most uses of one label, and of all, at the same time.
    most_of_label: usize,
    most: usize,
    /// When each began.
    begun: Vec<Instant>,
    /// Processes that were killed; what is read of them later began before.
    killed: HashSet<u32>,
}

/// One that has not ended.
struct Use {
    pid: u32,
    label: String,
    stream: TcpStream,
}

impl Seen {
    fn begin(&mut self, begun: Use) {
        self.begun.push(Instant::now());
        if self.killed.contains(&begun.pid) {
            return;
        }
        let label = begun.label.clone();
        self.uses.push(begun);
        let of_label = self.uses.iter().filter(|it| it.label == label).count();
        self.most_of_label = self.most_of_label.max(of_label);
        self.most = self.most.max(self.uses.len());
        if self.is_open {
            self.answer();
        }
    }

    /// Lets all end that are on. They have ended before their process knows of it.
    fn answer(&mut self) {
        for mut used in self.uses.drain(..) {
            // A process that was killed hears nothing.
            let _ = used.stream.write_all(b"enough\n");
        }
    }
}

impl Scarce {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let scarce = Self { address, shared: Arc::default() };
        let server = scarce.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                server.take_in(stream);
            }
        });
        scarce
    }

    /// Each says who it is as soon as it is there.
    fn take_in(&self, stream: TcpStream) {
        let mut line = String::new();
        if BufReader::new(&stream).read_line(&mut line).is_err() {
            return;
        }
        let Some((pid, label)) = line.trim().split_once(' ') else { return };
        let (pid, label) = (pid.parse().unwrap(), label.to_owned());
        let (seen, changed) = &*self.shared;
        seen.lock().unwrap().begin(Use { pid, label, stream });
        changed.notify_all();
    }

    /// Waits for so many uses at once by processes of which `is_one` holds, and gives their ids.
    fn wait(&self, count: usize, is_one: impl Fn(u32) -> bool) -> Vec<u32> {
        self.wait_for(count, |it| is_one(it.pid))
    }

    fn wait_for(&self, count: usize, is_one: impl Fn(&Use) -> bool) -> Vec<u32> {
        let (seen, changed) = &*self.shared;
        let of = |seen: &Seen| -> Vec<u32> {
            seen.uses.iter().filter(|it| is_one(it)).map(|it| it.pid).collect()
        };
        let waiting = |seen: &mut Seen| of(seen).len() < count;
        let guard = changed.wait_timeout_while(seen.lock().unwrap(), SOON, waiting).unwrap().0;
        let found = of(&guard);
        assert!(found.len() >= count, "{} of {count} uses", found.len());
        found
    }

    /// Kills a process with -9, which ends all its uses.
    fn kill(&self, pid: u32) {
        let (seen, _) = &*self.shared;
        // Nothing begins in between.
        let mut seen = seen.lock().unwrap();
        signal(pid, "KILL").unwrap();
        seen.killed.insert(pid);
        seen.uses.retain(|it| it.pid != pid);
    }

    fn answer(&self) {
        self.shared.0.lock().unwrap().answer();
    }

    /// From now on every use ends at once.
    fn open(&self) {
        let mut seen = self.shared.0.lock().unwrap();
        seen.is_open = true;
        seen.answer();
    }
}

struct Setup {
    vhost: TestVhost,
    client: Client,
    scarce: Scarce,
}

impl Setup {
    async fn new(name: &str) -> Self {
        let vhost = TestVhost::create(name).unwrap();
        let config = Config::builder().broker_url([vhost.url().parse().unwrap()]).build();
        let client = Client::connect(config).await.unwrap();
        Self { vhost, client, scarce: Scarce::new() }
    }

    /// Starts a worker and waits until `ready` of its processes are.
    fn worker(&self, args: &[&str], ready: usize) -> Spawned {
        let mut command = Command::new(binary("examples/limits").unwrap());
        let name = format!("{}@limits", uuid::Uuid::new_v4());
        command.args(args).args(["-n", &name]).env("CELERIAC_BROKER_URL", self.vhost.url());
        let worker = Spawned::start(&mut command).unwrap();
        let mut from = 0;
        for _ in 0..ready {
            (from, _) = worker.wait_for_line_from(from, " ready.", SOON).unwrap();
        }
        worker
    }

    async fn send(
        &self,
        task: &'static str,
        labels: &[&str],
        times: usize,
    ) -> Vec<AsyncResult<String>> {
        let call = |label: &str| {
            Signature::<String>::new(task).arg(label).arg(self.scarce.address.as_str())
        };
        let calls = (0..times).flat_map(|_| labels.iter().map(|label| call(label)));
        self.client.send_all(calls).await.into_iter().collect::<Result<_, _>>().unwrap()
    }

    /// All calls succeed, and neither a message nor a permit is left.
    async fn end(self, results: Vec<AsyncResult<String>>, workers: Vec<Spawned>) {
        for result in &results {
            result.get(SOON).await.unwrap();
        }
        for mut worker in workers {
            worker.signal("TERM").unwrap();
            assert_eq!(worker.wait(SOON).unwrap().code(), Some(0), "{}", worker.output());
        }
        self.vhost.wait_for_depth("celeriac", QueueDepth { ready: 0, unacked: 0 }, SOON).unwrap();
        let left = || {
            let queues = self.vhost.queues().ok()?;
            (!queues.iter().any(|queue| queue.starts_with("celeriac.permits."))).then_some(())
        };
        self.vhost.wait_until("no permit is left", left).unwrap();
        self.client.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn permits_of_a_process_that_is_killed_come_back_and_its_calls_run_elsewhere() {
    let setup = Setup::new("limits-kill").await;
    let scarce = &setup.scarce;
    let mut doomed = setup.worker(&[], 1);
    let results = setup.send("limits.scarce", &["it"], 12).await;
    assert_eq!(scarce.wait(2, |_| true), [doomed.pid(), doomed.pid()]);
    let mut survivor = setup.worker(&[], 1);
    for _ in 0..3 {
        scarce.kill(doomed.pid());
        doomed.wait(SOON).unwrap();
        // Both, though all was held by who is gone.
        let now: HashSet<u32> = scarce.wait(2, |_| true).into_iter().collect();
        assert_eq!(now, HashSet::from([survivor.pid()]));
        doomed = std::mem::replace(&mut survivor, setup.worker(&[], 1));
    }
    scarce.open();
    let shared = Arc::clone(&scarce.shared);
    setup.end(results, vec![doomed, survivor]).await;
    assert_eq!(shared.0.lock().unwrap().most, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_holds_while_children_that_have_its_permits_are_killed_one_after_another() {
    let setup = Setup::new("limits-children").await;
    let scarce = &setup.scarce;
    let parent = setup.worker(&["--processes", "3"], 3);
    let results = setup.send("limits.scarce", &["it"], 20).await;
    let mut killed = HashSet::new();
    for round in 0..4 {
        let doomed = scarce.wait_for(2, |it| it.label == "it")[0];
        killed.insert(doomed);
        scarce.kill(doomed);
        scarce.wait_for(2, |it| it.label == "it");
        // Who could begin without a permit would have done so before this one.
        let label = format!("other {round}");
        let other = setup.send("limits.account", &[&label], 1).await;
        scarce.wait_for(1, |it| it.label == label);
        // Others have their turn, too.
        scarce.answer();
        other[0].get(SOON).await.unwrap();
    }
    assert!(!killed.contains(&parent.pid()));
    scarce.open();
    let shared = Arc::clone(&scarce.shared);
    setup.end(results, vec![parent]).await;
    let seen = shared.0.lock().unwrap();
    assert_eq!(seen.most_of_label, 2);
    assert!(seen.begun.len() >= 20 + killed.len(), "what was killed has run again");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_permits_of_each_key_come_back_from_a_process_that_is_killed() {
    let setup = Setup::new("limits-key").await;
    let scarce = &setup.scarce;
    let mut doomed = setup.worker(&[], 1);
    let results = setup.send("limits.account", &["1", "2", "3"], 4).await;
    scarce.wait(3, |pid| pid == doomed.pid());
    let survivor = setup.worker(&[], 1);
    scarce.kill(doomed.pid());
    doomed.wait(SOON).unwrap();
    scarce.wait(3, |pid| pid == survivor.pid());
    scarce.open();
    let shared = Arc::clone(&scarce.shared);
    setup.end(results, vec![survivor]).await;
    let seen = shared.0.lock().unwrap();
    assert_eq!((seen.most_of_label, seen.most), (1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_that_a_process_had_taken_count_though_it_is_killed() {
    let setup = Setup::new("limits-paced").await;
    let scarce = &setup.scarce;
    let mut doomed = setup.worker(&[], 1);
    let results = setup.send("limits.paced", &["it"], 8).await;
    scarce.wait(4, |pid| pid == doomed.pid());
    let survivor = setup.worker(&[], 1);
    scarce.kill(doomed.pid());
    doomed.wait(SOON).unwrap();
    scarce.wait(8, |pid| pid == survivor.pid());
    scarce.open();
    let shared = Arc::clone(&scarce.shared);
    setup.end(results, vec![survivor]).await;
    let begun = &shared.0.lock().unwrap().begun;
    assert!(begun.len() >= 12, "what was killed has run again");
    // Two in a second, by the broker's clock; here they are seen a little later.
    let least = Duration::from_secs(begun.len() as u64 / 4);
    assert!(begun[begun.len() - 1] - begun[0] >= least, "{begun:?}");
}
