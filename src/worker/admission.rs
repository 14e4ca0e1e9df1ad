//! Whether a request may run now. Pure.

use jiff::Timestamp;

/// The verdict on a request before it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Run it as soon as a slot is free.
    Run,
    /// It is not due yet.
    Delay {
        /// When it is.
        until: Timestamp,
    },
    /// It came too late and must not run.
    Expired,
}

/// Judges by the dates of a request. What expires before it is due never runs.
pub(super) fn admit(
    eta: Option<Timestamp>,
    expires: Option<Timestamp>,
    now: Timestamp,
) -> Admission {
    match (eta, expires) {
        (_, Some(expires)) if expires < now => Admission::Expired,
        (Some(until), _) if until > now => Admission::Delay { until },
        _ => Admission::Run,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_decide() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let check = |eta: Option<i64>, expires: Option<i64>, verdict| {
            assert_eq!(
                admit(eta.map(at), expires.map(at), at(100)),
                verdict,
                "{eta:?} {expires:?}"
            );
        };
        check(None, None, Admission::Run);
        check(Some(100), None, Admission::Run);
        check(Some(101), None, Admission::Delay { until: at(101) });
        check(None, Some(99), Admission::Expired);
        check(None, Some(100), Admission::Run);
        check(Some(200), Some(150), Admission::Delay { until: at(200) });
        check(Some(50), Some(99), Admission::Expired);
    }
}
