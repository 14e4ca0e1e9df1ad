//! A model of one chord whose values are parked: every order of what its parts, its joiner and its
//! bodies do, with deaths between any two steps.
//!
//! What is modelled is the life of the values, not the log: a part's first record counts, and a
//! joiner that dies before its `done` calls the body again. **Checked:** every report of the body
//! has the values that the log has chosen; at the end there is a report, and no queue is left.

use std::collections::{BTreeSet, HashSet};

const PARTS: usize = 2;

/// A rule without which values are lost, or left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// A value is parked before its record.
    ParkFirst,
    /// Only who opens the chord declares the queue.
    OpenerDeclares,
    /// Who gathers puts everything back.
    PutBack,
    /// The end of the body is published before its values are deleted.
    ReportFirst,
    /// That it has ended is written down.
    WriteEnd,
    /// That is done before the values are deleted.
    EndFirst,
    /// Values are deleted before the body's message is acked.
    DeleteBeforeAck,
}

/// What a worker or joiner has done of its steps, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Step {
    Park,
    Record,
    Gather,
    Report,
    End,
    Delete,
    Ack,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Part {
    run: u8,
    steps: usize,
    is_acked: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Body {
    steps: usize,
    is_acked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    parts: [Part; PARTS],
    /// By part, the run whose record was first.
    chosen: [Option<u8>; PARTS],
    /// The queue of the chord, if it exists.
    queue: Option<BTreeSet<(usize, u8)>>,
    has_end: bool,
    bodies: Vec<Body>,
    is_fired: bool,
    is_done: bool,
    reports: u8,
    kills: u8,
    wrong: Option<&'static str>,
}

fn part_steps(broken: Option<Rule>) -> [Step; 3] {
    match broken {
        Some(Rule::ParkFirst) => [Step::Record, Step::Park, Step::Ack],
        _ => [Step::Park, Step::Record, Step::Ack],
    }
}

fn body_steps(broken: Option<Rule>) -> [Step; 5] {
    use Step::{Ack, Delete, End, Gather, Report};
    match broken {
        Some(Rule::ReportFirst) => [Gather, End, Delete, Report, Ack],
        Some(Rule::EndFirst) => [Gather, Report, Delete, End, Ack],
        Some(Rule::DeleteBeforeAck) => [Gather, Report, End, Ack, Delete],
        _ => [Gather, Report, End, Delete, Ack],
    }
}

impl World {
    fn new(kills: u8) -> Self {
        Self {
            parts: Default::default(),
            chosen: [None; PARTS],
            queue: Some(BTreeSet::new()),
            has_end: false,
            bodies: Vec::new(),
            is_fired: false,
            is_done: false,
            reports: 0,
            kills,
            wrong: None,
        }
    }

    fn part_goes_on(mut self, at: usize, broken: Option<Rule>) -> Self {
        let Part { run, steps, .. } = self.parts[at];
        self.parts[at].steps += 1;
        match part_steps(broken)[steps] {
            Step::Park => {
                if broken == Some(Rule::OpenerDeclares) {
                    self.queue.get_or_insert_default();
                }
                match &mut self.queue {
                    Some(values) => drop(values.insert((at, run))),
                    // The record of the part says that it has failed.
                    None if self.chosen[at].is_none() => self.wrong = Some("a part has failed"),
                    None => self.parts[at].is_acked = true,
                }
            }
            Step::Record => drop(self.chosen[at].get_or_insert(run)),
            _ => self.parts[at].is_acked = true,
        }
        self
    }

    fn body_goes_on(mut self, at: usize, broken: Option<Rule>) -> Self {
        let steps = body_steps(broken);
        let step = steps[self.bodies[at].steps];
        self.bodies[at].steps += 1;
        match step {
            Step::Gather => match &mut self.queue {
                Some(values) => {
                    let wanted = (0..PARTS).all(|part| {
                        self.chosen[part].is_some_and(|run| values.contains(&(part, run)))
                    });
                    if !wanted {
                        self.wrong = Some("a value is missing");
                    }
                    if broken == Some(Rule::PutBack) {
                        values.clear();
                    }
                }
                None if self.has_end => self.bodies[at].is_acked = true,
                None => self.wrong = Some("a body has found nothing"),
            },
            Step::Report => self.reports = self.reports.saturating_add(1).min(2),
            Step::End => self.has_end = broken != Some(Rule::WriteEnd),
            Step::Delete => self.queue = None,
            _ => self.bodies[at].is_acked = true,
        }
        // Who is acked and still has something to do may do it, until it dies.
        self
    }

    /// All that can happen next.
    fn nexts(&self, broken: Option<Rule>) -> Vec<Self> {
        let mut nexts = Vec::new();
        for at in 0..PARTS {
            if !self.parts[at].is_acked {
                nexts.push(self.clone().part_goes_on(at, broken));
            }
        }
        let is_complete = self.chosen.iter().all(Option::is_some);
        if is_complete && !self.is_fired {
            let mut fired = Self { is_fired: true, ..self.clone() };
            fired.bodies.push(Body::default());
            nexts.push(fired);
        }
        if self.is_fired && !self.is_done {
            nexts.push(Self { is_done: true, ..self.clone() });
        }
        let last = body_steps(broken).len();
        for (at, body) in self.bodies.iter().enumerate() {
            let was_cut_short = body.is_acked && body.steps == 1;
            if body.steps < last && !was_cut_short {
                nexts.push(self.clone().body_goes_on(at, broken));
            }
        }
        nexts.extend(self.deaths());
        nexts
    }

    fn deaths(&self) -> Vec<Self> {
        let mut deaths = Vec::new();
        if self.kills == 0 {
            return deaths;
        }
        let left = || Self { kills: self.kills - 1, ..self.clone() };
        for at in 0..PARTS {
            // One that has begun nothing may be acked all the same, and the ack be lost.
            let mut world = left();
            if self.parts[at].steps > 0 {
                world.parts[at] = Part { run: self.parts[at].run + 1, ..Part::default() };
                deaths.push(world);
            }
        }
        if self.is_fired && !self.is_done {
            deaths.push(Self { is_fired: false, ..left() });
        }
        for (at, body) in self.bodies.iter().enumerate() {
            let mut world = left();
            if body.steps > 0 && !body.is_acked {
                world.bodies[at] = Body::default();
                deaths.push(world);
            } else if body.is_acked {
                // What it had still to do is not done.
                world.bodies[at].steps = body_steps(None).len();
                deaths.push(world);
            }
        }
        deaths
    }

    fn at_end(&self) -> Option<&'static str> {
        if self.reports == 0 {
            return Some("nobody was told");
        }
        self.queue.as_ref().map(|_| "the queue is left")
    }
}

/// Visits every state; the first thing that is wrong, and how many states there are.
fn explore(kills: u8, broken: Option<Rule>) -> (Option<&'static str>, usize) {
    let (mut seen, mut stack) = (HashSet::new(), vec![World::new(kills)]);
    while let Some(world) = stack.pop() {
        if world.wrong.is_some() {
            return (world.wrong, seen.len());
        }
        if !seen.insert(world.clone()) {
            continue;
        }
        let nexts = world.nexts(broken);
        // Deaths are not bound to happen.
        if nexts.len() == world.deaths().len()
            && let Some(wrong) = world.at_end()
        {
            return (Some(wrong), seen.len());
        }
        stack.extend(nexts);
    }
    (None, seen.len())
}

#[test]
fn a_body_gets_the_chosen_values_and_nothing_is_left_whoever_dies() {
    let (wrong, states) = explore(3, None);
    assert_eq!(wrong, None);
    assert!(states > 1000, "{states}");
}

#[test]
fn each_rule_about_parked_values_is_needed() {
    let rows = [
        (Rule::ParkFirst, "a value is missing"),
        (Rule::OpenerDeclares, "the queue is left"),
        (Rule::PutBack, "a value is missing"),
        (Rule::ReportFirst, "nobody was told"),
        (Rule::WriteEnd, "a body has found nothing"),
        (Rule::EndFirst, "a body has found nothing"),
        (Rule::DeleteBeforeAck, "the queue is left"),
    ];
    for (rule, expected) in rows {
        assert_eq!(explore(2, Some(rule)).0, Some(expected), "{rule:?}");
    }
}
