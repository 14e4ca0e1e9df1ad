//! `--unique`: a call that is sent only if it is the first of its kind for a time.

use std::time::Duration;

use celeriac::Signature;
use celeriac::client::config::parse_duration;
use celeriac::protocol::{Map, Value};

use crate::input::in_json;

/// The options of a line that are about this, besides Celery's call options.
pub(crate) const KEYS: &[&str] = &["unique", "unique_key"];

/// What the options of a call say about it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Unique {
    window: Option<Duration>,
    key: Option<String>,
}

impl Unique {
    /// Takes them out of the options; or one sentence about one that cannot be read.
    pub(crate) fn take(options: &mut Map) -> Result<Self, String> {
        let window = match options.remove("unique") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => {
                let wrong = |_| format!("unique must be a time such as \"10m\", not {text:?}");
                Some(parse_duration(&text).map_err(wrong)?)
            }
            Some(value) => {
                let window = value.as_f64().and_then(|it| Duration::try_from_secs_f64(it).ok());
                let wrong = || {
                    format!(
                        "unique must be \"10m\" or a number of seconds, not {}",
                        in_json(&value)
                    )
                };
                Some(window.ok_or_else(wrong)?)
            }
        };
        let key = match options.remove("unique_key") {
            None | Some(Value::Null) => None,
            Some(Value::String(key)) => Some(key),
            Some(other) => return Err(format!("unique_key must be text, not {}", in_json(&other))),
        };
        if key.is_some() && window.is_none() {
            return Err("unique_key says nothing without unique".to_owned());
        }
        Ok(Self { window, key })
    }

    /// Says so of a call.
    pub(crate) fn apply(self, mut call: Signature<Value>) -> Signature<Value> {
        if let Some(window) = self.window {
            call = call.unique(window);
        }
        if let Some(key) = self.key {
            call = call.unique_key(key);
        }
        call
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take<const N: usize>(options: [(&'static str, Value); N]) -> Result<Unique, String> {
        Unique::take(&mut options.into_iter().collect())
    }

    #[test]
    fn a_time_is_text_or_a_number_of_seconds() {
        let window = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(take([]), Ok(Unique::default()));
        assert_eq!(take([("unique", "10m".into())]).unwrap().window, window(600));
        assert_eq!(take([("unique", 3.into())]).unwrap().window, window(3));
        let both = take([("unique", Value::Float(3.0)), ("unique_key", "k".into())]).unwrap();
        assert_eq!((both.window, both.key.as_deref()), (window(3), Some("k")));
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        for (option, value) in [
            ("unique", Value::from("soon")),
            ("unique", (-1).into()),
            ("unique", true.into()),
            ("unique_key", 3.into()),
            ("unique_key", "alone".into()),
        ] {
            assert!(take([(option, value)]).unwrap_err().starts_with(option));
        }
    }
}
