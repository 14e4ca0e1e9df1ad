//! Virtual hosts of tests on the shared broker: created, looked into, cut off and deleted.

#![expect(clippy::unwrap_used, reason = "these helpers of tests are not in test functions")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;
use xtask::url::AmqpUrl;
use xtask::{QueueDepth, TestVhost};

const SOON: Duration = Duration::from_secs(120);

#[test]
fn a_virtual_host_exists_until_it_is_dropped() {
    let vhost = TestVhost::create("dropped").unwrap();
    let (management, name) = (vhost.management().clone(), vhost.name().to_owned());
    assert!(management.get(&["vhosts", &name]).unwrap().is_some());
    assert!(vhost.url().ends_with(&name));
    drop(vhost);
    assert!(management.get(&["vhosts", &name]).unwrap().is_none());
}

#[test]
fn messages_are_published_counted_shown_and_purged() {
    let vhost = TestVhost::create("messages").unwrap();
    let create = |queue: &str| {
        vhost
            .management()
            .put(&["queues", vhost.name(), queue], &json!({"durable": true}))
            .unwrap();
    };
    create("with/slash");
    create("other");
    assert_eq!(vhost.queues().unwrap(), ["other", "with/slash"]);
    let properties = json!({"content_type": "application/x-msgpack", "headers": {"id": "1"}});
    let payload = b"\x93\x00\xff";
    assert!(vhost.publish("", "with/slash", &properties, payload).unwrap());
    assert!(!vhost.publish("", "nowhere", &properties, payload).unwrap());

    vhost.wait_for_depth("with/slash", QueueDepth { ready: 1, unacked: 0 }, SOON).unwrap();
    let messages = vhost.messages("with/slash").unwrap();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].payload, payload);
    assert_eq!(messages[0].properties["content_type"], "application/x-msgpack");
    assert_eq!(messages[0].header("id").unwrap(), "1");

    vhost.purge("with/slash").unwrap();
    vhost.wait_for_depth("with/slash", QueueDepth::default(), SOON).unwrap();
    vhost.delete_queue("with/slash").unwrap();
    assert!(vhost.queue_depth("with/slash").is_err());
    assert_eq!(vhost.queues().unwrap(), ["other"]);
}

#[test]
fn connections_are_cut() {
    let vhost = TestVhost::create("cut").unwrap();
    let mut stream = connect(&AmqpUrl::parse(vhost.url()).unwrap());
    assert_eq!(vhost.close_connections(1).unwrap(), 1);
    // Connection.Close, and the end of the stream as it is not answered.
    stream.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(method(&read_frame(&mut stream)), (10, 50));
}

/// Opens an AMQP connection by hand: this crate has no client, and needs none elsewhere.
fn connect(url: &AmqpUrl) -> TcpStream {
    let mut stream = TcpStream::connect((url.host.as_str(), url.port)).unwrap();
    stream.write_all(b"AMQP\x00\x00\x09\x01").unwrap();
    assert_eq!(method(&read_frame(&mut stream)), (10, 10));

    // Start-Ok: no client properties, mechanism, response, locale.
    let login = format!("\0{}\0{}", url.user, url.password);
    let mut start_ok = vec![0, 10, 0, 11, 0, 0, 0, 0, 5];
    start_ok.extend(b"PLAIN");
    start_ok.extend(u32::try_from(login.len()).unwrap().to_be_bytes());
    start_ok.extend(login.as_bytes());
    start_ok.extend(b"\x05en_US");
    write_frame(&mut stream, &start_ok);
    let tune = read_frame(&mut stream);
    assert_eq!(method(&tune), (10, 30));

    // Tune-Ok repeats what was proposed; no heartbeats, so that silence is allowed.
    let mut tune_ok = vec![0, 10, 0, 31];
    tune_ok.extend(&tune[4..10]);
    tune_ok.extend([0, 0]);
    write_frame(&mut stream, &tune_ok);
    let mut open = vec![0, 10, 0, 40, u8::try_from(url.vhost.len()).unwrap()];
    open.extend(url.vhost.as_bytes());
    open.extend([0, 0]);
    write_frame(&mut stream, &open);
    assert_eq!(method(&read_frame(&mut stream)), (10, 41));
    stream
}

fn method(payload: &[u8]) -> (u8, u8) {
    (payload[1], payload[3])
}

fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 7];
    stream.read_exact(&mut head).unwrap();
    let size = u32::from_be_bytes(head[3..7].try_into().unwrap());
    let mut payload = vec![0; usize::try_from(size).unwrap() + 1];
    stream.read_exact(&mut payload).unwrap();
    payload
}

fn write_frame(stream: &mut TcpStream, payload: &[u8]) {
    let mut frame = vec![1, 0, 0];
    frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend(payload);
    frame.push(0xCE);
    stream.write_all(&frame).unwrap();
}
