//! What tasks tell their test, and the gate at which the test holds them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use crate::bundle::within;

/// Shared state of a test's workers.
#[derive(Clone, Debug)]
pub(crate) struct Probe(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    runs: watch::Sender<Vec<String>>,
    gate: Semaphore,
}

impl Default for Probe {
    fn default() -> Self {
        let runs = watch::Sender::new(Vec::new());
        Self(Arc::new(Inner { runs, gate: Semaphore::new(0) }))
    }
}

impl Probe {
    /// A task says that it runs.
    pub(crate) fn record(&self, label: impl Into<String>) {
        self.0.runs.send_modify(|runs| runs.push(label.into()));
    }

    /// What was recorded so far, in order.
    pub(crate) fn runs(&self) -> Vec<String> {
        self.0.runs.borrow().clone()
    }

    /// Takes what was recorded so far, in order.
    pub(crate) fn drain(&self) -> Vec<String> {
        self.0.runs.send_replace(Vec::new())
    }

    /// Waits until this many runs were recorded.
    pub(crate) async fn seen(&self, count: usize) {
        let mut runs = self.0.runs.subscribe();
        let enough = runs.wait_for(|runs| runs.len() >= count);
        let _ = within(enough).await.unwrap();
    }

    /// Waits until each of these was recorded.
    pub(crate) async fn seen_all(&self, labels: &[String]) {
        let mut runs = self.0.runs.subscribe();
        let all = runs.wait_for(|runs| {
            let seen: HashSet<&str> = runs.iter().map(String::as_str).collect();
            labels.iter().all(|label| seen.contains(&**label))
        });
        let _ = within(all).await.unwrap();
    }

    /// Waits until something more is recorded.
    pub(crate) async fn seen_more(&self) {
        let mut runs = self.0.runs.subscribe();
        runs.mark_unchanged();
        runs.changed().await.unwrap();
    }

    /// Lets this many tasks through the gate, now or later.
    pub(crate) fn open(&self, count: usize) {
        self.0.gate.add_permits(count);
    }

    /// Lets all tasks through the gate from now on.
    pub(crate) fn open_for_good(&self) {
        self.0.gate.close();
    }

    /// A task waits at the gate.
    pub(crate) async fn pass(&self) {
        // An error is a gate that is open for good.
        if let Ok(permit) = self.0.gate.acquire().await {
            permit.forget();
        }
    }

    /// How many different labels were recorded, and how many runs beyond the first of each.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let runs = self.runs();
        let mut times: HashMap<&str, usize> = HashMap::new();
        runs.iter().for_each(|label| *times.entry(label).or_default() += 1);
        (times.len(), runs.len() - times.len())
    }
}
