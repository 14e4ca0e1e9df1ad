//! What was revoked: ids of tasks, whole workflows and groups, and stamps.
//!
//! Does no IO; `revocations` shares it with the other workers. **Invariants:** it holds at most
//! as many marks as it may, and none for longer than it may; what only spares work has bounds of
//! its own, and pushes out nothing else; while it is empty, a verdict costs one atomic load.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::protocol::control::Mark;
use crate::protocol::join::Link;
use crate::protocol::{Value, repr};
use crate::task::Request;

/// The reason that a revoked task's caller gets.
const REASON: &str = "revoked";

/// How long a stamp counts at most. An id is one task's, but what has a stamp may be wanted again.
const STAMPS_EXPIRE: SignedDuration = SignedDuration::from_hours(3);

/// How long it is known that a chord is over, and of how many: it only spares work.
const REST_EXPIRES: SignedDuration = SignedDuration::from_hours(12);
const REST_MAX: usize = 10_000;

/// How long it is known what the stream has ended, and of how many records.
const ENDED_KEPT: Duration = Duration::from_secs(10);
const ENDED_MAX: usize = 100;

/// The marks of one worker.
#[derive(Debug)]
pub(super) struct Revoked {
    /// Whether there are marks at all.
    any: AtomicBool,
    held: RwLock<Held>,
    max: usize,
    expires: SignedDuration,
    /// What the stream has ended lately, the oldest first.
    ended: Mutex<VecDeque<Ended>>,
}

/// All marks, in two stores: what programs revoke must not push out what people have revoked.
#[derive(Debug, Default)]
struct Held {
    asked: Marks,
    /// Chords that are over, as groups.
    rest: Marks,
}

/// What one record of the stream has ended here.
#[derive(Debug)]
struct Ended {
    at: Instant,
    marks: Vec<Mark>,
    tasks: Vec<String>,
}

impl Revoked {
    /// Remembers at most `max` marks, each for `expires`.
    pub(super) fn new(max: usize, expires: Duration) -> Self {
        let expires = SignedDuration::try_from(expires).unwrap_or(SignedDuration::MAX);
        let any = AtomicBool::new(false);
        Self { any, held: RwLock::default(), max, expires, ended: Mutex::default() }
    }

    /// Why `request` must not run, if it was revoked.
    pub(super) fn verdict(&self, request: &Request) -> Option<Cow<'static, str>> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let held = self.held();
        let counts = |kind, at| at >= self.horizon(kind);
        let rest_counts = |_, at| at >= self.horizon_of_rest();
        let covers = held.asked.covers(request, &counts) || held.rest.covers(request, &rest_counts);
        covers.then_some(Cow::Borrowed(REASON))
    }

    /// Those of `marks`, which were made at `at`, that still count.
    pub(super) fn current(&self, marks: &[Mark], at: Timestamp) -> Vec<Mark> {
        let counts = |mark: &&Mark| match mark {
            Mark::Rest(_) => at >= self.horizon_of_rest(),
            mark => at >= self.horizon(key_of(mark).0),
        };
        marks.iter().filter(counts).cloned().collect()
    }

    /// Adds marks that were made at `at`, and gives back those that are new. `durable` says that
    /// the broker has them.
    pub(super) fn add(&self, marks: &[Mark], at: Timestamp, durable: bool) -> Vec<Mark> {
        let now = Timestamp::now();
        // Nobody's clock makes a mark last longer.
        let at = at.min(now);
        let (horizon, horizon_of_rest) = (self.horizon(Kind::Task), self.horizon_of_rest());
        if at < horizon.min(horizon_of_rest) {
            return Vec::new();
        }
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let mut add = |mark: &&Mark| match mark {
            Mark::Rest(_) => at >= horizon_of_rest && held.rest.add(mark, at, durable),
            mark => at >= horizon && held.asked.add(mark, at, durable),
        };
        let added = marks.iter().filter(&mut add).cloned().collect();
        held.asked.forget(horizon, self.max);
        held.rest.forget(horizon_of_rest, REST_MAX);
        let is_empty = held.asked.order.is_empty() && held.rest.order.is_empty();
        self.any.store(!is_empty, Ordering::Release);
        added
    }

    /// Those of `marks` that nothing is known of yet.
    pub(super) fn unknown(&self, mut marks: Vec<Mark>) -> Vec<Mark> {
        let held = self.held();
        marks.retain(|mark| held.get(mark).is_none());
        marks
    }

    /// Those of `marks` that are still known, and that the broker does not have yet.
    pub(super) fn not_durable(&self, marks: Vec<Mark>) -> Vec<Mark> {
        let held = self.held();
        let wanted = |mark: &Mark| held.get(mark).is_some_and(|known| !known.durable);
        marks.into_iter().filter(wanted).collect()
    }

    /// The ids of the revoked tasks, the oldest first.
    pub(super) fn task_ids(&self) -> Vec<String> {
        let held = self.held();
        let horizon = self.horizon(Kind::Task);
        let tasks = held.asked.tasks.iter().map(|(key, known)| (known.at, key));
        let mut current: Vec<_> = tasks.filter(|(at, _)| *at >= horizon).collect();
        current.sort();
        current.into_iter().map(|(_, key)| key.to_string()).collect()
    }

    /// Remembers for some seconds what a record of the stream has ended here: the command that
    /// says the same may come later, and its caller wants to know.
    pub(super) fn has_ended(&self, marks: Vec<Mark>, tasks: Vec<String>) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.len() >= ENDED_MAX {
            ended.pop_front();
        }
        ended.push_back(Ended { at: Instant::now(), marks, tasks });
    }

    /// The tasks that the stream has ended lately because of `marks`.
    pub(super) fn ended_lately(&self, marks: &[Mark]) -> Vec<String> {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.retain(|it| it.at.elapsed() < ENDED_KEPT);
        if ended.is_empty() {
            return Vec::new();
        }
        let (mut ids, mut others) = (HashSet::new(), Vec::new());
        for mark in marks {
            match mark {
                Mark::Task(id) => _ = ids.insert(id.as_str()),
                other => others.push(other),
            }
        }
        let mut found = Vec::new();
        for Ended { marks, tasks, .. } in ended.iter() {
            let shares = others.iter().any(|mark| marks.contains(mark));
            found.extend(tasks.iter().filter(|id| shares || ids.contains(id.as_str())).cloned());
        }
        found
    }

    fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// From when on marks of a kind count.
    fn horizon(&self, kind: Kind) -> Timestamp {
        let expires = match kind {
            Kind::Stamp => self.expires.min(STAMPS_EXPIRE),
            Kind::Task | Kind::Root | Kind::Group => self.expires,
        };
        Timestamp::now().checked_sub(expires).unwrap_or(Timestamp::MIN)
    }

    fn horizon_of_rest(&self) -> Timestamp {
        let expires = self.expires.min(REST_EXPIRES);
        Timestamp::now().checked_sub(expires).unwrap_or(Timestamp::MIN)
    }
}

impl Held {
    fn get(&self, mark: &Mark) -> Option<&Known> {
        match mark {
            Mark::Rest(_) => self.rest.get(mark),
            mark => self.asked.get(mark),
        }
    }
}

/// Whether `request` is one of those that `marks` revoke.
pub(super) fn covering(marks: &[Mark]) -> impl Fn(&Request) -> bool + use<> {
    let mut these = Marks::default();
    for mark in marks {
        these.add(mark, Timestamp::MAX, true);
    }
    move |request| these.covers(request, &|_, _| true)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Task,
    Root,
    Group,
    Stamp,
}

/// One mark that is held.
#[derive(Clone, Copy, Debug)]
struct Known {
    at: Timestamp,
    durable: bool,
}

#[derive(Debug, Default)]
struct Marks {
    tasks: HashMap<Arc<str>, Known>,
    roots: HashMap<Arc<str>, Known>,
    groups: HashMap<Arc<str>, Known>,
    /// By `stamp_key`.
    stamps: HashMap<Arc<str>, Known>,
    /// In the order in which they came, each once. One that came again has a later date in its
    /// map, and gets its new place when its old one has come to the front.
    order: VecDeque<(Kind, Arc<str>, Timestamp)>,
}

impl Marks {
    fn of(&self, kind: Kind) -> &HashMap<Arc<str>, Known> {
        match kind {
            Kind::Task => &self.tasks,
            Kind::Root => &self.roots,
            Kind::Group => &self.groups,
            Kind::Stamp => &self.stamps,
        }
    }

    fn of_mut(&mut self, kind: Kind) -> &mut HashMap<Arc<str>, Known> {
        match kind {
            Kind::Task => &mut self.tasks,
            Kind::Root => &mut self.roots,
            Kind::Group => &mut self.groups,
            Kind::Stamp => &mut self.stamps,
        }
    }

    fn get(&self, mark: &Mark) -> Option<&Known> {
        let (kind, key) = key_of(mark);
        self.of(kind).get(&*key)
    }

    /// True if the mark is new.
    fn add(&mut self, mark: &Mark, at: Timestamp, durable: bool) -> bool {
        let (kind, key) = key_of(mark);
        if let Some(known) = self.of_mut(kind).get_mut(&*key) {
            known.durable |= durable;
            known.at = known.at.max(at);
            return false;
        }
        let key: Arc<str> = key.into();
        self.of_mut(kind).insert(Arc::clone(&key), Known { at, durable });
        self.order.push_back((kind, key, at));
        true
    }

    /// Forgets what is older than `horizon`, and the oldest beyond `max`.
    fn forget(&mut self, horizon: Timestamp, max: usize) {
        while let Some((kind, key, at)) = self.order.front().cloned() {
            if at >= horizon && self.order.len() <= max {
                return;
            }
            self.order.pop_front();
            match self.of(kind).get(&key) {
                Some(known) if known.at > at => self.order.push_back((kind, key, known.at)),
                _ => _ = self.of_mut(kind).remove(&key),
            }
        }
    }

    /// Whether a mark is held that `counts`, by its kind and date; which is asked only then.
    fn covers(&self, request: &Request, counts: &dyn Fn(Kind, Timestamp) -> bool) -> bool {
        if self.order.is_empty() {
            return false;
        }
        let holds = |kind: Kind, key: &str| {
            self.of(kind).get(key).is_some_and(|known| counts(kind, known.at))
        };
        let id = |kind: Kind, id: &Option<String>| id.as_ref().is_some_and(|id| holds(kind, id));
        holds(Kind::Task, &request.id)
            || id(Kind::Root, &request.root_id)
            || id(Kind::Group, &request.group)
            || (!self.groups.is_empty() && covers_link(request, &holds))
            || (!self.stamps.is_empty() && self.covers_stamps(request, &holds))
    }

    fn covers_stamps(&self, request: &Request, holds: &dyn Fn(Kind, &str) -> bool) -> bool {
        request.stamps.iter().any(|(name, value)| match value {
            Value::Array(values) => {
                values.iter().any(|value| holds(Kind::Stamp, &stamp_key(name, value)))
            }
            value => holds(Kind::Stamp, &stamp_key(name, value)),
        })
    }
}

/// Whether the task belongs to the header of a chord that is held: as a part, or inside of one.
fn covers_link(request: &Request, holds: &dyn Fn(Kind, &str) -> bool) -> bool {
    let link = request.headers.get(Link::HEADER);
    link.is_some_and(|link| Link::chords(link).any(|chord| holds(Kind::Group, chord)))
}

fn key_of(mark: &Mark) -> (Kind, Cow<'_, str>) {
    match mark {
        Mark::Task(id) => (Kind::Task, id.into()),
        Mark::Root(id) => (Kind::Root, id.into()),
        Mark::Group(id) | Mark::Rest(id) => (Kind::Group, id.into()),
        Mark::Stamp { name, value } => (Kind::Stamp, stamp_key(name, value).into()),
    }
}

/// Name and value as one text; a number and its text differ, as they do in Python.
fn stamp_key(name: &str, value: &Value) -> String {
    format!("{name}\0{}", repr::value(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Map;

    const HOUR: Duration = Duration::from_secs(3600);

    fn task(id: &str) -> Mark {
        Mark::Task(id.to_owned())
    }

    fn stamp(value: impl Into<Value>) -> Mark {
        Mark::Stamp { name: "tenant".to_owned(), value: value.into() }
    }

    fn request(id: &str) -> Request {
        Request { id: id.to_owned(), ..Request::default() }
    }

    fn holds(revoked: &Revoked, id: &str) -> bool {
        revoked.verdict(&request(id)).is_some()
    }

    #[test]
    fn a_task_is_revoked_by_its_id_its_workflow_its_group_or_a_stamp() {
        let text = |text: &str| Some(text.to_owned());
        let stamped = |value: Value| Request {
            stamps: Map::from_iter([("other", 1.into()), ("tenant", value)]),
            ..request("x")
        };
        let part_of = |chord: &str, around: &[&str]| {
            let stack = around.iter().map(|it| (*it).to_owned()).collect();
            let link = Link { chord: chord.to_owned(), stack, ..Link::default() };
            let headers = Map::from_iter([(Link::HEADER, link.into_value())]);
            Request { headers, ..request("x") }
        };
        let rows = [
            (task("1"), request("1"), request("2")),
            (
                Mark::Root("r".to_owned()),
                Request { root_id: text("r"), ..request("x") },
                Request { root_id: text("s"), ..request("r") },
            ),
            (
                Mark::Group("g".to_owned()),
                Request { group: text("g"), ..request("x") },
                Request { group: None, ..request("g") },
            ),
            (Mark::Group("c".to_owned()), part_of("c", &[]), part_of("d", &[])),
            (Mark::Rest("c".to_owned()), part_of("c", &[]), part_of("d", &[])),
            (Mark::Group("c".to_owned()), part_of("inner", &["c"]), part_of("inner", &["d"])),
            (stamp("a"), stamped("a".into()), stamped("b".into())),
            (stamp("a"), stamped(Value::Array(vec!["b".into(), "a".into()])), stamped(Value::Null)),
            (stamp(1), stamped(1.into()), stamped("1".into())),
        ];
        for (mark, covered, other) in rows {
            let revoked = Revoked::new(10, HOUR);
            assert_eq!(revoked.verdict(&covered), None, "nothing is revoked yet");
            assert_eq!(revoked.add(std::slice::from_ref(&mark), Timestamp::now(), false).len(), 1);
            assert_eq!(revoked.verdict(&covered).as_deref(), Some("revoked"), "{mark:?}");
            assert_eq!(revoked.verdict(&other), None, "{mark:?}");
            let these = covering(&[mark]);
            assert!(these(&covered) && !these(&other));
        }
    }

    #[test]
    fn the_oldest_are_forgotten_and_one_that_comes_again_is_not_old() {
        let revoked = Revoked::new(3, HOUR);
        let now = Timestamp::now();
        let at = |ago: i64| now.checked_sub(SignedDuration::from_secs(ago)).unwrap();
        for (id, ago) in [("1", 30), ("2", 20), ("1", 10)] {
            revoked.add(&[task(id)], at(ago), false);
        }
        assert_eq!(revoked.task_ids(), ["2", "1"]);
        revoked.add(&[task("3")], at(5), false);
        assert!(holds(&revoked, "1") && holds(&revoked, "2"));
        revoked.add(&[task("4")], at(4), false);
        assert_eq!(revoked.task_ids(), ["1", "3", "4"]);
    }

    #[test]
    fn marks_expire_by_the_date_at_which_they_were_made() {
        let revoked = Revoked::new(10, HOUR);
        let now = Timestamp::now();
        let ago = |seconds| now.checked_sub(SignedDuration::from_secs(seconds)).unwrap();
        assert!(revoked.add(&[task("old")], ago(3601), true).is_empty());
        assert_eq!(revoked.add(&[task("new")], ago(3500), true).len(), 1);
        // A clock that is wrong does not make it last.
        revoked.add(&[task("future")], Timestamp::MAX, true);
        assert!(!holds(&revoked, "old") && holds(&revoked, "new") && holds(&revoked, "future"));
        let short = Revoked::new(10, Duration::ZERO);
        short.add(&[task("1")], Timestamp::MAX, true);
        assert!(!holds(&short, "1"));
    }

    #[test]
    fn a_stamp_counts_for_less_long_than_an_id() {
        let revoked = Revoked::new(10, HOUR * 24);
        let then = Timestamp::now().checked_sub(SignedDuration::from_hours(4)).unwrap();
        revoked.add(&[task("1"), stamp("a")], then, true);
        let stamps = Map::from_iter([("tenant", Value::from("a"))]);
        assert_eq!(revoked.verdict(&Request { stamps: stamps.clone(), ..request("x") }), None);
        assert!(holds(&revoked, "1"));
        revoked.add(&[stamp("a")], Timestamp::now(), true);
        assert!(revoked.verdict(&Request { stamps, ..request("x") }).is_some());
    }

    /// Every revocation of a client of ours comes twice, and anybody can repeat one.
    #[test]
    fn a_mark_that_comes_again_and_again_pushes_no_other_one_out() {
        let revoked = Revoked::new(3, HOUR);
        let now = Timestamp::now();
        let at = |n: i64| now.checked_sub(SignedDuration::from_millis(1000 - n)).unwrap();
        revoked.add(&[task("first"), task("second")], at(0), false);
        for n in 1..100 {
            revoked.add(&[task("again")], at(n), false);
            revoked.add(&[task("second")], at(n), true);
        }
        assert_eq!(revoked.task_ids().len(), 3);
        assert!(holds(&revoked, "first") && holds(&revoked, "second"));
        revoked.add(&[task("new")], at(500), false);
        assert!(!holds(&revoked, "first"), "the oldest goes first");
        assert!(holds(&revoked, "second") && holds(&revoked, "again") && holds(&revoked, "new"));
    }

    #[test]
    fn what_the_stream_has_ended_is_known_to_the_command_that_says_the_same() {
        let revoked = Revoked::new(10, HOUR);
        assert!(revoked.ended_lately(&[task("1")]).is_empty());
        revoked.has_ended(vec![task("1"), task("2")], vec!["1".to_owned()]);
        revoked.has_ended(vec![stamp("a")], vec!["7".to_owned(), "8".to_owned()]);
        assert_eq!(revoked.ended_lately(&[task("2"), task("1")]), ["1"]);
        assert_eq!(revoked.ended_lately(&[stamp("a")]), ["7", "8"]);
        assert!(revoked.ended_lately(&[stamp("b"), task("7x")]).is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let revoked = Revoked::new(100, HOUR);
        let now = Timestamp::now();
        for round in 0..50_i64 {
            let marks: Vec<Mark> = (0..100).map(|n| task(&format!("{}", n % 150))).collect();
            let at = now.checked_sub(SignedDuration::from_millis(1000 - round)).unwrap();
            revoked.add(&marks, at, false);
        }
        let held = revoked.held();
        assert!(held.asked.order.len() <= 100 && held.asked.tasks.len() <= 100);
        drop(held);
        assert!(Revoked::new(0, HOUR).add(&[task("1")], now, false).len() == 1);
        assert!(!holds(&Revoked::new(0, HOUR), "1"));
    }

    #[test]
    fn chords_that_are_over_push_out_nothing_that_was_asked_for() {
        let revoked = Revoked::new(3, HOUR * 24 * 7);
        let rest = |n: usize| Mark::Rest(n.to_string());
        let part = |n: usize| Request { group: Some(n.to_string()), ..request("x") };
        revoked.add(&[task("asked for")], Timestamp::now(), true);
        for n in 0..=REST_MAX {
            revoked.add(&[rest(n)], Timestamp::now(), true);
        }
        assert!(holds(&revoked, "asked for"));
        assert!(revoked.verdict(&part(REST_MAX)).is_some());
        assert_eq!(revoked.verdict(&part(0)), None, "they have a bound of their own");
        let ago = |hours| Timestamp::now().checked_sub(SignedDuration::from_hours(hours)).unwrap();
        revoked.add(&[rest(REST_MAX + 1)], ago(13), true);
        assert_eq!(revoked.verdict(&part(REST_MAX + 1)), None, "and a time of their own");
        assert_eq!(revoked.current(&[rest(1), task("1")], ago(13)), [task("1")]);
    }

    #[test]
    fn what_the_broker_has_is_known() {
        let revoked = Revoked::new(10, HOUR);
        let now = Timestamp::now();
        assert_eq!(revoked.add(&[task("1"), task("2")], now, false).len(), 2);
        assert!(revoked.add(&[task("1")], now, true).is_empty(), "it was known");
        assert_eq!(revoked.not_durable(vec![task("1"), task("2"), task("3")]), [task("2")]);
    }
}
