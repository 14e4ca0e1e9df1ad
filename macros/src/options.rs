//! The options in the parentheses of `#[task(...)]`.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Error, Expr, ExprLit, Lit, LitStr, Meta, Result, Token};

use crate::duration;

/// Every option there is, for suggestions.
const NAMES: [&str; 12] = [
    "name",
    "queue",
    "priority",
    "serializer",
    "ignore_result",
    "acks",
    "time_limit",
    "soft_time_limit",
    "max_retries",
    "retry_delay",
    "track_started",
    "blocking",
];

/// The options that were given.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) name: Option<LitStr>,
    pub(crate) queue: Option<LitStr>,
    pub(crate) priority: Option<u8>,
    pub(crate) serializer: Option<&'static str>,
    pub(crate) ignore_result: Option<bool>,
    pub(crate) acks: Option<&'static str>,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) soft_time_limit: Option<Duration>,
    pub(crate) max_retries: Option<u32>,
    pub(crate) retry_delay: Option<Duration>,
    pub(crate) track_started: Option<bool>,
    pub(crate) blocking: Option<bool>,
}

impl Options {
    /// Reads `key = value` pairs and flags; reports every mistake at its place.
    pub(crate) fn parse(tokens: TokenStream) -> Result<Self> {
        let metas = Punctuated::<Meta, Token![,]>::parse_terminated.parse2(tokens)?;
        let mut options = Self::default();
        let mut errors: Option<Error> = None;
        for meta in &metas {
            if let Err(error) = options.read(meta) {
                match &mut errors {
                    Some(errors) => errors.combine(error),
                    None => errors = Some(error),
                }
            }
        }
        errors.map_or(Ok(options), Err)
    }

    fn read(&mut self, meta: &Meta) -> Result<()> {
        let key = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
        match key.as_str() {
            "name" => set(&mut self.name, meta, text),
            "queue" => set(&mut self.queue, meta, text),
            "priority" => set(&mut self.priority, meta, |value| number(value, "0 to 255")),
            "serializer" => set(&mut self.serializer, meta, |value| {
                choice(value, &[("msgpack", "Msgpack"), ("json", "Json")])
            }),
            "ignore_result" => set(&mut self.ignore_result, meta, flag),
            "acks" => set(&mut self.acks, meta, |value| {
                choice(value, &[("late", "Late"), ("early", "Early")])
            }),
            "time_limit" => set(&mut self.time_limit, meta, time),
            "soft_time_limit" => set(&mut self.soft_time_limit, meta, time),
            "max_retries" => {
                set(&mut self.max_retries, meta, |value| number(value, "a number, 0 or more"))
            }
            "retry_delay" => set(&mut self.retry_delay, meta, time),
            "track_started" => set(&mut self.track_started, meta, flag),
            "blocking" => set(&mut self.blocking, meta, flag),
            _ => Err(unknown(meta)),
        }
    }
}

/// What stands behind the key: a value, or nothing.
type Given<'a> = (&'a Meta, Option<&'a Expr>);

fn set<T>(
    option: &mut Option<T>,
    meta: &Meta,
    read: impl FnOnce(Given<'_>) -> Result<T>,
) -> Result<()> {
    let value = match meta {
        Meta::NameValue(pair) => Some(&pair.value),
        Meta::Path(_) => None,
        Meta::List(list) => return Err(Error::new_spanned(list, "write `option = value`")),
    };
    if option.is_some() {
        let key = meta.path().to_token_stream();
        return Err(Error::new_spanned(meta, format!("the option `{key}` is given twice")));
    }
    *option = Some(read((meta, value))?);
    Ok(())
}

fn wrong((meta, value): Given<'_>, expected: &str) -> Error {
    let text = format!("`{}`: {expected}", meta.path().to_token_stream());
    value.map_or_else(|| Error::new_spanned(meta, &text), |value| Error::new_spanned(value, &text))
}

fn literal<'a>((_, value): Given<'a>) -> Option<&'a Lit> {
    match value? {
        Expr::Lit(ExprLit { lit, .. }) => Some(lit),
        _ => None,
    }
}

fn text(given: Given<'_>) -> Result<LitStr> {
    match literal(given) {
        Some(Lit::Str(text)) if !text.value().is_empty() => Ok(text.clone()),
        _ => Err(wrong(given, "expected text in quotes")),
    }
}

fn number<T: std::str::FromStr>(given: Given<'_>, expected: &str) -> Result<T> {
    match literal(given) {
        Some(Lit::Int(number)) => number.base10_digits().parse().ok(),
        _ => None,
    }
    .ok_or_else(|| wrong(given, &format!("expected {expected}")))
}

fn flag(given: Given<'_>) -> Result<bool> {
    match (given.1, literal(given)) {
        (None, _) => Ok(true),
        (_, Some(Lit::Bool(flag))) => Ok(flag.value),
        _ => Err(wrong(given, "expected nothing, `true` or `false`")),
    }
}

fn time(given: Given<'_>) -> Result<Duration> {
    match literal(given) {
        Some(Lit::Str(text)) => duration::parse(&text.value()),
        Some(Lit::Int(number)) => number.base10_parse().ok().map(Duration::from_secs),
        Some(Lit::Float(number)) => number.base10_parse().ok().and_then(duration::seconds),
        _ => None,
    }
    .ok_or_else(|| wrong(given, duration::EXPECTED))
}

/// One of a few words, bare or in quotes; gives the second of the pair.
fn choice(given: Given<'_>, words: &[(&str, &'static str)]) -> Result<&'static str> {
    let word = match given.1 {
        Some(Expr::Path(path)) => path.path.get_ident().map(ToString::to_string),
        Some(Expr::Lit(ExprLit { lit: Lit::Str(text), .. })) => Some(text.value()),
        _ => None,
    };
    let found = words.iter().find(|(name, _)| word.as_deref() == Some(name));
    found.map(|(_, variant)| *variant).ok_or_else(|| {
        let names: Vec<_> = words.iter().map(|(name, _)| format!("`{name}`")).collect();
        wrong(given, &format!("expected {}", names.join(" or ")))
    })
}

fn unknown(meta: &Meta) -> Error {
    let key = meta.path().to_token_stream().to_string();
    let similar = |name: &&str| strsim::jaro_winkler(name, &key);
    let nearest = NAMES.iter().max_by(|a, b| similar(a).total_cmp(&similar(b)));
    let advice = match nearest.filter(|name| similar(name) > 0.8) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("there are: {}", NAMES.join(", ")),
    };
    Error::new_spanned(meta.path(), format!("unknown option `{key}`: {advice}"))
}
