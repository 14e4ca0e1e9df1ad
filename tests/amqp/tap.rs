//! A relay in front of the broker that remembers which methods the client has sent.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A method frame of the client: channel, class and method.
pub(crate) type Method = (u16, u16, u16);

pub(crate) const CHANNEL_CLOSE: (u16, u16) = (20, 40);
pub(crate) const CANCEL: (u16, u16) = (60, 30);
pub(crate) const PUBLISH: (u16, u16) = (60, 40);
pub(crate) const ACK: (u16, u16) = (60, 80);

pub(crate) struct Tap {
    pub(crate) url: String,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    /// Relays one connection to the broker of `url`.
    pub(crate) fn new(url: &str) -> Self {
        let (before, rest) = url.split_once('@').unwrap();
        let (broker, vhost) = rest.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let sent = Arc::new(Mutex::new(Vec::new()));
        let (broker, record) = (broker.to_owned(), Arc::clone(&sent));
        thread::spawn(move || {
            let (client, _) = listener.accept().unwrap();
            let server = TcpStream::connect(broker).unwrap();
            let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || relay(from, to, |_| ()));
            relay(client, server, |bytes| record.lock().unwrap().extend_from_slice(bytes));
        });
        Self { url: format!("{before}@127.0.0.1:{port}/{vhost}"), sent }
    }

    /// All methods so far, in their order.
    pub(crate) fn methods(&self) -> Vec<Method> {
        let sent = self.sent.lock().unwrap();
        // After the protocol header: type, channel, size, payload, end mark.
        let mut rest = sent.get(8..).unwrap_or_default();
        let mut methods = Vec::new();
        while let [kind, c1, c2, s1, s2, s3, s4, payload @ ..] = rest {
            let size = u32::from_be_bytes([*s1, *s2, *s3, *s4]) as usize;
            if let (1, [a, b, c, d, ..]) = (kind, payload) {
                let pair = |a, b| u16::from_be_bytes([a, b]);
                methods.push((pair(*c1, *c2), pair(*a, *b), pair(*c, *d)));
            }
            rest = payload.get(size + 1..).unwrap_or_default();
        }
        methods
    }

    /// How often the client has sent this.
    pub(crate) fn count(&self, wanted: (u16, u16)) -> usize {
        self.methods().iter().filter(|(_, class, method)| (*class, *method) == wanted).count()
    }
}

fn relay(mut from: TcpStream, mut to: TcpStream, look: impl Fn(&[u8])) {
    let mut buffer = [0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        look(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
