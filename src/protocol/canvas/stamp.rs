//! Stamps: headers that pass through a whole workflow, for monitoring and for revoking.

use super::CanvasError;
use super::options::{self, STAMPED_HEADERS};
use super::tree::{Canvas, Composite};
use crate::protocol::{Map, Signature, Value};

/// Gives stamps, name by name, to the parts of a workflow; what is inside of a part gets them too.
///
/// A closure that takes the signature of a task is a visitor which looks at tasks only. A stamp
/// that a task has already keeps its value, as in Celery.
///
/// ```
/// use celeriac::protocol::canvas::{Canvas, StampingVisitor};
/// use celeriac::protocol::{Map, Signature};
///
/// struct Ids(u32);
///
/// impl StampingVisitor for Ids {
///     fn on_signature(&mut self, _: &Signature) -> Map {
///         self.0 += 1;
///         Map::from_iter([("monitoring_id", self.0)])
///     }
/// }
///
/// let step = |name: &str| Canvas::Task(Signature::new(name));
/// let mut chain = Canvas::chain(vec![step("fetch"), step("store")])?;
/// chain.stamp(&mut Ids(0))?;
/// let [_, Canvas::Task(store)] = &chain.parts()[..] else { panic!("two tasks") };
/// assert_eq!(store.options.get("monitoring_id"), Some(&2.into()));
/// # Ok::<(), celeriac::protocol::canvas::CanvasError>(())
/// ```
pub trait StampingVisitor {
    /// Stamps of a task, of a callback and of an errback.
    fn on_signature(&mut self, signature: &Signature) -> Map;

    /// Stamps of a chain, its callbacks and what is inside of it.
    fn on_chain(&mut self, _chain: &Composite) -> Map {
        Map::new()
    }

    /// Stamps of a group, its callbacks and what is inside of it.
    fn on_group(&mut self, _group: &Composite) -> Map {
        Map::new()
    }

    /// Stamps of a chord's header and what is inside of it.
    fn on_chord_header(&mut self, _header: &Composite) -> Map {
        Map::new()
    }

    /// Stamps of a chord's body, beside those of its header.
    fn on_chord_body(&mut self, _body: &Canvas) -> Map {
        Map::new()
    }

    /// Stamps of a callback, beside those of what its task is in, or of the workflow that it is
    /// called after.
    fn on_callback(&mut self, _callback: &Canvas) -> Map {
        Map::new()
    }

    /// Stamps of an errback, beside those of what its task is in, or of the workflow that it is
    /// called after.
    fn on_errback(&mut self, _errback: &Canvas) -> Map {
        Map::new()
    }
}

impl<F: FnMut(&Signature) -> Map> StampingVisitor for F {
    fn on_signature(&mut self, signature: &Signature) -> Map {
        self(signature)
    }
}

impl Canvas {
    /// Stamps the workflow, its callbacks and its errbacks.
    ///
    /// # Errors
    /// [`CanvasError::Malformed`] for a callback that is no signature.
    pub fn stamp(&mut self, visitor: &mut dyn StampingVisitor) -> Result<(), CanvasError> {
        self.stamp_with(visitor, &Map::new())
    }

    /// Adds `stamps` to every task.
    pub(super) fn add_stamps(&mut self, stamps: &Map) -> Result<(), CanvasError> {
        if stamps.is_empty() {
            return Ok(());
        }
        self.stamp_with(&mut |_: &Signature| Map::new(), stamps)
    }

    fn stamp_with(
        &mut self,
        visitor: &mut dyn StampingVisitor,
        outer: &Map,
    ) -> Result<(), CanvasError> {
        let stamps = match self {
            Self::Task(task) => joined(outer, visitor.on_signature(task)),
            Self::Chain(chain) => joined(outer, visitor.on_chain(chain)),
            Self::Group(group) => joined(outer, visitor.on_group(group)),
            Self::Chord(header, _) => joined(outer, visitor.on_chord_header(header)),
        };
        // As in Celery, callbacks get the stamps of the workflow that they follow, not of the task.
        let around = if matches!(self, Self::Task(_)) { outer } else { &stamps };
        stamp_links(self.options_mut(), visitor, around)?;
        keep(self.options_mut(), &stamps);
        match self {
            Self::Task(_) => {}
            Self::Chain(it) | Self::Group(it) => {
                for part in &mut it.parts {
                    part.stamp_with(visitor, &stamps)?;
                }
            }
            Self::Chord(header, body) => {
                for part in &mut header.parts {
                    part.stamp_with(visitor, &stamps)?;
                }
                let stamps = joined(&stamps, visitor.on_chord_body(body));
                body.stamp_with(visitor, &stamps)?;
            }
        }
        Ok(())
    }
}

fn stamp_links(
    map: &mut Map,
    visitor: &mut dyn StampingVisitor,
    outer: &Map,
) -> Result<(), CanvasError> {
    for key in [options::LINK, options::LINK_ERROR] {
        if !map.contains_key(key) {
            continue;
        }
        let mut stamped = Vec::new();
        for link in options::take_signatures(map, key)? {
            let mut link = Canvas::from_signature(link)?;
            let more = match key {
                options::LINK => visitor.on_callback(&link),
                _ => visitor.on_errback(&link),
            };
            link.stamp_with(visitor, &joined(outer, more))?;
            stamped.push(link.into_signature().into_value());
        }
        map.insert(key, stamped);
    }
    Ok(())
}

/// `more` wins over `outer`.
fn joined(outer: &Map, more: Map) -> Map {
    let mut all = outer.clone();
    for (name, value) in more {
        all.insert(name, value);
    }
    all
}

/// Puts the stamps into options, unless they are there.
fn keep(map: &mut Map, stamps: &Map) {
    if stamps.is_empty() {
        return;
    }
    let mut names = map.get(STAMPED_HEADERS).and_then(Value::as_array).unwrap_or_default().to_vec();
    for (name, value) in stamps.iter() {
        if !map.contains_key(name) {
            map.insert(name.to_owned(), value.clone());
        }
        if !names.iter().any(|it| it.as_str() == Some(name)) {
            names.push(name.into());
        }
    }
    map.insert(STAMPED_HEADERS, names);
}
