//! Single behaviours, with a broker that confirms and delivers at once.

use std::collections::{BTreeSet, VecDeque};

use crate::protocol::join::{ChordState, Failure, Mode, Open, Parent, Place, Record};
use crate::protocol::{Error, Exception, Map, Signature, Value};
use crate::results::join::{
    Delivery, Effect, Event, JoinSettings, Joiner, Outcome, Part, list_of_results,
};

/// A session on an empty shard, or on one with records in it.
struct Shard {
    joiner: Joiner,
    now_ms: u64,
    next_tag: u64,
    unacked: BTreeSet<u64>,
    unacked_max: usize,
    /// What the joiner wanted, apart from publishes to the shard and acks.
    effects: Vec<Effect>,
    /// What it published to the shard.
    published: Vec<Record>,
    echoes: VecDeque<Record>,
}

impl Shard {
    fn new(settings: JoinSettings) -> Self {
        Self {
            joiner: Joiner::new("s", settings),
            now_ms: 1000,
            next_tag: 0,
            unacked: BTreeSet::new(),
            unacked_max: 0,
            effects: Vec::new(),
            published: Vec::new(),
            echoes: VecDeque::new(),
        }
    }

    /// Delivers a record, and whatever the joiner publishes because of it.
    fn deliver(&mut self, record: Record) {
        self.deliver_one(Ok(record), false);
        while let Some(echo) = self.echoes.pop_front() {
            self.deliver_one(Ok(echo), false);
        }
    }

    fn deliver_one(&mut self, record: Result<Record, Error>, redelivered: bool) {
        self.next_tag += 1;
        self.unacked.insert(self.next_tag);
        self.unacked_max = self.unacked_max.max(self.unacked.len());
        let delivery =
            Delivery { tag: self.next_tag, redelivered, count: 0, record, unopened: None };
        self.handle(Event::Delivered(delivery));
    }

    fn handle(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.joiner.handle(self.now_ms, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Publish { id, record } => {
                    self.published.push(record.clone());
                    self.echoes.push_back(record);
                    self.handle(Event::Confirmed { publish: id });
                }
                Effect::Ack { tags } => {
                    for tag in tags {
                        assert!(self.unacked.remove(&tag), "{tag} is acked twice");
                    }
                }
                other => self.effects.push(other),
            }
        }
    }

    /// Publishes all outcomes, and lets so much time pass.
    fn pass(&mut self, ms: u64) {
        let fired: Vec<_> = self.effects.iter().filter_map(fired).map(|it| it.0).collect();
        for chord in fired {
            self.handle(Event::OutcomePublished { chord });
        }
        let end_ms = self.now_ms + ms;
        while let Some(due_ms) = self.joiner.next_deadline().filter(|due_ms| *due_ms <= end_ms) {
            self.now_ms = self.now_ms.max(due_ms);
            self.handle(Event::Tick);
            while let Some(echo) = self.echoes.pop_front() {
                self.deliver_one(Ok(echo), false);
            }
        }
        self.now_ms = end_ms;
    }

    fn outcome(&self) -> Option<&Outcome> {
        self.effects.iter().find_map(fired).map(|it| it.1)
    }

    fn kinds(&self) -> Vec<&'static str> {
        self.published.iter().map(Record::kind).collect()
    }
}

fn fired(effect: &Effect) -> Option<(std::sync::Arc<str>, &Outcome)> {
    match effect {
        Effect::Fire { chord, outcome } => Some((chord.clone(), outcome)),
        _ => None,
    }
}

fn open(size: u32) -> Open {
    let (chord, route) = ("c".to_owned(), "join.0".to_owned());
    Open { chord, route, size, created_ms: 400, expires_ms: 1_000_000, ..Open::default() }
}

fn begin(open: Open) -> Record {
    Record::Open(Box::new(open))
}

fn ok(index: u32, value: impl Into<Value>) -> Record {
    Record::ok("c", index, "x", "t", &value.into()).unwrap()
}

fn err(index: u32) -> Record {
    let failure = Failure::new(Exception::type_error("no"), "t", format!("t{index}"));
    Record::Err { chord: "c".to_owned(), index: index.into(), execution: "x".to_owned(), failure }
}

fn shard(settings: JoinSettings, records: impl IntoIterator<Item = Record>) -> Shard {
    let mut shard = Shard::new(settings);
    for record in records {
        shard.deliver(record);
    }
    shard
}

#[test]
fn a_chord_completes_in_the_order_of_its_header_and_leaves_only_a_mark() {
    let records = [begin(open(3)), ok(2, 22), ok(0, 20), ok(0, 99), ok(1, 21)];
    let mut shard = shard(JoinSettings::default(), records);
    let Some(Outcome::Complete { parts, .. }) = shard.outcome() else { panic!("not complete") };
    assert_eq!(list_of_results(Mode::FailFast, parts).unwrap(), [0x93, 20, 21, 22]);
    assert_eq!((shard.kinds(), shard.unacked.len()), (vec!["mark"], 6));
    shard.pass(100);
    // The mark and the `done` are left, and after a minute only a mark.
    assert_eq!((shard.kinds(), shard.unacked.len()), (vec!["mark", "done"], 2));
    shard.pass(61_000);
    assert_eq!((shard.kinds(), shard.unacked.len()), (vec!["mark", "done", "mark"], 1));
    let stats = shard.joiner.stats();
    assert_eq!((stats.complete, stats.duplicates, stats.chords, stats.dones), (1, 1, 0, 0));
}

#[test]
fn a_failed_part_ends_the_chord_at_once_or_is_collected() {
    let failed = shard(JoinSettings::default(), [begin(open(2)), err(1)]);
    let Some(Outcome::Failed { index, failure, .. }) = failed.outcome() else {
        panic!("{:?}", failed.effects)
    };
    assert_eq!((index, &*failure.task_id), (&1.into(), "t1"));
    let collecting = begin(Open { mode: Mode::Collect, ..open(2) });
    let collected = shard(JoinSettings::default(), [collecting, err(1), ok(0, 5)]);
    let Some(Outcome::Complete { parts, .. }) = collected.outcome() else {
        panic!("{:?}", collected.effects)
    };
    assert!(matches!(parts.as_slice(), [Part::Ok(_), Part::Err(_)]));
}

/// The part that the one at `index` has added as its `ordinal`th.
fn added(index: u32, ordinal: u32, value: u32) -> Record {
    let place = Place::from(index).added(ordinal).unwrap();
    Record::ok("c", place, "x", "t", &value.into()).unwrap()
}

#[test]
fn parts_that_were_added_come_behind_the_header_in_the_order_of_those_that_added_them() {
    let records = [
        begin(open(2)),
        added(1, 1, 31),
        ok(1, 21).adding(1),
        added(0, 2, 12),
        ok(0, 20).adding(2),
    ];
    let mut shard = shard(JoinSettings::default(), records);
    assert!(shard.outcome().is_none());
    shard.deliver(added(0, 1, 11));
    let Some(Outcome::Complete { parts, .. }) = shard.outcome() else { panic!("not complete") };
    let list = list_of_results(Mode::FailFast, parts).unwrap();
    assert_eq!(list, [0x95, 20, 21, 11, 12, 31]);
    shard.pass(61_100);
    assert_eq!(shard.unacked.len(), 1);
}

#[test]
fn of_two_runs_that_add_the_first_one_to_be_recorded_counts() {
    let failed = |ordinal| {
        let failure = Failure::new(Exception::type_error("no"), "t", "late");
        let index = Place::from(0).added(ordinal).unwrap();
        Record::Err { chord: "c".to_owned(), index, execution: "x".to_owned(), failure }
    };
    let records = [begin(open(1)), failed(2), ok(0, 20).adding(1), ok(0, 21).adding(2)];
    let mut shard = shard(JoinSettings::default(), records);
    assert!(shard.outcome().is_none(), "the second one was added by a run that came too late");
    shard.deliver(added(0, 1, 11));
    let Some(Outcome::Complete { parts, .. }) = shard.outcome() else { panic!("not complete") };
    assert_eq!(list_of_results(Mode::FailFast, parts).unwrap(), [0x92, 20, 11]);
}

#[test]
fn the_failure_of_an_added_part_counts_once_its_adder_is_there() {
    let index = Place::from(0).added(1).unwrap();
    let failure = Failure::new(Exception::type_error("no"), "t", "early");
    let failed = Record::Err { chord: "c".to_owned(), index, execution: "x".to_owned(), failure };
    let mut shard = shard(JoinSettings::default(), [begin(open(2)), failed]);
    assert!(shard.outcome().is_none());
    shard.deliver(ok(0, 1).adding(1));
    let outcome = shard.outcome();
    let is_early = |outcome: &Outcome| match outcome {
        Outcome::Failed { failure, .. } => failure.task_id == "early",
        _ => false,
    };
    assert!(outcome.is_some_and(is_early), "{outcome:?}");
}

#[test]
fn a_chord_without_parts_is_complete_when_it_begins() {
    let shard = shard(JoinSettings::default(), [begin(open(0))]);
    assert!(matches!(shard.outcome(), Some(Outcome::Complete { parts, .. }) if parts.is_empty()));
}

#[test]
fn results_that_are_too_large_for_a_body_fail_the_chord() {
    let settings = JoinSettings { body_max: 100, ..JoinSettings::default() };
    let text = "x".repeat(60);
    let shard = shard(settings, [begin(open(3)), ok(0, text.as_str()), ok(1, text.as_str())]);
    let Some(Outcome::Failed { failure, .. }) = shard.outcome() else { panic!("not failed") };
    assert_eq!(failure.exc.exc_type, "ResultTooLarge");
}

#[test]
fn a_chord_expires_by_a_record_in_the_log() {
    let mut shard = shard(JoinSettings::default(), [begin(open(2)), ok(0, 1)]);
    shard.pass(998_000);
    assert!(shard.outcome().is_none());
    shard.pass(1_100);
    assert_eq!(shard.kinds().iter().filter(|kind| **kind == "expire").count(), 1);
    assert!(matches!(shard.outcome(), Some(Outcome::Expired { missing: 1, .. })));
}

/// What is missing when the chord is decided can be spared, if the producer wants that.
#[test]
fn the_rest_of_a_chord_is_revoked_if_it_asks_for_that_and_there_is_a_rest() {
    let revokes = |open: Open, records: Vec<Record>| {
        let records = [begin(open)].into_iter().chain(records);
        let shard = shard(JoinSettings::default(), records);
        shard.outcome().map(Outcome::revokes_rest)
    };
    let asking = || Open { revoke_rest: true, ..open(3) };
    let cancel = || {
        let (chord, reason) = ("c".to_owned(), "not wanted".to_owned());
        Record::Cancel { chord, reason, errbacks: false }
    };
    assert_eq!(revokes(asking(), vec![ok(0, 1), err(2)]), Some(true));
    assert_eq!(revokes(open(3), vec![ok(0, 1), err(2)]), Some(false), "nobody has asked");
    assert_eq!(revokes(asking(), vec![ok(0, 1), ok(2, 1), err(1)]), Some(false), "all have ended");
    assert_eq!(revokes(asking(), vec![ok(0, 1), ok(2, 1), ok(1, 1)]), Some(false), "it is well");
    assert_eq!(revokes(open(3), vec![ok(0, 1), cancel()]), Some(true));
    let collecting = || Open { mode: Mode::Collect, ..asking() };
    assert_eq!(revokes(collecting(), vec![err(0)]), None, "the others are wanted");
    let mut late = shard(JoinSettings::default(), [begin(asking()), ok(0, 1)]);
    late.pass(999_100);
    assert_eq!(late.outcome().map(Outcome::revokes_rest), Some(true), "its time is over");
}

/// Whoever takes over says the same again: what came behind the decision changes nothing.
#[test]
fn a_successor_revokes_what_its_predecessor_revoked() {
    let asking = || begin(Open { revoke_rest: true, ..open(3) });
    let records = || [asking(), ok(0, 1), err(2), ok(1, 1)];
    let first = shard(JoinSettings::default(), records());
    let mut second = Shard::new(JoinSettings::default());
    for record in records() {
        second.deliver_one(Ok(record), true);
    }
    while let Some(echo) = second.echoes.pop_front() {
        second.deliver_one(Ok(echo), false);
    }
    assert_eq!(first.outcome().map(Outcome::revokes_rest), Some(true));
    assert_eq!(second.outcome(), first.outcome());
}

#[test]
fn what_contradicts_the_open_is_poison() {
    let mut shard = shard(JoinSettings::default(), [begin(open(2)), ok(2, 1)]);
    shard.deliver_one(Err(Error::Missing { field: "c" }), false);
    let reasons: Vec<&str> = shard
        .effects
        .iter()
        .map(|effect| match effect {
            Effect::Poison { reason, .. } => reason.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    // They are found with the dead letters as they were written.
    let records = shard.effects.iter().map(|effect| match effect {
        Effect::Poison { record, .. } => record.as_deref().cloned(),
        other => panic!("{other:?}"),
    });
    assert_eq!(records.collect::<Vec<_>>(), [Some(ok(2, 1)), None]);
    let expected = ["chord c has 2 parts, and this is number 2", "'c' is missing"];
    assert_eq!(reasons, expected);
    // The chord itself is none the worse.
    shard.deliver(ok(0, 1));
    shard.deliver(ok(1, 1));
    assert!(matches!(shard.outcome(), Some(Outcome::Complete { .. })));
}

/// A chord with a body of this id, as a part of another one.
fn body_and_parent(body: &str, parent: u32) -> Open {
    let options = Map::from_iter([("task_id", body)]);
    let (chord, route) = ("outer".to_owned(), "join.1".to_owned());
    Open {
        body: Some(Signature { options, ..Signature::new("sum") }),
        parent: Some(Parent { chord, route, index: parent.into() }),
        ..open(2)
    }
}

#[test]
fn a_chord_whose_id_two_chords_have_ends_and_the_second_open_is_poison() {
    let first = || body_and_parent("b", 0);
    let others = [
        Open { size: 3, ..first() },
        Open { mode: Mode::Collect, ..first() },
        Open { parent: None, ..first() },
        body_and_parent("b", 1),
        body_and_parent("a", 0),
        Open { body: None, ..first() },
    ];
    for other in others {
        let records = [begin(first()), ok(0, 1), begin(other.clone()), ok(1, 2)];
        let mut shard = shard(JoinSettings::default(), records);
        let [Effect::Poison { record, reason, untold: true, .. }, Effect::Fire { .. }] =
            &shard.effects[..]
        else {
            panic!("{:?}", shard.effects)
        };
        assert_eq!(record.as_deref(), Some(&begin(other)));
        let Some(Outcome::Expired { missing: 1, places, reason: why, .. }) = shard.outcome() else {
            panic!("{:?}", shard.effects)
        };
        assert_eq!((&places[..], why.as_ref()), (&[(1, 1)][..], Some(reason)));
        // The log says so first: a successor comes to the same end.
        assert_eq!(shard.kinds(), ["mark", "expire"]);
        // The delivery of what is poison is acked by whoever has put it away.
        shard.pass(61_100);
        assert_eq!(shard.unacked.len(), 2);
    }
}

#[test]
fn a_chord_that_is_opened_again_alike_goes_on() {
    let mut again = body_and_parent("b", 0);
    let body = again.body.as_mut().unwrap();
    (body.args, again.created_ms) = (vec![5.into()], 999);
    let records = [begin(body_and_parent("b", 0)), ok(0, 1), begin(again), ok(1, 2)];
    let shard = shard(JoinSettings::default(), records);
    assert!(matches!(shard.outcome(), Some(Outcome::Complete { .. })));
}

#[test]
fn what_ends_a_chord_with_two_opens_is_in_the_log_before_the_second_leaves_it() {
    let other = Open { size: 3, ..open(2) };
    let mut joiner = Joiner::new("s", JoinSettings::default());
    let mark = Record::Mark { epoch: "s".to_owned(), is_renewal: false };
    let mut effects = Vec::new();
    for (tag, record) in (1..).zip([begin(open(2)), begin(other), mark]) {
        let (record, unopened) = (Ok(record), None);
        let delivery = Delivery { tag, redelivered: true, count: 1, record, unopened };
        joiner.handle(1000, Event::Delivered(delivery), &mut effects);
    }
    let publish = effects.iter().find_map(|effect| match effect {
        Effect::Publish { id, record: Record::Expire { .. } } => Some(*id),
        Effect::Poison { .. } => panic!("{effects:?}"),
        _ => None,
    });
    effects.clear();
    let publish = publish.expect("it is given up");
    joiner.handle(1000, Event::Confirmed { publish }, &mut effects);
    assert!(matches!(effects[..], [Effect::Poison { tag: 2, .. }]), "{effects:?}");
}

#[test]
fn parts_of_a_chord_that_cannot_be_opened_go_where_its_open_went() {
    let mut shard = Shard::new(JoinSettings::default());
    shard.deliver(begin(open(1)));
    shard.next_tag += 1;
    let (tag, record) = (shard.next_tag, Err(Error::Missing { field: "size" }));
    let unopened = Some("other".into());
    let delivery = Delivery { tag, redelivered: false, count: 0, record, unopened };
    shard.handle(Event::Delivered(delivery));
    assert!(matches!(shard.effects.last(), Some(Effect::Poison { untold: true, .. })));
    let part = Record::ok("other", 4, "x", "t", &7.into()).unwrap();
    shard.deliver(part.clone());
    let Some(Effect::Poison { record, reason, untold: false, .. }) = shard.effects.last() else {
        panic!("{:?}", shard.effects)
    };
    assert_eq!(record.as_deref(), Some(&part));
    assert_eq!(reason, "chord other could not be opened");
}

#[test]
fn what_is_missing_of_an_expired_chord_is_counted_with_what_was_added() {
    let mut shard = shard(JoinSettings::default(), [begin(open(3)), ok(1, 1).adding(4)]);
    shard.pass(2_000_000);
    let expired = shard.outcome();
    let Some(Outcome::Expired { missing: 6, size: 7, places, reason: None, .. }) = expired else {
        panic!("{expired:?}")
    };
    assert_eq!(places, &[(0, 0), (2, 2)]);
}

#[test]
fn what_is_wrong_in_what_a_predecessor_left_is_found_with_the_dead_letters() {
    let mut joiner = Joiner::new("s", JoinSettings::default());
    let pack = Record::Pack(crate::protocol::join::Pack {
        epoch: "p".to_owned(),
        pack: 1,
        chosen: false,
        body: b"nonsense".to_vec(),
    });
    let mark = Record::Mark { epoch: "s".to_owned(), is_renewal: false };
    let failed = err(7);
    let log = [pack.clone(), begin(open(2)), ok(2, 1), failed.clone(), mark];
    let mut effects = Vec::new();
    for (tag, record) in (1..).zip(log) {
        let delivery =
            Delivery { tag, redelivered: true, count: 1, record: Ok(record), unopened: None };
        joiner.handle(1000, Event::Delivered(delivery), &mut effects);
    }
    let poison = |effect: Effect| match effect {
        Effect::Poison { tag, record, .. } => Some((tag, *record.unwrap())),
        _ => None,
    };
    let found: Vec<_> = effects.into_iter().filter_map(poison).collect();
    assert_eq!(found, [(1, pack), (3, ok(2, 1)), (4, failed)]);
}

#[test]
fn a_chord_of_a_newer_protocol_is_left_to_others() {
    let mut shard = Shard::new(JoinSettings::default());
    shard.deliver_one(Err(Error::JoinVersion(2)), false);
    let Some(Effect::StandBack { for_ms: 60_000, .. }) = shard.effects.first() else {
        panic!("{:?}", shard.effects)
    };
    shard.deliver_one(Ok(begin(open(1))), false);
    assert!(shard.published.is_empty());
}

#[test]
fn a_redelivery_behind_the_barrier_ends_the_session() {
    let mut shard = shard(JoinSettings::default(), [begin(open(2))]);
    shard.deliver_one(Ok(ok(0, 1)), true);
    assert!(matches!(shard.effects.last(), Some(Effect::Alarm { restart: true, .. })));
    assert_eq!(shard.joiner.next_deadline(), None);
}

#[test]
fn records_of_unknown_chords_are_dropped_after_a_while() {
    let mut orphaned = shard(JoinSettings::default(), [ok(0, 1), ok(1, 1)]);
    orphaned.pass(29_000);
    assert_eq!(orphaned.unacked.len(), 3);
    orphaned.pass(2_000);
    assert_eq!((orphaned.unacked.len(), orphaned.joiner.stats().orphans), (1, 2));
    // An open that comes after its parts is against the rules: they have to be read again.
    let mut late = shard(
        JoinSettings::default(),
        [begin(open(9)), Record::Expire { chord: "other".to_owned(), reason: String::new() }],
    );
    late.deliver(begin(Open { chord: "other".to_owned(), ..open(2) }));
    assert!(matches!(late.effects.last(), Some(Effect::Alarm { restart: true, .. })));
}

#[test]
fn late_records_are_dropped_at_once() {
    let mut shard = shard(JoinSettings::default(), [begin(open(1)), ok(0, 1)]);
    shard.pass(100);
    let before = shard.unacked.len();
    shard.deliver(ok(0, 2));
    shard.deliver(begin(open(1)));
    assert_eq!((shard.unacked.len(), shard.joiner.stats().late), (before, 2));
}

#[test]
fn a_question_is_answered_from_memory() {
    let ask = |chord: &str| Record::Inspect {
        chord: chord.to_owned(),
        reply_to: "r".to_owned(),
        correlation: "q".to_owned(),
    };
    let records = [begin(open(9)), ok(0, 1), ok(4, 1), ask("c"), ask("none")];
    let shard = shard(JoinSettings::default(), records);
    let answers: Vec<_> = shard
        .effects
        .iter()
        .map(|effect| match effect {
            Effect::Reply { reply_to, correlation, inspection } => {
                assert_eq!((reply_to.as_str(), correlation.as_str()), ("r", "q"));
                inspection
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let [known, unknown] = answers.as_slice() else { panic!("{answers:?}") };
    assert_eq!((known.state, known.missing_count), (ChordState::Collecting, 7));
    assert_eq!((known.missing.as_slice(), known.age_ms), (&[(1, 3), (5, 8)][..], 600));
    assert_eq!(unknown.state, ChordState::Unknown);
}

#[test]
fn a_large_chord_leaves_little_unacked() {
    const SIZE: u32 = 20_000;
    let settings = JoinSettings::default();
    let bound = 2 * settings.raws_max + settings.packs_max + 10;
    let records = [begin(open(SIZE))].into_iter().chain((0..SIZE).map(|index| ok(index, index)));
    let shard = shard(settings, records);
    assert!(shard.unacked_max <= bound, "{} unacked", shard.unacked_max);
    let Some(Outcome::Complete { parts, .. }) = shard.outcome() else { panic!("not complete") };
    assert_eq!(parts.len(), SIZE as usize);
}

#[test]
fn what_waits_for_long_is_written_again_before_the_broker_takes_it_for_stuck() {
    let mut shard = shard(JoinSettings::default(), [begin(open(2)), ok(0, 1)]);
    shard.now_ms += 1;
    shard.pass(900_000);
    // The mark, and one pack with both records, each once in five minutes.
    let kinds = shard.kinds();
    let count = |wanted: &str| kinds.iter().filter(|kind| **kind == wanted).count();
    assert!((3..=5).contains(&count("pack")) && (3..=5).contains(&count("mark")), "{kinds:?}");
    assert_eq!(shard.unacked.len(), 2);
}

#[test]
fn a_long_log_is_packed_before_the_barrier() {
    let settings = JoinSettings { buffered_max: 100, ..JoinSettings::default() };
    let mut shard = Shard::new(settings);
    shard.deliver_one(Ok(begin(open(1000))), false);
    let mark = shard.echoes.pop_front().unwrap();
    for index in 0..1000 {
        shard.deliver_one(Ok(ok(index, 1)), false);
    }
    assert!(shard.outcome().is_none() && shard.unacked_max <= 110, "{}", shard.unacked_max);
    shard.deliver_one(Ok(mark), false);
    assert!(matches!(shard.outcome(), Some(Outcome::Complete { .. })));
}

#[test]
fn many_small_dones_become_one() {
    let settings = JoinSettings { dones_max: 4, ..JoinSettings::default() };
    let mut shard = Shard::new(settings);
    for number in 0..40 {
        let chord = format!("c{number}");
        shard.deliver(begin(Open { chord: chord.clone(), ..open(1) }));
        shard.deliver(Record::ok(&chord, 0, "x", "t", &Value::Null).unwrap());
        shard.pass(50);
        assert!(shard.unacked.len() <= 20, "{} unacked", shard.unacked.len());
    }
    shard.pass(120_000);
    assert_eq!((shard.unacked.len(), shard.joiner.stats().dones), (1, 0));
}
