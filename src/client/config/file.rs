//! Settings from TOML: keys at the top level, lines kept for the errors.

use std::path::Path;

use ::toml::Spanned;
use ::toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};
use super::raw::{Kind, Raw};
use super::{Config, keys};

/// Sets what the TOML `text` says; `path` is for the errors.
pub(super) fn apply(
    config: &mut Config,
    text: &str,
    path: Option<&Path>,
) -> Result<(), ConfigError> {
    let origin = |line| Origin::Toml { path: path.map(Path::to_path_buf), line };
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        origin: origin(error.span().map(|span| line_at(text, span.start))),
        message: error.message().to_owned(),
    })?;
    for (key, raw) in entries(table.get_ref(), text) {
        let at = origin(raw.line);
        keys::set(config, &key, &raw, at)?;
    }
    Ok(())
}

/// Reads one value: `{ "billing.*" = { queue = "billing" } }`.
pub(super) fn parse_value(text: &str) -> Result<Raw, String> {
    let value = DeValue::parse(text).map_err(|error| error.message().to_owned())?;
    Ok(convert(&value, text))
}

/// The entries in the order of the text: the table itself sorts them by key.
fn entries(table: &DeTable<'_>, text: &str) -> Vec<(String, Raw)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let key: &std::borrow::Cow<'_, str> = key.get_ref();
        (key.to_string(), convert(value, text))
    };
    entries.into_iter().map(entry).collect()
}

fn convert(value: &Spanned<DeValue<'_>>, text: &str) -> Raw {
    let kind = match value.get_ref() {
        DeValue::String(it) => Kind::Text(it.to_string()),
        DeValue::Integer(it) => i64::from_str_radix(it.as_str(), it.radix())
            .map_or(Kind::Other("a number beyond 64 bits"), Kind::Int),
        DeValue::Float(it) => it.as_str().parse().map_or(Kind::Other("a float"), Kind::Float),
        DeValue::Boolean(it) => Kind::Bool(*it),
        DeValue::Datetime(_) => Kind::Other("a date"),
        DeValue::Array(items) => Kind::List(items.iter().map(|it| convert(it, text)).collect()),
        DeValue::Table(table) => Kind::Table(entries(table, text)),
    };
    Raw { kind, line: Some(line_at(text, value.span().start)) }
}

fn line_at(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}
