//! The options in the parentheses of `#[task(...)]`.

use std::num::NonZeroU32;
use std::time::Duration;

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Error, Expr, ExprLit, Lit, LitBool, LitStr, Meta, Result, Token, Type};

use crate::duration;
use crate::key::Key;

/// Every option there is, for suggestions.
const NAMES: [&str; 26] = [
    "name",
    "queue",
    "priority",
    "serializer",
    "ignore_result",
    "unique",
    "global_concurrency",
    "concurrency_key",
    "global_rate_limit",
    "rate_key",
    "acks",
    "time_limit",
    "soft_time_limit",
    "max_retries",
    "retry_delay",
    "retry_backoff",
    "retry_backoff_max",
    "retry_jitter",
    "retry_for",
    "dont_retry_for",
    "track_started",
    "isolate",
    "reject_on_worker_lost",
    "rate_limit",
    "on_connection_loss",
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
    pub(crate) unique: Option<Duration>,
    pub(crate) global_concurrency: Option<NonZeroU32>,
    pub(crate) concurrency_key: Option<Key>,
    /// The time between two starts.
    pub(crate) global_rate_limit: Option<Duration>,
    pub(crate) rate_key: Option<Key>,
    pub(crate) acks: Option<&'static str>,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) soft_time_limit: Option<Duration>,
    pub(crate) max_retries: Option<u32>,
    pub(crate) retry_delay: Option<Duration>,
    pub(crate) retry_backoff: Option<Duration>,
    pub(crate) retry_backoff_max: Option<Duration>,
    pub(crate) retry_jitter: Option<bool>,
    pub(crate) retry_for: Option<Vec<ErrorClass>>,
    pub(crate) dont_retry_for: Option<Vec<ErrorClass>>,
    pub(crate) track_started: Option<bool>,
    pub(crate) isolate: Option<&'static str>,
    pub(crate) reject_on_worker_lost: Option<bool>,
    /// The time between two starts.
    pub(crate) rate_limit: Option<Duration>,
    pub(crate) on_connection_loss: Option<&'static str>,
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
        match errors {
            Some(errors) => Err(errors),
            None => {
                options.check_retries(&metas)?;
                options.check_keys(&metas)?;
                Ok(options)
            }
        }
    }

    /// Options about retries that contradict each other, or are of no use alone.
    fn check_retries(&self, metas: &Punctuated<Meta, Token![,]>) -> Result<()> {
        let at = |name: &str| metas.iter().find(|meta| meta.path().is_ident(name));
        if self.retry_backoff.is_some() {
            return at("retry_delay").map_or(Ok(()), |meta| {
                let text = "`retry_backoff` has a first delay of its own: take one of them away";
                Err(Error::new_spanned(meta, text))
            });
        }
        let lonely = ["retry_backoff_max", "retry_jitter"].into_iter().find_map(at);
        lonely.map_or(Ok(()), |meta| {
            let key = meta.path().to_token_stream();
            let text = format!("`{key}` says nothing without `retry_backoff`");
            Err(Error::new_spanned(meta, text))
        })
    }

    /// Keys of limits that there are not.
    fn check_keys(&self, metas: &Punctuated<Meta, Token![,]>) -> Result<()> {
        let pairs = [
            ("concurrency_key", "global_concurrency", self.global_concurrency.is_some()),
            ("rate_key", "global_rate_limit", self.global_rate_limit.is_some()),
        ];
        for (key, limit, is_limited) in pairs {
            if let Some(meta) = metas.iter().find(|meta| meta.path().is_ident(key))
                && !is_limited
            {
                let text = format!("`{key}` says nothing without `{limit}`");
                return Err(Error::new_spanned(meta, text));
            }
        }
        Ok(())
    }

    /// The keys of limits.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.concurrency_key.iter().chain(&self.rate_key)
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
            "unique" => set(&mut self.unique, meta, time),
            "global_concurrency" => set(&mut self.global_concurrency, meta, |value| {
                number(value, "a number, 1 or more")
            }),
            "concurrency_key" => set(&mut self.concurrency_key, meta, limit_key),
            "global_rate_limit" => set(&mut self.global_rate_limit, meta, global_rate),
            "rate_key" => set(&mut self.rate_key, meta, limit_key),
            "acks" => set(&mut self.acks, meta, |value| {
                choice(value, &[("late", "Late"), ("early", "Early")])
            }),
            "time_limit" => set(&mut self.time_limit, meta, time),
            "soft_time_limit" => set(&mut self.soft_time_limit, meta, time),
            "max_retries" => {
                set(&mut self.max_retries, meta, |value| number(value, "a number, 0 or more"))
            }
            "retry_delay" => set(&mut self.retry_delay, meta, time),
            "retry_backoff" => set(&mut self.retry_backoff, meta, first_time),
            "retry_backoff_max" => set(&mut self.retry_backoff_max, meta, time),
            "retry_jitter" => set(&mut self.retry_jitter, meta, flag),
            "retry_for" => set_errors(&mut self.retry_for, meta),
            "dont_retry_for" => set_errors(&mut self.dont_retry_for, meta),
            "track_started" => set(&mut self.track_started, meta, flag),
            "isolate" => {
                set(&mut self.isolate, meta, |value| choice(value, &[("process", "Process")]))
            }
            "reject_on_worker_lost" => set(&mut self.reject_on_worker_lost, meta, flag),
            "rate_limit" => set(&mut self.rate_limit, meta, rate),
            "on_connection_loss" => set(&mut self.on_connection_loss, meta, |value| {
                choice(
                    value,
                    &[("recognise", "Recognise"), ("finish", "Finish"), ("cancel", "Cancel")],
                )
            }),
            "blocking" => set(&mut self.blocking, meta, flag),
            _ => Err(unknown(meta)),
        }
    }
}

/// Errors by which a task is retried, or not.
pub(crate) enum ErrorClass {
    /// A Rust type.
    Type(Box<Type>),
    /// The class that callers see.
    Named(LitStr),
}

impl Parse for ErrorClass {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        if !input.peek(LitStr) {
            return input.parse().map(|ty| Self::Type(Box::new(ty)));
        }
        let name: LitStr = input.parse()?;
        let words = name.value();
        let is_name = |word: &str| {
            !word.is_empty() && word.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
        };
        if words.split('.').all(is_name) {
            Ok(Self::Named(name))
        } else {
            let text = "expected a class, such as \"ValueError\" or \"shop.errors.Declined\"";
            Err(Error::new(name.span(), text))
        }
    }
}

/// `option(Type, "Class", ...)`.
fn set_errors(option: &mut Option<Vec<ErrorClass>>, meta: &Meta) -> Result<()> {
    let key = meta.path().to_token_stream();
    let Meta::List(list) = meta else {
        let text = format!("write `{key}(std::io::Error, \"ValueError\")`");
        return Err(Error::new_spanned(meta, text));
    };
    if option.is_some() {
        return Err(Error::new_spanned(meta, format!("the option `{key}` is given twice")));
    }
    let classes = list.parse_args_with(Punctuated::<ErrorClass, Token![,]>::parse_terminated)?;
    if classes.is_empty() {
        return Err(Error::new_spanned(meta, format!("`{key}`: name at least one error")));
    }
    *option = Some(classes.into_iter().collect());
    Ok(())
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

/// A number of starts in a second, minute or hour, as the time between two of them.
fn rate(given: Given<'_>) -> Result<Duration> {
    let parse = |text: &str| {
        let (count, unit) = text.split_once('/').unwrap_or((text, "s"));
        let seconds = match unit {
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let count = count.parse::<f64>().ok().filter(|count| *count > 0.0)?;
        Duration::try_from_secs_f64(seconds / count).ok().filter(|interval| !interval.is_zero())
    };
    match literal(given) {
        Some(Lit::Str(text)) => parse(&text.value()),
        Some(Lit::Int(number)) => parse(number.base10_digits()),
        Some(Lit::Float(number)) => parse(number.base10_digits()),
        _ => None,
    }
    .ok_or_else(|| wrong(given, "expected a rate such as \"10/s\", \"100/m\" or \"1000/h\""))
}

/// The same within what a queue of the broker can count.
fn global_rate(given: Given<'_>) -> Result<Duration> {
    const LEAST: Duration = Duration::from_micros(100);
    const MOST: Duration = Duration::from_secs(10 * 24 * 3600);
    let interval = rate(given)?;
    if (LEAST..=MOST).contains(&interval) {
        return Ok(interval);
    }
    Err(wrong(given, "expected at most \"10000/s\", and at least once in ten days"))
}

fn limit_key(given: Given<'_>) -> Result<Key> {
    Key::parse(text(given)?)
}

/// A flag, which is one second, or a time.
fn first_time(given: Given<'_>) -> Result<Duration> {
    match (given.1, literal(given)) {
        (None, _) | (_, Some(Lit::Bool(LitBool { value: true, .. }))) => Ok(Duration::from_secs(1)),
        _ => time(given),
    }
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
