//! Compressed bodies: the header `compression` names the method.
//!
//! Celery's "gzip" is a zlib stream (RFC 1950); a real gzip stream is refused by Python, and here
//! too. bzip2, lzma and brotli are not spoken.
//!
//! **Invariant:** unpacking stops at the limit, whatever the compressed bytes announce.

use std::io::{Read, Write};
use std::str::FromStr;

use super::{Error, error};

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A zlib stream, which Celery names `gzip` or `zlib`.
    Zlib,
    /// A Zstandard frame.
    Zstd,
}

impl Compression {
    /// Celery's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zlib => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The MIME type that the header carries.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Zlib => "application/x-gzip",
            Self::Zstd => "application/zstd",
        }
    }

    /// Reads a MIME type or one of Celery's short names; `None` for everything else.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "application/x-gzip" | "gzip" | "zlib" => Some(Self::Zlib),
            "application/zstd" | "zstd" | "zstandard" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Packs a body, at the method's default level.
    pub fn compress(self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let packed = match self {
            Self::Zlib => {
                let level = flate2::Compression::default();
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(bytes).and_then(|()| encoder.finish())
            }
            // In one step, so that the frame tells its size: Python needs it.
            Self::Zstd => zstd::bulk::compress(bytes, zstd::DEFAULT_COMPRESSION_LEVEL),
        };
        packed.map_err(|_| Error::Compressed { method: self.name() })
    }

    /// Unpacks a body of at most `bytes_max` bytes.
    ///
    /// ```
    /// use celeriac::protocol::Compression;
    ///
    /// let packed = Compression::Zlib.compress(&[0; 1000])?;
    /// assert_eq!(Compression::Zlib.decompress(&packed, 1000)?, [0; 1000]);
    /// assert!(Compression::Zlib.decompress(&packed, 999).is_err());
    /// # Ok::<(), celeriac::protocol::Error>(())
    /// ```
    pub fn decompress(self, bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, Error> {
        match self {
            Self::Zlib => self.read(flate2::read::ZlibDecoder::new(bytes), bytes_max),
            Self::Zstd => match zstd::stream::read::Decoder::with_buffer(bytes) {
                Ok(decoder) => self.read(decoder, bytes_max),
                Err(_) => Err(Error::Compressed { method: self.name() }),
            },
        }
    }

    fn read(self, reader: impl Read, bytes_max: usize) -> Result<Vec<u8>, Error> {
        let mut unpacked = Vec::new();
        let allowed = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        reader
            .take(allowed)
            .read_to_end(&mut unpacked)
            .map_err(|_| Error::Compressed { method: self.name() })?;
        if unpacked.len() > bytes_max {
            return Err(Error::Limit { what: "bytes", max: bytes_max });
        }
        Ok(unpacked)
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::from_name(name).ok_or_else(|| Error::UnknownCompression(error::excerpt(name)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Compression; 2] = [Compression::Zlib, Compression::Zstd];

    #[test]
    fn every_name_that_celery_resolves_is_known() {
        for method in ALL {
            assert_eq!(method.name().parse(), Ok(method));
            assert_eq!(method.content_type().parse(), Ok(method));
        }
        assert_eq!("zlib".parse(), Ok(Compression::Zlib));
        assert_eq!(
            Compression::from_str("application/x-bz2"),
            Err(Error::UnknownCompression("application/x-bz2".to_owned()))
        );
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        for method in ALL {
            let bomb = method.compress(&vec![0; 8 << 20]).unwrap();
            assert!(bomb.len() < 64 << 10);
            let limit = Error::Limit { what: "bytes", max: 1000 };
            assert_eq!(method.decompress(&bomb, 1000), Err(limit));
        }
    }

    #[test]
    fn a_real_gzip_stream_is_refused() {
        let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00\x00";
        let broken = Err(Error::Compressed { method: "gzip" });
        assert_eq!(Compression::Zlib.decompress(gzip, 100), broken);
    }

    #[test]
    fn a_zstd_frame_tells_its_size_as_python_needs() {
        let packed = Compression::Zstd.compress(b"abc").unwrap();
        // Frame header descriptor: a frame content size flag or the single segment flag.
        let descriptor = packed.get(4).copied().unwrap_or_default();
        assert_ne!(descriptor & 0b1110_0000, 0);
    }

    proptest! {
        #[test]
        fn what_was_packed_unpacks(bytes: Vec<u8>) {
            for method in ALL {
                let packed = method.compress(&bytes).unwrap();
                prop_assert_eq!(method.decompress(&packed, bytes.len()), Ok(bytes.clone()));
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            for method in ALL {
                let _ = method.decompress(&bytes, 1000);
            }
        }
    }
}
