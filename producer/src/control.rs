//! `control`, `inspect` and `revoke`: commands to workers, and what they reply.

use celeriac::client::{Control, ControlError, NodeReply};
use celeriac::protocol::control::{Mark, Matcher, Revocation};
use celeriac::protocol::{Map, Value};
use celeriac::{Client, cli};

use crate::args::Common;
use crate::connect;
use crate::control_args::{
    ControlArgs, ControlCommand, InspectArgs, InspectCommand, MatcherName, RevokeArgs, Target,
};
use crate::exit::{Exit, Failure};
use crate::output::{Output, for_people};

/// `control COMMAND`.
pub(crate) async fn control(common: &Common, args: &ControlArgs) -> Result<Exit, Failure> {
    let config = connect::config(common)?;
    let client = connect::client(&config).await?;
    let control = aimed(&client, &args.target);
    let asked = match &args.command {
        ControlCommand::Shutdown => {
            control.shutdown().await.map_err(|error| failed(&error))?;
            Output::new(common.json).show_to_people(|| "told the workers to shut down".to_owned());
            client.close().await;
            return Ok(Exit::Success);
        }
        ControlCommand::Revoke { ids } => control.revoke(ids, false).await,
        ControlCommand::Terminate { signal, ids } => {
            let marks = ids.iter().cloned().map(Mark::Task);
            let signal = Some(signal.clone());
            let revocation = Revocation { terminate: true, signal, ..Revocation::now(marks) };
            control.revoke_marked(revocation).await
        }
        command => {
            let (method, arguments) = command_of(command);
            control.command(method, arguments).await
        }
    };
    finish(common, &args.target, &client, asked).await
}

/// `inspect COMMAND`.
pub(crate) async fn inspect(common: &Common, args: &InspectArgs) -> Result<Exit, Failure> {
    let config = connect::config(common)?;
    let client = connect::client(&config).await?;
    let control = aimed(&client, &args.target);
    let (method, arguments) = question_of(&args.command);
    let asked = control.command(method, arguments).await;
    finish(common, &args.target, &client, asked).await
}

/// `revoke ID...`.
pub(crate) async fn revoke(common: &Common, args: &RevokeArgs) -> Result<Exit, Failure> {
    let config = connect::config(common)?;
    let client = connect::client(&config).await?;
    if args.chord {
        let cancelled = cancel(&client, &args.ids).await;
        client.close().await;
        cancelled?;
        Output::new(common.json).show_to_people(|| "cancelled".to_owned());
        return Ok(Exit::Success);
    }
    let mark = match (args.root, args.group) {
        (true, _) => Mark::Root,
        (_, true) => Mark::Group,
        (false, false) => Mark::Task,
    };
    let stamp = |(name, value): &(String, String)| Mark::Stamp {
        name: name.clone(),
        value: value.as_str().into(),
    };
    let marks = args.ids.iter().cloned().map(mark).chain(args.stamps.iter().map(stamp));
    let signal = args.signal.clone();
    let revocation = Revocation { terminate: args.terminate, signal, ..Revocation::now(marks) };
    let asked = aimed(&client, &args.target).revoke_marked(revocation).await;
    let is_for_some = !args.target.destination.is_empty() || args.target.pattern.is_some();
    if is_for_some {
        // Nobody keeps it for them: who does not reply has not heard it.
        return finish(common, &args.target, &client, asked).await;
    }
    let replies = asked.map_err(|error| failed(&error))?;
    let exit = show(common, &replies);
    if replies.is_empty() {
        let told = "revoked; no worker has replied, those that start later will know";
        Output::new(common.json).show_to_people(|| told.to_owned());
    }
    client.close().await;
    Ok(exit)
}

/// Cancels chords, unless they have ended.
async fn cancel(client: &Client, chords: &[String]) -> Result<(), Failure> {
    for chord in chords {
        let cancelled = client.cancel_chord(chord, "revoked with celeriac revoke", false).await;
        cancelled.map_err(|error| connect::not_asked(&error))?;
    }
    Ok(())
}

fn aimed(client: &Client, target: &Target) -> Control {
    let control = client.control().to(target.destination.clone()).timeout(target.timeout);
    match (&target.pattern, target.matcher) {
        (Some(pattern), Some(MatcherName::Glob)) => control.matching(Matcher::Glob, pattern),
        (Some(pattern), Some(MatcherName::Pcre)) => control.matching(Matcher::Pcre, pattern),
        _ => control,
    }
}

async fn finish(
    common: &Common,
    target: &Target,
    client: &Client,
    asked: Result<Vec<NodeReply>, ControlError>,
) -> Result<Exit, Failure> {
    let replies = asked.map_err(|error| failed(&error))?;
    let exit = show(common, &replies);
    client.close().await;
    if replies.is_empty() {
        let message = format!("no worker has replied within {:?}", target.timeout);
        return Err(Failure { exit: Exit::Timeout, message });
    }
    Ok(exit)
}

fn failed(error: &ControlError) -> Failure {
    let exit = match error {
        _ if error.is_connection() => Exit::Unreachable,
        ControlError::Arguments { .. } => Exit::Usage,
        _ => Exit::NotSent,
    };
    Failure { exit, message: cli::sentence(error) }
}

/// Shows the replies by the names of the nodes.
fn show(common: &Common, replies: &[NodeReply]) -> Exit {
    let output = Output::new(common.json);
    let mut replies: Vec<&NodeReply> = replies.iter().collect();
    replies.sort_by(|a, b| a.hostname.cmp(&b.hostname));
    let mut exit = Exit::Success;
    for reply in replies {
        if reply.error().is_some() {
            exit = Exit::TaskFailed;
        }
        output.show(
            || text(reply),
            || {
                let mut object = Map::new();
                object.push("hostname", reply.hostname.as_str());
                object.push("reply", reply.value.clone());
                object
            },
        );
    }
    exit
}

/// One line for most; what is a list or a map has one line for each entry.
fn text(reply: &NodeReply) -> String {
    let NodeReply { hostname, value, .. } = reply;
    if let Some(error) = reply.error() {
        return format!("{hostname}: error: {error}");
    }
    let shown = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => for_people(other),
    };
    match (reply.ok(), value) {
        (Some(ok), _) => format!("{hostname}: {}", shown(ok)),
        (None, Value::Array(items)) if items.is_empty() => format!("{hostname}: none"),
        (None, Value::Array(items)) => {
            let lines = items.iter().map(|item| format!("\n  {}", shown(item)));
            format!("{hostname}:{}", lines.collect::<String>())
        }
        (None, Value::Map(map)) if map.is_empty() => format!("{hostname}: none"),
        (None, Value::Map(map)) => {
            let lines = map.iter().map(|(key, value)| format!("\n  {key}: {}", shown(value)));
            format!("{hostname}:{}", lines.collect::<String>())
        }
        (None, other) => format!("{hostname}: {}", shown(other)),
    }
}

fn command_of(command: &ControlCommand) -> (&'static str, Map) {
    let text = |text: &Option<String>| Value::from(text.as_deref());
    let number = |number: u32| Value::from(number);
    let entries = |entries: Vec<(&'static str, Value)>| entries.into_iter().collect::<Map>();
    match command {
        ControlCommand::AddConsumer { queue, exchange, exchange_type, routing_key } => {
            let kind = exchange_type.as_deref().unwrap_or("direct");
            let arguments = vec![
                ("queue", queue.as_str().into()),
                ("exchange", text(exchange)),
                ("exchange_type", kind.into()),
                ("routing_key", text(routing_key)),
            ];
            ("add_consumer", entries(arguments))
        }
        ControlCommand::CancelConsumer { queue } => {
            ("cancel_consumer", entries(vec![("queue", queue.as_str().into())]))
        }
        ControlCommand::Autoscale { max, min } => {
            ("autoscale", entries(vec![("max", number(*max)), ("min", number(*min))]))
        }
        ControlCommand::PoolGrow { n } => ("pool_grow", entries(vec![("n", number(*n))])),
        ControlCommand::PoolShrink { n } => ("pool_shrink", entries(vec![("n", number(*n))])),
        ControlCommand::RateLimit { task_name, rate_limit } => {
            let limit = rate_limit.as_str().into();
            let arguments = vec![("task_name", task_name.as_str().into()), ("rate_limit", limit)];
            ("rate_limit", entries(arguments))
        }
        ControlCommand::TimeLimit { task_name, soft_secs, hard_secs } => {
            let arguments = vec![
                ("task_name", task_name.as_str().into()),
                ("hard", (*hard_secs).into()),
                ("soft", (*soft_secs).into()),
            ];
            ("time_limit", entries(arguments))
        }
        ControlCommand::RevokeByStampedHeaders { stamps } => {
            ("revoke_by_stamped_headers", entries(vec![("headers", list(stamps))]))
        }
        ControlCommand::EnableEvents => ("enable_events", Map::new()),
        ControlCommand::DisableEvents => ("disable_events", Map::new()),
        ControlCommand::Heartbeat => ("heartbeat", Map::new()),
        ControlCommand::PoolRestart => ("pool_restart", Map::new()),
        // These three have a way of their own.
        ControlCommand::Revoke { ids } | ControlCommand::Terminate { ids, .. } => {
            ("revoke", entries(vec![("task_id", list(ids))]))
        }
        ControlCommand::Shutdown => ("shutdown", Map::new()),
    }
}

fn question_of(command: &InspectCommand) -> (&'static str, Map) {
    let none = Map::new();
    match command {
        InspectCommand::Ping => ("ping", none),
        InspectCommand::Active => ("active", Map::from_iter([("safe", Value::Null)])),
        InspectCommand::Reserved => ("reserved", none),
        InspectCommand::Scheduled => ("scheduled", none),
        InspectCommand::Revoked => ("revoked", none),
        InspectCommand::Registered { attributes } => {
            ("registered", Map::from_iter([("taskinfoitems", list(attributes))]))
        }
        InspectCommand::QueryTask { ids } => ("query_task", Map::from_iter([("ids", list(ids))])),
        InspectCommand::ActiveQueues => ("active_queues", none),
        InspectCommand::Stats => ("stats", none),
        InspectCommand::Conf => ("conf", Map::from_iter([("with_defaults", false)])),
        InspectCommand::Report => ("report", none),
        InspectCommand::Clock => ("clock", none),
        InspectCommand::Memsample => ("memsample", none),
    }
}

fn list(items: &[String]) -> Value {
    Value::Array(items.iter().map(|item| Value::from(item.as_str())).collect())
}
