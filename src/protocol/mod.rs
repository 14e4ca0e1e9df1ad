//! Celery's task protocol, version 2, as data: pure, without IO.
//!
//! A [`Message`] is what AMQP carries: properties, headers and the bytes of a body. A
//! [`TaskMessage`] or a [`ResultMeta`] is what it means. Between the two lie a [`Serializer`], a
//! [`Compression`] and the dynamic [`Value`].
//!
//! ```text
//! Message ── TaskMessage::decode ──> TaskMessage { headers, body: args, kwargs, embed }
//!         <── TaskMessage::encode ──
//! Message ── ResultMeta::decode ───> ResultMeta { status, result, ... }
//!         <── ResultMeta::encode ───
//! ```
//!
//! Does not know connections, queues or clocks.
//!
//! **Invariant:** decoding is total. Any bytes give a value or an [`Error`], within [`Limits`] on
//! time, memory and stack; nothing here panics on what came from the wire.

mod announcement;
#[cfg(test)]
mod arbitrary;
mod body;
mod call_options;
pub mod canvas;
mod compression;
pub mod control;
pub mod date;
mod de;
pub mod dead;
mod decode_error;
pub(crate) mod delay;
mod error;
pub mod event;
mod exception;
mod fields;
mod float;
mod graph;
pub(crate) mod header_names;
mod headers;
pub mod join;
pub mod json;
mod keys;
mod limits;
pub mod msgpack;
mod properties;
mod protocol_1;
pub mod repr;
mod result;
mod ser;
mod serializer;
mod signature;
mod task_message;
mod types;
mod value;
mod value_error;
mod weight;

pub use body::{Embed, TaskBody};
pub use call_options::{CallOptions, Expires};
pub use compression::Compression;
pub use date::Date;
pub use de::from_value;
pub use decode_error::{DecodeError, DecodeErrorKind};
pub use error::Error;
pub(crate) use error::excerpt;
pub use exception::Exception;
pub use graph::Graph;
pub(crate) use headers::{Remains, is_added_by_the_broker};
pub use headers::{TaskHeaders, TimeLimit};
pub use limits::Limits;
pub use properties::{Message, Properties};
pub use result::{ResultMeta, TaskState};
pub use ser::to_value;
pub use serializer::{Serializer, UnknownSerializer};
pub use signature::Signature;
pub use task_message::TaskMessage;
pub use types::{Bytes, DateTime, Decimal, Uuid};
pub use value::{Map, Tag, Value};
pub use value_error::ValueError;
