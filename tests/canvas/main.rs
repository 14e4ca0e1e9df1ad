//! Workflows as data: what they become, compared with what Celery sends and with what they mean.

mod captures;
mod chords;
mod dynamic;
mod failing;
mod fallible;
mod garbage;
mod limits;
mod random;
mod repeated;
mod shapes;
mod simulator;
mod stamps;
mod tree;
