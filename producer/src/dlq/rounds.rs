//! Going through several parking queues one after the other.
//!
//! **Invariant:** everything that is kept is held until [`Rounds::end`].

use std::io::{IsTerminal, stderr};

use celeriac::amqp;
use celeriac::cli;
use celeriac::client::parking::{DeadLetters, Fate, Filter, Parked, Parking, Place, Tally};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{complain, connect};
use crate::args::Common;
use crate::exit::{Exit, Failure};

/// From how many messages on a bar is shown.
const BAR_MIN: u64 = 1_000;

/// The queues, and what was found in them.
pub(super) struct Rounds {
    letters: DeadLetters,
    queues: Vec<Parking>,
    filter: Filter,
    limit: Option<u64>,
    matching: u64,
    tally: Tally,
    bar: ProgressBar,
}

impl Rounds {
    /// Opens the parking queues of `queues`, or of all queues of the settings.
    pub(super) async fn begin(
        common: &Common,
        queues: &[String],
        filter: Filter,
        limit: Option<u64>,
    ) -> Result<Self, Failure> {
        Self::open(common, queues, filter, limit, |parking| parking).await
    }

    /// The same for those who keep every message.
    pub(super) async fn look(
        common: &Common,
        queues: &[String],
        filter: Filter,
        limit: Option<u64>,
    ) -> Result<Self, Failure> {
        Self::open(common, queues, filter, limit, Parking::only_look).await
    }

    async fn open(
        common: &Common,
        queues: &[String],
        filter: Filter,
        limit: Option<u64>,
        how: fn(Parking) -> Parking,
    ) -> Result<Self, Failure> {
        let (config, letters) = connect(common).await?;
        let mut names: Vec<String> =
            queues.iter().map(|name| DeadLetters::parking_queue_of(name)).collect();
        if names.is_empty() {
            names = DeadLetters::usual_queues(&config);
        }
        names.sort();
        names.dedup();
        let mut opened = Vec::new();
        for name in names {
            match letters.open(&name).await.map_err(|error| lost(&error))? {
                Some(parking) => opened.push(how(parking)),
                None if queues.is_empty() => {}
                None => {
                    let message = format!("there is no queue '{name}'");
                    return Err(Failure { exit: Exit::NotSent, message });
                }
            }
        }
        let total = opened.iter().map(Parking::total).sum();
        let (matching, tally, bar) = (0, Tally::default(), bar(total));
        Ok(Self { letters, queues: opened, filter, limit, matching, tally, bar })
    }

    /// Decides on each message that matches.
    pub(super) async fn each(
        &mut self,
        mut judge: impl FnMut(&Parked, Place, &ProgressBar) -> Fate,
    ) -> Result<(), Failure> {
        self.each_of(|_, parked, place, bar| judge(parked, place, bar)).await
    }

    /// The same with the number of the queue.
    pub(super) async fn each_of(
        &mut self,
        mut judge: impl FnMut(usize, &Parked, Place, &ProgressBar) -> Fate,
    ) -> Result<(), Failure> {
        let Self { queues, filter, limit, matching, tally, bar, .. } = self;
        let is_enough = |matching: u64| limit.is_some_and(|limit| matching >= limit);
        for (at, parking) in queues.iter_mut().enumerate() {
            if is_enough(*matching) {
                break;
            }
            let before = tally.seen;
            let decide = |parked: &Parked, place: Place, done: &Tally| {
                bar.set_position(before + done.seen);
                if is_enough(*matching) {
                    return Fate::Stop;
                }
                if !filter.takes(parked) {
                    return Fate::Keep;
                }
                *matching += 1;
                judge(at, parked, place, bar)
            };
            let failed = |error: &amqp::PublishError| {
                bar.suspend(|| {
                    complain(&format!("not sent, still parked: {}", cli::sentence(error)))
                });
            };
            let done = parking.go_through(decide, failed).await.map_err(|error| lost(&error))?;
            tally.seen += done.seen;
            tally.requeued += done.requeued;
            tally.dropped += done.dropped;
            tally.failed += done.failed;
            if done.unseen > 0 && !is_enough(*matching) {
                let why = unseen(parking.queue(), &done);
                bar.suspend(|| complain(&why));
                tally.unseen += done.unseen;
            }
        }
        Ok(())
    }

    /// How many messages matched.
    pub(super) fn matching(&self) -> u64 {
        self.matching
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// Drops what was kept in a queue.
    pub(super) fn drop_kept(&mut self, queue: usize, place: Place) {
        if let Some(parking) = self.queues.get_mut(queue) {
            parking.drop_kept(place);
            self.tally.dropped += 1;
        }
    }

    /// Gives back what was kept. The exit tells whether all messages were looked at; an error
    /// that what was dropped may still be there.
    pub(super) async fn end(self) -> Result<Exit, Failure> {
        self.bar.finish_and_clear();
        let mut ended = Ok(());
        for parking in self.queues {
            ended = ended.and(parking.close().await.map(drop));
        }
        self.letters.close().await;
        match ended {
            // What is only looked at goes back with the connection as well.
            Err(error) if self.tally.dropped > 0 => Err(lost(&error)),
            _ if self.tally.unseen > 0 => Ok(Exit::NotSent),
            _ => Ok(Exit::Success),
        }
    }
}

/// Why messages of `queue` were not looked at, and what helps.
fn unseen(queue: &str, done: &Tally) -> String {
    let Tally { seen, unseen, is_full, .. } = done;
    if *is_full {
        format!(
            "{unseen} messages of {queue} were not looked at: no more than {} that stay can be \
             held at once; requeue or drop some of those in front of them first",
            seen.saturating_sub(done.requeued).saturating_sub(done.dropped)
        )
    } else {
        format!(
            "{unseen} messages of {queue} were not looked at: others hold them or have handled \
             them; run this again"
        )
    }
}

fn lost(error: &amqp::Error) -> Failure {
    Failure::new(Exit::Unreachable, error)
}

/// Hidden unless there is much to do and somebody looks.
fn bar(total: u64) -> ProgressBar {
    let target = if total >= BAR_MIN && stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(10)
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {pos} of {len}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(total), target).with_style(style)
}
