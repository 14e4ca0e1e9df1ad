//! Runs that are told what happens: scripts name what they wait for, not how often.

use super::{Choice, Message, World, Writer};
use crate::protocol::Limits;
use crate::protocol::join::{Entry, Record};

/// What scripts are made of.
impl World {
    pub(in super::super) fn all(&mut self, choices: impl IntoIterator<Item = Choice>) {
        for choice in choices {
            self.apply(choice, None);
        }
    }

    /// Lets the session do everything that takes no time.
    pub(in super::super) fn settle(&mut self) {
        self.repeat(|choice| {
            matches!(choice, Choice::Deliver | Choice::Confirm(_) | Choice::Outcome(_))
        });
    }

    pub(in super::super) fn deliver_all(&mut self) {
        self.repeat(|choice| choice == Choice::Deliver);
    }

    /// Confirms what is unconfirmed by now.
    pub(in super::super) fn confirm_all(&mut self) {
        for publish in self.session.unconfirmed.clone() {
            self.apply(Choice::Confirm(publish), None);
        }
    }

    pub(in super::super) fn confirm_packs(&mut self) {
        for message in self.queue.clone() {
            if let (Record::Pack(_), Writer::Session(id)) = (&*message.record, message.writer) {
                self.apply(Choice::Confirm(id), None);
            }
        }
    }

    /// Lets time pass until nothing is due.
    pub(in super::super) fn wait(&mut self) {
        self.repeat(|choice| {
            use Choice::{Confirm, Deliver, Outcome, Tick};
            matches!(choice, Deliver | Confirm(_) | Outcome(_) | Tick)
        });
    }

    pub(in super::super) fn all_on_disk(&mut self) {
        self.repeat(|choice| matches!(choice, Choice::OnDisk(_)));
    }

    pub(in super::super) fn on_disk(&mut self, name: &str) {
        let at = self.queue.iter().position(|message| message.name() == name).unwrap();
        self.apply(Choice::OnDisk(at), None);
    }

    /// The broker crashes; `is_kept` is asked about each message, and about each `ack <message>`,
    /// that is not on disk.
    pub(in super::super) fn crash_where(&mut self, is_kept: impl Fn(&str) -> bool) {
        let mut bits = Vec::new();
        for message in &self.queue {
            if !message.on_disk {
                bits.push(is_kept(&message.name()));
            }
            if message.acked.is_some() {
                bits.push(is_kept(&format!("ack {}", message.name())));
            }
        }
        let bits = bits.iter().rev().fold(0, |all, bit| all << 1 | u64::from(*bit));
        self.apply(Choice::Crash(bits), None);
    }

    /// Runs to the end without faults; says what went wrong.
    pub(in super::super) fn finish(&mut self) -> Option<String> {
        self.repeat(|_| true);
        self.violation.take().or_else(|| self.at_end())
    }

    fn repeat(&mut self, wanted: impl Fn(Choice) -> bool) {
        const STEPS_MAX: usize = 1000;
        for _ in 0..STEPS_MAX {
            let Some(choice) = self.choices().into_iter().find(|choice| wanted(*choice)) else {
                return;
            };
            self.apply(choice, None);
        }
        self.complain("it never ends".to_owned());
    }
}

impl World {
    /// The queue in one line: `~` is not on disk, `#` the delivery tag, `!` acked.
    pub(in super::super) fn shown(&self) -> String {
        self.queue.iter().map(Message::shown).collect::<Vec<_>>().join(" ")
    }
}

impl Message {
    fn shown(&self) -> String {
        let disk = if self.on_disk { "" } else { "~" };
        let acked = if self.acked.is_some() { "!" } else { "" };
        let tag = self.tag.map(|tag| format!("#{tag}")).unwrap_or_default();
        let entries = match &*self.record {
            Record::Pack(pack) => {
                let entries = pack.entries(&Limits::default()).unwrap_or_default();
                let entry = |entry: &Entry| {
                    format!(" {} {}/{}", entry.kind.as_str(), entry.chord, entry.index)
                };
                format!("[{}]", entries.iter().map(entry).collect::<String>())
            }
            _ => String::new(),
        };
        format!("{disk}{}{entries}{tag}{acked}", self.name())
    }

    fn name(&self) -> String {
        self.record.encode().unwrap().properties.message_id.unwrap_or_default()
    }
}
