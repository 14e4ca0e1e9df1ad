//! Decides when children are started, told to stop and killed. Pure: time is an argument, and
//! what is to be done comes back as a list.
//!
//! **Invariant:** of each place, at most one child is starting or running; once a stop was asked
//! for, nothing is started any more.

use std::time::{Duration, Instant};

use super::rules::Rules;

/// How hard children are asked to end. Each is harder than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    /// Finish what runs.
    Warm,
    /// End at once.
    Cold,
    /// They are killed.
    Kill,
}

/// Why a child has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// By itself, or somebody killed it.
    Died,
    /// It wants to be replaced.
    Recycle,
    /// It wants not to be replaced.
    Retire,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Time has passed.
    Tick,
    /// The child of a place was started.
    Started(usize),
    /// It could not be started.
    NotStarted(usize),
    /// It ended, and was waited for.
    Ended(usize, Ended),
    /// It has become too large.
    TooLarge(usize),
    /// All are to stop.
    Stop(Stop),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Start a child in a place; the answer is [`Event::Started`] or [`Event::NotStarted`].
    Start(usize),
    /// Tell the child of a place.
    Tell(usize, Stop),
    /// Nothing yet: the next child of a place is started after this time.
    Wait(usize, Duration),
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Empty { until: Instant },
    Starting,
    Running { since: Instant, recycled: bool },
    Closed,
}

#[derive(Clone, Copy, Debug)]
struct Stopping {
    how: Stop,
    /// When it becomes harder.
    until: Option<Instant>,
}

/// The places of all children.
#[derive(Debug)]
pub(super) struct Machine {
    rules: Rules,
    places: Vec<Place>,
    /// Short lives in a row, by place.
    deaths: Vec<u32>,
    /// Whether any child has lived long enough, or has ended as it wanted.
    has_settled: bool,
    has_given_up: bool,
    stopping: Option<Stopping>,
}

impl Machine {
    pub(super) fn new(places: usize, rules: Rules, now: Instant) -> Self {
        let places = vec![Place::Empty { until: now }; places];
        let deaths = vec![0; places.len()];
        Self { rules, deaths, has_settled: false, has_given_up: false, places, stopping: None }
    }

    /// Whether no child is left, and none will come.
    pub(super) fn is_over(&self) -> bool {
        self.places.iter().all(|place| matches!(place, Place::Closed))
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Whether it stops because no child gets anywhere.
    pub(super) fn has_given_up(&self) -> bool {
        self.has_given_up
    }

    /// When the next [`Event::Tick`] has something to decide.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        let empty = self.places.iter().filter_map(|place| match place {
            Place::Empty { until } => Some(*until),
            Place::Starting | Place::Running { .. } | Place::Closed => None,
        });
        empty.chain(self.stopping.and_then(|stopping| stopping.until)).min()
    }

    pub(super) fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Tick => self.tick(now),
            Event::Started(at) => self.started(at, now),
            Event::NotStarted(at) => self.emptied(at, Ended::Died, Duration::ZERO, now),
            Event::Ended(at, ended) => {
                let Some(&Place::Running { since, recycled }) = self.places.get(at) else {
                    return Vec::new();
                };
                let ended = if recycled && ended == Ended::Died { Ended::Recycle } else { ended };
                self.emptied(at, ended, now.saturating_duration_since(since), now)
            }
            Event::TooLarge(at) => self.too_large(at),
            Event::Stop(how) => self.stop(how, now),
        }
    }

    fn tick(&mut self, now: Instant) -> Vec<Action> {
        if let Some(Stopping { how, until: Some(until) }) = self.stopping
            && until <= now
        {
            let harder = if how == Stop::Warm { Stop::Cold } else { Stop::Kill };
            return self.stop(harder, now);
        }
        let mut actions = Vec::new();
        for (at, place) in self.places.iter_mut().enumerate() {
            if matches!(place, Place::Empty { until } if *until <= now) {
                *place = Place::Starting;
                actions.push(Action::Start(at));
            }
        }
        actions
    }

    fn started(&mut self, at: usize, now: Instant) -> Vec<Action> {
        if let Some(place @ Place::Starting) = self.places.get_mut(at) {
            *place = Place::Running { since: now, recycled: false };
        }
        self.stopping.map(|stopping| Action::Tell(at, stopping.how)).into_iter().collect()
    }

    fn too_large(&mut self, at: usize) -> Vec<Action> {
        match self.places.get_mut(at) {
            Some(Place::Running { recycled, .. }) if !*recycled && self.stopping.is_none() => {
                *recycled = true;
                vec![Action::Tell(at, Stop::Warm)]
            }
            _ => Vec::new(),
        }
    }

    /// The child of a place is gone, after it has lived for so long.
    fn emptied(&mut self, at: usize, ended: Ended, lived: Duration, now: Instant) -> Vec<Action> {
        let (Some(place), Some(deaths)) = (self.places.get_mut(at), self.deaths.get_mut(at)) else {
            return Vec::new();
        };
        self.has_settled |= ended != Ended::Died || lived >= self.rules.settled_after;
        if self.stopping.is_some() || ended == Ended::Retire {
            *place = Place::Closed;
            return Vec::new();
        }
        *deaths = match ended {
            Ended::Died | Ended::Recycle if lived < self.rules.settled_after => {
                deaths.saturating_add(1)
            }
            Ended::Died | Ended::Recycle | Ended::Retire => 0,
        };
        let delay = match ended {
            Ended::Recycle => self.rules.delay_recycled(*deaths),
            Ended::Died | Ended::Retire => self.rules.delay(*deaths),
        };
        if self.is_hopeless(now) {
            self.has_given_up = true;
            if let Some(place) = self.places.get_mut(at) {
                *place = Place::Closed;
            }
            return self.stop(Stop::Warm, now);
        }
        let Some(place) = self.places.get_mut(at) else { return Vec::new() };
        if delay.is_zero() {
            *place = Place::Starting;
            return vec![Action::Start(at)];
        }
        *place = Place::Empty { until: now + delay };
        vec![Action::Wait(at, delay)]
    }

    /// Whether every place had its tries, and no child has ever lived long.
    fn is_hopeless(&self, now: Instant) -> bool {
        let Some(tries) = self.rules.give_up_after else { return false };
        let lives = |place: &Place| match place {
            Place::Running { since, .. } => {
                now.saturating_duration_since(*since) >= self.rules.settled_after
            }
            Place::Empty { .. } | Place::Starting | Place::Closed => false,
        };
        !self.has_settled
            && self.deaths.iter().all(|deaths| *deaths >= tries)
            && !self.places.iter().any(lives)
    }

    fn stop(&mut self, how: Stop, now: Instant) -> Vec<Action> {
        if self.stopping.is_some_and(|stopping| stopping.how >= how) {
            return Vec::new();
        }
        let until = match how {
            Stop::Warm => self.rules.cold_after.and_then(|limit| now.checked_add(limit)),
            Stop::Cold => now.checked_add(self.rules.kill_after),
            Stop::Kill => None,
        };
        self.stopping = Some(Stopping { how, until });
        let mut actions = Vec::new();
        for (at, place) in self.places.iter_mut().enumerate() {
            match place {
                Place::Empty { .. } => *place = Place::Closed,
                Place::Running { .. } => actions.push(Action::Tell(at, how)),
                // It is told when it has started.
                Place::Starting | Place::Closed => {}
            }
        }
        actions
    }
}

#[cfg(test)]
mod tests;
