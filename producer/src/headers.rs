//! Headers of chords that do not report to this process: how many of their parts have ended, as
//! their joiners say.
//!
//! Only for a bar: what cannot be asked for is left out. **Invariant:** at most [`ASKED_MAX`]
//! chords are asked about at a time, and nothing waits for an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use celeriac::{AnyResult, Client, GroupResult};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Chords that are asked about at a time.
const ASKED_MAX: usize = 8;

/// How often it is looked whether a body has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The silent headers of a workflow.
#[derive(Debug, Default)]
pub(crate) struct Headers(Vec<Header>);

#[derive(Clone, Debug)]
struct Header {
    chord: String,
    size: usize,
    ended: Arc<AtomicUsize>,
    /// The result of the body.
    body: AnyResult,
}

impl Headers {
    /// Adds the header of the chord with this body, if nothing of it reports.
    pub(crate) fn add(&mut self, header: &GroupResult, body: &AnyResult) {
        if header.ignored() {
            self.0.push(Header {
                chord: header.id().to_owned(),
                size: header.len(),
                ended: Arc::default(),
                body: body.clone(),
            });
        }
    }

    /// Number of parts.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|header| header.size).sum()
    }

    /// How many parts have ended, as far as is known.
    pub(crate) fn ended(&self) -> usize {
        self.0.iter().map(Header::ended).sum()
    }

    /// Asks until all chords are over.
    pub(crate) async fn follow(&self, client: &Client) {
        let room = Arc::new(Semaphore::new(ASKED_MAX));
        let mut following = JoinSet::new();
        // They were found from the last one on.
        for header in self.0.iter().rev() {
            let (header, client, room) = (header.clone(), client.clone(), Arc::clone(&room));
            following.spawn(async move {
                let _room = room.acquire_owned().await;
                tokio::select! {
                    () = header.follow(&client) => {}
                    () = header.over() => {}
                }
            });
        }
        while following.join_next().await.is_some() {}
    }
}

impl Header {
    fn ended(&self) -> usize {
        if self.body.ready() { self.size } else { self.ended.load(Ordering::Relaxed) }
    }

    async fn follow(&self, client: &Client) {
        let Ok(progress) = client.chord_progress(&self.chord).await else { return };
        let mut progress = progress.still_to_begin();
        loop {
            let ended = match progress.next().await {
                Ok(Some(seen)) => usize::try_from(seen.ended()).unwrap_or(self.size),
                Ok(None) => self.size,
                Err(_) => return,
            };
            self.ended.store(ended.min(self.size), Ordering::Relaxed);
            if ended >= self.size {
                return;
            }
        }
    }

    async fn over(&self) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        while !self.body.ready() {
            look.tick().await;
        }
    }
}
