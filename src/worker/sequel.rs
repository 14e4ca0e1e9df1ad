//! What is to follow a task, as its message says: callbacks, errbacks, the rest of a chain, and
//! the chord that waits for its result.
//!
//! Does not publish anything (see `follow` and `downfall`). **Invariant:** a message whose sequel
//! this worker cannot carry out is refused before its task runs.

use super::follow::chained;
use crate::protocol::canvas::Canvas;
use crate::protocol::join::Link;
use crate::protocol::{Embed, Map, Signature, Value};

/// What is to follow a task. Most tasks have none, and then nothing is kept for it.
#[derive(Debug, Default)]
pub(super) struct Sequel {
    /// Called with the result.
    pub(super) callbacks: Vec<Signature>,
    /// Called after a failure.
    pub(super) errbacks: Vec<Signature>,
    /// The rest of the chain, last task first.
    pub(super) chain: Vec<Signature>,
    /// The part of a chord that the task is, or belongs to.
    pub(super) link: Option<Link>,
    /// What the task has added to that chord while it ran.
    pub(super) added: Vec<Signature>,
    /// The body of a chord whose parts are counted in a place that is not ours.
    pub(super) foreign_chord: Option<Box<Signature>>,
}

impl Sequel {
    /// Reads it from a message's body and its own headers; `None` if nothing follows.
    ///
    /// With it may come the reason why the task must not run.
    pub(super) fn read(embed: Embed, headers: &Map) -> (Option<Box<Self>>, Option<String>) {
        let Embed { callbacks, errbacks, chain, chord, .. } = embed;
        let (link, problem) = link(headers);
        let read = Self {
            callbacks: callbacks.unwrap_or_default(),
            errbacks: errbacks.unwrap_or_default(),
            chain: chain.unwrap_or_default(),
            // A part that has both is joined by us; Celery's body is for its own backend.
            foreign_chord: chord.filter(|_| link.is_none()),
            link,
            added: Vec::new(),
        };
        let problem = problem
            .or_else(|| read.foreign_chord.is_some().then(foreign))
            .or_else(|| read.unreadable());
        (Some(read).filter(|read| !read.is_empty()).map(Box::new), problem)
    }

    /// Why what comes next is no workflow, if it is none. Later steps are looked at by those before
    /// them.
    fn unreadable(&self) -> Option<String> {
        let next = self.callbacks.iter().chain(self.chain.last());
        let mut composites = next.filter(|it| it.subtask_type.is_some());
        let failed = composites.find_map(|it| Canvas::from_signature(it.clone()).err())?;
        Some(format!("what follows this task cannot be read: {}", chained(&failed)))
    }

    /// The sequel of a message whose body could not be read.
    pub(super) fn of_headers(headers: &Map) -> Option<Box<Self>> {
        let (link, _) = link(headers);
        link.map(|link| Box::new(Self { link: Some(link), ..Self::default() }))
    }

    fn is_empty(&self) -> bool {
        let Self { callbacks, errbacks, chain, link, foreign_chord, added } = self;
        callbacks.is_empty()
            && errbacks.is_empty()
            && chain.is_empty()
            && link.is_none()
            && foreign_chord.is_none()
            && added.is_empty()
    }
}

/// The link of the headers, or what is wrong with it. A header of that name which is no map is the
/// application's own.
fn link(headers: &Map) -> (Option<Link>, Option<String>) {
    match headers.get(Link::HEADER) {
        Some(value @ Value::Map(_)) => match Link::from_value(value) {
            Ok(link) => (Some(link), None),
            Err(failed) => (None, Some(format!("the link to a chord is malformed: {failed}"))),
        },
        _ => (None, None),
    }
}

fn foreign() -> String {
    "this task is a part of a Celery chord, whose parts are counted in a result backend that \
     celeriac does not use: build the chord with celeriac"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(link: Value) -> Map {
        Map::from_iter([(Link::HEADER, link)])
    }

    fn linked() -> Map {
        let link = Link { chord: "c".into(), route: "join.1".into(), ..Link::default() };
        headers(link.into_value())
    }

    #[test]
    fn most_tasks_have_none() {
        let lasts = Embed { chain: Some(vec![]), callbacks: Some(vec![]), ..Embed::default() };
        for embed in [Embed::default(), lasts] {
            let (sequel, problem) = Sequel::read(embed, &Map::new());
            assert!(sequel.is_none() && problem.is_none());
        }
        let own = headers("of the application".into());
        assert!(matches!(Sequel::read(Embed::default(), &own), (None, None)));
    }

    #[test]
    fn a_chord_of_celery_s_is_refused_and_kept_for_the_report() {
        let chord = || Some(Box::new(Signature::new("body")));
        let embed = || Embed { chord: chord(), ..Embed::default() };
        let (sequel, problem) = Sequel::read(embed(), &Map::new());
        assert_eq!(sequel.unwrap().foreign_chord, chord());
        assert!(problem.unwrap().contains("result backend"));
        let (sequel, problem) = Sequel::read(embed(), &linked());
        let sequel = sequel.unwrap();
        assert!(problem.is_none() && sequel.foreign_chord.is_none() && sequel.link.is_some());
    }

    #[test]
    fn a_next_step_or_callback_that_is_no_workflow_is_refused() {
        let step = |kind: &str| {
            let subtask_type = Some(kind.to_owned());
            Signature { subtask_type, ..Signature::new("celery.x") }
        };
        let problem = |embed: Embed| Sequel::read(embed, &Map::new()).1;
        let chain = |last: Signature| Some(vec![Signature::new("later"), last]);
        let refused = problem(Embed { chain: chain(step("loop")), ..Embed::default() }).unwrap();
        assert!(refused.contains("unknown workflow type 'loop'"), "{refused}");
        let refused = problem(Embed { chain: chain(step("chord")), ..Embed::default() }).unwrap();
        assert!(refused.contains("body"), "{refused}");
        assert!(problem(Embed { callbacks: chain(step("loop")), ..Embed::default() }).is_some());
        let later = Some(vec![step("loop"), Signature::new("next")]);
        assert_eq!(problem(Embed { chain: later, ..Embed::default() }), None);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_refused() {
        let (sequel, problem) = Sequel::read(Embed::default(), &headers(Map::new().into()));
        assert!(sequel.is_none() && problem.unwrap().contains("'id' is missing"));
        assert!(Sequel::of_headers(&linked()).unwrap().link.is_some());
        assert!(Sequel::of_headers(&Map::new()).is_none());
    }
}
