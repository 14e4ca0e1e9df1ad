//! A request to the workers.

use std::str::FromStr;

use super::{LIMITS, Matcher};
use crate::protocol::fields::{self, short};
use crate::protocol::{Error, Map, Message, Properties, Serializer, Value, announcement};

/// Names of nodes in one request.
const DESTINATIONS_MAX: usize = 10_000;

/// One command for some workers or for all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The command.
    pub method: String,
    /// Its keyword arguments.
    pub arguments: Map,
    /// Names of the nodes that it is for; empty if the pattern decides, or if it is for all.
    pub destination: Vec<String>,
    /// Which names of nodes it is for.
    pub pattern: Option<String>,
    /// The language of the pattern; without it, the pattern counts for nothing.
    pub matcher: Option<String>,
    /// What the caller knows the replies by.
    pub ticket: Option<String>,
    /// Where replies go; without it, none is wanted.
    pub reply_to: Option<ReplyTo>,
}

/// Where replies go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyTo {
    /// The exchange.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
}

impl Request {
    /// Reads a message of a mailbox, and tells how it was written: replies must be written alike.
    ///
    /// # Errors
    /// When the message is none of remote control, or larger than [`LIMITS`].
    pub fn decode(message: &Message) -> Result<(Self, Serializer), Error> {
        let (serializer, body) = decode_body(message)?;
        let mut request = Self::default();
        let mut found = false;
        for (key, value) in body {
            match &*key {
                "method" => {
                    found = true;
                    request.method = fields::text("method", value)?.unwrap_or_default();
                }
                "arguments" => request.arguments = fields::map("arguments", value)?,
                "destination" => request.destination = destination(value)?,
                "pattern" => request.pattern = fields::text("pattern", value)?,
                "matcher" => request.matcher = fields::text("matcher", value)?,
                "ticket" => request.ticket = fields::text("ticket", value)?,
                "reply_to" => request.reply_to = ReplyTo::from_value(value)?,
                _ => {}
            }
        }
        if !found || request.method.is_empty() {
            return Err(Error::Missing { field: "method" });
        }
        if let Some(ticket) = &request.ticket {
            // It comes back in a header.
            short("ticket", ticket)?;
        }
        Ok((request, serializer))
    }

    /// Writes the message: `clock` and `expires` (seconds since the Unix epoch) are headers that
    /// Celery writes and nobody acts on.
    ///
    /// # Errors
    /// When an argument has no form in that encoding.
    pub fn encode(
        &self,
        serializer: Serializer,
        clock: i64,
        expires: f64,
    ) -> Result<Message, Error> {
        let text = |text: &Option<String>| Value::from(text.as_deref());
        let mut body = Map::with_capacity(7);
        body.push("method", self.method.as_str());
        body.push("arguments", self.arguments.clone());
        let hosts = || self.destination.iter().map(|it| Value::from(it.as_str())).collect();
        let hosts: Option<Vec<Value>> = (!self.destination.is_empty()).then(hosts);
        body.push("destination", hosts);
        body.push("pattern", text(&self.pattern));
        body.push("matcher", text(&self.matcher));
        if let Some(reply_to) = &self.reply_to {
            body.push("ticket", text(&self.ticket));
            let entries =
                [("exchange", &reply_to.exchange), ("routing_key", &reply_to.routing_key)];
            body.push("reply_to", Map::from_iter(entries.map(|(key, it)| (key, it.as_str()))));
        }
        let mut headers = Map::with_capacity(2);
        headers.push("clock", clock);
        headers.push("expires", expires);
        announcement::encode(&Value::Map(body), serializer, headers, Properties::PERSISTENT)
    }

    /// Whether the request is for the node `hostname`.
    ///
    /// As in Celery, a list of nodes decides alone; a pattern decides if it has a matcher; a
    /// request with neither is for everybody.
    ///
    /// # Errors
    /// When the pattern is malformed or too large; see [`Matcher::matches`].
    pub fn concerns(&self, hostname: &str) -> Result<bool, Error> {
        if !self.destination.is_empty() {
            return Ok(self.destination.iter().any(|it| it == hostname));
        }
        match self.matching() {
            Some((pattern, matcher)) => Matcher::from_str(matcher)?.matches(pattern, hostname),
            None => Ok(true),
        }
    }

    /// Whether it is for every worker.
    pub fn is_for_all(&self) -> bool {
        self.destination.is_empty() && self.matching().is_none()
    }

    /// The pattern and its matcher, if they count; empty ones do not.
    fn matching(&self) -> Option<(&str, &str)> {
        let filled = |text: &'_ str| !text.is_empty();
        let pattern = self.pattern.as_deref().filter(|it| filled(it));
        pattern.zip(self.matcher.as_deref().filter(|it| filled(it)))
    }
}

impl ReplyTo {
    fn from_value(value: Value) -> Result<Option<Self>, Error> {
        if value.is_null() {
            return Ok(None);
        }
        let mut reply_to = Self::default();
        for (key, value) in fields::map("reply_to", value)? {
            match &*key {
                "exchange" => {
                    reply_to.exchange = fields::text("exchange", value)?.unwrap_or_default();
                }
                "routing_key" => {
                    reply_to.routing_key = fields::text("routing_key", value)?.unwrap_or_default();
                }
                _ => {}
            }
        }
        short("exchange", &reply_to.exchange)?;
        short("routing_key", &reply_to.routing_key)?;
        Ok(Some(reply_to))
    }
}

fn destination(value: Value) -> Result<Vec<String>, Error> {
    let hosts = fields::array("destination", value)?.unwrap_or_default();
    if hosts.len() > DESTINATIONS_MAX {
        return Err(Error::Limit { what: "destinations", max: DESTINATIONS_MAX });
    }
    let host = |value| fields::text("destination", value)?.ok_or(Error::Missing { field: "host" });
    hosts.into_iter().map(host).collect()
}

/// The map that a message of remote control is.
pub(super) fn decode_body(message: &Message) -> Result<(Serializer, Map), Error> {
    match announcement::decode(message, &LIMITS)? {
        (serializer, Value::Map(body)) => Ok((serializer, body)),
        (_, other) => Err(fields::wrong("body", "a dict", &other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str) -> Message {
        let content_type = Some("application/json".to_owned());
        let properties = Properties { content_type, ..Properties::default() };
        Message { properties, body: body.as_bytes().to_vec() }
    }

    fn request(body: &str) -> Request {
        Request::decode(&message(body)).unwrap().0
    }

    #[test]
    fn a_request_says_whom_it_concerns() {
        for (body, expected) in [
            (r#"{"method": "ping"}"#, true),
            (r#"{"method": "ping", "destination": []}"#, true),
            (r#"{"method": "ping", "destination": ["w1@h"]}"#, true),
            (r#"{"method": "ping", "destination": ["w2@h"]}"#, false),
            (r#"{"method": "ping", "destination": ["w1"]}"#, false),
            (r#"{"method": "ping", "pattern": "w2*"}"#, true),
            (r#"{"method": "ping", "pattern": "w2*", "matcher": "glob"}"#, false),
            (r#"{"method": "ping", "pattern": "w1*", "matcher": "glob"}"#, true),
            (r#"{"method": "ping", "pattern": "", "matcher": "glob"}"#, true),
            (
                r#"{"method": "p", "destination": ["w1@h"], "pattern": "x", "matcher": "pcre"}"#,
                true,
            ),
        ] {
            assert_eq!(request(body).concerns("w1@h").unwrap(), expected, "{body}");
        }
        for (body, expected) in [
            (r#"{"method": "p", "pattern": "", "matcher": "glob"}"#, true),
            (r#"{"method": "p", "pattern": "w*", "matcher": ""}"#, true),
            (r#"{"method": "p", "pattern": "w*", "matcher": "glob"}"#, false),
            (r#"{"method": "p", "destination": ["w1@h"]}"#, false),
        ] {
            assert_eq!(request(body).is_for_all(), expected, "{body}");
        }
        let odd = request(r#"{"method": "p", "pattern": "x", "matcher": "sql"}"#);
        assert!(odd.concerns("w1@h").is_err());
    }

    #[test]
    fn garbage_is_an_error() {
        for body in [
            "",
            "null",
            "[]",
            "{}",
            "{\"method\": null}",
            "{\"method\": 3}",
            "{\"method\": \"x\", \"arguments\": []}",
            "{\"method\": \"x\", \"destination\": \"w1@h\"}",
            "{\"method\": \"x\", \"destination\": [null]}",
            "{\"method\": \"x\", \"destination\": [[[]]]}",
            "{\"method\": \"x\", \"reply_to\": 7}",
            "{\"method\": \"x\", \"reply_to\": {\"exchange\": []}}",
            "{\"method\": \"x\", \"ticket\": {}}",
            "\u{0}\u{1}",
        ] {
            assert!(Request::decode(&message(body)).is_err(), "{body}");
        }
        let long = format!("{{\"method\": \"x\", \"ticket\": \"{}\"}}", "t".repeat(256));
        assert!(Request::decode(&message(&long)).is_err());
        let deep = format!("{{\"method\": \"x\", \"arguments\": {}1", "[".repeat(100_000));
        assert!(Request::decode(&message(&deep)).is_err());
        let mut yaml = message("{\"method\": \"x\"}");
        yaml.properties.content_type = Some("application/x-yaml".to_owned());
        assert!(Request::decode(&yaml).is_err());
        let huge = Message { body: vec![b' '; LIMITS.bytes_max + 1], ..message("") };
        assert!(Request::decode(&huge).is_err());
    }
}
