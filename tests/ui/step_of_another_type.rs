//! A step that takes another type than the one before yields.
//~ the step before yields `i64`, which this step does not take
//~ does not take `i64` as its first argument
//~ `task::partial(..)` leaves the first argument to the result of the step before

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
    let _ = add::s(2, 2) | length::partial();
}
