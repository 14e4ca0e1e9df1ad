//! Elections of Python's workers, in which each worker that is alive has to agree.
//!
//! Nobody is elected here. **Invariant:** an election that Python's workers hold ends although
//! workers of ours are among them.

use std::sync::Arc;
use std::time::Duration;

use crate::protocol::Map;
use crate::protocol::event::EventKind;
use crate::worker::running::Crew;

/// Ballots that may be under way; in later ones this worker takes no part.
pub(super) const BALLOTS_MAX: usize = 100;

/// Until this worker agrees: one that has not heard of the election yet would not count it, and
/// the command and the event come to it by different ways.
const PAUSE: Duration = Duration::from_secs(1);

/// How long the id of an election is at most, in bytes; Celery's are UUIDs.
const ID_MAX: usize = 255;

/// Agrees with whatever comes of the election `id`. A worker that finishes what runs does so, too:
/// to the others it is alive until it has told that it is not.
pub(in crate::worker) fn agree(crew: &Arc<Crew>, id: &str) {
    if id.len() > ID_MAX {
        return;
    }
    let Ok(ballot) = Arc::clone(&crew.events.ballots).try_acquire_owned() else { return };
    let (crew, id) = (Arc::downgrade(crew), id.to_owned());
    tokio::spawn(async move {
        tokio::time::sleep(PAUSE).await;
        if let Some(crew) = crew.upgrade() {
            let (name, fields) = ("worker-elect-ack".to_owned(), Map::from_iter([("id", id)]));
            crew.events.dispatcher.send(EventKind::Custom { name, fields });
        }
        drop(ballot);
    });
}
