//! Each member of a group that follows a step gets its result.
//~ the step before yields `i64`, which this step does not take

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
    let _ = add::s(1, 1) | celeriac::group((add::partial(2), length::partial()));
}
