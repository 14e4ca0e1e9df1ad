//! How much a workflow may grow when what it hands down is copied to its parts.
//!
//! Does not look at what a workflow weighs by itself: that was in a message, or in memory, before.
//! **Invariant:** a message of some size becomes a workflow of a bounded size, however its groups
//! are nested.

use std::cell::Cell;

use super::CanvasError;

/// Bytes that may be added by copies, in all.
const BYTES_MAX: usize = 512 * 1024 * 1024;

/// What is left for copies.
#[derive(Debug)]
pub(super) struct Budget {
    left: Cell<usize>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: Cell::new(BYTES_MAX) }
    }
}

impl Budget {
    /// Pays for giving `bytes` to `receivers`. The first one is free: it takes the original.
    pub(super) fn pay(&self, receivers: usize, bytes: usize) -> Result<(), CanvasError> {
        let size = receivers.saturating_sub(1).saturating_mul(bytes);
        let Some(left) = self.left.get().checked_sub(size) else {
            let what = "number of bytes that parts of a workflow get from those around them";
            return Err(CanvasError::TooLarge { what, size, max: self.left.get() });
        };
        self.left.set(left);
        Ok(())
    }
}
