//! One run of a task's function, on the runtime or on a thread that may block: until it returns,
//! panics, is cancelled, or runs out of time.
//!
//! Does not know what follows from it. A run without limits costs no timer.
//!
//! **Invariants:** whatever the function does, the attempt ends in one of the ways of [`End`]; no
//! panic leaves it; and a function that was stopped is not polled again.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio::time::Sleep;
use tracing::{Instrument, error, info};

use super::active::{Cancel, Entry};
use super::guard::{self, Guarded, Panicked};
use super::journal;
use super::limits::Limits;
use super::lost_threads::{Lease, LostThreads};
use super::permits::Permit;
use super::slots::Slot;
use super::unsettled::Unsettled;
use super::watchdog;
use crate::amqp::SettleToken;
use crate::task::{self, Invocation, OnConnectionLoss, Request, Run, TaskDef, TaskResult};

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum End {
    /// The function returned.
    Returned(TaskResult),
    /// The function panicked.
    Panicked(Panicked),
    /// The job was cancelled.
    Cancelled(Cancel),
    /// The process that ran the function went away; what is known about that.
    Lost(String),
    /// The function ran longer than this.
    TimedOut(Duration),
}

impl From<Result<TaskResult, Panicked>> for End {
    fn from(ended: Result<TaskResult, Panicked>) -> Self {
        match ended {
            Ok(result) => Self::Returned(result),
            Err(panicked) => Self::Panicked(panicked),
        }
    }
}

/// What holds for one attempt.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    pub(super) started: Instant,
    pub(super) limits: Limits,
    pub(super) on_loss: OnConnectionLoss,
    pub(super) threads: &'a Arc<LostThreads>,
    /// Stays here, unless a thread keeps it.
    pub(super) slot: &'a mut Option<Slot>,
    /// Stays here, unless the function runs on.
    pub(super) permit: &'a mut Option<Permit>,
}

/// The request for which a function runs, and by what it may be stopped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Of<'a> {
    pub(super) request: &'a Request,
    pub(super) entry: Option<&'a Entry>,
    pub(super) token: Option<&'a SettleToken>,
}

impl<'a> From<&'a Unsettled> for Of<'a> {
    fn from(unsettled: &'a Unsettled) -> Self {
        let Unsettled { request, entry, token, .. } = unsettled;
        Self { request, entry: entry.as_ref(), token: token.as_ref() }
    }
}

/// Runs the function of `task` once.
pub(super) async fn run(
    task: &TaskDef,
    invocation: Invocation,
    of: Of<'_>,
    terms: &mut Terms<'_>,
) -> End {
    // What the task logs itself carries its id and name.
    let Of { request, entry, token } = of;
    let span = journal::span(request);
    let blocks = matches!(task.run, Run::Blocking(_));
    let watch = Watch::new(terms, blocks, &invocation.context, token);
    match task.run {
        Run::Async(run) => match guard::catch(|| run(invocation)) {
            Ok(future) => {
                Attempt::new(Function(Guarded::new(future)), entry, watch).instrument(span).await
            }
            Err(panicked) => End::Panicked(panicked),
        },
        Run::Blocking(run) => {
            let context = invocation.context.clone();
            let lease = Lease::new(terms.threads);
            let thread = lease.thread();
            let running = tokio::task::spawn_blocking(move || {
                // Who was ended while it waited for a thread does not run any more.
                if !thread.begin() {
                    return Err(Panicked::default());
                }
                let _until_it_returns = thread;
                span.in_scope(|| guard::catch(|| run(invocation)))
            });
            let end = Attempt::new(running, entry, watch).await;
            if matches!(end, End::Cancelled(_) | End::TimedOut(_)) {
                context.ask_to_end(false);
                lease.give_up(terms.slot, terms.permit, request);
            }
            end
        }
    }
}

/// Waits for a function that runs apart from this process; to drop `work` must end it.
#[cfg(unix)]
pub(super) async fn run_apart(
    work: BoxFuture<'_, End>,
    context: &task::Context,
    unsettled: &Unsettled,
    terms: &mut Terms<'_>,
) -> End {
    let watch = Watch::new(terms, false, context, unsettled.token.as_ref());
    Attempt::new(Apart(work), unsettled.entry.as_ref(), watch).await
}

/// A task's function under way.
trait Work {
    fn poll_work(&mut self, entry: Option<&Entry>, cx: &mut Context<'_>) -> Poll<End>;

    /// Drops what can be dropped.
    fn stop(self);
}

/// An async function.
struct Function(Guarded<TaskResult>);

impl Work for Function {
    fn poll_work(&mut self, entry: Option<&Entry>, cx: &mut Context<'_>) -> Poll<End> {
        let _polling = entry.map(|entry| watchdog::polling(entry.number()));
        self.0.poll_unpin(cx).map(End::from)
    }

    fn stop(self) {
        // What the function holds may panic when it goes, which must not cost the job its end.
        if let Err(Panicked { message, backtrace }) = guard::catch(|| drop(self)) {
            error!(message, backtrace, "a task panicked while it was stopped");
        }
    }
}

/// A function in another process.
#[cfg(unix)]
struct Apart<'a>(BoxFuture<'a, End>);

#[cfg(unix)]
impl Work for Apart<'_> {
    fn poll_work(&mut self, _: Option<&Entry>, cx: &mut Context<'_>) -> Poll<End> {
        self.0.poll_unpin(cx)
    }

    fn stop(self) {}
}

/// A function on a thread of its own.
impl Work for JoinHandle<Result<TaskResult, Panicked>> {
    fn poll_work(&mut self, _: Option<&Entry>, cx: &mut Context<'_>) -> Poll<End> {
        // The runtime drops blocking work only when it is shut down itself.
        self.poll_unpin(cx).map(|ended| ended.unwrap_or_else(|_| Err(Panicked::default())).into())
    }

    fn stop(self) {}
}

/// Work that can be stopped.
struct Attempt<'a, W: Work> {
    /// `None` once it was stopped.
    work: Option<W>,
    entry: Option<&'a Entry>,
    watch: Option<Box<Watch<'a>>>,
    /// Whether it was polled before; until then, nobody has cancelled it.
    begun: bool,
}

impl<'a, W: Work> Attempt<'a, W> {
    fn new(work: W, entry: Option<&'a Entry>, watch: Option<Box<Watch<'a>>>) -> Self {
        Self { work: Some(work), entry, watch, begun: false }
    }

    /// Whether the work must not go on; else somebody wakes it when that is so.
    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let cancelled = self.entry.map_or(Poll::Pending, |entry| entry.poll_cancelled(cx));
        if let Poll::Ready(why) = cancelled {
            return Poll::Ready(End::Cancelled(why));
        }
        self.watch.as_mut().map_or(Poll::Pending, |watch| watch.poll(cx))
    }
}

impl<W: Work + Unpin> Future for Attempt<'_, W> {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        if self.begun
            && let Poll::Ready(end) = self.poll_stopped(cx)
        {
            // A function that has just returned has returned.
            let entry = self.entry;
            let Some(mut work) = self.work.take() else { return Poll::Pending };
            let returned = match end {
                End::TimedOut(_) => work.poll_work(entry, cx),
                _ => Poll::Pending,
            };
            work.stop();
            return Poll::Ready(match returned {
                Poll::Ready(returned) => returned,
                Poll::Pending => end,
            });
        }
        let entry = self.entry;
        let Some(work) = &mut self.work else { return Poll::Pending };
        if let Poll::Ready(end) = work.poll_work(entry, cx) {
            return Poll::Ready(end);
        }
        if self.begun {
            return Poll::Pending;
        }
        self.begun = true;
        // Only one that waits can be stopped, and most never do.
        match self.poll_stopped(cx) {
            Poll::Ready(end) => {
                if let Some(work) = self.work.take() {
                    work.stop();
                }
                Poll::Ready(end)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Time limits, and the delivery of a task that ends with its connection.
struct Watch<'a> {
    limits: Limits,
    started: Instant,
    context: task::Context,
    /// Until the next limit.
    sleep: Option<Pin<Box<Sleep>>>,
    lost: Option<BoxFuture<'a, ()>>,
    /// Whether the work can be stopped, or only be asked to end.
    blocks: bool,
}

impl<'a> Watch<'a> {
    /// `None` for most, which have no limits and go on whatever happens.
    fn new(
        terms: &Terms<'_>,
        blocks: bool,
        context: &task::Context,
        token: Option<&'a SettleToken>,
    ) -> Option<Box<Self>> {
        let Terms { started, limits, on_loss, .. } = *terms;
        let token = token.filter(|_| on_loss == OnConnectionLoss::Cancel);
        if limits == Limits::default() && token.is_none() {
            return None;
        }
        let lost = token.map(|token| token.lost().boxed());
        let context = context.clone();
        let mut watch = Self { limits, started, context, sleep: None, lost, blocks };
        watch.sleep_on();
        Some(Box::new(watch))
    }

    /// Sleeps until the next limit, if there is one.
    fn sleep_on(&mut self) {
        let next = self.limits.soft.or(self.limits.hard);
        let at = next.and_then(|limit| self.started.checked_add(limit));
        self.sleep = at.map(|at| Box::pin(tokio::time::sleep_until(at.into())));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(lost) = &mut self.lost
            && lost.poll_unpin(cx).is_ready()
        {
            self.lost = None;
            if !self.blocks {
                return Poll::Ready(End::Cancelled(Cancel::ConnectionLost));
            }
            self.context.ask_to_end(false);
        }
        while let Some(sleep) = &mut self.sleep {
            if sleep.poll_unpin(cx).is_pending() {
                return Poll::Pending;
            }
            let Some(limit) = self.limits.soft.take() else {
                self.sleep = None;
                return self
                    .limits
                    .hard
                    .map_or(Poll::Pending, |limit| Poll::Ready(End::TimedOut(limit)));
            };
            let task_id = self.context.id();
            info!(task_id, limit_s = limit.as_secs_f64(), "Soft time limit exceeded");
            self.context.ask_to_end(true);
            self.sleep_on();
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::oneshot;

    use super::super::active::{Active, Call};
    use super::super::events::Facts;
    use super::super::original::Original;
    use super::*;
    use crate::protocol::{Map, Message, Value};
    use crate::task::TaskOptions;

    const SECOND: Duration = Duration::from_secs(1);

    /// Runs a future as a task within limits, on a clock of its own.
    async fn attempt(
        limits: Limits,
        context: &task::Context,
        future: impl Future<Output = TaskResult> + Send + 'static,
    ) -> End {
        let threads = LostThreads::new(1);
        let started = tokio::time::Instant::now().into_std();
        let on_loss = OnConnectionLoss::Recognise;
        let terms = Terms {
            started,
            limits,
            on_loss,
            threads: &threads,
            slot: &mut None,
            permit: &mut None,
        };
        let watch = Watch::new(&terms, false, context, None);
        Attempt::new(Function(Guarded::new(future.boxed())), None, watch).await
    }

    const SOFT: Limits = Limits { soft: Some(SECOND), hard: None };
    const BOTH: Limits = Limits { soft: Some(SECOND), hard: Some(Duration::from_secs(3)) };

    #[tokio::test(start_paused = true)]
    async fn a_task_is_told_first_and_dropped_later() {
        let context = task::Context::for_test();
        let (ended, mut dropped) = oneshot::channel::<()>();
        let told = context.clone();
        let end = attempt(BOTH, &context, async move {
            let _ended = ended;
            let _ = told.soft_time_limit_exceeded().await;
            // Takes no notice.
            std::future::pending().await
        });
        assert!(matches!(end.await, End::TimedOut(limit) if limit == 3 * SECOND));
        assert!(context.check_soft_time_limit().is_err() && context.is_cancelled());
        assert!(dropped.try_recv().is_err_and(|it| it == oneshot::error::TryRecvError::Closed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_was_told_may_still_return() {
        let context = task::Context::for_test();
        let told = context.clone();
        let end = attempt(BOTH, &context, async move {
            told.cancelled().await;
            Ok(Value::Int(1))
        });
        assert!(matches!(end.await, End::Returned(Ok(Value::Int(1)))));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_hard_limit_a_task_goes_on() {
        let context = task::Context::for_test();
        let end = attempt(SOFT, &context, async {
            tokio::time::sleep(100 * SECOND).await;
            Ok(Value::Null)
        });
        assert!(matches!(end.await, End::Returned(Ok(_))));
    }

    #[test]
    fn a_blocking_task_whose_time_is_up_before_it_has_a_thread_never_runs() {
        static RAN: AtomicBool = AtomicBool::new(false);
        const TASK: TaskDef = TaskDef {
            name: "blocks",
            file: "",
            line: 1,
            options: TaskOptions::DEFAULT,
            params: &[],
            bound: false,
            states: &[],
            run: Run::Blocking(|_| {
                RAN.store(true, Ordering::Release);
                Ok(Value::Null)
            }),
        };
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let (free, taken) = std::sync::mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || taken.recv());
            let threads = LostThreads::new(1);
            let limits = Limits { soft: None, hard: Some(Duration::from_millis(1)) };
            let (started, on_loss) = (Instant::now(), OnConnectionLoss::Recognise);
            let mut terms = Terms {
                started,
                limits,
                on_loss,
                threads: &threads,
                slot: &mut None,
                permit: &mut None,
            };
            let (args, kwargs) = (Vec::new(), Map::new());
            let invocation = Invocation { args, kwargs, context: task::Context::for_test() };
            let unsettled = Unsettled {
                request: Arc::default(),
                original: Original::untouched(Message::default()),
                token: None,
                sequel: None,
                children: Vec::new(),
                entry: None,
                facts: Facts::default(),
            };
            let end = run(&TASK, invocation, Of::from(&unsettled), &mut terms).await;
            assert!(matches!(end, End::TimedOut(_)), "{end:?}");
            assert_eq!(threads.count(), 0, "it had none to lose");
            drop(free);
            assert!(busy.await.unwrap().is_err());
            // What waited before this one has had its turn.
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            assert!(!RAN.load(Ordering::Acquire));
        });
    }

    #[tokio::test]
    async fn a_cancelled_task_is_dropped_even_if_that_panics() {
        struct Panics;
        impl Drop for Panics {
            fn drop(&mut self) {
                panic!("on the way out");
            }
        }
        guard::install();
        let active = Active::default();
        let request = Arc::new(Request { id: "1".to_owned(), ..Request::default() });
        let entry = active.enter(&request);
        entry.start(Instant::now(), Call::default()).unwrap();
        let (begun, begins) = oneshot::channel();
        let running = tokio::spawn(async move {
            let future = async move {
                let _panics = Panics;
                let _ = begun.send(());
                std::future::pending().await
            };
            Attempt::new(Function(Guarded::new(future.boxed())), Some(&entry), None).await
        });
        begins.await.unwrap();
        while !active.cancel("1", Cancel::ConnectionLost) {
            tokio::task::yield_now().await;
        }
        assert!(matches!(running.await.unwrap(), End::Cancelled(Cancel::ConnectionLost)));
        assert!(active.list().is_empty());
    }
}
