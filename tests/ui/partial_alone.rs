//! What waits for a result cannot be sent.
//~ this workflow waits for a result to begin with
//~ cannot be sent by itself
//~ begin it with `task::s(..)`

use celeriac::task;

#[task]
async fn add(x: i64, y: i64) -> i64 {
    x + y
}

#[task]
async fn length(text: String) -> i64 {
    text.len() as i64
}

#[task]
async fn total(numbers: Vec<i64>) -> i64 {
    numbers.into_iter().sum()
}

fn main() {
    let client: celeriac::Client = unreachable!();
    let _ = client.apply(add::partial(2) | add::partial(3));
}
