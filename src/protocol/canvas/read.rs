//! Between trees and the signatures that carry them.

use super::tree::{Canvas, Composite, DEPTH_MAX};
use super::{CanvasError, options};
use crate::protocol::{Error, Limits, Map, Signature, Value, fields};

const CHAIN: &str = "celery.chain";
const GROUP: &str = "celery.group";
const CHORD: &str = "celery.chord";
const CHUNKS: &str = "celery.chunks";

impl Canvas {
    /// Reads a workflow: `celery.chain`, `celery.group`, `celery.chord` and `celery.chunks` with
    /// what is inside of them; everything else is the call of a task.
    ///
    /// # Errors
    /// [`CanvasError`] for parts that are no signatures, types that Celery does not define, and
    /// nesting beyond what readers take, which is refused before anything is read.
    pub fn from_signature(signature: Signature) -> Result<Self, CanvasError> {
        let Signature { args, kwargs, options, .. } = &signature;
        let values = args.iter().chain(values_of(kwargs)).chain(values_of(options));
        if is_too_deep(values.collect()) {
            discard(signature);
            return Err(CanvasError::TooDeep { max: DEPTH_MAX });
        }
        read(signature)
    }

    /// The signature that carries the workflow.
    pub fn into_signature(self) -> Signature {
        match self {
            Self::Task(signature) => signature,
            Self::Chain(chain) => {
                let (tasks, rest) = chain.split();
                composite(CHAIN, "chain", [("tasks", tasks.into())].into(), rest)
            }
            Self::Group(group) => {
                let (tasks, rest) = group.split();
                composite(GROUP, "group", [("tasks", tasks.into())].into(), rest)
            }
            Self::Chord(header, body) => {
                let (tasks, mut rest) = header.split();
                let mut options = Map::new();
                if let Some(id) = rest.options.get(options::TASK_ID) {
                    // Celery looks for the group's id in the header.
                    options.push(options::TASK_ID, id.clone());
                }
                let group = Composite { options, ..Composite::default() };
                let group = composite(GROUP, "group", [("tasks", tasks.into())].into(), group);
                let kwargs = std::mem::take(&mut rest.kwargs);
                let parts = [
                    ("kwargs", Value::Map(kwargs)),
                    ("header", group.into_value()),
                    ("body", body.into_signature().into_value()),
                ];
                composite(CHORD, "chord", parts.into(), rest)
            }
        }
    }
}

impl Composite {
    fn split(mut self) -> (Vec<Value>, Self) {
        let parts = std::mem::take(&mut self.parts).into_iter();
        (parts.map(|part| part.into_signature().into_value()).collect(), self)
    }
}

fn composite(
    task: &'static str,
    subtask_type: &str,
    parts: Vec<(&'static str, Value)>,
    rest: Composite,
) -> Signature {
    let Composite { args, options, immutable, .. } = rest;
    Signature {
        task: task.to_owned(),
        args,
        kwargs: parts.into_iter().collect(),
        options,
        subtask_type: Some(subtask_type.to_owned()),
        immutable,
    }
}

fn read(signature: Signature) -> Result<Canvas, CanvasError> {
    // A workflow's name without its type is what a person writes, who may leave the type out.
    let known = match (&*signature.task, signature.subtask_type.as_deref()) {
        (_, Some("chain")) | (CHAIN, None) => CHAIN,
        (_, Some("group")) | (GROUP, None) => GROUP,
        (_, Some("chord")) | (CHORD, None) => CHORD,
        (_, Some("chunks")) | (CHUNKS, None) => CHUNKS,
        (_, None | Some("xmap" | "xstarmap")) => return Ok(Canvas::Task(signature)),
        (_, Some(other)) => {
            return Err(CanvasError::UnknownType(crate::protocol::error::excerpt(other)));
        }
    };
    let Signature { args, mut kwargs, options, immutable, .. } = signature;
    let mut canvas = match known {
        CHAIN => Canvas::chain(parts(CHAIN, "tasks", kwargs.remove("tasks"))?)?,
        GROUP => Canvas::group(parts(GROUP, "tasks", kwargs.remove("tasks"))?)?,
        CHORD => return read_chord(args, kwargs, options, immutable),
        _ => read_chunks(kwargs)?,
    };
    if let Canvas::Chain(it) | Canvas::Group(it) = &mut canvas {
        it.take_over(Composite { args, options, immutable, ..Composite::default() });
    }
    Ok(canvas)
}

fn read_chord(
    args: Vec<Value>,
    mut kwargs: Map,
    mut options: Map,
    immutable: bool,
) -> Result<Canvas, CanvasError> {
    let header = kwargs.remove("header").unwrap_or_default();
    let body = kwargs.remove("body").filter(|body| !body.is_null()).ok_or(CanvasError::NoBody)?;
    let mut body = part(CHORD, body)?;
    let (parts, id) = match header {
        Value::Map(_) => match part(CHORD, header)? {
            Canvas::Group(group) => {
                let id = options::text(&group.options, options::TASK_ID).map(str::to_owned);
                (group.parts, id)
            }
            single => (vec![single], None),
        },
        list => (parts(CHORD, "header", Some(list))?, None),
    };
    if let Some(id) = id {
        options.insert(options::TASK_ID, id);
    } else if let Some(id) = options.remove(options::TASK_ID).filter(|id| id.as_str().is_some()) {
        // Without a header that has an id, this one is what the caller of the body waits for.
        super::freeze::name_result(&mut body, id.as_str().unwrap_or_default());
    }
    let more = kwargs.remove("kwargs").unwrap_or_default();
    let more = fields::map("kwargs", more).map_err(CanvasError::malformed(CHORD))?;
    let mut chord = Canvas::chord(parts, body)?;
    if let Canvas::Chord(it, _) = &mut chord {
        let beside = Composite { args, options, immutable, kwargs: more, ..Composite::default() };
        it.take_over(beside);
    }
    Ok(chord)
}

/// `{task, it, n}`: a group of starmaps of `n` items each.
fn read_chunks(mut kwargs: Map) -> Result<Canvas, CanvasError> {
    let task = kwargs.remove("task").unwrap_or_default();
    let items = fields::array("it", kwargs.remove("it").unwrap_or_default());
    let items = items.map_err(CanvasError::malformed(CHUNKS))?.unwrap_or_default();
    let size = kwargs.get("n").unwrap_or(&Value::Null);
    let size = fields::integer("n", size).map_err(CanvasError::malformed(CHUNKS))?;
    let size = usize::try_from(size.unwrap_or(0)).unwrap_or(0);
    let task = match part(CHUNKS, task)? {
        Canvas::Task(task) => task,
        _ => return Err(CanvasError::malformed(CHUNKS)(no_task())),
    };
    Canvas::group(chunks(&task, items, size)?)
}

fn no_task() -> Error {
    Error::Field { field: "task", expected: "the signature of a task", found: "a workflow" }
}

/// The members of `celery.chunks`: starmaps of `size` items each.
pub(crate) fn chunks(
    task: &Signature,
    items: Vec<Value>,
    size: usize,
) -> Result<Vec<Canvas>, CanvasError> {
    if size == 0 {
        return Err(CanvasError::EmptyChunks);
    }
    let mut members = Vec::with_capacity(items.len().div_ceil(size));
    let mut items = items.into_iter();
    loop {
        let some: Vec<_> = items.by_ref().take(size).collect();
        if some.is_empty() {
            return Ok(members);
        }
        members.push(Canvas::Task(over_items(Items::Starmap, task.clone(), some)));
    }
}

/// How one task is called with many items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Items {
    /// With each as the only argument.
    Map,
    /// With each as the list of arguments.
    Starmap,
}

impl Items {
    /// Name of the task that does it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Map => "celery.map",
            Self::Starmap => "celery.starmap",
        }
    }

    const fn subtask_type(self) -> &'static str {
        match self {
            Self::Map => "xmap",
            Self::Starmap => "xstarmap",
        }
    }
}

/// A call of `celery.map` or `celery.starmap`: `task` for each of `items`, within one task.
///
/// Called with the options of `task`, since it does that task's work.
pub(crate) fn over_items(how: Items, mut task: Signature, items: Vec<Value>) -> Signature {
    let options = std::mem::take(&mut task.options);
    let mut kwargs = Map::with_capacity(2);
    kwargs.push("task", task.into_value());
    kwargs.push("it", items);
    Signature {
        task: how.name().to_owned(),
        args: Vec::new(),
        kwargs,
        options,
        subtask_type: Some(how.subtask_type().to_owned()),
        immutable: true,
    }
}

fn parts(
    task: &'static str,
    field: &'static str,
    value: Option<Value>,
) -> Result<Vec<Canvas>, CanvasError> {
    let items = fields::array(field, value.unwrap_or_default());
    let items = items.map_err(CanvasError::malformed(task))?;
    items.unwrap_or_default().into_iter().map(|item| part(task, item)).collect()
}

fn part(task: &'static str, value: Value) -> Result<Canvas, CanvasError> {
    Signature::from_value(value).map_err(CanvasError::malformed(task)).and_then(read)
}

fn values_of(map: &Map) -> impl Iterator<Item = &Value> {
    map.iter().map(|(_, value)| value)
}

/// Whether arrays and maps go deeper than any reader takes; looks without recursion.
fn is_too_deep(mut level: Vec<&Value>) -> bool {
    // Level by level: what is one further in is collected while this one is looked at.
    for _ in 0..Limits::DEPTH_MAX {
        let mut next = Vec::new();
        for value in level {
            match value {
                Value::Array(items) => next.extend(items),
                Value::Map(map) => next.extend(values_of(map)),
                _ => {}
            }
        }
        if next.is_empty() {
            return false;
        }
        level = next;
    }
    true
}

/// Drops a signature of any depth without recursion.
fn discard(signature: Signature) {
    let Signature { mut args, kwargs, options, .. } = signature;
    args.extend(kwargs.into_iter().chain(options).map(|(_, value)| value));
    while let Some(value) = args.pop() {
        match value {
            Value::Array(items) => args.extend(items),
            Value::Map(map) => args.extend(map.into_iter().map(|(_, value)| value)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json;

    fn read_text(text: &str) -> Result<Canvas, CanvasError> {
        let value = json::decode(text.as_bytes(), &Limits::default()).unwrap();
        Canvas::from_signature(Signature::from_value(value).unwrap())
    }

    #[test]
    fn bad_workflows_say_what_is_wrong() {
        let rows = [
            (r#"{"task": "celery.chain", "subtask_type": "chain"}"#, "a chain needs at least one"),
            (r#"{"task": "celery.chain", "kwargs": {"tasks": 1}}"#, "malformed celery.chain"),
            (r#"{"task": "celery.group", "kwargs": {"tasks": [1]}}"#, "malformed celery.group"),
            (r#"{"task": "celery.chord", "kwargs": {"header": []}}"#, "a chord needs a body"),
            (
                r#"{"task": "celery.chord", "kwargs": {"header": [], "body": "sum"}}"#,
                "malformed celery.chord",
            ),
            (r#"{"task": "celery.chunks", "kwargs": {"task": {"task": "t"}, "it": []}}"#, "chunks"),
            (r#"{"task": "x", "subtask_type": "tree"}"#, "unknown workflow type 'tree'"),
        ];
        for (text, expected) in rows {
            let error = read_text(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_signature_of_ten_thousand_levels_is_refused_and_dropped_without_overflow() {
        let mut signature = Signature::new("t");
        for _ in 0..10_000 {
            let tasks = Value::Array(vec![signature.into_value()]);
            signature = Signature::new(GROUP);
            signature.kwargs.push("tasks", tasks);
        }
        let error = Canvas::from_signature(signature).unwrap_err();
        assert_eq!(error, CanvasError::TooDeep { max: DEPTH_MAX });
    }

    #[test]
    fn the_deepest_tree_survives_the_wire() {
        let mut canvas = Canvas::Task(Signature::new("t"));
        for _ in 0..DEPTH_MAX {
            canvas = Canvas::group(vec![canvas]).unwrap();
        }
        let mut bytes = Vec::new();
        json::encode(&canvas.clone().into_signature().into_value(), &mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(read_text(&text), Ok(canvas.clone()));
        let error = Canvas::group(vec![canvas]).unwrap_err();
        assert_eq!(error, CanvasError::TooDeep { max: DEPTH_MAX });
    }

    #[test]
    fn chunks_are_a_group_of_starmaps() {
        let text = r#"{"task": "celery.chunks", "subtask_type": "chunks", "immutable": true,
            "kwargs": {"task": {"task": "add"}, "it": [[1, 1], [2, 2], [3, 3]], "n": 2}}"#;
        let Canvas::Group(group) = read_text(text).unwrap() else { panic!("a group") };
        let sizes = group.parts.iter().map(|part| match part {
            Canvas::Task(task) => task.kwargs.get("it").unwrap().as_array().unwrap().len(),
            other => panic!("{other:?}"),
        });
        assert_eq!(sizes.collect::<Vec<_>>(), [2, 1]);
    }
}
