//! Rings that no honest driver would write, and good ones with a few bytes changed while they are served.

use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::super::Interrupt;
use super::super::mmio::MmioTransport;
use super::super::testing::*;
use super::super::worker::drain_here;
use super::testing::*;
use super::*;
use crate::vmm::memory::GuestMemory;

const SIZE: u16 = 16;

/// An address that is likely to be trouble; the island is named by none, nor reached from one.
fn address() -> impl Strategy<Value = u64> {
    let near = |at: u64| (0_u64..64).prop_map(move |by| at.wrapping_add(by).wrapping_sub(32));
    prop_oneof![
        6 => ROOM..ROOM + 0x4000,
        2 => near(SEAM),
        2 => near(HOLE),
        1 => (0_u64..64).prop_map(|by| u64::MAX - by),
        2 => AVAIL..TABLE + 0x1000,
    ]
}

fn length() -> impl Strategy<Value = u32> {
    prop_oneof![
        3 => prop::sample::select(vec![0, 1, 7, 8, 9, 30, 31, 4096, 65_536]),
        1 => prop::sample::select(vec![0x10_0000, 0x38_0000, 0x8000_0000, u32::MAX]),
    ]
}

type Entry = (u64, u32, u16, u16);

fn entry() -> impl Strategy<Value = Entry> {
    let flags = prop_oneof![
        4 => prop::sample::select(vec![0, NEXT, WRITE, NEXT | WRITE]),
        1 => any::<u16>(),
    ];
    let next = prop_oneof![6 => 0_u16..SIZE, 1 => any::<u16>()];
    prop_oneof![
        8 => (address(), length(), flags, next),
        2 => (Just(TABLE), (0_u32..20).prop_map(|n| 16 * n), Just(INDIRECT), Just(0)),
    ]
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    prop::collection::vec(entry(), usize::from(SIZE)..=usize::from(SIZE))
}

/// A queue with these entries, all its heads available.
fn lay_out(memory: &GuestMemory, table: &[Entry], indirect: &[Entry], heads: &[u16], avail_idx: u16) -> Queue {
    let put = |at, bytes: &[u8]| memory.write_slice(bytes, GuestAddress(at)).unwrap();
    for (table, entries) in [(DESC, table), (TABLE, indirect)] {
        for (index, (addr, len, flags, next)) in (0..).zip(entries) {
            let at = table + 16 * index;
            put(at, &[&addr.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat());
        }
    }
    for (index, head) in (0..).zip(heads) {
        put(AVAIL + 4 + 2 * index, &head.to_le_bytes());
    }
    put(AVAIL + 2, &avail_idx.to_le_bytes());
    let mut queue = Queue::new(SIZE).unwrap();
    queue.try_set_desc_table_address(GuestAddress(DESC)).unwrap();
    queue.try_set_avail_ring_address(GuestAddress(AVAIL)).unwrap();
    queue.try_set_used_ring_address(GuestAddress(USED)).unwrap();
    queue.set_ready(true);
    queue
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// It ends, without a panic, and leaves alone what nothing named.
    #[test]
    fn random_rings_do_no_harm(
        table in entries(),
        indirect in entries(),
        heads in prop::collection::vec(prop_oneof![9 => 0..SIZE, 1 => any::<u16>()], usize::from(SIZE)),
        avail_idx in prop_oneof![8 => 1..=SIZE, 1 => any::<u16>()],
        message in prop_oneof![any::<[u8; 8]>(), Just([1, 0, 0, 0, 3, 0, 1, 0]), Just([1, 0, 0, 0, 6, 0, 1, 0])],
        which in 0..4,
        bytes in 0_usize..9000,
    ) {
        let memory = memory();
        memory.write_slice(&[0x5a; ISLAND_LEN], GuestAddress(ISLAND)).unwrap();
        (ROOM..ROOM + 0x4000).step_by(8).for_each(|at| memory.write_slice(&message, GuestAddress(at)).unwrap());
        let queue = lay_out(&memory, &table, &indirect, &heads, avail_idx);
        let channel = Channel::new().unwrap();
        channel.set_open(true);
        let talk = channel.converse().unwrap();
        talk.send(&vec![0xff; bytes]).unwrap();
        let ports = Arc::new(Ports::new(AGENT_PORT, channel.clone()).unwrap());
        let interrupt: Arc<dyn Interrupt> = Arc::new(CountInterrupts::default());
        let counters = Arc::<ConsoleCounters>::default();
        let result = match which {
            0 => drain_here(queue, &memory, interrupt, Listening { ports, counters }),
            1 => drain_here(queue, &memory, interrupt, ToGuest::new(Told(ports), counters)),
            2 => drain_here(queue, &memory, interrupt, ToGuest::new(channel.clone(), counters)),
            _ => drain_here(queue, &memory, interrupt, ToHost { channel: Some(channel.clone()), counters }),
        };
        if let Ok(queue) = result {
            // One may be kept that waits for bytes.
            let kept = queue.next_avail().wrapping_sub(queue.next_used());
            prop_assert!(kept <= u16::from(which == 1 || which == 2), "{kept}");
        }
        let mut island = vec![0; ISLAND_LEN];
        memory.read_slice(&mut island, GuestAddress(ISLAND)).unwrap();
        prop_assert!(island.iter().all(|&byte| byte == 0x5a), "the island was written to");
    }

    /// A working device, its rings and buffers changed in a few places while it runs: it stops, and works again.
    #[test]
    fn good_rings_with_a_few_bytes_changed_do_no_harm(
        steps in prop::collection::vec((0..6_u8, any::<u8>(), 0_u64..0x1_3000), 1..40),
    ) {
        let channel = Channel::new().unwrap();
        let device = Console::new(AGENT_PORT, channel.clone());
        let mut driver = PortDriver::<MmioTransport>::started(device, MULTIPORT | EVENT_IDX);
        driver.on.put(ROOM, &[1, 0, 0, 0, 6, 0, 1, 0]);
        for (round, (step, value, at)) in (0_u16..).zip(steps) {
            let head = round % SIZE;
            match step {
                0 => driver.offer(CONTROL_OUT, head, &[(ROOM, 8, false)]),
                1 => driver.offer(CONTROL_IN, head, &[(ROOM + 0x1000, 64, true)]),
                2 => driver.offer(IN, head, &[(ROOM + 0x1000, value.into(), true)]),
                3 => driver.offer(OUT, head, &[(ROOM, u32::from(value) << 4, false)]),
                4 => drop(channel.converse().map(|talk| talk.send(&[value; 100]))),
                _ => driver.on.put(DESC + at, &[value]),
            }
        }
        driver.on.set_status(0);
        prop_assert!(!channel.is_open());
        driver.start(MULTIPORT);
        driver.open();
        let talk = channel.converse().unwrap();
        talk.send(b"hello").unwrap();
        prop_assert_eq!(driver.receive(IN), b"hello");
    }
}
