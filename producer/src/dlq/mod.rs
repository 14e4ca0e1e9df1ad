//! `dlq`: what is parked in `<queue>.dead`.

pub(crate) mod args;
mod picture;
mod rounds;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use celeriac::client::parking::{DeadLetters, Fate, Filter, Place};
use celeriac::protocol::{Map, Value};

use self::args::{DlqCommand, WhichArgs};
use self::rounds::Rounds;
use crate::args::Common;
use crate::connect;
use crate::exit::{Exit, Failure};
use crate::output::{Output, to_json};

/// How many are listed unless said otherwise.
const LISTED: u64 = 100;

/// Runs one of the commands.
pub(crate) async fn run(common: &Common, command: &DlqCommand) -> Result<Exit, Failure> {
    match command {
        DlqCommand::List { which } => list(common, which).await,
        DlqCommand::Show { id, queue } => show(common, id, queue).await,
        DlqCommand::Requeue { which, all, to } => {
            picks(which, *all, "requeue")?;
            requeue(common, which, to.as_deref()).await
        }
        DlqCommand::Drop { which, all, yes } => {
            picks(which, *all, "drop")?;
            if !yes && !io::stdin().is_terminal() {
                return Err(Failure::usage("nobody can be asked: say --yes to drop messages"));
            }
            drop_them(common, which, *yes).await
        }
        DlqCommand::Export { which, output } => export(common, which, output.as_deref()).await,
    }
}

/// Nobody means all messages by accident.
fn picks(which: &WhichArgs, all: bool, verb: &str) -> Result<(), Failure> {
    let is_picky = !filter(which).is_empty() || which.limit.is_some();
    if all || is_picky {
        return Ok(());
    }
    Err(Failure::usage(format!("say which messages to {verb}, such as with --reason, or --all")))
}

fn filter(which: &WhichArgs) -> Filter {
    let filter = Filter {
        reasons: which.reason.clone(),
        tasks: which.task.clone(),
        ids: which.id.clone(),
        ..Filter::default()
    };
    filter.aged(which.older_than, which.newer_than)
}

async fn list(common: &Common, which: &WhichArgs) -> Result<Exit, Failure> {
    let output = Output::new(common.json);
    let limit = which.limit.unwrap_or(LISTED);
    let mut rounds = Rounds::look(common, &which.queue, filter(which), Some(limit)).await?;
    rounds
        .each(|parked, _, bar| {
            bar.suspend(|| output.show(|| picture::line(parked), || parked.summary()));
            Fate::Keep
        })
        .await?;
    let found = rounds.matching();
    let exit = rounds.end().await?;
    if found == limit && which.limit.is_none() {
        output.show_to_people(|| format!("the first {limit} are shown; more with --limit"));
    } else if found == 0 {
        output.show_to_people(|| "nothing is parked, or nothing matches".to_owned());
    }
    Ok(exit)
}

async fn show(common: &Common, id: &str, queues: &[String]) -> Result<Exit, Failure> {
    let output = Output::new(common.json);
    let filter = Filter { ids: vec![id.to_owned()], ..Filter::default() };
    let mut rounds = Rounds::look(common, queues, filter, None).await?;
    rounds
        .each(|parked, _, bar| {
            bar.suspend(|| output.show(|| picture::whole(&parked.export()), || parked.export()));
            Fate::Keep
        })
        .await?;
    let (found, unseen) = (rounds.matching(), rounds.tally().unseen);
    rounds.end().await?;
    if found > 0 { Ok(Exit::Success) } else { Err(not_shown(id, unseen)) }
}

/// No message was found: which means that there is none only if all were looked at.
fn not_shown(id: &str, unseen: u64) -> Failure {
    if unseen == 0 {
        let message =
            format!("no message with the id {id} is parked in the queues that were looked at");
        return Failure { exit: Exit::TaskFailed, message };
    }
    let message = format!(
        "no message with the id {id} was among those that were looked at, but {unseen} were not"
    );
    Failure { exit: Exit::NotSent, message }
}

async fn requeue(common: &Common, which: &WhichArgs, to: Option<&str>) -> Result<Exit, Failure> {
    let mut rounds = Rounds::begin(common, &which.queue, filter(which), which.limit).await?;
    let mut homeless = 0_u64;
    rounds
        .each(|parked, _, bar| match to.or_else(|| parked.queue()) {
            Some(queue) => Fate::Requeue(queue.to_owned()),
            None => {
                homeless += 1;
                bar.suspend(|| complain("a message was in no queue: say where to with --to"));
                Fate::Keep
            }
        })
        .await?;
    let tally = rounds.tally();
    let exit = rounds.end().await?;
    let (requeued, failed) = (tally.requeued, tally.failed + homeless);
    told(common, "requeued", requeued, failed);
    Ok(if failed > 0 { Exit::NotSent } else { exit })
}

async fn drop_them(common: &Common, which: &WhichArgs, yes: bool) -> Result<Exit, Failure> {
    let mut rounds = Rounds::begin(common, &which.queue, filter(which), which.limit).await?;
    let mut places: Vec<(usize, Place)> = Vec::new();
    rounds
        .each_of(|queue, _, place, _| {
            if yes {
                return Fate::Drop;
            }
            places.push((queue, place));
            Fate::Keep
        })
        .await?;
    let asked = places.len();
    if asked > 0 {
        // They are held meanwhile: what is dropped is what was counted.
        if !ask(asked)? {
            rounds.end().await?;
            told(common, "dropped", 0, 0);
            return Ok(Exit::TaskFailed);
        }
        for (queue, place) in places {
            rounds.drop_kept(queue, place);
        }
    }
    let dropped = rounds.tally().dropped;
    let exit = rounds.end().await?;
    told(common, "dropped", dropped, 0);
    Ok(exit)
}

fn ask(count: usize) -> Result<bool, Failure> {
    let mut answer = String::new();
    let asked = write!(io::stderr(), "drop {count} messages for good? [y/N] ")
        .and_then(|()| io::stderr().flush())
        .and_then(|()| io::stdin().read_line(&mut answer));
    asked.map_err(|error| Failure::new(Exit::Usage, &error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

async fn export(common: &Common, which: &WhichArgs, path: Option<&Path>) -> Result<Exit, Failure> {
    let mut file: Box<dyn Write> = match path {
        Some(path) => Box::new(BufWriter::new(File::create(path).map_err(|error| {
            Failure::usage(format!("failed to write {}: {error}", path.display()))
        })?)),
        None => Box::new(io::stdout()),
    };
    let mut rounds = Rounds::look(common, &which.queue, filter(which), which.limit).await?;
    let mut written: io::Result<()> = Ok(());
    rounds
        .each(|parked, _, _| {
            written = writeln!(file, "{}", to_json(&Value::Map(parked.export())));
            if written.is_ok() { Fate::Keep } else { Fate::Stop }
        })
        .await?;
    let count = rounds.matching();
    let exit = rounds.end().await?;
    let unwritten = |error: io::Error| Failure::usage(format!("the export is not whole: {error}"));
    written.and_then(|()| file.flush()).map_err(unwritten)?;
    if path.is_some() {
        told(common, "exported", count, 0);
    }
    Ok(exit)
}

/// Tells how it went.
fn told(common: &Common, verb: &'static str, count: u64, failed: u64) {
    let failures = || if failed > 0 { format!(", {failed} failed") } else { String::new() };
    Output::new(common.json).show(
        || format!("{count} {verb}{}", failures()),
        || Map::from_iter([(verb, count), ("failed", failed)]),
    );
}

fn complain(sentence: &str) {
    // If standard error is gone, there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "error: {sentence}");
}

/// The connection for the commands.
async fn connect(common: &Common) -> Result<(celeriac::Config, DeadLetters), Failure> {
    let config = connect::config(common)?;
    let letters = DeadLetters::connect(&config).await;
    Ok((config, letters.map_err(|error| connect::not_connected(&error))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_said_to_be_nowhere_only_if_all_were_looked_at() {
        assert_eq!(not_shown("x", 0).exit, Exit::TaskFailed);
        let unsure = not_shown("x", 7);
        assert_eq!(unsure.exit, Exit::NotSent);
        assert!(unsure.message.contains("but 7 were not"), "{}", unsure.message);
    }
}
