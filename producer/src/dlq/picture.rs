//! Parked messages as people read them.

use celeriac::client::parking::Parked;
use celeriac::protocol::{Map, Value};

use crate::output::for_people;

/// `2026-11-22T10:00:00Z  unknown-task  proj.add[5f0c]  celery  received unregistered task …`
pub(super) fn line(parked: &Parked) -> String {
    let time = parked.time().map_or_else(|| "-".to_owned(), |time| format!("{time:.0}"));
    let (task, id) = (parked.task().unwrap_or("-"), parked.id().unwrap_or("-"));
    let [reason, queue, error] =
        [parked.reason(), parked.queue(), parked.error()].map(|it| it.unwrap_or("-"));
    // What is in headers is somebody else's text.
    printable(&format!("{time}  {reason}  {task}[{id}]  {queue}  {error}"))
}

/// One fact a line.
pub(super) fn whole(facts: &Map) -> String {
    let fact = |(name, value): (&str, &Value)| {
        let shown = match value {
            Value::Null => return None,
            Value::String(text) => printable(text),
            other => for_people(other),
        };
        Some(format!("{name}: {shown}"))
    };
    facts.iter().filter_map(fact).collect::<Vec<_>>().join("\n")
}

/// Without what a terminal could take for a command.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use celeriac::protocol::Message;

    #[test]
    fn a_line_has_no_control_characters_and_no_holes() {
        let mut message = Message::default();
        message.properties.headers =
            Some(Map::from_iter([("id", "1"), ("dead_error", "two\nlines\u{1b}[2J")]));
        let parked = Parked::new("q.dead", message);
        assert_eq!(line(&parked), "-  -  -[1]  q  two lines [2J");
    }
}
