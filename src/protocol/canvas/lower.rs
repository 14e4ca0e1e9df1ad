//! Lowering: from a workflow to the messages with which it begins.

use std::time::Duration;

use jiff::Timestamp;

use super::budget::Budget;
use super::errbacks::body_errbacks;
use super::freeze::{Around, complete_links, follow, freeze, prepend, rename_result, set_link};
use super::options::{self, text};
use super::repeated;
use super::tree::{Canvas, Composite};
use super::{CanvasError, Ids, ResultTree};
use crate::protocol::join::{self, Link, Mode, Open, Parent, Place};
use crate::protocol::{CallOptions, Map, Signature, Value};

/// How a workflow is called.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// Arguments of the first tasks, before their own: the result of the step before. What is
    /// immutable does without.
    pub args: Vec<Value>,
    /// Options of this call. `task_id` names the result, `chain` is what follows, `link` and
    /// `link_error` are added; the others win over those of the signature, for the first tasks.
    pub options: CallOptions,
    /// Where ids come from.
    pub ids: Ids,
    /// How chords are joined.
    pub join: JoinDefaults,
    /// The part of a chord that the workflow is to deliver.
    pub link: Option<Link>,
}

/// How chords are joined, unless they say otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinDefaults {
    /// Number of join shards.
    pub shards: u32,
    /// How long a chord may take.
    pub expires: Duration,
    /// When a chord ends.
    pub mode: Mode,
    /// The time of the call.
    pub now: Timestamp,
    /// Members of a group or header, at most.
    pub max_size: u32,
}

impl Default for JoinDefaults {
    /// 8 shards, a day, fail fast, and a million members; from now on.
    fn default() -> Self {
        Self {
            shards: 8,
            expires: Duration::from_secs(24 * 60 * 60),
            mode: Mode::default(),
            now: Timestamp::now(),
            max_size: 1_000_000,
        }
    }
}

/// What is to be published for a workflow.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The joins. All of them are confirmed before any call is published.
    pub opens: Vec<Open>,
    /// Calls of tasks, with all their options.
    pub calls: Vec<Signature>,
    /// What the caller waits for.
    pub result: ResultTree,
    /// The source of ids, to go on with.
    pub ids: Ids,
}

/// Turns a workflow into what is to be published for it.
///
/// ```
/// use celeriac::protocol::{CallOptions, Signature};
/// use celeriac::protocol::canvas::{Call, Canvas, Ids, lower};
///
/// let step = |name: &str| Canvas::Task(Signature::new(name));
/// let chain = Canvas::chain(vec![step("fetch"), step("clean"), step("store")])?;
/// let lowered = lower(chain, Call { ids: Ids::derived("caller"), ..Call::default() })?;
/// assert!(lowered.opens.is_empty());
/// let [first] = &lowered.calls[..] else { panic!("a chain begins with one task") };
/// let options = CallOptions::from_map(first.options.clone())?;
/// let rest: Vec<_> = options.chain.iter().flatten().map(|step| &*step.task).collect();
/// assert_eq!(rest, ["store", "clean"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`CanvasError`] for workflows that cannot be run: too deep, too large, malformed inside, or with
/// an id that occurs twice.
pub fn lower(mut canvas: Canvas, call: Call) -> Result<Lowered, CanvasError> {
    let Call { args, mut options, mut ids, join, link } = call;
    if let Some(id) = options.task_id.take() {
        rename_result(&mut canvas, &id);
    }
    options.stamped_headers = None;
    canvas.add_stamps(&std::mem::take(&mut options.stamps))?;
    let (root, parent) = (options.root_id.take(), options.parent_id.take());
    let carried = options::link("header chord", canvas.options())?;
    // The value of a chord's part goes to the chord only, unless somebody asks for more.
    let is_part = link.is_some() || carried.is_some();
    let reply_to = options.reply_to.take().or_else(|| is_part.then(String::new));
    prepend(&mut canvas, &args, &Map::new());
    match (link, carried) {
        (Some(link), _) => set_link(&mut canvas, &link),
        (None, Some(link)) => complete_links(&mut canvas, &link),
        (None, None) => {}
    }
    if let Some(rest) = options.chain.take() {
        follow(&mut canvas, rest.into_iter().map(Signature::into_value).collect());
    }
    options::merge(canvas.options_mut(), &options.into_map());
    let budget = Budget::default();
    let around = Around { reply_to: reply_to.as_deref(), join: &join, budget: &budget };
    let result = freeze(&mut canvas, &mut ids, around, None)?;
    repeated::check(&canvas)?;
    let (opens, calls) = (Vec::new(), Vec::new());
    let mut emit = Emit { root, parent, join: &join, budget: &budget, opens, calls };
    emit.canvas(canvas)?;
    let Emit { opens, calls, .. } = emit;
    Ok(Lowered { opens, calls, result, ids })
}

/// How long parked values outlive the time of their chord, for a body that has to wait: a week.
const PARKED_LONGER_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// How one chord is joined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) mode: Mode,
    pub(super) expires: Duration,
    pub(super) revoke_rest: bool,
    /// Whether the results of the parts are sent to the caller, too.
    pub(super) header_results: bool,
    /// Above how many bytes values are parked, if ever.
    pub(super) park_above: Option<u64>,
}

impl Settings {
    /// Reads the option `join` of a chord or group: `{mode, expires, revoke_rest, header_results,
    /// park_above}`.
    pub(super) fn of(options: &Map, defaults: &JoinDefaults) -> Self {
        let none = Map::new();
        let map = options.get(options::JOIN).and_then(Value::as_map).unwrap_or(&none);
        let flag = |key| map.get(key).and_then(Value::as_bool).unwrap_or(false);
        let mode = match text(map, "mode") {
            Some("collect") => Mode::Collect,
            Some("fail_fast") => Mode::FailFast,
            _ => defaults.mode,
        };
        let expires = options::seconds(map, "expires");
        let expires = expires.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Self {
            mode,
            expires: expires.unwrap_or(defaults.expires),
            revoke_rest: flag("revoke_rest"),
            header_results: flag("header_results"),
            park_above: map
                .get("park_above")
                .and_then(Value::as_i64)
                .and_then(|it| it.try_into().ok()),
        }
    }
}

/// Collects what is to be published for a frozen tree.
struct Emit<'a> {
    root: Option<String>,
    parent: Option<String>,
    join: &'a JoinDefaults,
    budget: &'a Budget,
    opens: Vec<Open>,
    calls: Vec<Signature>,
}

impl Emit<'_> {
    fn canvas(&mut self, canvas: Canvas) -> Result<(), CanvasError> {
        match canvas {
            Canvas::Task(task) => self.task(task),
            Canvas::Chain(chain) => return self.chain(chain),
            Canvas::Group(group) => match options::link("celery.group", &group.options)? {
                Some(link) => return self.join(group, None, Some(link)),
                None => return self.group(group),
            },
            Canvas::Chord(header, body) => {
                let link = options::link("celery.chord", &header.options)?;
                return self.join(header, Some(*body), link);
            }
        }
        Ok(())
    }

    fn task(&mut self, mut task: Signature) {
        if let Some(root) = &self.root {
            task.options.insert(options::ROOT_ID, &**root);
        }
        if let Some(parent) = &self.parent {
            task.options.insert(options::PARENT_ID, &**parent);
        }
        self.calls.push(task);
    }

    /// The first step, with the rest in its options.
    fn chain(&mut self, chain: Composite) -> Result<(), CanvasError> {
        let mut steps = chain.parts.into_iter();
        let Some(mut first) = steps.next() else { return Err(CanvasError::EmptyChain) };
        let rest: Vec<_> = steps.rev().map(|step| step.into_signature().into_value()).collect();
        if !rest.is_empty() {
            follow(&mut first, rest);
        }
        self.canvas(first)
    }

    fn group(&mut self, group: Composite) -> Result<(), CanvasError> {
        let id = text(&group.options, options::TASK_ID).unwrap_or_default().to_owned();
        for mut member in group.parts {
            enter_group(&mut member, &id);
            self.canvas(member)?;
        }
        Ok(())
    }

    /// A chord, or a group whose list is the part of a chord.
    fn join(
        &mut self,
        header: Composite,
        body: Option<Canvas>,
        link: Option<Link>,
    ) -> Result<(), CanvasError> {
        let chord = text(&header.options, options::TASK_ID).unwrap_or_default().to_owned();
        let body = match (body, header.parts.is_empty()) {
            (Some(mut body), true) => {
                prepend(&mut body, &[Value::Array(Vec::new())], &Map::new());
                // Hands the argument down; the ids are there already.
                let around = Around { reply_to: None, join: self.join, budget: self.budget };
                freeze(&mut body, &mut Ids::derived(&*chord), around, None)?;
                enter_group(&mut body, &chord);
                return self.canvas(body);
            }
            (None, true) => {
                self.empty_part(&header);
                return Ok(());
            }
            (body, false) => body,
        };
        let route = join::route(&chord, self.join.shards);
        let root = self.root.clone().or_else(|| header.parts.first().and_then(first_id));
        let mut stack = Vec::new();
        if let Some(outer) = &link {
            stack.extend(outer.stack.iter().cloned());
            stack.push(outer.chord.clone());
            repeated::check_stack(&chord, &stack)?;
        }
        let size = u32::try_from(header.parts.len()).unwrap_or(u32::MAX);
        let settings = Settings::of(&header.options, self.join);
        let index = Place::default();
        let park_above = settings.park_above.filter(|_| can_park(&chord, body.as_ref()));
        let settings = Settings { park_above, ..settings };
        let chord_id = chord.clone();
        let part = Link { chord: chord_id, route, index, is_final: true, stack, root, park_above };
        let open = open(&part, size, body, link, settings, self.join.now);
        if open.errbacks.len() > join::ERRBACKS_MAX {
            let (size, max) = (open.errbacks.len(), join::ERRBACKS_MAX);
            return Err(CanvasError::TooLarge { what: "list of errbacks", size, max });
        }
        self.opens.push(open);
        for (index, mut member) in (0_u32..).zip(header.parts) {
            enter_group(&mut member, &chord);
            set_link(&mut member, &Link { index: index.into(), ..part.clone() });
            self.canvas(member)?;
        }
        Ok(())
    }

    /// Nothing to wait for: a task of Celery's own that returns `[]` delivers the part.
    fn empty_part(&mut self, group: &Composite) {
        let mut task = Signature { immutable: true, ..Signature::new("celery.accumulate") };
        task.options = group.options.clone();
        task.options.remove(options::JOIN);
        options::set_if_absent(&mut task.options, options::REPLY_TO, "");
        self.task(task);
    }
}

fn open(
    part: &Link,
    size: u32,
    body: Option<Canvas>,
    outer: Option<Link>,
    settings: Settings,
    now: Timestamp,
) -> Open {
    let errbacks = body.as_ref().map(body_errbacks).unwrap_or_default();
    let reply_to = body.as_ref().and_then(reply_to);
    let body = body.map(|mut body| {
        enter_group(&mut body, &part.chord);
        body.into_signature()
    });
    let created_ms = u64::try_from(now.as_millisecond()).unwrap_or(0);
    let expires_ms = u64::try_from(settings.expires.as_millis()).unwrap_or(u64::MAX);
    Open {
        chord: part.chord.clone(),
        route: part.route.clone(),
        size,
        mode: settings.mode,
        body,
        errbacks,
        parent: outer.map(|it| Parent { route: it.route, chord: it.chord, index: it.index }),
        reply_to,
        root: part.root.clone(),
        stack: part.stack.clone(),
        created_ms,
        // Times beyond what the format can write are as good as its last.
        expires_ms: created_ms.saturating_add(expires_ms).min(i64::MAX as u64),
        revoke_rest: settings.revoke_rest,
        park_ms: settings.park_above.map(|_| expires_ms.saturating_add(PARKED_LONGER_MS)),
    }
}

/// Whether values can be parked: the body begins with one task that takes the list, because only
/// who runs that gathers them.
fn can_park(chord: &str, body: Option<&Canvas>) -> bool {
    /// With what is before it, the name of a queue.
    const CHORD_MAX: usize = 200;
    let begins = |mut canvas: &Canvas| {
        while let Canvas::Chain(chain) = canvas {
            match chain.parts.first() {
                Some(first) => canvas = first,
                None => return false,
            }
        }
        matches!(canvas, Canvas::Task(task) if !task.immutable)
    };
    chord.len() <= CHORD_MAX && body.is_some_and(begins)
}

/// Where the caller of `canvas` waits.
fn reply_to(canvas: &Canvas) -> Option<String> {
    match canvas {
        Canvas::Task(task) => text(&task.options, options::REPLY_TO)
            .filter(|reply_to| !reply_to.is_empty())
            .map(str::to_owned),
        Canvas::Chain(it) | Canvas::Group(it) => it.parts.last().and_then(reply_to),
        Canvas::Chord(_, body) => reply_to(body),
    }
}

/// The task with which `canvas` begins.
fn first_id(canvas: &Canvas) -> Option<String> {
    match canvas {
        Canvas::Task(task) => text(&task.options, options::TASK_ID).map(str::to_owned),
        Canvas::Chain(it) | Canvas::Group(it) | Canvas::Chord(it, _) => {
            it.parts.first().and_then(first_id)
        }
    }
}

/// Says of which group the task that ends `canvas` is.
fn enter_group(canvas: &mut Canvas, id: &str) {
    match canvas {
        Canvas::Task(task) => options::set_if_absent(&mut task.options, options::GROUP_ID, id),
        Canvas::Chain(chain) => {
            if let Some(last) = chain.parts.last_mut() {
                enter_group(last, id);
            }
        }
        Canvas::Chord(_, body) => enter_group(body, id),
        Canvas::Group(_) => {}
    }
}
