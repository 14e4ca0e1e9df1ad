//! Freezing: names every task of a workflow, and brings it into its plain form.
//!
//! In the plain form chains are not nested in chains, what follows a group is the body of a chord,
//! and the options of a chain, group or chord are where they take effect. As in Celery, freezing
//! reaches through the whole tree, since callers hold results of tasks that start much later.
//!
//! **Invariant:** freezing what is frozen changes nothing: ids stay.

use super::budget::Budget;
use super::errbacks::keep_errbacks;
use super::options::{self, text};
use super::tree::{Canvas, Composite};
use super::{CanvasError, Ids, JoinDefaults, ResultTree};
use crate::protocol::join::{Link, body_id, header_id};
use crate::protocol::weight::{size_of_list, size_of_map};
use crate::protocol::{Map, Signature, Value};

/// What freezing needs to know of its surroundings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around<'a> {
    /// Where results go; empty for nowhere.
    pub(super) reply_to: Option<&'a str>,
    pub(super) join: &'a JoinDefaults,
    /// For what is handed down to several parts.
    pub(super) budget: &'a Budget,
}

type Parent = Option<Box<ResultTree>>;

/// Freezes `canvas`, whose result follows from `parent`.
pub(super) fn freeze(
    canvas: &mut Canvas,
    ids: &mut Ids,
    around: Around<'_>,
    parent: Parent,
) -> Result<ResultTree, CanvasError> {
    become_chord(canvas)?;
    match canvas {
        Canvas::Task(task) => freeze_task(task, ids, around, parent),
        Canvas::Chain(chain) => freeze_chain(chain, ids, around, parent),
        Canvas::Group(group) => freeze_group(group, ids, around, parent),
        Canvas::Chord(header, body) => freeze_chord(header, body, ids, around, parent),
    }
}

fn freeze_task(
    task: &mut Signature,
    ids: &mut Ids,
    around: Around<'_>,
    parent: Parent,
) -> Result<ResultTree, CanvasError> {
    options::check_errbacks(&task.options)?;
    let id = take_id(&mut task.options, ids);
    if let Some(reply_to) = around.reply_to {
        options::set_if_absent(&mut task.options, options::REPLY_TO, reply_to);
    }
    let silent = text(&task.options, options::REPLY_TO) == Some("");
    Ok(ResultTree::task(id, parent).silence(silent))
}

fn freeze_chain(
    chain: &mut Composite,
    ids: &mut Ids,
    around: Around<'_>,
    mut parent: Parent,
) -> Result<ResultTree, CanvasError> {
    let errbacks = options::list(&chain.options, options::LINK_ERROR);
    if !errbacks.is_empty() {
        options::append_all(&mut chain.options, options::BODY_ERRBACKS, &errbacks);
    }
    let reply_to = text(&chain.options, options::REPLY_TO).map(str::to_owned);
    let around = Around { reply_to: reply_to.as_deref().or(around.reply_to), ..around };
    let (steps, own) = unfold(chain, around.budget)?;
    let is_followed = own < steps.len();
    let is_header = is_followed && steps[..own].last().is_some_and(ends_in_group);
    if is_header {
        // What it becomes with its first follower has no errbacks of its own.
        chain.options.remove(options::BODY_ERRBACKS);
    }
    chain.parts = upgrade(steps)?;
    let last = chain.parts.len().saturating_sub(1);
    for at in 0..chain.parts.len() {
        let result = freeze(&mut chain.parts[at], ids, around, parent.take())?;
        if at == last {
            chain.options.insert(options::TASK_ID, result.id());
            return Ok(result);
        }
        if at + 1 == own && !is_header {
            keep_errbacks(chain, own);
        }
        parent = Some(Box::new(result));
    }
    Err(CanvasError::EmptyChain)
}

fn freeze_group(
    group: &mut Composite,
    ids: &mut Ids,
    around: Around<'_>,
    parent: Parent,
) -> Result<ResultTree, CanvasError> {
    around.check_size("group", group.parts.len())?;
    let id = take_id(&mut group.options, ids);
    let reply_to = text(&group.options, options::REPLY_TO).map(str::to_owned);
    let around = Around { reply_to: reply_to.as_deref().or(around.reply_to), ..around };
    hand_to_parts(group, around.budget)?;
    let mut members = Vec::with_capacity(group.parts.len());
    for (index, member) in group.parts.iter_mut().enumerate() {
        set_index(member, index);
        members.push(freeze(member, ids, around, None)?);
    }
    let silent = !members.is_empty() && members.iter().all(ResultTree::is_silent);
    Ok(ResultTree::group(id, members, parent).silence(silent))
}

fn freeze_chord(
    header: &mut Composite,
    body: &mut Canvas,
    ids: &mut Ids,
    around: Around<'_>,
    parent: Parent,
) -> Result<ResultTree, CanvasError> {
    around.check_size("chord", header.parts.len())?;
    let id = take_id(&mut header.options, ids);
    let reply_to = text(&header.options, options::REPLY_TO).map(str::to_owned);
    let around = Around { reply_to: reply_to.as_deref().or(around.reply_to), ..around };
    hand_to_body(header, body)?;
    hand_to_parts(header, around.budget)?;
    let settings = super::lower::Settings::of(&header.options, around.join);
    let silent = if settings.header_results { around.reply_to } else { Some("") };
    let mut members = Vec::with_capacity(header.parts.len());
    for (index, member) in header.parts.iter_mut().enumerate() {
        set_index(member, index);
        let named = header_id(&id, u32::try_from(index).unwrap_or(u32::MAX));
        name_result(member, &named);
        let around = Around { reply_to: silent, ..around };
        members.push(freeze(member, &mut Ids::derived(named), around, None)?);
    }
    let silent = !members.is_empty() && members.iter().all(ResultTree::is_silent);
    let named = body_id(&id);
    let header = ResultTree::group(id, members, parent).silence(silent);
    name_result(body, &named);
    freeze(body, &mut Ids::derived(named), around, Some(Box::new(header)))
}

impl Around<'_> {
    fn check_size(self, what: &'static str, size: usize) -> Result<(), CanvasError> {
        let max = usize::try_from(self.join.max_size).unwrap_or(usize::MAX);
        if size > max { Err(CanvasError::TooLarge { what, size, max }) } else { Ok(()) }
    }
}

fn take_id(options: &mut Map, ids: &mut Ids) -> String {
    match text(options, options::TASK_ID) {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => {
            let id = ids.take();
            options.insert(options::TASK_ID, &*id);
            id
        }
    }
}

/// Gives an id to what a caller of `canvas` waits for, unless that has one.
pub(super) fn name_result(canvas: &mut Canvas, id: &str) {
    match canvas {
        Canvas::Chord(_, body) => name_result(body, id),
        other => options::set_if_absent(other.options_mut(), options::TASK_ID, id),
    }
}

/// Gives another id to what a caller of `canvas` waits for.
pub(super) fn rename_result(canvas: &mut Canvas, id: &str) {
    match canvas {
        Canvas::Chord(_, body) => rename_result(body, id),
        other => {
            if let Canvas::Chain(chain) = other
                && let Some(last) = chain.parts.last_mut()
            {
                rename_result(last, id);
            }
            other.options_mut().insert(options::TASK_ID, id);
        }
    }
}

/// The position in a group, which the task that ends the member carries.
fn set_index(member: &mut Canvas, index: usize) {
    match member {
        Canvas::Task(task) => {
            task.options.insert(options::GROUP_INDEX, index as u64);
        }
        Canvas::Chain(chain) => chain.options.insert(options::GROUP_INDEX, index as u64),
        Canvas::Chord(_, body) => set_index(body, index),
        Canvas::Group(_) => {}
    }
}

/// Prepends arguments to those of the first tasks; what is immutable keeps its own.
pub(super) fn prepend(canvas: &mut Canvas, args: &[Value], kwargs: &Map) {
    if args.is_empty() && kwargs.is_empty() {
        return;
    }
    let splice = |own_args: &mut Vec<Value>, own_kwargs: &mut Map| {
        own_args.splice(0..0, args.iter().cloned());
        for (name, value) in kwargs.iter() {
            own_kwargs.insert(name.to_owned(), value.clone());
        }
    };
    match canvas {
        Canvas::Task(Signature { immutable: true, .. }) => {}
        Canvas::Task(task) => splice(&mut task.args, &mut task.kwargs),
        Canvas::Chain(it) | Canvas::Chord(it, _) | Canvas::Group(it) => {
            if !it.immutable {
                splice(&mut it.args, &mut it.kwargs);
            }
        }
    }
}

/// Links `canvas` to a chord: whatever ends it delivers the part, and a failure on the way is the
/// part's failure. Replaces the links that are there already.
pub(super) fn set_link(canvas: &mut Canvas, link: &Link) {
    hand_link(canvas, link, true);
}

/// Hands the link that a workflow carries to those of its parts that have none.
pub(super) fn complete_links(canvas: &mut Canvas, link: &Link) {
    hand_link(canvas, link, false);
}

fn hand_link(canvas: &mut Canvas, link: &Link, replace: bool) {
    if replace || !options::has_link(canvas.options()) {
        options::set_link(canvas.options_mut(), link.clone());
    }
    match canvas {
        Canvas::Task(_) | Canvas::Group(_) => {}
        Canvas::Chain(chain) => {
            let last = chain.parts.len().saturating_sub(1);
            for (at, step) in chain.parts.iter_mut().enumerate() {
                let is_final = link.is_final && at == last;
                hand_link(step, &Link { is_final, ..link.clone() }, replace);
            }
        }
        Canvas::Chord(_, body) => hand_link(body, link, replace),
    }
}

/// Lets `rest`, last first, follow on `canvas`.
pub(super) fn follow(canvas: &mut Canvas, rest: Vec<Value>) {
    match canvas {
        Canvas::Chord(_, body) => follow(body, rest),
        other => options::follow(other.options_mut(), rest),
    }
}

/// A group that something follows on is the header of a chord.
fn become_chord(canvas: &mut Canvas) -> Result<(), CanvasError> {
    let Canvas::Group(group) = canvas else { return Ok(()) };
    let steps = rest(&mut group.options)?;
    if steps.is_empty() {
        return Ok(());
    }
    let body = Canvas::chain(steps)?;
    let group = std::mem::take(group);
    *canvas = header_of(group, body)?;
    Ok(())
}

fn header_of(mut group: Composite, body: Canvas) -> Result<Canvas, CanvasError> {
    let parts = std::mem::take(&mut group.parts);
    let mut chord = Canvas::chord(parts, body)?;
    if let Canvas::Chord(header, _) = &mut chord {
        header.take_over(group);
    }
    Ok(chord)
}

/// What follows, in the order in which it runs.
fn rest(options: &mut Map) -> Result<Vec<Canvas>, CanvasError> {
    let rest = options::take_list(options, options::CHAIN).into_iter().rev();
    let read = |value| {
        let signature = Signature::from_value(value).map_err(CanvasError::malformed("chain"))?;
        Canvas::from_signature(signature)
    };
    rest.map(read).collect()
}

/// The steps of a chain without chains among them, with the chain's own options in their places;
/// and how many of them are not what follows it.
fn unfold(chain: &mut Composite, budget: &Budget) -> Result<(Vec<Canvas>, usize), CanvasError> {
    let parts = std::mem::take(&mut chain.parts);
    let mut steps = Vec::with_capacity(parts.len());
    for part in parts {
        match part {
            Canvas::Chain(mut inner) => steps.extend(unfold(&mut inner, budget)?.0),
            other => steps.push(other),
        }
    }
    // As in Celery, a chain is a chord from the group on that something follows, also for its
    // errbacks: they are those of the body, and not of every part of the header.
    let mut steps = upgrade(steps)?;
    let args = std::mem::take(&mut chain.args);
    let kwargs = std::mem::take(&mut chain.kwargs);
    let taken = Taken::from(&mut chain.options)?;
    if let Some(first) = steps.first_mut() {
        prepend(first, &args, &kwargs);
        options::merge(first.options_mut(), &taken.first);
    }
    hand_errbacks(&mut steps, taken.errbacks, budget)?;
    if let Some(last) = steps.last_mut() {
        taken.callbacks.into_iter().for_each(|callback| last.link(callback));
        taken.last.iter().for_each(|(key, value)| set_at_end(last, key, value));
        if let Some(id) = text(&chain.options, options::TASK_ID) {
            name_result(last, id);
        }
    }
    let own = steps.len();
    for step in rest(&mut chain.options)? {
        match step {
            Canvas::Chain(mut inner) => steps.extend(unfold(&mut inner, budget)?.0),
            other => steps.push(other),
        }
    }
    Ok((steps, own))
}

/// Makes chords of groups that are followed by a step.
fn upgrade(steps: Vec<Canvas>) -> Result<Vec<Canvas>, CanvasError> {
    let mut plain: Vec<Canvas> = Vec::with_capacity(steps.len());
    for step in steps {
        match plain.pop() {
            None => plain.push(step),
            Some(Canvas::Group(group)) => plain.push(header_of(group, step)?),
            Some(Canvas::Chord(header, body)) if ends_in_group(&body) => {
                let body = body.then(step)?;
                plain.push(header_of(header, body)?);
            }
            Some(other) => plain.extend([other, step]),
        }
    }
    Ok(plain)
}

fn ends_in_group(canvas: &Canvas) -> bool {
    match canvas {
        Canvas::Task(_) => false,
        Canvas::Group(_) => true,
        Canvas::Chain(chain) => chain.parts.last().is_some_and(ends_in_group),
        Canvas::Chord(_, body) => ends_in_group(body),
    }
}

/// The options of a chain, group or chord, by where they take effect.
struct Taken {
    callbacks: Vec<Signature>,
    errbacks: Vec<Signature>,
    /// For the tasks that begin.
    first: Map,
    /// For the task that ends.
    last: Vec<(&'static str, Value)>,
}

impl Taken {
    /// Leaves what belongs to the chain, group or chord itself, and what follows it.
    fn from(own: &mut Map) -> Result<Self, CanvasError> {
        let callbacks = options::take_signatures(own, options::LINK)?;
        options::check_errbacks(own)?;
        let errbacks = options::take_signatures(own, options::LINK_ERROR)?;
        let last = [options::GROUP_ID, options::GROUP_INDEX, options::CHORD];
        let last = last.into_iter().filter_map(|key| own.remove(key).map(|value| (key, value)));
        let last = last.filter(|(_, value)| !value.is_null()).collect();
        let mut first = Map::new();
        let stamps: Vec<String> =
            options::stamp_names(own).into_iter().map(str::to_owned).collect();
        for (key, value) in std::mem::take(own) {
            let is_own = [options::TASK_ID, options::CHAIN, options::HEADERS, options::JOIN];
            let is_own = is_own.contains(&&*key) || key == options::BODY_ERRBACKS;
            let is_stamp = key == options::STAMPED_HEADERS || stamps.iter().any(|it| *it == key);
            let is_known = [options::REPLY_TO, options::ROOT_ID, options::PARENT_ID];
            if is_own || is_stamp {
                own.push(key, value);
            } else if !is_known.contains(&&*key) && key != "add_to_parent" && !value.is_null() {
                first.push(key, value);
            }
        }
        Ok(Self { callbacks, errbacks, first, last })
    }
}

fn set_at_end(canvas: &mut Canvas, key: &'static str, value: &Value) {
    match canvas {
        Canvas::Chord(_, body) => set_at_end(body, key, value),
        other => options::set_if_absent(other.options_mut(), key, value.clone()),
    }
}

/// Hands the arguments and options of a group or header to its members.
fn hand_to_parts(composite: &mut Composite, budget: &Budget) -> Result<(), CanvasError> {
    let args = std::mem::take(&mut composite.args);
    let kwargs = std::mem::take(&mut composite.kwargs);
    let taken = Taken::from(&mut composite.options)?;
    let bytes = size_of_list(&args) + size_of_map(&kwargs) + size_of_map(&taken.first);
    budget.pay(composite.parts.len(), bytes)?;
    let mut callbacks = taken.callbacks.into_iter();
    for member in &mut composite.parts {
        prepend(member, &args, &kwargs);
        options::merge(member.options_mut(), &taken.first);
        callbacks.by_ref().for_each(|callback| {
            member.link(Signature { immutable: true, ..callback });
        });
        taken.last.iter().filter(|(key, _)| *key == options::CHORD).for_each(|(key, value)| {
            set_at_end(member, key, value);
        });
    }
    hand_errbacks(&mut composite.parts, taken.errbacks, budget)
}

/// Hands errbacks to all of `parts`.
fn hand_errbacks(
    parts: &mut [Canvas],
    errbacks: Vec<Signature>,
    budget: &Budget,
) -> Result<(), CanvasError> {
    if errbacks.is_empty() {
        return Ok(());
    }
    let mut distinct: Vec<Value> = Vec::new();
    for errback in errbacks.into_iter().map(Signature::into_value) {
        if !distinct.contains(&errback) {
            distinct.push(errback);
        }
    }
    budget.pay(parts.iter().map(Canvas::error_links).sum(), size_of_list(&distinct))?;
    parts.iter_mut().try_for_each(|part| part.link_errors(&distinct))
}

/// Hands the body of a chord what is meant for it.
fn hand_to_body(header: &mut Composite, body: &mut Canvas) -> Result<(), CanvasError> {
    for callback in options::take_signatures(&mut header.options, options::LINK)? {
        body.link(callback);
    }
    for errback in options::take_signatures(&mut header.options, options::LINK_ERROR)? {
        body.link_error(&errback);
    }
    let rest = options::take_list(&mut header.options, options::CHAIN);
    if !rest.is_empty() {
        follow(body, rest);
    }
    let mut taken = Taken::from(&mut header.options.clone())?;
    for (key, value) in taken.last {
        header.options.remove(key);
        set_at_end(body, key, &value);
    }
    // A delay of a chord is one of its header.
    taken.first.remove("countdown");
    taken.first.remove("eta");
    if !taken.first.is_empty() {
        options::merge(body.options_mut(), &taken.first);
    }
    Ok(())
}
