//! Bounds on what one message may ask for: a decoder stops at them instead of exhausting memory.

/// How much a decoder reads before it gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one body, before and after decompression.
    pub bytes_max: usize,
    /// Arrays and maps inside one another.
    pub depth_max: usize,
    /// Values in one body; the elements of arrays and maps count, map keys do not.
    pub items_max: usize,
}

impl Limits {
    /// Nesting up to which values are written, so that every reader can take them.
    pub(super) const DEPTH_MAX: usize = 256;
}

impl Default for Limits {
    /// 128 MiB, 256 levels, 4 194 304 values.
    fn default() -> Self {
        Self { bytes_max: 128 << 20, depth_max: Self::DEPTH_MAX, items_max: 4 << 20 }
    }
}
