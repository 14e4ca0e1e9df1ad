//! Commands by their names.

use super::arguments::{Arguments, Fault};
use super::{Bridge, conf, inspect, revoke, stats, steer};
use crate::protocol::Value;
use crate::protocol::control::{Reply, Request};
use crate::protocol::excerpt;

type Answer = Result<Value, Fault>;

/// Carries out a command; `None` for the few that are never answered.
pub(super) async fn run(request: &Request, bridge: &Bridge) -> Option<Value> {
    let arguments = Arguments { method: &request.method, values: &request.arguments };
    if let Some(silent) = silent(&arguments, bridge) {
        return silent;
    }
    let answer: Answer = match look(&arguments, bridge) {
        Some(answer) => answer,
        None => change(&arguments, request, bridge).await,
    };
    Some(answer.unwrap_or_else(Fault::into_value))
}

/// Commands without an answer, or with an empty one.
fn silent(arguments: &Arguments<'_>, bridge: &Bridge) -> Option<Option<Value>> {
    match arguments.method {
        "shutdown" => {
            steer::shutdown(bridge);
            Some(None)
        }
        "election" => {
            steer::election(arguments, bridge);
            Some(None)
        }
        "heartbeat" => {
            bridge.crew.events.answer();
            Some(Some(Value::Null))
        }
        _ => None,
    }
}

/// Commands that change nothing, with the names that they had before.
fn look(arguments: &Arguments<'_>, bridge: &Bridge) -> Option<Answer> {
    Some(match arguments.method {
        "ping" => Ok(Reply::ok("pong")),
        "clock" => inspect::clock(bridge),
        "active" | "dump_active" => inspect::active(bridge),
        "reserved" | "dump_reserved" => inspect::reserved(bridge),
        "scheduled" | "dump_schedule" => inspect::scheduled(bridge),
        "revoked" | "dump_revoked" => inspect::revoked(bridge),
        "registered" | "dump_tasks" => inspect::registered(arguments, bridge),
        "query_task" => inspect::query_task(arguments, bridge),
        "active_queues" => inspect::active_queues(bridge),
        "hello" => inspect::hello(arguments, bridge),
        "stats" => stats::stats(bridge),
        "conf" | "dump_conf" => Ok(conf::conf(bridge)),
        "report" => Ok(Reply::ok(conf::report(bridge))),
        "memsample" => Ok(stats::resident().map_or(Value::Null, Value::from)),
        "memdump" | "objgraph" => Err(Fault::new("not supported: there is no Python heap")),
        _ => return None,
    })
}

async fn change(arguments: &Arguments<'_>, request: &Request, bridge: &Bridge) -> Answer {
    match arguments.method {
        "revoke" => revoke::revoke(arguments, request, bridge),
        "terminate" => revoke::terminate(arguments, request, bridge),
        "revoke_by_stamped_headers" => revoke::by_stamps(arguments, request, bridge),
        "rate_limit" => steer::rate_limit(arguments, bridge),
        "time_limit" => steer::time_limit(arguments, bridge),
        "pool_grow" => steer::pool_grow(arguments, bridge).await,
        "pool_shrink" => steer::pool_shrink(arguments, bridge).await,
        "autoscale" => steer::autoscale(arguments, bridge),
        "pool_restart" => Err(Fault::exception("ValueError", "Pool restarts not enabled")),
        "add_consumer" => steer::add_consumer(arguments, bridge).await,
        "cancel_consumer" => steer::cancel_consumer(arguments, bridge).await,
        "enable_events" => steer::enable_events(arguments, bridge),
        "disable_events" => steer::disable_events(arguments, bridge),
        unknown => Err(Fault::exception("KeyError", &excerpt(unknown))),
    }
}
