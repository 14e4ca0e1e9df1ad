//! What a run is about: its chords, its faults, and who is careless.

use super::Adding;
use crate::protocol::join::Mode;
use crate::results::join::JoinSettings;

/// What a run is about.
#[derive(Clone, Debug)]
pub(in super::super) struct Plan {
    /// Number of parts of each chord.
    pub(in super::super) chords: Vec<u32>,
    /// Whether a part runs twice, with another value each time.
    pub(in super::super) twice: Vec<(usize, u32)>,
    /// Parts whose run, given by its number, fails.
    pub(in super::super) failing: Vec<(usize, u32, u32)>,
    /// Runs of parts that add others.
    pub(in super::super) adding: Vec<Adding>,
    /// Chords that somebody revokes.
    pub(in super::super) cancelled: Vec<usize>,
    pub(in super::super) expires_ms: u64,
    /// Where time ends.
    pub(in super::super) horizon_ms: u64,
    pub(in super::super) mode: Mode,
    pub(in super::super) settings: JoinSettings,

    /// Whether the queue is a classic one, whose broker may crash so often.
    pub(in super::super) crashes: u32,
    /// How often the session may die.
    pub(in super::super) kills: u32,
    /// Whether a dead session's publish may arrive late.
    pub(in super::super) late: bool,
    /// One step in so many is a fault, in random runs.
    pub(in super::super) odds: usize,
    /// Whether time may pass while there is something to do.
    pub(in super::super) impatient: bool,
    /// Whether it may until the chords expire.
    pub(in super::super) hasty: bool,
    /// Whether workers ack their task before the record is confirmed.
    pub(in super::super) careless_workers: bool,
    /// Whether parts are sent before the open is confirmed.
    pub(in super::super) careless_producer: bool,
    /// Whether sessions end with a cancel of their consumer, and their channel is closed later.
    pub(in super::super) careless_givers: bool,
    /// Whether workers send added parts after the record that counts them.
    pub(in super::super) careless_adders: bool,
}

/// Where time ends, unless a plan says otherwise.
const HORIZON_MS: u64 = 100_000;

impl Default for Plan {
    fn default() -> Self {
        Self {
            chords: vec![2],
            twice: Vec::new(),
            failing: Vec::new(),
            adding: Vec::new(),
            cancelled: Vec::new(),
            expires_ms: 10 * HORIZON_MS,
            horizon_ms: HORIZON_MS,
            mode: Mode::FailFast,
            settings: settings(),
            crashes: 0,
            kills: 0,
            late: false,
            odds: 25,
            impatient: false,
            hasty: false,
            careless_workers: false,
            careless_producer: false,
            careless_givers: false,
            careless_adders: false,
        }
    }
}

/// Settings under which little suffices for everything to happen.
pub(in super::super) fn settings() -> JoinSettings {
    JoinSettings {
        raws_max: 1,
        refresh_ms: 100 * HORIZON_MS,
        done_batch_ms: 1,
        tomb_ms: 60,
        orphan_grace_ms: 30,
        ..JoinSettings::default()
    }
}

impl Plan {
    pub(in super::super) fn broken(self, rule: crate::results::join::settings::Rule) -> Self {
        let mut settings = self.settings;
        settings.broken.push(rule);
        Self { settings, ..self }
    }
}
