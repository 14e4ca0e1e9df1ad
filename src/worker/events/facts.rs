//! How a worker and its machine are, in the words of heartbeats.

use crate::protocol::event::WorkerFacts;
use crate::worker::running::Crew;

/// What this program is.
pub(super) fn software() -> WorkerFacts {
    WorkerFacts {
        sw_ident: Some(env!("CARGO_PKG_NAME").to_owned()),
        sw_ver: Some(env!("CARGO_PKG_VERSION").to_owned()),
        sw_sys: Some(system().to_owned()),
        ..WorkerFacts::default()
    }
}

/// All that a heartbeat tells; `freq` is the time between two, in seconds.
pub(super) fn all(crew: &Crew, freq: f64) -> WorkerFacts {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    WorkerFacts {
        freq: Some(freq),
        active: Some(count(crew.active.running() as u64)),
        processed: Some(count(crew.tally.total())),
        loadavg: Some(loadavg().unwrap_or_default()),
        ..software()
    }
}

/// The operating system, as Python's `platform.system()` names it.
fn system() -> &'static str {
    match std::env::consts::OS {
        "linux" => "Linux",
        "macos" => "Darwin",
        "windows" => "Windows",
        "freebsd" => "FreeBSD",
        other => other,
    }
}

/// The load of this machine, where `/proc` tells it. Celery sends zeros elsewhere.
fn loadavg() -> Option<[f64; 3]> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let mut numbers = text.split_ascii_whitespace().map(|number| number.parse().ok());
    Some([numbers.next()??, numbers.next()??, numbers.next()??])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_software_is_this_one() {
        let facts = software();
        assert_eq!(facts.sw_ident.as_deref(), Some("celeriac"));
        assert_eq!(facts.sw_ver.as_deref(), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(facts.active, None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_tells_its_load() {
        assert_eq!(system(), "Linux");
        assert!(loadavg().is_some_and(|load| load.iter().all(|it| (0.0..1e6).contains(it))));
    }
}
