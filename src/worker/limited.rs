//! Names of what is limited in the whole fleet: a task, or the key that calls have in common.
//!
//! They are a part of the names of queues, which people read, and which all workers must spell
//! alike. **Invariant:** names are short, and different tasks and keys have different ones.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::intake::Job;
use crate::task::LimitKey;

/// The longest name, in bytes, that is spelled out.
const SPELLED_MAX: usize = 120;

/// Before the names of keys.
const OF_KEY: &str = "key:";

/// The name by which a job is counted: that of its task, or of its key.
pub(super) fn name(job: &Job, key: Option<LimitKey>) -> Cow<'static, str> {
    match key {
        None => of_task(job.task.name),
        Some(key) => of_key(&key.of(&job.args, &job.kwargs, &job.unsettled.request.headers)).into(),
    }
}

fn of_task(task: &'static str) -> Cow<'static, str> {
    if can_be_spelled(task) && !task.starts_with(OF_KEY) {
        return task.into();
    }
    hashed(task).into()
}

fn of_key(key: &str) -> String {
    if can_be_spelled(key) { format!("{OF_KEY}{key}") } else { format!("{OF_KEY}{}", hashed(key)) }
}

fn can_be_spelled(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    // That sign begins a hash.
    (1..=SPELLED_MAX).contains(&text.len()) && !text.starts_with('#') && text.bytes().all(is_plain)
}

fn hashed(text: &str) -> String {
    let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes());
    format!("#{}", URL_SAFE_NO_PAD.encode(hash.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_out_if_they_can_be() {
        assert_eq!(of_task("shop.charge"), "shop.charge");
        assert_eq!(of_key("bank 7/acme"), "key:bank 7/acme");
    }

    #[test]
    fn names_are_short_and_differ() {
        let long = |letter: &str| letter.repeat(10_000);
        let mut names = vec![
            of_task("a").into_owned(),
            of_task("key:a").into_owned(),
            of_task("#a").into_owned(),
            of_task("").into_owned(),
        ];
        let keys = ["a", "key:a", "#a", "", "ä", "a\n", &long("a"), &long("b"), &hashed("a")];
        names.extend(keys.map(of_key));
        assert!(names.iter().all(|name| name.len() < 130), "{names:?}");
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
    }
}
