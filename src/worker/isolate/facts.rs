//! The facts of a call as a map, for its way into a child, and back.

use std::time::Duration;

use jiff::Timestamp;

use crate::protocol::{Map, Serializer, Value};
use crate::task::{DeliveryInfo, Request};

pub(super) fn to_map(request: &Request) -> Map {
    let date = |date: Option<Timestamp>| date.map(|date| date.to_string());
    let seconds = |limit: Option<Duration>| limit.map(|limit| limit.as_secs_f64());
    let delivery = &request.delivery_info;
    let mut map = Map::with_capacity(32);
    map.push("id", request.id.as_str());
    map.push("task", request.task.as_str());
    map.push("shadow", request.shadow.clone());
    map.push("argsrepr", request.argsrepr.as_str());
    map.push("kwargsrepr", request.kwargsrepr.as_str());
    map.push("retries", request.retries);
    map.push("eta", date(request.eta));
    map.push("expires", date(request.expires));
    map.push("time_limit", seconds(request.time_limit));
    map.push("soft_time_limit", seconds(request.soft_time_limit));
    map.push("ignore_result", request.ignore_result);
    map.push("root_id", request.root_id.clone());
    map.push("parent_id", request.parent_id.clone());
    map.push("group", request.group.clone());
    map.push("group_index", request.group_index);
    map.push("replaced_task_nesting", request.replaced_task_nesting);
    map.push("reply_to", request.reply_to.clone());
    map.push("correlation_id", request.correlation_id.clone());
    map.push("serializer", request.serializer.name());
    map.push("origin", request.origin.clone());
    map.push("headers", request.headers.clone());
    map.push("stamps", request.stamps.clone());
    map.push("hostname", request.hostname.as_str());
    map.push("exchange", delivery.exchange.as_str());
    map.push("routing_key", delivery.routing_key.as_str());
    map.push("queue", delivery.queue.as_str());
    map.push("priority", delivery.priority.map(i64::from));
    map.push("redelivered", delivery.redelivered);
    map
}

/// `None` if something is missing that a worker always sends.
pub(super) fn from_map(mut map: Map) -> Option<Request> {
    let mut table = |key| match map.remove(key) {
        Some(Value::Map(table)) => Some(table),
        _ => None,
    };
    let (headers, stamps) = (table("headers")?, table("stamps")?);
    let text = |key| Some(map.get(key)?.as_str()?.to_owned());
    let date = |key| map.get(key)?.as_str()?.parse::<Timestamp>().ok();
    let limit = |key| Duration::try_from_secs_f64(map.get(key)?.as_f64()?).ok();
    let number = |key| map.get(key)?.as_i64();
    let flag = |key| map.get(key)?.as_bool();
    Some(Request {
        id: text("id")?,
        task: text("task")?,
        shadow: text("shadow"),
        argsrepr: text("argsrepr")?,
        kwargsrepr: text("kwargsrepr")?,
        retries: number("retries")?.try_into().ok()?,
        eta: date("eta"),
        expires: date("expires"),
        time_limit: limit("time_limit"),
        soft_time_limit: limit("soft_time_limit"),
        ignore_result: flag("ignore_result")?,
        root_id: text("root_id"),
        parent_id: text("parent_id"),
        group: text("group"),
        group_index: number("group_index"),
        replaced_task_nesting: number("replaced_task_nesting")?,
        reply_to: text("reply_to"),
        correlation_id: text("correlation_id"),
        serializer: Serializer::from_content_type(map.get("serializer")?.as_str()?)?,
        origin: text("origin"),
        headers,
        stamps,
        hostname: text("hostname")?,
        delivery_info: DeliveryInfo {
            exchange: text("exchange")?,
            routing_key: text("routing_key")?,
            queue: text("queue")?,
            priority: number("priority").and_then(|it| it.try_into().ok()),
            redelivered: flag("redelivered")?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_the_same_on_both_sides() {
        let text = |text: &str| Some(text.to_owned());
        let full = Request {
            id: "1".to_owned(),
            task: "t".to_owned(),
            shadow: text("other"),
            argsrepr: "(1,)".to_owned(),
            kwargsrepr: "{}".to_owned(),
            retries: 3,
            eta: Timestamp::from_millisecond(1_700_000_000_123).ok(),
            expires: Timestamp::from_second(1_700_000_999).ok(),
            time_limit: Some(Duration::from_millis(1500)),
            soft_time_limit: Some(Duration::from_secs(1)),
            ignore_result: true,
            root_id: text("root"),
            parent_id: text("parent"),
            group: text("g"),
            group_index: Some(4),
            replaced_task_nesting: 2,
            reply_to: text("caller"),
            correlation_id: text("1"),
            serializer: Serializer::Json,
            origin: text("gen1@host"),
            headers: Map::from_iter([("tenant", "acme")]),
            stamps: Map::from_iter([("stamp", 1)]),
            delivery_info: DeliveryInfo {
                exchange: "e".to_owned(),
                routing_key: "k".to_owned(),
                queue: "q".to_owned(),
                priority: Some(9),
                redelivered: true,
            },
            hostname: "one@box".to_owned(),
        };
        for request in [full, Request::default()] {
            assert_eq!(from_map(to_map(&request)), Some(request));
        }
    }
}
