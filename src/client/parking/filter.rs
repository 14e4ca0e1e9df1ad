//! Which parked messages are meant. Pure.

use std::time::Duration;

use jiff::Timestamp;

use super::Parked;

/// A message is meant if it passes every part that is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Any of these reasons.
    pub reasons: Vec<String>,
    /// Any of these tasks; `proj.*` is every task whose name begins with `proj.`.
    pub tasks: Vec<String>,
    /// Any of these task ids.
    pub ids: Vec<String>,
    /// Parked before this time.
    pub before: Option<Timestamp>,
    /// Parked after this time.
    pub after: Option<Timestamp>,
}

impl Filter {
    /// The same for what was parked longer ago than `older_than`, or not so long ago as
    /// `newer_than`, by this machine's clock.
    #[must_use]
    pub fn aged(self, older_than: Option<Duration>, newer_than: Option<Duration>) -> Self {
        let now = Timestamp::now();
        let ago = |age| now.checked_sub(age).unwrap_or(Timestamp::MIN);
        Self { before: older_than.map(ago), after: newer_than.map(ago), ..self }
    }

    /// Whether every message passes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether `parked` passes. A message that does not say when it was parked has no age, and
    /// passes no limit of ages.
    pub fn takes(&self, parked: &Parked) -> bool {
        let among = |wanted: &[String], found: Option<&str>| {
            wanted.is_empty() || found.is_some_and(|it| wanted.iter().any(|like| is_like(it, like)))
        };
        let exactly = |wanted: &[String], found: Option<&str>| {
            wanted.is_empty() || found.is_some_and(|found| wanted.iter().any(|it| it == found))
        };
        among(&self.tasks, parked.task())
            && exactly(&self.reasons, parked.reason())
            && exactly(&self.ids, parked.id())
            && self.before.is_none_or(|limit| parked.time().is_some_and(|time| time < limit))
            && self.after.is_none_or(|limit| parked.time().is_some_and(|time| time > limit))
    }
}

fn is_like(name: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Map, Message};

    #[test]
    fn a_message_passes_when_every_part_of_the_filter_takes_it() {
        let headers = [
            ("task", "proj.add"),
            ("id", "1"),
            ("dead_reason", "body"),
            ("dead_time", "2026-01-01T00:00:00Z"),
        ];
        let mut message = Message::default();
        message.properties.headers = Some(Map::from_iter(headers));
        let parked = Parked::new("q.dead", message);
        let some = |text: &str| vec!["other".to_owned(), text.to_owned()];
        let at = |text: &str| Some(text.parse().unwrap());
        let takes = |change: &dyn Fn(&mut Filter)| {
            let mut filter = Filter::default();
            change(&mut filter);
            filter.takes(&parked)
        };
        assert!(takes(&|_| {}));
        assert!(takes(&|it| it.tasks = some("proj.*")));
        assert!(takes(&|it| it.ids = some("1")));
        assert!(takes(&|it| it.before = at("2026-01-01T00:00:01Z")));
        assert!(!takes(&|it| it.after = at("2026-01-01T00:00:01Z")));
        assert!(!takes(&|it| it.tasks = some("proj")));
        assert!(!takes(&|it| {
            it.ids = some("1");
            it.reasons = some("unknown-task");
        }));
        let ageless = Parked::new("q.dead", Message::default());
        let filter = Filter { before: at("2030-01-01T00:00:00Z"), ..Filter::default() };
        assert!(!filter.takes(&ageless) && Filter::default().takes(&ageless));
    }
}
