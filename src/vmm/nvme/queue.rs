//! Queues in guest memory (section 4.1).

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError};

use super::command::{COMMAND_LEN, Command, Status};
use super::{MAX_ENTRIES, PAGE};
use crate::vmm::memory::GuestMemory;

/// Bytes of a completion queue entry.
const COMPLETION_LEN: u64 = 16;

/// Entries that lie one after the other in guest memory.
#[derive(Clone, Copy, Debug)]
struct Ring {
    base: u64,
    entries: u16,
    entry_len: u64,
}

impl Ring {
    /// # Errors
    /// [`Status`] where the ring is too small or too large, not on a page, or not memory.
    fn new(memory: &GuestMemory, base: u64, entries: u32, entry_len: u64) -> Result<Self, Status> {
        let entries = u16::try_from(entries).map_err(|_| Status::INVALID_QUEUE_SIZE)?;
        if !(2..=MAX_ENTRIES).contains(&entries) {
            return Err(Status::INVALID_QUEUE_SIZE);
        }
        if !base.is_multiple_of(PAGE) {
            return Err(Status::PRP_OFFSET_INVALID);
        }
        let ring = Self { base, entries, entry_len };
        let len = usize::try_from(u64::from(entries) * entry_len).map_err(|_| Status::INVALID_QUEUE_SIZE)?;
        if !GuestMemoryBackend::check_range(memory, GuestAddress(base), len) {
            return Err(Status::INVALID_FIELD);
        }
        Ok(ring)
    }

    /// Where an entry is. Does not wrap: the whole ring was found in memory.
    fn at(&self, index: u16) -> u64 {
        self.base.wrapping_add(u64::from(index) * self.entry_len)
    }

    fn next(&self, index: u16) -> u16 {
        if index + 1 < self.entries { index + 1 } else { 0 }
    }
}

/// Commands from the driver.
#[derive(Debug)]
pub struct SubmissionQueue {
    ring: Ring,
    head: u16,
    /// The queue that its completions go to.
    pub completion: u16,
}

impl SubmissionQueue {
    /// A queue of `entries` at the page `base`, whose completions go to queue `completion`.
    ///
    /// # Errors
    /// As the Create I/O Submission Queue command (section 5.4).
    pub fn new(memory: &GuestMemory, base: u64, entries: u32, completion: u16) -> Result<Self, Status> {
        Ok(Self { ring: Ring::new(memory, base, entries, COMMAND_LEN as u64)?, head: 0, completion })
    }

    /// Entries.
    pub fn entries(&self) -> u16 {
        self.ring.entries
    }

    /// The next command to be fetched.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Takes the command at the head; the caller has seen that there is one.
    ///
    /// # Errors
    /// Where the queue is not memory any more.
    pub fn fetch(&mut self, memory: &GuestMemory) -> Result<Command, GuestMemoryError> {
        let mut raw = [0; COMMAND_LEN];
        memory.read_slice(&mut raw, GuestAddress(self.ring.at(self.head)))?;
        self.head = self.ring.next(self.head);
        Ok(Command::parse(&raw))
    }
}

/// A completion, but for its phase tag.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// Command specific result.
    pub result: u32,
    /// Head of the submission queue.
    pub head: u16,
    /// Submission queue.
    pub queue: u16,
    /// Command.
    pub id: u16,
    /// How it ended.
    pub status: Status,
}

/// Completions for the driver.
#[derive(Debug)]
pub struct CompletionQueue {
    ring: Ring,
    tail: u16,
    phase: bool,
    /// Vector of its interrupt, if it has one.
    pub vector: Option<u16>,
    /// Something was posted since the last interrupt.
    pub unannounced: bool,
}

impl CompletionQueue {
    /// A queue of `entries` at the page `base`.
    ///
    /// # Errors
    /// As the Create I/O Completion Queue command (section 5.3).
    pub fn new(memory: &GuestMemory, base: u64, entries: u32, vector: Option<u16>) -> Result<Self, Status> {
        let ring = Ring::new(memory, base, entries, COMPLETION_LEN)?;
        Ok(Self { ring, tail: 0, phase: true, vector, unannounced: false })
    }

    /// Entries.
    pub fn entries(&self) -> u16 {
        self.ring.entries
    }

    /// Entries that can be posted with the driver at entry `head`: one always stays free.
    pub fn room(&self, head: u16) -> u16 {
        let entries = u32::from(self.ring.entries);
        let used = (u32::from(self.tail) + entries - u32::from(head)) % entries;
        u16::try_from(entries - 1 - used).unwrap_or(0)
    }

    /// Writes an entry; the caller has seen that there is room.
    ///
    /// # Errors
    /// Where the queue is not memory any more.
    pub fn post(&mut self, memory: &GuestMemory, completion: &Completion) -> Result<(), GuestMemoryError> {
        let at = self.ring.at(self.tail);
        let word = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        let body = [completion.result, 0, word(completion.head, completion.queue)].map(u32::to_le_bytes);
        memory.write_slice(body.as_flattened(), GuestAddress(at))?;
        // The phase tag makes the entry valid: it goes last.
        let last = word(completion.id, completion.status.field() | u16::from(self.phase));
        memory.store(last.to_le(), GuestAddress(at.wrapping_add(12)), Ordering::Release)?;
        self.tail = self.ring.next(self.tail);
        self.phase ^= self.tail == 0;
        self.unannounced = true;
        Ok(())
    }
}
