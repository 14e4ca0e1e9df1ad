//! Sessions: what is asked for arrives in its order, and what is unacked goes back in its order.

use std::collections::{BTreeMap, BTreeSet};

use celeriac::amqp::{
    ConsumerOptions, Error, Publish, PublishError, QueueKind, QueueSpec, Session, SessionDelivery,
    SessionEvent, SessionOptions,
};

use crate::setup::{self, Setup, connect, message, numbered, within};
use crate::tap::{ACK, CANCEL, CHANNEL_CLOSE, PUBLISH, Tap};

/// A queue whose messages one consumer at a time gets.
fn elected(kind: QueueKind) -> QueueSpec {
    let mut spec = QueueSpec { kind, ..QueueSpec::quorum("q") };
    spec.arguments.insert("x-single-active-consumer", true);
    spec
}

fn options(tag: &str) -> SessionOptions {
    SessionOptions {
        queue: "q".to_owned(),
        prefetch: 2000,
        tag: tag.to_owned(),
        ..SessionOptions::default()
    }
}

async fn open(setup: &Setup, tag: &str) -> Session {
    within(Session::open(&setup.connection, &options(tag))).await.unwrap()
}

/// What has come in a session, sorted by kind.
#[derive(Default)]
struct Log {
    delivered: Vec<SessionDelivery>,
    confirmed: Vec<u64>,
    failed: BTreeMap<u64, PublishError>,
}

impl Log {
    /// Takes events until `enough`.
    async fn fill(&mut self, session: &mut Session, enough: impl Fn(&Self) -> bool) {
        let mut events = Vec::new();
        while !enough(self) {
            within(session.next(&mut events)).await.unwrap();
            for event in events.drain(..) {
                match event {
                    SessionEvent::Delivered(delivery) => self.delivered.push(delivery),
                    SessionEvent::Confirmed { seq } => self.confirmed.push(seq),
                    SessionEvent::Failed { seq, error } => {
                        assert!(self.failed.insert(seq, error).is_none());
                    }
                }
            }
        }
    }

    fn ended(&self) -> usize {
        self.confirmed.len() + self.failed.len()
    }
}

async fn take(session: &mut Session, count: usize) -> Vec<SessionDelivery> {
    let mut log = Log::default();
    log.fill(session, |log| log.delivered.len() >= count).await;
    log.delivered
}

/// The end of a session, after whatever comes before.
async fn end(session: &mut Session) -> Error {
    let mut events = Vec::new();
    loop {
        if let Err(error) = within(session.next(&mut events)).await {
            return error;
        }
    }
}

fn text(delivery: &SessionDelivery) -> &str {
    std::str::from_utf8(&delivery.message.body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_acks_and_the_close_reach_the_broker_in_the_order_of_the_calls() {
    let setup = Setup::new("session-order").await;
    setup.declare([QueueSpec::quorum("q"), QueueSpec::quorum("out")]).await;
    setup.fill("q", 4).await;
    let tap = Tap::new(setup.vhost.url());
    let connection = connect(&tap.url).await;
    let mut session = within(Session::open(&connection, &options("s"))).await.unwrap();
    assert_eq!(take(&mut session, 4).await.len(), 4);
    let publish = |session: &mut Session, count| {
        for publish in numbered("out", 0..count) {
            session.publish(publish);
        }
    };
    publish(&mut session, 1000);
    session.ack(1);
    session.ack(2);
    publish(&mut session, 1);
    session.ack(4);
    publish(&mut session, 2);
    within(session.close()).await.unwrap();
    let methods = tap.methods().into_iter().map(|(_, class, method)| (class, method));
    let interesting = methods.filter(|it| [PUBLISH, ACK, CHANNEL_CLOSE].contains(it));
    let expected: Vec<_> = [
        vec![PUBLISH; 1000],
        // One frame for both.
        vec![ACK],
        vec![PUBLISH],
        vec![ACK],
        vec![PUBLISH; 2],
        vec![CHANNEL_CLOSE],
    ]
    .concat();
    assert_eq!(interesting.collect::<Vec<_>>(), expected);
    // Nobody waited for confirms, so the queue `out` may hold less than was published.
    setup.wait_for_depth("q", 1, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_publish_is_confirmed_once_however_the_broker_bundles_its_confirms() {
    let setup = Setup::new("session-confirms").await;
    setup.declare([QueueSpec::quorum("q")]).await;
    let mut session = open(&setup, "s").await;
    let mut seqs = BTreeSet::new();
    for publish in numbered("q", 0..5000) {
        assert!(seqs.insert(session.publish(publish)));
    }
    let mut log = Log::default();
    log.fill(&mut session, |log| log.ended() >= 5000 && log.delivered.len() >= 2000).await;
    assert_eq!(log.confirmed.len(), 5000);
    assert_eq!(log.confirmed.into_iter().collect::<BTreeSet<_>>(), seqs);
    assert_eq!(session.unconfirmed(), 0);
    let order: Vec<_> = log.delivered.iter().map(|it| text(it).parse::<usize>().unwrap()).collect();
    assert_eq!(order, (0..2000).collect::<Vec<_>>(), "its own messages come back in their order");
    assert!(log.delivered.iter().zip(1..).all(|(it, tag)| it.tag == tag && !it.redelivered));
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_publishes_that_no_queue_took_fail() {
    let setup = Setup::new("session-returned").await;
    setup.declare([QueueSpec::quorum("q"), QueueSpec::classic("out")]).await;
    let mut session = open(&setup, "s").await;
    let mut bad = BTreeSet::new();
    for n in 0..600 {
        let good = n % 3 > 0;
        let queue = if good { "out" } else { "nowhere" };
        let seq = session.publish(Publish::new("", queue, message("same")));
        if !good {
            bad.insert(seq);
        }
    }
    let huge = Publish::new("", "x".repeat(300), message(""));
    let invalid = session.publish(huge);
    let mut log = Log::default();
    log.fill(&mut session, |log| log.ended() >= 601).await;
    let error = log.failed.remove(&invalid).unwrap();
    assert!(matches!(error, PublishError::Invalid(_)), "{error:?}");
    assert!(log.failed.values().all(PublishError::is_returned));
    assert_eq!(log.failed.into_keys().collect::<BTreeSet<_>>(), bad);
    assert_eq!(log.confirmed.len(), 400);
    setup.wait_for_depth("out", 400, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_broker_ends_says_why_and_leaves_the_connection_to_others() {
    let setup = Setup::new("session-refused").await;
    setup.declare([QueueSpec::quorum("q")]).await;
    setup.fill("q", 2).await;
    let mut other = open(&setup, "other").await;
    let mut session = open(&setup, "s").await;
    session.publish(Publish::new("no such exchange", "k", message("")));
    let error = end(&mut session).await;
    assert!(error.is_not_found() && error.to_string().contains("no such exchange"), "{error}");
    assert_eq!(take(&mut other, 2).await.len(), 2);

    let missing = SessionOptions { queue: "nowhere".to_owned(), ..options("s") };
    let error = within(Session::open(&setup.connection, &missing)).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_queue_and_with_its_connection() {
    let setup = Setup::new("session-ends").await;
    setup.declare([QueueSpec::quorum("q")]).await;
    let mut session = open(&setup, "s").await;
    setup.vhost.delete_queue("q").unwrap();
    let error = end(&mut session).await;
    assert!(matches!(error, Error::Cancelled), "{error:?}");

    setup.declare([QueueSpec::quorum("q")]).await;
    let mut session = open(&setup, "s").await;
    setup.vhost.close_connections(1).unwrap();
    let error = end(&mut session).await;
    assert!(error.is_connection(), "{error:?}");
    let again = open(&setup, "s").await;
    within(again.close()).await.unwrap();
}

/// How a session is given up.
#[derive(Clone, Copy, Debug)]
enum Way {
    Close,
    Drop,
    DropWhilePublishing,
}

/// Hands a queue with 100 unacked messages from one session to the next.
async fn hand_over(kind: QueueKind, way: Way) {
    let setup = Setup::new("session-takeover").await;
    setup.declare([elected(kind), QueueSpec::classic("out")]).await;
    setup.fill("q", 100).await;
    let tap = Tap::new(setup.vhost.url());
    let connection = connect(&tap.url).await;
    let mut first = within(Session::open(&connection, &options("first"))).await.unwrap();
    assert_eq!(take(&mut first, 100).await.len(), 100);
    let mut second = open(&setup, "second").await;
    setup.fill("q", 1).await;
    assert_eq!(text(&take(&mut first, 1).await[0]), "0");
    for tag in [1, 50] {
        first.ack(tag);
    }
    second.publish(Publish::new("", "q", message("mark")));
    Log::default().fill(&mut second, |log| log.ended() == 1).await;
    assert_eq!(text(&take(&mut first, 1).await[0]), "mark", "the second one only stands by");
    match way {
        Way::Close => within(first.close()).await.unwrap(),
        Way::Drop => drop(first),
        Way::DropWhilePublishing => {
            let big = message(vec![b'x'; 4 << 20]);
            first.publish(Publish::new("", "out", big));
            let mut events = Vec::new();
            // Begins, and is given up before anything is heard.
            let _ = futures::FutureExt::now_or_never(first.next(&mut events));
            drop(first);
        }
    }
    let taken = take(&mut second, 100).await;
    let expected = (0..100).filter(|n| ![0, 49].contains(n)).map(|n| n.to_string());
    let expected: Vec<_> = expected.chain(["0".to_owned(), "mark".to_owned()]).collect();
    assert_eq!(taken.iter().map(text).collect::<Vec<_>>(), expected, "{kind:?} {way:?}");
    assert!(taken.iter().all(|delivery| delivery.redelivered));
    let closed = || (tap.count(CHANNEL_CLOSE) > 0).then_some(());
    setup.vhost.wait_until("the channel is closed", closed).unwrap();
    assert_eq!(tap.count(CANCEL), 0, "{kind:?} {way:?}");
    assert!(connection.state().borrow().is_connected(), "only the channel has ended");
    within(second.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_session_leaves_everything_unacked_to_the_next_one_in_order() {
    hand_over(QueueKind::Quorum, Way::Close).await;
    hand_over(QueueKind::Classic, Way::Close).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_session_closes_its_channel_and_cancels_nothing() {
    hand_over(QueueKind::Quorum, Way::Drop).await;
    hand_over(QueueKind::Classic, Way::Drop).await;
    hand_over(QueueKind::Quorum, Way::DropWhilePublishing).await;
}

/// What rule 17 of docs/chords.md is for: what a joiner holds has to come before all that the next
/// one publishes.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_away_by_a_cancel_comes_behind_what_the_next_one_publishes() {
    let setup = Setup::new("session-cancelled").await;
    let queue = elected(QueueKind::Quorum);
    setup.declare([queue.clone()]).await;
    setup.fill("q", 3).await;
    let mark = || Publish::new("", "q", message("mark"));
    let order = |log: &Log| log.delivered.iter().map(|it| text(it).to_owned()).collect::<Vec<_>>();

    let mut giver = open(&setup, "giver").await;
    assert_eq!(take(&mut giver, 3).await.len(), 3);
    within(giver.close()).await.unwrap();
    let (mut next, mut log) = (open(&setup, "next").await, Log::default());
    next.publish(mark());
    log.fill(&mut next, |log| log.delivered.len() >= 4).await;
    assert_eq!(order(&log), ["0", "1", "2", "mark"]);
    (1..=4).for_each(|tag| next.ack(tag));
    within(next.close()).await.unwrap();

    setup.fill("q", 3).await;
    let (mut deliveries, giver) = setup.consume(ConsumerOptions::new([queue]).prefetch(100)).await;
    let held = setup::take(&mut deliveries, 3).await;
    within(giver.cancel()).await;
    let (mut next, mut log) = (open(&setup, "next").await, Log::default());
    next.publish(mark());
    log.fill(&mut next, |log| !log.delivered.is_empty()).await;
    drop(held);
    within(giver.close()).await;
    log.fill(&mut next, |log| log.delivered.len() >= 4).await;
    assert_eq!(order(&log), ["mark", "0", "1", "2"]);
}
