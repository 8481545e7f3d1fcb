//! Rings, tables and requests that no honest driver would write.

use std::sync::Arc;

use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::super::chain::{Buffers, Segment};
use super::super::testing::*;
use super::super::worker::drain_here;
use super::request::{Limits, Operation, Range, parse};
use super::*;

const SIZE: u16 = 16;
const DISK_SECTORS: usize = 64;

/// An address that is likely to be trouble. With no [`length`] does a buffer end in the island, which only [`canary`] names.
fn address() -> impl Strategy<Value = u64> {
    let near = |at: u64| (0_u64..64).prop_map(move |by| at.wrapping_add(by).wrapping_sub(32));
    prop_oneof![
        6 => DATA..DATA + 0x4000,
        2 => near(SEAM),
        2 => near(HOLE),
        1 => (0_u64..64).prop_map(|by| ISLAND - 0x1_0000 - by),
        1 => Just(ISLAND + ISLAND_LEN as u64),
        1 => (0_u64..64).prop_map(|by| u64::MAX - by),
        // The rings and the indirect table. Not the direct one: the device would rewrite what names the island.
        2 => AVAIL..TABLE + 0x1000,
        1 => 1_u64 << 32..=u64::MAX,
    ]
}

fn length() -> impl Strategy<Value = u32> {
    prop_oneof![
        3 => prop::sample::select(vec![0, 1, 2, 8, 15, 16, 17, 20, 32, 48, 511, 512, 513, 1024, 4096]),
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

/// A header with a type that exists, most of the time, and a sector that does.
fn header() -> impl Strategy<Value = (u32, u64)> {
    let kind = prop_oneof![9 => prop::sample::select(vec![0, 1, 4, 8, 11, 13]), 1 => any::<u32>()];
    let sector = prop_oneof![4 => 0..DISK_SECTORS as u64, 1 => Just(DISK_SECTORS as u64), 1 => any::<u64>()];
    (kind, sector)
}

#[derive(Clone, Debug)]
struct Rings {
    table: Vec<Entry>,
    indirect: Vec<Entry>,
    heads: Vec<u16>,
    avail_idx: u16,
    headers: Vec<(u32, u64)>,
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
    (
        prop::collection::vec(prop_oneof![10 => entry(), 1 => canary()], size..=size),
        prop::collection::vec(entry(), size..=size),
        prop::collection::vec(prop_oneof![9 => 0..SIZE, 1 => any::<u16>()], size..=size),
        avail_idx,
        prop::collection::vec(header(), 8..=8),
        any::<bool>(),
        places,
    )
        .prop_map(|(table, indirect, heads, avail_idx, headers, event_idx, rings)| Rings {
            table,
            indirect,
            heads,
            avail_idx,
            headers,
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
    // Headers all over the data, so that most readable buffers begin with one.
    for (index, at) in (DATA..DATA + 0x4000).step_by(16).enumerate() {
        let (kind, sector) = rings.headers[index % rings.headers.len()];
        put(at, &kind.to_le_bytes());
        put(at + 8, &sector.to_le_bytes());
    }
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(768))]

    /// It ends, without a panic, uses no more chains than were offered, and leaves alone what nothing named as writable.
    #[test]
    fn random_rings_do_no_harm(rings in rings()) {
        // All ones, so that a table made of disk data names no memory.
        let disk = Arc::new(MemDisk::new(vec![0xff; DISK_SECTORS * 512]));
        let memory = memory();
        memory.write_slice(&[0x5a; ISLAND_LEN], GuestAddress(ISLAND)).unwrap();
        let queue = lay_out(&memory, &rings);
        let device = Block::new(disk.clone(), "serial", 1, no_log());
        let handler = Handler::new(device.shared.clone(), &memory, u64::MAX, Engine::of_host());
        let result = drain_here(queue, &memory, Arc::new(CountInterrupts::default()), handler);
        let apart = rings.rings.0 == DESC && rings.rings.1 == AVAIL && rings.rings.2 == USED;
        if let Ok(queue) = result && apart {
            prop_assert!(queue.next_used() == queue.next_avail());
        }
        // Rings that lie over each other may turn any entry into any other.
        if apart {
            let mut island = vec![0; ISLAND_LEN];
            memory.read_slice(&mut island, GuestAddress(ISLAND)).unwrap();
            prop_assert!(island.iter().all(|&byte| byte == 0x5a), "the island was written to");
        }
        prop_assert_eq!(disk.data.lock().unwrap().len(), DISK_SECTORS * 512);
    }

    /// Whatever a request is made of, what comes out of the parser is inside the disk.
    #[test]
    fn a_parsed_request_stays_inside_the_disk(
        (kind, sector) in header(),
        ranges in prop::collection::vec((0_u64..2 * DISK_SECTORS as u64, 0_u32..70, 0_u32..3), 0..4),
        readable in prop::collection::vec((address(), length()), 0..4),
        writable in prop::collection::vec((address(), length()), 0..4),
        size in 0..DISK_SECTORS as u64,
        (read_only, discard, write_zeroes) in any::<(bool, bool, bool)>(),
    ) {
        let memory = memory();
        let mut bytes = [kind.to_le_bytes(), [0; 4]].concat();
        bytes.extend(sector.to_le_bytes());
        for (sector, sectors, flags) in ranges {
            bytes.extend(sector.to_le_bytes());
            bytes.extend(sectors.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
        }
        memory.write_slice(&bytes, GuestAddress(DATA)).unwrap();
        let segments = |list: Vec<(u64, u32)>| -> Vec<Segment> {
            list.into_iter().filter(|s| s.1 > 0).map(|(at, len)| Segment { addr: GuestAddress(at), len }).collect()
        };
        let header = Segment { addr: GuestAddress(DATA), len: u32::try_from(bytes.len()).unwrap() };
        let mut readable = segments(readable);
        readable.insert(0, header);
        let buffers = Buffers { readable, writable: segments(writable) };
        let size = size * SECTOR_SIZE;
        let Some(parsed) = parse(&memory, buffers, Limits { size, read_only, discard, write_zeroes }) else {
            return Ok(());
        };
        let Ok(request) = parsed.request else { return Ok(()) };
        let data: u64 = request.data.iter().map(|s| u64::from(s.len)).sum();
        let fits = |offset: u64, len: u64| offset <= size && len <= size - offset;
        let inside = |range: &Range| fits(range.offset, range.len);
        match request.operation {
            Operation::Read(offset) => prop_assert!(fits(offset, data)),
            Operation::Write(offset) => {
                prop_assert!(!read_only && fits(offset, data));
            }
            Operation::Discard(ranges) => {
                prop_assert!(!read_only && discard && ranges.iter().all(|r| inside(r) && !r.unmap));
            }
            Operation::WriteZeroes(ranges) => {
                prop_assert!(!read_only && write_zeroes && ranges.iter().all(inside));
            }
            Operation::Flush | Operation::GetId => {}
        }
    }
}

#[test]
fn circles_and_nested_tables_end() {
    let disk = Arc::new(MemDisk::patterned(4));
    let device = Block::new(disk.clone(), "", 1, no_log());
    let counters = device.counters();
    let mut driver = Driver::started(Box::new(device), VERSION_1 | INDIRECT_DESC, SIZE);
    let broken: &[&[Entry]] = &[
        // A circle, a step out of the table, a step to itself.
        &[(DATA, 16, NEXT, 1), (DATA, 512, NEXT | WRITE, 0)],
        &[(DATA, 16, NEXT, SIZE)],
        &[(DATA, 16, NEXT | WRITE, 0)],
        // Tables: nested, empty, of odd length, outside memory, longer than memory.
        &[(DESC, 32, INDIRECT, 0)],
        &[(TABLE, 0, INDIRECT, 0)],
        &[(TABLE, 17, INDIRECT, 0)],
        &[(HOLE, 16, INDIRECT, 0)],
        &[(u64::MAX, 16, INDIRECT, 0)],
        &[(TABLE, !15, INDIRECT, 0)],
        // More than 2^32 bytes.
        &[(DATA, u32::MAX, NEXT, 1), (DATA, u32::MAX, WRITE, 0)],
    ];
    for (round, entries) in (1..).zip(broken) {
        for (index, &entry) in (0..).zip(*entries) {
            driver.describe(DESC, index, entry);
        }
        assert_eq!(driver.run(0), 0, "{entries:x?}");
        assert_eq!(counters.malformed.load(Ordering::SeqCst), round);
    }
    // A table too long to be a chain.
    let long: Vec<Buffer> = vec![(DATA, 1, true); 1025];
    driver.describe_chain(ISLAND, 0, &long);
    driver.describe(DESC, 0, (ISLAND, 16 * 1025, INDIRECT, 0));
    assert_eq!(driver.run(0), 0);
    assert_eq!(disk.begun.load(Ordering::SeqCst), 0);
}

#[test]
fn the_same_head_twice_is_two_requests() {
    let disk = Arc::new(MemDisk::patterned(4));
    let mut driver = Driver::started(Box::new(Block::new(disk.clone(), "", 1, no_log())), VERSION_1, SIZE);
    driver.describe_chain(DESC, 0, &[(DATA, 16, false), (DATA + 0x1000, 512, true), (DATA + 0x2000, 1, true)]);
    driver.offer(0);
    driver.offer(0);
    driver.kick();
    assert_eq!([driver.next_used(), driver.next_used()], [(0, 513), (0, 513)]);
    assert_eq!(disk.begun.load(Ordering::SeqCst), 2);
}
