//! Connections that are open on this side and say nothing any more.

use celeriac::{Client, Config};
use xtask::Proxy;

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::tasks::{add, hold};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_connection_has_fallen_silent_sends_and_gets_results_by_another_one() {
    let bundle = Bundle::new("half-open").await;
    let worker = bundle.worker().await;
    let (proxy, url) = Proxy::for_url(bundle.vhost.url()).unwrap();
    let config = Config::builder().broker_url([url.parse().unwrap()]).broker_heartbeat(4);
    let client = within(Client::connect(config.build())).await.unwrap();
    let sent = within(client.send(add::s(1, 1))).await.unwrap();
    assert_eq!(sent.get(PATIENCE).await.unwrap(), 2);
    let held = within(client.send(hold::s("held".to_owned()))).await.unwrap();
    bundle.probe.seen(1).await;
    proxy.silence();
    // Nobody has told the client: it finds out by the heartbeats that do not come.
    bundle.probe.open(1);
    let sent = within(client.send(add::s(2, 2))).await.unwrap();
    assert_eq!(sent.get(PATIENCE).await.unwrap(), 4);
    assert_eq!(held.get(PATIENCE).await.unwrap(), "held", "its result came into the silence");
    client.close().await;
    stop(worker).await;
    bundle.settled();
}
