//! Snapshots of a disk that many threads write to, most of it by io_uring.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::{open_chain, open_layer, test_dir};
use crate::disk::layered::{LayerAccess, LayerFiles, Layered, changes};
use crate::disk::tests::read;
use crate::disk::{Disk, DiskQueue, Ended, Engine, HostCache};

const SECTORS: u64 = 512;
const SIZE: u64 = SECTORS * 512;
const THREADS: u64 = 3;

/// A write of a thread: when it was begun and answered, by the thread's own clock.
#[derive(Clone, Copy)]
struct Written {
    sector: u64,
    number: u64,
    begun: u64,
    answered: u64,
}

/// What all know of a sector: numbers of writes.
#[derive(Default)]
struct Known {
    begun: AtomicU64,
    answered: AtomicU64,
}

struct Writer {
    thread: u64,
    memory: GuestMemoryMmap<()>,
    queue: DiskQueue<(u64, u64, u64)>,
    random: u64,
    clock: u64,
    busy: Vec<bool>,
    log: Vec<Written>,
}

impl Writer {
    fn next(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn take(&mut self, known: &[Known], ended: Vec<Ended<(u64, u64, u64)>>) {
        for ((sector, number, begun), result) in ended {
            result.unwrap();
            if number == 0 {
                continue;
            }
            known[usize::try_from(sector).unwrap()].answered.store(number, Ordering::SeqCst);
            self.busy[usize::try_from(sector).unwrap()] = false;
            let answered = self.tick();
            self.log.push(Written { sector, number, begun, answered });
        }
    }

    /// One write to a sector of this thread's own that nothing is under way to; neighbours are other threads'.
    fn write(&mut self, known: &[Known]) {
        let sector = self.next(SECTORS / THREADS) * THREADS + self.thread;
        let index = usize::try_from(sector).unwrap();
        if self.busy[index] {
            return;
        }
        let number = known[index].begun.fetch_add(1, Ordering::SeqCst) + 1;
        let begun = self.tick();
        let at = GuestAddress(sector * 512);
        self.memory.write_slice(&[number.to_le_bytes(), sector.to_le_bytes()].concat().repeat(32), at).unwrap();
        self.busy[index] = true;
        let (ticket, at_once) = ((sector, number, begun), self.next(40) == 0);
        let buf = [self.memory.get_slice(at, 512).unwrap()];
        let ended = if at_once {
            Some((ticket, self.queue.at_once().and_then(|disk| disk.write_at(sector * 512, &buf))))
        } else {
            self.queue.write(ticket, sector * 512, &buf)
        };
        self.take(known, ended.into_iter().collect());
    }

    fn run(mut self, known: &[Known], stop: &AtomicBool) -> Vec<Written> {
        while !stop.load(Ordering::SeqCst) {
            for _ in 0..self.next(24) {
                self.write(known);
            }
            if self.next(10) == 0 {
                let ended = self.queue.flush((0, 0, 0));
                self.take(known, ended.into_iter().collect());
            }
            let mut ended = Vec::new();
            self.queue.reap(&mut ended).unwrap();
            if ended.is_empty()
                && let Some(event) = self.queue.event()
            {
                poll(&mut [PollFd::from_borrowed_fd(event, PollFlags::IN)], None).unwrap();
            }
            self.take(known, ended);
        }
        let mut ended = Vec::new();
        self.queue.settle(&mut ended).unwrap();
        self.take(known, ended);
        self.log
    }
}

/// A snapshot: what was answered before it was asked for, and begun before it was made.
struct Taken {
    layers: usize,
    before: Vec<u64>,
    after: Vec<u64>,
}

fn numbers(known: &[Known], which: impl Fn(&Known) -> &AtomicU64) -> Vec<u64> {
    known.iter().map(|sector| which(sector).load(Ordering::SeqCst)).collect()
}

/// The number of the write that each sector of a disk is of.
fn stamps(disk: &dyn Disk) -> Vec<u64> {
    let all = read(disk, 0, usize::try_from(SIZE).unwrap());
    let sector = |(sector, bytes): (u64, &[u8; 512])| {
        let words = bytes.as_chunks::<8>().0;
        let number = u64::from_le_bytes(words[0]);
        let wanted = if number == 0 { [0; 8] } else { sector.to_le_bytes() };
        assert!(words.chunks(2).all(|pair| pair == [words[0], wanted]), "sector {sector} is of several writes");
        number
    };
    (0..).zip(all.as_chunks::<512>().0).map(sector).collect()
}

fn run(engine: Engine, cache: HostCache, snapshots: usize) {
    // Past the page cache only where there is one.
    let dir = if cache == HostCache::Used { test_dir() } else { tempfile::tempdir().unwrap() };
    let stems: Vec<PathBuf> = (0..=snapshots).map(|number| dir.path().join(number.to_string())).collect();
    let first = LayerFiles::create(&stems[0], SIZE).unwrap();
    let disk = Arc::new(Layered::open(vec![first], SIZE, false, cache).unwrap());
    let known: Vec<Known> = (0..SECTORS).map(|_| Known::default()).collect();
    let stop = AtomicBool::new(false);
    let idle_memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4096)]).unwrap();
    let mut idle = DiskQueue::<u64>::new(disk.clone(), &idle_memory, engine);
    let (taken, logs) = thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
                let queue = DiskQueue::new(disk.clone(), &memory, engine);
                let busy = vec![false; usize::try_from(SECTORS).unwrap()];
                let writer = Writer { thread, memory, queue, random: thread + 77, clock: 0, busy, log: Vec::new() };
                let (known, stop) = (&known, &stop);
                scope.spawn(move || writer.run(known, stop))
            })
            .collect();
        let mut taken = Vec::new();
        for (layers, stem) in stems.iter().enumerate().skip(1) {
            let next = LayerFiles::create(stem, SIZE).unwrap();
            // Between any two something happens.
            let sum = |counts: Vec<u64>| counts.iter().sum::<u64>();
            let enough = sum(numbers(&known, |sector| &sector.answered)) + 40;
            while sum(numbers(&known, |sector| &sector.answered)) < enough {
                thread::yield_now();
            }
            // A queue that does nothing is not waited for, though it has read something.
            if let Some((_, result)) = idle.read(1, 0, &[idle_memory.get_slice(GuestAddress(0), 512).unwrap()]) {
                result.unwrap();
            }
            let before = numbers(&known, |sector| &sector.answered);
            disk.snapshot(next).unwrap();
            taken.push(Taken { layers, before, after: numbers(&known, |sector| &sector.begun) });
        }
        stop.store(true, Ordering::SeqCst);
        let logs: Vec<Vec<Written>> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        (taken, logs)
    });
    idle.settle(&mut Vec::new()).unwrap();
    assert_eq!(stamps(&*disk), numbers(&known, |sector| &sector.answered));
    disk.flush().unwrap();
    for Taken { layers, before, after } in &taken {
        let then = stamps(&open_chain(&stems[..*layers], SIZE, true, cache));
        for (sector, number) in then.iter().enumerate() {
            let possible = before[sector]..=after[sector];
            assert!(possible.contains(number), "snapshot {layers}, sector {sector}: {number} not of {possible:?}");
        }
        for log in &logs {
            check_cut(&then, log);
        }
    }
    drop((idle, disk));
    let disk = open_chain(&stems, SIZE, false, cache);
    assert_eq!(stamps(&disk), numbers(&known, |sector| &sector.answered));
}

/// A snapshot that has a write has all that was answered before that was begun.
fn check_cut(then: &[u64], log: &[Written]) {
    let has = |write: &&Written| then[usize::try_from(write.sector).unwrap()] >= write.number;
    let last = log.iter().filter(has).map(|write| write.begun).max().unwrap_or(0);
    let missing: BTreeMap<u64, u64> = log
        .iter()
        .filter(|write| write.answered < last && !has(write))
        .map(|write| (write.sector, write.number))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn snapshots_are_moments_by_io_uring() {
    run(Engine::of_host(), HostCache::Bypassed, 25);
}

#[test]
fn snapshots_are_moments_through_the_page_cache() {
    run(Engine::of_host(), HostCache::Used, 60);
}

#[test]
fn snapshots_are_moments_one_request_at_a_time() {
    run(Engine::Synchronous, HostCache::Bypassed, 15);
}

#[test]
fn a_change_that_was_begun_and_not_seen_to_end_holds_the_snapshot_back() {
    if Engine::of_host() == Engine::Synchronous {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let stems = ["a", "b"].map(|name| dir.path().join(name));
    let first = LayerFiles::create(&stems[0], SIZE).unwrap();
    let disk = Arc::new(Layered::open(vec![first], SIZE, false, HostCache::Bypassed).unwrap());
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let mut queue = DiskQueue::new(disk.clone(), &memory, Engine::IoUring);
    let slice = |at: u64| [memory.get_slice(GuestAddress(at), 4096).unwrap()];
    memory.write_slice(&[1; 8192], GuestAddress(0)).unwrap();
    queue.write(1, 0, &slice(0)).expect("the unit is new").1.unwrap();
    memory.write_slice(&[2; 4096], GuestAddress(0)).unwrap();
    assert!(queue.write(2, 0, &slice(0)).is_none(), "begun");
    let made = AtomicBool::new(false);
    let mut ended = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            disk.snapshot(LayerFiles::create(&stems[1], SIZE).unwrap()).unwrap();
            made.store(true, Ordering::SeqCst);
        });
        while !disk.keeps_waiting() {
            thread::yield_now();
        }
        assert!(!made.load(Ordering::SeqCst));
        // One more, which may not go on in the old top for ever, nor wait for itself.
        let more = queue.write(3, 4096, &slice(4096));
        more.expect("it is done at once").1.unwrap();
        queue.reap(&mut ended).unwrap();
    });
    assert!(matches!(ended[..], [(2, Ok(()))]), "{ended:?}");
    let then = open_chain(&stems[..1], SIZE, true, HostCache::Used);
    assert_eq!(read(&then, 0, 8192), [[2; 4096], [0; 4096]].concat());
    assert_eq!(read(&*disk, 0, 8192), [[2; 4096], [1; 4096]].concat());
}

#[test]
fn a_flush_that_was_begun_covers_what_entered_before() {
    let dir = tempfile::tempdir().unwrap();
    let stem = dir.path().join("a");
    for cache in [HostCache::Used, HostCache::Bypassed] {
        let files = LayerFiles::create(&stem, SIZE).unwrap();
        let disk = Arc::new(Layered::open(vec![files], SIZE, false, cache).unwrap());
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let mut queue = DiskQueue::new(disk.clone(), &memory, Engine::of_host());
        for unit in [0, 3, 60, 3] {
            let mut ended = Vec::new();
            let buf = [memory.get_slice(GuestAddress(0), 4096).unwrap()];
            ended.extend(queue.write(1, unit * 4096, &buf));
            queue.settle(&mut ended).unwrap();
            ended.extend(queue.flush(2));
            queue.settle(&mut ended).unwrap();
            assert!(ended.len() == 2 && ended.iter().all(|(_, result)| result.is_ok()), "{ended:?}");
            let durable = changes(&[], &[open_layer(&stem, LayerAccess::Inspect)]).unwrap();
            assert!(durable.into_iter().any(|range| range.contains(&(unit * 4096))), "{unit}");
            // The next flush is only about data, and is begun.
            assert!(disk.durable_file().is_some());
        }
        drop((queue, disk));
        super::super::remove(&stem).unwrap();
    }
}
