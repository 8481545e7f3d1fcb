//! A small NVMe driver as the specification describes it.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress};

pub use super::super::virtio::testing::{HOLE, ISLAND, ISLAND_LEN, MemDisk, SEAM, memory, no_log};
pub use super::admin::opcode as admin_op;
pub use super::io::opcode as io_op;
use super::*;
use crate::vmm::bus::BusDevice;

pub const CAP: u64 = 0;
pub const CC: u64 = 0x14;
pub const CSTS: u64 = 0x1c;
pub const AQA: u64 = 0x24;
pub const ASQ: u64 = 0x28;
pub const ACQ: u64 = 0x30;
/// CC with everything right: enabled, entries of 64 and 16 bytes.
pub const ENABLED: u32 = 1 | 6 << 16 | 4 << 20;

pub const VECTORS: u16 = 4;
pub const QUEUES: u16 = 4;
/// Queue `n` has its submission queue here, and a page further its completion queue.
pub const RINGS: u64 = 0x1_0000;
const RING_ROOM: u64 = 0x2000;
/// From here on memory is free, up to [`SEAM`] and, in the next region, up to [`HOLE`].
pub const DATA: u64 = 0x4_0000;

/// How long a test waits before it calls a wake-up lost.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Counts the interrupts of each vector.
#[derive(Default)]
pub struct Calls {
    counts: Mutex<[u64; VECTORS as usize]>,
    changed: Condvar,
}

impl Interrupts for Calls {
    fn raise(&self, vector: u16) {
        self.counts.lock().unwrap()[usize::from(vector)] += 1;
        self.changed.notify_all();
    }
}

impl Calls {
    pub fn of(&self, vector: u16) -> u64 {
        self.counts.lock().unwrap()[usize::from(vector)]
    }

    /// Waits until the vector was called more than `seen` times.
    fn wait(&self, vector: u16, seen: u64) {
        let counts = self.counts.lock().unwrap();
        let waiting = |counts: &mut [u64; VECTORS as usize]| counts[usize::from(vector)] <= seen;
        let timeout = self.changed.wait_timeout_while(counts, PATIENCE, waiting).unwrap().1;
        assert!(!timeout.timed_out(), "an interrupt was lost");
    }
}

/// A command before it has an identifier.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cmd {
    pub opcode: u8,
    pub flags: u8,
    pub nsid: u32,
    pub prp1: u64,
    pub prp2: u64,
    pub cdw: [u32; 6],
}

impl Cmd {
    pub fn new(opcode: u8, nsid: u32, prp1: u64, cdw: &[u32]) -> Self {
        let mut words = [0; 6];
        words[..cdw.len()].copy_from_slice(cdw);
        Self { opcode, flags: 0, nsid, prp1, prp2: 0, cdw: words }
    }

    /// Read, write or the like of `blocks` from `lba` on.
    pub fn blocks(opcode: u8, prp1: u64, lba: u64, blocks: u32) -> Self {
        let [low, high] = [lba & 0xffff_ffff, lba >> 32].map(|half| u32::try_from(half).unwrap());
        Self::new(opcode, 1, prp1, &[low, high, blocks - 1])
    }

    pub fn bytes(&self, id: u16) -> [u8; 64] {
        let mut raw = [0; 64];
        let first = u32::from(self.opcode) | u32::from(self.flags) << 8 | u32::from(id) << 16;
        raw[..4].copy_from_slice(&first.to_le_bytes());
        raw[4..8].copy_from_slice(&self.nsid.to_le_bytes());
        raw[24..32].copy_from_slice(&self.prp1.to_le_bytes());
        raw[32..40].copy_from_slice(&self.prp2.to_le_bytes());
        raw[40..].copy_from_slice(self.cdw.map(u32::to_le_bytes).as_flattened());
        raw
    }
}

/// A completion as the driver sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    pub result: u32,
    pub head: u16,
    pub queue: u16,
    pub id: u16,
    /// Status code type and code.
    pub code: u16,
    pub more: bool,
    pub retry: bool,
}

pub fn setup(disk: Arc<dyn Disk>, memory: GuestMemory, calls: Arc<Calls>) -> Setup {
    Setup {
        disk,
        engine: Engine::of_host(),
        identity: Identity::ebs("vol-0123456789abcdef0", "/dev/sdf"),
        memory,
        interrupts: calls,
        vectors: VECTORS,
        queues: QUEUES,
        log: no_log(),
    }
}

/// A controller with what is around it.
pub struct Bench {
    pub nvme: Nvme,
    pub memory: GuestMemory,
    pub calls: Arc<Calls>,
}

impl Bench {
    pub fn new(disk: Arc<dyn Disk>) -> Arc<Self> {
        let memory = memory();
        let calls = Arc::new(Calls::default());
        let nvme = Nvme::new(setup(disk, memory.clone(), calls.clone()));
        Arc::new(Self { nvme: nvme.unwrap(), memory, calls })
    }

    pub fn get(&self, offset: u64) -> u32 {
        let mut data = [0xaa; 4];
        self.nvme.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub fn set(&self, offset: u64, value: u32) {
        self.nvme.write(offset, &value.to_le_bytes());
    }

    pub fn set_long(&self, offset: u64, value: u64) {
        self.nvme.write(offset, &value.to_le_bytes());
    }

    pub fn submission_doorbell(queue: u16) -> u64 {
        0x1000 + 8 * u64::from(queue)
    }

    pub fn completion_doorbell(queue: u16) -> u64 {
        Self::submission_doorbell(queue) + 4
    }

    pub fn put(&self, addr: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(addr)).unwrap();
    }

    pub fn take(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(addr)).unwrap();
        bytes
    }

    /// Waits for a bit pattern in CSTS.
    pub fn wait_status(&self, mask: u32, value: u32) {
        let begin = Instant::now();
        while self.get(CSTS) & mask != value {
            assert!(begin.elapsed() < PATIENCE, "CSTS {:#x}", self.get(CSTS));
            std::thread::yield_now();
        }
    }

    /// Enables the controller with admin queues of `entries`.
    pub fn enable(self: &Arc<Self>, entries: u16) -> Pair {
        let pair = Pair::new(self.clone(), 0, 0, entries, entries, 0);
        self.set(AQA, u32::from(entries - 1) << 16 | u32::from(entries - 1));
        self.set_long(ASQ, pair.submission);
        self.set_long(ACQ, pair.completion);
        self.set(CC, ENABLED);
        assert_eq!(self.get(CSTS), 1);
        pair
    }
}

/// A submission and a completion queue that belong together, from the driver's side.
pub struct Pair {
    pub bench: Arc<Bench>,
    pub id: u16,
    completion_id: u16,
    pub submission: u64,
    pub completion: u64,
    entries: u16,
    completion_entries: u16,
    tail: u16,
    head: u16,
    phase: bool,
    vector: u16,
    next_id: u16,
}

impl Pair {
    /// Fresh rings for a pair of queues that the controller does not know yet.
    pub fn new(
        bench: Arc<Bench>,
        id: u16,
        completion_id: u16,
        entries: u16,
        completion_entries: u16,
        vector: u16,
    ) -> Self {
        let submission = RINGS + RING_ROOM * u64::from(id);
        let completion = RINGS + RING_ROOM * u64::from(completion_id) + PAGE;
        bench.put(completion, &vec![0; 16 * usize::from(completion_entries)]);
        Self {
            bench,
            id,
            completion_id,
            submission,
            completion,
            entries,
            completion_entries,
            tail: 0,
            head: 0,
            phase: true,
            vector,
            next_id: 0,
        }
    }

    /// Puts a command into the ring without telling the controller.
    pub fn put(&mut self, cmd: &Cmd) -> u16 {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        self.bench.put(self.submission + 64 * u64::from(self.tail), &cmd.bytes(id));
        self.tail = (self.tail + 1) % self.entries;
        id
    }

    pub fn ring(&self) {
        self.bench.set(Bench::submission_doorbell(self.id), self.tail.into());
    }

    pub fn submit(&mut self, cmd: &Cmd) -> u16 {
        let id = self.put(cmd);
        self.ring();
        id
    }

    /// The next completion, if there is one; it is not taken from the ring until [`Pair::release`].
    pub fn peek(&mut self) -> Option<Done> {
        let at = self.completion + 16 * u64::from(self.head);
        let word = |at| u32::from_le(self.bench.memory.load(GuestAddress(at), Ordering::Acquire).unwrap());
        let last = word(at + 12);
        if (last >> 16 & 1 == 1) != self.phase {
            return None;
        }
        let halves = |word: u32| (u16::try_from(word & 0xffff).unwrap(), u16::try_from(word >> 16).unwrap());
        let ((head, queue), (id, field)) = (halves(word(at + 8)), halves(last));
        self.head = (self.head + 1) % self.completion_entries;
        self.phase ^= self.head == 0;
        let (code, more, retry) = (field >> 1 & 0x7ff, field & 1 << 14 != 0, field & 1 << 15 == 0);
        Some(Done { result: word(at), head, queue, id, code, more, retry })
    }

    /// Gives the entries that were looked at back to the controller.
    pub fn release(&self) {
        self.bench.set(Bench::completion_doorbell(self.completion_id), self.head.into());
    }

    /// Waits for a completion and takes it.
    pub fn next(&mut self) -> Done {
        let done = self.next_unreleased();
        self.release();
        done
    }

    pub fn next_unreleased(&mut self) -> Done {
        loop {
            let seen = self.bench.calls.of(self.vector);
            if let Some(done) = self.peek() {
                return done;
            }
            self.bench.calls.wait(self.vector, seen);
        }
    }

    pub fn run(&mut self, cmd: &Cmd) -> Done {
        let id = self.submit(cmd);
        let done = self.next();
        assert_eq!((done.id, done.queue), (id, self.id));
        done
    }

    /// Runs a command that must succeed.
    pub fn must(&mut self, cmd: &Cmd) -> u32 {
        let done = self.run(cmd);
        assert_eq!(done.code, 0, "{cmd:x?}");
        done.result
    }

    /// Status code type and code of a command.
    pub fn code(&mut self, cmd: &Cmd) -> u16 {
        self.run(cmd).code
    }

    /// Creates a pair of I/O queues; `self` is the admin pair.
    pub fn create(&mut self, id: u16, entries: u16, completion_entries: u16) -> Pair {
        let vector = id % VECTORS;
        let pair = Pair::new(self.bench.clone(), id, id, entries, completion_entries, vector);
        self.must(&create_completion(id, completion_entries, pair.completion, vector));
        self.must(&create_submission(id, entries, pair.submission, id));
        pair
    }
}

pub fn create_completion(id: u16, entries: u16, base: u64, vector: u16) -> Cmd {
    let sizes = u32::from(id) | u32::from(entries.wrapping_sub(1)) << 16;
    Cmd::new(admin_op::CREATE_COMPLETION_QUEUE, 0, base, &[sizes, 3 | u32::from(vector) << 16])
}

pub fn create_submission(id: u16, entries: u16, base: u64, completion: u16) -> Cmd {
    let sizes = u32::from(id) | u32::from(entries.wrapping_sub(1)) << 16;
    Cmd::new(admin_op::CREATE_SUBMISSION_QUEUE, 0, base, &[sizes, 1 | u32::from(completion) << 16])
}

/// A controller over `disk` with one pair of I/O queues.
pub fn started(disk: Arc<dyn Disk>) -> (Pair, Pair) {
    let mut admin = Bench::new(disk).enable(16);
    let io = admin.create(1, 64, 64);
    (admin, io)
}
