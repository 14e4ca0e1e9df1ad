//! What is to follow a task, as its message says: callbacks, errbacks, the rest of a chain, and
//! the chord that waits for its result.
//!
//! Does not publish anything (see `follow` and `downfall`). **Invariant:** a message whose sequel
//! this worker cannot carry out is refused before its task runs.

use super::follow::{chained, group_of};
use crate::protocol::canvas::{self, Call, Canvas, JoinDefaults};
use crate::protocol::join::Link;
use crate::protocol::{CallOptions, Embed, Map, Signature, Value};

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
        let problem = problem.or_else(|| read.foreign_chord.is_some().then(foreign));
        (Some(read).filter(|read| !read.is_empty()).map(Box::new), problem)
    }

    /// Why what comes next can never be sent, as far as that is known before there is a value: it
    /// is no workflow, or too large, or names two of its parts alike. Later steps are looked at by
    /// those before them.
    pub(super) fn unsendable(&self, join: impl Fn() -> JoinDefaults) -> Option<String> {
        let is_composite = |it: &Signature| it.subtask_type.is_some();
        let callbacks = self.callbacks.iter().filter(|it| is_composite(it));
        let callbacks = callbacks.map(|it| (it.clone(), None));
        let next = self.chain.split_last().filter(|(next, _)| is_composite(next));
        let next = next.map(|(next, rest)| (next.clone(), Some(rest.to_vec())));
        let errbacks = self.errbacks.iter().any(is_composite);
        let errbacks = errbacks.then(|| (group_of(self.errbacks.clone()), None));
        let failed = callbacks.chain(next).chain(errbacks).find_map(|(workflow, chain)| {
            let options = CallOptions { chain, ..CallOptions::default() };
            let call = Call { options, join: join(), ..Call::default() };
            Canvas::from_signature(workflow).and_then(|it| canvas::lower(it, call)).err()
        });
        Some(format!("what follows this task cannot be sent: {}", chained(&failed?)))
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

    /// Why nothing with this is run by a worker whose groups have three members at most.
    fn problem(embed: Embed) -> Option<String> {
        let join = || JoinDefaults { max_size: 3, ..JoinDefaults::default() };
        let (sequel, problem) = Sequel::read(embed, &Map::new());
        problem.or_else(|| sequel?.unsendable(join))
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
    fn what_follows_and_is_no_workflow_is_refused() {
        let step = |kind: &str| {
            let subtask_type = Some(kind.to_owned());
            Signature { subtask_type, ..Signature::new("celery.x") }
        };
        let chain = |last: Signature| Some(vec![Signature::new("later"), last]);
        let refused = problem(Embed { chain: chain(step("loop")), ..Embed::default() }).unwrap();
        assert!(refused.contains("unknown workflow type 'loop'"), "{refused}");
        let refused = problem(Embed { chain: chain(step("chord")), ..Embed::default() }).unwrap();
        assert!(refused.contains("body"), "{refused}");
        assert!(problem(Embed { callbacks: chain(step("loop")), ..Embed::default() }).is_some());
        assert!(problem(Embed { errbacks: chain(step("loop")), ..Embed::default() }).is_some());
        let later = Some(vec![step("loop"), Signature::new("next")]);
        assert_eq!(problem(Embed { chain: later, ..Embed::default() }), None);
    }

    #[test]
    fn what_follows_and_is_too_large_or_names_parts_alike_is_refused() {
        let group = |members: &[&str]| {
            let task = |id: &&str| {
                let options = Map::from_iter([("task_id", *id)]);
                Signature { options, ..Signature::new("t") }
            };
            group_of(members.iter().map(task).collect())
        };
        let step = |step: Signature| Embed { chain: Some(vec![step]), ..Embed::default() };
        assert_eq!(problem(step(group(&["a", "b", "c"]))), None);
        let refused = problem(step(group(&["a", "b", "c", "d"]))).unwrap();
        assert!(refused.contains("a group of 4 is larger than the limit of 3"), "{refused}");
        let refused = problem(step(group(&["a", "b", "a"]))).unwrap();
        assert!(refused.contains("the id a occurs twice"), "{refused}");
        let inner = group_of(vec![Signature::new("t"), group(&["a", "b", "c", "d"])]);
        let errbacks = Embed { errbacks: Some(vec![inner]), ..Embed::default() };
        assert!(problem(errbacks).unwrap().contains("a group of 4"));
    }

    #[test]
    fn a_link_that_leads_nowhere_is_refused() {
        let (sequel, problem) = Sequel::read(Embed::default(), &headers(Map::new().into()));
        assert!(sequel.is_none() && problem.unwrap().contains("'id' is missing"));
        assert!(Sequel::of_headers(&linked()).unwrap().link.is_some());
        assert!(Sequel::of_headers(&Map::new()).is_none());
    }
}
