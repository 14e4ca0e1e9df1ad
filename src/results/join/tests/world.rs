//! A model of one shard and of everybody who writes to it.
//!
//! The queue is FIFO, and redelivers in order when a session dies. Sessions die between any two
//! effects; what they had published and was not confirmed is in the queue, or is not, or comes
//! later. A classic queue delivers messages that are not on disk yet: when its broker crashes they
//! may be lost, and acks that are not on disk may be undone, each on its own.
//!
//! **Checked at every step:** no chord has two different outcomes, and no list of results is
//! incomplete or in another order. **Checked at the end:** every chord has ended, and only marks
//! are left.

mod adding;
mod plan;
mod script;

pub(super) use adding::Adding;
pub(super) use plan::{Plan, settings};

use std::collections::{BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::protocol::join::{Failure, Open, Place, Record, Reference, body_id};
use crate::protocol::{Exception, Limits, Value, msgpack};
use crate::results::join::{
    Delivery, Effect, Event, JoinSettings, Joiner, Outcome, Part, PublishId,
};

/// One thing that can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The producer publishes the open.
    Open(usize),
    /// A worker sends the parts that a part adds.
    Call(usize, u32),
    /// A worker publishes the result of a part.
    Part(usize, u32),
    /// The broker tells the producer or a worker that the message is on disk.
    OnDisk(usize),
    Cancel(usize),
    Deliver,
    Confirm(PublishId),
    Outcome(usize),
    Tick,
    /// A dead session's publish arrives.
    Late,
    /// The session dies between two events.
    Kill,
    /// A channel is closed whose consumer was cancelled before.
    Release,
    /// The broker crashes; the bits say what of the undecided is on disk.
    Crash(u64),
}

/// The tag of what a channel holds whose consumer was cancelled.
const ELSEWHERE: u64 = u64::MAX;

#[derive(Clone, Debug)]
struct Message {
    record: Arc<Record>,
    /// What tells it from others, for the fingerprint.
    digest: u64,
    writer: Writer,
    deliveries: u64,
    /// Its tag in the living session, or [`ELSEWHERE`].
    tag: Option<u64>,
    on_disk: bool,
    /// When it was acked, and the number of confirms at that time.
    acked: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Writer {
    Producer(usize),
    Worker(usize, u32),
    Session(PublishId),
    /// Whoever it was, nobody waits for a confirm.
    Nobody,
}

/// The joiner and its channel.
#[derive(Clone, Debug)]
struct Session {
    joiner: Joiner,
    next_tag: u64,
    unconfirmed: Vec<PublishId>,
    outcomes: Vec<usize>,
    last_publish: Option<PublishId>,
    /// The first publish after the last ack.
    after_ack: PublishId,
}

#[derive(Clone, Debug, Default, Hash)]
struct ChordState {
    open_confirmed: bool,
    open_published: bool,
    cancelled: bool,
    /// Those of the header, and then all that may be added.
    parts: Vec<PartState>,
    /// Every outcome that anybody may have seen.
    seen: BTreeSet<String>,
    /// Whether one was certainly published.
    ended: bool,
}

#[derive(Clone, Debug, Default, Hash)]
struct PartState {
    place: Place,
    runs: u32,
    wanted: u32,
    /// Whether what this run adds was sent.
    called: bool,
    confirmed: bool,
}

/// The state of a run.
#[derive(Clone, Debug)]
pub(super) struct World {
    plan: Arc<Plan>,
    queue: Vec<Message>,
    session: Session,
    sessions: u32,
    /// Publishes of dead sessions that are still on their way, in order.
    late: VecDeque<Message>,
    chords: Vec<ChordState>,
    now_ms: u64,
    confirms: u64,
    kills_left: u32,
    crashes_left: u32,
    /// What went wrong first.
    pub(super) violation: Option<String>,
}

impl World {
    pub(super) fn new(plan: &Plan) -> Self {
        let chord = |(number, size): (usize, &u32)| ChordState {
            parts: adding::parts(plan, number, *size),
            ..ChordState::default()
        };
        Self {
            queue: Vec::new(),
            session: Session::new(0, &plan.settings),
            sessions: 1,
            late: VecDeque::new(),
            chords: plan.chords.iter().enumerate().map(chord).collect(),
            now_ms: 1,
            confirms: 0,
            kills_left: plan.kills,
            crashes_left: plan.crashes,
            violation: None,
            plan: Arc::new(plan.clone()),
        }
    }

    fn is_classic(&self) -> bool {
        self.plan.crashes > 0
    }

    /// What can happen next, without faults.
    pub(super) fn choices(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        if self.deliverable().is_some() {
            choices.push(Choice::Deliver);
        }
        // A quorum queue confirms in order.
        let in_order = if self.is_classic() { usize::MAX } else { 1 };
        choices
            .extend(self.session.unconfirmed.iter().take(in_order).map(|id| Choice::Confirm(*id)));
        choices.extend(self.session.outcomes.iter().take(1).map(|chord| Choice::Outcome(*chord)));
        let is_idle = choices.is_empty();
        for (number, chord) in self.chords.iter().enumerate() {
            if !chord.open_published {
                choices.push(Choice::Open(number));
            }
            if self.plan.cancelled.contains(&number) && !chord.cancelled && chord.open_confirmed {
                choices.push(Choice::Cancel(number));
            }
            if !chord.open_confirmed && !self.plan.careless_producer {
                continue;
            }
            for (index, part) in chord.parts.iter().enumerate() {
                let index = u32::try_from(index).unwrap();
                let adds = !self.plan.careless_adders && self.adding(number, index).is_some();
                if part.runs < part.wanted {
                    choices.push(match adds && !part.called {
                        true => Choice::Call(number, index),
                        false => Choice::Part(number, index),
                    });
                }
            }
        }
        for (at, message) in self.queue.iter().enumerate() {
            let waits = matches!(message.writer, Writer::Producer(_) | Writer::Worker(..));
            if waits && !message.on_disk {
                choices.push(Choice::OnDisk(at));
            }
        }
        if !self.late.is_empty() {
            choices.push(Choice::Late);
        }
        if self.queue.iter().any(|message| message.tag == Some(ELSEWHERE)) {
            choices.push(Choice::Release);
        }
        let plan = &self.plan;
        let is_due = |at| {
            let may_pass = is_idle || plan.impatient || (plan.hasty && at <= plan.expires_ms);
            at <= plan.horizon_ms && may_pass
        };
        if self.session.joiner.next_deadline().is_some_and(is_due) {
            choices.push(Choice::Tick);
        }
        choices
    }

    /// The faults that can happen next.
    pub(super) fn faults(&self) -> Vec<Choice> {
        let mut faults = Vec::new();
        if self.kills_left > 0 {
            faults.push(Choice::Kill);
        }
        if self.crashes_left > 0 {
            let undecided = u32::try_from(self.undecided()).unwrap();
            let all = 1_u64.checked_shl(undecided).unwrap_or(0).wrapping_sub(1);
            if undecided <= 3 {
                faults.extend((0..=all).map(Choice::Crash));
            } else {
                faults.extend([Choice::Crash(0), Choice::Crash(all)]);
                let single = (0..undecided.min(63)).map(|bit| 1 << bit);
                faults
                    .extend(single.flat_map(|bit| [Choice::Crash(bit), Choice::Crash(all & !bit)]));
            }
        }
        faults
    }

    /// Facts that are not on disk.
    pub(super) fn undecided(&self) -> usize {
        let count = |message: &Message| {
            usize::from(!message.on_disk) + usize::from(message.acked.is_some())
        };
        self.queue.iter().map(count).sum()
    }

    /// Whether the session can still be killed.
    pub(super) fn can_kill(&self) -> bool {
        self.kills_left > 0
    }

    /// Lets something happen. With `cut`, the session dies after so many effects of it; returns
    /// how many there were.
    pub(super) fn apply(&mut self, choice: Choice, cut: Option<(usize, bool)>) -> usize {
        match choice {
            Choice::Open(chord) => self.publish_open(chord),
            Choice::Call(chord, index) => self.call_added(chord, index),
            Choice::Part(chord, index) => self.publish_part(chord, index),
            Choice::OnDisk(at) => self.tell_writer(at),
            Choice::Cancel(chord) => {
                self.chords[chord].cancelled = true;
                let reason = "enough".to_owned();
                let record = Record::Cancel { chord: name(chord), reason, errbacks: false };
                self.enqueue(&record, Writer::Nobody);
            }
            Choice::Late => {
                self.queue.extend(self.late.pop_front());
            }
            Choice::Kill => {
                self.kills_left -= 1;
                self.next_session();
            }
            Choice::Release => {
                let held = self.queue.iter_mut().filter(|it| it.tag == Some(ELSEWHERE));
                held.for_each(|message| message.tag = None);
            }
            Choice::Crash(bits) => self.crash(bits),
            Choice::Deliver | Choice::Confirm(_) | Choice::Outcome(_) | Choice::Tick => {
                let event = self.event(choice);
                return self.run(event, cut);
            }
        }
        0
    }

    fn event(&mut self, choice: Choice) -> Event {
        match choice {
            Choice::Deliver => {
                let at = self.deliverable().unwrap();
                let tag = self.session.next_tag;
                self.session.next_tag += 1;
                let message = &mut self.queue[at];
                message.tag = Some(tag);
                message.deliveries += 1;
                let (count, record) = (message.deliveries - 1, (*message.record).clone());
                let redelivered = count > 0;
                let record = Ok(record);
                Event::Delivered(Delivery { tag, redelivered, count, record, unopened: None })
            }
            Choice::Confirm(publish) => {
                self.session.unconfirmed.retain(|id| *id != publish);
                self.confirms += 1;
                let writer = Writer::Session(publish);
                if let Some(message) = self.queue.iter_mut().find(|it| it.writer == writer) {
                    message.on_disk = true;
                    message.writer = Writer::Nobody;
                }
                Event::Confirmed { publish }
            }
            Choice::Outcome(chord) => {
                self.session.outcomes.retain(|it| *it != chord);
                self.chords[chord].ended = true;
                Event::OutcomePublished { chord: name(chord).into() }
            }
            _ => {
                let due = self.session.joiner.next_deadline().unwrap();
                self.now_ms = self.now_ms.max(due);
                Event::Tick
            }
        }
    }

    /// Hands an event to the joiner and carries out the effects, or some of them.
    fn run(&mut self, event: Event, cut: Option<(usize, bool)>) -> usize {
        let mut effects = Vec::new();
        self.session.joiner.handle(self.now_ms, event, &mut effects);
        let count = effects.len();
        let (keep, is_late) = cut.unwrap_or((count, false));
        let mut effects = effects.into_iter();
        let mut is_over = false;
        for effect in effects.by_ref().take(keep) {
            is_over |= matches!(effect, Effect::Alarm { restart: true, .. });
            self.carry_out(effect);
        }
        if is_over {
            self.next_session();
            return count;
        }
        if cut.is_some() && self.violation.is_none() {
            self.kills_left -= 1;
            if is_late && self.plan.late {
                self.delay(effects);
            }
            self.next_session();
        }
        self.settle_disk();
        count
    }

    /// What the dying session published last arrives later: what it has acked before, it has
    /// published before, since both go over one channel.
    fn delay(&mut self, rest: impl Iterator<Item = Effect>) {
        let first = self.session.after_ack;
        let is_late = |message: &Message| match message.writer {
            Writer::Session(id) => id >= first && message.tag.is_none(),
            _ => false,
        };
        let (late, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.queue).into_iter().partition(is_late);
        (self.late, self.queue) = (late.into(), kept);
        for effect in rest {
            match effect {
                Effect::Publish { record, .. } => {
                    let message = self.message(&record, Writer::Nobody);
                    self.late.push_back(message);
                }
                Effect::Ack { .. } => break,
                _ => {}
            }
        }
        for message in &mut self.late {
            message.writer = Writer::Nobody;
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Publish { id, record } => {
                self.session.unconfirmed.push(id);
                self.session.last_publish = Some(id);
                self.enqueue(&record, Writer::Session(id));
            }
            Effect::Fire { chord, outcome } => self.see(&chord, &outcome),
            Effect::Ack { tags } => {
                self.session.after_ack =
                    PublishId(self.session.last_publish.map_or(0, |last| last.0 + 1));
                for tag in tags {
                    self.ack(tag);
                }
            }
            Effect::Reply { .. } => {}
            Effect::Poison { reason, .. } => self.complain(format!("poison: {reason}")),
            Effect::Alarm { text, .. } | Effect::StandBack { text, .. } => {
                self.complain(format!("alarm: {text}"));
            }
        }
    }

    fn ack(&mut self, tag: u64) {
        let Some(at) = self.queue.iter().position(|it| it.tag == Some(tag) && it.acked.is_none())
        else {
            return self.complain(format!("acked what is not there: {tag}"));
        };
        if self.is_classic() {
            self.queue[at].acked = Some((self.now_ms, self.confirms));
        } else {
            self.queue.remove(at);
        }
    }

    /// Whoever sees an outcome compares it with those before.
    fn see(&mut self, chord: &str, outcome: &Outcome) {
        let number: usize = chord.trim_start_matches('c').parse().unwrap();
        let shown = match outcome {
            Outcome::Complete { parts, .. } => {
                let values: Vec<String> = parts.iter().map(shown).collect();
                let expected = self.complete(number, &values);
                let in_order =
                    values.iter().zip(&expected).all(|(it, start)| it.starts_with(start));
                if !in_order || values.len() != expected.len() {
                    self.complain(format!("G1: {chord} completes with {values:?}"));
                }
                format!("complete {values:?}")
            }
            Outcome::Failed { index, failure, .. } => {
                format!("failed {index} {}", failure.task_id)
            }
            Outcome::Expired { .. } => "expired".to_owned(),
            Outcome::Cancelled { .. } => "cancelled".to_owned(),
        };
        let state = &mut self.chords[number];
        state.seen.insert(shown);
        if state.seen.len() > 1 {
            let seen = state.seen.clone();
            self.complain(format!("G2: {chord} has several outcomes: {seen:?}"));
        }
        self.session.outcomes.push(number);
    }

    fn complain(&mut self, text: String) {
        self.violation.get_or_insert(text);
    }

    /// What is wrong when nothing can happen any more.
    pub(super) fn at_end(&self) -> Option<String> {
        for (number, chord) in self.chords.iter().enumerate() {
            if chord.open_confirmed && !chord.ended {
                return Some(format!("G3: chord {number} never ends"));
            }
        }
        let left: Vec<&str> = self
            .queue
            .iter()
            .filter(|message| message.acked.is_none())
            .map(|message| message.record.kind())
            .filter(|kind| *kind != "mark")
            .collect();
        (!left.is_empty()).then(|| format!("G4: {left:?} are left"))
    }

    fn deliverable(&self) -> Option<usize> {
        self.queue.iter().position(|message| message.tag.is_none() && message.acked.is_none())
    }

    fn enqueue(&mut self, record: &Record, writer: Writer) {
        let message = self.message(record, writer);
        self.queue.push(message);
    }

    fn message(&self, record: &Record, writer: Writer) -> Message {
        let mut hasher = DefaultHasher::new();
        let encoded = record.encode().unwrap();
        (record.kind(), format!("{:?}", encoded.properties.headers), encoded.body)
            .hash(&mut hasher);
        // What is published is what is read.
        let record = Record::decode(&record.encode().unwrap(), &Limits::default()).unwrap();
        Message {
            record: Arc::new(record),
            digest: hasher.finish(),
            writer,
            deliveries: 0,
            tag: None,
            on_disk: !self.is_classic(),
            acked: None,
        }
    }

    fn publish_open(&mut self, number: usize) {
        let chord = name(number);
        let open = Open {
            route: "join.0".to_owned(),
            size: self.plan.chords[number],
            mode: self.plan.mode,
            reply_to: Some(body_id(&chord)),
            created_ms: 1,
            expires_ms: self.plan.expires_ms,
            park_ms: Some(5),
            chord,
            ..Open::default()
        };
        self.chords[number].open_published = true;
        self.enqueue(&Record::Open(Box::new(open)), Writer::Producer(number));
        if !self.is_classic() {
            self.chords[number].open_confirmed = true;
        }
    }

    fn publish_part(&mut self, number: usize, index: u32) {
        let adding = self.adding(number, index);
        if let Some(Adding { dies, .. }) = adding.filter(|_| self.plan.careless_adders) {
            if dies {
                self.chords[number].parts[index as usize].wanted += 1;
            } else {
                self.call_added(number, index);
            }
        }
        let part = &mut self.chords[number].parts[index as usize];
        let (run, place) = (part.runs, part.place.clone());
        (part.runs, part.called) = (part.runs + 1, false);
        let is_classic = self.plan.crashes > 0;
        part.confirmed |= !is_classic || self.plan.careless_workers;
        let value = format!("{number}.{}.{run}", place.to_string().replace('.', "+"));
        let chord = name(number);
        let record = if self.plan.failing.contains(&(number, index, run)) {
            let failure = Failure::new(Exception::type_error("no"), "t", value);
            Record::Err { chord, index: place, execution: run.to_string(), failure }
        } else {
            let adds = adding.map_or(0, |adding| adding.count);
            // Some values are parked, others of the same part are not.
            let ok = if (index + run) % 2 == 1 {
                let reference = Reference { execution: value, bytes: 70_000 };
                Record::Ref { chord, index: place, adds: 0, task_id: "t".to_owned(), reference }
            } else {
                let value = Value::from(value);
                Record::ok(&chord, place, &run.to_string(), "t", &value).unwrap()
            };
            ok.adding(adds)
        };
        self.enqueue(&record, Writer::Worker(number, index));
    }

    fn tell_writer(&mut self, at: usize) {
        let message = &mut self.queue[at];
        message.on_disk = true;
        match message.writer {
            Writer::Producer(number) => self.chords[number].open_confirmed = true,
            Writer::Worker(number, index) => {
                self.chords[number].parts[index as usize].confirmed = true;
            }
            Writer::Session(_) | Writer::Nobody => {}
        }
        message.writer = Writer::Nobody;
    }

    /// An ack is on disk once it is old, and a later publish was confirmed.
    fn settle_disk(&mut self) {
        let (now_ms, confirms, tomb_ms) = (self.now_ms, self.confirms, self.plan.settings.tomb_ms);
        let is_gone = |message: &Message| {
            message.acked.is_some_and(|(at, seen)| at + tomb_ms <= now_ms && seen < confirms)
        };
        // Who wrote it is told, as if it had been on disk.
        for at in 0..self.queue.len() {
            if is_gone(&self.queue[at]) {
                self.tell_writer(at);
            }
        }
        self.queue.retain(|message| !is_gone(message));
    }

    /// The session is gone; the next one gets everything that is unacked, in order.
    fn next_session(&mut self) {
        let kept = self.plan.careless_givers.then_some(ELSEWHERE);
        for message in &mut self.queue {
            message.tag = message.tag.and(kept);
            if matches!(message.writer, Writer::Session(_)) {
                message.writer = Writer::Nobody;
            }
        }
        self.session = Session::new(self.sessions, &self.plan.settings);
        self.sessions += 1;
    }

    /// The broker crashes: of what is not on disk, the bits say what is kept.
    fn crash(&mut self, bits: u64) {
        self.crashes_left -= 1;
        let mut bits =
            std::iter::successors(Some(bits), |bits| Some(bits >> 1)).map(|it| it & 1 == 1);
        let mut kept = Vec::new();
        for mut message in std::mem::take(&mut self.queue) {
            let is_kept = message.on_disk || bits.next().unwrap_or(false);
            // Asked in any case, so that the bits do not depend on one another.
            let is_acked = message.acked.is_some() && bits.next().unwrap_or(false);
            if is_kept && !is_acked {
                (message.on_disk, message.acked) = (true, None);
                if !matches!(message.writer, Writer::Session(_)) {
                    message.writer = Writer::Nobody;
                }
                kept.push(message);
            }
        }
        self.queue = kept;
        for chord in &mut self.chords {
            // Who has no confirm does it again, with another value.
            chord.open_published = chord.open_confirmed;
            for part in &mut chord.parts {
                if !part.confirmed && part.runs > 0 {
                    part.wanted = part.wanted.max(part.runs + 1);
                }
            }
        }
        self.next_session();
    }

    /// Two worlds with the same fingerprint have the same future.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for message in &self.queue {
            (message.digest, message.writer, message.deliveries > 0).hash(&mut hasher);
            (message.tag, message.on_disk, message.acked).hash(&mut hasher);
        }
        (&self.session.unconfirmed, &self.session.outcomes).hash(&mut hasher);
        (&self.chords, self.now_ms, self.kills_left, self.crashes_left).hash(&mut hasher);
        for message in &self.late {
            message.digest.hash(&mut hasher);
        }
        (self.plan.late.then_some(self.session.after_ack)).hash(&mut hasher);
        self.session.joiner.digest(&mut hasher);
        hasher.finish()
    }
}

impl Session {
    fn new(number: u32, settings: &JoinSettings) -> Self {
        Self {
            joiner: Joiner::new(format!("s{number}"), settings.clone()),
            next_tag: 1,
            unconfirmed: Vec::new(),
            outcomes: Vec::new(),
            last_publish: None,
            after_ack: PublishId(0),
        }
    }
}

fn name(chord: usize) -> String {
    format!("c{chord}")
}

fn shown(part: &Part) -> String {
    match part {
        Part::Ok(value) => match msgpack::decode(value, &Limits::default()).unwrap() {
            Value::String(text) => text,
            other => format!("{other:?}"),
        },
        Part::Parked(reference) => reference.execution.clone(),
        Part::Err(failure) => failure.task_id.clone(),
    }
}
