//! Does block requests: data moves straight between the disk and guest memory.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_WRITE_ZEROES};
use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, Permissions, VolatileSlice};

use super::super::chain::{Buffers, Segment, slices, total};
use super::super::worker::{QueueHandler, Used};
use super::Shared;
use super::request::{Answerable, Limits, Operation, Range, Request, Status, parse};
use crate::disk::{Disk, DiskQueue, Ended, Engine};
use crate::vmm::memory::GuestMemory;

/// Serves one queue of a block device.
pub struct Handler {
    shared: Arc<Shared>,
    disk: DiskQueue<Begun>,
    /// Kept for its room.
    ended: Vec<Ended<Begun>>,
    discard: bool,
    write_zeroes: bool,
    /// Without `VIRTIO_BLK_F_FLUSH` the driver cannot ask for durability, so every write must have it when it is
    /// answered (section 5.2.6.2).
    write_through: bool,
}

/// A request that was done: the bytes put into the driver's buffers before the status.
type Done = Result<u64, Status>;

/// How a request is answered.
#[derive(Clone, Copy, Debug)]
struct Answer {
    head: u16,
    /// Where the status goes.
    status: GuestAddress,
    /// Bytes that the device may write before the status.
    writable_len: u64,
}

/// What the disk was asked for.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Read { offset: u64, len: u64 },
    Write { offset: u64, len: u64 },
    Flush,
}

/// A request that the disk has begun.
#[derive(Clone, Copy, Debug)]
struct Begun {
    answer: Answer,
    asked: Asked,
}

impl Handler {
    pub fn new(shared: Arc<Shared>, memory: &GuestMemory, features: u64, engine: Engine) -> Self {
        let has = |bit: u32| features & (1 << bit) != 0;
        Self {
            disk: DiskQueue::new(shared.disk.clone(), memory, engine),
            ended: Vec::new(),
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

    /// Does a request, or begins it and gives nothing.
    fn execute(&mut self, memory: &GuestMemory, request: &Request, answer: Answer) -> Option<Done> {
        let ended = match &request.operation {
            Operation::Read(offset) => {
                let bufs = match self.memory_of(memory, &request.data, Permissions::Write) {
                    Ok(bufs) => bufs,
                    Err(status) => return Some(Err(status)),
                };
                let asked = Asked::Read { offset: *offset, len: total(&request.data) };
                self.disk.read(Begun { answer, asked }, *offset, &bufs)
            }
            Operation::Write(offset) if !self.write_through => {
                let bufs = match self.memory_of(memory, &request.data, Permissions::Read) {
                    Ok(bufs) => bufs,
                    Err(status) => return Some(Err(status)),
                };
                let asked = Asked::Write { offset: *offset, len: total(&request.data) };
                self.disk.write(Begun { answer, asked }, *offset, &bufs)
            }
            Operation::Flush => self.disk.flush(Begun { answer, asked: Asked::Flush }),
            _ => return Some(self.execute_now(memory, request)),
        };
        ended.map(|(begun, result)| self.conclude(begun.asked, result))
    }

    /// What the disk has ended.
    fn conclude(&self, asked: Asked, result: io::Result<()>) -> Done {
        let counters = &self.shared.counters;
        match asked {
            Asked::Read { offset, len } => {
                self.host("read", offset, result)?;
                count(&counters.reads);
                counters.read_bytes.fetch_add(len, Ordering::Relaxed);
                Ok(len)
            }
            Asked::Write { offset, len } => {
                self.host("write", offset, result)?;
                count(&counters.writes);
                counters.written_bytes.fetch_add(len, Ordering::Relaxed);
                Ok(0)
            }
            Asked::Flush => {
                self.host("flush", 0, result)?;
                count(&counters.flushes);
                Ok(0)
            }
        }
    }

    /// What is never begun.
    fn execute_now(&mut self, memory: &GuestMemory, request: &Request) -> Done {
        let shared = self.shared.clone();
        let counters = &shared.counters;
        let data = &request.data;
        match &request.operation {
            // Both are always begun.
            Operation::Read(_) | Operation::Flush => Err(Status::Unsupported),
            Operation::Write(offset) => {
                let bufs = self.memory_of(memory, data, Permissions::Read)?;
                let result = self.disk.at_once().and_then(|disk| disk.write_at(*offset, &bufs));
                let done = self.conclude(Asked::Write { offset: *offset, len: total(data) }, result)?;
                self.settle(*offset)?;
                Ok(done)
            }
            Operation::GetId => {
                let written = self.put_serial(memory, data)?;
                count(&counters.get_ids);
                Ok(written)
            }
            Operation::Discard(ranges) => {
                self.each("discard", ranges, |disk, range| disk.discard(range.offset, range.len))?;
                count(&counters.discards);
                Ok(0)
            }
            Operation::WriteZeroes(ranges) => {
                let zero = |disk: &dyn Disk, range: &Range| disk.write_zeroes(range.offset, range.len, range.unmap);
                self.each("write zeroes", ranges, zero)?;
                count(&counters.write_zeroes);
                Ok(0)
            }
        }
    }

    /// Makes a change durable where the driver could not ask for it.
    fn settle(&self, offset: u64) -> Result<(), Status> {
        if self.write_through { self.host("flush after write", offset, self.shared.disk.flush()) } else { Ok(()) }
    }

    fn each<F>(&mut self, what: &str, ranges: &[Range], act: F) -> Result<(), Status>
    where
        F: Fn(&dyn Disk, &Range) -> io::Result<()>,
    {
        for range in ranges.iter().filter(|range| range.len > 0) {
            let result = self.disk.at_once().and_then(|disk| act(disk, range));
            self.host(what, range.offset, result)?;
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

    /// Writes the status of a request and gives its used length.
    fn answer(&self, memory: &GuestMemory, answer: Answer, done: Done) -> u32 {
        let (byte, written) = match done {
            Ok(written) => (Status::Ok.byte(), written),
            Err(refusal) => (refusal.byte(), 0),
        };
        if memory.write_obj(byte, answer.status).is_err() {
            // Checked when the request was parsed, and guest memory does not shrink.
            count(&self.shared.counters.malformed);
            return 0;
        }
        // The used length counts an unbroken run from the first writable byte (section 2.7.8.2): the status is part of
        // it only where everything before it was written too.
        let used = if written == answer.writable_len { written.saturating_add(1) } else { written };
        u32::try_from(used).unwrap_or(u32::MAX)
    }
}

impl QueueHandler for Handler {
    fn serve(&mut self, memory: &GuestMemory, chain: DescriptorChain<&GuestMemory>) -> Option<u32> {
        let head = chain.head_index();
        let Some(answerable) = Buffers::collect(chain).ok().and_then(|buffers| parse(memory, buffers, self.limits()))
        else {
            count(&self.shared.counters.malformed);
            return Some(0);
        };
        let Answerable { status, writable_len, request } = answerable;
        let answer = Answer { head, status, writable_len };
        let done = match request {
            Ok(request) => self.execute(memory, &request, answer)?,
            Err(refusal) => {
                count(&self.shared.counters.refused);
                Err(refusal)
            }
        };
        Some(self.answer(memory, answer, done))
    }

    fn is_full(&self) -> bool {
        self.disk.is_full()
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.disk.event()
    }

    fn finish(&mut self, memory: &GuestMemory, all: bool, used: &mut Vec<Used>) -> io::Result<()> {
        let mut ended = std::mem::take(&mut self.ended);
        let result = if all { self.disk.settle(&mut ended) } else { self.disk.reap(&mut ended) };
        used.extend(ended.drain(..).map(|(Begun { answer, asked }, result)| {
            let done = self.conclude(asked, result);
            (answer.head, self.answer(memory, answer, done))
        }));
        self.ended = ended;
        result
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
