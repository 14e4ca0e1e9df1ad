//! Every form of function that can be a task compiles, without a warning.

#![deny(warnings, missing_docs)]
#![forbid(unsafe_code)]

use celeriac::task::Acks;
use celeriac::{Context, State, TaskError, TaskResult, task};

/// Tasks in a module, with types that are named from there.
pub mod inner {
    /// An argument.
    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    pub struct Job(pub u8);

    /// Uses paths that start above this module.
    #[celeriac::task]
    pub async fn relative(job: Job, other: super::Own) -> super::Own {
        let _ = job;
        other
    }
}

/// A result.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Own;

/// An error of its own, which says what is permanent.
#[derive(Debug)]
pub struct Verdict;

impl task::IntoTaskError for Verdict {
    fn into_task_error(self) -> TaskError {
        TaskError::permanent("no")
    }
}

#[task]
fn unit() {}

#[task()]
pub(crate) async fn verdict(_: Context) -> Result<(), Verdict> {
    Err(Verdict)
}

#[task(acks = "late", serializer = "json", blocking = true)]
fn blocking(client: i64, context: Context, state: State<dyn Fn(i64) -> i64 + Send + Sync>) -> i64 {
    let _ = context;
    state(client)
}

#[task(max_retries = 0)]
async fn boxed() -> Result<u8, Box<dyn std::error::Error + Send + Sync>> {
    Ok("1".parse::<u8>()?)
}

#[task]
#[expect(clippy::too_many_arguments, reason = "so that what is generated has as many")]
async fn many(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8, i: u8) -> TaskResult<u8> {
    Ok(a + b + c + d + e + f + g + h + i)
}

#[task]
#[cfg(any())]
async fn left_out(missing: Missing) {}

#[test]
fn signatures_have_the_types_of_the_functions() {
    let call: celeriac::Signature<i64> = blocking::s(1);
    assert_eq!(call.task(), blocking::NAME);
    assert_eq!(blocking::def().options.acks, Some(Acks::Late));
    let _: celeriac::Signature<u8> = boxed::s().countdown(std::time::Duration::from_secs(1));
    let _: celeriac::Signature<Own> = inner::relative::s(inner::Job(1), Own);
    let _: celeriac::Signature<()> = verdict::s();
    unit();
    assert!(many::def().params.len() == 9);
}
