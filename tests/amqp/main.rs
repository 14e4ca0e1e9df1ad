//! The `amqp` floor against a real broker: publishing, consuming, and every fault that can be
//! made on purpose. Each test has a virtual host, or a node, of its own.

#![expect(clippy::unwrap_used, reason = "in a helper of tests it fails the test")]

mod closing;
mod consuming;
mod declaring;
mod faults;
mod proxy;
mod publishing;
mod sessions;
mod setup;
mod stalls;
mod steering;
mod tap;
mod tls;
