//! Commands that the disk has begun: others overtake them; resets and deletions of queues wait for them.

use std::thread;

use super::testing::*;
use super::*;
use crate::disk::SECTOR_SIZE;
use crate::disk::testing::{GATED, Gated, pattern};

const GATED_BLOCKS: u64 = GATED / SECTOR_SIZE;

/// A read of one block into page `n` of the data.
fn read(n: u64, lba: u64) -> Cmd {
    Cmd::blocks(io_op::READ, DATA + PAGE * n, lba, 1)
}

fn put(pair: &mut Pair, commands: &[Cmd]) -> Vec<u16> {
    let ids = commands.iter().map(|cmd| pair.put(cmd)).collect();
    pair.ring();
    ids
}

#[test]
fn what_is_ready_is_completed_first() {
    let Some(disk) = Gated::new().map(Arc::new) else { return };
    let (admin, mut io) = started(disk.clone());
    let flush = Cmd::new(io_op::FLUSH, 1, 0, &[]);
    let write = Cmd::blocks(io_op::WRITE, DATA + PAGE * 3, GATED_BLOCKS + 9, 1);
    admin.bench.put(DATA + PAGE * 3, &[5; 512]);
    let ids = put(&mut io, &[read(0, 0), read(1, GATED_BLOCKS), flush, write]);
    let mut done: Vec<u16> = (0..3).map(|_| io.next()).inspect(|done| assert_eq!(done.code, 0)).map(|d| d.id).collect();
    done.sort_unstable();
    assert_eq!(done, ids[1..]);
    assert_eq!(admin.bench.take(DATA + PAGE, 512), pattern(GATED, 512));
    disk.let_through(&[6; 512]);
    let last = io.next();
    assert_eq!((last.id, last.code, last.head), (ids[0], 0, 4));
    assert_eq!(admin.bench.take(DATA, 512), [6; 512]);
    io.must(&read(2, GATED_BLOCKS + 9));
    assert_eq!(admin.bench.take(DATA + PAGE * 2, 512), [5; 512]);
}

#[test]
fn a_reset_waits_for_what_is_in_flight() {
    let Some(disk) = Gated::new().map(Arc::new) else { return };
    let (admin, mut io) = started(disk.clone());
    let bench = admin.bench.clone();
    put(&mut io, &[read(0, 0), read(1, GATED_BLOCKS)]);
    assert_eq!(io.next().code, 0);
    thread::scope(|scope| {
        let reset = scope.spawn(|| bench.nvme.reset());
        for _ in 0..1000 {
            thread::yield_now();
        }
        assert!(!reset.is_finished());
        disk.let_through(&[6; 512]);
        reset.join().unwrap();
    });
    assert_eq!(bench.nvme.counters().reads.load(Ordering::Relaxed), 2);
    bench.put(DATA, &[1; 512]);
    disk.let_through(&[7; 512]);
    let mut admin = bench.enable(16);
    let mut io = admin.create(1, 64, 64);
    io.must(&read(1, GATED_BLOCKS));
    assert_eq!(bench.take(DATA, 512), [1; 512]);
}

#[test]
fn a_queue_is_deleted_when_its_commands_have_ended() {
    let Some(disk) = Gated::new().map(Arc::new) else { return };
    let (mut admin, mut io) = started(disk.clone());
    let waiting = put(&mut io, &[read(0, 0), read(1, GATED_BLOCKS)]);
    assert_eq!(io.next().id, waiting[1]);
    let delete = admin.submit(&Cmd::new(admin_op::DELETE_SUBMISSION_QUEUE, 0, 0, &[1]));
    for _ in 0..1000 {
        thread::yield_now();
    }
    assert_eq!(admin.peek(), None);
    disk.let_through(&[6; 512]);
    let done = admin.next();
    assert_eq!((done.id, done.code), (delete, 0));
    assert_eq!(io.peek().map(|done| (done.id, done.code)), Some((waiting[0], 0)));
    admin.must(&Cmd::new(admin_op::DELETE_COMPLETION_QUEUE, 0, 0, &[1]));
}

/// Room for their completions is kept: none is written over one that the driver has not taken.
#[test]
fn no_more_is_begun_than_the_completion_queue_has_room_for() {
    let Some(disk) = Gated::new().map(Arc::new) else { return };
    let mut admin = Bench::new(disk.clone()).enable(16);
    let mut io = admin.create(1, 16, 4);
    let ids =
        put(&mut io, &[read(0, 0), read(1, 1), read(2, GATED_BLOCKS), read(3, GATED_BLOCKS), read(4, GATED_BLOCKS)]);
    assert_eq!(io.next_unreleased().id, ids[2]);
    // Another queue's command proves that the worker has been round.
    let mut other = admin.create(2, 4, 4);
    other.must(&read(5, GATED_BLOCKS));
    assert_eq!(io.peek(), None);
    assert_eq!(admin.bench.nvme.counters().reads.load(Ordering::Relaxed), 2);
    io.release();
    assert_eq!(io.next().id, ids[3]);
    assert_eq!(io.next().id, ids[4]);
    disk.let_through(&[6; 1024]);
    let mut last = [io.next().id, io.next().id];
    last.sort_unstable();
    assert_eq!(last, ids[..2]);
}
