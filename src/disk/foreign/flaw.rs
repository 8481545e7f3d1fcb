//! What can be wrong inside a file of a known format.

use std::io;

/// Why a file of a known format cannot be read. The message begins in the middle of a sentence: "this VHD ...".
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// It does not start as the format does.
    #[error("is none (no {0} is in it); leave out the format, and it is looked for")]
    Magic(&'static str),
    /// Something lies beyond the end of the file.
    #[error(
        "is cut off: {what} lies at byte {offset}, and the file ends at {file_len}; was a copy or a download broken off?"
    )]
    CutOff {
        /// What lies there.
        what: &'static str,
        /// Where, in bytes.
        offset: u64,
        /// Bytes that the file has.
        file_len: u64,
    },
    /// The sum over a structure is another than the one noted in it.
    #[error("is damaged: the checksum of its {0} is wrong; copy or download it again")]
    Checksum(&'static str),
    /// A number that cannot be.
    #[error("is damaged or made to harm: {field} is {value}, {limit}")]
    Field {
        /// The field, as the specification calls it.
        field: &'static str,
        /// What it says.
        value: u64,
        /// What it could say.
        limit: String,
    },
    /// Possible, but not supported.
    #[error("{what}, which is not supported; {mend}")]
    Unsupported {
        /// What it is or has.
        what: String,
        /// What makes a usable file of it.
        mend: &'static str,
    },
    /// A line of a text that cannot be understood.
    #[error("has a descriptor with a line that is not understood: {0:?}")]
    Line(String),
    /// Another file that it names is not used.
    #[error("names the extent {name:?}: {why}")]
    Extent {
        /// The name in it.
        name: String,
        /// Why not, and the mend.
        why: String,
    },
    /// The host refused something.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
}

impl Flaw {
    /// An error where `possible` is false.
    pub(super) fn unless(
        possible: bool,
        field: &'static str,
        value: impl Into<u64>,
        limit: impl Into<String>,
    ) -> Result<(), Self> {
        if possible { Ok(()) } else { Err(Self::Field { field, value: value.into(), limit: limit.into() }) }
    }

    /// The size of a disk that is none.
    pub(super) fn unless_size(field: &'static str, size: u64) -> Result<(), Self> {
        let possible = size > 0 && size <= crate::disk::MAX_SIZE && size.is_multiple_of(crate::disk::SECTOR_SIZE);
        Self::unless(possible, field, size, "possible is a multiple of 512 up to 64 TiB (both in bytes)")
    }
}
