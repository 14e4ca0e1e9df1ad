//! The body of a chord gets the list of what the header yields.
//~ the step before yields `Vec<i64>`, which this step does not take

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
    let _ = celeriac::chord([add::s(1, 1), add::s(2, 2)], add::partial(2));
}
