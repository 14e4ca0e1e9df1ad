//! The child's side: runs the jobs that come in over the socket in the place of standard input.
//!
//! A thread of its own reads the socket, so that neither an endless loop nor a blocked runtime
//! keeps the process from ending with its worker.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};
use tracing::{Instrument, debug, warn};

use super::MARK;
use super::frame::{ToChild, ToParent};
use super::verdict::Verdict;
use crate::app::App;
use crate::client::{Client, Config};
use crate::process;
use crate::protocol::{Exception, Serializer, Signature, Value};
use crate::task::{
    Connect, Context, CustomEvent, Environment, Invocation, Registry, Request, Run, SendEvents,
    StateUpdates, TaskError, UpdateError,
};
use crate::worker::guard::{self, Guarded, Panicked};
use crate::worker::journal;

/// Whether [`serve_isolated`] was called.
pub(super) static SERVED: AtomicBool = AtomicBool::new(false);

/// The way into a program for the children that run its tasks with `isolate = process`.
///
/// Such a child is the same program, started again with the same arguments. Call this first in
/// `main`, before any thread or connection is made that a child does not need: in a child it never
/// returns, else it gives the app back. `celeriac::cli::main` calls it by itself; a worker whose
/// program has not called it refuses to start if one of its tasks is isolated.
///
/// ```no_run
/// use celeriac::{App, Config, Worker};
///
/// #[tokio::main]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let app = celeriac::worker::serve_isolated(App::new(Config::default()));
///     Worker::new(app).start().await?.wait().await?;
///     Ok(())
/// }
/// ```
pub fn serve_isolated(app: App) -> App {
    SERVED.store(true, Ordering::Release);
    let Some(mark) = std::env::var_os(MARK) else { return app };
    let is_ours = mark.to_str().and_then(|mark| mark.parse().ok())
        == Some(std::os::unix::process::parent_id());
    // On a thread, because the caller may be in a runtime already.
    let served = std::thread::spawn(move || if is_ours { serve(app) } else { Err(stranger()) });
    let code = match served.join() {
        Ok(Ok(())) => 0,
        Ok(Err(failed)) => {
            // If standard error is gone, there is nobody to tell.
            let _ = writeln!(io::stderr(), "error: a child for isolated tasks: {failed}");
            1
        }
        Err(_) => 1,
    };
    std::process::exit(code)
}

fn stranger() -> io::Error {
    io::Error::other(format!("{MARK} is set by a worker for its own children; unset it"))
}

/// What the threads of a child share.
struct Child {
    writer: Mutex<UnixStream>,
    is_busy: AtomicBool,
    /// The job that runs. Changed only with the writer locked, so that nothing of a job is
    /// written behind its end: the worker would take it for the next one's.
    current: Mutex<Option<Context>>,
    updates: AtomicU64,
    /// Who waits for the answer to an update.
    waiting: Mutex<HashMap<u64, oneshot::Sender<Option<String>>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(app: App) -> io::Result<()> {
    guard::install();
    let reader = UnixStream::from(process::take_stdin()?);
    let child = Arc::new(Child::new(reader.try_clone()?));
    let registry = Arc::new(app.registry().map_err(io::Error::other)?);
    // Two threads: one may wait for the other, as for the connection of a client.
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("celeriac-isolate")
        .enable_all()
        .build()?;
    let config = app.config().clone();
    let environment = Arc::new(Environment {
        states: app.into_states(),
        updates: Some(Arc::clone(&child) as Arc<dyn StateUpdates>),
        events: Some(Arc::clone(&child) as Arc<dyn SendEvents>),
        registry: Some(Arc::clone(&registry)),
        runtime: Some(runtime.handle().clone()),
        connect: Some(connect(config, runtime.handle().clone())),
        ..Environment::default()
    });
    let (jobs, mut due) = mpsc::channel(1);
    let (listener, of_jobs) = (Arc::clone(&child), Arc::clone(&environment));
    std::thread::Builder::new()
        .name("celeriac-parent".to_owned())
        .spawn(move || listener.listen(reader, &jobs, &of_jobs))?;
    runtime.block_on(async {
        while let Some(invocation) = due.recv().await {
            let context = invocation.context.clone();
            let serializer = context.request().serializer;
            let verdict = run(&registry, invocation).await;
            let children = context.take_children();
            let added = context.take_added().into_iter().map(Signature::into_value).collect();
            child.is_busy.store(false, Ordering::Release);
            child.answer(verdict, children, added, serializer)?;
        }
        Ok(())
    })
}

impl Child {
    fn new(writer: UnixStream) -> Self {
        Self {
            writer: Mutex::new(writer),
            is_busy: AtomicBool::new(false),
            current: Mutex::default(),
            updates: AtomicU64::new(0),
            waiting: Mutex::default(),
        }
    }

    /// Hands on what the worker says, until it is gone.
    fn listen(
        &self,
        mut reader: UnixStream,
        jobs: &mpsc::Sender<Invocation>,
        environment: &Arc<Environment>,
    ) {
        loop {
            match ToChild::read(&mut reader) {
                Ok(Some(ToChild::Job { request, args, kwargs })) => {
                    let context = Context::new(request, Arc::clone(environment), Arc::default());
                    self.is_busy.store(true, Ordering::Release);
                    // A worker that is gone is seen at the next read.
                    let _ = self.begin(&context);
                    if jobs.blocking_send(Invocation { args, kwargs, context }).is_err() {
                        return;
                    }
                }
                Ok(Some(ToChild::Cancel { out_of_time })) => {
                    if let Some(current) = &*lock(&self.current) {
                        current.ask_to_end(out_of_time);
                    }
                }
                Ok(Some(ToChild::Updated { number, error })) => {
                    if let Some(waiting) = lock(&self.waiting).remove(&number) {
                        // A task that does not wait any more does not want to know.
                        let _ = waiting.send(error);
                    }
                }
                Ok(None) | Err(_) if self.is_busy.load(Ordering::Acquire) => process::kill_self(),
                Ok(None) => std::process::exit(0),
                Err(_) => std::process::exit(1),
            }
        }
    }

    /// Says that the job is here.
    fn begin(&self, context: &Context) -> io::Result<()> {
        let mut writer = lock(&self.writer);
        *lock(&self.current) = Some(context.clone());
        ToParent::Begun.write(context.request().serializer, &mut *writer)
    }

    /// Whether this is the request of the job that runs, and not an equal one.
    fn is_current(&self, request: &Request) -> bool {
        lock(&self.current).as_ref().is_some_and(|it| std::ptr::eq(it.request(), request))
    }

    /// Writes the end of the job.
    fn answer(
        &self,
        verdict: Verdict,
        children: Vec<Value>,
        added: Vec<Value>,
        serializer: Serializer,
    ) -> io::Result<()> {
        let mut writer = lock(&self.writer);
        *lock(&self.current) = None;
        let answer = ToParent::Ended { verdict, children, added };
        match answer.write(serializer, &mut *writer) {
            Err(failed) if is_of_the_pipe(&failed) => Err(failed),
            Err(failed) => {
                let exception = Exception::encode_error(format!("the result: {failed}"));
                let verdict = Verdict::Returned(Err(TaskError::permanent(exception)));
                let (children, added) = (Vec::new(), Vec::new());
                let answer = ToParent::Ended { verdict, children, added };
                answer.write(serializer, &mut *writer)
            }
            Ok(()) => Ok(()),
        }
    }
}

/// Whether nothing can be written any more, as opposed to one value that cannot.
fn is_of_the_pipe(failed: &io::Error) -> bool {
    failed.raw_os_error().is_some() || failed.kind() == io::ErrorKind::WriteZero
}

impl StateUpdates for Child {
    fn publish(
        &self,
        request: &Request,
        state: &str,
        meta: Value,
    ) -> BoxFuture<'static, Result<(), UpdateError>> {
        let refused = |error: String| UpdateError::Publish(error.into());
        let number = self.updates.fetch_add(1, Ordering::Relaxed);
        let (sender, answered) = oneshot::channel();
        let written = {
            let mut writer = lock(&self.writer);
            if !self.is_current(request) {
                let error = "the task has ended, and with it its state".to_owned();
                return std::future::ready(Err(refused(error))).boxed();
            }
            lock(&self.waiting).insert(number, sender);
            let update = ToParent::Update { number, state: state.to_owned(), meta };
            update.write(request.serializer, &mut *writer)
        };
        if written.is_err() {
            lock(&self.waiting).remove(&number);
        }
        let published = async move {
            written.map_err(|failed| UpdateError::Publish(failed.into()))?;
            match answered.await {
                Ok(None) => Ok(()),
                Ok(Some(error)) => Err(refused(error)),
                Err(_) => Err(refused("the worker is gone".to_owned())),
            }
        };
        published.boxed()
    }
}

impl SendEvents for Child {
    fn send_event(&self, request: &Request, event: CustomEvent) {
        let mut writer = lock(&self.writer);
        if self.is_current(request) {
            let (name, fields) = event.into_parts();
            let word = ToParent::Event { name, fields };
            if let Err(error) = word.write(request.serializer, &mut *writer) {
                debug!(%error, "an event does not leave the child");
            }
        }
    }
}

/// Runs the function of one job.
async fn run(registry: &Registry, invocation: Invocation) -> Verdict {
    let context = invocation.context.clone();
    let request = context.request();
    let Some(task) = registry.task(&request.task) else {
        let exception = Exception::not_registered(&request.task);
        return Verdict::Returned(Err(TaskError::permanent(exception)));
    };
    // What the task logs itself carries its id and name.
    let span = journal::span(request);
    let ended = match task.run {
        Run::Async(run) => match guard::catch(|| run(invocation)) {
            Ok(future) => Guarded::new(future).instrument(span).await,
            Err(panicked) => Err(panicked),
        },
        Run::Blocking(run) => {
            let guarded = move || span.in_scope(|| guard::catch(|| run(invocation)));
            let running = tokio::task::spawn_blocking(guarded);
            running.await.unwrap_or_else(|_| Err(Panicked::default()))
        }
    };
    match ended {
        Ok(result) => Verdict::Returned(result),
        Err(panicked) => Verdict::Panicked(panicked),
    }
}

/// Makes this child's own client when a task first asks for one.
fn connect(config: Config, runtime: Handle) -> Connect {
    let made = OnceLock::<Client>::new();
    Box::new(move || {
        if let Some(client) = made.get() {
            return Some(client.clone());
        }
        let (config, runtime) = (config.clone(), runtime.clone());
        // On a thread, because this one may belong to the runtime.
        let connecting = std::thread::spawn(move || runtime.block_on(Client::connect(config)));
        match connecting.join() {
            Ok(Ok(client)) => Some(made.get_or_init(|| client).clone()),
            Ok(Err(failed)) => {
                let failed: &dyn std::error::Error = &failed;
                warn!(error = failed, "an isolated task gets no client");
                None
            }
            Err(_) => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_that_has_ended_updates_nothing_any_more() {
        let (mut parent, writer) = UnixStream::pair().unwrap();
        let child = Child::new(writer);
        let (first, second) = (Context::for_test(), Context::for_test());
        child.begin(&first).unwrap();
        let update = |context: &Context| child.publish(context.request(), "P", Value::Null);
        let unanswered = update(&first);
        let verdict = || Verdict::Returned(Ok(Value::Null));
        child.answer(verdict(), Vec::new(), Vec::new(), Serializer::Json).unwrap();
        update(&first).await.unwrap_err();
        child.begin(&second).unwrap();
        // The same id, as after a retry, but another run.
        update(&first).await.unwrap_err();
        drop((unanswered, child));

        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut parent, &mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let kinds = ["begun", "update", "ended"];
        let mut kinds: Vec<_> = kinds.iter().flat_map(|kind| text.match_indices(kind)).collect();
        kinds.sort_unstable();
        let kinds: Vec<&str> = kinds.into_iter().map(|(_, kind)| kind).collect();
        assert_eq!(kinds, ["begun", "update", "ended", "begun"], "{text}");
    }
}
