//! `call --from FILE`: many calls, one a line, as fast as the broker confirms them.
//!
//! A line that is wrong, or that the broker refuses, is told with its number and does not hold up
//! the others. **Invariant:** memory does not grow with the number of lines: a chunk is sent
//! before many others are taken, and no more than some [`WAITING_MAX`] results are awaited.

use std::io::{self, Write};
use std::pin::pin;
use std::time::{Duration, Instant};

use celeriac::client::SendError;
use celeriac::protocol::{Map, Value};
use celeriac::{AsyncResult, Client, Config, Signature, cli};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use crate::args::{CallArgs, Common};
use crate::call::{Outcome, Sent};
use crate::connect;
use crate::exit::{Exit, Failure};
use crate::input::{self, Call};
use crate::lines::{self, Line};
use crate::output::{Output, to_json};
use crate::progress::{Counts, Progress};

/// The most calls that are sent together. While the input pauses, what is there is sent.
const CHUNK_MAX: usize = lines::AHEAD_MAX;

/// The most chunks that are under way: while one is confirmed, the next is read and encoded.
const SENDING_MAX: usize = 4;

/// The most results that are awaited at a time.
const WAITING_MAX: usize = 10_000;

/// Sends the calls of a file, and tells at the end how it went.
pub(crate) async fn run(common: &Common, args: &CallArgs) -> Result<Exit, Failure> {
    let path = args.from.as_deref().unwrap_or_else(|| "-".as_ref());
    let config = connect::config(common)?;
    let unreadable = |error: &io::Error| {
        Failure::usage(format!("failed to read {}: {}", path.display(), cli::sentence(error)))
    };
    let mut lines = lines::open(path).map_err(|error| unreadable(&error))?;
    let client = connect::client(&config).await?;
    let mut batch = Batch {
        client,
        config,
        defaults: input::options(&args.options),
        output: Output::new(common.json),
        progress: Progress::start(lines::size(path)),
        timeout: args.wait.then_some(args.timeout),
        sending: JoinSet::new(),
        waiting: JoinSet::new(),
        counts: Counts::default(),
        worst: Exit::Success,
    };

    let outcome = batch.run(&mut lines, unreadable).await;
    batch.summarise();
    batch.client.close().await;
    outcome.map(|()| batch.worst)
}

/// A run under way.
struct Batch {
    client: Client,
    config: Config,
    /// Call options of the command line.
    defaults: Map,
    output: Output,
    progress: Progress,
    /// How long to wait for each result, if results are awaited.
    timeout: Option<Duration>,
    sending: JoinSet<Confirmed>,
    waiting: JoinSet<Ended>,
    counts: Counts,
    worst: Exit,
}

/// A chunk whose calls were confirmed or refused, each.
struct Confirmed {
    bytes: u64,
    calls: Vec<(u64, Sent)>,
    results: Vec<Result<AsyncResult<Value>, SendError>>,
    started: Instant,
}

/// A call whose result came, or did not in time.
struct Ended {
    line: u64,
    sent: Sent,
    id: String,
    outcome: Outcome,
}

impl Batch {
    /// Sends all lines, and waits until nothing is under way any more or Ctrl-C is pressed.
    async fn run(
        &mut self,
        lines: &mut mpsc::Receiver<io::Result<Line>>,
        unreadable: impl Fn(&io::Error) -> Failure,
    ) -> Result<(), Failure> {
        // One listener for the whole run: a signal between two of them would be lost.
        let mut interrupt = pin!(interrupted());
        let mut chunk = Vec::with_capacity(CHUNK_MAX);
        let mut reading = true;
        loop {
            if !reading && self.sending.is_empty() && self.waiting.is_empty() {
                return Ok(());
            }
            tokio::select! {
                taken = lines.recv_many(&mut chunk, CHUNK_MAX), if reading && self.has_room() => {
                    reading = taken > 0;
                    let whole: io::Result<Vec<Line>> = chunk.drain(..).collect();
                    match whole {
                        Ok(lines) if lines.is_empty() => {}
                        Ok(lines) => self.send(lines),
                        Err(error) => return Err(unreadable(&error)),
                    }
                }
                Some(confirmed) = self.sending.join_next(), if !self.sending.is_empty() => {
                    self.confirmed(confirmed)?;
                }
                Some(ended) = self.waiting.join_next(), if !self.waiting.is_empty() => {
                    self.ended(ended)?;
                }
                () = &mut interrupt => {
                    self.worst = Exit::Interrupted;
                    return Ok(());
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        self.sending.len() < SENDING_MAX && self.waiting.len() < WAITING_MAX
    }

    fn send(&mut self, lines: Vec<Line>) {
        let bytes = lines.iter().map(|line| line.bytes.len() as u64 + 1).sum();
        let mut calls: Vec<(u64, Sent)> = Vec::with_capacity(lines.len());
        let mut signatures = Vec::with_capacity(lines.len());
        for line in lines {
            match self.read(&line) {
                Ok((sent, signature)) => {
                    calls.push((line.number, sent));
                    signatures.push(signature);
                }
                Err(reason) => {
                    self.counts.malformed += 1;
                    self.refuse(line.number, None, Exit::Usage, &reason);
                }
            }
        }
        let client = self.client.clone();
        self.sending.spawn(async move {
            let started = Instant::now();
            let results = client.send_all(signatures).await;
            Confirmed { bytes, calls, results, started }
        });
    }

    fn confirmed(&mut self, confirmed: Result<Confirmed, JoinError>) -> Result<(), Failure> {
        let Confirmed { bytes, calls, results, started } =
            confirmed.map_err(|error| Failure::new(Exit::Unreachable, &error))?;
        for ((line, sent), result) in calls.into_iter().zip(results) {
            match result {
                Ok(result) => self.sent(line, sent, result, started),
                Err(error) => self.not_sent(line, &sent, &error)?,
            }
        }
        self.progress.advance(bytes, &self.counts);
        Ok(())
    }

    fn read(&self, line: &Line) -> Result<(Sent, Signature<Value>), String> {
        let call = Call::from_line(&line.bytes, &self.defaults)?;
        Ok((Sent::new(&call), call.into_signature(&self.config)?))
    }

    fn sent(&mut self, line: u64, sent: Sent, result: AsyncResult<Value>, started: Instant) {
        self.counts.sent += 1;
        if let Some(timeout) = self.timeout {
            self.waiting.spawn(async move {
                let outcome = Outcome::wait(&result, timeout, started).await;
                Ended { line, sent, id: result.id().to_owned(), outcome }
            });
            return;
        }
        self.output.show_to_programs(|| {
            let mut object = sent.to_object(result.id(), "SENT");
            object.push("line", line);
            object
        });
    }

    fn not_sent(&mut self, line: u64, sent: &Sent, error: &SendError) -> Result<(), Failure> {
        let failure = connect::not_sent(error);
        if failure.exit == Exit::Unreachable {
            let message = format!("line {line}: {}", failure.message);
            return Err(Failure { message, ..failure });
        }
        if failure.exit == Exit::Usage {
            self.counts.malformed += 1;
        } else {
            self.counts.not_sent += 1;
        }
        self.refuse(line, Some(sent), failure.exit, &failure.message);
        Ok(())
    }

    /// Tells of a line that was not sent.
    fn refuse(&mut self, line: u64, sent: Option<&Sent>, exit: Exit, reason: &str) {
        self.worst = self.worst.max(exit);
        self.progress.suspend(|| {
            // If standard error is gone, there is nobody to tell.
            let _ = writeln!(io::stderr().lock(), "error: line {line}: {reason}");
        });
        self.output.show_to_programs(|| {
            let mut object = Map::new();
            object.push("line", line);
            object.push("task", sent.map(|sent| sent.task.as_str()));
            object.push("status", "NOT_SENT");
            object.push("error", reason);
            object
        });
    }

    fn ended(&mut self, ended: Result<Ended, JoinError>) -> Result<(), Failure> {
        let Ended { line, sent, id, outcome } =
            ended.map_err(|error| Failure::new(Exit::TaskFailed, &error))?;
        outcome.check_client()?;
        let exit = outcome.exit();
        match exit {
            Exit::Success => self.counts.succeeded += 1,
            Exit::Timeout => self.counts.timed_out += 1,
            _ => self.counts.failed += 1,
        }
        self.worst = self.worst.max(exit);
        let output = self.output;
        self.progress.suspend(|| {
            output.show(
                || format!("line {line}: {}[{id}] {}", sent.task, outcome.to_text()),
                || {
                    let mut object = outcome.to_object(&sent, &id);
                    object.push("line", line);
                    object
                },
            );
        });
        self.progress.advance(0, &self.counts);
        Ok(())
    }

    /// Tells on standard error how it went.
    fn summarise(&self) {
        self.progress.finish();
        let line = match self.output {
            Output::People => self.progress.summary(&self.counts, self.timeout.is_some()),
            Output::Programs => to_json(&Value::Map(self.progress.object(&self.counts))),
        };
        // If standard error is gone, there is nobody to tell.
        let _ = writeln!(io::stderr().lock(), "{line}");
    }
}

/// Completes when Ctrl-C is pressed; if that cannot be heard, its default ends the process.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
