//! Ids and routes of chords: everything that is derived, so that a repetition names the same tasks.
//!
//! Does not make random ids. **Invariant:** the same chord and position give the same id, in every
//! process and every language.

use uuid::Uuid;

/// What every routing key of a join shard begins with.
const ROUTE_PREFIX: &str = "join.";

/// The routing key of the shard to which a chord belongs: `join.<fnv1a64(chord) mod shards>`.
///
/// Only the producer of a chord calls this; everybody else uses the route that messages name, so
/// that the number of shards may change. No shards count as one.
///
/// ```
/// use celeriac::protocol::join;
///
/// assert_eq!(join::route("a", 8), "join.4");
/// ```
pub fn route(chord: &str, shards: u32) -> String {
    let shard = fnv1a64(chord.as_bytes()) % u64::from(shards.max(1));
    format!("{ROUTE_PREFIX}{shard}")
}

/// The routing key of the shard `index`.
pub fn shard_route(index: u32) -> String {
    format!("{ROUTE_PREFIX}{index}")
}

/// Whether `route` is the routing key of a join shard.
pub(super) fn is_route(route: &str) -> bool {
    let shard = route.strip_prefix(ROUTE_PREFIX).unwrap_or_default();
    (1..=10).contains(&shard.len()) && shard.bytes().all(|digit| digit.is_ascii_digit())
}

/// Id of the body's task.
pub fn body_id(chord: &str) -> String {
    derived_id(chord, "body")
}

/// Id of the header's task at `index`.
pub fn header_id(chord: &str, index: u32) -> String {
    derived_id(chord, &format!("h/{index}"))
}

/// Id of the errback at position `at`.
pub fn errback_id(chord: &str, at: usize) -> String {
    derived_id(chord, &format!("errback/{at}"))
}

/// UUID version 5 of `name` in the namespace of `seed`, in lower case with hyphens.
///
/// A seed that is a UUID is the namespace itself; for any other text the namespace is the UUID
/// version 5 of that text in the namespace for object identifiers of RFC 9562.
pub fn derived_id(seed: &str, name: &str) -> String {
    let namespace = Uuid::try_parse(seed)
        .unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, seed.as_bytes()));
    Uuid::new_v5(&namespace, name.as_bytes()).to_string()
}

/// FNV-1a, 64 bits: a few lines in any language, and evenly spread over the shards.
fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        // Test vectors of the FNV authors.
        assert_eq!(fnv1a64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a64(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a64(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn ids_are_what_any_uuid5_gives() {
        // python3: uuid.uuid5(uuid.UUID(chord), name)
        let chord = "0d6ad1c6-4a0c-4d3a-9c5c-0a5c2ab6a2f1";
        assert_eq!(body_id(chord), "6fd8fb3f-78f8-5ebc-bfab-faec50221ab6");
        assert_eq!(header_id(chord, 3), "30e2bac5-f954-57a3-a2b9-28490b92c5b2");
        assert_eq!(errback_id(chord, 0), "6397931a-7bbe-55de-8871-a6f8e0083e9b");
        // python3: uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_OID, "my chord"), "body")
        assert_eq!(body_id("my chord"), "d4808e5b-21b3-5f6b-add5-cead94d8ec5f");
    }

    #[test]
    fn routes_are_known_by_their_form() {
        assert_eq!(route("a", 0), "join.0");
        assert_eq!(shard_route(7), route("any", 1).replace('0', "7"));
        assert!(is_route("join.0") && is_route("join.4294967295"));
        for other in ["", "join.", "join.x", "celeriac.reply.1", "join.1.2", "join.99999999999"] {
            assert!(!is_route(other), "{other}");
        }
    }
}
