//! Which events are shown, and what tasks are called.

use std::collections::{HashMap, VecDeque};

use celeriac::protocol::event::Event;

use super::args::EventsArgs;

/// Tasks whose names are remembered; the oldest are forgotten.
const NAMES_MAX: usize = 10_000;

/// The names of tasks by their ids: only two types of events tell them.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_id: HashMap<String, String>,
    order: VecDeque<String>,
}

impl Names {
    pub(super) fn remember(&mut self, event: &Event) {
        let Some(task) = event.kind.task() else { return };
        let Some(name) = &task.name else { return };
        if self.by_id.insert(task.uuid.clone(), name.clone()).is_some() {
            return;
        }
        self.order.push_back(task.uuid.clone());
        if self.order.len() > NAMES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_id.remove(&oldest);
        }
    }

    /// The name of the task that the event tells of, as far as it was told.
    pub(super) fn of(&self, event: &Event) -> Option<&str> {
        self.by_id.get(event.kind.uuid()?).map(String::as_str)
    }
}

/// What was asked for.
#[derive(Debug)]
pub(super) struct Filter<'a> {
    types: &'a [String],
    tasks: &'a [String],
}

impl<'a> Filter<'a> {
    pub(super) fn new(args: &'a EventsArgs) -> Self {
        Self { types: &args.types, tasks: &args.tasks }
    }

    pub(super) fn wants(&self, event: &Event, names: &Names) -> bool {
        self.wants_type(event.name()) && self.wants_task(event, names)
    }

    fn wants_type(&self, name: &str) -> bool {
        let group = name.split('-').next();
        let matches = |wanted: &String| wanted == name || Some(&**wanted) == group;
        self.types.is_empty() || self.types.iter().any(matches)
    }

    fn wants_task(&self, event: &Event, names: &Names) -> bool {
        let known = [event.kind.uuid(), names.of(event)];
        let matches = |wanted: &String| match wanted.strip_suffix('*') {
            Some(beginning) => known.iter().flatten().any(|it| it.starts_with(beginning)),
            None => known.iter().flatten().any(|it| it == wanted),
        };
        self.tasks.is_empty() || self.tasks.iter().any(matches)
    }
}

#[cfg(test)]
mod tests {
    use celeriac::protocol::event::{EventKind, TaskInfo};

    use super::*;

    fn event(kind: EventKind) -> Event {
        let hostname = "w@h".to_owned();
        Event { hostname, utcoffset: None, pid: None, clock: None, timestamp: 0.0, kind }
    }

    fn received(id: &str, name: &str) -> Event {
        let name = Some(name.to_owned());
        let info = TaskInfo { uuid: id.to_owned(), name, ..TaskInfo::default() };
        event(EventKind::TaskReceived(Box::new(info)))
    }

    #[test]
    fn events_are_chosen_by_type_and_by_task() {
        let mut names = Names::default();
        names.remember(&received("1", "mail.send"));
        let started = |id: &str| event(EventKind::TaskStarted { uuid: id.to_owned() });
        let online = event(EventKind::WorkerOnline(Default::default()));
        let wants = |types: &[&str], tasks: &[&str], event: &Event| {
            let owned = |texts: &[&str]| texts.iter().map(|it| (*it).to_owned()).collect();
            let (types, tasks) = (owned(types), owned(tasks));
            let args = EventsArgs { types, tasks, ..EventsArgs::default() };
            Filter::new(&args).wants(event, &names)
        };
        assert!(wants(&[], &[], &online) && wants(&[], &[], &started("2")));
        assert!(wants(&["worker"], &[], &online) && !wants(&["worker"], &[], &started("1")));
        assert!(wants(&["task-failed", "task-started"], &[], &started("1")));
        assert!(!wants(&["task-failed"], &[], &started("1")));
        for task in ["1", "mail.send", "mail.*", "*"] {
            assert!(wants(&[], &[task], &started("1")), "{task}");
            assert!(!wants(&[], &[task], &online), "{task}");
        }
        assert!(!wants(&[], &["mail"], &started("1")) && !wants(&[], &["mail.*"], &started("2")));
    }

    #[test]
    fn only_so_many_names_are_remembered() {
        let mut names = Names::default();
        for number in 0..=NAMES_MAX {
            names.remember(&received(&number.to_string(), "t"));
            names.remember(&received(&number.to_string(), "t"));
        }
        assert_eq!((names.by_id.len(), names.order.len()), (NAMES_MAX, NAMES_MAX));
        assert_eq!(names.of(&received("0", "t")), None);
        assert_eq!(names.of(&received("1", "t")), Some("t"));
    }
}
