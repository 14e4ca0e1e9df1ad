//! One run of an isolated task, as its worker sees it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tracing::{debug, warn};

use super::frame::{ToChild, ToParent};
use super::pool::{Isolate, Pool};
use super::verdict::Verdict;
use crate::process;
use crate::protocol::{Exception, Serializer, Value};
use crate::task::{Context, Invocation, TaskError};
use crate::worker::active::Cancel;
use crate::worker::attempt::{self, End, Terms};
use crate::worker::unsettled::Unsettled;

/// How often a child is given the task until one has it, and the pause after the first one that
/// could not start or went away before, which doubles.
const STARTS: usize = 5;
const START_PAUSE: Duration = Duration::from_millis(200);

/// How long a child may take to end: by itself when its channel has ended, or of a signal.
const DYING: Duration = Duration::from_secs(1);

/// Runs a task in a child. Dropping the future kills the child.
pub(in crate::worker) async fn attempt(
    pool: &Pool,
    invocation: Invocation,
    unsettled: &Unsettled,
    terms: &mut Terms<'_>,
) -> End {
    let Invocation { args, kwargs, context } = invocation;
    let request = Arc::clone(&unsettled.request);
    let serializer = request.serializer;
    let job = match (ToChild::Job { request, args, kwargs }).encode(serializer) {
        Ok(job) => job,
        Err(failed) => return End::Returned(Err(unsendable(&failed))),
    };
    let mut child = None;
    let work = Box::pin(work_somewhere(pool, &mut child, &job, unsettled, &context));
    let end = attempt::run_apart(work, &context, unsettled, terms).await;
    let Some(isolate) = child else { return end };
    match &end {
        End::Returned(_) | End::Panicked(_) => pool.give_back(isolate),
        End::Cancelled(why) => end_by_signal(isolate, why).await,
        // It is killed, if it is not gone.
        End::Lost(_) | End::TimedOut(_) => drop(isolate),
    }
    end
}

/// Gives the job to one child after the other until one has it, and lets that one run it; `child`
/// is the one that has it or gets it.
async fn work_somewhere(
    pool: &Pool,
    child: &mut Option<Isolate>,
    job: &[u8],
    unsettled: &Unsettled,
    context: &Context,
) -> End {
    let set_pid = |pid| {
        if let Some(entry) = &unsettled.entry {
            entry.set_pid(pid);
        }
    };
    let mut why = String::new();
    for pause in pauses() {
        match pool.take() {
            Ok(isolate) => {
                let (isolate, mut has_begun) = (child.insert(isolate), false);
                set_pid(Some(isolate.pid));
                let serializer = unsettled.request.serializer;
                match work(isolate, job, serializer, context, &mut has_begun).await {
                    End::Lost(failed) if !has_begun => why = failed,
                    end => return end,
                }
                *child = None;
                set_pid(None);
            }
            Err(failed) => why = failed.to_string(),
        }
        warn!(task_id = context.id(), "no child could run the task: {why}");
        tokio::time::sleep(pause).await;
    }
    never_begun(format!("no child could run the task: {why}"), unsettled.token.is_some())
}

/// The pauses after all attempts to start a child.
fn pauses() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(START_PAUSE), |pause| Some(*pause * 2)).take(STARTS)
}

/// What follows when no child has run a task: it is delivered again, up to the delivery limit, as
/// long as its message is here to be given back.
fn never_begun(why: String, is_unacked: bool) -> End {
    if is_unacked { End::Returned(Err(TaskError::reject(why, true))) } else { End::Lost(why) }
}

/// Lets a child run one job.
async fn work(
    isolate: &mut Isolate,
    job: &[u8],
    serializer: Serializer,
    context: &Context,
    has_begun: &mut bool,
) -> End {
    match converse(isolate, job, serializer, context, has_begun).await {
        Ok(Some((verdict, children, added))) => {
            context.add_children(children);
            context.put_added(added);
            match verdict {
                Verdict::Returned(result) => End::Returned(result),
                Verdict::Panicked(panicked) => End::Panicked(panicked),
            }
        }
        Ok(None) => End::Lost(death(isolate).await),
        Err(failed) if is_gone(&failed) => End::Lost(death(isolate).await),
        Err(failed) => End::Lost(format!("the process that ran the task sent {failed}")),
    }
}

/// Gives a child its job and listens until it has ended; `None` if the child went away.
async fn converse(
    isolate: &mut Isolate,
    job: &[u8],
    serializer: Serializer,
    context: &Context,
    has_begun: &mut bool,
) -> io::Result<Option<(Verdict, Vec<Value>, Vec<Value>)>> {
    let channel = &mut isolate.channel;
    channel.write(job).await?;
    let mut is_told = false;
    loop {
        let word = tokio::select! {
            word = channel.next() => word?,
            () = context.cancelled(), if !is_told => {
                is_told = true;
                let out_of_time = context.check_soft_time_limit().is_err();
                let cancel = ToChild::Cancel { out_of_time };
                channel.write(&cancel.encode(serializer)?).await?;
                continue;
            }
        };
        match word {
            None => return Ok(None),
            Some(ToParent::Begun) => *has_begun = true,
            Some(ToParent::Event { name, fields }) => {
                // The child has refused all that is wrong.
                if let Err(error) = context.send_event(&name, fields) {
                    debug!(%error, "a child has told what cannot be told");
                }
            }
            Some(ToParent::Ended { verdict, children, added }) => {
                return Ok(Some((verdict, children, added)));
            }
            Some(ToParent::Update { number, state, meta }) => {
                let updated = context.update_state(&state, &meta).await;
                let error = updated.err().map(|failed| chain(&failed));
                channel.write(&ToChild::Updated { number, error }.encode(serializer)?).await?;
            }
        }
    }
}

/// Sends the signal that was asked for; dropping the child does what is left to do.
async fn end_by_signal(mut isolate: Isolate, why: &Cancel) {
    let Cancel::Revoked { signal: Some(name), .. } = why else { return };
    let Some(signal) = process::signal_named(name).filter(|signal| *signal != Signal::KILL) else {
        return;
    };
    process::send(isolate.pid, signal);
    let _ = tokio::time::timeout(DYING, isolate.child.wait()).await;
}

fn is_gone(failed: &io::Error) -> bool {
    matches!(failed.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// What is known about the end of a child that has closed its channel.
async fn death(isolate: &mut Isolate) -> String {
    let how = match tokio::time::timeout(DYING, isolate.child.wait()).await {
        Ok(Ok(status)) => process::ending(status),
        Ok(Err(failed)) => failed.to_string(),
        Err(_) => "it had closed its channel and was killed".to_owned(),
    };
    format!("the process that ran the task ended prematurely: {how}")
}

/// Arguments that no frame can hold.
fn unsendable(failed: &io::Error) -> TaskError {
    let exception = Exception::encode_error(format!("the arguments of an isolated task: {failed}"));
    TaskError::permanent(exception)
}

/// An error with its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |&error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::TaskErrorKind;

    #[test]
    fn a_task_that_no_child_has_begun_goes_back_while_it_can() {
        match never_begun("no memory".to_owned(), true) {
            End::Returned(Err(error)) => {
                assert_eq!(error.kind(), TaskErrorKind::Reject { requeue: true });
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(never_begun("no memory".to_owned(), false), End::Lost(_)));
    }

    #[test]
    fn starting_children_is_tried_for_some_seconds() {
        let (times, all) = (pauses().count(), pauses().sum::<Duration>());
        assert_eq!((times, all), (STARTS, Duration::from_millis(6200)));
    }
}
