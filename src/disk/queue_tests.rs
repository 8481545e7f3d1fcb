//! Many requests at once: whatever the host does in whatever order, each ends once, with its own bytes.

use std::fs::{File, OpenOptions};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, poll};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

use super::testing::{GATED, Gated, pattern};
use super::uring::DEPTH;
use super::{Disk, DiskQueue, Ended, Engine, HostCache, Overlay, Place, Raw, Transfer};

const MEMORY: usize = 4 << 20;

fn memory() -> GuestMemoryMmap<()> {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap()
}

fn slice(memory: &GuestMemoryMmap<()>, at: u64, len: usize) -> VolatileSlice<'_> {
    memory.get_slice(GuestAddress(at), len).unwrap()
}

fn bytes(memory: &GuestMemoryMmap<()>, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

/// Waits until something has ended, as a device does.
fn next<T>(queue: &mut DiskQueue<T>) -> Vec<Ended<T>> {
    let mut ended = Vec::new();
    loop {
        queue.reap(&mut ended).unwrap();
        if !ended.is_empty() {
            return ended;
        }
        let event = queue.event().expect("nothing is under way");
        poll(&mut [PollFd::from_borrowed_fd(event, PollFlags::IN)], None).unwrap();
    }
}

/// A closed gate, a queue before it, and memory.
fn gated() -> Option<(Arc<Gated>, GuestMemoryMmap<()>, DiskQueue<u64>)> {
    let (disk, memory) = (Arc::new(Gated::new()?), memory());
    let queue = DiskQueue::new(disk.clone(), &memory, Engine::IoUring);
    Some((disk, memory, queue))
}

#[test]
fn what_is_ready_does_not_wait_for_what_is_not() {
    let Some((disk, memory, mut queue)) = gated() else { return };
    assert!(queue.read(1, 0, &[slice(&memory, 0, 512)]).is_none());
    assert!(queue.read(2, GATED, &[slice(&memory, 512, 512), slice(&memory, 2048, 512)]).is_none());
    assert!(queue.flush(3).is_none());
    assert_eq!(queue.in_flight(), 3);
    let mut first: Vec<u64> = Vec::new();
    while first.len() < 2 {
        first.extend(next(&mut queue).into_iter().map(|(ticket, result)| result.map(|()| ticket).unwrap()));
    }
    first.sort_unstable();
    assert_eq!(first, [2, 3]);
    assert_eq!([bytes(&memory, 512, 512), bytes(&memory, 2048, 512)].concat(), pattern(GATED, 1024));
    disk.let_through(&[7; 512]);
    let [(1, Ok(()))] = next(&mut queue)[..] else { panic!("not the one that waited") };
    assert_eq!((bytes(&memory, 0, 512), queue.in_flight()), (vec![7; 512], 0));
    assert!(queue.event().is_none());
}

#[test]
fn a_short_read_goes_on_where_it_stopped() {
    let Some((disk, memory, mut queue)) = gated() else { return };
    let parts = [slice(&memory, 0, 100), slice(&memory, 200, 1), slice(&memory, 300, 411)];
    assert!(queue.read(1, 0, &parts).is_none());
    let sent = pattern(5, 512);
    let mut ended = Vec::new();
    for (from, to) in [(0, 50), (50, 101), (101, 300), (300, 511)] {
        disk.let_through(&sent[from..to]);
        while disk.left() > 0 {
            queue.reap(&mut ended).unwrap();
        }
        queue.reap(&mut ended).unwrap();
        assert!(ended.is_empty());
    }
    disk.let_through(&sent[511..]);
    assert!(matches!(next(&mut queue)[..], [(1, Ok(()))]));
    assert_eq!([bytes(&memory, 0, 100), bytes(&memory, 200, 1), bytes(&memory, 300, 411)].concat(), sent);
}

#[test]
fn a_file_that_ends_early_fails_the_read() {
    let Some((disk, memory, mut queue)) = gated() else { return };
    disk.let_through(&[7; 100]);
    disk.shut();
    assert!(queue.read(1, 0, &[slice(&memory, 0, 512)]).is_none());
    let [(1, Err(error))] = &next(&mut queue)[..] else { panic!("it did not fail") };
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_full_queue_says_so_and_goes_on_when_something_ends() {
    let Some((disk, memory, mut queue)) = gated() else { return };
    for ticket in 0..u64::from(DEPTH) {
        assert!(!queue.is_full());
        assert!(queue.read(ticket, 0, &[slice(&memory, 512 * ticket, 512)]).is_none());
    }
    assert!(queue.is_full());
    // One that comes all the same is done at once.
    assert!(matches!(queue.read(1000, GATED, &[slice(&memory, 1 << 20, 512)]), Some((1000, Ok(())))));
    assert_eq!(bytes(&memory, 1 << 20, 512), pattern(GATED, 512));
    let mut tickets = Vec::new();
    while tickets.len() < usize::from(DEPTH) {
        disk.let_through(&[1; 512]);
        tickets.extend(next(&mut queue).into_iter().map(|(ticket, _)| ticket));
    }
    tickets.sort_unstable();
    assert!(tickets.into_iter().eq(0..u64::from(DEPTH)));
}

#[test]
fn dropping_waits_and_keeps_the_memory_until_then() {
    let Some((disk, memory, mut queue)) = gated() else { return };
    assert!(queue.read(1, 0, &[slice(&memory, 0, 512)]).is_none());
    queue.reap(&mut Vec::new()).unwrap();
    drop(memory);
    let dropped = AtomicBool::new(false);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            drop(queue);
            dropped.store(true, Ordering::SeqCst);
        });
        for _ in 0..1000 {
            thread::yield_now();
        }
        assert!(!dropped.load(Ordering::SeqCst));
        disk.let_through(&[9; 512]);
        waiter.join().unwrap();
    });
}

#[test]
fn settling_waits_for_all() {
    let Some((disk, memory, mut queue)) = gated() else { return };
    for ticket in 0..3 {
        assert!(queue.read(ticket, 0, &[slice(&memory, 512 * ticket, 512)]).is_none());
    }
    let mut ended = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| disk.let_through(&[9; 3 * 512]));
        queue.settle(&mut ended).unwrap();
    });
    assert_eq!((ended.len(), queue.in_flight()), (3, 0));
    assert_eq!(bytes(&memory, 0, 3 * 512), [9; 3 * 512]);
}

#[test]
fn memory_that_nobody_keeps_is_read_into_at_once() {
    let (file, memory) = (tempfile::tempfile().unwrap(), memory());
    file.set_len(4096).unwrap();
    let mut queue = DiskQueue::new(Arc::new(Raw::new(file, false).unwrap()), &memory, Engine::of_host());
    let mut own = [1; 512];
    assert!(matches!(queue.read(1, 0, &[(&mut own[..]).into()]), Some((1, Ok(())))));
    assert_eq!(own, [0; 512]);
    // Nothing at all to be read is no read.
    assert!(matches!(queue.read(2, 0, &[]), Some((2, Ok(())))));
}

/// A disk in a file that answers everything with an error of its own.
struct Failing(Arc<File>, &'static str);

impl Disk for Failing {
    fn size(&self) -> u64 {
        GATED
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn read_at(&self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
        panic!("{}: not begun", self.1)
    }
    fn write_at(&self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
        panic!("{}: not begun", self.1)
    }
    fn flush(&self) -> io::Result<()> {
        panic!("{}: not begun", self.1)
    }
    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Ok(())
    }
    fn place(&self, transfer: Transfer, offset: u64, _: u64) -> Option<Place> {
        let direct = (transfer == Transfer::Write).then(|| self.0.clone());
        Some(Place { file: self.0.clone(), direct, offset, hold: None })
    }
    fn durable_file(&self) -> Option<Arc<File>> {
        Some(self.0.clone())
    }
}

#[test]
fn errors_of_the_host_are_those_of_the_request() {
    if Engine::of_host() == Engine::Synchronous {
        return;
    }
    let memory = memory();
    let buf = [slice(&memory, 0, 512)];
    let queue = |path: &'static str, write| {
        let file = OpenOptions::new().read(true).write(write).open(path).unwrap();
        DiskQueue::new(Arc::new(Failing(Arc::new(file), path)), &memory, Engine::IoUring)
    };
    let fails = |queue: &mut DiskQueue<u64>, code| {
        let [(1, Err(error))] = &next(queue)[..] else { panic!("it did not fail with {code}") };
        assert_eq!(error.raw_os_error(), Some(code));
    };
    let mut directory = queue("/", false);
    assert!(directory.read(1, 0, &buf).is_none());
    fails(&mut directory, libc::EISDIR);
    let mut full = queue("/dev/full", true);
    assert!(full.write(1, 0, &buf).is_none());
    fails(&mut full, libc::ENOSPC);
    assert!(full.flush(1).is_none());
    fails(&mut full, libc::EINVAL);
    let mut read_only = queue("/dev/zero", false);
    assert!(read_only.write(1, 0, &buf).is_none());
    fails(&mut read_only, libc::EBADF);
}

#[test]
fn a_file_that_became_shorter_is_an_error_by_every_engine() {
    for (engine, cache) in ways() {
        let (file, memory) = (tempfile::tempfile().unwrap(), memory());
        file.set_len(1 << 20).unwrap();
        let disk = Raw::new(file.try_clone().unwrap(), true).unwrap().with_cache(cache).unwrap();
        let mut queue = DiskQueue::new(Arc::new(disk), &memory, engine);
        file.set_len(4096 + 100).unwrap();
        let mut ended: Vec<_> = queue.read(1, 4096, &[slice(&memory, 0, 8192)]).into_iter().collect();
        queue.settle(&mut ended).unwrap();
        let [(1, Err(error))] = &ended[..] else { panic!("it did not fail") };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{engine} {cache:?}");
    }
}

fn ways() -> [(Engine, HostCache); 4] {
    [Engine::of_host(), Engine::Synchronous]
        .map(|engine| [HostCache::Used, HostCache::Bypassed].map(|cache| (engine, cache)))
        .concat()
        .try_into()
        .unwrap()
}

/// Sectors of the disk, and requests of a batch: each has its own part of the disk, so that their order does not matter.
const SECTORS: u64 = 512;
const PARTS: u64 = 8;
const PART: u64 = SECTORS / PARTS * 512;

#[derive(Clone, Debug)]
enum Step {
    Read { at: u64, len: usize, shift: u64 },
    Write { at: u64, len: usize, shift: u64, byte: u8 },
    Zero { at: u64, len: u64 },
    Flush,
    Nothing,
}

fn step() -> impl Strategy<Value = Step> {
    let sectors = SECTORS / PARTS;
    let range = (0..sectors).prop_flat_map(move |at| (Just(at * 512), (1..=sectors - at).prop_map(|len| len * 512)));
    // Buffers that begin on no sector are not for direct I/O.
    let shift = prop_oneof![3 => Just(0_u64), 1 => 1_u64..64];
    let len = |len: u64| usize::try_from(len).unwrap();
    prop_oneof![
        4 => (range.clone(), shift.clone()).prop_map(move |((at, n), shift)| Step::Read { at, len: len(n), shift }),
        4 => (range.clone(), shift, any::<u8>())
            .prop_map(move |((at, n), shift, byte)| Step::Write { at, len: len(n), shift, byte }),
        1 => range.prop_map(|(at, len)| Step::Zero { at, len }),
        1 => Just(Step::Flush),
        1 => Just(Step::Nothing),
    ]
}

/// Does a batch of requests at once and compares with plain memory.
fn batch(
    disk: &Arc<dyn Disk>,
    queue: &mut DiskQueue<u64>,
    memory: &GuestMemoryMmap<()>,
    model: &mut [u8],
    steps: &[Step],
) {
    let mut ended = Vec::new();
    let mut begun = 0;
    for (part, step) in (0..).zip(steps) {
        let (start, buffer) = (part * PART, part * 2 * PART);
        let index = |at: u64| usize::try_from(start + at).unwrap();
        match *step {
            Step::Read { at, len, shift } => {
                ended.extend(queue.read(part, start + at, &halves(memory, buffer + shift, len)));
                begun += 1;
            }
            Step::Write { at, len, shift, byte } => {
                memory.write_slice(&vec![byte; len], GuestAddress(buffer + shift)).unwrap();
                ended.extend(queue.write(part, start + at, &halves(memory, buffer + shift, len)));
                model[index(at)..][..len].fill(byte);
                begun += 1;
            }
            Step::Zero { at, len } => {
                disk.write_zeroes(start + at, len, true).unwrap();
                model[index(at)..index(at + len)].fill(0);
            }
            Step::Flush => {
                ended.extend(queue.flush(part));
                begun += 1;
            }
            Step::Nothing => {}
        }
    }
    queue.settle(&mut ended).unwrap();
    assert!(ended.iter().all(|(_, result)| result.is_ok()), "{ended:?}");
    assert_eq!((ended.len(), queue.in_flight()), (begun, 0));
    for (part, step) in (0..).zip(steps) {
        if let Step::Read { at, len, shift } = *step {
            let from = usize::try_from(part * PART + at).unwrap();
            assert!(bytes(memory, part * 2 * PART + shift, len) == model[from..from + len], "part {part}: {step:?}");
        }
    }
}

/// A buffer in two pieces that touch.
fn halves(memory: &GuestMemoryMmap<()>, at: u64, len: usize) -> Vec<VolatileSlice<'_>> {
    let first = len / 1024 * 512;
    let rest = slice(memory, at + first as u64, len - first);
    if first == 0 { vec![rest] } else { vec![slice(memory, at, first), rest] }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// By every engine, through the page cache and past it, the file itself and a layer over it.
    #[test]
    fn batches_read_what_was_written(batches in prop::collection::vec(prop::collection::vec(step(), 8..=8), 1..12)) {
        for (engine, cache) in ways() {
            for layered in [false, true] {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("disk.raw");
                std::fs::write(&path, pattern(0, SECTORS * 512)).unwrap();
                let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
                let raw: Arc<dyn Disk> = Arc::new(Raw::new(file, layered).unwrap().with_cache(cache).unwrap());
                let disk = if layered {
                    Arc::new(Overlay::new(raw, SECTORS * 512, dir.path(), cache).unwrap())
                } else {
                    raw
                };
                let (memory, mut model) = (memory(), pattern(0, SECTORS * 512));
                let mut queue = DiskQueue::new(disk.clone(), &memory, engine);
                for steps in &batches {
                    batch(&disk, &mut queue, &memory, &mut model, steps);
                }
                let mut all = vec![0; model.len()];
                disk.read_exact_at(0, &mut all).unwrap();
                prop_assert!(all == model);
            }
        }
    }
}
