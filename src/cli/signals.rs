//! The signals that stop a worker.

use std::{fmt, io};

/// What somebody asks the process to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Terminate,
    Interrupt,
    /// Stop at once, without a warm shutdown first.
    Quit,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::Quit => "SIGQUIT",
        })
    }
}

/// The variable that gives SIGTERM another meaning, as Celery's workers know it: `SIGQUIT`.
pub(super) const REMAP: &str = "REMAP_SIGTERM";

/// What SIGTERM means.
fn terminate() -> Signal {
    match std::env::var_os(REMAP) {
        Some(signal) if signal == "SIGQUIT" => Signal::Quit,
        Some(signal) if !signal.is_empty() => {
            tracing::warn!("{REMAP} may be SIGQUIT only; {signal:?} is not heeded");
            Signal::Terminate
        }
        Some(_) | None => Signal::Terminate,
    }
}

/// Receives signals from the moment of [`listen`](Signals::listen) on.
#[cfg(unix)]
#[derive(Debug)]
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    terminate_means: Signal,
}

#[cfg(unix)]
impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate_means: terminate(),
        })
    }

    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => self.terminate_means,
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.quit.recv() => Signal::Quit,
        }
    }
}

/// Elsewhere there is only Ctrl-C.
#[cfg(not(unix))]
#[derive(Debug)]
pub(super) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    pub(super) async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Signal::Interrupt
    }
}
