//! What a call made inside a task inherits from that task, and what the task keeps of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::protocol::join::derived_id;
use crate::protocol::{Map, Value, msgpack};

/// References that a task keeps at most; those of later calls are left out of its result.
const CHILDREN_MAX: usize = 10_000;
/// Different calls whose repetitions are told apart; later ones get random ids.
const CALLS_MAX: usize = 100_000;

/// The task on whose behalf calls are made.
#[derive(Clone, Debug)]
pub(crate) struct Lineage {
    /// The running task; becomes `parent_id` of what it calls.
    pub(crate) task_id: Arc<str>,
    /// The first task of the workflow.
    pub(crate) root_id: Arc<str>,
    /// Priority of the running task's message, inherited by what it calls.
    pub(crate) priority: Option<u8>,
    /// What it has called so far.
    pub(crate) trail: Arc<Trail>,
}

/// The calls of one run of a task.
#[derive(Debug)]
pub(crate) struct Trail {
    /// Where their ids are derived from.
    seed: String,
    steps: Mutex<Steps>,
}

#[derive(Debug, Default)]
struct Steps {
    /// References of the results of what was sent, in Celery's form.
    children: Vec<Value>,
    /// How often each call was made.
    made: HashMap<String, u32>,
}

impl Trail {
    /// The trail of the task's run number `retries`.
    pub(crate) fn new(task_id: &str, retries: u32) -> Self {
        let seed = derived_id(task_id, &format!("run/{retries}"));
        Self { seed, steps: Mutex::default() }
    }

    /// The id of a call: the same for the same call in every run after the same retries, whatever
    /// the order in which calls are made; another one for each repetition of it.
    pub(crate) fn id(&self, task: &str, args: &[Value], kwargs: &Map) -> String {
        self.id_of(task, args.to_vec(), kwargs.clone()).0
    }

    /// The same for large arguments, which come back as they were.
    pub(crate) fn id_of(
        &self,
        task: &str,
        args: Vec<Value>,
        kwargs: Map,
    ) -> (String, Vec<Value>, Map) {
        let whole = Value::Array(vec![task.into(), args.into(), kwargs.into()]);
        let id = self.id_of_call(task, &whole);
        let Value::Array(mut items) = whole else { return (id, Vec::new(), Map::new()) };
        match (items.pop(), items.pop()) {
            (Some(Value::Map(kwargs)), Some(Value::Array(args))) => (id, args, kwargs),
            _ => (id, Vec::new(), Map::new()),
        }
    }

    fn id_of_call(&self, task: &str, whole: &Value) -> String {
        let mut call = Vec::with_capacity(64);
        if msgpack::encode(whole, &mut call).is_err() {
            // What MessagePack has no form for is told apart by its order alone.
            call = task.as_bytes().to_vec();
        }
        let id = derived_bytes(&self.seed, &call);
        let mut steps = self.steps();
        let full = steps.made.len() >= CALLS_MAX;
        match steps.made.get_mut(&id) {
            Some(times) => {
                *times = times.saturating_add(1);
                derived_id(&id, &times.to_string())
            }
            None if full => uuid::Uuid::new_v4().to_string(),
            None => {
                steps.made.insert(id.clone(), 0);
                id
            }
        }
    }

    /// A call was sent, whose result has this reference.
    pub(crate) fn add(&self, reference: Value) {
        let mut steps = self.steps();
        if steps.children.len() < CHILDREN_MAX {
            steps.children.push(reference);
        }
    }

    /// The call of a task was sent.
    pub(crate) fn add_task(&self, task_id: &str) {
        let id = Value::Array(vec![task_id.into(), Value::Null]);
        self.add(Value::Array(vec![id, Value::Null]));
    }

    /// Takes the references.
    pub(crate) fn take(&self) -> Vec<Value> {
        std::mem::take(&mut self.steps().children)
    }

    fn steps(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// UUID version 5 of `name` in the namespace of `seed`, which is a UUID.
fn derived_bytes(seed: &str, name: &[u8]) -> String {
    let namespace = uuid::Uuid::try_parse(seed).unwrap_or_default();
    uuid::Uuid::new_v5(&namespace, name).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(trail: &Trail, numbers: &[i64]) -> Vec<String> {
        numbers.iter().map(|it| trail.id("add", &[Value::Int(*it)], &Map::new())).collect()
    }

    #[test]
    fn the_same_calls_have_the_same_ids_in_another_run_and_another_order() {
        let first = ids(&Trail::new("1", 0), &[1, 2, 1]);
        let again = ids(&Trail::new("1", 0), &[2, 1, 1]);
        assert_eq!([&again[1], &again[0], &again[2]], [&first[0], &first[1], &first[2]]);
        let distinct: std::collections::HashSet<_> = first.iter().collect();
        assert_eq!(distinct.len(), 3);
        assert!(uuid::Uuid::try_parse(&first[0]).is_ok());
    }

    #[test]
    fn a_retry_and_another_task_call_others() {
        let first = ids(&Trail::new("1", 0), &[1]);
        assert_ne!(ids(&Trail::new("1", 1), &[1]), first);
        assert_ne!(ids(&Trail::new("2", 0), &[1]), first);
    }

    #[test]
    fn what_was_sent_is_referred_to_within_bounds() {
        let trail = Trail::new("1", 0);
        (0..CHILDREN_MAX + 5).for_each(|at| trail.add_task(&at.to_string()));
        assert_eq!(trail.take().len(), CHILDREN_MAX);
        assert!(trail.take().is_empty());
    }
}
