//! The block device against a plain vector: random requests, cut into random buffers, several in the ring at once.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::super::mmio::MmioTransport;
use super::super::testing::attachment::{Attachment, OnPci, on_every_transport};
use super::super::testing::*;
use super::*;

const SECTORS: usize = 24;
const QUEUE: u16 = 64;
const FEATURES: u64 = VERSION_1 | 1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES;
/// Each request of a batch has this many bytes of guest memory, descriptors and indirect table entries for itself.
const ROOM: u64 = 0x1_0000;
const DESCRIPTORS: u16 = 16;
const BATCH: usize = 4;

#[derive(Clone, Debug)]
enum Op {
    Read(u64, usize),
    Write(u64, usize, u8),
    Discard(Vec<(u64, u32)>),
    Zeroes(u64, u32, bool),
    Flush,
}

#[derive(Clone, Debug)]
struct Case {
    op: Op,
    /// Where the readable and the writable part are cut into buffers.
    cuts: Vec<usize>,
    indirect: bool,
}

fn op() -> impl Strategy<Value = Op> {
    // Some a little beyond the end.
    let sector = || 0_u64..SECTORS as u64 + 1;
    prop_oneof![
        3 => (sector(), 0_usize..6).prop_map(|(at, len)| Op::Read(at, len)),
        4 => (sector(), 0_usize..6, any::<u8>()).prop_map(|(at, len, seed)| Op::Write(at, len, seed)),
        1 => prop::collection::vec((sector(), 0_u32..6), 1..4).prop_map(Op::Discard),
        1 => (sector(), 0_u32..6, any::<bool>()).prop_map(|(at, len, unmap)| Op::Zeroes(at, len, unmap)),
        1 => Just(Op::Flush),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    (op(), prop::collection::vec(0_usize..2600, 0..5), any::<bool>()).prop_map(|(op, cuts, indirect)| Case {
        op,
        cuts,
        indirect,
    })
}

/// Where the parts of request `slot` of a batch are: they cross from one memory region into the next.
fn base(slot: usize) -> u64 {
    SEAM - 2 * ROOM + ROOM * slot as u64
}

/// Cuts `len` bytes at `at` into buffers, at most one more than there are cuts.
fn cut(at: u64, len: usize, cuts: &[usize], write: bool) -> Vec<Buffer> {
    let mut points: Vec<usize> = cuts.iter().copied().filter(|&point| point < len).chain([0, len]).collect();
    points.sort_unstable();
    points.windows(2).map(|w| (at + w[0] as u64, u32::try_from(w[1] - w[0]).unwrap(), write)).collect()
}

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| seed.wrapping_add(u8::try_from((at * 7 + at / 512) % 256).unwrap())).collect()
}

/// Lays a request out and offers it.
fn offer<T: Attachment>(driver: &mut DriverOn<T>, slot: usize, case: &Case) {
    let (kind, sector, data, room) = match &case.op {
        Op::Read(at, sectors) => (0_u32, *at, Vec::new(), sectors * 512),
        Op::Write(at, sectors, seed) => (1, *at, pattern(*seed, sectors * 512), 0),
        Op::Flush => (4, 0, Vec::new(), 0),
        Op::Discard(ranges) => (11, 0, ranges.iter().flat_map(|&(at, len)| range(at, len, false)).collect(), 0),
        Op::Zeroes(at, len, unmap) => (13, 0, range(*at, *len, *unmap), 0),
    };
    let bytes = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes(), &data].concat();
    let reply = base(slot) + ROOM / 2;
    driver.put(base(slot), &bytes);
    driver.put(reply, &vec![0xee; room + 1]);
    let buffers = [cut(base(slot), bytes.len(), &case.cuts, false), cut(reply, room + 1, &case.cuts, true)].concat();
    let head = u16::try_from(slot).unwrap() * DESCRIPTORS;
    if case.indirect {
        let table = TABLE + 16 * u64::from(head);
        driver.describe_chain(table, 0, &buffers);
        driver.describe(DESC, head, (table, 16 * u32::try_from(buffers.len()).unwrap(), INDIRECT, 0));
    } else {
        driver.describe_chain(DESC, head, &buffers);
    }
    driver.offer(head);
}

fn range(at: u64, len: u32, unmap: bool) -> Vec<u8> {
    [&at.to_le_bytes()[..], &len.to_le_bytes(), &u32::from(unmap).to_le_bytes()].concat()
}

/// Does the same to the model; gives the status and what a read gives.
fn apply(model: &mut [u8], op: &Op) -> (u8, Vec<u8>) {
    let span = |at: u64, len: usize| usize::try_from(at).unwrap() * 512..usize::try_from(at).unwrap() * 512 + len * 512;
    let zeroes: Vec<_> = match op {
        Op::Flush => return (0, Vec::new()),
        Op::Read(at, len) => {
            return model.get(span(*at, *len)).map_or((1, vec![0xee; len * 512]), |bytes| (0, bytes.to_vec()));
        }
        Op::Write(at, len, seed) => {
            return model.get_mut(span(*at, *len)).map_or((1, Vec::new()), |bytes| {
                bytes.copy_from_slice(&pattern(*seed, len * 512));
                (0, Vec::new())
            });
        }
        Op::Discard(ranges) => ranges.iter().map(|&(at, len)| span(at, len as usize)).collect(),
        Op::Zeroes(at, len, _) => vec![span(*at, *len as usize)],
    };
    if zeroes.iter().any(|range| range.end > model.len()) {
        return (1, Vec::new());
    }
    zeroes.into_iter().for_each(|range| model[range].fill(0));
    (0, Vec::new())
}

fn check<T: Attachment>(driver: &mut DriverOn<T>, slot: usize, op: &Op, model: &mut [u8]) -> TestCaseResult {
    let (head, used) = driver.next_used();
    prop_assert_eq!(head, u32::try_from(slot).unwrap() * u32::from(DESCRIPTORS));
    let (status, expected) = apply(model, op);
    let reply = driver.take(base(slot) + ROOM / 2, expected.len() + 1);
    prop_assert_eq!(reply[expected.len()], status, "{:?}", op);
    prop_assert!(reply[..expected.len()] == expected, "{:?}", op);
    let whole = status == 0 || expected.is_empty();
    prop_assert_eq!(used as usize, if whole { expected.len() + 1 } else { 0 });
    Ok(())
}

fn work<T: Attachment>(ring: u64, batches: &[Vec<Case>]) -> TestCaseResult {
    let disk = Arc::new(MemDisk::patterned(SECTORS));
    let mut model = disk.data.lock().unwrap().clone();
    let mut driver =
        DriverOn::<T>::started(Box::new(Block::new(disk.clone(), "", 1, no_log())), FEATURES | ring, QUEUE);
    for batch in batches {
        let old = driver.avail_idx();
        for (slot, case) in batch.iter().enumerate() {
            offer(&mut driver, slot, case);
        }
        driver.kick_if_wanted(old);
        for (slot, case) in batch.iter().enumerate() {
            check(&mut driver, slot, &case.op, &mut model)?;
        }
    }
    driver.transport.reset();
    prop_assert!(*disk.data.lock().unwrap() == model);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_device_does_what_a_vector_does(
        transport in 0..3,
        ring in prop::sample::select(vec![0, INDIRECT_DESC, EVENT_IDX, EVENT_IDX | INDIRECT_DESC]),
        batches in prop::collection::vec(prop::collection::vec(case(), 1..=BATCH), 1..40),
    ) {
        match transport {
            0 => work::<MmioTransport>(ring, &batches)?,
            1 => work::<OnPci<true>>(ring, &batches)?,
            _ => work::<OnPci<false>>(ring, &batches)?,
        }
    }
}

on_every_transport!(no_kick_and_no_interrupt_is_lost);

/// A driver that kicks only when asked to is never left waiting, however its offers fall against the worker's steps.
fn no_kick_and_no_interrupt_is_lost<T: Attachment>() {
    for ring in [0, EVENT_IDX] {
        let disk = Arc::new(MemDisk::patterned(SECTORS));
        let mut driver = DriverOn::<T>::started(Box::new(Block::new(disk, "", 1, no_log())), FEATURES | ring, QUEUE);
        let case = Case { op: Op::Flush, cuts: Vec::new(), indirect: false };
        let mut kicks = 0;
        let mut in_ring = 0;
        for round in 0..6000 {
            let old = driver.avail_idx();
            offer(&mut driver, round % BATCH, &case);
            kicks += u32::from(driver.kick_if_wanted(old));
            in_ring += 1;
            // Some rounds leave requests in the ring, others wait for all of them.
            while in_ring > round % 3 {
                driver.next_used();
                in_ring -= 1;
            }
        }
        assert!(kicks > 0);
    }
}
