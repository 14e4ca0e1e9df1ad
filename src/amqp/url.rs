//! Addresses of brokers: `amqp://user:password@host:port/vhost`.
//!
//! Does not resolve names. **Invariant:** neither `Display` nor `Debug` shows the password.

use std::fmt;
use std::str::FromStr;

use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};

/// The largest frame, which RabbitMQ proposes as well. lapin makes its buffers of 32 frames; told
/// the size beforehand it takes untouched memory, and told afterwards it fills 8 MB with zeros.
const FRAME_MAX: u32 = 131_072;

/// Does not quote the port: with an unescaped `/` in the password, that would be a part of it.
const BAD_PORT: &str = "has a bad port (in a password, write / as %2F and @ as %40)";

/// The address of one broker, with the credentials and the virtual host to use there.
///
/// Read as Celery reads it: a missing or empty path is the virtual host `/`, `%2f` as well.
///
/// ```
/// let url: celeriac::amqp::BrokerUrl = "amqp://me:secret@rabbit:5673/prod".parse().unwrap();
/// assert_eq!(url.to_string(), "amqp://me:***@rabbit:5673/prod");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BrokerUrl {
    tls: bool,
    user: String,
    password: String,
    host: String,
    port: u16,
    vhost: String,
}

/// Why a text is not a [`BrokerUrl`], in one sentence that never repeats the password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("broker URL {0}; the form is amqp://user:password@host:port/vhost")]
pub struct UrlError(String);

impl BrokerUrl {
    /// Whether the connection is encrypted (`amqps`).
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Name or address of the machine, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port; 5672 or 5671 unless the URL says otherwise.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Name of the user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Name of the virtual host.
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// The same broker and user with another virtual host.
    #[must_use]
    pub fn with_vhost(mut self, vhost: impl Into<String>) -> Self {
        self.vhost = vhost.into();
        self
    }

    /// What lapin needs to connect, with the heartbeat that the client asks for.
    pub(super) fn to_lapin(&self, heartbeat_s: u16) -> AMQPUri {
        AMQPUri {
            scheme: if self.tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: self.user.clone(),
                    password: self.password.clone(),
                },
                host: self.host.clone(),
                port: self.port,
            },
            vhost: self.vhost.clone(),
            query: AMQPQueryString {
                heartbeat: Some(heartbeat_s),
                frame_max: Some(FRAME_MAX),
                ..Default::default()
            },
        }
    }
}

/// `amqp://guest:guest@localhost:5672/`, Celery's default.
impl Default for BrokerUrl {
    fn default() -> Self {
        Self {
            tls: false,
            user: "guest".to_owned(),
            password: "guest".to_owned(),
            host: "localhost".to_owned(),
            port: 5672,
            vhost: "/".to_owned(),
        }
    }
}

impl FromStr for BrokerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text
            .trim()
            .split_once("://")
            .ok_or_else(|| UrlError("has no scheme before '://'".to_owned()))?;
        let tls = match scheme {
            "amqp" | "pyamqp" => false,
            "amqps" | "pyamqps" => true,
            other => return Err(UrlError(format!("has the unknown scheme '{other}'"))),
        };
        if rest.contains('?') {
            return Err(UrlError(
                "has options after '?', which are settings of their own here".to_owned(),
            ));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (userinfo, address) = match authority.rsplit_once('@') {
            Some((userinfo, address)) => (Some(userinfo), address),
            None => (None, authority),
        };
        let defaults = Self::default();
        let (user, password) = match userinfo {
            Some(userinfo) => {
                let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
                (decode(user, "user")?, decode(password, "password")?)
            }
            None => (defaults.user, defaults.password),
        };
        let (host, port) = split_address(address)?;
        let vhost = decode(path, "virtual host")?;
        Ok(Self {
            tls,
            user,
            password,
            host: if host.is_empty() { defaults.host } else { decode(host, "host")? },
            port: port.unwrap_or(if tls { 5671 } else { 5672 }),
            vhost: if vhost.is_empty() { defaults.vhost } else { vhost },
        })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "amqps" } else { "amqp" };
        write!(f, "{scheme}://{}:***@", encode(&self.user))?;
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        write!(f, ":{}/{}", self.port, encode(&self.vhost))
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrl({self})")
    }
}

/// Splits `host:port`, where an IPv6 address stands in brackets.
fn split_address(address: &str) -> Result<(&str, Option<u16>), UrlError> {
    let (host, port) = if let Some(bracketed) = address.strip_prefix('[') {
        let (host, rest) = bracketed
            .split_once(']')
            .ok_or_else(|| UrlError("has an IPv6 address without its closing ']'".to_owned()))?;
        (host, rest.strip_prefix(':'))
    } else {
        match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        }
    };
    let port =
        port.map(|port| port.parse().map_err(|_| UrlError(BAD_PORT.to_owned()))).transpose()?;
    Ok((host, port))
}

fn decode(text: &str, part: &str) -> Result<String, UrlError> {
    let bad = || UrlError(format!("has a bad %-escape in its {part}"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = (digit().ok_or_else(bad)?, digit().ok_or_else(bad)?);
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| bad())?);
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (bool, String, String, String, u16, String) {
        let BrokerUrl { tls, user, password, host, port, vhost } = text.parse().unwrap();
        (tls, user, password, host, port, vhost)
    }

    #[test]
    fn urls_are_read_as_celery_reads_them() {
        let check = |text: &str, host: &str, port: u16, vhost: &str| {
            let (_, _, _, got_host, got_port, got_vhost) = parts(text);
            assert_eq!((got_host.as_str(), got_port, got_vhost.as_str()), (host, port, vhost));
        };
        check("amqp://", "localhost", 5672, "/");
        check("amqp://rabbit", "rabbit", 5672, "/");
        check("pyamqp://rabbit/", "rabbit", 5672, "/");
        check("amqp://rabbit//", "rabbit", 5672, "/");
        check("amqp://rabbit/%2f", "rabbit", 5672, "/");
        check("amqp://u:p@10.0.0.1:5673/prod", "10.0.0.1", 5673, "prod");
        check("amqps://u:p@[::1]/a%20b", "::1", 5671, "a b");
    }

    #[test]
    fn credentials_may_hold_any_character() {
        let (tls, user, password, ..) = parts("amqps://a%40b:p%3a%2f@rabbit");
        assert!(tls);
        assert_eq!((user.as_str(), password.as_str()), ("a@b", "p:/"));
    }

    #[test]
    fn the_password_is_never_shown() {
        let url: BrokerUrl = "amqp://me:hunter2@rabbit/x".parse().unwrap();
        assert!(!format!("{url} {url:?}").contains("hunter2"));
        let bad = "http://me:hunter2@rabbit".parse::<BrokerUrl>().unwrap_err();
        assert!(!bad.to_string().contains("hunter2"), "{bad}");
    }

    #[test]
    fn what_is_wrong_is_said_in_one_sentence() {
        let check = |text: &str, needle: &str| {
            let error = text.parse::<BrokerUrl>().unwrap_err().to_string();
            assert!(error.contains(needle), "{error}");
        };
        check("rabbit:5672", "no scheme");
        check("redis://rabbit", "unknown scheme 'redis'");
        check("amqp://rabbit:port", "bad port");
        let leak = "amqp://me:se/cret@rabbit".parse::<BrokerUrl>().unwrap_err().to_string();
        assert!(!leak.contains("se/") && !leak.contains("'se'"), "{leak}");
        check("amqp://rabbit/%zz", "virtual host");
        check("amqp://[::1", "closing ']'");
        check("amqp://rabbit/?heartbeat=3", "options after '?'");
    }
}
