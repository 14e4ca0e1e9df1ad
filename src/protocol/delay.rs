//! Native delayed delivery: delays as routing keys, and the patterns that wait them out. Pure.
//!
//! The delay in whole seconds is written before the routing key, in binary, a word for each digit,
//! the most significant first. Level `n` waits 2ⁿ seconds if its digit is 1, and else passes the
//! message on to level `n - 1`; behind level 0 the message goes where its own key leads.
//!
//! ```text
//! 5 seconds for the queue `celeriac`:   0.0. ... .0.1.0.1.celeriac
//!                                       27        ... 2 1 0   level
//! ```
//!
//! This is the layout of Celery 5.5 and later. Does not know names of queues and exchanges (see
//! `amqp/topology`), nor clocks. **Invariant:** the time that a key waits is never longer than the
//! time asked for.

use std::time::Duration;

use jiff::Timestamp;

/// Levels, and digits before a key.
pub(crate) const LEVELS: u32 = 28;

/// The longest delay of one key, in seconds: 8.5 years. Longer ones are waited for in turns.
pub(crate) const SECONDS_MAX: u32 = (1 << LEVELS) - 1;

/// What is due within this time waits in a worker, for which the delay queues are too coarse.
pub(crate) const HOLD_MAX: Duration = Duration::from_secs(2);

/// The longest routing key of AMQP, in bytes.
const KEY_MAX: usize = 255;
/// The bytes of all digits and the dots behind them.
const PREFIX_LEN: usize = 2 * LEVELS as usize;

/// Whole seconds from `now` until `due`, rounded down, as many as one key can wait.
pub(crate) fn seconds_until(due: Timestamp, now: Timestamp) -> u32 {
    let seconds = due.duration_since(now).as_secs().max(0);
    u32::try_from(seconds).unwrap_or(SECONDS_MAX).min(SECONDS_MAX)
}

/// Whether what is due then is too far away to wait in a worker.
pub(crate) fn is_far(due: Timestamp, now: Timestamp) -> bool {
    due.duration_since(now) > HOLD_MAX.try_into().unwrap_or_default()
}

/// The first level at which something waits for so many seconds: those above it would only pass
/// the message on.
pub(crate) fn first_level(seconds: u32) -> u32 {
    seconds.min(SECONDS_MAX).checked_ilog2().unwrap_or(0)
}

/// The routing key by which a message waits `seconds` and then goes where `key` leads. A delay
/// that `key` has already is replaced.
pub(crate) fn routing_key(seconds: u32, key: &str) -> String {
    let (seconds, key) = (seconds.min(SECONDS_MAX), strip(key));
    let mut delayed = String::with_capacity(PREFIX_LEN + key.len());
    for level in (0..LEVELS).rev() {
        delayed.push_str(if seconds >> level & 1 == 1 { "1." } else { "0." });
    }
    delayed.push_str(key);
    delayed
}

/// The routing key without its delay, if it has one.
pub(crate) fn strip(key: &str) -> &str {
    split(key).map_or(key, |(_, key)| key)
}

/// The seconds that a routing key waits, and the key behind them; `None` for one without a delay.
pub(crate) fn split(key: &str) -> Option<(u32, &str)> {
    let (prefix, rest) = key.split_at_checked(PREFIX_LEN)?;
    let digits = prefix.as_bytes().chunks_exact(2);
    let seconds = digits.into_iter().try_fold(0, |seconds, digit| match digit {
        b"0." => Some(seconds << 1),
        b"1." => Some(seconds << 1 | 1),
        _ => None,
    });
    seconds.map(|seconds| (seconds, rest))
}

/// The pattern of the keys that wait at `level`.
pub(crate) fn waiting_pattern(level: u32) -> String {
    format!("{}1.#", any_words(LEVELS.saturating_sub(level + 1)))
}

/// The pattern of the keys that pass `level` without waiting.
pub(crate) fn passing_pattern(level: u32) -> String {
    format!("{}0.#", any_words(LEVELS.saturating_sub(level + 1)))
}

/// The pattern of all keys, whatever they wait, that then lead to `key`, and to nothing that only
/// ends in it: Celery's own `#.b` takes what is for `a.b` as well.
///
/// `None` if there is no such pattern: `key` is too long with a delay, is empty, or has a word that
/// means any word.
pub(crate) fn arriving_pattern(key: &str) -> Option<String> {
    can_wait_for(key).then(|| format!("{}{key}", any_words(LEVELS)))
}

/// Whether there is a pattern that leads delayed messages to `key` and to nothing else.
pub(crate) fn can_wait_for(key: &str) -> bool {
    let fits = !key.is_empty() && PREFIX_LEN + key.len() <= KEY_MAX;
    fits && key.split('.').all(|word| !matches!(word, "*" | "#"))
}

fn any_words(count: u32) -> String {
    (0..count).map(|_| "*.").collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether a topic exchange takes `key` for `pattern`.
    fn matches(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern, key) {
            ([], []) => true,
            (["#", rest @ ..], key) => {
                (0..=key.len()).any(|taken| matches(rest, key.get(taken..).unwrap_or_default()))
            }
            ([word, pattern @ ..], [first, key @ ..]) if *word == "*" || word == first => {
                matches(pattern, key)
            }
            _ => false,
        }
    }

    fn takes(pattern: &str, key: &str) -> bool {
        let words = |text: &'static str| text.split('.').collect::<Vec<_>>();
        let leak = |text: &str| words(String::from(text).leak());
        matches(&leak(pattern), &leak(key))
    }

    /// How long a message with this key waits in the exchanges and queues of all levels.
    fn waits(key: &str) -> u64 {
        (0..LEVELS)
            .rev()
            .map(|level| {
                let waits = takes(&waiting_pattern(level), key);
                assert_ne!(waits, takes(&passing_pattern(level), key), "one way, not two or none");
                if waits { 1 << level } else { 0 }
            })
            .sum()
    }

    #[test]
    fn a_delay_is_written_as_celery_writes_it() {
        let zeros = "0.".repeat(26);
        assert_eq!(routing_key(3, "celery"), format!("{zeros}1.1.celery"));
        assert_eq!(routing_key(u32::MAX, "q"), format!("{}q", "1.".repeat(28)));
        assert_eq!(waiting_pattern(27), "1.#");
        for (seconds, level) in [(0, 0), (1, 0), (2, 1), (3, 1), (3600, 11), (u32::MAX, 27)] {
            assert_eq!(first_level(seconds), level);
        }
        assert_eq!(passing_pattern(0), format!("{}0.#", "*.".repeat(27)));
    }

    #[test]
    fn only_whole_prefixes_are_delays() {
        for key in
            ["", "celery", "0.1.celery", "é.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0"]
        {
            assert_eq!((split(key), strip(key)), (None, key));
        }
        let almost = routing_key(5, "q").replacen('0', "2", 1);
        assert_eq!(split(&almost), None);
    }

    #[test]
    fn a_queue_gets_its_own_messages_and_no_other_s() {
        let pattern = arriving_pattern("b.c").unwrap();
        assert!(takes(&pattern, &routing_key(5, "b.c")));
        for other in ["a.b.c", "c", "b.c.d", "b"] {
            assert!(!takes(&pattern, &routing_key(5, other)), "{other}");
        }
        for key in ["", "*", "a.#", "a.*.b", &"q".repeat(200)] {
            assert_eq!(arriving_pattern(key), None, "{key}");
        }
        assert!(arriving_pattern(&"q".repeat(199)).is_some());
        assert!(arriving_pattern("a*.b#").is_some(), "they are letters there");
    }

    #[test]
    fn the_worker_holds_what_is_due_within_two_seconds() {
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        for (due, far) in [(-5_000, false), (0, false), (2_000, false), (2_001, true)] {
            assert_eq!(is_far(at(10_000 + due), at(10_000)), far, "{due}");
        }
        assert!(is_far(Timestamp::MAX, Timestamp::MIN));
    }

    proptest! {
        #[test]
        fn a_key_waits_as_many_seconds_as_it_was_made_with(
            seconds in 0..=SECONDS_MAX,
            key in "[a-z0-9]{0,8}(\\.[a-z01]{0,3}){0,4}",
        ) {
            let delayed = routing_key(seconds, &key);
            prop_assert_eq!(split(&delayed), Some((seconds, &*key)));
            prop_assert_eq!(waits(&delayed), u64::from(seconds));
            prop_assert_eq!(routing_key(7, &delayed), routing_key(7, &key), "it is replaced");
        }

        /// However often it is handed on: it is never due before its time, and gets there in turns
        /// of at most one key, with less than a second left to be held.
        #[test]
        fn a_delay_in_turns_is_never_early_and_ends_within_the_time_that_is_held(
            now_ms in 0_i64..4_000_000_000_000,
            ahead_ms in 0_i64..2_000_000_000_000,
            lag_ms in 0_i64..500,
        ) {
            let at = |ms| Timestamp::from_millisecond(ms).unwrap();
            let (mut now_ms, due_ms) = (now_ms, now_ms + ahead_ms);
            let mut turns = 0;
            while is_far(at(due_ms), at(now_ms)) {
                let waited = i64::from(seconds_until(at(due_ms), at(now_ms))) * 1000;
                prop_assert!(waited > 0 && now_ms + waited <= due_ms);
                now_ms += waited + lag_ms;
                turns += 1;
            }
            prop_assert!(turns <= 1 + ahead_ms / (i64::from(SECONDS_MAX) * 1000));
        }
    }
}
