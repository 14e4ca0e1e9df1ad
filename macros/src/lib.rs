//! The `#[task]` attribute of celeriac.
//!
//! Reads the function and its options (`parse`), and writes a definition of it beside it
//! (`expand`). Everything that a function can do at run time or in a constant is done in celeriac
//! itself; what is here is what needs the tokens.

mod duration;
mod expand;
mod key;
#[cfg(test)]
mod mistakes;
mod options;
mod parse;

use proc_macro::TokenStream;
use quote::quote;
use syn::{ItemFn, parse_macro_input};

/// Makes a task of a function.
///
/// The function stays as it is and can be called and tested as before. Beside it stands a type of
/// the same name (types and functions do not collide), so that for `add`:
///
/// - `add::s(2, 3)` is a signature: a call to be sent, with builder methods for its options;
/// - `add::partial(3)` and `add::si(2, 3)` are steps of workflows: the first waits for its first
///   argument, the result of the step before; the second ignores that result;
/// - `add::starmap([(1, 1), (2, 2)])` and `add::chunks(…, 10)` are calls with many items;
/// - `add::delay(&client, 2, 3)` sends such a call at once;
/// - `add::NAME` is the task's name, and `add::def()` its definition.
///
/// A task registers itself: a worker knows every task of the crates that it is linked with.
///
/// ```
/// use celeriac::{TaskResult, task};
///
/// #[task(queue = "sums", max_retries = 3, time_limit = "30s")]
/// async fn add(x: i64, #[default(1)] y: i64) -> TaskResult<i64> {
///     Ok(x + y)
/// }
///
/// let call = add::s(2, 3).priority(5);
/// assert_eq!(call.task(), add::NAME);
/// ```
///
/// # The function
///
/// A free function without generics. An `async fn` runs on the worker's event loop; a plain `fn`
/// may block, and runs on a thread made for that. If it returns a `Result` or a `TaskResult`, its
/// error may be any `std::error::Error`, `TaskError`, `anyhow::Error` or text; any other return
/// type is a task that cannot fail. These two names are recognised as they are written, so an
/// alias of another name counts as a value: spell the `Result` out.
///
/// Parameters are owned values that serde can read and write. They are bound from positional and
/// keyword arguments as Python binds them. `#[default]` (the type's `Default`) or
/// `#[default(value)]` lets callers leave a parameter out. Parameters of the type `Context` (the
/// call itself) and `State<T>` (what the worker was given at start) may stand anywhere; they are
/// recognised by these names and are not on the wire.
///
/// What serde cannot read does not compile:
///
/// ```compile_fail,E0277
/// struct Point(i64, i64);
///
/// #[celeriac::task]
/// async fn draw(point: Point) {}
/// ```
///
/// # Options
///
/// | option | meaning |
/// |---|---|
/// | `name = "shop.add"` | name on the wire; by default the function's path with dots |
/// | `queue = "sums"` | queue to send to |
/// | `priority = 5` | priority of the message, 0 to 255 |
/// | `serializer = msgpack` | how arguments are written: `msgpack` or `json` |
/// | `ignore_result` | no result is stored |
/// | `unique = "10m"` | a call with the same arguments is not sent again for so long |
/// | `global_concurrency = 5` | so many calls run at once, in all workers together |
/// | `concurrency_key = "{x}"` | these are counted for each key, not for the task |
/// | `global_rate_limit = "10/s"` | how often it may start, in all workers together |
/// | `rate_key = "{x}"` | these starts are counted for each key, not for the task |
/// | `acks = late` | acknowledge after the run (`late`) or before it (`early`) |
/// | `time_limit = "30s"` | run time after which the task is ended |
/// | `soft_time_limit = "25s"` | run time after which it is asked to end |
/// | `max_retries = 3` | how many times a retryable error runs it again |
/// | `retry_delay = "10s"` | time before each of them; 3 minutes by default |
/// | `retry_backoff` | time before the first of them, doubled for each that follows |
/// | `retry_backoff_max = "10m"` | the longest of these times |
/// | `retry_jitter = false` | wait just as long, instead of a random part of it |
/// | `retry_for(std::io::Error, "ValueError")` | only after these |
/// | `dont_retry_for("KeyError")` | never after these |
/// | `track_started` | publish the state STARTED |
/// | `isolate = process` | runs in a child process, which may crash at no other's cost |
/// | `reject_on_worker_lost` | an isolated task whose process went away is delivered again |
/// | `rate_limit = "10/s"` | how often it may start in one worker: a second, minute or hour |
/// | `on_connection_loss = cancel` | while it runs: `recognise`, `finish` or `cancel` |
/// | `blocking` | says what a plain `fn` is anyway |
///
/// A task with any option about retries is run again after a retryable error, three times unless
/// `max_retries` says otherwise. Without `= time`, `retry_backoff` begins with one second. Errors
/// are named by type, which may also be that of a cause, or by the class that callers see.
///
/// Keys are text with places for arguments (`"bank {account}"`) and for headers that the sender
/// gives to the call (`"{header:tenant}"`). Tasks whose keys are the same share the limit.
///
/// Times are text with a unit (`"500ms"`, `"30s"`, `"10m"`, `"2h"`) or a number of seconds. Flags
/// may be switched off: `track_started = false`.
#[proc_macro_attribute]
pub fn task(options: TokenStream, item: TokenStream) -> TokenStream {
    let mut function = parse_macro_input!(item as ItemFn);
    let task = parse::task(options.into(), &mut function);
    // The function is kept in any case, so that one mistake is not reported at each of its calls.
    let rest = match task {
        Ok(task) => expand::task(&task),
        Err(error) => error.into_compile_error(),
    };
    let function = expand::function(&function);
    quote!(#function #rest).into()
}
