//! A process that begins chords as programs do, and that is killed like all the others.
//!
//! It writes down what it does before and after it does it, so that nobody has to guess which
//! chords the broker has confirmed.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitCode};
use std::time::Duration;

use celeriac::{Client, chord};
use xtask::Spawned;

use crate::{PATIENCE, effects, worker};

/// Parts of each chord.
pub(crate) const PARTS: i64 = 10;
/// A chord whose parts its producer could not send any more is given up after this long.
const EXPIRES: Duration = Duration::from_secs(90);

const URL: &str = "CELERIAC_TEST_CHAOS_PRODUCER";
const JOURNAL: &str = "CELERIAC_TEST_CHAOS_JOURNAL";

/// The broker, if this process is to be a producer.
pub(crate) fn url() -> Option<String> {
    std::env::var(URL).ok()
}

/// The producer of this moment, as its test sees it.
pub(crate) struct Producer {
    url: String,
    journal: PathBuf,
    process: Spawned,
    orders: ChildStdin,
    /// Chords that are to be settled by now.
    expected: usize,
}

/// The chords that were begun.
#[derive(Debug, Default)]
pub(crate) struct Begun {
    /// The broker has confirmed all of it.
    pub(crate) confirmed: Vec<String>,
    /// The producer failed or died at it.
    pub(crate) uncertain: Vec<String>,
}

impl Producer {
    pub(crate) fn start(url: &str, directory: &Path) -> Self {
        let journal = directory.join("journal");
        File::create_new(&journal).unwrap();
        let (process, orders) = spawn(url, &journal);
        Self { url: url.to_owned(), journal, process, orders, expected: 0 }
    }

    /// Lets it begin so many chords, of which every other one `parks` its results.
    pub(crate) fn order(&mut self, chords: usize, parks: bool) {
        self.expected += chords;
        let kind = |at| if parks && at % 2 == 1 { "parks\n" } else { "plain\n" };
        self.orders.write_all((0..chords).map(kind).collect::<String>().as_bytes()).unwrap();
    }

    /// Waits until it has begun what it was to begin, or has failed to.
    pub(crate) fn wait(&self) {
        let settled = || (self.settled() >= self.expected).then_some(());
        let waited = xtask::wait_until("the chords are begun", PATIENCE, settled);
        assert!(waited.is_ok(), "{} of {}", self.settled(), self.expected);
    }

    /// Kills it with -9, and starts another one.
    pub(crate) fn kill(&mut self) {
        self.process.kill_9().unwrap();
        (self.process, self.orders) = spawn(&self.url, &self.journal);
        self.expected = self.settled();
    }

    pub(crate) fn begun(&self) -> Begun {
        let mut begun = Begun::default();
        let mut open = HashMap::new();
        let text = std::fs::read_to_string(&self.journal).unwrap();
        for (word, id) in text.lines().filter_map(|line| line.split_once(' ')) {
            match word {
                "begun" => {
                    open.remove(id);
                    begun.confirmed.push(id.to_owned());
                }
                _ => drop(open.insert(id, ())),
            }
        }
        begun.uncertain.extend(open.into_keys().map(str::to_owned));
        begun
    }

    fn settled(&self) -> usize {
        let text = std::fs::read_to_string(&self.journal).unwrap();
        text.lines().filter(|line| !line.starts_with("begins ")).count()
    }
}

fn spawn(url: &str, journal: &Path) -> (Spawned, ChildStdin) {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    Spawned::start_with_input(command.env(URL, url).env(JOURNAL, journal)).unwrap()
}

/// Begins a chord for each line that it reads.
pub(crate) fn run(url: &str) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::connect(worker::config(url)).await.unwrap();
        for order in std::io::stdin().lock().lines() {
            begin(&client, order.unwrap() == "parks").await;
        }
    });
    ExitCode::SUCCESS
}

async fn begin(client: &Client, parks: bool) {
    let id = uuid::Uuid::new_v4().to_string();
    note("begins", &id);
    let parts: Vec<_> = (0..PARTS).map(worker::part::s).collect();
    let body = worker::body::partial().task_id(&*id).reply_to(effects::QUEUE);
    let mut workflow = chord(parts, body).expires_after(EXPIRES);
    if parks {
        // Every result is parked.
        workflow = workflow.park_above(0);
    }
    match client.apply(workflow).await {
        Ok(_) => note("begun", &id),
        Err(_) => note("failed", &id),
    }
}

fn note(word: &str, id: &str) {
    let path = PathBuf::from(std::env::var_os(JOURNAL).unwrap_or_default());
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(format!("{word} {id}\n").as_bytes()).unwrap();
}
