//! The compressed payload of a bzImage.
//!
//! The kernel's build packs `vmlinux` with one of seven programs, which the first bytes tell, and appends the unpacked
//! size as a little-endian 32-bit number (for gzip that is the format's own `ISIZE`). So the size is known before
//! anything is unpacked, and output that differs from it is refused: neither a bomb nor a damaged stream gets further.

use std::io::Read;

use serde::{Deserialize, Serialize};

use super::KernelError;

/// The largest unpacked kernel that is accepted, in bytes. Distribution kernels are below 100 MiB.
pub const MAX_UNPACKED: u32 = 512 << 20;

/// Memory in KiB that an xz or LZMA stream may ask for its dictionary (`xz -9` asks for 64 MiB).
const DICTIONARY_KIB: u32 = 192 << 10;

/// How a payload is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// The legacy LZ4 frame format (`lz4 -l`).
    Lz4,
    /// RFC 8878.
    Zstd,
    /// The .xz format, with LZMA2 and an x86 filter.
    Xz,
    /// The older .lzma format.
    Lzma,
    /// bzip2.
    Bzip2,
    /// lzop's format, which cannot be unpacked here.
    Lzo,
    /// Not packed: the ELF itself.
    None,
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Lz4 => "LZ4",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Lzma => "LZMA",
            Self::Bzip2 => "bzip2",
            Self::Lzo => "LZO",
            Self::None => "uncompressed",
        })
    }
}

/// The compression by the payload's first bytes (as Linux, lib/decompress.c), `None` where they are unknown.
pub(super) fn detect(payload: &[u8]) -> Option<Compression> {
    let known: [(&[u8], Compression); 9] = [
        (&[0x1f, 0x8b], Compression::Gzip),
        (&[0x1f, 0x9e], Compression::Gzip),
        (&[0x02, 0x21, 0x4c, 0x18], Compression::Lz4),
        (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], Compression::Xz),
        (&[0x5d, 0x00, 0x00], Compression::Lzma),
        (b"BZh", Compression::Bzip2),
        (&[0x89, b'L', b'Z', b'O'], Compression::Lzo),
        (b"\x7fELF", Compression::None),
    ];
    known.iter().find(|(magic, _)| payload.starts_with(magic)).map(|&(_, c)| c)
}

/// The first 64 bytes of the unpacked kernel, from the beginning of a payload; `None` where they cannot be had.
pub(super) fn peek(payload: &[u8]) -> Option<[u8; 64]> {
    let mut start = [0; 64];
    decoder(detect(payload)?, payload).ok()?.read_exact(&mut start).ok()?;
    Some(start)
}

/// Unpacks a payload.
pub(super) fn unpack(payload: &[u8]) -> Result<Vec<u8>, KernelError> {
    let Some(compression) = detect(payload) else {
        let start: Vec<String> = payload.iter().take(4).map(|b| format!("{b:02x}")).collect();
        return Err(KernelError::UnsupportedCompression(format!("(payload begins {})", start.join(" "))));
    };
    match compression {
        Compression::None => return Ok(payload.to_vec()),
        Compression::Lzo => return Err(unsupported_lzo()),
        _ => {}
    }
    let damaged = |why: String| KernelError::BadPayload { compression, why };
    let Some((packed, size)) = payload.split_last_chunk::<4>() else {
        return Err(damaged("it is shorter than its size field".to_owned()));
    };
    let size = u32::from_le_bytes(*size);
    if size == 0 || size > MAX_UNPACKED {
        return Err(damaged(format!("it says that it unpacks to {size} bytes; the limit is {MAX_UNPACKED}")));
    }
    // gzip's size field is part of the stream; after the others it is not, and the LZ4 format would read it as a block.
    let stream = if compression == Compression::Gzip { payload } else { packed };
    let size = u64::from(size);
    let mut unpacked = Vec::with_capacity(usize::try_from(size.min(64 << 20)).unwrap_or(0));
    decoder(compression, stream)?.take(size + 1).read_to_end(&mut unpacked).map_err(|e| damaged(e.to_string()))?;
    let got = u64::try_from(unpacked.len()).unwrap_or(u64::MAX);
    if got > size {
        return Err(damaged(format!("it unpacks to more than the {size} bytes that it says")));
    }
    if got < size {
        return Err(damaged(format!("it unpacks to {got} bytes, but says {size}")));
    }
    Ok(unpacked)
}

fn decoder<'a>(compression: Compression, stream: &'a [u8]) -> Result<Box<dyn Read + 'a>, KernelError> {
    let damaged = |why: String| KernelError::BadPayload { compression, why };
    Ok(match compression {
        Compression::Gzip => Box::new(flate2::read::GzDecoder::new(stream)),
        Compression::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(stream)),
        Compression::Zstd => Box::new(
            ruzstd::decoding::StreamingDecoder::new_with_max_window_size(stream, u64::from(MAX_UNPACKED))
                .map_err(|e| damaged(e.to_string()))?,
        ),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(stream, false, DICTIONARY_KIB)),
        Compression::Lzma => Box::new(
            lzma_rust2::LzmaReader::new_mem_limit(stream, DICTIONARY_KIB, None).map_err(|e| damaged(e.to_string()))?,
        ),
        Compression::Bzip2 => Box::new(bzip2::read::BzDecoder::new(stream)),
        Compression::Lzo => return Err(unsupported_lzo()),
        Compression::None => Box::new(stream),
    })
}

fn unsupported_lzo() -> KernelError {
    KernelError::UnsupportedCompression("LZO".to_owned())
}
