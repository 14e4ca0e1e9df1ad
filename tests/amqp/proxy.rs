//! A broker that stalls: a proxy in front of the real one, which on demand lets handshakes
//! through and swallows everything that the broker says after them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::setup::within;

pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Ends everything when it is dropped.
    _end: tokio_util::sync::DropGuard,
}

#[derive(Default)]
struct Shared {
    mute: AtomicBool,
    /// Cut all connections when it changes.
    cuts: watch::Sender<u32>,
    /// Frames that were swallowed before a connection was given up by its client.
    given_up: watch::Sender<u32>,
    swallowed: AtomicU32,
}

impl Proxy {
    pub(crate) async fn new(broker: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let end = CancellationToken::new();
        let (token, accepted, broker) = (end.clone(), shared.clone(), broker.to_owned());
        let accepting = async move {
            while let Ok((client, _)) = listener.accept().await {
                let (shared, broker) = (accepted.clone(), broker.clone());
                tokio::spawn(token.clone().run_until_cancelled_owned(async move {
                    let mut cuts = shared.cuts.subscribe();
                    tokio::select! {
                        () = serve(client, &broker, &shared) => {}
                        _ = cuts.changed() => {}
                    }
                }));
            }
        };
        tokio::spawn(end.clone().run_until_cancelled_owned(accepting));
        Self { address, shared, _end: end.drop_guard() }
    }

    /// `url`, but through here.
    pub(crate) fn url(&self, url: &str) -> String {
        let (scheme, rest) = url.split_once("://").unwrap();
        let (authority, vhost) = rest.split_once('/').unwrap_or((rest, ""));
        let user = authority.rsplit_once('@').map_or(String::new(), |(user, _)| format!("{user}@"));
        format!("{scheme}://{user}{}/{vhost}", self.address)
    }

    /// Cuts all connections; those that follow get no further than their handshake.
    pub(crate) fn stall(&self) {
        self.shared.mute.store(true, Ordering::Relaxed);
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Connections that follow work.
    pub(crate) fn heal(&self) {
        self.shared.mute.store(false, Ordering::Relaxed);
    }

    /// Waits until clients have given up `count` connections on which answers were swallowed.
    pub(crate) async fn given_up(&self, count: u32) {
        let mut given_up = self.shared.given_up.subscribe();
        within(given_up.wait_for(|given_up| *given_up >= count)).await.unwrap();
        assert!(self.shared.swallowed.load(Ordering::Relaxed) >= count);
    }
}

async fn serve(client: TcpStream, broker: &str, shared: &Shared) {
    let Ok(broker) = TcpStream::connect(broker).await else { return };
    let mute = shared.mute.load(Ordering::Relaxed);
    let (mut from_client, to_client) = client.into_split();
    let (from_broker, mut to_broker) = broker.into_split();
    tokio::select! {
        _ = copy(&mut from_client, &mut to_broker) => {
            if mute {
                shared.given_up.send_modify(|given_up| *given_up += 1);
            }
        }
        _ = forward(from_broker, to_client, mute, shared) => {}
    }
}

/// Forwards frames from the broker; of a mute one only the methods of class 10, connection.
///
/// ```text
/// type:1 channel:2 size:4 | class:2 method:2 ... | end:1
/// ```
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mute: bool,
    shared: &Shared,
) -> std::io::Result<()> {
    loop {
        let mut frame = vec![0; 7];
        from.read_exact(&mut frame).await?;
        let size = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]) as usize;
        frame.resize(7 + size + 1, 0);
        from.read_exact(&mut frame[7..]).await?;
        let is_connection = frame[0] == 1 && frame[7..9] == [0, 10];
        if mute && !is_connection {
            shared.swallowed.fetch_add(1, Ordering::Relaxed);
        } else {
            to.write_all(&frame).await?;
        }
    }
}
