//! Settling deliveries: tokens push verdicts, a window turns them into as few frames as it may.
//!
//! Does not send anything (see `lane.rs`). **Invariants:** no frame covers a delivery that is not
//! settled, or one that was settled otherwise; every verdict is sent exactly once.
//!
//! ```text
//! tags      1 2 3 4 5 6 7        A acked, R rejected, . open
//! verdicts  A A R A . A .   ->   ack up to 2 (multiple), reject 3, ack 4, ack 6
//! ```

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::channels::Channels;
use super::connection::lock;

/// What is to become of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Done with.
    Ack,
    /// Back to its queue.
    Requeue,
    /// To its queue's dead-letter exchange, or nowhere.
    Reject,
}

/// One frame to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) verdict: Verdict,
    pub(super) tag: u64,
    /// Whether it settles everything older that is unsettled as well.
    pub(super) multiple: bool,
}

/// The right, and the duty, to settle one delivery. Settling never waits.
///
/// Dropping it gives the message back to its queue, because an unsettled delivery would take up
/// prefetch for as long as the connection lives. A token that outlived its channel does nothing:
/// the broker has taken the message back already.
#[must_use = "a delivery that is not settled goes back to its queue"]
#[derive(Debug)]
pub struct SettleToken {
    /// `None` once it is spent, and for deliveries that need no settling.
    settlements: Option<Arc<Settlements>>,
    tag: u64,
}

impl SettleToken {
    pub(super) fn new(settlements: Arc<Settlements>, tag: u64) -> Self {
        Self { settlements: Some(settlements), tag }
    }

    /// A token that does nothing, for consumers without acks and for tests of higher floors.
    pub fn inert() -> Self {
        Self { settlements: None, tag: 0 }
    }

    /// One of the first channel of the connection `epoch`.
    #[cfg(test)]
    pub(crate) fn of_epoch(epoch: u64) -> Self {
        Self::new(Arc::new(Settlements::new(Arc::default(), epoch)), 1)
    }

    /// The message is done with.
    pub fn ack(mut self) {
        self.settle(Verdict::Ack);
    }

    /// The message goes back to its queue, marked as redelivered.
    pub fn requeue(mut self) {
        self.settle(Verdict::Requeue);
    }

    /// The message goes to its queue's dead-letter exchange, or nowhere if there is none.
    pub fn reject(mut self) {
        self.settle(Verdict::Reject);
    }

    /// Whether settling can still reach the broker.
    pub fn is_live(&self) -> bool {
        self.settlements.as_ref().is_none_or(|settlements| settlements.is_open())
    }

    /// The number of the channel that it came on; 0 if it needs no settling.
    pub fn channel(&self) -> u64 {
        self.settlements.as_ref().map_or(0, |settlements| settlements.channel)
    }

    /// Whether the broker has taken back what came on that other channel and was not settled.
    pub fn outlived(&self, channel: u64) -> bool {
        let Some(settlements) = &self.settlements else { return false };
        settlements.channels.is_gone(channel, settlements.channel)
    }

    /// Completes when settling can no longer reach the broker, which delivers the message again.
    pub async fn lost(&self) {
        match &self.settlements {
            Some(settlements) => settlements.closed.cancelled().await,
            None => std::future::pending().await,
        }
    }

    fn settle(&mut self, verdict: Verdict) {
        if let Some(settlements) = self.settlements.take() {
            settlements.push(self.tag, verdict);
        }
    }
}

impl Drop for SettleToken {
    fn drop(&mut self) {
        self.settle(Verdict::Requeue);
    }
}

/// The verdicts for one channel, from the tokens to the lane.
#[derive(Debug)]
pub(super) struct Settlements {
    open: AtomicBool,
    /// Wakes those who wait for the end; `open` is cheaper to look at.
    closed: CancellationToken,
    verdicts: Mutex<Vec<(u64, Verdict)>>,
    wake: Notify,
    channels: Arc<Channels>,
    /// Its number among them.
    channel: u64,
}

impl Settlements {
    /// For a new channel of the connection `epoch`.
    pub(super) fn new(channels: Arc<Channels>, epoch: u64) -> Self {
        Self {
            open: AtomicBool::new(true),
            closed: CancellationToken::new(),
            verdicts: Mutex::default(),
            wake: Notify::new(),
            channel: channels.opened(epoch),
            channels,
        }
    }

    fn push(&self, tag: u64, verdict: Verdict) {
        let mut verdicts = lock(&self.verdicts);
        if !self.is_open() {
            drop(verdicts);
            self.channels.add_stale(1);
            return;
        }
        verdicts.push((tag, verdict));
        let first = verdicts.len() == 1;
        drop(verdicts);
        if first {
            self.wake.notify_one();
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Waits for verdicts.
    pub(super) async fn ready(&self) {
        self.wake.notified().await;
    }

    /// Moves all verdicts into `window`.
    pub(super) fn take(&self, window: &mut AckWindow) {
        for (tag, verdict) in lock(&self.verdicts).drain(..) {
            window.settle(tag, verdict);
        }
    }

    /// Takes no more verdicts: the channel is gone.
    pub(super) fn close(&self) {
        // Under the lock, so that no token is between its look and its push.
        let mut verdicts = lock(&self.verdicts);
        self.open.store(false, Ordering::Release);
        self.channels.add_stale(verdicts.len() as u64);
        verdicts.clear();
        drop(verdicts);
        self.channels.closed(self.channel);
        self.closed.cancel();
    }
}

impl Drop for Settlements {
    fn drop(&mut self) {
        // A channel that could not be made use of was never closed.
        self.channels.closed(self.channel);
    }
}

/// What is known of each delivery of a channel. Holds those that are open, of which there are as
/// many as the prefetch allows, and nothing of those that were settled, however old the oldest is.
///
/// Delivery tags count from 1 without gaps, so a tag that was never heard of is open as well.
#[derive(Debug)]
pub(super) struct AckWindow {
    /// Below it, all that is not in `open` has been settled; from it on, nothing has.
    next: u64,
    open: BTreeSet<u64>,
    /// Everything below has been settled and sent.
    base: u64,
    /// Settled, and not sent yet.
    judged: Vec<(u64, Verdict)>,
}

impl Default for AckWindow {
    fn default() -> Self {
        Self { next: 1, open: BTreeSet::new(), base: 1, judged: Vec::new() }
    }
}

impl AckWindow {
    /// Takes a verdict. A second one for the same tag is ignored.
    pub(super) fn settle(&mut self, tag: u64, verdict: Verdict) {
        if tag >= self.next {
            self.open.extend(self.next..tag);
            self.next = tag + 1;
        } else if !self.open.remove(&tag) {
            return;
        }
        self.judged.push((tag, verdict));
    }

    /// The lowest tag that is not settled, or not sent yet.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Adds the frames that must be sent, in this order, to `out`.
    pub(super) fn flush(&mut self, out: &mut Vec<Frame>) {
        self.base = self.open.first().copied().unwrap_or(self.next);
        // The oldest first: the broker looks for each among all older ones.
        self.judged.sort_unstable_by_key(|(tag, _)| *tag);
        let mut run: Option<Frame> = None;
        for (tag, verdict) in self.judged.drain(..) {
            // One frame for each run of equal verdicts below the lowest tag that is open.
            let multiple = tag < self.base && run.is_some_and(|run| run.verdict == verdict);
            if !multiple {
                out.extend(run);
            }
            run = Some(Frame { verdict, tag, multiple });
        }
        out.extend(run);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn frames(verdicts: &[(u64, Verdict)]) -> Vec<Frame> {
        let mut window = AckWindow::default();
        let mut out = Vec::new();
        verdicts.iter().for_each(|(tag, verdict)| window.settle(*tag, *verdict));
        window.flush(&mut out);
        out
    }

    fn one(verdict: Verdict, tag: u64) -> Frame {
        Frame { verdict, tag, multiple: false }
    }

    fn up_to(verdict: Verdict, tag: u64) -> Frame {
        Frame { verdict, tag, multiple: true }
    }

    #[test]
    fn contiguous_verdicts_become_one_frame() {
        use Verdict::{Ack, Requeue};
        assert_eq!(frames(&[(2, Ack), (1, Ack), (3, Ack)]), [up_to(Ack, 3)]);
        assert_eq!(frames(&[(1, Ack)]), [one(Ack, 1)]);
        assert_eq!(frames(&[]), []);
        let given_back = (51..=400).map(|tag| (tag, Requeue));
        let all: Vec<_> = (1..=50).map(|tag| (tag, Ack)).chain(given_back).collect();
        assert_eq!(frames(&all), [up_to(Ack, 50), up_to(Requeue, 400)]);
    }

    #[test]
    fn stragglers_are_settled_alone() {
        use Verdict::{Ack, Reject};
        assert_eq!(
            frames(&[(6, Ack), (1, Ack), (2, Ack), (3, Reject), (4, Ack), (7, Reject)]),
            [up_to(Ack, 2), one(Reject, 3), one(Ack, 4), one(Ack, 6), one(Reject, 7)],
        );
    }

    #[test]
    fn what_was_settled_takes_no_room_behind_one_that_is_open() {
        let (mut window, mut out) = (AckWindow::default(), Vec::new());
        for tag in 2..10_000 {
            window.settle(tag, Verdict::Ack);
            window.flush(&mut out);
        }
        assert_eq!((window.open.len(), window.base(), out.len()), (1, 1, 9_998));
        out.clear();
        window.settle(1, Verdict::Ack);
        window.flush(&mut out);
        assert_eq!((out, window.base()), (vec![one(Verdict::Ack, 1)], 10_000));
    }

    #[test]
    fn what_was_sent_does_not_end_a_run() {
        use Verdict::{Ack, Requeue};
        let (mut window, mut out) = (AckWindow::default(), Vec::new());
        window.settle(2, Requeue);
        window.flush(&mut out);
        window.settle(3, Ack);
        window.settle(1, Ack);
        window.flush(&mut out);
        assert_eq!(out, [one(Requeue, 2), up_to(Ack, 3)]);
    }

    #[test]
    fn a_token_settles_once_and_gives_back_when_dropped() {
        let channels = Arc::new(Channels::default());
        let settlements = Arc::new(Settlements::new(channels.clone(), 1));
        SettleToken::new(settlements.clone(), 1).ack();
        drop(SettleToken::new(settlements.clone(), 2));
        let (mut window, mut out) = (AckWindow::default(), Vec::new());
        settlements.take(&mut window);
        window.flush(&mut out);
        assert_eq!(out, [one(Verdict::Ack, 1), one(Verdict::Requeue, 2)]);

        let late = SettleToken::new(settlements.clone(), 3);
        settlements.close();
        assert!(!late.is_live());
        late.ack();
        assert_eq!(channels.stale_total(), 1);
    }

    #[test]
    fn a_channel_that_was_never_made_use_of_is_not_among_the_open_ones() {
        let channels = Arc::new(Channels::default());
        let (used, unused) = (Settlements::new(channels.clone(), 1), channels.clone());
        let gone = Settlements::new(unused, 1).channel;
        assert!(channels.is_gone(gone, used.channel));
        assert!(!channels.is_gone(used.channel, used.channel));
    }

    fn verdict() -> impl Strategy<Value = Verdict> {
        use Verdict::{Ack, Reject, Requeue};
        prop_oneof![4 => Just(Ack), 1 => Just(Requeue), 1 => Just(Reject)]
    }

    proptest! {
        /// Plays the broker: every tag is settled by the frames exactly as its verdict says.
        #[test]
        fn frames_settle_every_tag_once_and_as_judged(
            order in Just((1..=60_u64).collect::<Vec<_>>()).prop_shuffle(),
            verdicts in proptest::collection::vec(verdict(), 60),
            settled in 0..=60_usize,
            bursts in proptest::collection::vec(1..=9_usize, 1..20),
        ) {
            let judged: BTreeMap<u64, Verdict> =
                order.iter().copied().zip(verdicts).take(settled).collect();
            let mut open: BTreeMap<u64, ()> = (1..=60).map(|tag| (tag, ())).collect();
            let mut window = AckWindow::default();
            let mut told = BTreeSet::new();
            let mut sizes = bursts.iter().cycle();
            let mut rest = &order[..settled];
            while !rest.is_empty() {
                let size = (*sizes.next().unwrap()).min(rest.len());
                let (burst, after) = rest.split_at(size);
                rest = after;
                for tag in burst {
                    window.settle(*tag, judged[tag]);
                    told.insert(*tag);
                }
                let mut out = Vec::new();
                window.flush(&mut out);
                for frame in out {
                    let Frame { verdict: as_judged, tag, multiple } = frame;
                    prop_assert!(open.contains_key(&tag), "unknown delivery tag");
                    let tags: Vec<u64> = match multiple {
                        true => open.range(..=tag).map(|(tag, ())| *tag).collect(),
                        false => vec![tag],
                    };
                    for tag in tags {
                        prop_assert!(told.contains(&tag), "{tag} is not settled yet");
                        prop_assert_eq!(judged[&tag], as_judged);
                        prop_assert!(open.remove(&tag).is_some(), "{} settled twice", tag);
                    }
                }
                prop_assert_eq!(60 - open.len(), told.len(), "a verdict was held back");
            }
        }
    }
}
