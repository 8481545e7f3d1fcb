//! Rings, headers and commands that no honest driver would write, and good ones with a few bytes changed.

use std::thread;

use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

use super::super::mmio::MmioTransport;
use super::super::testing::*;
use super::super::worker::drain_here;
use super::super::{ActiveQueue, Interrupt};
use super::receive::{ReceiveWorker, Work};
use super::testing::*;
use super::transmit::Transmitter;
use super::*;
use crate::net::{HEADER_SIZE, LARGE_FRAME_MAX};
use crate::vmm::memory::GuestMemory;

const SIZE: u16 = 16;

/// An address that is likely to be trouble. With no [`length`] does a buffer end in the island, which only [`canary`] names.
fn address() -> impl Strategy<Value = u64> {
    let near = |at: u64| (0_u64..64).prop_map(move |by| at.wrapping_add(by).wrapping_sub(32));
    prop_oneof![
        6 => DATA..DATA + 0x4000,
        2 => near(SEAM),
        2 => near(HOLE),
        1 => Just(ISLAND + ISLAND_LEN as u64),
        1 => (0_u64..64).prop_map(|by| u64::MAX - by),
        2 => AVAIL..TABLE + 0x1000,
        1 => 1_u64 << 32..=u64::MAX,
    ]
}

fn length() -> impl Strategy<Value = u32> {
    prop_oneof![
        3 => prop::sample::select(vec![0, 1, 2, 10, 11, 12, 13, 26, 72, 1514, 1526, 1530, 4096, 65_562]),
        1 => 0_u32..0x3000,
        1 => prop::sample::select(vec![0x10_0000, 0x38_0000, 0x8000_0000, u32::MAX]),
    ]
}

type Entry = (u64, u32, u16, u16);

fn entry() -> impl Strategy<Value = Entry> {
    let flags = prop_oneof![
        4 => prop::sample::select(vec![0, NEXT, WRITE, NEXT | WRITE]),
        2 => prop::sample::select(vec![INDIRECT, INDIRECT | NEXT, INDIRECT | WRITE, 7]),
        1 => any::<u16>(),
    ];
    let next = prop_oneof![6 => 0_u16..SIZE, 1 => Just(SIZE), 1 => any::<u16>()];
    prop_oneof![
        8 => (address(), length(), flags, next),
        2 => (Just(TABLE), (0_u32..20).prop_map(|n| 16 * n), Just(INDIRECT), Just(0)),
    ]
}

/// The island, as something to read.
fn canary() -> impl Strategy<Value = Entry> {
    (Just(ISLAND), length(), Just(NEXT), 0_u16..SIZE)
}

#[derive(Clone, Debug)]
struct Rings {
    table: Vec<Entry>,
    indirect: Vec<Entry>,
    heads: Vec<u16>,
    avail_idx: u16,
    header: [u8; 12],
    event_idx: bool,
    rings: (u64, u64, u64),
}

fn rings() -> impl Strategy<Value = Rings> {
    let size = usize::from(SIZE);
    let avail_idx = prop_oneof![8 => 1..=SIZE, 1 => Just(SIZE + 1), 1 => any::<u16>()];
    // Apart, as they should be, or over each other.
    let places = prop_oneof![
        4 => Just((DESC, AVAIL, USED)),
        1 => Just((DESC, DESC + 0x20, DESC + 0x40)),
        1 => Just((DESC, AVAIL, AVAIL)),
        1 => Just((SEAM - 0x80, SEAM - 10, HOLE - 4 * 34)),
    ];
    let header = prop_oneof![Just([0; 12]), Just([1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0]), any::<[u8; 12]>()];
    (
        prop::collection::vec(prop_oneof![10 => entry(), 1 => canary()], size..=size),
        prop::collection::vec(entry(), size..=size),
        prop::collection::vec(prop_oneof![9 => 0..SIZE, 1 => any::<u16>()], size..=size),
        avail_idx,
        header,
        any::<bool>(),
        places,
    )
        .prop_map(|(table, indirect, heads, avail_idx, header, event_idx, rings)| Rings {
            table,
            indirect,
            heads,
            avail_idx,
            header,
            event_idx,
            rings,
        })
}

fn lay_out(memory: &GuestMemory, rings: &Rings) -> Queue {
    let put = |at, bytes: &[u8]| memory.write_slice(bytes, GuestAddress(at)).unwrap();
    let (desc, avail, used) = rings.rings;
    for (table, entries) in [(desc, &rings.table), (TABLE, &rings.indirect)] {
        for (index, (addr, len, flags, next)) in (0..).zip(entries) {
            let at = table + 16 * index;
            put(at, &addr.to_le_bytes());
            put(at + 8, &len.to_le_bytes());
            put(at + 12, &flags.to_le_bytes());
            put(at + 14, &next.to_le_bytes());
        }
    }
    (DATA..DATA + 0x4000).step_by(12).for_each(|at| put(at, &rings.header));
    for (index, head) in (0..).zip(&rings.heads) {
        put(avail + 4 + 2 * index, &head.to_le_bytes());
    }
    put(avail + 2, &rings.avail_idx.to_le_bytes());
    let mut queue = Queue::new(SIZE).unwrap();
    queue.try_set_desc_table_address(GuestAddress(desc)).unwrap();
    queue.try_set_avail_ring_address(GuestAddress(avail)).unwrap();
    queue.try_set_used_ring_address(GuestAddress(used)).unwrap();
    queue.set_event_idx(rings.event_idx);
    queue.set_ready(true);
    assert!(queue.is_valid(memory));
    queue
}

fn shared(wire: &Arc<Wire>) -> Arc<Shared> {
    card(wire).shared
}

fn island(memory: &GuestMemory) -> Vec<u8> {
    let mut island = vec![0; ISLAND_LEN];
    memory.read_slice(&mut island, GuestAddress(ISLAND)).unwrap();
    island
}

/// What the link got is something that it need not distrust.
fn check_sent(wire: &Arc<Wire>) {
    for frame in &wire.lanes.lock().unwrap()[0].from_guest {
        let len = frame.len() - HEADER_SIZE;
        assert!((FRAME_MIN..=LARGE_FRAME_MAX).contains(&len), "{len}");
        let raw = frame[..HEADER_SIZE].try_into().unwrap();
        assert_eq!(header::check(raw, len, ALL), Ok(raw));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// It ends, without a panic, and what the link gets are frames.
    #[test]
    fn random_rings_of_frames_from_the_guest_do_no_harm(rings in rings()) {
        let (wire, memory) = (Wire::new(1, ALL), memory());
        let queue = lay_out(&memory, &rings);
        let interrupt: Arc<dyn Interrupt> = Arc::new(CountInterrupts::default());
        let sender = wire.link().open(1).unwrap().remove(0).sender;
        let handler = Transmitter { shared: shared(&wire), sender, agreed: ALL, interrupt: interrupt.clone() };
        let result = drain_here(queue, &memory, interrupt, handler);
        let apart = rings.rings == (DESC, AVAIL, USED);
        if let Ok(queue) = result && apart {
            prop_assert!(queue.next_used() == queue.next_avail());
        }
        check_sent(&wire);
    }

    /// It ends when it is to, and leaves alone what nothing named as writable.
    #[test]
    fn random_rings_of_room_do_no_harm(
        rings in rings(),
        features in prop::sample::select(vec![0, MERGES, LARGE, MERGES | LARGE]),
        frames in prop::collection::vec(prop::sample::select(vec![0_usize, 14, 60, 1514, 3000, 65_550]), 0..12),
    ) {
        let (wire, memory) = (Wire::new(1, ALL), memory());
        memory.write_slice(&[0x5a; ISLAND_LEN], GuestAddress(ISLAND)).unwrap();
        let queue = lay_out(&memory, &rings);
        // All ones, so that a table made of them names no memory.
        frames.iter().for_each(|&len| wire.give(0, &vec![0xff; len]));
        let interrupt = Arc::new(CountInterrupts::default());
        let receiver = wire.link().open(1).unwrap().remove(0).receiver;
        let work = Work { shared: shared(&wire), receiver, terms: Terms::new(features, 1500) };
        let active = ActiveQueue { queue, kick: Arc::new(EventFd::new(EFD_CLOEXEC).unwrap()) };
        let queue = ReceiveQueue { active, chains: Vec::new() };
        let worker =
            ReceiveWorker::start("hostile".into(), 0, queue, memory.clone(), interrupt.clone(), work).unwrap();
        let left = || wire.lanes.lock().unwrap()[0].to_guest.len();
        for _ in 0..200 {
            if left() == 0 || interrupt.needs_reset.load(Ordering::SeqCst) > 0 {
                break;
            }
            thread::yield_now();
        }
        let stopped = worker.stop();
        let broken = interrupt.needs_reset.load(Ordering::SeqCst);
        prop_assert_eq!((stopped.is_none(), broken <= 1), (broken == 1, true));
        let apart = rings.rings == (DESC, AVAIL, USED);
        if let Some(ReceiveQueue { active, chains }) = stopped && apart {
            let taken = active.queue.next_avail();
            prop_assert_eq!(usize::from(taken), usize::from(active.queue.next_used()) + chains.len());
        }
        if apart {
            prop_assert!(island(&memory).iter().all(|&byte| byte == 0x5a), "the island was written to");
        }
    }

    /// A working card, its rings and buffers changed in a few places while it runs.
    #[test]
    fn good_rings_with_a_few_bytes_changed_do_no_harm(
        seed in any::<u64>(),
        changes in prop::collection::vec((0_u64..0x9000, any::<u8>()), 1..12),
        features in prop::sample::select(vec![0, MERGES, MULTIQUEUE, MERGES | LARGE | MULTIQUEUE | EVENT_IDX]),
    ) {
        let wire = Wire::new(1, ALL);
        let multiqueue = features & MULTIQUEUE == MULTIQUEUE;
        let wire = if multiqueue { Wire::new(2, ALL) } else { wire };
        let mut driver = CardDriver::<MmioTransport>::started(card(&wire), features | 1 | 1 << 11, 3, SIZE);
        driver.on.put(ISLAND, &[0x5a; ISLAND_LEN]);
        let mut random = seed;
        let mut next = move || {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            random >> 33
        };
        driver.on.put(DATA, &[1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0]);
        driver.on.put(DATA + 0x8000, &pairs(1));
        let mut changes = changes.into_iter();
        for round in 0..24_u16 {
            let head = round % SIZE;
            let len = u32::try_from(next() % 3000).unwrap();
            match next() % 4 {
                0 => driver.offer(0, head, &[(DATA + 0x1000 + next() % 0x4000, 1530 + len, true)]),
                1 if !multiqueue => driver.offer(2, head, &[(DATA + 0x8000, 4, false), (DATA + 0x9000, 1, true)]),
                _ => driver.offer(1, head, &[(DATA, 12, false), (DATA + 0x100, len, false)]),
            }
            if next() % 2 == 0 {
                wire.give(0, &vec![0xff; 14 + usize::try_from(next() % 2000).unwrap()]);
            }
            if next() % 2 == 0 && let Some((at, value)) = changes.next() {
                driver.on.put(DESC + at, &[value]);
            }
            (0..3).for_each(|index| driver.kick(index));
        }
        // It stops, and works again.
        driver.on.set_status(0);
        check_sent(&wire);
        wire.lanes.lock().unwrap().iter_mut().for_each(|lane| { lane.to_guest.clear(); lane.from_guest.clear(); });
        driver.start(0, 2, SIZE);
        driver.offer(0, 0, &[(DATA, 1530, true)]);
        driver.kick(0);
        wire.give(0, &[7; 60]);
        prop_assert_eq!(driver.next_used(0), (0, 72));
        driver.send_frame(0, [0; 12], &[8; 60]);
        prop_assert_eq!(wire.taken(0, 1).len(), 1);
    }
}

#[test]
fn circles_nested_tables_and_the_same_head_twice_do_no_harm() {
    let wire = Wire::new(1, ALL);
    let card = card(&wire);
    let counters = card.counters();
    let mut driver = CardDriver::<MmioTransport>::started(card, INDIRECT_DESC | MERGES, 2, SIZE);
    let broken: &[&[Entry]] = &[
        &[(DATA, 16, NEXT, 1), (DATA, 512, NEXT, 0)],
        &[(DATA, 16, NEXT, SIZE)],
        &[(DATA, 16, NEXT | WRITE, 0)],
        &[(DESC, 32, INDIRECT, 0)],
        &[(TABLE, 0, INDIRECT, 0)],
        &[(TABLE, 17, INDIRECT, 0)],
        &[(HOLE, 16, INDIRECT, 0)],
        &[(DATA, u32::MAX, NEXT, 1), (DATA, u32::MAX, 0, 0)],
    ];
    for (round, entries) in (1..).zip(broken) {
        for queue in [0, 1] {
            let desc = driver.queues[usize::from(queue)].desc();
            for (index, &entry) in (0..).zip(*entries) {
                driver.on.describe(desc, index, entry);
            }
            driver.offer_head(queue, 0);
            driver.kick(queue);
            assert_eq!(driver.next_used(queue), (0, 0), "{entries:x?}");
        }
        let dropped = counters.malformed.load(Ordering::SeqCst) + counters.refused.load(Ordering::SeqCst);
        assert_eq!(dropped, 2 * round);
    }
    driver.offer(0, 1, &[(DATA, 1000, true)]);
    driver.offer_head(0, 1);
    driver.kick(0);
    wire.give(0, &[7; 1500]);
    assert_eq!([driver.next_used(0), driver.next_used(0)], [(1, 1000), (1, 512)]);
}
