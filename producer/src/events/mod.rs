//! `events`: what workers and clients tell, as it happens.
//!
//! Does not keep a picture of the fleet. **Invariant:** what is remembered is bounded, and a reader
//! of the output that goes away ends it.

pub(crate) mod args;
mod filter;
mod line;

use std::io::{self, Write};

use celeriac::Client;
use celeriac::client::Events;
use celeriac::protocol::Value;
use celeriac::protocol::event::Event;
use tracing::warn;

use crate::args::Common;
use crate::connect;
use crate::exit::{Exit, Failure};
use crate::output::to_json;
use args::EventsArgs;
use filter::{Filter, Names};

/// Shows events until it is interrupted, or has shown as many as were wanted.
pub(crate) async fn run(common: &Common, args: &EventsArgs) -> Result<Exit, Failure> {
    let config = connect::config(common)?;
    let client = connect::client(&config).await?;
    let listening = client.events().await;
    let mut events = listening.map_err(|error| Failure::new(Exit::NotSent, &error))?;
    if args.enable {
        enable(&client).await;
    }
    let shown = tokio::select! {
        // Whoever looks at events ends that in this way.
        _ = tokio::signal::ctrl_c() => Ok(Exit::Success),
        shown = show(&mut events, common.json, args) => shown,
    };
    client.close().await;
    shown
}

/// Asks the workers that run now for the events of tasks.
async fn enable(client: &Client) {
    if let Err(error) = client.control().cast("enable_events", Default::default()).await {
        warn!(%error, "workers could not be asked for the events of tasks");
    }
}

async fn show(events: &mut Events, json: bool, args: &EventsArgs) -> Result<Exit, Failure> {
    let (filter, mut names) = (Filter::new(args), Names::default());
    let mut left = args.limit;
    while left != Some(0) {
        let Some(event) = events.next().await else {
            let message = "the connection to the broker was lost".to_owned();
            return Err(Failure { exit: Exit::Unreachable, message });
        };
        names.remember(&event);
        if !filter.wants(&event, &names) {
            continue;
        }
        if !write(event, json, &names) {
            // Who has read the output has gone.
            return Ok(Exit::Success);
        }
        left = left.map(|left| left - 1);
    }
    Ok(Exit::Success)
}

/// False if nobody reads it.
fn write(event: Event, json: bool, names: &Names) -> bool {
    let line = match json {
        true => to_json(&Value::Map(event.into_map())),
        false => line::of(&event, names),
    };
    writeln!(io::stdout().lock(), "{line}").is_ok()
}
