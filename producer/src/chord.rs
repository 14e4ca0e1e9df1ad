//! `progress CHORD`: how far a chord is, whoever has sent it.
//!
//! Only the joiner of the chord is asked; how the chord ends is for those who wait for its result.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use celeriac::Client;
use celeriac::client::ChordError;
use celeriac::client::config::parse_duration;
use celeriac::protocol::Map;
use celeriac::protocol::join::{ChordState, Inspection};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::Common;
use crate::connect;
use crate::exit::{Exit, Failure};
use crate::output::Output;

/// How long it is waited for one answer, unless said otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const MORE: &str = "\
celeriac chord, run and chain tell the id of a chord as they send it; in programs it is that of the
header, the parent of the result. A chord that is over is forgotten: then this ends, and so it does
for one that has not begun. How a chord has ended is told to those who wait for its result.

Examples:
  celeriac progress 0d6ad1c6-4a0c-4d3a-9c5c-0a5c2ab6a2f1
  celeriac progress --once --json 0d6ad1c6-4a0c-4d3a-9c5c-0a5c2ab6a2f1

Exit codes:
  0  the chord is over; with --once, its joiner has answered
  2  this cannot be the id of a chord
  3  the broker cannot be reached
  4  it was not over, or no joiner has answered, within the timeout
  5  no worker has ever joined chords here";

/// Which chord, and how long.
#[derive(Debug, Args)]
pub(crate) struct ProgressArgs {
    /// The chord's id.
    pub(crate) chord: String,

    /// Ask once, instead of until it is over.
    #[arg(long)]
    pub(crate) once: bool,

    /// Give up after this long, such as 30s or 5m. [default: never; with --once 10s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
}

/// Shows how far the chord is, each time that more is known, until it is over.
pub(crate) async fn run(common: &Common, args: &ProgressArgs) -> Result<Exit, Failure> {
    let config = connect::config(common)?;
    let client = connect::client(&config).await?;
    let output = Output::new(common.json);
    let shown = match (args.once, args.timeout) {
        (true, timeout) => once(&client, args, timeout.unwrap_or(PATIENCE), output).await,
        (false, None) => follow(&client, args, output).await,
        (false, Some(timeout)) => tokio::time::timeout(timeout, follow(&client, args, output))
            .await
            .unwrap_or(Err(ChordError::NoAnswer { after: timeout })),
    };
    client.close().await;
    shown.map(|()| Exit::Success).map_err(|error| connect::not_asked(&error))
}

async fn once(
    client: &Client,
    args: &ProgressArgs,
    patience: Duration,
    output: Output,
) -> Result<(), ChordError> {
    let seen = client.inspect_chord(&args.chord, patience).await?;
    output.show(|| sentence(&seen), || object(&seen));
    Ok(())
}

async fn follow(client: &Client, args: &ProgressArgs, output: Output) -> Result<(), ChordError> {
    let mut progress = client.chord_progress(&args.chord).await?;
    let mut bar = None;
    while let Some(seen) = progress.next().await? {
        let bar = bar.get_or_insert_with(|| parts_bar(output));
        bar.set_length(seen.size.into());
        bar.set_position(seen.ended().into());
        if bar.is_hidden() {
            output.show(|| sentence(&seen), || object(&seen));
        }
    }
    let was_known = bar.is_some();
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let unknown = Inspection::unknown(&*args.chord);
    output.show(
        || if was_known { "the chord is over".to_owned() } else { sentence(&unknown) },
        || object(&unknown),
    );
    Ok(())
}

/// Hidden unless people look at it on a terminal.
fn parts_bar(output: Output) -> ProgressBar {
    if !stderr().is_terminal() || matches!(output, Output::Programs) {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} parts have ended ({elapsed})")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10)).with_style(style)
}

fn sentence(seen: &Inspection) -> String {
    match seen.state {
        ChordState::Collecting => {
            let failed = match seen.failed {
                0 => String::new(),
                failed => format!(", {failed} of them have failed"),
            };
            format!("{} of {} parts have ended{failed}", seen.ended(), seen.size)
        }
        ChordState::Unknown => "the chord is not known: it is over, or has not begun".to_owned(),
        ChordState::Decided | ChordState::Finished => "the chord is over".to_owned(),
    }
}

fn object(seen: &Inspection) -> Map {
    let mut object = Map::new();
    object.push("chord_id", &*seen.chord);
    object.push("state", seen.state.as_str());
    if seen.state == ChordState::Collecting {
        object.push("size", seen.size);
        object.push("ended", seen.ended());
        object.push("failed", seen.failed);
        object.push("age_s", seen.age_ms as f64 / 1e3);
    }
    object
}
