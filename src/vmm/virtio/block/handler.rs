//! Does block requests: data moves straight between the disk and guest memory.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_WRITE_ZEROES};
use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, Permissions, VolatileSlice};

use super::super::chain::{Buffers, Segment, slices, total};
use super::super::worker::QueueHandler;
use super::Shared;
use super::request::{Answerable, Limits, Operation, Range, Request, Status, parse};
use crate::vmm::memory::GuestMemory;

/// Serves one queue of a block device.
pub struct Handler {
    shared: Arc<Shared>,
    discard: bool,
    write_zeroes: bool,
    /// Without `VIRTIO_BLK_F_FLUSH` the driver cannot ask for durability, so every write must have it when it is
    /// answered (section 5.2.6.2).
    write_through: bool,
}

/// A request that was done: the bytes put into the driver's buffers before the status.
type Done = Result<u64, Status>;

impl Handler {
    pub fn new(shared: Arc<Shared>, features: u64) -> Self {
        let has = |bit: u32| features & (1 << bit) != 0;
        Self {
            shared,
            discard: has(VIRTIO_BLK_F_DISCARD),
            write_zeroes: has(VIRTIO_BLK_F_WRITE_ZEROES),
            write_through: !has(VIRTIO_BLK_F_FLUSH),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            size: self.shared.disk.size(),
            read_only: self.shared.disk.is_read_only(),
            discard: self.discard,
            write_zeroes: self.write_zeroes,
        }
    }

    fn execute(&self, memory: &GuestMemory, request: &Request) -> Done {
        let counters = &self.shared.counters;
        let data = &request.data;
        match &request.operation {
            Operation::Read(offset) => {
                let written = self.read(memory, *offset, data)?;
                count(&counters.reads);
                counters.read_bytes.fetch_add(written, Ordering::Relaxed);
                Ok(written)
            }
            Operation::Write(offset) => {
                self.write(memory, *offset, data)?;
                count(&counters.writes);
                counters.written_bytes.fetch_add(total(data), Ordering::Relaxed);
                Ok(0)
            }
            Operation::Flush => {
                self.host("flush", 0, self.shared.disk.flush())?;
                count(&counters.flushes);
                Ok(0)
            }
            Operation::GetId => {
                let written = self.put_serial(memory, data)?;
                count(&counters.get_ids);
                Ok(written)
            }
            Operation::Discard(ranges) => {
                let disk = &self.shared.disk;
                self.each("discard", ranges, |range| disk.discard(range.offset, range.len))?;
                count(&counters.discards);
                Ok(0)
            }
            Operation::WriteZeroes(ranges) => {
                let disk = &self.shared.disk;
                self.each("write zeroes", ranges, |range| disk.write_zeroes(range.offset, range.len, range.unmap))?;
                count(&counters.write_zeroes);
                Ok(0)
            }
        }
    }

    fn read(&self, memory: &GuestMemory, offset: u64, data: &[Segment]) -> Done {
        let bufs = self.memory_of(memory, data, Permissions::Write)?;
        self.host("read", offset, self.shared.disk.read_at(offset, &bufs))?;
        Ok(total(data))
    }

    fn write(&self, memory: &GuestMemory, offset: u64, data: &[Segment]) -> Result<(), Status> {
        let bufs = self.memory_of(memory, data, Permissions::Read)?;
        self.host("write", offset, self.shared.disk.write_at(offset, &bufs))?;
        self.settle(offset)
    }

    /// Makes a change durable where the driver could not ask for it.
    fn settle(&self, offset: u64) -> Result<(), Status> {
        if self.write_through { self.host("flush after write", offset, self.shared.disk.flush()) } else { Ok(()) }
    }

    fn each(&self, what: &str, ranges: &[Range], act: impl Fn(&Range) -> io::Result<()>) -> Result<(), Status> {
        for range in ranges.iter().filter(|range| range.len > 0) {
            self.host(what, range.offset, act(range))?;
        }
        self.settle(ranges.first().map_or(0, |range| range.offset))
    }

    /// The serial number, as much of it as there is room for.
    fn put_serial(&self, memory: &GuestMemory, data: &[Segment]) -> Done {
        let mut rest = self.shared.serial.as_slice();
        let mut written = 0;
        for slice in self.memory_of(memory, data, Permissions::Write)? {
            let (now, later) = rest.split_at(rest.len().min(slice.len()));
            slice.write_slice(now, 0).map_err(|_| Status::IoErr)?;
            written += now.len() as u64;
            rest = later;
        }
        Ok(written)
    }

    fn memory_of<'m>(
        &self,
        memory: &'m GuestMemory,
        data: &[Segment],
        access: Permissions,
    ) -> Result<Vec<VolatileSlice<'m>>, Status> {
        slices(memory, data, access).ok_or_else(|| {
            count(&self.shared.counters.refused);
            Status::IoErr
        })
    }

    fn host(&self, what: &str, offset: u64, result: io::Result<()>) -> Result<(), Status> {
        result.map_err(|error| {
            self.shared.host_error(what, offset, &error);
            Status::IoErr
        })
    }
}

impl QueueHandler for Handler {
    fn serve(&mut self, memory: &GuestMemory, chain: DescriptorChain<&GuestMemory>) -> u32 {
        let counters = &self.shared.counters;
        let Some(answerable) = Buffers::collect(chain).ok().and_then(|buffers| parse(memory, buffers, self.limits()))
        else {
            count(&counters.malformed);
            return 0;
        };
        let Answerable { status, writable_len, request } = answerable;
        if request.is_err() {
            count(&counters.refused);
        }
        let done = request.and_then(|request| self.execute(memory, &request));
        let (byte, written) = match done {
            Ok(written) => (Status::Ok.byte(), written),
            Err(refusal) => (refusal.byte(), 0),
        };
        if memory.write_obj(byte, status).is_err() {
            // Checked when the request was parsed, and guest memory does not shrink.
            count(&counters.malformed);
            return 0;
        }
        // The used length counts an unbroken run from the first writable byte (section 2.7.8.2): the status is part of
        // it only where everything before it was written too.
        let used = if written == writable_len { written.saturating_add(1) } else { written };
        u32::try_from(used).unwrap_or(u32::MAX)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
