//! What a message of a shard looks like that is no record, when it is put with the dead letters.
//!
//! **Invariant:** it can be sent, whatever headers it came with: a message that could not be put
//! away would stop its shard for ever.

use super::shard::Shard;
use crate::amqp::{Publish, topology};
use crate::protocol::{Map, Message, Properties, dead};

/// Addresses `message` to the dead letters, with the reason in its headers, and whether it is an
/// `open` of which nobody was told.
pub(super) fn dead(mut message: Message, (reason, untold): (&str, bool), shard: &Shard) -> Publish {
    const CHARS_MAX: usize = 1024;
    let mut story = Map::new();
    let word = if untold { dead::JOIN_OPEN } else { dead::JOIN_RECORD };
    story.insert(dead::REASON, word);
    story.insert(dead::ERROR, reason.chars().take(CHARS_MAX).collect::<String>());
    story.insert(dead::QUEUE, shard.queue.as_str());
    story.insert(dead::WORKER, shard.crew.info.hostname.as_str());
    story.insert(dead::TIME, jiff::Timestamp::now().to_string());
    tell(&mut message.properties, &story, |properties| shard.connection.carries(properties));
    Publish::new(topology::dead_exchange(), shard.route.as_str(), message)
}

/// Adds `story` to the headers, or as much of both as `fits`: rather the story without the
/// headers than nothing.
fn tell(properties: &mut Properties, story: &Map, fits: impl Fn(&Properties) -> bool) {
    // Nobody may lose it for having been sent carelessly.
    properties.expiration = None;
    properties.user_id = None;
    properties.delivery_mode = Some(Properties::PERSISTENT);
    let own = properties.headers.take().unwrap_or_default();
    let word = story.get(dead::REASON).cloned();
    let (none, brief) = (Map::new(), Map::from_iter([(dead::REASON, word)]));
    for (own, added) in [(&own, story), (&own, &brief), (&none, story), (&none, &brief)] {
        let mut headers = own.clone();
        added.iter().for_each(|(key, value)| headers.insert(key.to_owned(), value.clone()));
        properties.headers = Some(headers);
        if fits(properties) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_leave_no_room_for_the_story_give_way() {
        let weight = |properties: &Properties| {
            let headers = properties.headers.as_ref().unwrap();
            headers.iter().map(|(key, value)| key.len() + value.as_str().unwrap().len()).sum()
        };
        let keys = |own: usize, max: usize| {
            let mut properties = Properties {
                headers: Some(Map::from_iter([("own", "x".repeat(own))])),
                user_id: Some("guest".to_owned()),
                ..Properties::default()
            };
            let story =
                [("dead_reason", dead::JOIN_RECORD.to_owned()), ("dead_error", "y".repeat(100))];
            tell(&mut properties, &Map::from_iter(story), |it| {
                let weight: usize = weight(it);
                weight <= max
            });
            assert_eq!(properties.user_id, None);
            let headers = properties.headers.unwrap();
            headers.iter().map(|(key, _)| key.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(keys(100, 300), ["own", "dead_reason", "dead_error"]);
        assert_eq!(keys(250, 300), ["own", "dead_reason"]);
        assert_eq!(keys(300, 300), ["dead_reason", "dead_error"]);
        assert_eq!(keys(300, 50), ["dead_reason"]);
    }
}
