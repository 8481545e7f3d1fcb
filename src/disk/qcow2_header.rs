//! The header of a qcow2 file, looked at before anything trusts it (QEMU's `docs/interop/qcow2.txt`, "Header").
//!
//! What this lets through is bounded: tables lie inside the file and have no more bytes than QEMU itself would read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{MAX_SIZE, SECTOR_SIZE};

/// Bytes of the header that are looked at: those of version 3 with the compression type.
const LEN: usize = 112;

/// Most bytes of the first-level table, as QEMU has it.
const MAX_L1_BYTES: u64 = 32 << 20;

/// Most bytes of the table of refcount blocks, as QEMU has it.
const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;

/// Longest name of a backing file, in bytes.
const MAX_BACKING_NAME: usize = 1023;

/// Makes one qcow2 file without any of what is refused here.
const CONVERT: &str = "qemu-img convert -O qcow2 OLD NEW makes a file without it";

/// Why a qcow2 file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// It does not start as a qcow2 file does.
    #[error("not a qcow2 file (its magic number is missing); leave out --format, or say --format raw")]
    Magic,
    /// The file ends inside the header.
    #[error("the qcow2 header is cut short; was a copy or a download broken off?")]
    Truncated,
    /// The file cannot be read.
    #[error("cannot read the qcow2 header: {0}")]
    Read(#[source] io::Error),
    /// A version that is not known.
    #[error("qcow2 version {0} is not supported, only 2 and 3 are")]
    Version(u32),
    /// Another file stands behind this one.
    #[error(
        "this qcow2 has the backing file {0:?}, and only backing files that amiboot itself made are followed; \
         qemu-img convert -O qcow2 OLD NEW makes one whole file of both"
    )]
    BackingFile(String),
    /// The content is encrypted.
    #[error("this qcow2 is encrypted (crypt_method {0}), which is not supported; {CONVERT}")]
    Encrypted(u32),
    /// A feature without which the file cannot be understood.
    #[error("this qcow2 {what} (incompatible_features {bits:#x}); {mend}")]
    Feature {
        /// All the bits of the field.
        bits: u64,
        /// What the bit says.
        what: &'static str,
        /// What makes a usable file of it.
        mend: &'static str,
    },
    /// Internal snapshots, in a file that is to be written.
    #[error(
        "this qcow2 holds {0} internal snapshots (nb_snapshots), so it cannot be written to; leave out --persist, or remove \
         them: qemu-img snapshot -d NAME FILE"
    )]
    Snapshots(u32),
    /// The end of the file is missing.
    #[error(
        "this qcow2 is cut off: data lies at byte {cluster}, and the file ends at {file_len}; was a copy or a download broken off?"
    )]
    CutOff {
        /// Where the data should be, in bytes.
        cluster: u64,
        /// Bytes that the file has.
        file_len: u64,
    },
    /// A number that cannot be.
    #[error("this qcow2 is damaged or made to harm: {field} is {value}, {limit}")]
    Field {
        /// The field, as the specification calls it.
        field: &'static str,
        /// What it says.
        value: u64,
        /// What it could say.
        limit: String,
    },
}

/// What is needed of a header that was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Bytes of a cluster: a power of two from 512 to 2 MiB.
    pub cluster_size: u64,
    /// Bytes of the disk: a multiple of 512, at most [`MAX_SIZE`].
    pub size: u64,
}

/// Where the refcounts are, for [`check_refcounts`].
struct Refcounts {
    cluster_size: u64,
    /// Where the table of refcount blocks is, and its bytes.
    table: (u64, u64),
    /// Bits of one refcount.
    bits: u64,
}

/// The bytes of the header, read as big-endian numbers.
struct Bytes([u8; LEN]);

impl Bytes {
    fn u32(&self, at: usize) -> u32 {
        self.0.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u32::from_be_bytes)
    }

    fn u64(&self, at: usize) -> u64 {
        self.0.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u64::from_be_bytes)
    }
}

/// Looks at the header of `file`, which has `file_len` bytes.
///
/// # Errors
/// If any of it is not supported, or is not possible; with `write`, also what is safe only to read.
pub(super) fn check(file: &File, file_len: u64, write: bool) -> Result<Header, HeaderError> {
    let bytes = read(file, file_len)?;
    let version = bytes.u32(4);
    if !(2..=3).contains(&version) {
        return Err(HeaderError::Version(version));
    }
    let backing = bytes.u64(8);
    if backing != 0 {
        let len = usize::try_from(bytes.u32(16)).unwrap_or(usize::MAX).min(MAX_BACKING_NAME);
        let mut name = vec![0; len];
        // The name is for the message only: what cannot be read of it is left out.
        let have = file.read_at(&mut name, backing.min(i64::MAX.unsigned_abs())).unwrap_or(0);
        name.truncate(have);
        return Err(HeaderError::BackingFile(String::from_utf8_lossy(&name).into_owned()));
    }
    let crypt_method = bytes.u32(32);
    if crypt_method != 0 {
        return Err(HeaderError::Encrypted(crypt_method));
    }
    if version == 3 {
        check_features(bytes.u64(72))?;
        check_field("header_length", bytes.u32(100), (104..=512).contains(&bytes.u32(100)), "possible are 104 to 512")?;
        // 1 << refcount_order is the width of a refcount in bits.
        check_field("refcount_order", bytes.u32(96), bytes.u32(96) <= 6, "possible are 0 to 6")?;
    }
    let cluster_bits = bytes.u32(20);
    check_field("cluster_bits", cluster_bits, (9..=21).contains(&cluster_bits), "possible are 9 to 21")?;
    let cluster_size = 1u64 << cluster_bits;
    let size = bytes.u64(24);
    let possible = size > 0 && size <= MAX_SIZE && size.is_multiple_of(SECTOR_SIZE);
    check_field("size", size, possible, "possible is a multiple of 512 up to 64 TiB")?;
    check_tables(&bytes, file_len, size, cluster_size)?;
    check_clusters(file, file_len, &bytes, cluster_size)?;
    let snapshots = bytes.u32(60);
    if write && snapshots > 0 {
        return Err(HeaderError::Snapshots(snapshots));
    }
    if write {
        let table = (bytes.u64(48), u64::from(bytes.u32(56)) * cluster_size);
        // Version 2 has no such field: its refcounts have 16 bits.
        let bits = if version == 3 { 1 << bytes.u32(96) } else { 16 };
        check_refcounts(file, file_len, &Refcounts { cluster_size, table, bits })?;
    }
    Ok(Header { version, cluster_size, size })
}

/// Refuses refcount blocks from which no cluster could be allocated in bounded time and memory: what a writer searches
/// must lie inside the file, each block once, and must count nothing beyond the end of the file.
fn check_refcounts(file: &File, file_len: u64, refcounts: &Refcounts) -> Result<(), HeaderError> {
    let &Refcounts { cluster_size, table: (offset, len), bits } = refcounts;
    // Checked before: at most 8 MiB, inside the file.
    let mut table = vec![0; usize::try_from(len).unwrap_or_default()];
    file.read_exact_at(&mut table, offset).map_err(HeaderError::Read)?;
    let bytes_counted_by_block = (cluster_size * 8 / bits).saturating_mul(cluster_size);
    let blocks: Vec<u64> = table.as_chunks().0.iter().map(|entry| u64::from_be_bytes(*entry)).collect();
    let mut used: Vec<u64> = Vec::new();
    for (block, index) in blocks.iter().copied().zip(0u64..) {
        // The first block counts the header, so it must be there.
        if block == 0 && index > 0 {
            continue;
        }
        check_place("refcount table entry", block, cluster_size, file_len, cluster_size)?;
        if index.saturating_mul(bytes_counted_by_block) >= file_len {
            let limit = format!("which counts clusters beyond the end of the file, {file_len}");
            return Err(HeaderError::Field { field: "refcount table entry", value: block, limit });
        }
        used.push(block);
    }
    used.sort_unstable();
    match used.windows(2).find(|pair| pair.first() == pair.last()).and_then(<[u64]>::first) {
        None => Ok(()),
        Some(twice) => {
            let limit = "which is there twice".to_owned();
            Err(HeaderError::Field { field: "refcount table entry", value: *twice, limit })
        }
    }
}

/// The first bytes of the file; version 2 has fewer than are looked at, so what is missing reads as zero.
fn read(file: &File, file_len: u64) -> Result<Bytes, HeaderError> {
    let mut bytes = [0; LEN];
    let have = usize::try_from(file_len).unwrap_or(LEN).min(LEN);
    file.read_exact_at(bytes.get_mut(..have).unwrap_or_default(), 0).map_err(HeaderError::Read)?;
    if !bytes.starts_with(b"QFI\xfb") {
        return Err(HeaderError::Magic);
    }
    if have < LEN { Err(HeaderError::Truncated) } else { Ok(Bytes(bytes)) }
}

/// Refuses every bit of `incompatible_features`; the bits that are known say what they are.
fn check_features(bits: u64) -> Result<(), HeaderError> {
    const REPAIR: &str = "qemu-img check -r all FILE repairs it";
    const KNOWN: [(u64, &str, &str); 5] = [
        (1 << 1, "is marked as corrupt", REPAIR),
        (1 << 0, "was not closed in order, so that its reference counts may be wrong", REPAIR),
        (1 << 2, "keeps its data in another file", CONVERT),
        (1 << 3, "is not compressed with zlib but otherwise (zstd)", CONVERT),
        (1 << 4, "has extended second-level table entries", CONVERT),
    ];
    if bits == 0 {
        return Ok(());
    }
    let known = KNOWN.iter().find(|(bit, ..)| bits & bit != 0);
    let (_, what, mend) = known.copied().unwrap_or((0, "needs a feature that is not known here", CONVERT));
    Err(HeaderError::Feature { bits, what, mend })
}

/// Refuses tables that are too large, too small for the disk, or not inside the file.
fn check_tables(bytes: &Bytes, file_len: u64, size: u64, cluster_size: u64) -> Result<(), HeaderError> {
    let l1_size = u64::from(bytes.u32(36));
    let disk_bytes_per_entry = cluster_size * (cluster_size / 8);
    let needed = size.div_ceil(disk_bytes_per_entry);
    let most = MAX_L1_BYTES / 8;
    if l1_size < needed || l1_size > most {
        let limit = format!("possible are {needed} (for a disk of {size} bytes) to {most}");
        return Err(HeaderError::Field { field: "l1_size", value: l1_size, limit });
    }
    check_place("l1_table_offset", bytes.u64(40), l1_size * 8, file_len, cluster_size)?;
    let clusters = u64::from(bytes.u32(56));
    let most = (MAX_REFCOUNT_TABLE_BYTES / cluster_size).max(1);
    if clusters == 0 || clusters > most {
        let limit = format!("possible are 1 to {most}");
        return Err(HeaderError::Field { field: "refcount_table_clusters", value: clusters, limit });
    }
    check_place("refcount_table_offset", bytes.u64(48), clusters * cluster_size, file_len, cluster_size)
}

/// Second-level tables that are looked into, so that opening stays quick however large the disk is. A table of the usual
/// 64 KiB stands for 512 MiB of disk.
const MAX_L2_LOOKED_INTO: usize = 128;

/// Refuses a file that was cut off: clusters that lie wholly beyond its end would read as zeroes. The first tables are
/// looked into, and those of a cut-off file are seldom all whole.
fn check_clusters(file: &File, file_len: u64, bytes: &Bytes, cluster_size: u64) -> Result<(), HeaderError> {
    /// Bits 9 to 55 of a table entry: where in the file. Bit 62 of an entry for data: it is compressed, and the place is
    /// written otherwise (QEMU, docs/interop/qcow2.txt, "Cluster mapping").
    const PLACE: u64 = 0x00ff_ffff_ffff_fe00;
    const COMPRESSED: u64 = 1 << 62;
    // Checked before: at most 32 MiB, inside the file.
    let mut l1 = vec![0; usize::try_from(u64::from(bytes.u32(36)) * 8).unwrap_or_default()];
    file.read_exact_at(&mut l1, bytes.u64(40)).map_err(HeaderError::Read)?;
    let mut l2 = vec![0; usize::try_from(cluster_size).unwrap_or_default()];
    let entries = |table: &[u8]| -> Vec<u64> { table.as_chunks().0.iter().map(|e| u64::from_be_bytes(*e)).collect() };
    let places = entries(&l1).into_iter().map(|entry| entry & PLACE).filter(|place| *place != 0);
    for place in places.take(MAX_L2_LOOKED_INTO) {
        check_place("l1_table entry", place, cluster_size, file_len, cluster_size)?;
        file.read_exact_at(&mut l2, place).map_err(HeaderError::Read)?;
        let beyond = entries(&l2).into_iter().find(|entry| entry & COMPRESSED == 0 && entry & PLACE >= file_len);
        if let Some(entry) = beyond {
            return Err(HeaderError::CutOff { cluster: entry & PLACE, file_len });
        }
    }
    Ok(())
}

/// Refuses a table that does not start on a cluster after the header, or that ends beyond the file.
fn check_place(
    field: &'static str,
    offset: u64,
    len: u64,
    file_len: u64,
    cluster_size: u64,
) -> Result<(), HeaderError> {
    let end = offset.checked_add(len);
    if offset >= cluster_size && offset.is_multiple_of(cluster_size) && end.is_some_and(|end| end <= file_len) {
        return Ok(());
    }
    let limit = format!(
        "possible are multiples of {cluster_size} from there on whose {len} bytes lie inside the file of {file_len} bytes"
    );
    Err(HeaderError::Field { field, value: offset, limit })
}

fn check_field(field: &'static str, value: impl Into<u64>, possible: bool, limit: &str) -> Result<(), HeaderError> {
    if possible { Ok(()) } else { Err(HeaderError::Field { field, value: value.into(), limit: limit.to_owned() }) }
}
