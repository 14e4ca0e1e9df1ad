//! Workflows: steps one after the other, side by side, and both.
//!
//! Needs a worker with the demo tasks: `cargo run -p celeriac-worker`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use celeriac::client::canvas::{Complete, Takes};
use celeriac::{Client, Config, Group, Signature, chain, chord, group};

const TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect(Config::from_env()?).await?;

    // Each step gets the result of the one before as its first argument. A step that does not fit
    // does not compile.
    let steps = chain((add(2, 2), multiply(3), power(2)));
    println!("((2 + 2) * 3) ** 2 = {}", client.apply(steps).await?.get(TIMEOUT).await?);
    let piped = add(2, 2) | multiply(3) | power(2);
    println!("the same with |    = {}", client.apply(piped).await?.get(TIMEOUT).await?);

    // Side by side; the order of the results is the order of the members.
    let squares = group([square(2), square(3), square(4), double(5)]);
    println!("2² 3² 4² 5+5       = {:?}", client.apply(squares).await?.get(TIMEOUT).await?);

    // What follows a group gets the list of its results, once all of them are there.
    let numbers: Group<Vec<i64>> = (0..3).map(square).collect();
    let sum = client.apply(numbers | sum_task()).await?;
    println!("0² + 1² + 2²       = {}", sum.get(TIMEOUT).await?);
    let sum = client.apply(chord([square(3), square(4)], sum_task())).await?;
    println!("3² + 4²            = {}", sum.get(TIMEOUT).await?);

    client.close().await;
    Ok(())
}

// The tasks live in the worker, so they are named here. In a crate that has the `#[task]`
// functions these are `add::s(x, y)` and `multiply::partial(y)`.

fn add(x: i64, y: i64) -> Signature<i64, Complete> {
    Signature::new("add").arg(x).arg(y)
}

fn square(x: i64) -> Signature<i64, Complete> {
    Signature::new("square").arg(x)
}

fn double(x: i64) -> Signature<i64, Complete> {
    Signature::new("double").arg(x)
}

fn multiply(by: i64) -> Signature<i64, Takes<i64>> {
    Signature::<i64>::new("multiply").arg(by).partial()
}

fn power(exponent: i64) -> Signature<i64, Takes<i64>> {
    Signature::<i64>::new("power").arg(exponent).partial()
}

fn sum_task() -> Signature<i64, Takes<Vec<i64>>> {
    Signature::<i64>::new("sum_task").partial()
}
