//! One task message: headers, body and the properties that concern a task, together.
//!
//! Does not choose where a message goes, and keeps no property that has no meaning for a task
//! (`message_id`, `timestamp`, `type`, `user_id`, `app_id`).
//!
//! **Invariant:** what is encoded has a `task`, an `id`, a content type and a body of three
//! elements; a message without one of them stops Python workers.

use std::borrow::Cow;

use super::decode_error::Known;
use super::headers::Remains;
use super::{
    Compression, DecodeError, DecodeErrorKind, Error, Limits, Map, Message, Properties, Serializer,
    TaskBody, TaskHeaders, Value, fields, protocol_1,
};

/// A call on its way to a worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskMessage {
    /// Everything about the call that can be read without its body.
    pub headers: TaskHeaders,
    /// Arguments and what is to follow.
    pub body: TaskBody,
    /// How the body is written.
    pub serializer: Serializer,
    /// How the body is compressed; decides over `headers.compression` when written.
    pub compression: Option<Compression>,
    /// 0 to 255; higher first, where the queue knows priorities.
    pub priority: Option<u8>,
    /// Where the caller waits for the result.
    pub reply_to: Option<String>,
    /// What the caller wants on the result; normally the task id.
    pub correlation_id: Option<String>,
    /// Milliseconds until the broker drops the message.
    pub expiration_ms: Option<u64>,
    /// Whether the message survives a restart of the broker.
    pub persistent: bool,
}

impl TaskMessage {
    /// Reads a delivery, of protocol version 2 or 1.
    ///
    /// Tolerates everything that Python workers tolerate, and some messages that stop them.
    ///
    /// ```
    /// use celeriac::protocol::{Limits, TaskHeaders, TaskMessage};
    ///
    /// let mut sent = TaskMessage {
    ///     headers: TaskHeaders::new("proj.add", "0d6ad1c6"),
    ///     reply_to: Some("celeriac.reply.7".to_owned()),
    ///     persistent: true,
    ///     ..TaskMessage::default()
    /// };
    /// sent.body.args = vec![2.into(), 3.into()];
    ///
    /// let message = sent.encode()?;
    /// assert_eq!(message.body.len(), 41);
    /// assert_eq!(TaskMessage::decode(&message, &Limits::default())?, sent);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn decode(message: &Message, limits: &Limits) -> Result<Self, DecodeError> {
        let mut properties = message.properties.clone();
        Self::take(&mut properties, &message.body, limits).map(|(read, _)| read)
    }

    /// [`decode`](Self::decode) without a copy of the texts: takes headers, `reply_to` and
    /// `correlation_id` out of the properties. After an error they are as they were.
    pub(crate) fn take(
        properties: &mut Properties,
        body: &[u8],
        limits: &Limits,
    ) -> Result<(Self, Remains), DecodeError> {
        let mut known = Known::default();
        match Self::read(properties, body, limits, &mut known) {
            Ok(read) => Ok(read),
            Err((kind, source)) => {
                known.complete(properties);
                Err(DecodeError::new(kind, source, known))
            }
        }
    }

    fn read(
        properties: &mut Properties,
        body: &[u8],
        limits: &Limits,
        known: &mut Known,
    ) -> Result<(Self, Remains), Failure> {
        let taken = take_headers(properties)?;
        let rest = match read_rest(properties, taken.as_ref().map(|it| &it.0), body, limits) {
            Ok(rest) => rest,
            Err(failure) => {
                known.headers = taken.map(|taken| give_back(properties, taken));
                return Err(failure);
            }
        };
        let (headers, remains, body) = match taken {
            Some(taken) => match TaskBody::from_value(rest.body) {
                Ok(body) => (taken.0, taken.1, body),
                Err(error) => {
                    known.headers = Some(give_back(properties, taken));
                    return Err((DecodeErrorKind::Body, error));
                }
            },
            None => {
                let (headers, body) = protocol_1::from_value(rest.body, known)?;
                (headers, Remains::default(), body)
            }
        };
        let read = Self {
            headers,
            body,
            serializer: rest.serializer,
            compression: rest.compression,
            priority: properties.priority,
            reply_to: properties.reply_to.take(),
            correlation_id: properties.correlation_id.take(),
            expiration_ms: properties.expiration.as_deref().and_then(|text| text.parse().ok()),
            persistent: properties.delivery_mode == Some(Properties::PERSISTENT),
        };
        Ok((read, remains))
    }

    /// Writes the message, always in protocol version 2.
    ///
    /// Ids and the reply queue travel in AMQP's short strings, too: longer than 255 bytes is an
    /// error here, before it could end the connection.
    pub fn encode(&self) -> Result<Message, Error> {
        self.clone().into_message()
    }

    /// [`encode`](Self::encode) without a copy of the headers.
    pub fn into_message(self) -> Result<Message, Error> {
        fields::short("id", &self.headers.id)?;
        for (field, text) in
            [("correlation_id", &self.correlation_id), ("reply_to", &self.reply_to)]
        {
            text.as_deref().map_or(Ok(()), |text| fields::short(field, text))?;
        }
        for (field, text) in [("task", &self.headers.task), ("id", &self.headers.id)] {
            if text.is_empty() {
                return Err(Error::Missing { field });
            }
        }
        check_names(&self.headers.extra)?;
        check_names(&self.headers.stamps)?;
        let mut body = Vec::with_capacity(128);
        self.body.encode(self.serializer, &mut body)?;
        if let Some(compression) = self.compression {
            body = compression.compress(&body)?;
        }
        let mut headers = self.headers.into_map();
        match self.compression {
            Some(compression) => headers.insert("compression", compression.content_type()),
            None => {
                headers.remove("compression");
            }
        }
        let properties = Properties {
            content_type: Some(self.serializer.content_type().to_owned()),
            content_encoding: Some(self.serializer.content_encoding().to_owned()),
            headers: Some(headers),
            delivery_mode: Some(Properties::delivery_mode(self.persistent)),
            priority: self.priority,
            correlation_id: self.correlation_id,
            reply_to: self.reply_to,
            expiration: self.expiration_ms.map(|expiration| expiration.to_string()),
            ..Properties::default()
        };
        Ok(Message { properties, body })
    }
}

/// Which part of a message failed, and how.
pub(super) type Failure = (DecodeErrorKind, Error);

impl Known {
    fn complete(&mut self, properties: &Properties) {
        let text = |key| properties.header(key).and_then(Value::as_str).map(str::to_owned);
        self.id = self.id.take().or_else(|| text("id"));
        self.task = self.task.take().or_else(|| text("task"));
        self.reply_to.clone_from(&properties.reply_to);
        self.correlation_id.clone_from(&properties.correlation_id);
        self.serializer = serializer(properties).ok();
    }
}

/// Takes the headers of protocol version 2; `None`, and nothing taken, if the message does not
/// claim to be of it.
fn take_headers(properties: &mut Properties) -> Result<Option<(TaskHeaders, Remains)>, Failure> {
    if properties.header("task").is_none() {
        return Ok(None);
    }
    match TaskHeaders::take(properties.headers.take().unwrap_or_default()) {
        Ok(taken) => Ok(Some(taken)),
        Err(failed) => {
            let (error, headers) = *failed;
            properties.headers = Some(headers);
            Err(match error {
                Error::Missing { field: "id" } => (DecodeErrorKind::NoId, error),
                _ => (DecodeErrorKind::Headers, error),
            })
        }
    }
}

/// Puts headers back that were taken, and keeps them for the report of the failure.
fn give_back(
    properties: &mut Properties,
    (headers, remains): (TaskHeaders, Remains),
) -> Box<TaskHeaders> {
    properties.headers = Some(remains.restore(headers.clone()));
    Box::new(headers)
}

struct Rest {
    serializer: Serializer,
    compression: Option<Compression>,
    body: Value,
}

fn read_rest(
    properties: &Properties,
    taken: Option<&TaskHeaders>,
    body: &[u8],
    limits: &Limits,
) -> Result<Rest, Failure> {
    let serializer =
        serializer(properties).map_err(|error| (DecodeErrorKind::ContentType, error))?;
    let compression = match taken {
        Some(headers) => headers.compression.as_deref().map(str::parse).transpose(),
        None => compression(properties),
    };
    let compression = compression.map_err(|error| (DecodeErrorKind::Compression, error))?;
    let plain =
        unpack(body, compression, limits).map_err(|error| (DecodeErrorKind::Compression, error))?;
    let body = serializer.decode(&plain, limits).map_err(|error| (DecodeErrorKind::Body, error))?;
    Ok(Rest { serializer, compression, body })
}

pub(super) fn serializer(properties: &Properties) -> Result<Serializer, Error> {
    let content_type = properties.content_type.as_deref();
    let content_type = content_type.ok_or(Error::Missing { field: "content_type" })?;
    Serializer::from_content_type(content_type).ok_or_else(|| Error::content_type(content_type))
}

pub(super) fn compression(properties: &Properties) -> Result<Option<Compression>, Error> {
    match properties.header("compression") {
        None => Ok(None),
        Some(Value::String(name)) => name.parse().map(Some),
        Some(other) => Err(fields::wrong("compression", "text", other)),
    }
}

pub(super) fn unpack<'a>(
    body: &'a [u8],
    compression: Option<Compression>,
    limits: &Limits,
) -> Result<Cow<'a, [u8]>, Error> {
    match compression {
        None => Ok(Cow::Borrowed(body)),
        Some(method) => method.decompress(body, limits.bytes_max).map(Cow::Owned),
    }
}

/// Refuses names that do not fit into a header table.
fn check_names(map: &Map) -> Result<(), Error> {
    map.iter().try_for_each(|(name, value)| {
        fields::short("header name", name)?;
        check_nested(value)
    })
}

fn check_nested(value: &Value) -> Result<(), Error> {
    match value {
        Value::Map(inner) => check_names(inner),
        Value::Array(items) => items.iter().try_for_each(check_nested),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
