//! The names of the headers that every task message carries.

use std::borrow::Cow;

/// A header's name as a key of a map: the usual ones cost no allocation, and they come nineteen
/// times with every message.
pub(crate) fn key(name: &str) -> Cow<'static, str> {
    usual(name).map_or_else(|| Cow::Owned(name.to_owned()), Cow::Borrowed)
}

fn usual(name: &str) -> Option<&'static str> {
    Some(match name {
        "lang" => "lang",
        "task" => "task",
        "id" => "id",
        "shadow" => "shadow",
        "eta" => "eta",
        "expires" => "expires",
        "group" => "group",
        "group_index" => "group_index",
        "retries" => "retries",
        "timelimit" => "timelimit",
        "root_id" => "root_id",
        "parent_id" => "parent_id",
        "argsrepr" => "argsrepr",
        "kwargsrepr" => "kwargsrepr",
        "origin" => "origin",
        "ignore_result" => "ignore_result",
        "replaced_task_nesting" => "replaced_task_nesting",
        "stamped_headers" => "stamped_headers",
        "stamps" => "stamps",
        "compression" => "compression",
        "x-delivery-count" => "x-delivery-count",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::TaskHeaders;

    #[test]
    fn every_standard_header_is_usual() {
        for (name, _) in TaskHeaders::new("t", "1").encode().iter() {
            assert!(matches!(key(name), Cow::Borrowed(usual) if usual == name), "{name}");
        }
        assert_eq!(key("tenant"), "tenant");
    }
}
