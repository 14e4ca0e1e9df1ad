//! Workers and a joiner in memory: they run what lowering gives, message by message, in any order.
//!
//! The rules are those of workers and of the join protocol, as few as values need: a task that
//! ends calls the next step of its chain, or delivers its part of a chord; a chord that is complete
//! calls its body, or delivers the part that it stands for.

use std::collections::{HashMap, HashSet};

use celeriac::protocol::canvas::{Call, Canvas, Ids, Lowered, ResultTree, lower};
use celeriac::protocol::join::{Link, Open};
use celeriac::protocol::{CallOptions, Limits, Signature, Value, msgpack};

use super::shapes::options;
use super::tree::call;

pub(crate) const CALLER: &str = "caller";

/// Chooses among so many: what comes next, and whether it comes twice.
pub(crate) type Choose<'a> = &'a mut dyn FnMut(usize) -> usize;

#[derive(Default)]
pub(crate) struct Simulator {
    waiting: Vec<Signature>,
    chords: HashMap<String, Chord>,
    /// What the caller was told.
    pub(crate) results: HashMap<String, Value>,
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

struct Chord {
    open: Open,
    values: Vec<Option<Value>>,
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
            let values = vec![None; open.size as usize];
            let chord = Chord { open, values, ended: false };
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
        if replaces && task.task == "digest" {
            return self.replace(task, it, &id);
        }
        let value = call(&task.task, &task.args);
        if it.reply_to.as_deref() == Some(CALLER) {
            self.results.insert(id.clone(), value.clone());
        }
        let mut rest = it.chain.unwrap_or_default();
        if let Some(next) = rest.pop() {
            let root = it.root_id.unwrap_or_else(|| id.clone());
            self.next(next, value, rest, (root, id.clone()), Ids::derived(id));
        } else if let Some(link) = link(task) {
            assert!(link.is_final, "{id} ends without delivering its part");
            self.deliver(&link.chord, link.index, value, &id);
        }
    }

    /// The replacement has the id of the task, its place in the workflow and its link.
    fn replace(&mut self, task: &Signature, it: CallOptions, id: &str) {
        let same = |arg: &Value| {
            let args = vec![arg.clone()];
            Canvas::Task(Signature { args, immutable: true, ..Signature::new("same") })
        };
        let body = Canvas::Task(Signature::new("digest_list"));
        let chord = Canvas::chord(task.args.iter().map(same).collect(), body).expect("a chord");
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
        (root, parent): (String, String),
        ids: Ids,
    ) {
        let options = CallOptions {
            chain: Some(rest),
            root_id: Some(root),
            parent_id: Some(parent),
            ..CallOptions::default()
        };
        let call = Call { args: vec![value], options, ids, ..Call::default() };
        let canvas = Canvas::from_signature(next).expect("a workflow");
        let lowered = lower(canvas, call).expect("a workflow");
        self.publish(lowered);
    }

    fn deliver(&mut self, chord: &str, index: u32, value: Value, last: &str) {
        let chord = self.chords.get_mut(chord).expect("the chord is open");
        let place = chord.values.get_mut(index as usize).expect("within the size");
        // The first one wins.
        place.get_or_insert(value);
        if chord.ended || chord.values.contains(&None) {
            return;
        }
        chord.ended = true;
        let values: Vec<_> = chord.values.iter().flatten().cloned().collect();
        let open = chord.open.clone();
        match (open.body, open.parent) {
            (Some(body), _) => {
                let id = celeriac::protocol::join::body_id(&open.chord);
                let root = open.root.unwrap_or_else(|| id.clone());
                self.next(
                    body,
                    values.into(),
                    Vec::new(),
                    (root, last.to_owned()),
                    Ids::derived(id),
                );
            }
            (None, Some(parent)) => self.deliver(&parent.chord, parent.index, values.into(), last),
            (None, None) => panic!("a chord that nobody waits for"),
        }
    }
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
