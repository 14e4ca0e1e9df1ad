//! What other workers know of revoked tasks, asked for once at the start, as Celery's workers do
//! ("mingle").
//!
//! Ours find it in the stream of revocations; Python's have it in their memory only. **Invariant:**
//! a start is never held up for longer than [`ASKING_MAX`], and hardly at all if nobody is there.

use std::time::Duration;

use tracing::debug;

use super::running::Crew;
use crate::client::NodeReply;
use crate::protocol::{Map, Value};

/// How long the next reply is waited for.
const TIMEOUT: Duration = Duration::from_millis(250);

/// How long all of it may take: the broker may have blocked us.
const ASKING_MAX: Duration = Duration::from_secs(5);

/// Workers that are listened to, and tasks that each of them may know of.
const REPLIES_MAX: usize = 1000;
const IDS_MAX: usize = 100_000;

/// The ids of the tasks that other workers have revoked.
pub(super) async fn ask(crew: &Crew) -> Vec<String> {
    let control = crew.client.control().timeout(TIMEOUT).limit(REPLIES_MAX);
    let mut arguments = Map::with_capacity(2);
    arguments.push("from_node", crew.info.hostname.as_str());
    arguments.push("revoked", Vec::<Value>::new());
    let asked = tokio::time::timeout(ASKING_MAX, control.command("hello", arguments)).await;
    match asked {
        Ok(Ok(replies)) => {
            let told = |it: &NodeReply| it.value.as_map()?.get("revoked").map(task_ids);
            replies.iter().filter_map(told).flatten().collect()
        }
        Ok(Err(error)) => {
            debug!(%error, "other workers could not be asked what they have revoked");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

/// Ids as Celery's workers write them: a list, or a map with them as keys. Of too many, those that
/// were revoked last.
pub(super) fn task_ids(revoked: &Value) -> Vec<String> {
    match revoked {
        Value::Array(items) => {
            let last = items.iter().skip(items.len().saturating_sub(IDS_MAX));
            last.filter_map(Value::as_str).map(str::to_owned).collect()
        }
        Value::Map(map) => map.iter().map(|(key, _)| key.to_owned()).take(IDS_MAX).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_a_list_or_from_the_keys_of_a_map() {
        let list = Value::Array(vec!["1".into(), Value::Null, 7.into(), "2".into()]);
        assert_eq!(task_ids(&list), ["1", "2"]);
        let dated = Map::from_iter([("1", Value::Array(vec![1.5.into(), "1".into()]))]);
        assert_eq!(task_ids(&Value::Map(dated)), ["1"]);
        assert!(task_ids(&Value::Null).is_empty() && task_ids(&"1".into()).is_empty());
        let many = (0..IDS_MAX + 1).map(|n| Value::from(n.to_string())).collect();
        let many = task_ids(&Value::Array(many));
        assert_eq!((many.len(), many.first().map(String::as_str)), (IDS_MAX, Some("1")));
    }
}
