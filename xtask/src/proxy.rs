//! A TCP proxy in front of a broker, which can cut connections or fall silent.
//!
//! It knows nothing of what passes through. A silent connection stays open, but nothing comes
//! through it any more: what a client sees of a host that lost its power.
//!
//! Invariant: its threads end with it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::{Error, Result};

/// A proxy that listens until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    broker: String,
    links: Mutex<Vec<Arc<Link>>>,
    ended: AtomicBool,
}

/// One connection through the proxy.
#[derive(Debug)]
struct Link {
    client: TcpStream,
    broker: TcpStream,
    silent: AtomicBool,
}

impl Proxy {
    /// Listens on a free port of this machine for connections to the broker at `address`,
    /// `host:port`.
    pub fn start(address: impl Into<String>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let shared = Arc::new(Shared {
            broker: address.into(),
            links: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let proxy = Self { address: listener.local_addr()?, shared: Arc::clone(&shared) };
        thread::Builder::new()
            .name("proxy".to_owned())
            .spawn(move || accept(&listener, &shared))?;
        Ok(proxy)
    }

    /// A proxy for the broker of `url`, and that URL through it.
    pub fn for_url(url: &str) -> Result<(Self, String)> {
        let parts = url.split_once("://");
        let (scheme, rest) =
            parts.ok_or_else(|| Error::new(format!("{url} is no URL of a broker")))?;
        let (authority, vhost) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let proxy = Self::start(host)?;
        let at = if user.is_empty() { "" } else { "@" };
        let through = format!("{scheme}://{user}{at}{}/{vhost}", proxy.address);
        Ok((proxy, through))
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.shared.links().len()
    }

    /// Cuts every connection; those that follow work.
    pub fn cut(&self) {
        for link in self.shared.links().drain(..) {
            link.close();
        }
    }

    /// Lets nothing through the connections of this moment any more, in either direction, and
    /// leaves them open; those that follow work.
    pub fn silence(&self) {
        for link in self.shared.links().iter() {
            link.silent.store(true, Ordering::Release);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.cut();
        // Wakes the thread that accepts; if that fails it ends with the process.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn links(&self) -> MutexGuard<'_, Vec<Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    fn close(&self) {
        // Either side may be closed already.
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.broker.shutdown(Shutdown::Both);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.ended.load(Ordering::Acquire) {
            return;
        }
        // A broker that is down refuses; the client sees its connection closed.
        let Ok(client) = client else { continue };
        let Ok(broker) = TcpStream::connect(&shared.broker) else { continue };
        let link = Arc::new(Link { client, broker, silent: AtomicBool::new(false) });
        // Before its threads run, which take it out again.
        shared.links().push(Arc::clone(&link));
        if serve(&link, shared).is_err() {
            link.close();
        }
    }
}

/// Copies in both directions until either side ends.
fn serve(link: &Arc<Link>, shared: &Arc<Shared>) -> std::io::Result<()> {
    let ways = [
        (link.client.try_clone()?, link.broker.try_clone()?),
        (link.broker.try_clone()?, link.client.try_clone()?),
    ];
    for (from, to) in ways {
        let (link, shared) = (Arc::clone(link), Arc::clone(shared));
        thread::Builder::new().name("proxy-link".to_owned()).spawn(move || {
            copy(from, to, &link.silent);
            // Also when it is silent: who hangs up knows it.
            link.close();
            shared.links().retain(|other| !Arc::ptr_eq(other, &link));
        })?;
    }
    Ok(())
}

/// Swallows what comes once the connection is silent.
fn copy(mut from: TcpStream, mut to: TcpStream, silent: &AtomicBool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length) = from.read(&mut buffer) {
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { return };
        if !silent.load(Ordering::Acquire) && to.write_all(bytes).is_err() {
            return;
        }
    }
}
