//! State that all tasks of a worker share, such as a pool of database connections.
//!
//! ```sh
//! cargo run --example state --features cli -- -Q visits
//! celeriac call visits.count --args '["/index"]' -Q visits --wait
//! ```

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Mutex;

use celeriac::{App, State, task};

/// Stands for a database.
#[derive(Default)]
struct Visits(Mutex<HashMap<String, u64>>);

/// A `State` parameter is not on the wire: callers give `page` only.
#[task(name = "visits.count")]
async fn count(visits: State<Visits>, page: String) -> u64 {
    let mut pages = visits.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let visits = pages.entry(page).or_default();
    *visits += 1;
    *visits
}

fn main() -> ExitCode {
    celeriac::cli::main(App::builder().state(Visits::default()).build())
}
