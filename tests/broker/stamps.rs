//! Stamps on their way through a fleet: whatever follows from a stamped workflow has them.

use celeriac::protocol::canvas::Canvas;
use celeriac::protocol::{Map, Signature, Value};
use celeriac::{Context, State, TaskError, TaskResult, task};

use crate::bundle::{Bundle, stop};
use crate::probe::Probe;
use crate::workflow::{call, shown};

/// Says what stamps it has, as a retry if it is to be one.
#[task(name = "tests.tells_stamps", max_retries = 1, retry_delay = "100ms")]
async fn tells_stamps(cx: Context, label: String, probe: State<Probe>) -> TaskResult<()> {
    if label == "retry" && cx.retries() == 0 {
        return Err(TaskError::new("once more"));
    }
    let stamps = Value::Map(cx.request().stamps.clone());
    probe.record(format!("{label} {}", shown(&stamps)));
    Ok(())
}

#[task(name = "tests.replaced_by_stamped")]
async fn replaced_by_stamped(cx: Context) -> TaskResult<()> {
    cx.replace(tells_stamps::s("replacement".to_owned()))
}

#[task(name = "tests.adds_stamped")]
async fn adds_stamped(cx: Context) -> TaskResult<()> {
    cx.add_to_chord(tells_stamps::s("added".to_owned()))?;
    Ok(())
}

fn tells(label: &str) -> Signature {
    let args = vec![label.into()];
    Signature { args, immutable: true, ..Signature::new("tests.tells_stamps") }
}

/// The labels of those that have told the stamp.
async fn told(bundle: &Bundle, mut canvas: Canvas, expected: &mut [&str]) {
    canvas.stamp(&mut |_: &Signature| Map::from_iter([("tenant", "acme")])).unwrap();
    bundle.begin(canvas).await;
    bundle.probe.seen(expected.len()).await;
    expected.sort_unstable();
    let expected: Vec<_> =
        expected.iter().map(|label| format!(r#"{label} {{"tenant":"acme"}}"#)).collect();
    let mut found = bundle.probe.drain();
    found.sort();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn stamps_reach_bodies_links_retries_replacements_and_parts_that_were_added() {
    let bundle = Bundle::joining("stamps").await;
    let worker = bundle.worker().await;
    let none = |task: &str| call::<Value>(task, []);
    let replaced = none("tests.replaced_by_stamped");
    let header = vec![Canvas::Task(tells("retry")), replaced, none("tests.adds_stamped")];
    let mut body = Canvas::Task(tells("body"));
    body.link(tells("callback"));
    let chord = Canvas::chord(header, body).unwrap();
    let expected = &mut ["retry", "replacement", "added", "body", "callback"];
    told(&bundle, chord, expected).await;
    let mut body = Canvas::Task(tells("body"));
    body.link_error(&tells("errback"));
    let failing = Canvas::chord(vec![none("tests.python_error")], body).unwrap();
    told(&bundle, failing, &mut ["errback"]).await;
    bundle.nothing_is_left();
    stop(worker).await;
}
