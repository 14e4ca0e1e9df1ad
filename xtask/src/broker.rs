//! Finds a RabbitMQ, or starts one.
//!
//! In this order: `CELERIAC_BROKER_URL`; one that answers on localhost:5672; `compose.yaml` with
//! a Docker engine; a private node of the installed package; that package installed with apt.
//! A broker counts only with its management API, because every test creates a virtual host.
//!
//! Invariant: what was found is never stopped, what was started here can be ([`Broker::stop`]).

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::install::Installation;
use crate::url::AmqpUrl;
use crate::{Error, Management, Result, compose, note, shared, wait_until};

/// The broker that a user wants to be used.
pub const BROKER_URL: &str = "CELERIAC_BROKER_URL";
/// Its management API, when that is not on port 15672 of the same host.
pub const MANAGEMENT_URL: &str = "CELERIAC_MANAGEMENT_URL";
/// The broker that `cargo xtask` has provided for its children.
pub const TEST_BROKER_URL: &str = "CELERIAC_TEST_BROKER_URL";
/// The management API of that broker.
pub const TEST_MANAGEMENT_URL: &str = "CELERIAC_TEST_MANAGEMENT_URL";

/// A RabbitMQ that answers.
#[derive(Debug)]
pub struct Broker {
    /// Where it is, with its default virtual host.
    pub url: AmqpUrl,
    /// Base URL of its management API.
    pub management_url: String,
    /// Whether it did not run before.
    pub started_by_us: bool,
    /// How it was found.
    pub origin: Origin,
    // Keeps a shared node running.
    lease: Option<shared::Lease>,
}

/// How a broker was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An environment variable named it.
    Environment,
    /// It answered on localhost:5672.
    Localhost,
    /// `compose.yaml`.
    Compose,
    /// A private node of the installed package.
    PrivateNode,
}

impl Origin {
    /// For people: where the broker comes from.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Environment => "named by the environment",
            Self::Localhost => "answers on localhost:5672",
            Self::Compose => "service of compose.yaml",
            Self::PrivateNode => "private node of this checkout",
        }
    }
}

impl Broker {
    /// Finds a broker or starts one, in the order of the module's description.
    pub fn provision() -> Result<Self> {
        if let Some(url) = variable(BROKER_URL) {
            return Self::of_user(&url);
        }
        if let Some(broker) = Self::on_localhost(false)? {
            return Ok(broker);
        }
        if compose::is_available() {
            match Self::of_compose() {
                Ok(broker) => return Ok(broker),
                Err(error) => note(&error.to_string()),
            }
        }
        Self::private_node()
    }

    /// The private node of this checkout, whatever else there is.
    pub fn private_node() -> Result<Self> {
        let lease = shared::lease(Installation::find_or_install)?;
        Ok(Self {
            url: AmqpUrl::parse(&lease.state.url)?,
            management_url: lease.state.management_url.clone(),
            started_by_us: lease.started,
            origin: Origin::PrivateNode,
            lease: Some(lease),
        })
    }

    /// The broker that `cargo xtask` has provided, or else one of [`Self::provision`].
    pub fn for_tests() -> Result<Self> {
        match (variable(TEST_BROKER_URL), variable(TEST_MANAGEMENT_URL)) {
            (Some(url), Some(management_url)) => Ok(Self {
                url: AmqpUrl::parse(&url)?,
                management_url,
                started_by_us: false,
                origin: Origin::Environment,
                lease: None,
            }),
            _ => Self::provision(),
        }
    }

    /// The management API as the user of the URL.
    pub fn management(&self) -> Management {
        Management::new(&self.management_url, &self.url.user, &self.url.password)
    }

    /// What children need in their environment to use this broker.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [(TEST_BROKER_URL, self.url.text()), (TEST_MANAGEMENT_URL, self.management_url.clone())]
    }

    /// Stops the broker if it was started by this call of [`Self::provision`].
    ///
    /// Without this a private node ends some seconds after its last user.
    pub fn stop(self) -> Result<()> {
        match self.origin {
            Origin::PrivateNode if self.started_by_us && !shared::is_pinned() => {
                drop(self.lease);
                shared::down()
            }
            Origin::Compose if self.started_by_us => compose::down(),
            _ => Ok(()),
        }
    }

    fn of_user(text: &str) -> Result<Self> {
        let url = AmqpUrl::parse(text).map_err(|error| Error::while_doing(BROKER_URL, error))?;
        let management_url = variable(MANAGEMENT_URL).unwrap_or_else(|| url.management_guess());
        let broker = Self {
            url,
            management_url,
            started_by_us: false,
            origin: Origin::Environment,
            lease: None,
        };
        if !reachable(&broker.url) {
            return Err(Error::new(format!("{BROKER_URL}: {} does not answer", broker.url)));
        }
        if !broker.management().answers_administrator() {
            return Err(Error::new(format!(
                "the management API of {} does not answer at {}, and tests create virtual hosts \
                 through it: run `rabbitmq-plugins enable rabbitmq_management`, give the user the \
                 tag administrator, or set {MANAGEMENT_URL}",
                broker.url, broker.management_url
            )));
        }
        Ok(broker)
    }

    fn on_localhost(started_by_us: bool) -> Result<Option<Self>> {
        let url = AmqpUrl::parse("amqp://localhost:5672/")?;
        if !reachable(&url) {
            return Ok(None);
        }
        let management_url = variable(MANAGEMENT_URL).unwrap_or_else(|| url.management_guess());
        let found = Self::with_one_of(&local_users(), &url, &management_url);
        if found.is_none() && !started_by_us {
            note(&format!(
                "the RabbitMQ on localhost:5672 is not used: its management API does not answer \
                 guest or the user of compose.yaml as an administrator at {management_url}"
            ));
        }
        Ok(found.map(|broker| Self { started_by_us, ..broker }))
    }

    /// The broker at `url`, as the first of these users who is an administrator of it.
    fn with_one_of(
        users: &[(String, String)],
        url: &AmqpUrl,
        management_url: &str,
    ) -> Option<Self> {
        let brokers = users.iter().map(|(user, password)| Self {
            url: url.with_user(user, password),
            management_url: management_url.to_owned(),
            started_by_us: false,
            origin: Origin::Localhost,
            lease: None,
        });
        brokers.into_iter().find(|broker| broker.management().answers_administrator())
    }

    fn of_compose() -> Result<Self> {
        note("starting the service rabbitmq of compose.yaml");
        compose::up()?;
        let broker = wait_until(
            "the rabbitmq of compose.yaml answers on localhost:5672 and 15672",
            Duration::from_secs(120),
            || Self::on_localhost(true).ok().flatten(),
        );
        match broker {
            Ok(broker) => Ok(Self { origin: Origin::Compose, ..broker }),
            Err(error) => {
                let _ = compose::down();
                Err(error)
            }
        }
    }
}

/// Who may be known to a broker on this machine, with passwords: everybody's guest, and the user
/// of `compose.yaml`, where there is no guest.
fn local_users() -> [(String, String); 2] {
    let of_compose = |name| variable(name).unwrap_or_else(|| "celeriac".to_owned());
    let guest = "guest".to_owned();
    [(guest.clone(), guest), (of_compose("RABBITMQ_USER"), of_compose("RABBITMQ_PASSWORD"))]
}

/// Whether the other end answers AMQP's greeting as RabbitMQ does.
pub(crate) fn speaks_amqp(mut stream: TcpStream) -> bool {
    let limit = Some(Duration::from_secs(2));
    if stream.set_read_timeout(limit).is_err() || stream.set_write_timeout(limit).is_err() {
        return false;
    }
    // The protocol header; the answer is Connection.Start: frame type 1, channel 0, size, class
    // 10, method 10.
    let mut start = [0; 11];
    stream.write_all(b"AMQP\x00\x00\x09\x01").and_then(|()| stream.read_exact(&mut start)).is_ok()
        && matches!(start, [1, 0, 0, _, _, _, _, 0, 10, 0, 10])
}

/// Whether something answers there; over TLS only that the port is open.
fn reachable(url: &AmqpUrl) -> bool {
    let Ok(mut addresses) = (url.host.as_str(), url.port).to_socket_addrs() else { return false };
    addresses.any(|address| {
        TcpStream::connect_timeout(&address, Duration::from_secs(4))
            .is_ok_and(|stream| url.scheme == "amqps" || speaks_amqp(stream))
    })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PrivateNode;

    #[test]
    fn a_broker_without_guest_is_used_as_the_user_of_the_compose_file() {
        let node = PrivateNode::start().unwrap();
        for command in [
            &["add_user", "celeriac", "celeriac"][..],
            &["set_permissions", "celeriac", ".*", ".*", ".*"],
            &["delete_user", "guest"],
        ] {
            node.rabbitmqctl(command).unwrap();
        }
        let url = AmqpUrl::parse(node.url()).unwrap();
        let management_url = node.management().base().to_owned();
        let found = || Broker::with_one_of(&local_users(), &url, &management_url);
        assert!(found().is_none(), "who may not create virtual hosts is of no use");
        node.rabbitmqctl(&["set_user_tags", "celeriac", "administrator"]).unwrap();
        let broker = found().unwrap();
        assert_eq!(broker.url.user, "celeriac");
        let vhost = crate::TestVhost::create_on(&broker.url, broker.management(), "compose");
        assert!(vhost.unwrap().url().contains("celeriac:celeriac@"));
    }
}
