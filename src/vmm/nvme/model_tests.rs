//! The controller against a plain vector: random commands with random PRP layouts, several in the ring at once.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::testing::*;
use super::*;

const SECTORS: usize = 40;
/// Commands of one batch, each with this many pages of memory to itself.
const BATCH: usize = 4;
const SLOT_PAGES: u64 = 24;
/// Of these, the first are for PRP lists.
const LIST_PAGES: u64 = 4;

#[derive(Clone, Debug)]
enum Op {
    Read(u64, u32),
    Write(u64, u32, u8),
    Compare(u64, u32, bool),
    Zeroes(u64, u32, bool),
    Deallocate(Vec<(u64, u32)>),
    Flush,
}

#[derive(Clone, Debug)]
struct Case {
    op: Op,
    /// Offset into the first page.
    offset: u64,
    /// Which pages, in which order.
    pages: Vec<u64>,
    /// Entries of the first list: the later ones begin a new page.
    first_list: u64,
}

fn op() -> impl Strategy<Value = Op> {
    // Some a little beyond the end.
    let at = || 0_u64..SECTORS as u64 + 1;
    let blocks = || prop_oneof![3 => 1_u32..10, 1 => 10_u32..40];
    prop_oneof![
        3 => (at(), blocks()).prop_map(|(at, len)| Op::Read(at, len)),
        4 => (at(), blocks(), any::<u8>()).prop_map(|(at, len, seed)| Op::Write(at, len, seed)),
        1 => (at(), blocks(), any::<bool>()).prop_map(|(at, len, same)| Op::Compare(at, len, same)),
        1 => (at(), blocks(), any::<bool>()).prop_map(|(at, len, unmap)| Op::Zeroes(at, len, unmap)),
        1 => prop::collection::vec((at(), 0_u32..6), 1..5).prop_map(Op::Deallocate),
        1 => Just(Op::Flush),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let pages = Just((LIST_PAGES..SLOT_PAGES).collect::<Vec<_>>()).prop_shuffle();
    (op(), 0_u64..1024, pages, 1_u64..6).prop_map(|(op, offset, pages, first_list)| Case {
        op,
        offset: offset * 4,
        pages,
        first_list,
    })
}

/// Where the pages of a slot are: they cross from one memory region into the next.
fn base(slot: usize) -> u64 {
    SEAM + PAGE * SLOT_PAGES * slot as u64 - PAGE * SLOT_PAGES * BATCH as u64 / 2
}

/// Pieces of guest memory that hold `len` bytes, and the PRPs that say so.
fn lay_out(bench: &Bench, slot: usize, case: &Case, len: usize) -> (Vec<(u64, usize)>, u64, u64) {
    let page = |number: u64| base(slot) + PAGE * number;
    let mut parts = Vec::new();
    let mut rest = len as u64;
    let mut offset = case.offset;
    for &number in &case.pages {
        let now = rest.min(PAGE - offset);
        parts.push((page(number) + offset, usize::try_from(now).unwrap()));
        (rest, offset) = (rest - now, 0);
        if rest == 0 {
            break;
        }
    }
    let more = &parts[1..];
    let prp2 = match more {
        [] => 0xdead_beef_dead_beef,
        [(only, _)] => *only,
        _ => lay_out_list(bench, page(0), case.first_list, more),
    };
    (parts.clone(), parts[0].0, prp2)
}

/// The list begins so late in its page that it has room for `first` entries, then goes on in the next one.
fn lay_out_list(bench: &Bench, page: u64, first: u64, parts: &[(u64, usize)]) -> u64 {
    let room = usize::try_from(first).unwrap();
    let mut list = page + PAGE - 8 * first;
    let begin = list;
    let (here, there) = if parts.len() <= room { (parts, &[][..]) } else { parts.split_at(room - 1) };
    for (addr, _) in here {
        bench.put(list, &addr.to_le_bytes());
        list += 8;
    }
    if !there.is_empty() {
        // Not the page after: what follows by chance must not do.
        let next = page + 2 * PAGE;
        bench.put(list, &next.to_le_bytes());
        for (number, (addr, _)) in (0..).zip(there) {
            bench.put(next + 8 * number, &addr.to_le_bytes());
        }
    }
    begin
}

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| seed.wrapping_add(u8::try_from((at * 7 + at / 512) % 256).unwrap())).collect()
}

fn span(at: u64, blocks: u32) -> std::ops::Range<usize> {
    let start = usize::try_from(at).unwrap() * 512;
    start..start + blocks as usize * 512
}

/// Does a command to the model; gives its status and, where it reads, what is read.
fn apply(model: &mut [u8], op: &Op) -> (u16, Option<Vec<u8>>) {
    let zero: Vec<_> = match op {
        Op::Flush => return (0, None),
        Op::Read(at, len) => return model.get(span(*at, *len)).map_or((0x80, None), |bytes| (0, Some(bytes.to_vec()))),
        Op::Write(at, len, seed) => {
            return model.get_mut(span(*at, *len)).map_or((0x80, None), |bytes| {
                bytes.copy_from_slice(&pattern(*seed, bytes.len()));
                (0, None)
            });
        }
        Op::Compare(at, len, same) => {
            let code = if *same { 0 } else { 0x285 };
            return (if span(*at, *len).end > model.len() { 0x80 } else { code }, None);
        }
        Op::Zeroes(at, len, _) => vec![span(*at, *len)],
        Op::Deallocate(ranges) => ranges.iter().map(|&(at, len)| span(at, len)).collect(),
    };
    if zero.iter().any(|range| range.end > model.len()) {
        return (0x80, None);
    }
    zero.into_iter().for_each(|range| model[range].fill(0));
    (0, None)
}

/// What is in the command's buffer before it begins.
fn input(model: &[u8], op: &Op) -> Vec<u8> {
    match op {
        Op::Read(_, len) => vec![0xee; *len as usize * 512],
        Op::Write(_, len, seed) => pattern(*seed, *len as usize * 512),
        Op::Compare(at, len, same) => {
            let mut bytes = model.get(span(*at, *len)).map_or_else(|| vec![0; *len as usize * 512], <[u8]>::to_vec);
            if let Some(last) = bytes.last_mut().filter(|_| !same) {
                *last ^= 1;
            }
            bytes
        }
        Op::Deallocate(ranges) => {
            ranges.iter().flat_map(|(at, len)| [&[0; 4][..], &len.to_le_bytes(), &at.to_le_bytes()].concat()).collect()
        }
        Op::Zeroes(..) | Op::Flush => vec![0; 4],
    }
}

fn command(op: &Op, prp1: u64, prp2: u64) -> Cmd {
    let cmd = match op {
        Op::Read(at, len) => Cmd::blocks(io_op::READ, prp1, *at, *len),
        Op::Write(at, len, _) => Cmd::blocks(io_op::WRITE, prp1, *at, *len),
        Op::Compare(at, len, _) => Cmd::blocks(io_op::COMPARE, prp1, *at, *len),
        Op::Zeroes(at, len, unmap) => {
            let mut cmd = Cmd::blocks(io_op::WRITE_ZEROES, prp1, *at, *len);
            cmd.cdw[2] |= u32::from(*unmap) << 25;
            cmd
        }
        Op::Deallocate(ranges) => {
            Cmd::new(io_op::DATASET_MANAGEMENT, 1, prp1, &[u32::try_from(ranges.len()).unwrap() - 1, 4])
        }
        Op::Flush => Cmd::new(io_op::FLUSH, 1, prp1, &[]),
    };
    Cmd { prp2, ..cmd }
}

fn run_batch(io: &mut Pair, model: &mut [u8], batch: &[Case]) -> TestCaseResult {
    let bench = io.bench.clone();
    let mut expected = Vec::new();
    for (slot, case) in batch.iter().enumerate() {
        let bytes = input(model, &case.op);
        let (parts, prp1, prp2) = lay_out(&bench, slot, case, bytes.len());
        let mut rest = &bytes[..];
        for &(at, len) in &parts {
            let (now, later) = rest.split_at(len);
            bench.put(at, now);
            rest = later;
        }
        let (code, read) = apply(model, &case.op);
        let id = io.put(&command(&case.op, prp1, prp2));
        expected.push((id, code, parts, read.unwrap_or(bytes)));
    }
    io.ring();
    for (id, code, parts, bytes) in expected {
        let done = io.next();
        prop_assert_eq!((done.id, done.code), (id, code));
        let buffer: Vec<u8> = parts.iter().flat_map(|&(at, len)| bench.take(at, len)).collect();
        prop_assert!(buffer == bytes, "the buffer of command {} is not as it should be", id);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_controller_does_what_a_vector_does(
        entries in (5_u16..20, 2_u16..20),
        batches in prop::collection::vec(prop::collection::vec(case(), 1..=BATCH), 1..30),
    ) {
        let disk = Arc::new(MemDisk::patterned(SECTORS));
        let mut model = disk.data.lock().unwrap().clone();
        let mut admin = Bench::new(disk.clone()).enable(8);
        let mut io = admin.create(1, entries.0, entries.1);
        for batch in batches {
            run_batch(&mut io, &mut model, &batch)?;
        }
        admin.bench.set(CC, 0);
        prop_assert!(*disk.data.lock().unwrap() == model);
    }
}

/// However doorbells and the worker's steps fall against each other, none is lost.
#[test]
fn no_doorbell_is_lost() {
    let mut admin = Bench::new(Arc::new(MemDisk::patterned(8))).enable(8);
    let mut io = admin.create(1, 16, 4);
    let flush = Cmd::new(io_op::FLUSH, 1, 0, &[]);
    let mut waiting = 0;
    for round in 0..6000 {
        io.submit(&flush);
        waiting += 1;
        // Some rounds leave more in the queue than the completion queue holds, others wait for all.
        while waiting > round % 7 {
            io.next();
            waiting -= 1;
        }
    }
}
