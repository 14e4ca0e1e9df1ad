//! `graph`: draws a workflow without sending it.

use std::io::{self, Write};

use celeriac::protocol::Graph;

use crate::args::{GraphArgs, GraphFormat};
use crate::exit::{Exit, Failure};
use crate::workflow;

/// Writes the drawing to standard output. No broker is needed.
pub(crate) fn run(args: &GraphArgs) -> Result<Exit, Failure> {
    let signature = match (&args.workflow, &args.from) {
        (Some(text), _) => workflow::expression::parse(text).map_err(Failure::usage)?,
        (None, Some(path)) => workflow::open(path)?,
        (None, None) => return Err(Failure::usage("there is no workflow to draw")),
    };
    show(&draw(&Graph::of(&signature), args.format));
    Ok(Exit::Success)
}

/// The text of a graph.
pub(crate) fn draw(graph: &Graph, format: GraphFormat) -> String {
    match format {
        GraphFormat::Mermaid => graph.to_mermaid(),
        GraphFormat::Dot => graph.to_dot(),
    }
}

/// Writes a drawing to standard output.
pub(crate) fn show(text: &str) {
    // A reader that went away has what it wanted.
    let _ = io::stdout().lock().write_all(text.as_bytes());
}
