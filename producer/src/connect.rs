//! From the common options to a connected client.

use celeriac::amqp::PublishError;
use celeriac::client::{ChordError, ConnectError, SendError};
use celeriac::{Client, Config};

use crate::args::Common;
use crate::exit::{Exit, Failure};

/// How often a connection that was lost in the middle of a run is tried again, some minutes in
/// all: a broker that restarts does not end the run.
const RECONNECTS_MAX: u32 = 20;

/// The settings of file, environment and options.
pub(crate) fn config(common: &Common) -> Result<Config, Failure> {
    let usage = |error| Failure::new(Exit::Usage, &error);
    let mut config = Config::load(common.config.as_deref()).map_err(usage)?;
    if !common.broker.is_empty() {
        config.set("broker_url", &common.broker.join(";")).map_err(usage)?;
    }
    if !common.retry {
        // A person or a script waits for the answer.
        config.broker_connection_retry_on_startup = false;
        config.broker_connection_max_retries.get_or_insert(RECONNECTS_MAX);
    }
    Ok(config)
}

/// A client, or the reason why there is none.
pub(crate) async fn client(config: &Config) -> Result<Client, Failure> {
    Client::connect(config.clone()).await.map_err(|error| not_connected(&error))
}

pub(crate) fn not_connected(error: &ConnectError) -> Failure {
    Failure::new(Exit::Unreachable, error)
}

/// What to tell of a chord whose joiner was not reached, or has not answered.
pub(crate) fn not_asked(error: &ChordError) -> Failure {
    let exit = match error {
        ChordError::Id { .. } => Exit::Usage,
        ChordError::NoAnswer { .. } => Exit::Timeout,
        ChordError::Listen(source) if source.is_connection() => Exit::Unreachable,
        ChordError::Publish { source, .. }
            if matches!(**source, PublishError::Closed | PublishError::Failed(_)) =>
        {
            Exit::Unreachable
        }
        _ => Exit::NotSent,
    };
    Failure::new(exit, error)
}

/// What to tell of a call that was not sent.
pub(crate) fn not_sent(error: &SendError) -> Failure {
    let exit = match error {
        SendError::Publish { source, .. }
            if matches!(**source, PublishError::Closed | PublishError::Failed(_)) =>
        {
            Exit::Unreachable
        }
        SendError::ReplyQueue(source) if source.is_connection() => Exit::Unreachable,
        SendError::Arguments { .. }
        | SendError::Encode { .. }
        | SendError::Option { .. }
        | SendError::Workflow(_) => Exit::Usage,
        _ => Exit::NotSent,
    };
    Failure::new(exit, error)
}
