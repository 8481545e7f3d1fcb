//! The NVM command set (section 6): data moves straight between the disk and guest memory.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use vm_memory::Permissions;

use super::command::{Command, Outcome, Status};
use super::counters::NvmeCounters;
use super::{BROADCAST, MAX_TRANSFER, NAMESPACE, Shared, prp};
use crate::disk::{DiskQueue, SECTOR_SIZE};

/// A command that the disk may have begun.
#[derive(Clone, Copy, Debug)]
pub struct InFlight {
    /// Its submission queue.
    pub queue: u16,
    /// The queue that its completion goes to.
    pub completion: u16,
    /// What it is.
    pub command: Command,
}

/// Opcodes (figure 346).
pub mod opcode {
    pub const FLUSH: u8 = 0x00;
    pub const WRITE: u8 = 0x01;
    pub const READ: u8 = 0x02;
    pub const COMPARE: u8 = 0x05;
    pub const WRITE_ZEROES: u8 = 0x08;
    pub const DATASET_MANAGEMENT: u8 = 0x09;
}

/// Bytes of a range of Dataset Management.
const RANGE_LEN: usize = 16;
/// Force Unit Access: durable when answered (double word 12).
const FORCE_UNIT_ACCESS: u32 = 1 << 30;
/// Write Zeroes may deallocate (double word 12).
const DEALLOCATE_ZEROES: u32 = 1 << 25;
/// Dataset Management is to deallocate (double word 11).
const DEALLOCATE: u32 = 1 << 2;

/// Bytes of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    offset: u64,
    len: u64,
}

impl Extent {
    /// # Errors
    /// [`Status::LBA_OUT_OF_RANGE`] where it does not lie inside the disk.
    fn new(shared: &Shared, block: u64, blocks: u64) -> Result<Self, Status> {
        let end = block.checked_add(blocks).filter(|&end| end <= shared.disk.size() / SECTOR_SIZE);
        end.ok_or(Status::LBA_OUT_OF_RANGE)?;
        Ok(Self { offset: block * SECTOR_SIZE, len: blocks * SECTOR_SIZE })
    }

    /// The blocks that a command names (section 6.9, starting LBA and zero-based number).
    fn of(shared: &Shared, command: &Command) -> Result<Self, Status> {
        Self::new(shared, command.long(10), u64::from(command.halves(12).0) + 1)
    }

    /// The same for a command with data.
    fn of_transfer(shared: &Shared, command: &Command) -> Result<Self, Status> {
        let extent = Self::of(shared, command)?;
        if extent.len > MAX_TRANSFER { Err(Status::INVALID_FIELD) } else { Ok(extent) }
    }
}

/// Does a command of an I/O queue; or begins it, to end as `begun` by the disk, and gives nothing. Without the write cache
/// every change is durable when it is answered.
///
/// # Errors
/// The [`Status`] that refuses it, or the host's failure.
pub fn execute(
    shared: &Shared,
    disk: &mut DiskQueue<InFlight>,
    write_cache: bool,
    begun: InFlight,
) -> Result<Option<u32>, Status> {
    let command = &begun.command;
    if command.opcode == opcode::FLUSH {
        command.check_flags()?;
        return begin_flush(shared, disk, begun);
    }
    if !matches!(
        command.opcode,
        opcode::READ | opcode::WRITE | opcode::COMPARE | opcode::WRITE_ZEROES | opcode::DATASET_MANAGEMENT
    ) {
        return Err(Status::INVALID_OPCODE);
    }
    command.check_flags()?;
    if command.nsid != NAMESPACE {
        return Err(Status::INVALID_NAMESPACE);
    }
    let forced = command.opcode != opcode::DATASET_MANAGEMENT && command.cdw(12) & FORCE_UNIT_ACCESS != 0;
    let durable = forced || !write_cache;
    match command.opcode {
        opcode::READ => return begin_read(shared, disk, begun),
        opcode::COMPARE => return compare(shared, command).map(|()| Some(0)),
        opcode::WRITE if !durable => return begin_write(shared, disk, begun),
        opcode::WRITE => write(shared, disk, command)?,
        opcode::WRITE_ZEROES => write_zeroes(shared, disk, command)?,
        _ => dataset_management(shared, disk, command)?,
    }
    if durable {
        flush(shared)?;
    }
    Ok(Some(0))
}

fn begin_read(shared: &Shared, disk: &mut DiskQueue<InFlight>, begun: InFlight) -> Result<Option<u32>, Status> {
    let extent = Extent::of_transfer(shared, &begun.command)?;
    let bufs = prp::slices(&shared.memory, &begun.command, extent.len, Permissions::Write)?;
    disk.read(begun, extent.offset, &bufs).map(|(begun, result)| conclude(shared, &begun.command, result)).transpose()
}

fn begin_write(shared: &Shared, disk: &mut DiskQueue<InFlight>, begun: InFlight) -> Result<Option<u32>, Status> {
    let extent = Extent::of_transfer(shared, &begun.command)?;
    check_writable(shared)?;
    let bufs = prp::slices(&shared.memory, &begun.command, extent.len, Permissions::Read)?;
    disk.write(begun, extent.offset, &bufs).map(|(begun, result)| conclude(shared, &begun.command, result)).transpose()
}

fn begin_flush(shared: &Shared, disk: &mut DiskQueue<InFlight>, begun: InFlight) -> Result<Option<u32>, Status> {
    if ![NAMESPACE, BROADCAST].contains(&begun.command.nsid) {
        return Err(Status::INVALID_NAMESPACE);
    }
    disk.flush(begun).map(|(begun, result)| conclude(shared, &begun.command, result)).transpose()
}

/// What becomes of a command that the disk has ended: a read, a write or a flush.
///
/// # Errors
/// The host's failure.
pub fn conclude(shared: &Shared, command: &Command, result: io::Result<()>) -> Outcome {
    if command.opcode == opcode::FLUSH {
        host(shared, "flush", 0, Status::WRITE_FAULT, result)?;
        NvmeCounters::count(&shared.counters.flushes);
        return Ok(0);
    }
    let extent = Extent::of_transfer(shared, command)?;
    let counters = &shared.counters;
    if command.opcode == opcode::WRITE {
        host(shared, "write", extent.offset, Status::WRITE_FAULT, result)?;
        transferred(&counters.writes, &counters.written_bytes, extent);
    } else {
        host(shared, "read", extent.offset, Status::UNRECOVERED_READ, result)?;
        transferred(&counters.reads, &counters.read_bytes, extent);
    }
    Ok(0)
}

/// Makes the disk durable.
///
/// # Errors
/// [`Status::WRITE_FAULT`] and its like.
pub fn flush(shared: &Shared) -> Result<(), Status> {
    host(shared, "flush", 0, Status::WRITE_FAULT, shared.disk.flush())
}

fn write(shared: &Shared, disk: &mut DiskQueue<InFlight>, command: &Command) -> Result<(), Status> {
    let extent = Extent::of_transfer(shared, command)?;
    check_writable(shared)?;
    let bufs = prp::slices(&shared.memory, command, extent.len, Permissions::Read)?;
    let result = disk.at_once().and_then(|disk| disk.write_at(extent.offset, &bufs));
    host(shared, "write", extent.offset, Status::WRITE_FAULT, result)?;
    transferred(&shared.counters.writes, &shared.counters.written_bytes, extent);
    Ok(())
}

fn compare(shared: &Shared, command: &Command) -> Result<(), Status> {
    let extent = Extent::of_transfer(shared, command)?;
    let len = usize::try_from(extent.len).map_err(|_| Status::INVALID_FIELD)?;
    let (mut theirs, mut ours) = (vec![0; len], vec![0; len]);
    prp::take(&shared.memory, command, &mut theirs)?;
    let result = shared.disk.read_exact_at(extent.offset, &mut ours);
    host(shared, "read", extent.offset, Status::UNRECOVERED_READ, result)?;
    if theirs != ours {
        return Err(Status::COMPARE_FAILURE);
    }
    transferred(&shared.counters.compares, &shared.counters.read_bytes, extent);
    Ok(())
}

fn write_zeroes(shared: &Shared, disk: &mut DiskQueue<InFlight>, command: &Command) -> Result<(), Status> {
    let extent = Extent::of(shared, command)?;
    check_writable(shared)?;
    let unmap = command.cdw(12) & DEALLOCATE_ZEROES != 0;
    let result = disk.at_once().and_then(|disk| disk.write_zeroes(extent.offset, extent.len, unmap));
    host(shared, "write zeroes", extent.offset, Status::WRITE_FAULT, result)?;
    NvmeCounters::count(&shared.counters.write_zeroes);
    Ok(())
}

/// All ranges are looked at before the first is deallocated. The other attributes are hints, and are not taken.
fn dataset_management(shared: &Shared, disk: &mut DiskQueue<InFlight>, command: &Command) -> Result<(), Status> {
    let count = usize::from(command.cdw(10).to_le_bytes()[0]) + 1;
    let mut raw = vec![0; count * RANGE_LEN];
    prp::take(&shared.memory, command, &mut raw)?;
    let extents: Vec<Extent> =
        raw.as_chunks::<RANGE_LEN>().0.iter().map(|range| parse_range(shared, range)).collect::<Result<_, _>>()?;
    if command.cdw(11) & DEALLOCATE != 0 {
        check_writable(shared)?;
        for extent in extents.iter().filter(|extent| extent.len > 0) {
            let result = disk.at_once().and_then(|disk| disk.discard(extent.offset, extent.len));
            host(shared, "discard", extent.offset, Status::WRITE_FAULT, result)?;
        }
    }
    NvmeCounters::count(&shared.counters.dataset_managements);
    Ok(())
}

/// Context attributes, length in blocks, starting LBA (figure 362).
fn parse_range(shared: &Shared, range: &[u8; RANGE_LEN]) -> Result<Extent, Status> {
    let [_, _, _, _, len @ .., b0, b1, b2, b3, b4, b5, b6, b7] = range;
    let block = u64::from_le_bytes([*b0, *b1, *b2, *b3, *b4, *b5, *b6, *b7]);
    Extent::new(shared, block, u32::from_le_bytes(*len).into())
}

fn check_writable(shared: &Shared) -> Result<(), Status> {
    if shared.disk.is_read_only() { Err(Status::WRITE_PROTECTED) } else { Ok(()) }
}

fn transferred(commands: &AtomicU64, bytes: &AtomicU64, extent: Extent) {
    commands.fetch_add(1, Ordering::Relaxed);
    bytes.fetch_add(extent.len, Ordering::Relaxed);
}

/// Tells of the host's failure, and gives what the guest should see of it.
fn host(shared: &Shared, what: &str, offset: u64, fault: Status, result: io::Result<()>) -> Result<(), Status> {
    result.map_err(|error| {
        shared.host_error(what, offset, &error);
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Status::CAPACITY_EXCEEDED,
            _ => fault,
        }
    })
}
