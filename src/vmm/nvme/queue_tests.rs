//! Queues: order, room, interrupts, resets, threads.

use vm_memory::{Bytes, GuestAddress};

use super::testing::*;
use super::*;

const IDENTIFY: Cmd =
    Cmd { opcode: admin_op::IDENTIFY, flags: 0, nsid: 0, prp1: DATA, prp2: 0, cdw: [1, 0, 0, 0, 0, 0] };

fn disk() -> Arc<MemDisk> {
    Arc::new(MemDisk::patterned(64))
}

#[test]
fn phases_turn_and_full_completion_queues_wait() {
    let mut admin = Bench::new(disk()).enable(16);
    let mut io = admin.create(1, 64, 4);
    let flush = Cmd::new(io_op::FLUSH, 1, 0, &[]);
    for _ in 0..25 {
        io.must(&flush);
    }
    // More than the completion queue holds: three are answered, no more, and nothing is written over.
    let ids: Vec<u16> = (0..11).map(|_| io.put(&flush)).collect();
    io.ring();
    let mut seen: Vec<u16> = (0..3).map(|_| io.next_unreleased().id).collect();
    // The worker is proved to be past the full queue by another queue's command.
    let mut other = admin.create(2, 4, 4);
    other.must(&flush);
    assert_eq!(io.peek(), None);
    let counters = admin.bench.nvme.counters();
    assert_eq!(counters.flushes.load(Ordering::Relaxed), 25 + 3 + 1);
    // Room comes one by one.
    while seen.len() < ids.len() {
        io.release();
        seen.push(io.next_unreleased().id);
    }
    assert_eq!(seen, ids);
    io.release();
    io.must(&flush);
}

#[test]
fn one_completion_queue_serves_two_submission_queues() {
    let mut admin = Bench::new(disk()).enable(16);
    let mut one = admin.create(1, 8, 16);
    admin.must(&create_submission(2, 8, RINGS + 0x4000, 1));
    let mut two = Pair::new(admin.bench.clone(), 2, 1, 8, 16, 1);
    let flush = Cmd::new(io_op::FLUSH, u32::MAX, 0, &[]);
    two.submit(&flush);
    let done = one.next();
    assert_eq!((done.queue, done.head, done.code), (2, 1, 0));
    one.must(&flush);
}

#[test]
fn a_queue_without_interrupt_raises_none() {
    let mut admin = Bench::new(disk()).enable(16);
    let mut io = Pair::new(admin.bench.clone(), 1, 1, 8, 8, 3);
    let mut create = create_completion(1, 8, io.completion, 3);
    create.cdw[1] &= !2;
    admin.must(&create);
    admin.must(&create_submission(1, 8, io.submission, 1));
    io.submit(&Cmd::new(io_op::FLUSH, 1, 0, &[]));
    while io.peek().is_none() {
        std::thread::yield_now();
    }
    // The admin command comes after it in the worker's order.
    admin.must(&IDENTIFY);
    assert_eq!(admin.bench.calls.of(3), 0);
}

#[test]
fn a_reset_waits_for_the_command_in_flight() {
    let disk = disk();
    let (admin, mut io) = started(disk.clone());
    let bench = admin.bench.clone();
    let gate = disk.gate.lock().unwrap();
    for _ in 0..8 {
        io.put(&Cmd::blocks(io_op::READ, DATA, 0, 8));
    }
    io.ring();
    while disk.begun.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    let resetting = std::thread::spawn({
        let bench = bench.clone();
        move || bench.set(CC, 0)
    });
    // The status can be read meanwhile, and says that the reset is not over.
    while bench.get(CC) & 1 != 0 {
        std::thread::yield_now();
    }
    assert_eq!(bench.get(CSTS), 1);
    drop(gate);
    resetting.join().unwrap();
    assert_eq!(bench.get(CSTS), 0);
    let begun = disk.begun.load(Ordering::SeqCst);
    assert!(begun < 8, "the worker went on after the reset");
    // Memory is the driver's own again.
    bench.memory.write_slice(&[0x77; 4096], GuestAddress(DATA)).unwrap();
    bench.enable(16).must(&IDENTIFY);
    assert_eq!(disk.begun.load(Ordering::SeqCst), begun);
}

#[test]
fn several_queues_from_several_threads() {
    const ROUNDS: u64 = 300;
    let disk = Arc::new(MemDisk::new(vec![0; 512 * 64]));
    let mut admin = Bench::new(disk.clone()).enable(16);
    let pairs: Vec<Pair> = (1..=QUEUES).map(|id| admin.create(id, 8, 4)).collect();
    let threads: Vec<_> = pairs
        .into_iter()
        .map(|mut io| {
            std::thread::spawn(move || {
                let lba = u64::from(io.id) * 8;
                let (out, back) = (DATA + u64::from(io.id) * 0x4000, DATA + u64::from(io.id) * 0x4000 + 0x2000);
                for round in 0..ROUNDS {
                    let bytes = vec![u8::try_from((round * 5 + lba) % 256).unwrap(); 1024];
                    io.bench.put(out, &bytes);
                    io.put(&Cmd::blocks(io_op::WRITE, out, lba, 2));
                    io.put(&Cmd::blocks(io_op::READ, back, lba, 2));
                    io.ring();
                    assert_eq!([io.next().code, io.next().code], [0, 0]);
                    assert_eq!(io.bench.take(back, 1024), bytes);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let counters = admin.bench.nvme.counters();
    assert_eq!(counters.reads.load(Ordering::Relaxed), ROUNDS * u64::from(QUEUES));
    assert_eq!(counters.written_bytes.load(Ordering::Relaxed), ROUNDS * u64::from(QUEUES) * 1024);
}
