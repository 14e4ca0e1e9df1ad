//! Asking a broker whether it is there.

use std::time::{Duration, Instant};

use super::client::connection_options;
use super::{Config, ConnectError};
use crate::amqp::{BrokerUrl, Connection, ServerIdentity, greeting};

/// A broker's answer to [`ping`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Pong {
    /// The broker that answered; shows no password.
    pub broker: BrokerUrl,
    /// What the broker calls itself; `None` over TLS, where that is not read.
    pub server: Option<ServerIdentity>,
    /// How long the broker took for its first words; `None` where `server` is.
    pub round_trip: Option<Duration>,
    /// How long it took to connect and to log in.
    pub login: Duration,
}

/// Connects to a broker of the settings, logs in, and hangs up. Declares nothing.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use celeriac::{Config, client::ping};
///
/// let pong = ping(&Config::from_env()?).await?;
/// println!("{} answered after {:?}", pong.broker, pong.login);
/// # Ok(()) }
/// ```
///
/// # Errors
/// As [`Client::connect`](super::Client::connect).
pub async fn ping(config: &Config) -> Result<Pong, ConnectError> {
    let started = Instant::now();
    let connection = Connection::open(connection_options(config, "celeriac ping".to_owned()))
        .await
        .map_err(ConnectError::Broker)?;
    let login = started.elapsed();
    let broker = connection.broker();
    connection.close().await;
    // It has answered already, so a failure here is no reason to say that it does not.
    let greeting = greeting(&broker, config.broker_connection_timeout).await.ok().flatten();
    let (server, round_trip) = greeting.unzip();
    Ok(Pong { broker, server, round_trip, login })
}
