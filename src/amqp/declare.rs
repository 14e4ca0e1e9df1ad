//! Declaring a [`Topology`] on a live connection.
//!
//! Does not remember anything but which queues and exchanges turned out to differ.
//! **Invariant:** what exists is used as it is; a difference is told once and breaks nothing.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use tracing::warn;

use super::convert::{arguments, short};
use super::error::Error;
use super::live::Live;
use super::topology::{
    Binding, Declare, Destination, ExchangeKind, ExchangeSpec, QueueSpec, Topology,
};

/// Names (with a letter for the kind) of what exists with arguments other than ours.
///
/// They are asked for passively from then on, so that each difference is told only once.
#[derive(Debug, Default)]
pub(super) struct Differences(Mutex<HashSet<String>>);

impl Differences {
    /// Whether the queue `name` differs.
    pub(super) fn has_queue(&self, name: &str) -> bool {
        self.contains(&format!("q {name}"))
    }

    fn contains(&self, key: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    fn insert(&self, key: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
    }

    fn remove(&self, key: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// Declares everything in `topology`, on channels that are thrown away.
///
/// A refusal does not keep the rest from being declared; the first one is the error.
pub(super) async fn declare(
    live: &Live,
    topology: &Topology,
    differences: &Differences,
) -> Result<(), Error> {
    let mut scratch = Scratch { live, channel: None };
    let mut refusal = Ok(());
    for exchange in &topology.exchanges {
        let key = format!("e {}", exchange.name);
        let result = scratch.ensure(Entity::Exchange(exchange), &key, differences).await;
        refusal = refusal.and(refused(result)?);
    }
    for queue in &topology.queues {
        let key = format!("q {}", queue.name);
        let result = scratch.ensure(Entity::Queue(queue), &key, differences).await;
        refusal = refusal.and(refused(result)?);
    }
    for binding in &topology.bindings {
        let result = scratch.bind(binding).await;
        refusal = refusal.and(refused(result)?);
    }
    if let Some(channel) = scratch.channel {
        live.answer(channel.close(200, "done".into())).await?;
    }
    refusal
}

/// Tells a refusal of one entity, inside, from the end of the connection, outside.
fn refused(result: Result<(), Error>) -> Result<Result<(), Error>, Error> {
    match result {
        Err(error) if error.is_connection() => Err(error),
        result => Ok(result),
    }
}

/// Deletes a queue, if it exists.
pub(super) async fn delete_queue(live: &Live, name: &str) -> Result<(), Error> {
    let channel = live.answer(live.connection.create_channel()).await?;
    let name = short("a queue's name", name)?;
    live.answer(channel.queue_delete(name, QueueDeleteOptions::default())).await?;
    live.answer(channel.close(200, "done".into())).await
}

/// Declares a queue; it is an error if it exists with other arguments.
pub(super) async fn declare_exactly(live: &Live, spec: &QueueSpec) -> Result<(), Error> {
    let channel = live.answer(live.connection.create_channel()).await?;
    declare_queue(live, &channel, spec, false).await?;
    live.answer(channel.close(200, "done".into())).await
}

/// How many messages wait in a queue, not counting those that were handed out, and how many
/// consumers it has, those included that wait for their turn.
pub(super) async fn counts(live: &Live, name: &str) -> Result<(u32, u32), Error> {
    let channel = live.answer(live.connection.create_channel()).await?;
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let name = short("a queue's name", name)?;
    let queue = live.answer(channel.queue_declare(name, options, Default::default())).await?;
    live.answer(channel.close(200, "done".into())).await?;
    Ok((queue.message_count(), queue.consumer_count()))
}

#[derive(Clone, Copy)]
enum Entity<'a> {
    Exchange(&'a ExchangeSpec),
    Queue(&'a QueueSpec),
}

impl Entity<'_> {
    fn policy(self) -> Declare {
        match self {
            Self::Exchange(spec) => spec.declare,
            Self::Queue(spec) => spec.declare,
        }
    }
}

/// A channel that is replaced whenever the broker closed it over a failed declaration.
struct Scratch<'a> {
    live: &'a Live,
    channel: Option<lapin::Channel>,
}

impl Scratch<'_> {
    /// Makes sure that `entity` exists, whatever its arguments are.
    ///
    /// Declaring comes first, not asking: it is one round trip when all is well, cannot lose a
    /// race against another creator, and the broker's refusal names both arguments.
    async fn ensure(
        &mut self,
        entity: Entity<'_>,
        key: &str,
        differences: &Differences,
    ) -> Result<(), Error> {
        if entity.policy() == Declare::UseExisting {
            return self.declare(entity, true).await;
        }
        if differences.contains(key) {
            match self.declare(entity, true).await {
                Err(error) if error.is_not_found() => differences.remove(key),
                result => return result,
            }
        }
        match self.declare(entity, false).await {
            Err(Error::Refused { code: 406, text }) => {
                // A refusal over anything but a difference (a bad argument) leaves nothing
                // behind that could be used, and then this fails as it should.
                let refusal = Error::Refused { code: 406, text: text.clone() };
                self.declare(entity, true).await.map_err(|_| refusal)?;
                warn!(reason = %text, "declared with other arguments elsewhere; using it as it is");
                differences.insert(key.to_owned());
                Ok(())
            }
            // Without the right to configure, what exists can still be used.
            Err(refusal @ Error::Refused { code: 403, .. }) => {
                self.declare(entity, true).await.map_err(|_| refusal)
            }
            result => result,
        }
    }

    async fn declare(&mut self, entity: Entity<'_>, passive: bool) -> Result<(), Error> {
        let channel = self.channel().await?;
        let result = match entity {
            Entity::Exchange(spec) => declare_exchange(self.live, &channel, spec, passive).await,
            Entity::Queue(spec) => declare_queue(self.live, &channel, spec, passive).await,
        };
        self.keep(channel, result)
    }

    async fn bind(&mut self, binding: &Binding) -> Result<(), Error> {
        let channel = self.channel().await?;
        let from = short("an exchange's name", &binding.from)?;
        let key = short("a routing key", &binding.routing_key)?;
        let arguments = arguments(&binding.arguments)?;
        let result = match &binding.to {
            Destination::Queue(queue) => {
                let queue = short("a queue's name", queue)?;
                let options = QueueBindOptions::default();
                let bind = channel.queue_bind(queue, from, key, options, arguments);
                self.live.answer(bind).await
            }
            Destination::Exchange(to) => {
                let to = short("an exchange's name", to)?;
                let options = ExchangeBindOptions::default();
                let bind = channel.exchange_bind(to, from, key, options, arguments);
                self.live.answer(bind).await
            }
        };
        self.keep(channel, result)
    }

    async fn channel(&mut self) -> Result<lapin::Channel, Error> {
        match self.channel.take() {
            Some(channel) => Ok(channel),
            None => self.live.answer(self.live.connection.create_channel()).await,
        }
    }

    /// Puts the channel back unless the broker has closed it.
    fn keep<T>(&mut self, channel: lapin::Channel, result: Result<T, Error>) -> Result<T, Error> {
        if result.is_ok() {
            self.channel = Some(channel);
        }
        result
    }
}

async fn declare_exchange(
    live: &Live,
    channel: &lapin::Channel,
    spec: &ExchangeSpec,
    passive: bool,
) -> Result<(), Error> {
    let kind = match spec.kind {
        ExchangeKind::Direct => lapin::ExchangeKind::Direct,
        ExchangeKind::Fanout => lapin::ExchangeKind::Fanout,
        ExchangeKind::Topic => lapin::ExchangeKind::Topic,
        ExchangeKind::Headers => lapin::ExchangeKind::Headers,
    };
    let options = ExchangeDeclareOptions {
        passive,
        durable: spec.durable,
        auto_delete: spec.auto_delete,
        ..Default::default()
    };
    let name = short("an exchange's name", &spec.name)?;
    let arguments = arguments(&spec.arguments)?;
    live.answer(channel.exchange_declare(name, kind, options, arguments)).await
}

async fn declare_queue(
    live: &Live,
    channel: &lapin::Channel,
    spec: &QueueSpec,
    passive: bool,
) -> Result<(), Error> {
    let options = QueueDeclareOptions {
        passive,
        durable: spec.durable,
        exclusive: spec.exclusive,
        auto_delete: spec.auto_delete,
        nowait: false,
    };
    let name = short("a queue's name", &spec.name)?;
    let arguments = arguments(&spec.declared_arguments())?;
    live.answer(channel.queue_declare(name, options, arguments)).await?;
    Ok(())
}
