//! Looking at parked messages: how many of them, and that what is looked at stays.

use celeriac::client::parking::{DeadLetters, Fate, Tally};
use serde_json::json;

use crate::bundle::{Bundle, PATIENCE, config};
use crate::tasks::note;

const PARKED: usize = 1200;

async fn parked(hint: &str) -> (Bundle, DeadLetters) {
    let bundle = Bundle::new(hint).await;
    let (management, vhost) = (bundle.vhost.management(), bundle.vhost.name());
    let queue = json!({"durable": true, "arguments": {"x-queue-type": "quorum"}});
    management.put(&["queues", vhost, "many.dead"], &queue).unwrap();
    let calls = (0..PARKED).map(|at| note::s(at.to_string()).queue("many.dead"));
    for sent in bundle.client.send_all(calls).await {
        sent.unwrap();
    }
    let ready = xtask::QueueDepth { ready: PARKED as u64, unacked: 0 };
    bundle.vhost.wait_for_depth("many.dead", ready, PATIENCE).unwrap();
    let letters = DeadLetters::connect(&config(&bundle.vhost)).await.unwrap();
    (bundle, letters)
}

/// Goes through the queue and keeps everything.
async fn look(letters: &DeadLetters, only: bool) -> Tally {
    let mut parking = letters.open("many.dead").await.unwrap().unwrap();
    if only {
        parking = parking.only_look();
    }
    let tally = parking.go_through(|_, _, _| Fate::Keep, |_| ()).await.unwrap();
    parking.close().await.unwrap();
    tally
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_messages_are_held_as_there_are_channels_for() {
    let (bundle, letters) = parked("parking-channels").await;
    let all = look(&letters, false).await;
    assert_eq!((all.seen, all.unseen, all.is_full), (1200, 0, false));
    let letters = letters.channels(2);
    let some = look(&letters, false).await;
    assert_eq!((some.seen, some.unseen, some.is_full), (1000, 200, true));
    // What was looked at is there again, and so are the channels.
    let all = look(&letters, true).await;
    assert_eq!((all.seen, all.unseen, all.is_full), (1200, 0, false));
    letters.close().await;
    let ready = xtask::QueueDepth { ready: PARKED as u64, unacked: 0 };
    bundle.vhost.wait_for_depth("many.dead", ready, PATIENCE).unwrap();
}
