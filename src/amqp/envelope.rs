//! A publish in the client library's terms, and the library's verdict in ours.
//!
//! Does not decide when to send or what to do about a failure.

use lapin::PublisherConfirm;
use lapin::options::BasicPublishOptions;
use tracing::warn;

use super::confirms::Confirmed;
use super::convert::{short, to_properties};
use super::flight::{Flight, Holds, Likeness, Returned};
use super::publisher::{Publish, PublishError};

/// A publish in lapin's terms. Made anew for each sending; the original stays as it is.
pub(super) struct Envelope {
    exchange: lapin::types::ShortString,
    routing_key: lapin::types::ShortString,
    properties: lapin::BasicProperties,
}

impl Envelope {
    pub(super) fn of(publish: &Publish, frame_max: usize) -> Result<Self, PublishError> {
        let invalid = PublishError::Invalid;
        let exchange = short("the exchange's name", &publish.exchange).map_err(invalid)?;
        let routing_key = short("the routing key", &publish.routing_key).map_err(invalid)?;
        let (properties, size) = to_properties(&publish.message.properties).map_err(invalid)?;
        // They travel in one frame, and a larger one would end the connection.
        if size > frame_max {
            return Err(PublishError::TooLarge { size, max: frame_max });
        }
        Ok(Self { exchange, routing_key, properties })
    }

    /// Completes when the frames are written; the first poll takes their place in the order.
    // Not an `async fn`, which would keep the envelope a second time.
    pub(super) fn send<'a>(
        self,
        channel: &'a lapin::Channel,
        body: &'a [u8],
    ) -> impl Future<Output = Result<PublisherConfirm, lapin::Error>> + 'a {
        let Self { exchange, routing_key, properties } = self;
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        channel.basic_publish(exchange, routing_key, options, body, properties)
    }

    /// The same for what may be lost: the broker drops it if no queue takes it.
    pub(super) async fn cast(
        self,
        channel: &lapin::Channel,
        body: &[u8],
    ) -> Result<(), lapin::Error> {
        let Self { exchange, routing_key, properties } = self;
        let options = BasicPublishOptions { mandatory: false, immediate: false };
        channel.basic_publish(exchange, routing_key, options, body, properties).await.map(|_| ())
    }
}

/// Lays the returned message that came with a confirm to the publish that it is.
pub(super) fn attribute<T: Holds>(flight: &mut Flight<T>, confirmed: &mut Confirmed) {
    let Some(message) = confirmed.returned.take() else { return };
    let text = |it: &Option<lapin::types::ShortString>| it.as_ref().map(ToString::to_string);
    let properties = &message.delivery.properties;
    let (correlation_id, message_id) =
        (text(properties.correlation_id()), text(properties.message_id()));
    let like = Likeness {
        exchange: message.delivery.exchange.as_str(),
        routing_key: message.delivery.routing_key.as_str(),
        correlation_id: correlation_id.as_deref(),
        message_id: message_id.as_deref(),
        body: &message.delivery.data,
    };
    let returned =
        Returned { code: message.reply_code, text: message.reply_text.as_str().to_owned() };
    if !flight.mark_returned(like, returned) {
        warn!(exchange = like.exchange, "a returned message is none of those in flight");
    }
}

/// How a publish ended that was confirmed one way or the other.
pub(super) fn verdict(
    publish: &Publish,
    returned: Option<Returned>,
    confirmed: &Confirmed,
) -> Result<(), PublishError> {
    match returned {
        Some(Returned { code, text }) => Err(PublishError::Returned {
            exchange: publish.exchange.to_string(),
            routing_key: publish.routing_key.clone(),
            code,
            text,
        }),
        None if confirmed.stored => Ok(()),
        None => Err(PublishError::Nacked),
    }
}
