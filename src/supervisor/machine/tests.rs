//! The machine among children that start, die, hang and grow at random.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn machine(places: usize) -> (Machine, Instant) {
    let now = Instant::now();
    (Machine::new(places, Rules::default(), now), now)
}

/// One place with a running child.
fn running() -> (Machine, Instant) {
    let (mut machine, now) = machine(1);
    assert_eq!(machine.handle(Event::Tick, now), [Action::Start(0)]);
    assert_eq!(machine.handle(Event::Started(0), now), []);
    (machine, now)
}

#[test]
fn a_child_that_dies_is_replaced_at_once_and_then_ever_later_until_it_lives() {
    let (mut machine, mut now) = running();
    let mut die_after = |lived: Duration, expected: Duration| {
        now += lived;
        let actions = machine.handle(Event::Ended(0, Ended::Died), now);
        if !expected.is_zero() {
            assert_eq!(actions, [Action::Wait(0, expected)]);
            assert_eq!(machine.handle(Event::Tick, now + expected / 2), [], "not yet");
            now += expected;
            assert_eq!(machine.handle(Event::Tick, now), [Action::Start(0)]);
        } else {
            assert_eq!(actions, [Action::Start(0)]);
        }
        machine.handle(Event::Started(0), now);
    };
    die_after(Duration::ZERO, Duration::ZERO);
    for millis in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
        die_after(SECOND, Duration::from_millis(millis));
    }
    die_after(SECOND * 11, Duration::ZERO);
    die_after(Duration::ZERO, Duration::ZERO);
    die_after(Duration::ZERO, Duration::from_millis(500));
}

#[test]
fn a_child_that_wants_to_be_replaced_or_not_gets_its_will() {
    let (mut machine, now) = running();
    let later = now + SECOND * 11;
    for _ in 0..3 {
        let recycled = machine.handle(Event::Ended(0, Ended::Recycle), later);
        assert_eq!(recycled, [Action::Start(0)], "it has lived long enough");
        machine.handle(Event::Started(0), now);
    }
    assert_eq!(machine.handle(Event::TooLarge(0), now), [Action::Tell(0, Stop::Warm)]);
    assert_eq!(machine.handle(Event::TooLarge(0), now), [], "it was told");
    assert_eq!(machine.handle(Event::Ended(0, Ended::Died), now), [Action::Start(0)]);
    machine.handle(Event::Started(0), now);
    assert_eq!(machine.handle(Event::Ended(0, Ended::Retire), now), []);
    assert!(machine.is_over());
}

#[test]
fn a_child_that_wants_to_be_replaced_too_soon_waits_a_little() {
    let (mut machine, mut now) = running();
    for millis in [0, 500, 1000, 2000, 2000, 2000] {
        let delay = Duration::from_millis(millis);
        let actions = machine.handle(Event::Ended(0, Ended::Recycle), now);
        if delay.is_zero() {
            assert_eq!(actions, [Action::Start(0)]);
        } else {
            assert_eq!(actions, [Action::Wait(0, delay)]);
            now += delay;
            assert_eq!(machine.handle(Event::Tick, now), [Action::Start(0)]);
        }
        machine.handle(Event::Started(0), now);
    }
}

#[test]
fn a_stop_becomes_harder_with_time_and_reaches_children_that_are_just_starting() {
    let now = Instant::now();
    let rules = Rules { cold_after: Some(SECOND * 5), kill_after: SECOND, ..Rules::default() };
    let mut machine = Machine::new(2, rules, now);
    machine.handle(Event::Tick, now);
    machine.handle(Event::Started(0), now);
    assert_eq!(machine.handle(Event::Stop(Stop::Warm), now), [Action::Tell(0, Stop::Warm)]);
    assert_eq!(machine.handle(Event::Started(1), now), [Action::Tell(1, Stop::Warm)]);
    assert_eq!(machine.handle(Event::Stop(Stop::Warm), now), [], "once is enough");
    assert_eq!(machine.next_tick(), Some(now + SECOND * 5));
    let both = |how| [Action::Tell(0, how), Action::Tell(1, how)];
    assert_eq!(machine.handle(Event::Tick, now + SECOND * 5), both(Stop::Cold));
    assert_eq!(machine.handle(Event::Ended(1, Ended::Died), now + SECOND * 5), []);
    assert_eq!(machine.handle(Event::Tick, now + SECOND * 6), [Action::Tell(0, Stop::Kill)]);
    machine.handle(Event::Ended(0, Ended::Died), now + SECOND * 6);
    assert!(machine.is_over());
}

#[test]
fn a_limit_beyond_all_time_is_none() {
    let now = Instant::now();
    let (cold_after, kill_after) = (Some(Duration::MAX), Duration::MAX);
    let mut machine = Machine::new(1, Rules { cold_after, kill_after, ..Rules::default() }, now);
    machine.handle(Event::Tick, now);
    machine.handle(Event::Started(0), now);
    for how in [Stop::Warm, Stop::Cold] {
        assert_eq!(machine.handle(Event::Stop(how), now), [Action::Tell(0, how)]);
        assert_eq!(machine.next_tick(), None);
    }
}

#[test]
fn children_that_never_get_anywhere_are_given_up_and_no_others() {
    let rules = Rules { give_up_after: Some(2), ..Rules::default() };
    let hopeless = |first_lives: Duration| {
        let mut now = Instant::now();
        let mut machine = Machine::new(2, rules, now);
        let mut rounds = 0;
        while !machine.is_over() && rounds < 9 {
            now += SECOND * 31;
            machine.handle(Event::Tick, now);
            for at in [0, 1] {
                machine.handle(Event::Started(at), now);
                now += if rounds == 0 { first_lives } else { Duration::ZERO };
                machine.handle(Event::Ended(at, Ended::Died), now);
            }
            rounds += 1;
        }
        (machine.has_given_up(), machine.is_over())
    };
    assert_eq!(hopeless(SECOND), (true, true));
    assert_eq!(hopeless(SECOND * 11), (false, false), "one has worked once");

    let (mut machine, mut now) = running();
    for _ in 0..100 {
        machine.handle(Event::Ended(0, Ended::Died), now);
        now += SECOND * 31;
        machine.handle(Event::Tick, now);
        machine.handle(Event::Started(0), now);
    }
    assert!(!machine.has_given_up(), "nobody has asked for it");
}

/// Children as the system has them.
struct World {
    machine: Machine,
    now: Instant,
    places: usize,
    alive: Vec<bool>,
    /// Those that will end when they are next looked at.
    doomed: Vec<bool>,
    stopped: bool,
}

impl World {
    fn new(places: usize) -> Self {
        let (machine, now) = machine(places);
        let (alive, doomed) = (vec![false; places], vec![false; places]);
        Self { machine, now, places, alive, doomed, stopped: false }
    }

    fn happen(&mut self, event: Event, broken: bool) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.machine.handle(event, self.now) {
                match action {
                    Action::Start(at) => {
                        assert!(!self.stopped, "nothing is started after a stop");
                        assert!(!self.alive[at], "the place is taken");
                        self.alive[at] = !broken;
                        let answer = if broken { Event::NotStarted } else { Event::Started };
                        events.push(answer(at));
                    }
                    Action::Tell(at, how) => {
                        assert!(self.alive[at], "only the living can be told");
                        // Some obey the first word, all must obey the last.
                        self.doomed[at] |= how == Stop::Kill || at % 2 == 0;
                    }
                    Action::Wait(_, delay) => assert!(delay <= SECOND * 30),
                }
            }
        }
        assert!(self.alive.iter().filter(|alive| **alive).count() <= self.places);
    }

    fn end(&mut self, at: usize, ended: Ended, broken: bool) {
        if std::mem::take(&mut self.alive[at]) {
            self.doomed[at] = false;
            self.happen(Event::Ended(at, ended), broken);
        }
    }

    fn bury_the_doomed(&mut self) {
        for at in 0..self.places {
            if self.doomed[at] {
                self.end(at, Ended::Died, false);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_dead_child_is_replaced_while_running_and_every_stop_ends(
        places in 1_usize..5,
        steps in proptest::collection::vec((0_u8..6, 0_usize..5, 0_u64..20_000, 0_u8..4), 0..80),
    ) {
        let mut world = World::new(places);
        for (what, at, millis, luck) in steps {
            let at = at % places;
            world.now += Duration::from_millis(millis);
            match what {
                0 | 1 => world.end(at, Ended::Died, luck == 0),
                2 => world.end(at, Ended::Recycle, luck == 0),
                3 if world.alive[at] => world.happen(Event::TooLarge(at), false),
                4 => world.bury_the_doomed(),
                _ => world.happen(Event::Tick, luck == 0),
            }
        }
        // The longest delay later, every place is taken.
        for _ in 0..2 {
            world.now += SECOND * 31;
            world.happen(Event::Tick, false);
        }
        prop_assert!(world.alive.iter().all(|alive| *alive));

        world.happen(Event::Stop(Stop::Warm), false);
        world.stopped = true;
        world.bury_the_doomed();
        world.happen(Event::Stop(Stop::Cold), false);
        world.now += SECOND * 10;
        world.happen(Event::Tick, false);
        world.bury_the_doomed();
        prop_assert!(world.machine.is_over());
    }
}
