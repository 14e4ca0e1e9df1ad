//! Sending workflows: the joins first, then the calls with which they begin.
//!
//! **Invariant:** no part of a chord is published before the chord's opening record is confirmed;
//! a chord whose parts could not all be published is cancelled.

use std::mem::take;
use std::sync::Arc;

use tracing::{Instrument, debug, warn};

use super::canvas::{FromAny, Ready, Step};
use super::{Client, SendError, parked, span};
use crate::amqp::topology::{self, results_exchange};
use crate::amqp::{Publish, PublishError, layout};
use crate::protocol::canvas::{Call, Canvas, Ids, Lowered, lower};
use crate::protocol::join::{Open, Record};
use crate::protocol::{CallOptions, Signature, Value};
use crate::results::{AnyResult, Inbox};

impl Client {
    /// Sends a workflow: a signature, a chain, a group, a chord, or a dynamic
    /// [`Workflow`](super::canvas::Workflow). Resolves when the broker has confirmed everything
    /// with which it begins.
    ///
    /// The handle that it gives is the one of the last step: an
    /// [`AsyncResult`](crate::AsyncResult) for what ends in one task, a
    /// [`GroupResult`](crate::GroupResult) for what ends in a group.
    ///
    /// ```no_run
    /// # async fn example(client: celeriac::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use celeriac::{group, task};
    ///
    /// #[task]
    /// async fn square(x: i64) -> i64 {
    ///     x * x
    /// }
    ///
    /// let squares = client.apply(group([square::s(2), square::s(3)])).await?;
    /// assert_eq!(squares.get(Duration::from_secs(10)).await?, [4, 9]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`SendError`] says what went wrong. Of a group that was not sent as a whole some members
    /// may run all the same; a chord is cancelled then, as far as the broker can be reached.
    pub async fn apply<S: Step>(&self, workflow: S) -> Result<S::Handle, SendError>
    where
        S::In: Ready,
    {
        let canvas = workflow.into_canvas()?;
        self.apply_canvas(canvas).await.map(FromAny::from_any)
    }

    async fn apply_canvas(&self, canvas: Canvas) -> Result<AnyResult, SendError> {
        let wanted = !self.config().task_ignore_result;
        let inbox = self.inbox_for(wanted).await.map_err(SendError::ReplyQueue)?;
        let (canvas, call) = self.call(canvas, inbox)?;
        let Lowered { mut opens, calls, result, .. } = lower(canvas, call)?;
        opens.iter_mut().for_each(|open| open.write_in(self.config().task_serializer));
        let records = self.records(&opens)?;
        let mut publishes = Vec::with_capacity(calls.len());
        let mut names = Vec::with_capacity(calls.len());
        for call in calls {
            let id = call.options.get("task_id").and_then(Value::as_str).unwrap_or_default();
            let name = (call.task.clone(), id.to_owned());
            let (serializer, priority) = (self.config().task_serializer, self.inherited_priority());
            let composer = self.composer().with_delays();
            let mut publish = composer.compose(call, serializer, priority)?;
            self.delays().prepare(&mut publish).await;
            self.publisher().check(&publish).map_err(|error| unsent(&name, error))?;
            names.push(name);
            publishes.push(publish);
        }
        let reference = self.lineage().map(|_| result.to_reference());
        // Before anything is published, because results may be faster than confirms.
        let result = AnyResult::register(result, inbox);
        let span = span::send_all(publishes.len());
        let events: Vec<_> = publishes.iter().map(|it| self.sent_event(it)).collect();
        let sending = async {
            self.open(&opens, &records).await?;
            Ok::<_, SendError>(self.publisher().publish_all(publishes).await)
        };
        let outcomes = sending.instrument(span).await?;
        for ((outcome, name), event) in outcomes.into_iter().zip(names).zip(events) {
            if let Err(error) = outcome {
                self.cancel(&opens).await;
                return Err(unsent(&name, error));
            }
            self.tell_sent(event);
        }
        if let (Some(lineage), Some(reference)) = (self.lineage(), reference) {
            lineage.trail.add(reference);
        }
        debug!(id = result.id(), "workflow sent");
        Ok(result)
    }

    /// How `canvas` is called, which comes back as it was.
    fn call(&self, canvas: Canvas, inbox: Option<&Inbox>) -> Result<(Canvas, Call), SendError> {
        let reply_to = Some(inbox.map(Inbox::queue).unwrap_or_default().to_owned());
        let options = CallOptions { reply_to, ..CallOptions::default() };
        let mut call = Call { options, join: self.composer().join(), ..Call::default() };
        let Some(lineage) = self.lineage() else { return Ok((canvas, call)) };
        call.options.root_id = Some(lineage.root_id.to_string());
        call.options.parent_id = Some(lineage.task_id.to_string());
        let mut whole = canvas.into_signature();
        let (args, kwargs) = (take(&mut whole.args), take(&mut whole.kwargs));
        let (seed, args, kwargs) = lineage.trail.id_of(&whole.task, args, kwargs);
        call.ids = Ids::derived(seed);
        let whole = Signature { args, kwargs, ..whole };
        Ok((Canvas::from_signature(whole)?, call))
    }

    /// The opening records, none of which is too large to be sent, nor are the bodies in them.
    fn records(&self, opens: &[Open]) -> Result<Vec<Publish>, SendError> {
        let max = self.config().joined_message_max();
        let record = |open: &Open| {
            let publish = record(&Record::Open(Box::new(open.clone())))?;
            if let Some(size) = open.large_body(publish.message.body.len(), max) {
                return Err(SendError::LargeBody { chord: open.chord.clone(), size, max });
            }
            let name = ("the chord".to_owned(), open.chord.clone());
            self.publisher().check(&publish).map_err(|error| unsent(&name, error))?;
            Ok(publish)
        };
        opens.iter().map(record).collect()
    }

    /// Publishes the opening records and waits for all confirms. The outer ones come first.
    async fn open(&self, opens: &[Open], records: &[Publish]) -> Result<(), SendError> {
        if opens.is_empty() {
            return Ok(());
        }
        self.joins().get_or_try_init(|| self.declare_joins(opens)).await?;
        self.declare_parks(records, opens).await?;
        let mut missing = Vec::new();
        for (at, outcome) in self.publish_each(records).await.into_iter().enumerate() {
            match outcome {
                Ok(()) => {}
                Err(error) if error.is_nowhere() => missing.extend(records.get(at).cloned()),
                Err(error) => return self.not_opened(opens, error).await,
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        // Deleted since they were declared, or declared by programs with fewer shards.
        self.declare_joins(opens).await?;
        for outcome in self.publish_each(&missing).await {
            if let Err(error) = outcome {
                return self.not_opened(opens, error).await;
            }
        }
        Ok(())
    }

    async fn publish_each(&self, publishes: &[Publish]) -> Vec<Result<(), PublishError>> {
        self.publisher().publish_all(publishes.to_vec()).await
    }

    async fn declare_joins(&self, opens: &[Open]) -> Result<(), SendError> {
        let config = self.config();
        let topology = layout::joining(0..config.join_shards, config.join_queue_type);
        self.connection().declare(&topology).await.map_err(|error| SendError::Join {
            chord: opens.first().map(|open| open.chord.clone()).unwrap_or_default(),
            source: Arc::new(error),
        })?;
        Ok(())
    }

    /// The queues for large values, of chords that park them.
    async fn declare_parks(&self, records: &[Publish], opens: &[Open]) -> Result<(), SendError> {
        let kind = self.config().join_queue_type;
        for (record, open) in records.iter().zip(opens) {
            let Some(topology) = parked::needed_by(record, kind) else { continue };
            let declared = self.connection().declare_for_now(&topology).await;
            declared.map_err(|error| SendError::Join {
                chord: open.chord.clone(),
                source: Arc::new(error),
            })?;
        }
        Ok(())
    }

    async fn not_opened(&self, opens: &[Open], error: PublishError) -> Result<(), SendError> {
        self.cancel(opens).await;
        for open in opens.iter().filter(|open| open.park_ms.is_some()) {
            // What cannot be deleted expires.
            let _ = self.connection().delete_queue(&topology::park_queue(&open.chord)).await;
        }
        let chord = opens.first().map(|open| open.chord.clone()).unwrap_or_default();
        Err(unsent(&("the chord".to_owned(), chord), error))
    }

    /// Ends chords whose parts are not complete. What this cannot reach expires by itself.
    async fn cancel(&self, opens: &[Open]) {
        let cancel = |open: &Open| {
            let chord = open.chord.clone();
            let reason = "its parts could not be sent".to_owned();
            let publish = record(&Record::Cancel { chord, reason, errbacks: false });
            publish.map(|publish| Publish { routing_key: open.route.clone(), ..publish })
        };
        let records: Vec<_> = opens.iter().filter_map(|open| cancel(open).ok()).collect();
        for outcome in self.publisher().publish_all(records).await {
            if let Err(error) = outcome {
                warn!(%error, "a chord that was not sent as a whole is left to expire");
            }
        }
    }
}

fn record(record: &Record) -> Result<Publish, SendError> {
    let message = record
        .encode()
        .map_err(|source| SendError::Encode { task: "the chord".to_owned(), source })?;
    let routing_key = match record {
        Record::Open(open) => open.route.clone(),
        _ => String::new(),
    };
    Ok(Publish::new(results_exchange(), routing_key, message))
}

/// The error for the call of the task with this name and id.
fn unsent((task, task_id): &(String, String), source: PublishError) -> SendError {
    SendError::Publish { task: task.clone(), task_id: task_id.clone(), source: Box::new(source) }
}
