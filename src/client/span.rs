//! The spans around sends, named as OpenTelemetry names what messaging does.
//!
//! Does not export anything; `tracing-opentelemetry` or any other subscriber does. **Invariant:**
//! a span that nobody has enabled evaluates none of its fields.
//!
//! The names are those of the semantic conventions for messaging and RabbitMQ, with `task_name`
//! beside them; the subscriber of your choice sees the fields with the dots in them.

use tracing::field::{self, Empty};
use tracing::{Span, info_span};

use super::compose::Composed;

/// The span of one send.
pub(super) fn send(composed: &Composed) -> Span {
    let publish = &composed.publish;
    let span = info_span!(
        "send",
        otel.kind = "producer",
        otel.name = Empty,
        messaging.system = "rabbitmq",
        messaging.operation.name = "send",
        messaging.operation.r#type = "send",
        messaging.destination.name = Empty,
        messaging.rabbitmq.destination.routing_key = publish.routing_key,
        messaging.message.id = &*composed.task_id,
        messaging.message.body.size = publish.message.body.len(),
        task_name = &*composed.task,
    );
    if !span.is_disabled() {
        // What has to be put together is put together only for somebody.
        let destination = destination(&publish.exchange, &publish.routing_key);
        span.record("otel.name", field::display(format_args!("send {destination}")));
        span.record("messaging.destination.name", destination.as_str());
    }
    span
}

/// The span of `count` sends, whose confirms are awaited together.
pub(super) fn send_all(count: usize) -> Span {
    info_span!(
        "send",
        otel.kind = "producer",
        messaging.system = "rabbitmq",
        messaging.operation.name = "send",
        messaging.operation.r#type = "send",
        messaging.batch.message_count = count,
    )
}

/// A destination as the conventions write it for RabbitMQ: what there is of exchange and key.
fn destination(exchange: &str, routing_key: &str) -> String {
    match (exchange, routing_key) {
        ("", "") => "amq.default".to_owned(),
        ("", one) | (one, "") => one.to_owned(),
        (exchange, key) => format!("{exchange}:{key}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt;
    use std::sync::{Arc, Mutex};

    use tracing::span::{Attributes, Id, Record};
    use tracing::subscriber::Interest;
    use tracing::{Event, Metadata, Subscriber};

    use super::*;
    use crate::amqp::Publish;
    use crate::protocol::Message;

    type Fields = BTreeMap<&'static str, String>;

    /// Collects the fields of all spans together.
    #[derive(Clone, Default)]
    struct Collector(Arc<Mutex<Fields>>);

    struct Visitor<'a>(&'a mut Fields);

    impl field::Visit for Visitor<'_> {
        fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
            self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
        }
    }

    impl Subscriber for Collector {
        /// Tests run side by side; what one of them enables is not enabled for all.
        fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
            Interest::sometimes()
        }

        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, span: &Attributes<'_>) -> Id {
            span.record(&mut Visitor(&mut self.0.lock().unwrap()));
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, values: &Record<'_>) {
            values.record(&mut Visitor(&mut self.0.lock().unwrap()));
        }

        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    fn composed(exchange: &'static str) -> Composed {
        let message = Message { body: vec![0; 3], ..Message::default() };
        Composed {
            task: "mail.send".into(),
            task_id: "7".into(),
            wants_result: false,
            lock: None,
            publish: Publish::new(exchange, "mail", message),
        }
    }

    fn fields(make: impl FnOnce() -> Span) -> Fields {
        let collector = Collector::default();
        let fields = collector.0.clone();
        tracing::subscriber::with_default(collector, || drop(make()));
        Arc::into_inner(fields).unwrap().into_inner().unwrap()
    }

    #[test]
    fn a_send_names_its_task_and_destination_as_the_conventions_do() {
        let fields = fields(|| send(&composed("")));
        for (name, value) in [
            ("otel.name", "send mail"),
            ("otel.kind", "producer"),
            ("messaging.system", "rabbitmq"),
            ("messaging.operation.type", "send"),
            ("messaging.destination.name", "mail"),
            ("messaging.message.id", "7"),
            ("messaging.message.body.size", "3"),
            ("task_name", "mail.send"),
        ] {
            assert_eq!(fields.get(name).map(String::as_str), Some(value), "{name}: {fields:?}");
        }
    }

    #[test]
    fn a_destination_is_what_there_is_of_exchange_and_key() {
        assert_eq!(fields(|| send(&composed("x")))["messaging.destination.name"], "x:mail");
        assert_eq!(destination("x", ""), "x");
        assert_eq!(destination("", ""), "amq.default");
    }

    #[test]
    fn many_sends_tell_how_many() {
        assert_eq!(fields(|| send_all(12))["messaging.batch.message_count"], "12");
    }

    #[test]
    fn without_a_subscriber_there_is_no_span() {
        assert!(send(&composed("")).is_disabled() && send_all(2).is_disabled());
    }
}
