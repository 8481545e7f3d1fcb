//! Commands of I/O queues, one by one.

use std::io;

use super::testing::*;
use super::*;

const SECTORS: usize = 4096;

/// PRP1, PRP2, blocks, and the pieces of memory that they are.
type Shape = (u64, u64, u32, &'static [(u64, usize)]);

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 13 + at / 512) % 253).unwrap()).collect()
}

fn range(lba: u64, blocks: u32) -> Vec<u8> {
    [&[0; 4][..], &blocks.to_le_bytes(), &lba.to_le_bytes()].concat()
}

fn deallocate(ranges: u32) -> Cmd {
    Cmd::new(io_op::DATASET_MANAGEMENT, 1, DATA, &[ranges - 1, 4])
}

#[test]
fn reads_and_writes_of_every_prp_shape() {
    let disk = Arc::new(MemDisk::patterned(SECTORS));
    let (_admin, mut io) = started(disk.clone());
    let bench = io.bench.clone();
    // One page, one page at an offset, two pages, the same at an offset, across the seam of two regions.
    let list = DATA + 0x1_0000;
    let exact = DATA + 0x1_2000 - 16;
    let shapes: &[Shape] = &[
        (DATA, 0, 8, &[(DATA, 4096)]),
        (DATA + 0xe00, 0, 1, &[(DATA + 0xe00, 512)]),
        (DATA + 0xf00, DATA + 0x3000, 1, &[(DATA + 0xf00, 256), (DATA + 0x3000, 256)]),
        (DATA, DATA + 0x3000, 16, &[(DATA, 4096), (DATA + 0x3000, 4096)]),
        (SEAM - 0x1000, SEAM, 16, &[(SEAM - 0x1000, 8192)]),
        (DATA + 0x804, list + 0x10, 16, &[(DATA + 0x804, 0x7fc), (DATA + 0x5000, 4096), (DATA + 0x2000, 0x804)]),
        // A list that ends with its page leads nowhere.
        (DATA, exact, 24, &[(DATA, 4096), (DATA + 0x5000, 4096), (DATA + 0x2000, 4096)]),
    ];
    for list in [list + 0x10, exact] {
        bench.put(list, [DATA + 0x5000, DATA + 0x2000].map(u64::to_le_bytes).as_flattened());
    }
    for (number, (prp1, prp2, blocks, parts)) in shapes.iter().enumerate() {
        let len = 512 * *blocks as usize;
        let read = Cmd { prp2: *prp2, ..Cmd::blocks(io_op::READ, *prp1, 3, *blocks) };
        io.must(&read);
        let got: Vec<u8> = parts.iter().flat_map(|&(at, len)| bench.take(at, len)).collect();
        assert!(got == disk.data.lock().unwrap()[1536..1536 + len], "shape {number}");
        let mut bytes = pattern(len);
        bytes[0] = u8::try_from(number).unwrap();
        let mut rest = &bytes[..];
        for &(at, len) in *parts {
            let (now, later) = rest.split_at(len);
            bench.put(at, now);
            rest = later;
        }
        io.must(&Cmd { opcode: io_op::WRITE, ..read });
        assert!(bytes == disk.data.lock().unwrap()[1536..1536 + len], "shape {number}");
    }
}

#[test]
fn the_longest_transfer_with_chained_lists() {
    let disk = Arc::new(MemDisk::patterned(SECTORS));
    let (_admin, mut io) = started(disk.clone());
    let bench = io.bench.clone();
    // 256 pages, 1 MiB, from the end of memory backwards, so that no two touch. The first list has room for 3 entries.
    let list = DATA - 0x4000 - 24;
    let next = DATA - 0x3000;
    let pages: Vec<u64> = (1..=256).map(|n| HOLE - PAGE * n).collect();
    let entries: Vec<u64> = pages[1..3].iter().copied().chain([next]).collect();
    bench.put(list, entries.iter().flat_map(|e| e.to_le_bytes()).collect::<Vec<_>>().as_slice());
    bench.put(next, pages[3..].iter().flat_map(|e| e.to_le_bytes()).collect::<Vec<_>>().as_slice());
    let read = Cmd { prp2: list, ..Cmd::blocks(io_op::READ, pages[0], 0, 2048) };
    io.must(&read);
    for (number, &page) in pages.iter().enumerate() {
        assert!(bench.take(page, 4096) == disk.data.lock().unwrap()[number * 4096..][..4096], "page {number}");
    }
    // A block more is too long.
    assert_eq!(io.code(&Cmd { cdw: [0, 0, 2048, 0, 0, 0], ..read }), 2);
    // A list of one entry that leads on to itself has no more pages than the transfer.
    let circle = DATA - 0x3000;
    bench.put(circle, &circle.to_le_bytes().repeat(512));
    assert_eq!(io.code(&Cmd { prp2: circle + 0xff8, ..Cmd::blocks(io_op::COMPARE, pages[0], 0, 2048) }), 0x285);
    // A list that leads into the middle of a page, however good what is there.
    bench.put(circle, &DATA.to_le_bytes().repeat(511));
    bench.put(circle + 0xff8, &(circle + 8).to_le_bytes());
    assert_eq!(io.code(&Cmd { prp2: circle + 0xff8, ..Cmd::blocks(io_op::READ, DATA, 0, 64) }), 0x13);
    // Lists that are not aligned, not memory, or have such entries.
    for (prp2, entry, code) in [
        (circle + 4, 0, 0x13),
        (HOLE, 0, 4),
        (u64::MAX - 7, 0, 4),
        (circle, DATA + 8, 0x13),
        (circle, HOLE, 4),
        (circle, u64::MAX - 4095, 4),
        (circle + 0xff8, circle + 8, 0x13),
        (circle + 0xff8, HOLE, 4),
    ] {
        bench.put(circle, &entry.to_le_bytes().repeat(512));
        let done = io.run(&Cmd { prp2, ..Cmd::blocks(io_op::READ, DATA, 0, 64) });
        assert_eq!((done.code, done.retry), (code, false), "{prp2:#x} {entry:#x}");
    }
}

#[test]
fn what_lies_outside_is_refused() {
    let disk = Arc::new(MemDisk::patterned(SECTORS));
    let (_admin, mut io) = started(disk.clone());
    let last = SECTORS as u64 - 1;
    for opcode in [io_op::READ, io_op::WRITE, io_op::WRITE_ZEROES, io_op::COMPARE] {
        for (lba, blocks) in [(last + 1, 1), (last, 2), (u64::MAX, 1), (u64::MAX, 2), (1 << 55, 1)] {
            assert_eq!(io.code(&Cmd::blocks(opcode, DATA, lba, blocks)), 0x80, "{opcode} {lba} {blocks}");
        }
        for nsid in [0, 2, u32::MAX] {
            assert_eq!(io.code(&Cmd { nsid, ..Cmd::blocks(opcode, DATA, 0, 1) }), 0x0b, "{opcode} {nsid}");
        }
        for flags in [1, 2, 0x40, 0x80] {
            assert_eq!(io.code(&Cmd { flags, ..Cmd::blocks(opcode, DATA, 0, 1) }), 2, "{opcode} {flags}");
        }
    }
    assert_eq!(io.code(&Cmd::new(io_op::FLUSH, 0, 0, &[])), 0x0b);
    assert_eq!(disk.begun.load(Ordering::SeqCst), 0);
    io.must(&Cmd::blocks(io_op::READ, DATA, last, 1));
}

#[test]
fn zeroes_and_deallocation() {
    let disk = Arc::new(MemDisk::new(vec![7; 64 * 512]));
    let (_admin, mut io) = started(disk.clone());
    let bench = io.bench.clone();
    let zero = || disk.data.lock().unwrap().chunks(512).map(|block| block == [0; 512]).collect::<Vec<_>>();
    io.must(&Cmd::blocks(io_op::WRITE_ZEROES, 0, 2, 3));
    let mut unmap = Cmd::blocks(io_op::WRITE_ZEROES, 0, 8, 1);
    unmap.cdw[2] |= 1 << 25;
    io.must(&unmap);
    bench.put(DATA, &[range(20, 2), range(30, 0), range(63, 1)].concat());
    // Hints without deallocation change nothing.
    io.must(&Cmd { cdw: [2, 3, 0, 0, 0, 0], ..deallocate(3) });
    assert_eq!(zero().iter().filter(|&&zero| zero).count(), 4);
    io.must(&deallocate(3));
    let zeroes: Vec<usize> = zero().iter().enumerate().filter(|(_, zero)| **zero).map(|(at, _)| at).collect();
    assert_eq!(zeroes, [2, 3, 4, 8, 20, 21, 63]);
    // One bad range, and none is done.
    for bad in [range(64, 1), range(63, 2), range(u64::MAX, 1), range(1, u32::MAX)] {
        bench.put(DATA, &[range(40, 2), bad].concat());
        assert_eq!(io.code(&deallocate(2)), 0x80);
    }
    assert_eq!(io.code(&Cmd { prp1: HOLE, ..deallocate(256) }), 4);
    bench.put(DATA, &range(50, 1).repeat(256));
    io.must(&deallocate(256));
    assert!(zero()[50] && !zero()[40]);
}

#[test]
fn compare_compares() {
    let disk = Arc::new(MemDisk::patterned(64));
    let (_admin, mut io) = started(disk.clone());
    let bytes = disk.data.lock().unwrap()[1024..3072].to_vec();
    io.bench.put(DATA, &bytes);
    io.must(&Cmd::blocks(io_op::COMPARE, DATA, 2, 4));
    io.bench.put(DATA + 2047, &[!bytes[2047]]);
    assert_eq!(io.code(&Cmd::blocks(io_op::COMPARE, DATA, 2, 4)), 0x285);
}

#[test]
fn durability_is_what_the_driver_asked_for() {
    let disk = Arc::new(MemDisk::patterned(64));
    let (mut admin, mut io) = started(disk.clone());
    let flushes = || disk.flushes.load(Ordering::SeqCst);
    let write = Cmd::blocks(io_op::WRITE, DATA, 0, 1);
    let mut forced = write;
    forced.cdw[2] |= 1 << 30;
    io.must(&write);
    assert_eq!(flushes(), 0);
    io.must(&forced);
    assert_eq!(flushes(), 1);
    io.must(&Cmd::new(io_op::FLUSH, 1, 0, &[]));
    assert_eq!(flushes(), 2);
    // Going off, the cache is emptied.
    admin.must(&Cmd::new(admin_op::SET_FEATURES, 0, 0, &[6, 0]));
    assert_eq!(flushes(), 3);
    io.must(&write);
    io.must(&Cmd::blocks(io_op::WRITE_ZEROES, 0, 0, 1));
    io.must(&Cmd::blocks(io_op::READ, DATA, 0, 1));
    io.must(&Cmd::blocks(io_op::WRITE, DATA, 0, 1));
    assert_eq!(flushes(), 6);
}

#[test]
fn failures_of_the_host_are_media_errors() {
    let disk = Arc::new(MemDisk::patterned(64));
    let (mut admin, mut io) = started(disk.clone());
    io.bench.put(DATA, &range(9, 1));
    let commands = [
        (Cmd::blocks(io_op::READ, DATA + 0x1000, 5, 1), 0x281),
        (Cmd::blocks(io_op::COMPARE, DATA + 0x1000, 5, 1), 0x281),
        (Cmd::blocks(io_op::WRITE, DATA + 0x1000, 6, 1), 0x280),
        (Cmd::blocks(io_op::WRITE_ZEROES, 0, 7, 1), 0x280),
        (deallocate(1), 0x280),
        (Cmd::new(io_op::FLUSH, 1, 0, &[]), 0x280),
    ];
    disk.fail(|| io::Error::from_raw_os_error(libc::EIO));
    let mut ids = Vec::new();
    for (cmd, code) in &commands {
        let done = io.run(cmd);
        assert_eq!((done.code, done.more), (*code, true), "{cmd:x?}");
        ids.push(done.id);
    }
    disk.fail(|| io::Error::from_raw_os_error(libc::ENOSPC));
    let done = io.run(&commands[2].0);
    assert_eq!((done.code, done.more, done.retry), (0x81, true, false));
    *disk.fault.lock().unwrap() = None;
    io.must(&commands[2].0);

    // The latest first: error count, queue, command, status, no parameter, block, namespace.
    admin.must(&Cmd::new(admin_op::GET_LOG_PAGE, 0, DATA, &[1 | 0x3ff << 16]));
    let log = admin.bench.take(DATA, 4096);
    let entry = |number: usize| &log[64 * number..64 * number + 28];
    let expected = |count: u64, id: u16, field: u16, lba: u64| {
        let words = [1, id, field, 0xffff].map(u16::to_le_bytes);
        [&count.to_le_bytes()[..], words.as_flattened(), &lba.to_le_bytes(), &1_u32.to_le_bytes()].concat()
    };
    assert_eq!(entry(0), expected(7, done.id, (0x6000 | 0x81) << 1, 6));
    assert_eq!(entry(6), expected(1, ids[0], (0x6000 | 0x281) << 1, 5));
    assert_eq!(log[64 * 7..64 * 8], [0; 64]);
    // And SMART counts media errors and log entries.
    admin.must(&Cmd::new(admin_op::GET_LOG_PAGE, u32::MAX, DATA, &[2 | 0x7f << 16]));
    let health = admin.bench.take(DATA, 512);
    assert_eq!((health[160], health[176]), (7, 7));
    // However many there are, the log keeps the latest.
    disk.fail(|| io::Error::from_raw_os_error(libc::EIO));
    for _ in 0..80 {
        io.run(&commands[0].0);
    }
    admin.must(&Cmd::new(admin_op::GET_LOG_PAGE, 0, DATA, &[1 | 0x3ff << 16]));
    let log = admin.bench.take(DATA, 4096);
    assert_eq!((log[0], log[64 * 63]), (87, 24));
}
