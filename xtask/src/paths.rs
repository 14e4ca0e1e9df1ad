//! Where the checkout and its build directory are, and which ports are free.
//!
//! Everything that the harness writes lies under the build directory, so `cargo clean` removes it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

// Below the ephemeral ports of Linux (from 32768): an outgoing connection of somebody else must
// not take the port of a node between its death and its next start.
const PORT_MIN: u16 = 20_000;
const PORT_MAX: u16 = 32_000;

/// The root of the checkout that this crate was built from.
pub fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Cargo's target directory: `CARGO_TARGET_DIR`, or `target` in the checkout.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) if !directory.is_empty() => root().join(directory),
        _ => root().join("target"),
    }
}

/// A number that differs between checkouts and is the same for all processes of one.
pub(crate) fn checkout_hash() -> u64 {
    // FNV-1a: std's hasher is free to change between releases, and the processes of one checkout
    // may be built by different ones.
    let path = target();
    path.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// A number that no other process draws: names of virtual hosts and directories.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// `count` different free ports on the loopback address, those near `preferred` first.
pub(crate) fn free_ports(count: usize, preferred: u64) -> Result<Vec<u16>> {
    let span = u64::from(PORT_MAX - PORT_MIN);
    let mut ports = Vec::with_capacity(count);
    // Held until all are found, so that one port is not found twice.
    let mut held = Vec::with_capacity(count);
    for step in 0..span {
        let port = PORT_MIN + u16::try_from(preferred.wrapping_add(step) % span).unwrap_or(0);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push(listener);
            ports.push(port);
        }
        if ports.len() == count {
            return Ok(ports);
        }
    }
    Err(Error::new(format!("no {count} free ports between {PORT_MIN} and {PORT_MAX}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_different_and_below_the_ephemeral_range() {
        let ports = free_ports(4, random()).unwrap();
        assert!(ports.iter().all(|port| (PORT_MIN..PORT_MAX).contains(port)));
        assert_eq!(ports.into_iter().collect::<std::collections::HashSet<_>>().len(), 4);
    }

    #[test]
    fn a_taken_port_is_passed_over() {
        let first = free_ports(1, 77).unwrap()[0];
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert_ne!(free_ports(1, 77).unwrap()[0], first);
    }
}
