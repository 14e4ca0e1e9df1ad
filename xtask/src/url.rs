//! The parts of an `amqp://` URL that the harness needs.
//!
//! It does not judge the URL as celeriac does: what it cannot read is an error, and the query is
//! kept untouched.

use std::fmt;

use crate::{Error, Result};

/// `amqp://user:password@host:port/vhost`, in parts.
#[derive(Clone)]
pub struct AmqpUrl {
    /// `amqp` or `amqps`.
    pub scheme: String,
    /// User name, decoded; `guest` when the URL has none.
    pub user: String,
    /// Password, decoded; `guest` when the URL has none.
    pub password: String,
    /// Host name or address.
    pub host: String,
    /// Port; 5672, or 5671 with TLS, when the URL has none.
    pub port: u16,
    /// Virtual host, decoded; `/` when the URL has none.
    pub vhost: String,
    query: String,
}

impl AmqpUrl {
    /// Reads a URL.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| Error::new(format!("the broker URL {why}"));
        let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("has no scheme"))?;
        let tls = match scheme {
            "amqp" | "pyamqp" => false,
            "amqps" => true,
            _ => return Err(bad("must begin with amqp:// or amqps://")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, Some(path)),
            None => (rest, None),
        };
        let (login, address) = authority.rsplit_once('@').unwrap_or(("guest:guest", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| bad("has a port that is not a number"))?)
            }
            _ => (address, if tls { 5671 } else { 5672 }),
        };
        let vhost = match path {
            None | Some("") => "/".to_owned(),
            Some(path) => decode(path),
        };
        Ok(Self {
            scheme: if tls { "amqps" } else { "amqp" }.to_owned(),
            user: decode(user),
            password: decode(password),
            host: if host.is_empty() { "localhost" } else { host }.to_owned(),
            port,
            vhost,
            query: query.to_owned(),
        })
    }

    /// The same broker, another user.
    pub(crate) fn with_user(&self, user: &str, password: &str) -> Self {
        Self { user: user.to_owned(), password: password.to_owned(), ..self.clone() }
    }

    /// The same broker, another virtual host.
    pub fn with_vhost(&self, vhost: &str) -> Self {
        Self { vhost: vhost.to_owned(), ..self.clone() }
    }

    /// Where the management API of this broker is by default.
    pub(crate) fn management_guess(&self) -> String {
        format!("http://{}:15672", self.host)
    }

    /// The whole URL with the password: for programs, not for people.
    pub fn text(&self) -> String {
        let Self { scheme, host, port, query, .. } = self;
        let login = format!("{}:{}", encode(&self.user), encode(&self.password));
        let question = if query.is_empty() { "" } else { "?" };
        format!("{scheme}://{login}@{host}:{port}/{}{question}{query}", encode(&self.vhost))
    }
}

/// The password is left out.
impl fmt::Display for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, user, host, port, .. } = self;
        write!(f, "{scheme}://{user}:**@{host}:{port}/{}", encode(&self.vhost))
    }
}

impl fmt::Debug for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Percent-encodes everything but letters, digits and `-._~`: fit for one path segment.
pub(crate) fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

/// Undoes percent-encoding; what is not an escape stays as it is.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escape = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match escape.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(value) if byte == b'%' => {
                out.push(value);
                rest = &tail[2..];
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_url_comes_back_as_it_was() {
        let text = "amqps://me:p%40ss@broker.example:5999/a%2Fb?heartbeat=10";
        let url = AmqpUrl::parse(text).unwrap();
        assert_eq!(url.password, "p@ss");
        assert_eq!(url.vhost, "a/b");
        assert_eq!(url.text(), text);
    }

    #[test]
    fn what_is_left_out_has_the_usual_value() {
        let url = AmqpUrl::parse("amqp://localhost").unwrap();
        assert_eq!(url.text(), "amqp://guest:guest@localhost:5672/%2F");
    }

    #[test]
    fn the_password_is_not_shown() {
        let url = AmqpUrl::parse("amqp://me:secret@h/v").unwrap();
        assert_eq!(format!("{url} {url:?}"), "amqp://me:**@h:5672/v amqp://me:**@h:5672/v");
    }

    #[test]
    fn another_scheme_is_refused() {
        assert!(AmqpUrl::parse("redis://localhost").is_err());
    }
}
