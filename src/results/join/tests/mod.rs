//! Checks of the whole joiner against a model of the broker.
//!
//! | file | check |
//! |---|---|
//! | `world` | the model: a queue, workers, a producer, sessions that die, a broker that crashes |
//! | `random` | random runs from printed seeds |
//! | `exhaustive` | every run of small worlds |
//! | `parking` | every order of what happens to parked values |
//! | `rules` | each rule of the protocol taken away makes a run fail |
//! | `cases` | single behaviours |

mod cases;
mod exhaustive;
mod parking;
mod random;
mod rules;
mod world;
