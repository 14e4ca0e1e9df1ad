//! Workers and a joiner in memory: they run what lowering gives, message by message, in any order.
//!
//! The rules are those of workers and of the join protocol, as few as results need: a task that
//! ends calls the next step of its chain, or delivers its part of a chord; a chord that is complete
//! calls its body, or delivers the part that it stands for. One that fails calls its errbacks, and
//! whatever was to follow has failed with it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use celeriac::protocol::canvas::{Call, Canvas, Ids, Lowered, ResultTree, failed_with, lower};
use celeriac::protocol::join::{Failure, Link, Mode, Open, derived_id};
use celeriac::protocol::{CallOptions, Exception, Limits, Map, Signature, Value, msgpack, repr};

use super::fallible::{self, TOLD, TOLD_ALL, UNKNOWN};
use super::tree::{HEARD, each};

pub(crate) const CALLER: &str = "caller";

/// Chooses among so many: what comes next, and whether it comes twice.
pub(crate) type Choose<'a> = &'a mut dyn FnMut(usize) -> usize;

#[derive(Default)]
pub(crate) struct Simulator {
    waiting: Vec<Signature>,
    chords: HashMap<String, Chord>,
    /// What the caller was told.
    pub(crate) results: HashMap<String, Value>,
    /// The exceptions that the caller was told of.
    pub(crate) failures: BTreeMap<String, String>,
    /// What the caller was told more than once to have failed with a task before it.
    pub(crate) told_twice: Vec<String>,
    /// Arguments of callbacks.
    pub(crate) heard: Vec<Vec<Value>>,
    /// Tasks that ran, with what they see of their place, see [`place`].
    pub(crate) places: BTreeSet<String>,
    /// Tasks that ran, and whether they succeeded.
    pub(crate) runs: BTreeMap<String, bool>,
    /// Calls of errbacks.
    pub(crate) errbacks: BTreeMap<(i64, String), usize>,
    /// How often each task was published.
    pub(crate) published: HashMap<String, usize>,
    /// Messages that are still to come twice.
    duplicates: usize,
    /// Calls that were published for a chord which was not open.
    pub(crate) too_early: Vec<String>,
    /// Calls whose parent never ran.
    pub(crate) orphans: Vec<String>,
    ran: HashSet<String>,
}

type Part = Result<Value, Failure>;

struct Chord {
    open: Open,
    parts: Vec<Option<Part>>,
    ended: bool,
}

impl Simulator {
    /// One that delivers so many messages twice.
    pub(crate) fn with_duplicates(duplicates: usize) -> Self {
        Self { duplicates, ..Self::default() }
    }

    /// Publishes the beginning of a workflow for the caller.
    pub(crate) fn send(&mut self, canvas: Canvas) -> ResultTree {
        let reply_to = Some(CALLER.to_owned());
        let options = CallOptions { reply_to, ..CallOptions::default() };
        let lowered = lower(canvas, Call { options, ..Call::default() }).expect("a workflow");
        self.publish(lowered)
    }

    /// Runs until nothing is left.
    pub(crate) fn run(&mut self, choose: Choose<'_>) {
        while !self.waiting.is_empty() {
            let at = choose(self.waiting.len());
            if self.duplicates > 0 && choose(4) == 0 {
                self.duplicates -= 1;
                let again = self.waiting[at].clone();
                self.task(&again, choose(4) == 0);
            }
            let task = self.waiting.swap_remove(at);
            self.task(&task, choose(4) == 0);
        }
    }

    /// What the caller sees of a result.
    pub(crate) fn value(&self, result: &ResultTree) -> Value {
        match result.members() {
            Some(members) => members.iter().map(|it| self.value(it)).collect::<Vec<_>>().into(),
            None => self.results.get(result.id()).expect("a result").clone(),
        }
    }

    /// Chords that never ended.
    pub(crate) fn unfinished(&self) -> usize {
        self.chords.values().filter(|chord| !chord.ended).count()
    }

    fn publish(&mut self, lowered: Lowered) -> ResultTree {
        for open in lowered.opens {
            let open =
                Open::from_value(open.chord.clone(), travel(&open.to_value())).expect("open");
            let parts = vec![None; open.size as usize];
            let chord = Chord { open, parts, ended: false };
            self.chords.entry(chord.open.chord.clone()).or_insert(chord);
        }
        for call in lowered.calls {
            let call = Signature::from_value(travel(&call.into_value())).expect("a signature");
            let it = options(&call);
            let id = it.task_id.expect("an id");
            if let Some(link) = link(&call)
                && !self.chords.contains_key(&link.chord)
            {
                self.too_early.push(id.clone());
            }
            if it.parent_id.is_some_and(|parent| !self.ran.contains(&parent)) {
                self.orphans.push(id.clone());
            }
            *self.published.entry(id).or_default() += 1;
            self.waiting.push(call);
        }
        lowered.result
    }

    /// Runs a task, or lets it replace itself with a workflow that gives the same.
    fn task(&mut self, task: &Signature, replaces: bool) {
        let it = options(task);
        let id = it.task_id.clone().expect("an id");
        self.ran.insert(id.clone());
        let group = it.group_id.as_deref().zip(it.group_index);
        let (root, stamps) = (it.root_id.as_deref().unwrap_or(&id), &it.stamps);
        let parent = it.parent_id.as_deref();
        self.places.insert(place(&task.task, &id, root, parent, group, stamps));
        if replaces && task.task == "digest" {
            return self.replace(task, it, &id);
        }
        if [TOLD, TOLD_ALL].contains(&&*task.task) {
            return self.errback(&task.args);
        }
        if task.task == HEARD {
            return self.heard.push(task.args.clone());
        }
        let named = task.kwargs.get("named").cloned();
        let args: Vec<_> = task.args.iter().cloned().chain(named).collect();
        let result = each(task).map_or_else(|| fallible::run(&task.task, &args), Ok);
        if task.task != UNKNOWN {
            self.runs.insert(id.clone(), result.is_ok());
        }
        match result {
            Ok(value) => self.succeeded(task, it, id, value),
            Err(exception) => self.failed(task, it, &id, &exception),
        }
    }

    fn succeeded(&mut self, task: &Signature, it: CallOptions, id: String, value: Value) {
        if it.reply_to.as_deref() == Some(CALLER) {
            self.results.insert(id.clone(), value.clone());
        }
        for callback in it.link {
            let root = it.root_id.clone().unwrap_or_else(|| id.clone());
            let ids = Ids::derived(derived_id(&id, "callbacks/0"));
            self.next(callback, value.clone(), Vec::new(), (Some(root), Some(id.clone())), ids);
        }
        let mut rest = it.chain.unwrap_or_default();
        if let Some(next) = rest.pop() {
            let root = it.root_id.unwrap_or_else(|| id.clone());
            self.next(next, value, rest, (Some(root), Some(id.clone())), Ids::derived(id));
        } else if let Some(link) = link(task) {
            assert!(link.is_final, "{id} ends without delivering its part");
            self.deliver(&link.chord, link.index.index(), Ok(value));
        }
    }

    fn failed(&mut self, task: &Signature, it: CallOptions, id: &str, exception: &Exception) {
        if it.reply_to.as_deref() == Some(CALLER) {
            self.failures.insert(id.to_owned(), repr::exception(exception));
        }
        self.doom(&it.chain.unwrap_or_default(), exception);
        if let Some(link) = link(task) {
            let failure = Failure::new(exception.clone(), &*task.task, id);
            self.deliver(&link.chord, link.index.index(), Err(failure));
        }
        self.call_errbacks(it.link_error, id);
    }

    /// What was to follow has failed, too.
    fn doom(&mut self, rest: &[Signature], exception: &Exception) {
        for doomed in failed_with(rest) {
            if doomed.reply_to.as_deref() == Some(CALLER) {
                let id = doomed.task_id;
                if self.failures.insert(id.clone(), repr::exception(exception)).is_some() {
                    self.told_twice.push(id);
                }
            }
        }
    }

    fn call_errbacks(&mut self, errbacks: Vec<Signature>, id: &str) {
        let errbacks = errbacks.into_iter().map(|it| Canvas::from_signature(it).expect("a task"));
        let group = Canvas::group(errbacks.collect()).expect("a group");
        let ids = Ids::derived(format!("{id}/errbacks"));
        let call = Call { args: vec![id.into()], ids, ..Call::default() };
        self.publish(lower(group, call).expect("a workflow"));
    }

    fn errback(&mut self, args: &[Value]) {
        let [Value::String(id), Value::Int(number)] = args else { panic!("{TOLD} of {args:?}") };
        *self.errbacks.entry((*number, id.clone())).or_default() += 1;
    }

    /// The replacement has the id of the task, its place in the workflow and its link.
    fn replace(&mut self, task: &Signature, it: CallOptions, id: &str) {
        let named = task.kwargs.get("named");
        let same = |arg: &Value| {
            let args = vec![arg.clone()];
            Canvas::Task(Signature { args, immutable: true, ..Signature::new("same") })
        };
        let body = Canvas::Task(Signature::new("digest_list"));
        let chord = Canvas::chord(task.args.iter().chain(named).map(same).collect(), body)
            .expect("a chord");
        let options = CallOptions {
            root_id: it.root_id.or_else(|| Some(id.to_owned())),
            parent_id: Some(id.to_owned()),
            headers: Default::default(),
            ..it
        };
        let ids = Ids::derived(format!("{id}/replace"));
        let lowered = lower(chord, Call { options, ids, link: link(task), ..Call::default() });
        // Its id is published a second time on purpose.
        self.published.remove(id);
        let result = self.publish(lowered.expect("a workflow"));
        assert_eq!(result.id(), id);
    }

    fn next(
        &mut self,
        next: Signature,
        value: Value,
        rest: Vec<Signature>,
        (root_id, parent_id): (Option<String>, Option<String>),
        ids: Ids,
    ) {
        let options =
            CallOptions { chain: Some(rest), root_id, parent_id, ..CallOptions::default() };
        let call = Call { args: vec![value], options, ids, ..Call::default() };
        let canvas = Canvas::from_signature(next).expect("a workflow");
        let lowered = lower(canvas, call).expect("a workflow");
        self.publish(lowered);
    }

    fn deliver(&mut self, chord: &str, index: u32, part: Part) {
        let chord = self.chords.get_mut(chord).expect("the chord is open");
        let place = chord.parts.get_mut(index as usize).expect("within the size");
        // The first one wins.
        let part = place.get_or_insert(part);
        if chord.ended {
            return;
        }
        let open = chord.open.clone();
        if let (Err(failure), Mode::FailFast) = (&*part, open.mode) {
            chord.ended = true;
            let failure = failure.clone();
            return self.chord_failed(open, &failure);
        }
        if chord.parts.contains(&None) {
            return;
        }
        chord.ended = true;
        let values: Vec<_> = chord.parts.iter().flatten().map(|it| entry(it, open.mode)).collect();
        match (open.body, open.parent) {
            (Some(body), _) => {
                let id = celeriac::protocol::join::body_id(&open.chord);
                // Which part was the last one is not known to every joiner, so the body names none.
                let lineage = (open.root, None);
                self.next(body, values.into(), Vec::new(), lineage, Ids::derived(id));
            }
            (None, Some(parent)) => {
                self.deliver(&parent.chord, parent.index.index(), Ok(values.into()));
            }
            (None, None) => panic!("a chord that nobody waits for"),
        }
    }

    fn chord_failed(&mut self, open: Open, failure: &Failure) {
        let raised = repr::exception(&failure.exc);
        let text = format!("Dependency {} raised {raised}", failure.task_id);
        let exception = Exception::new("celery.exceptions", "ChordError", text);
        let body = open.body.clone().map(|body| Canvas::from_signature(body).expect("a workflow"));
        let id = body.map_or(open.chord, |body| body.result_id().expect("an id"));
        self.doom(&open.body.into_iter().collect::<Vec<_>>(), &exception);
        if let Some(parent) = open.parent {
            let failure = Failure::new(exception, "", &*id);
            self.deliver(&parent.chord, parent.index.index(), Err(failure));
        }
        self.call_errbacks(open.errbacks, &id);
    }
}

/// An entry of the list of results.
fn entry(part: &Part, mode: Mode) -> Value {
    match (part, mode) {
        (Ok(value), Mode::FailFast) => value.clone(),
        (Ok(value), Mode::Collect) => Map::from_iter([("ok", value.clone())]).into(),
        (Err(failure), _) => {
            let failure = failure.encode().expect("MessagePack");
            let failure = msgpack::decode(&failure, &Limits::default()).expect("MessagePack");
            Map::from_iter([("err", failure)]).into()
        }
    }
}

/// What a task sees of its place.
pub(crate) fn place(
    task: &str,
    id: &str,
    root: &str,
    parent: Option<&str>,
    group: Option<(&str, i64)>,
    stamps: &Map,
) -> String {
    format!("{task} {id} of {root}, after {parent:?}, {group:?}, {stamps:?}")
}

fn options(call: &Signature) -> CallOptions {
    CallOptions::from_map(call.options.clone()).expect("options")
}

fn link(task: &Signature) -> Option<Link> {
    options(task).headers.get(Link::HEADER).map(|link| Link::from_value(link).expect("a link"))
}

/// The value as it comes out of a message.
fn travel(value: &Value) -> Value {
    let mut bytes = Vec::new();
    msgpack::encode(value, &mut bytes).expect("MessagePack");
    msgpack::decode(&bytes, &Limits::default()).expect("MessagePack")
}
