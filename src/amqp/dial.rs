//! Making one connection to one broker, within a time limit.
//!
//! Does not retry (see `supervisor.rs`). **Invariant:** an attempt that is given up leaves no
//! thread behind, even if the other side accepts and then says nothing.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lapin::ConnectionProperties;
use lapin::tcp::{AsyncTcpStream, OwnedIdentity, OwnedTLSConfig};

use super::connection::{ConnectionOptions, TlsOptions, lock};
use super::error::Error;
use super::url::BrokerUrl;

/// Connects to `url` and completes the AMQP handshake; the socket ends the connection when it is
/// dropped.
pub(super) async fn dial(
    url: &BrokerUrl,
    options: &ConnectionOptions,
) -> Result<(lapin::Connection, Socket), Error> {
    let tls = if url.is_tls() { read_tls(&options.tls)? } else { OwnedTLSConfig::default() };
    let timeout = options.connect_timeout;
    let socket = Socket::default();
    let connecting = connect(url, options, tls, socket.0.clone());
    match tokio::time::timeout(timeout, connecting).await {
        Ok(Ok(connection)) => Ok((connection, socket)),
        Ok(Err(error)) => Err(explain(url, &error)),
        Err(_) => Err(Error::ConnectTimeout { broker: url.to_string(), after: timeout }),
    }
}

async fn connect(
    url: &BrokerUrl,
    options: &ConnectionOptions,
    tls: OwnedTLSConfig,
    socket: Slot,
) -> Result<lapin::Connection, lapin::Error> {
    let properties = ConnectionProperties::default()
        .with_connection_name(options.name.as_str().into())
        .with_client_property("product".into(), "celeriac".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let (host, port) = (url.host().to_owned(), url.port());
    let (timeout, encrypted) = (options.connect_timeout, url.is_tls());
    let runtime = lapin::runtime::default_runtime()?;
    let uri = url.to_lapin(options.heartbeat_s);
    lapin::Connection::connector(
        uri,
        runtime,
        async move |_, runtime| {
            // lapin drives this on a thread of its own, so the limit outside does not end it.
            let limited = tokio::time::timeout(timeout, async {
                let addresses = tokio::net::lookup_host((host.as_str(), port)).await?;
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
                for address in addresses {
                    match AsyncTcpStream::connect(&runtime, address).await {
                        Ok(stream) => {
                            if let AsyncTcpStream::Plain(plain) = &stream {
                                remember(&socket, plain.get_ref());
                            }
                            if encrypted {
                                return stream.into_tls(&host, tls.as_ref()).await;
                            }
                            return Ok(stream);
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            });
            Ok(limited.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?)
        },
        properties,
    )
    .await
}

/// A second handle to a connection's socket, with which it can be ended from outside: a handshake
/// that nobody waits for any more, or a connection that does not answer its close.
#[derive(Debug, Default)]
pub(super) struct Socket(Slot);

type Slot = Arc<Mutex<Option<std::net::TcpStream>>>;

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(socket) = lock(&self.0).take() {
            // The other side may have closed it already, which is as good.
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

#[cfg(unix)]
fn remember(slot: &Slot, stream: &tokio::net::TcpStream) {
    use std::os::fd::AsFd;
    *lock(slot) = stream.as_fd().try_clone_to_owned().ok().map(Into::into);
}

#[cfg(windows)]
fn remember(slot: &Slot, stream: &tokio::net::TcpStream) {
    use std::os::windows::io::AsSocket;
    *lock(slot) = stream.as_socket().try_clone_to_owned().ok().map(Into::into);
}

fn explain(url: &BrokerUrl, error: &lapin::Error) -> Error {
    let (reason, permanent) = match error.kind() {
        // 403: the credentials are refused; 530: no such virtual host, or no access to it.
        lapin::ErrorKind::ProtocolError(refusal) => {
            let code = refusal.get_id();
            (format!("{code} {}", refusal.get_message()), matches!(code, 403 | 530))
        }
        lapin::ErrorKind::IOError(error) => (error.to_string(), false),
        _ => (error.to_string(), false),
    };
    Error::Connect { broker: url.to_string(), reason, permanent }
}

fn read_tls(options: &TlsOptions) -> Result<OwnedTLSConfig, Error> {
    let text = |bytes| String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into());
    let cert_chain = options.ca.as_deref().map(|path| read(path, text)).transpose()?;
    let identity = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => {
            Some(OwnedIdentity::PKCS8 { pem: read(cert, Ok)?, key: read(key, Ok)? })
        }
        (None, None) => None,
        (Some(cert), None) => Some(OwnedIdentity::PKCS8 {
            // One file may hold both, as many tools write it.
            pem: read(cert, Ok)?,
            key: read(cert, Ok)?,
        }),
        (None, Some(key)) => {
            let reason = io::Error::new(io::ErrorKind::NotFound, "a key without a certificate");
            return Err(Error::Tls { path: key.display().to_string(), source: Arc::new(reason) });
        }
    };
    Ok(OwnedTLSConfig { identity, cert_chain })
}

/// Reads a small local file; blocking for that is cheaper than a thread.
fn read<T>(path: &Path, then: impl Fn(Vec<u8>) -> io::Result<T>) -> Result<T, Error> {
    std::fs::read(path)
        .and_then(then)
        .map_err(|source| Error::Tls { path: path.display().to_string(), source: Arc::new(source) })
}

/// How long a polite close may take before the connection is simply dropped.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
