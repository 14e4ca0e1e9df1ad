//! Following how far a chord is, by asking its joiner now and then.
//!
//! Does not know how the chord ends: the result of its body says that. **Invariant:** however long
//! nobody answers, the questions that wait for a joiner stay few.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::inquiry::Inquiry;
use super::{ChordError, Client};
use crate::protocol::join::{ChordState, Inspection};

/// The time between two questions, at least.
const EVERY: Duration = Duration::from_secs(1);

/// How long it is waited for the first answer before it is asked again; each time twice as long.
const SILENCE_MIN: Duration = Duration::from_secs(30);
const SILENCE_MAX: Duration = Duration::from_secs(3600);

/// How far a chord is, each time that this has changed.
#[derive(Debug)]
pub struct ChordProgress {
    inquiry: Inquiry,
    /// When the last question was asked.
    asked: Option<Instant>,
    /// No question waits for its answer.
    is_answered: bool,
    /// How long it is waited for the next answer.
    silence: Duration,
    last: Option<Inspection>,
    /// Somebody knows that the chord is still to begin.
    is_to_begin: bool,
    is_over: bool,
}

impl Client {
    /// Follows how far a chord is, whoever has sent it; `chord` is the id of its header.
    ///
    /// The joiner is asked at most once a second. The parts of a chord report to nobody else unless
    /// [`header_results`](crate::Chord::header_results) are asked for.
    ///
    /// The chord must have been made with as many `join_shards` as this client has.
    ///
    /// ```no_run
    /// # async fn example(client: celeriac::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use celeriac::Workflow;
    ///
    /// let header = (1..=100).map(|n| Workflow::task("square", [n.into()]));
    /// let chord = Workflow::chord(header, Workflow::task("sum_task", []));
    /// let sum = chord.apply_async(&client).await?;
    /// let header = sum.parent().map(|header| header.id()).unwrap_or_default();
    /// let mut progress = client.chord_progress(header).await?;
    /// while let Some(seen) = progress.next().await? {
    ///     println!("{} of {}", seen.ended(), seen.size);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When the queue for the answers cannot be declared or read.
    pub async fn chord_progress(&self, chord: &str) -> Result<ChordProgress, ChordError> {
        Ok(ChordProgress {
            inquiry: Inquiry::open(self, chord).await?,
            asked: None,
            is_answered: true,
            silence: SILENCE_MIN,
            last: None,
            is_to_begin: false,
            is_over: false,
        })
    }
}

impl ChordProgress {
    /// Goes on while the chord is unknown, as one that a later step of a chain is to begin. Who has
    /// missed all of it waits for ever then, unless something else ends the wait.
    #[must_use]
    pub fn still_to_begin(self) -> Self {
        Self { is_to_begin: true, ..self }
    }

    /// Waits until more is known of the chord, and says how far it is; `None` once it is over, or
    /// if the joiner does not know it. How it has ended is said by the result of its body.
    ///
    /// While no joiner answers, because no worker runs for instance, this waits. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    /// When the broker cannot be used; it may be tried again.
    pub async fn next(&mut self) -> Result<Option<Inspection>, ChordError> {
        while !self.is_over {
            let seen = self.look().await?;
            match seen.state {
                ChordState::Collecting => {}
                ChordState::Unknown if self.is_to_begin && self.last.is_none() => continue,
                ChordState::Unknown | ChordState::Decided | ChordState::Finished => {
                    self.is_over = true;
                    break;
                }
            }
            let counts = |it: &Inspection| (it.size, it.missing_count, it.failed);
            if self.last.as_ref().map(counts) != Some(counts(&seen)) {
                self.last = Some(seen.clone());
                return Ok(Some(seen));
            }
        }
        Ok(None)
    }

    async fn look(&mut self) -> Result<Inspection, ChordError> {
        loop {
            let asked = match self.asked.filter(|_| !self.is_answered) {
                Some(asked) => asked,
                None => self.ask().await?,
            };
            match timeout_at(asked + self.silence, self.inquiry.answer()).await {
                Ok(answer) => {
                    (self.is_answered, self.silence) = (true, SILENCE_MIN);
                    return answer;
                }
                // It may be lost.
                Err(_) => {
                    self.is_answered = true;
                    self.silence = (self.silence * 2).min(SILENCE_MAX);
                }
            }
        }
    }

    /// Asks once more, when it is time.
    async fn ask(&mut self) -> Result<Instant, ChordError> {
        if let Some(asked) = self.asked {
            sleep_until(asked + EVERY).await;
        }
        let now = Instant::now();
        self.asked = Some(now);
        self.inquiry.ask().await?;
        self.is_answered = false;
        Ok(now)
    }
}
