//! What a broker says before anybody logs in: its product and version.
//!
//! Read by hand, because the client library keeps it to itself. Only the one frame is understood:
//!
//! ```text
//! client  "AMQP" 0 0 9 1
//! broker  01 0000 <size:4>  000a 000a  00 09  <table: version, product, …>  …
//!         method, channel 0  class, method  0.9
//! ```
//!
//! **Invariant:** total: any bytes give an identity or none, and no more than [`FRAME_MAX`] are
//! read.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::BrokerUrl;

/// The first frame is about 500 bytes long.
const FRAME_MAX: usize = 16 * 1024;

/// What a broker calls itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerIdentity {
    /// For example `RabbitMQ`.
    pub product: String,
    /// For example `4.1.0`.
    pub version: String,
}

/// Opens a connection of its own, reads the broker's first words and how long they took, and
/// hangs up. `None` over TLS, and when something that is not a broker answers.
///
/// # Errors
/// When nothing answers within `timeout`.
pub async fn greeting(
    url: &BrokerUrl,
    timeout: Duration,
) -> io::Result<Option<(ServerIdentity, Duration)>> {
    if url.is_tls() {
        return Ok(None);
    }
    let address = (url.host().to_owned(), url.port());
    let reading = tokio::task::spawn_blocking(move || read(address, timeout));
    reading.await.map_err(io::Error::other)?
}

fn read(
    address: impl ToSocketAddrs,
    timeout: Duration,
) -> io::Result<Option<(ServerIdentity, Duration)>> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(timeout))?;
                let asked = Instant::now();
                stream.write_all(b"AMQP\0\0\x09\x01")?;
                let frame = read_frame(&mut stream)?;
                return Ok(identity(&frame).map(|identity| (identity, asked.elapsed())));
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// The payload of the first frame; empty if it is no frame.
fn read_frame(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = [0; 7];
    stream.read_exact(&mut head)?;
    let [kind, _, _, size @ ..] = head;
    let size = u32::from_be_bytes(size) as usize;
    if kind != 1 || size > FRAME_MAX {
        return Ok(Vec::new());
    }
    let mut payload = vec![0; size];
    stream.read_exact(&mut payload)?;
    Ok(payload)
}

/// Reads `product` and `version` of the server properties.
fn identity(payload: &[u8]) -> Option<ServerIdentity> {
    let mut rest = payload.strip_prefix(&[0, 10, 0, 10, 0, 9])?;
    let mut table = take_long(&mut rest)?;
    let (mut product, mut version) = (None, None);
    while let Some((len, after)) = table.split_first() {
        let (name, after) = after.split_at_checked(usize::from(*len))?;
        let (kind, after) = after.split_first()?;
        table = after;
        match kind {
            b'S' => {
                let text = String::from_utf8_lossy(take_long(&mut table)?).into_owned();
                match name {
                    b"product" => product = Some(text),
                    b"version" => version = Some(text),
                    _ => {}
                }
            }
            b'F' => drop(take_long(&mut table)?),
            b't' => table = table.get(1..)?,
            // RabbitMQ sends no others here.
            _ => break,
        }
    }
    Some(ServerIdentity { product: product?, version: version? })
}

/// Takes four bytes of length and as many bytes as they say.
fn take_long<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (taken, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Vec<u8> {
        let mut table = Vec::new();
        let mut text = |name: &str, value: &str| {
            table.push(name.len() as u8);
            table.extend(name.as_bytes());
            table.push(b'S');
            table.extend((value.len() as u32).to_be_bytes());
            table.extend(value.as_bytes());
        };
        text("copyright", "©");
        text("product", "RabbitMQ");
        text("version", "4.1.0");
        table.extend(b"\x0ccapabilitiesF\0\0\0\x04\x01xt\x01");
        let mut payload = vec![0, 10, 0, 10, 0, 9];
        payload.extend((table.len() as u32).to_be_bytes());
        payload.extend(table);
        payload.extend(b"\0\0\0\x05PLAIN\0\0\0\x05en_US");
        let mut frame = vec![1, 0, 0];
        frame.extend((payload.len() as u32).to_be_bytes());
        frame.extend(payload);
        frame
    }

    #[test]
    fn product_and_version_are_found_among_the_properties() {
        let payload = read_frame(&mut &frame()[..]).unwrap();
        let expected =
            ServerIdentity { product: "RabbitMQ".to_owned(), version: "4.1.0".to_owned() };
        assert_eq!(identity(&payload), Some(expected));
    }

    #[test]
    fn whatever_else_comes_is_no_identity_and_no_panic() {
        let frame = frame();
        for end in 0..frame.len() {
            if let Ok(payload) = read_frame(&mut &frame[..end]) {
                assert_eq!(identity(&payload), None, "cut at {end}");
            }
        }
        let payload = &frame[7..];
        for end in 0..payload.len() {
            let _ = identity(&payload[..end]);
        }
        assert_eq!(read_frame(&mut &b"HTTP/1.1 400 Bad Request"[..]).unwrap(), b"");
        assert_eq!(identity(b""), None);
    }
}
