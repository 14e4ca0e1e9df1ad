//! A setting's value as its source gives it, and how the types of settings are read from it.
//!
//! Files give typed values, the environment gives text, so every reader takes both. Messages say
//! what would fit; where the value was is added by the caller.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{QueueSetting, duration};
use crate::amqp::{BrokerUrl, QueueKind, TlsOptions, UrlError};
use crate::client::route::{Route, Routes};
use crate::protocol::join::Mode;
use crate::protocol::{Compression, Serializer};

/// A value with the line it stands on.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub(super) kind: Kind,
    /// Counted from 1; `None` outside of files.
    pub(super) line: Option<usize>,
}

/// What the source gives.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    List(Vec<Raw>),
    /// In the order of the source.
    Table(Vec<(String, Raw)>),
    /// What no setting takes, by its name.
    Other(&'static str),
}

/// Why a value does not fit: `path` leads from the setting into its tables.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) path: String,
    pub(super) line: Option<usize>,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Invalid {
        expected: String,
        found: String,
    },
    /// In words of its own; used where the value must not be quoted.
    Refused {
        reason: String,
    },
    Unknown {
        key: String,
        known: &'static [&'static str],
    },
}

impl Problem {
    /// `raw` is not what is `expected`; quotes what is there.
    pub(super) fn invalid(raw: &Raw, expected: impl Into<String>) -> Self {
        Self::secret(raw, expected, raw.quoted())
    }

    /// As [`invalid`](Self::invalid), with `found` in place of the value itself.
    fn secret(raw: &Raw, expected: impl Into<String>, found: impl Into<String>) -> Self {
        let what = What::Invalid { expected: expected.into(), found: found.into() };
        Self { path: String::new(), line: raw.line, what }
    }

    fn refused(raw: &Raw, reason: String) -> Self {
        Self { path: String::new(), line: raw.line, what: What::Refused { reason } }
    }

    fn inside(mut self, step: &str) -> Self {
        self.path = format!("{step}{}", self.path);
        self
    }
}

impl Raw {
    fn quoted(&self) -> String {
        match &self.kind {
            Kind::Text(text) => format!("'{text}'"),
            Kind::Int(number) => number.to_string(),
            Kind::Float(number) => number.to_string(),
            Kind::Bool(flag) => flag.to_string(),
            Kind::List(_) => "a list".to_owned(),
            Kind::Table(_) => "a table".to_owned(),
            Kind::Other(name) => (*name).to_owned(),
        }
    }

    /// Elements of a list; text is a list with commas, anything else a list of one.
    fn elements(&self) -> Vec<Self> {
        match &self.kind {
            Kind::List(items) => items.clone(),
            Kind::Text(text) => text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(|part| Self { kind: Kind::Text(part.to_owned()), line: self.line })
                .collect(),
            _ => vec![self.clone()],
        }
    }

    fn table(&self, expected: &str) -> Result<&[(String, Self)], Problem> {
        match &self.kind {
            Kind::Table(entries) => Ok(entries),
            _ => Err(Problem::invalid(self, expected)),
        }
    }
}

/// A type that a setting can have.
pub(super) trait FromRaw: Sized {
    fn from_raw(raw: &Raw) -> Result<Self, Problem>;
}

impl FromRaw for String {
    fn from_raw(raw: &Raw) -> Result<Self, Problem> {
        match &raw.kind {
            Kind::Text(text) if !text.is_empty() => Ok(text.clone()),
            _ => Err(Problem::invalid(raw, "text")),
        }
    }
}

impl FromRaw for bool {
    fn from_raw(raw: &Raw) -> Result<Self, Problem> {
        match &raw.kind {
            Kind::Bool(flag) => Ok(*flag),
            Kind::Int(1) => Ok(true),
            Kind::Int(0) => Ok(false),
            Kind::Text(text) => match &*text.to_ascii_lowercase() {
                "true" | "yes" | "on" | "1" => Ok(true),
                "false" | "no" | "off" | "0" => Ok(false),
                _ => Err(Problem::invalid(raw, "true or false")),
            },
            _ => Err(Problem::invalid(raw, "true or false")),
        }
    }
}

macro_rules! whole_numbers {
    ($($type:ty: $range:expr, $expected:expr;)*) => {$(
        impl FromRaw for $type {
            fn from_raw(raw: &Raw) -> Result<Self, Problem> {
                let number = match &raw.kind {
                    Kind::Int(number) => Some(*number),
                    Kind::Text(text) => text.trim().parse().ok(),
                    _ => None,
                };
                number
                    .filter(|number: &i64| $range.contains(number))
                    .and_then(|number| <$type>::try_from(number).ok())
                    .ok_or_else(|| Problem::invalid(raw, $expected))
            }
        }
    )*};
}

whole_numbers! {
    u8: (0..=255), "a whole number from 0 to 255";
    u16: (0..=65_535), "a whole number from 0 to 65535";
    i32: (i64::from(i32::MIN)..=i64::from(i32::MAX)), "a whole number";
    u32: (1..), "a whole number from 1 on";
    usize: (1..), "a whole number from 1 on";
}

impl FromRaw for Duration {
    fn from_raw(raw: &Raw) -> Result<Self, Problem> {
        match &raw.kind {
            Kind::Int(seconds) => u64::try_from(*seconds).ok().map(Self::from_secs),
            Kind::Float(seconds) => Self::try_from_secs_f64(*seconds).ok(),
            Kind::Text(text) => duration::parse_duration(text).ok(),
            _ => None,
        }
        .ok_or_else(|| Problem::invalid(raw, "seconds, or text such as \"30s\" or \"1h 30m\""))
    }
}

/// Settings that need a value to say "none" take `false`; absent means the default.
impl<T: FromRaw> FromRaw for Option<T> {
    fn from_raw(raw: &Raw) -> Result<Self, Problem> {
        match &raw.kind {
            Kind::Bool(false) => Ok(None),
            Kind::Text(text) if matches!(&**text, "none" | "None" | "false") => Ok(None),
            _ => T::from_raw(raw).map(Some),
        }
    }
}

impl FromRaw for Vec<BrokerUrl> {
    fn from_raw(raw: &Raw) -> Result<Self, Problem> {
        let texts = match &raw.kind {
            Kind::List(items) => items.iter().map(String::from_raw).collect::<Result<_, _>>()?,
            Kind::Text(text) => split_urls(text),
            _ => Vec::new(),
        };
        if texts.is_empty() {
            let found = format!("{} with no URL in it", raw.quoted());
            return Err(Problem::secret(raw, "one broker URL or a list of them", found));
        }
        texts
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()
            .map_err(|error: UrlError| Problem::refused(raw, error.to_string()))
    }
}

/// Splits `amqp://one;amqp://two`, Celery's way to list brokers, also with commas.
///
/// Only a separator in front of a scheme counts: the others belong to a password.
fn split_urls(text: &str) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    for part in text.split_inclusive([',', ';']) {
        let scheme = part.split_once("://").map_or("", |(scheme, _)| scheme.trim_start());
        let starts_url = !scheme.is_empty() && scheme.bytes().all(|it| it.is_ascii_lowercase());
        match urls.last_mut() {
            Some(last) if !starts_url => last.push_str(part),
            _ => urls.push(part.trim_start().to_owned()),
        }
    }
    urls.iter()
        .map(|url| url.trim_end_matches([',', ';', ' ']).to_owned())
        .filter(|url| !url.is_empty())
        .collect()
}

macro_rules! by_name {
    ($($type:ty: $expected:expr;)*) => {$(
        impl FromRaw for $type {
            fn from_raw(raw: &Raw) -> Result<Self, Problem> {
                match &raw.kind {
                    Kind::Text(text) => <$type>::from_str(text).ok(),
                    _ => None,
                }
                .ok_or_else(|| Problem::invalid(raw, $expected))
            }
        }
    )*};
}

by_name! {
    Serializer: "'msgpack' or 'json'";
    Compression: "'gzip' or 'zstd'";
}

impl FromRaw for Mode {
    fn from_raw(raw: &Raw) -> Result<Self, Problem> {
        match &raw.kind {
            Kind::Text(text) if text == "fail_fast" => Ok(Self::FailFast),
            Kind::Text(text) if text == "collect" => Ok(Self::Collect),
            _ => Err(Problem::invalid(raw, "'fail_fast' or 'collect'")),
        }
    }
}

impl FromRaw for QueueKind {
    fn from_raw(raw: &Raw) -> Result<Self, Problem> {
        match &raw.kind {
            Kind::Text(text) if text == "quorum" => Ok(Self::Quorum),
            Kind::Text(text) if text == "classic" => Ok(Self::Classic),
            _ => Err(Problem::invalid(raw, "'quorum' or 'classic'")),
        }
    }
}

impl FromRaw for Vec<Serializer> {
    fn from_raw(raw: &Raw) -> Result<Self, Problem> {
        let list: Self =
            raw.elements().iter().map(Serializer::from_raw).collect::<Result<_, _>>()?;
        if list.is_empty() {
            return Err(Problem::invalid(raw, "a list with 'msgpack', 'json' or both"));
        }
        Ok(list)
    }
}

impl FromRaw for jiff::tz::TimeZone {
    fn from_raw(raw: &Raw) -> Result<Self, Problem> {
        match &raw.kind {
            Kind::Text(name) if name.eq_ignore_ascii_case("utc") => Some(Self::UTC),
            Kind::Text(name) => Self::get(name).ok(),
            _ => None,
        }
        .ok_or_else(|| {
            Problem::invalid(raw, "'UTC' or a time zone of this system such as 'Europe/Zurich'")
        })
    }
}

impl FromRaw for TlsOptions {
    fn from_raw(raw: &Raw) -> Result<Self, Problem> {
        const KNOWN: &[&str] = &["ca_certs", "certfile", "keyfile"];
        let expected = "a table with ca_certs, certfile and keyfile (amqps:// turns TLS on)";
        let mut tls = Self::default();
        read_table(raw.table(expected)?, KNOWN, |key, value| {
            let path = String::from_raw(value).map(PathBuf::from)?;
            match key {
                "ca_certs" => tls.ca = Some(path),
                "certfile" => tls.cert = Some(path),
                _ => tls.key = Some(path),
            }
            Ok(())
        })?;
        Ok(tls)
    }
}

impl FromRaw for Vec<QueueSetting> {
    fn from_raw(raw: &Raw) -> Result<Self, Problem> {
        let queue = |(at, raw): (usize, &Raw)| {
            QueueSetting::from_raw(raw).map_err(|problem| problem.inside(&format!("[{at}]")))
        };
        raw.elements().iter().enumerate().map(queue).collect()
    }
}

impl FromRaw for QueueSetting {
    fn from_raw(raw: &Raw) -> Result<Self, Problem> {
        const KNOWN: &[&str] = &["name", "queue_type", "max_priority"];
        if let Kind::Text(name) = &raw.kind {
            return Ok(Self::named(name));
        }
        let mut queue = Self::named("");
        read_table(raw.table("a queue's name or a table with its name")?, KNOWN, |key, value| {
            match key {
                "name" => queue.name = String::from_raw(value)?,
                "queue_type" => queue.queue_type = Some(QueueKind::from_raw(value)?),
                _ => queue.max_priority = Some(u8::from_raw(value)?),
            }
            Ok(())
        })?;
        if queue.name.is_empty() {
            return Err(Problem::secret(raw, "a table with a name", "a table without one"));
        }
        Ok(queue)
    }
}

impl FromRaw for Routes {
    fn from_raw(raw: &Raw) -> Result<Self, Problem> {
        let expected = "a table of \"task or pattern\" = { queue = \"…\" }";
        let mut routes = Self::new();
        for (pattern, value) in raw.table(expected)? {
            let step = format!(".\"{pattern}\"");
            let route = Route::from_raw(value).map_err(|problem| problem.inside(&step))?;
            routes = routes
                .route(pattern, route)
                .map_err(|error| Problem::refused(value, error.to_string()).inside(&step))?;
        }
        Ok(routes)
    }
}

impl FromRaw for Route {
    fn from_raw(raw: &Raw) -> Result<Self, Problem> {
        const KNOWN: &[&str] = &["queue", "exchange", "routing_key", "priority"];
        if let Kind::Text(queue) = &raw.kind {
            return Ok(Self::queue(queue));
        }
        let mut route = Self::default();
        let expected = "a queue's name or a table with queue, exchange, routing_key or priority";
        read_table(raw.table(expected)?, KNOWN, |key, value| {
            match key {
                "queue" => route.queue = Some(String::from_raw(value)?),
                "exchange" => route.exchange = Some(String::from_raw(value)?),
                "routing_key" => route.routing_key = Some(String::from_raw(value)?),
                _ => route.priority = Some(u8::from_raw(value)?),
            }
            Ok(())
        })?;
        Ok(route)
    }
}

/// Walks the entries of a table whose keys are all `known`.
fn read_table(
    entries: &[(String, Raw)],
    known: &'static [&'static str],
    mut read: impl FnMut(&str, &Raw) -> Result<(), Problem>,
) -> Result<(), Problem> {
    for (key, value) in entries {
        if !known.contains(&&**key) {
            let what = What::Unknown { key: key.clone(), known };
            return Err(Problem { path: String::new(), line: value.line, what });
        }
        read(key, value).map_err(|problem| problem.inside(&format!(".{key}")))?;
    }
    Ok(())
}
