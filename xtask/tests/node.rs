//! A private node is started, killed, started again and stopped; one node does for all of it.

use std::time::Duration;

use serde_json::json;
use xtask::process::is_alive;
use xtask::{PrivateNode, QueueDepth, wait_until};

const SOON: Duration = Duration::from_secs(120);

#[test]
fn a_killed_node_starts_again_with_its_durable_queues_and_a_stopped_one_too() {
    let mut node = PrivateNode::start().unwrap();
    let management = node.management();
    let vhost = node.vhost("kept").unwrap();
    let queue = ["queues", vhost.name(), "durable"];
    management.put(&queue, &json!({"durable": true})).unwrap();
    let persistent = json!({"delivery_mode": 2});
    assert!(vhost.publish("", "durable", &persistent, b"kept").unwrap());

    let killed = node.pid().unwrap();
    node.kill_9().unwrap();
    assert!(!is_alive(killed));
    assert!(!management.answers());
    node.start_again().unwrap();
    assert_ne!(node.pid(), Some(killed));
    let one = QueueDepth { ready: 1, unacked: 0 };
    vhost.wait_for_depth("durable", one, SOON).unwrap();

    node.restart().unwrap();
    vhost.wait_for_depth("durable", one, SOON).unwrap();
    assert_eq!(vhost.messages("durable").unwrap()[0].payload, b"kept");
    let listed = node.rabbitmqctl(&["list_queues", "-p", vhost.name(), "name", "--quiet"]).unwrap();
    assert!(listed.contains("durable"), "{listed}");

    drop(vhost);
    let (pid, epmd) = (node.pid().unwrap(), node.epmd_port());
    drop(node);
    assert!(!is_alive(pid));
    wait_until("the port mapper is gone", SOON, || {
        std::net::TcpListener::bind(("127.0.0.1", epmd)).ok().map(drop)
    })
    .unwrap();
}
