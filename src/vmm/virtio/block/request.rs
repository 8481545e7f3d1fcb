//! Block requests (virtio 1.2, section 5.2.6): from the buffers of a chain to something that can be done, or the status
//! that refuses it. Nothing here touches a disk.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use vm_memory::GuestAddress;

use super::super::chain::{Buffers, Segment, take_front, take_last_byte, total};
use crate::disk::SECTOR_SIZE;
use crate::vmm::memory::GuestMemory;

/// The most sectors that one range of a discard may have: 4 GiB.
pub const MAX_DISCARD_SECTORS: u32 = 1 << 23;
/// The most ranges that one discard may have.
pub const MAX_DISCARD_RANGES: u32 = 32;
/// The most sectors that one range to be zeroed may have: 256 MiB, because a host may have to write them all.
pub const MAX_ZEROES_SECTORS: u32 = 1 << 19;
/// The most ranges that one request to write zeroes may have.
pub const MAX_ZEROES_RANGES: u32 = 1;

const HEADER_SIZE: usize = 16;
const RANGE_SIZE: usize = 16;

/// How a request ended (section 5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `VIRTIO_BLK_S_OK`
    Ok,
    /// `VIRTIO_BLK_S_IOERR`
    IoErr,
    /// `VIRTIO_BLK_S_UNSUPP`
    Unsupported,
}

impl Status {
    /// The byte that the driver reads.
    #[must_use]
    pub fn byte(self) -> u8 {
        let code = match self {
            Self::Ok => VIRTIO_BLK_S_OK,
            Self::IoErr => VIRTIO_BLK_S_IOERR,
            Self::Unsupported => VIRTIO_BLK_S_UNSUPP,
        };
        u8::try_from(code).unwrap_or(u8::MAX)
    }
}

/// A run of bytes of the disk, wholly inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Whether its room may be given back (only for zeroes).
    pub unmap: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read from this byte of the disk into [`Request::data`].
    Read(u64),
    /// Write [`Request::data`] to this byte of the disk.
    Write(u64),
    /// Make earlier writes durable.
    Flush,
    /// Put the serial number into [`Request::data`].
    GetId,
    /// Give these ranges back.
    Discard(Vec<Range>),
    /// Make these ranges read as zero.
    WriteZeroes(Vec<Range>),
}

/// What a disk can do, for the checks.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Size of the disk in bytes.
    pub size: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether `VIRTIO_BLK_F_DISCARD` was agreed on.
    pub discard: bool,
    /// Whether `VIRTIO_BLK_F_WRITE_ZEROES` was agreed on.
    pub write_zeroes: bool,
}

/// A request, checked but for whether its segments are memory.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// What is to be done.
    pub operation: Operation,
    /// The data buffers that go with it; a whole number of sectors for reads and writes.
    pub data: Vec<Segment>,
}

/// A chain with a place for its status: it can be answered, whatever else is wrong with it.
#[derive(Debug)]
pub struct Answerable {
    /// Where the status byte goes: the last byte that the device may write.
    pub status: GuestAddress,
    /// Bytes that the device may write before the status byte.
    pub writable_len: u64,
    /// The request, or the status that refuses it.
    pub request: Result<Request, Status>,
}

/// Reads a request out of a chain's buffers. Where header, data and status lie in which buffers is the driver's choice.
///
/// `None` where there is no place for a status.
#[must_use]
pub fn parse(memory: &GuestMemory, mut buffers: Buffers, limits: Limits) -> Option<Answerable> {
    let status = take_last_byte(memory, &mut buffers.writable)?;
    let writable_len = total(&buffers.writable);
    Some(Answerable { status, writable_len, request: parse_request(memory, buffers, limits) })
}

fn parse_request(memory: &GuestMemory, buffers: Buffers, limits: Limits) -> Result<Request, Status> {
    let Buffers { mut readable, writable } = buffers;
    let mut header = [0; HEADER_SIZE];
    take_front(memory, &mut readable, &mut header).ok_or(Status::IoErr)?;
    // struct virtio_blk_req: le32 type, le32 reserved, le64 sector.
    let (kind, sector) = (le32(&header, 0), le64(&header, 8));
    let request = |operation, data| Ok(Request { operation, data });
    match kind {
        VIRTIO_BLK_T_IN => request(Operation::Read(data_offset(sector, &writable, limits)?), writable),
        VIRTIO_BLK_T_OUT if limits.read_only => Err(Status::IoErr),
        VIRTIO_BLK_T_OUT => request(Operation::Write(data_offset(sector, &readable, limits)?), readable),
        VIRTIO_BLK_T_FLUSH => request(Operation::Flush, Vec::new()),
        VIRTIO_BLK_T_GET_ID => request(Operation::GetId, writable),
        VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES if limits.read_only => Err(Status::IoErr),
        VIRTIO_BLK_T_DISCARD if limits.discard => {
            let rules = RangeRules { count: MAX_DISCARD_RANGES, sectors: MAX_DISCARD_SECTORS, flags: 0 };
            request(Operation::Discard(rules.parse(memory, readable, limits.size)?), Vec::new())
        }
        VIRTIO_BLK_T_WRITE_ZEROES if limits.write_zeroes => {
            let rules = RangeRules {
                count: MAX_ZEROES_RANGES,
                sectors: MAX_ZEROES_SECTORS,
                flags: VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
            };
            request(Operation::WriteZeroes(rules.parse(memory, readable, limits.size)?), Vec::new())
        }
        _ => Err(Status::Unsupported),
    }
}

/// Where on the disk the data of a read or write begins.
fn data_offset(sector: u64, data: &[Segment], limits: Limits) -> Result<u64, Status> {
    let len = total(data);
    if !len.is_multiple_of(SECTOR_SIZE) {
        return Err(Status::IoErr);
    }
    inside(sector, len, limits.size)
}

/// The offset in bytes of `sector`, if `len` bytes from there on are inside the disk.
fn inside(sector: u64, len: u64, size: u64) -> Result<u64, Status> {
    let offset = sector.checked_mul(SECTOR_SIZE).ok_or(Status::IoErr)?;
    let end = offset.checked_add(len).ok_or(Status::IoErr)?;
    if end <= size { Ok(offset) } else { Err(Status::IoErr) }
}

/// What the ranges of a discard, or of zeroes, must keep to.
struct RangeRules {
    count: u32,
    sectors: u32,
    flags: u32,
}

impl RangeRules {
    /// All ranges, or the status that refuses them all: nothing is done where any is wrong.
    fn parse(&self, memory: &GuestMemory, mut data: Vec<Segment>, size: u64) -> Result<Vec<Range>, Status> {
        let len = total(&data);
        let count = len / RANGE_SIZE as u64;
        if count == 0 || count > u64::from(self.count) || !len.is_multiple_of(RANGE_SIZE as u64) {
            return Err(Status::IoErr);
        }
        (0..count)
            .map(|_| {
                let mut raw = [0; RANGE_SIZE];
                take_front(memory, &mut data, &mut raw).ok_or(Status::IoErr)?;
                self.range(&raw, size)
            })
            .collect()
    }

    /// struct virtio_blk_discard_write_zeroes: le64 sector, le32 `num_sectors`, le32 flags.
    fn range(&self, raw: &[u8; RANGE_SIZE], size: u64) -> Result<Range, Status> {
        let (sector, sectors, flags) = (le64(raw, 0), le32(raw, 8), le32(raw, 12));
        if flags & !self.flags != 0 {
            return Err(Status::Unsupported);
        }
        if sectors > self.sectors {
            return Err(Status::IoErr);
        }
        let len = u64::from(sectors) * SECTOR_SIZE;
        Ok(Range { offset: inside(sector, len, size)?, len, unmap: flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 })
    }
}

fn le32(raw: &[u8; 16], at: usize) -> u32 {
    raw.get(at..).and_then(<[u8]>::first_chunk).copied().map_or(0, u32::from_le_bytes)
}

fn le64(raw: &[u8; 16], at: usize) -> u64 {
    raw.get(at..).and_then(<[u8]>::first_chunk).copied().map_or(0, u64::from_le_bytes)
}
