//! A group, and the same group with a body, of growing size.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use celeriac::{Client, chord, group};

use crate::{PATIENCE, count, part};

/// Sizes that are measured once, because each takes so long that chance evens out in it.
const LARGE: i64 = 100_000;
/// Rounds of the smaller ones, of which the middle one counts.
const ROUNDS: usize = 5;

/// What one size took.
pub(crate) struct Size {
    pub(crate) parts: i64,
    pub(crate) group: Duration,
    pub(crate) chord: Duration,
}

impl Size {
    /// What the body and the join take beyond the group, as a share of it.
    pub(crate) fn overhead(&self) -> f64 {
        self.chord.as_secs_f64() / self.group.as_secs_f64() - 1.0
    }

    /// Microseconds of the chord for each part.
    pub(crate) fn each_us(&self) -> f64 {
        self.chord.as_secs_f64() * 1e6 / self.parts as f64
    }
}

/// Measures group and chord in turn.
pub(crate) async fn measure(client: &Client, parts: i64) -> Result<Size> {
    let rounds = if parts < LARGE { ROUNDS } else { 1 };
    let (mut groups, mut chords) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        groups.push(without_body(client, parts).await?);
        chords.push(with_body(client, parts).await?);
    }
    Ok(Size { parts, group: middle(groups), chord: middle(chords) })
}

/// Prints them as a table, and how far they are from flat.
pub(crate) fn print(sizes: &[Size]) {
    println!("\n### chords\n");
    println!("| parts | group, µs per part | chord, µs per part | overhead |");
    println!("|---:|---:|---:|---:|");
    for size in sizes {
        let group = size.group.as_secs_f64() * 1e6 / size.parts as f64;
        let (each, overhead) = (size.each_us(), size.overhead() * 100.0);
        println!("| {} | {group:.0} | {each:.0} | {overhead:.0} % |", size.parts);
    }
    let each = || sizes.iter().map(Size::each_us);
    let (least, most) = (each().fold(f64::MAX, f64::min), each().fold(0.0, f64::max));
    println!("\ndearest part of a chord to cheapest: {:.2}", most / least);
}

async fn without_body(client: &Client, parts: i64) -> Result<Duration> {
    let started = Instant::now();
    let result = client.apply(group((0..parts).map(part::s).collect::<Vec<_>>())).await?;
    let values = result.get(PATIENCE).await?;
    ensure!(values.len() == usize::try_from(parts)?, "a result is missing");
    Ok(started.elapsed())
}

/// One chord, from before it is sent until its result is there.
pub(crate) async fn with_body(client: &Client, parts: i64) -> Result<Duration> {
    let started = Instant::now();
    let header = (0..parts).map(part::s).collect::<Vec<_>>();
    let result = client.apply(chord(header, count::partial())).await?;
    let counted = result.get(PATIENCE).await.context("the body has no result")?;
    ensure!(counted == usize::try_from(parts)?, "a list is not complete");
    Ok(started.elapsed())
}

fn middle(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() / 2]
}
