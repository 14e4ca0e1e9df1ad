//! Waiting for something to become true, with a deadline.
//!
//! Only for what cannot be waited on as an event: the state of another process, or figures of the
//! management API.

use std::time::{Duration, Instant};

use crate::{Error, Result};

const POLL_EVERY: Duration = Duration::from_millis(50);

/// Asks `probe` until it returns `Some`, and fails with `what` when `within` has passed.
///
/// The probe runs at least twice: a machine that sleeps for long does not make it fail unasked.
pub fn wait_until<T>(
    what: &str,
    within: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        let last_try = Instant::now() >= deadline;
        if let Some(value) = probe() {
            return Ok(value);
        }
        if last_try {
            return Err(Error::new(format!("waited {within:?} in vain until {what}")));
        }
        std::thread::sleep(POLL_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_the_probe_comes_back() {
        let mut calls = 0;
        let value = wait_until("three calls", Duration::from_secs(60), || {
            calls += 1;
            (calls == 3).then_some(calls)
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn the_error_names_what_was_waited_for() {
        let error = wait_until("pigs fly", Duration::ZERO, || None::<()>).unwrap_err();
        assert_eq!(error.to_string(), "waited 0ns in vain until pigs fly");
    }
}
