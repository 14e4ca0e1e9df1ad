//! What a signal means, given what was asked before. Pure.

use super::signals::Signal;

/// How a worker is asked to stop. Each is harder than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// Finish what runs.
    Warm,
    /// Finish what runs, but not for longer than `worker_soft_shutdown_timeout`.
    Soft,
    /// Give back what runs.
    Cold,
    /// Do not even wait for the connection to close.
    Leave,
}

/// Who reads the signals, and how.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Listener {
    /// Whether a cold stop begins with a soft one.
    pub(super) has_soft: bool,
    /// Whether a parent sends them. It may send one that has come already from elsewhere, as when
    /// a service manager signals all processes of a service; only SIGQUIT says more than that.
    pub(super) is_child: bool,
}

impl Listener {
    /// The next step after a signal; `None` if it says nothing new.
    pub(super) fn next(self, asked: Option<Step>, signal: Signal) -> Option<Step> {
        if signal != Signal::Quit {
            match asked {
                None => return Some(Step::Warm),
                Some(_) if self.is_child => return None,
                Some(_) => {}
            }
        }
        Some(match asked {
            None | Some(Step::Warm) if self.has_soft => Step::Soft,
            None | Some(Step::Warm | Step::Soft) => Step::Cold,
            Some(Step::Cold | Step::Leave) => Step::Leave,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Signal::{Interrupt, Quit, Terminate};
    use Step::{Cold, Leave, Soft, Warm};

    /// All steps after these signals.
    fn steps(listener: Listener, signals: &[Signal]) -> Vec<Step> {
        let mut asked = None;
        let mut steps = Vec::new();
        for signal in signals {
            if let Some(step) = listener.next(asked, *signal) {
                assert!(asked.is_none_or(|asked| asked < step), "never softer");
                asked = Some(step);
                steps.push(step);
            }
        }
        steps
    }

    #[test]
    fn every_signal_asks_harder() {
        let plain = Listener::default();
        assert_eq!(steps(plain, &[Terminate, Interrupt, Terminate]), [Warm, Cold, Leave]);
        assert_eq!(steps(plain, &[Quit, Quit]), [Cold, Leave]);
        assert_eq!(steps(plain, &[Interrupt, Quit]), [Warm, Cold]);
    }

    #[test]
    fn a_cold_stop_begins_softly_if_it_may() {
        let soft = Listener { has_soft: true, ..Listener::default() };
        assert_eq!(steps(soft, &[Quit, Terminate, Interrupt]), [Soft, Cold, Leave]);
        assert_eq!(steps(soft, &[Terminate, Terminate, Quit]), [Warm, Soft, Cold]);
    }

    #[test]
    fn a_child_is_not_hurried_by_a_signal_that_comes_twice() {
        let child = Listener { is_child: true, has_soft: true };
        assert_eq!(steps(child, &[Terminate, Terminate, Interrupt]), [Warm]);
        assert_eq!(
            steps(child, &[Terminate, Quit, Terminate, Quit, Quit]),
            [Warm, Soft, Cold, Leave]
        );
    }
}
