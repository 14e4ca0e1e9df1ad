//! The one floor that talks AMQP 0-9-1: connections that come back, confirmed publishing in
//! bursts, consuming with coalesced acks.
//!
//! Does not know what a task is; it moves [`Message`](crate::protocol::Message)s. Nothing above
//! this folder names the client library.
//!
//! **Invariants:** a publish ends as confirmed only when the broker confirmed it; a delivery is
//! acked only when its token was; what exists in the broker is never changed or deleted.

mod ahead;
mod channels;
mod confirms;
mod connection;
mod consumer;
mod convert;
mod declare;
mod dial;
mod emitter;
mod envelope;
mod error;
mod flight;
mod greeting;
mod lane;
pub(crate) mod layout;
mod live;
mod pipeline;
mod publisher;
mod renewal;
mod session;
mod settle;
mod supervisor;
pub mod topology;
mod url;

pub(crate) use connection::fits_frame;
pub use connection::{Connection, ConnectionOptions, ConnectionState, RetryPolicy, TlsOptions};
pub use consumer::{Consumer, ConsumerHandle, ConsumerOptions, Deliveries, Delivery};
pub(crate) use emitter::Emitter;
pub use error::Error;
pub use greeting::{ServerIdentity, greeting};
pub(crate) use publisher::Burst;
pub use publisher::{
    Publish, PublishError, Publisher, PublisherOptions, WhenUnknown, WhenUnroutable,
};
pub use session::{Session, SessionDelivery, SessionEvent, SessionOptions};
pub use settle::SettleToken;
pub use topology::{
    Binding, Declare, Destination, ExchangeKind, ExchangeSpec, QueueKind, QueueSpec, Topology,
};
pub use url::{BrokerUrl, UrlError};
