//! How long to wait before trying again: doubling up to a cap, with full jitter.
//!
//! ```text
//! attempt     0    1    2    3    4 ...
//! at most     b   2b   4b   8b  16b ...   never above the cap
//! waits       anything from 0 to that, each delay as likely as the other
//! ```
//!
//! Does not sleep and does not count attempts.
//!
//! **Invariant:** no delay is above the cap, for any attempt.

use std::time::Duration;

/// A rule for delays, as Celery's `retry_backoff`, `retry_backoff_max` and `retry_jitter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest first delay.
    pub base: Duration,
    /// The longest delay.
    pub cap: Duration,
    /// Whether delays are drawn at random; without it they are the longest ones.
    pub jitter: bool,
}

impl Default for Backoff {
    /// One second, doubled up to ten minutes, with jitter: Celery's defaults.
    fn default() -> Self {
        Self { base: Duration::from_secs(1), cap: Duration::from_secs(600), jitter: true }
    }
}

impl Backoff {
    /// The delay before attempt `attempt`, counted from 0.
    pub fn delay(&self, attempt: u32) -> Duration {
        self.delay_at(attempt, random_fraction())
    }

    /// The delay for a drawn `fraction` between 0 and 1, which has no effect without jitter.
    ///
    /// ```
    /// use std::time::Duration;
    /// use celeriac::backoff::Backoff;
    ///
    /// let backoff = Backoff::default();
    /// assert_eq!(backoff.delay_at(3, 1.0), Duration::from_secs(8));
    /// assert_eq!(backoff.delay_at(3, 0.25), Duration::from_secs(2));
    /// assert_eq!(backoff.delay_at(99, 1.0), Duration::from_secs(600));
    /// ```
    pub fn delay_at(&self, attempt: u32, fraction: f64) -> Duration {
        let longest = self.delay_max(attempt);
        if !self.jitter || !(0.0..1.0).contains(&fraction) {
            return longest;
        }
        // Rounding may lift a product near the largest duration above it.
        Duration::try_from_secs_f64(longest.as_secs_f64() * fraction)
            .map_or(longest, |delay| delay.min(longest))
    }

    /// The longest delay before attempt `attempt`, counted from 0.
    pub fn delay_max(&self, attempt: u32) -> Duration {
        let factor = 1_u32.checked_shl(attempt).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }
}

/// A random number from 0 up to, but not including, 1.
///
/// It comes from the random bits of a UUID, since ids need that generator anyway.
fn random_fraction() -> f64 {
    const BITS: u32 = 53;
    let (_, low) = uuid::Uuid::new_v4().as_u64_pair();
    // The upper bits of this half hold the variant; the lower 53 are random, and exact in a double.
    let random = low & ((1 << BITS) - 1);
    random as f64 / (1_u64 << BITS) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn any_backoff()(base: Duration, cap: Duration, jitter: bool) -> Backoff {
            Backoff { base, cap, jitter }
        }
    }

    proptest! {
        #[test]
        fn no_delay_is_above_the_cap(
            backoff in any_backoff(),
            attempt: u32,
            fraction in prop::num::f64::ANY,
        ) {
            let delay = backoff.delay_at(attempt, fraction);
            prop_assert!(delay <= backoff.cap);
            prop_assert!(backoff.delay(attempt) <= backoff.cap);
        }

        #[test]
        fn the_longest_delay_never_shrinks(backoff in any_backoff(), attempt in 0_u32..1000) {
            prop_assert!(backoff.delay_max(attempt) <= backoff.delay_max(attempt + 1));
        }

        #[test]
        fn without_jitter_every_delay_is_the_longest(
            backoff in any_backoff(),
            attempt: u32,
            fraction in 0.0..1.0,
        ) {
            let backoff = Backoff { jitter: false, ..backoff };
            prop_assert_eq!(backoff.delay_at(attempt, fraction), backoff.delay_max(attempt));
        }
    }

    #[test]
    fn delays_double_until_the_cap() {
        let seconds: Vec<_> =
            (0..12).map(|attempt| Backoff::default().delay_max(attempt).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
    }

    #[test]
    fn drawn_delays_spread_over_the_whole_range() {
        let backoff = Backoff::default();
        let longest = backoff.delay_max(5);
        let drawn: Vec<_> = (0..1000).map(|_| backoff.delay(5)).collect();
        assert!(drawn.iter().all(|delay| *delay < longest));
        // Each quarter is missed by all draws with a probability of 0.75 to the power of 1000.
        for quarter in 0..4 {
            let range = longest * quarter / 4..longest * (quarter + 1) / 4;
            assert!(drawn.iter().any(|delay| range.contains(delay)), "quarter {quarter}");
        }
    }
}
