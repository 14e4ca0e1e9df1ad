//! Events as lines for people. What others have written stays on its line.

use celeriac::protocol::Value;
use celeriac::protocol::event::{Event, EventKind, TaskInfo, WorkerFacts};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::filter::Names;
use crate::output::for_people;

/// One line: when, who, what.
pub(super) fn of(event: &Event, names: &Names) -> String {
    let what = details(event, names);
    let line = format!("{} {} {} {what}", time(event.timestamp), event.hostname, event.name());
    one_line(line.trim_end())
}

fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter.is_control() {
            true => line.extend(letter.escape_default()),
            false => line.push(letter),
        }
    }
    line
}

/// The sender's time in the zone of this machine; as it is if no calendar has it.
fn time(timestamp: f64) -> String {
    let moment = Timestamp::from_microsecond((timestamp * 1e6) as i64);
    match moment {
        Ok(moment) => {
            moment.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S.%3f").to_string()
        }
        Err(_) => timestamp.to_string(),
    }
}

fn details(event: &Event, names: &Names) -> String {
    let name = names.of(event).unwrap_or_default();
    let uuid = event.kind.uuid().unwrap_or_default();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    match &event.kind {
        EventKind::TaskSent(sent) => {
            let to = sent.queue.as_ref().or(sent.routing_key.as_ref());
            format!("{} to {}", call(&sent.task), to.map_or("", String::as_str))
        }
        EventKind::TaskReceived(task) => call(task),
        EventKind::TaskSucceeded { result, runtime, .. } => {
            let runtime = runtime.map_or_else(String::new, |it| format!(" in {it:.3}s"));
            format!("{name}[{uuid}]{runtime}: {}", text(result))
        }
        EventKind::TaskFailed { exception, .. } | EventKind::TaskRetried { exception, .. } => {
            format!("{name}[{uuid}]: {}", text(exception))
        }
        EventKind::TaskRejected { requeue: true, .. } => format!("{name}[{uuid}]: goes back"),
        EventKind::TaskRevoked { terminated, signum, expired, .. } => {
            let how = match (expired, terminated, signum) {
                (true, ..) => ": expired".to_owned(),
                (false, true, Some(signum)) => format!(": terminated by signal {signum}"),
                (false, true, None) => ": terminated".to_owned(),
                (false, false, _) => String::new(),
            };
            format!("{name}[{uuid}]{how}")
        }
        EventKind::WorkerOnline(facts)
        | EventKind::WorkerHeartbeat(facts)
        | EventKind::WorkerOffline(facts) => worker(facts),
        EventKind::Custom { fields, .. } => for_people(&Value::Map(fields.clone())),
        _ => format!("{name}[{uuid}]"),
    }
}

fn call(task: &TaskInfo) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (name, args, kwargs) = (text(&task.name), text(&task.args), text(&task.kwargs));
    let mut line = format!("{name}[{}] args={args} kwargs={kwargs}", task.uuid);
    if let Some(eta) = &task.eta {
        line.push_str(&format!(" eta={eta}"));
    }
    if task.retries > 0 {
        line.push_str(&format!(" retries={}", task.retries));
    }
    line
}

fn worker(facts: &WorkerFacts) -> String {
    let mut line = Vec::new();
    if let (Some(active), Some(processed)) = (facts.active, facts.processed) {
        line.push(format!("{active} active, {processed} processed"));
    }
    if let Some([one, five, fifteen]) = facts.loadavg {
        line.push(format!("load {one} {five} {fifteen}"));
    }
    if let (Some(name), Some(version)) = (&facts.sw_ident, &facts.sw_ver) {
        line.push(format!("{name} {version}"));
    }
    line.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: EventKind, names: &Names) -> String {
        let hostname = "w@h".to_owned();
        let timestamp = 1_795_334_761.607;
        let event = Event { hostname, utcoffset: None, pid: None, clock: None, timestamp, kind };
        let line = of(&event, names);
        let (time, rest) = line.split_at("2026-11-22 07:12:41.607".len());
        assert!(time.starts_with("2026-11-2") && time.ends_with(".607"), "{time}");
        rest.to_owned()
    }

    #[test]
    fn a_line_tells_who_and_what() {
        let text = |text: &str| Some(text.to_owned());
        let info = TaskInfo {
            uuid: "1".to_owned(),
            name: text("add"),
            args: text("('a\nb',)"),
            kwargs: text("{}"),
            retries: 2,
            ..TaskInfo::default()
        };
        let mut names = Names::default();
        let received = EventKind::TaskReceived(Box::new(info));
        let (hostname, kind) = ("w@h".to_owned(), received.clone());
        let (utcoffset, pid, clock, timestamp) = (None, None, None, 0.0);
        names.remember(&Event { hostname, utcoffset, pid, clock, timestamp, kind });
        let expected = r" w@h task-received add[1] args=('a\nb',) kwargs={} retries=2";
        assert_eq!(line(received, &names), expected);
        let uuid = || "1".to_owned();
        let done =
            EventKind::TaskSucceeded { uuid: uuid(), result: text("5"), runtime: Some(0.25) };
        assert_eq!(line(done, &names), " w@h task-succeeded add[1] in 0.250s: 5");
        let (terminated, signum, expired) = (true, Some(15), false);
        let revoked = EventKind::TaskRevoked { uuid: uuid(), terminated, signum, expired };
        assert_eq!(line(revoked, &names), " w@h task-revoked add[1]: terminated by signal 15");
        let facts = WorkerFacts { active: Some(1), processed: Some(2), ..WorkerFacts::default() };
        let beat = line(EventKind::WorkerHeartbeat(facts), &names);
        assert_eq!(beat, " w@h worker-heartbeat 1 active, 2 processed");
        let online = line(EventKind::WorkerOnline(WorkerFacts::default()), &names);
        assert_eq!(online, " w@h worker-online");
    }
}
