//! What can go wrong between this process and the broker, apart from one publish.
//!
//! Does not judge single messages (see [`PublishError`](super::PublishError)).

use std::sync::Arc;
use std::time::Duration;

use lapin::ErrorKind;

/// The broker's code for a connection that an operator closed.
const CONNECTION_FORCED: u16 = 320;

/// An error of the `amqp` floor. Cheap to clone, because many waiters may have to hear of it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No URL is configured.
    #[error("no broker URL is configured")]
    NoUrl,
    /// A connection could not be made.
    #[error("failed to connect to {broker}: {reason}")]
    Connect {
        /// The address, without the password.
        broker: String,
        /// What the operating system, TLS or the broker said.
        reason: String,
        /// Whether trying again cannot help: wrong credentials or an unknown virtual host.
        permanent: bool,
    },
    /// A connection could not be made in time.
    #[error("failed to connect to {broker} within {after:?}")]
    ConnectTimeout {
        /// The address, without the password.
        broker: String,
        /// The connect timeout.
        after: Duration,
    },
    /// A certificate or key could not be read.
    #[error("failed to read {path}")]
    Tls {
        /// The file.
        path: String,
        /// Why it could not be read.
        source: Arc<std::io::Error>,
    },
    /// The broker refused what was asked; `code` and `text` are its own words.
    #[error("{code} {text}")]
    Refused {
        /// AMQP reply code, for example 404.
        code: u16,
        /// AMQP reply text.
        text: String,
    },
    /// The connection or channel was lost.
    #[error("the connection to the broker was lost")]
    Lost {
        /// The client library's words.
        source: Arc<lapin::Error>,
    },
    /// Connections have a limit of channels, and all of this one's are in use. The connection
    /// itself is fine, so that waiting for another one would be in vain.
    #[error("all channels of the connection are in use: the broker's channel_max is reached")]
    NoChannel,
    /// The broker has ended a consumer: its queue is gone, or has another leader.
    #[error("the broker cancelled the consumer")]
    Cancelled,
    /// The broker has closed a channel without confirms over a message, and nobody heard why.
    #[error("the broker closed the channel: the exchange is gone, or not ours to write to")]
    ChannelClosed,
    /// The broker left a request without an answer, so the connection counts as lost.
    #[error("the broker has not answered within {after:?}")]
    Silent {
        /// How long it was waited for.
        after: Duration,
    },
    /// The connection was given up, as the retry policy says.
    #[error("the connection to the broker was given up")]
    GivenUp {
        /// The last error.
        source: Arc<Self>,
    },
    /// A name is too long for AMQP.
    #[error("{what} has {len} bytes, and AMQP allows 255")]
    NameTooLong {
        /// Which name.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// The connection, publisher or consumer was closed by this program.
    #[error("closed")]
    Closed,
}

impl Error {
    /// The error for a connection that is not there, when nothing more is known.
    pub(super) fn lost() -> Self {
        let state = lapin::ConnectionState::Error;
        Self::Lost { source: Arc::new(ErrorKind::InvalidConnectionState(state).into()) }
    }

    /// Whether the broker refused what was asked.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// Whether an entity that was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }

    /// Whether there is no such queue. To the broker, one whose node or leader is away "is not
    /// found" either, with other words.
    pub(crate) fn is_no_queue(&self) -> bool {
        matches!(self, Self::Refused { code: 404, text } if text.contains("no queue '"))
    }

    /// Whether the fault is the connection, so that trying again may help.
    pub fn is_connection(&self) -> bool {
        match self {
            Self::Connect { permanent, .. } => !permanent,
            Self::ConnectTimeout { .. } | Self::Lost { .. } | Self::Silent { .. } => true,
            Self::Refused { code, .. } => *code == CONNECTION_FORCED,
            Self::NoUrl
            | Self::Tls { .. }
            | Self::Cancelled
            | Self::NoChannel
            | Self::ChannelClosed
            | Self::GivenUp { .. }
            | Self::NameTooLong { .. }
            | Self::Closed => false,
        }
    }

    /// Whether trying to connect again cannot help: bad credentials, virtual host or files.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Connect { permanent, .. } => *permanent,
            Self::NoUrl
            | Self::Tls { .. }
            | Self::GivenUp { .. }
            | Self::NameTooLong { .. }
            | Self::Closed => true,
            Self::ConnectTimeout { .. }
            | Self::Refused { .. }
            | Self::Lost { .. }
            | Self::Silent { .. }
            | Self::Cancelled
            | Self::NoChannel
            | Self::ChannelClosed => false,
        }
    }

    /// The broker's code and words, if it closed a channel or connection over something that
    /// this program did, and not because an operator or a fault asked for it.
    pub(super) fn blame(&self) -> Option<(u16, &str)> {
        match self {
            Self::Refused { code, text } if *code != CONNECTION_FORCED => Some((*code, text)),
            _ => None,
        }
    }
}

impl From<lapin::Error> for Error {
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(refusal) => Self::Refused {
                code: refusal.get_id(),
                text: refusal.get_message().as_str().to_owned(),
            },
            ErrorKind::ChannelsLimitReached => Self::NoChannel,
            _ => Self::Lost { source: Arc::new(error) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_without_a_free_channel_is_not_lost() {
        let error = Error::from(lapin::Error::from(ErrorKind::ChannelsLimitReached));
        assert!(!error.is_connection() && !error.is_permanent(), "{error}");
        assert!(Error::from(lapin::Error::from(ErrorKind::InvalidChannel(7))).is_connection());
    }

    #[test]
    fn a_queue_whose_node_is_away_is_not_one_that_does_not_exist() {
        let not_found = |text: &str| Error::Refused { code: 404, text: text.to_owned() };
        assert!(not_found("NOT_FOUND - no queue 'q' in vhost '/'").is_no_queue());
        for text in [
            "NOT_FOUND - home node 'rabbit@b' of durable queue 'q' in vhost '/' is down or \
             inaccessible",
            "NOT_FOUND - failed to perform operation on queue 'q' in vhost '/' due to timeout",
            "NOT_FOUND - no exchange 'q' in vhost '/'",
        ] {
            assert!(not_found(text).is_not_found() && !not_found(text).is_no_queue(), "{text}");
        }
    }
}
