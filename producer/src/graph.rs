//! `graph`: draws a workflow without sending it, and perhaps with states that were told before.

use std::collections::HashMap;
use std::io::{self, Write};

use celeriac::protocol::{Graph, Signature, TaskState, Value};

use crate::args::{GraphArgs, GraphFormat};
use crate::exit::{Exit, Failure};
use crate::output::to_json;
use crate::{states, workflow};

/// Writes the drawing to standard output. No broker is needed.
pub(crate) fn run(args: &GraphArgs) -> Result<Exit, Failure> {
    let is_stdin = |path: &std::path::PathBuf| path.as_os_str() == "-";
    let (from, told) = (args.from.as_ref(), args.states.as_ref());
    if from.is_some_and(is_stdin) && told.is_some_and(is_stdin) {
        return Err(Failure::usage("only one of --from and --states can be standard input"));
    }
    let signature = match (&args.workflow, from) {
        (Some(text), _) => workflow::expression::parse(text).map_err(Failure::usage)?,
        (None, Some(path)) => workflow::open_shown(path)?,
        (None, None) => return Err(Failure::usage("there is no workflow to draw")),
    };
    let states = told.map(|path| states::read(path)).transpose()?;
    show(&draw(&signature, states.as_ref(), args.format));
    Ok(Exit::Success)
}

/// The text of a drawing; for JSON the workflow itself.
pub(crate) fn draw(
    workflow: &Signature,
    states: Option<&HashMap<String, TaskState>>,
    format: GraphFormat,
) -> Value {
    let graph = || match states {
        Some(states) => Graph::of(workflow).with_states(states),
        None => Graph::of(workflow),
    };
    match format {
        GraphFormat::Mermaid => graph().to_mermaid().into(),
        GraphFormat::Dot => graph().to_dot().into(),
        GraphFormat::Json => workflow.clone().into_value(),
    }
}

/// Writes a drawing to standard output.
pub(crate) fn show(drawing: &Value) {
    let mut out = io::stdout().lock();
    // A reader that went away has what it wanted.
    let _ = match drawing {
        Value::String(text) => out.write_all(text.as_bytes()),
        workflow => writeln!(out, "{}", to_json(workflow)),
    };
}
