//! Registers and admin commands.

use super::testing::*;
use super::*;
use crate::vmm::bus::BusDevice;

fn disk() -> Arc<MemDisk> {
    Arc::new(MemDisk::patterned(64))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn identify(cns: u32, nsid: u32) -> Cmd {
    Cmd::new(admin_op::IDENTIFY, nsid, DATA, &[cns])
}

fn log_page(page: u32, nsid: u32, len: u32) -> Cmd {
    Cmd::new(admin_op::GET_LOG_PAGE, nsid, DATA, &[page | (len / 4 - 1) << 16])
}

fn get_feature(cdw10: u32, cdw11: u32) -> Cmd {
    Cmd::new(admin_op::GET_FEATURES, 0, 0, &[cdw10, cdw11])
}

fn set_feature(cdw10: u32, cdw11: u32) -> Cmd {
    Cmd::new(admin_op::SET_FEATURES, 0, 0, &[cdw10, cdw11])
}

#[test]
fn registers_say_what_the_controller_is() {
    let bench = Bench::new(disk());
    let mut cap = [0; 8];
    bench.nvme.read(CAP, &mut cap);
    let cap = u64::from_le_bytes(cap);
    assert_eq!(u64::from(bench.get(0)) | u64::from(bench.get(4)) << 32, cap);
    assert_eq!(cap & 0xffff, u64::from(MAX_ENTRIES) - 1);
    // CQR, NVM command set; doorbell stride and page sizes are the smallest.
    assert_eq!((cap >> 16 & 1, cap >> 37 & 0xff, cap >> 32 & 0xf, cap >> 48 & 0xff), (1, 1, 0, 0));
    assert_eq!((bench.get(8), bench.get(CC), bench.get(CSTS)), (0x1_0400, 0, 0));
    let mut byte = [0];
    bench.nvme.read(9, &mut byte);
    assert_eq!(byte, [4]);
    bench.set(0xc, 0xf0);
    bench.set(0x10, 0x30);
    assert_eq!((bench.get(0xc), bench.get(0x10)), (0xc0, 0xc0));
    bench.set_long(ASQ, 0x1234_5678_9abc_d123);
    assert_eq!((bench.get(ASQ), bench.get(ASQ + 4)), (0x9abc_d000, 0x1234_5678));
    bench.set(ACQ + 4, 7);
    assert_eq!((bench.get(ACQ), bench.get(ACQ + 4)), (0, 7));
    // Read-only registers and odd accesses change nothing, and are counted.
    let before = bench.nvme.state();
    bench.set(CAP, 0);
    bench.set(CSTS, 0xff);
    bench.nvme.write(CC, &[1]);
    bench.nvme.write(0x26, &[0; 4]);
    bench.nvme.write(0x1000, &[0; 8]);
    bench.nvme.write(REGISTERS_LEN, &[0; 4]);
    assert_eq!(bench.nvme.state(), before);
    assert_eq!(bench.nvme.counters().bad_accesses.load(Ordering::Relaxed), 6);
}

#[test]
fn identify_shows_an_ebs_volume() {
    let mut admin = Bench::new(disk()).enable(16);
    admin.must(&identify(1, 0));
    let page = admin.bench.take(DATA, 4096);
    assert_eq!(page[..4], [0x0f, 0x1d, 0x0f, 0x1d]);
    assert_eq!(text(&page[4..24]), "vol0123456789abcdef0");
    assert_eq!(text(&page[24..64]), "Amazon Elastic Block Store              ");
    assert_eq!(text(&page[64..72]), "1.0     ");
    assert_eq!(text(&page[3072..3104]), "/dev/sdf                        ");
    assert_eq!((page[77], page[512], page[513], page[516], page[525] & 1), (8, 0x66, 0x44, 1, 1));
    assert!(text(&page[768..1024]).starts_with("nqn.2014-08.org.nvmexpress:uuid:"));

    admin.must(&identify(0, 1));
    let page = admin.bench.take(DATA, 4096);
    assert_eq!(page[..8], 64_u64.to_le_bytes());
    assert_eq!(page[..8], page[8..16]);
    // One format, 512-byte blocks without metadata; not write protected.
    assert_eq!((page[25], page[26], &page[128..132], page[99]), (0, 0, &[0, 0, 9, 0][..], 0));

    admin.must(&identify(2, 0));
    assert_eq!(admin.bench.take(DATA, 8), [1, 0, 0, 0, 0, 0, 0, 0]);
    admin.must(&identify(2, 1));
    assert_eq!(admin.bench.take(DATA, 8), [0; 8]);

    admin.must(&identify(3, 1));
    let page = admin.bench.take(DATA, 32);
    assert_eq!((&page[..4], page[20]), (&[3, 16, 0, 0][..], 0));
    assert_eq!(page[10] >> 4, 8);

    for (cns, nsid, code) in
        [(0, 0, 0x0b), (0, 2, 0x0b), (0, u32::MAX, 0x0b), (2, u32::MAX, 0x0b), (3, 2, 0x0b), (5, 1, 2)]
    {
        assert_eq!(admin.code(&identify(cns, nsid)), code, "{cns} {nsid}");
    }
    // Across two pages that do not follow each other, and to where no memory is.
    admin.must(&Cmd { prp1: DATA + 0x800, prp2: DATA + 0x8000, ..identify(1, 0) });
    assert_eq!(text(&admin.bench.take(DATA + 0x800 + 4, 20)), "vol0123456789abcdef0");
    assert_eq!(&admin.bench.take(DATA + 0x8000 + 3072 - 0x800, 8), b"/dev/sdf");
    assert_eq!(admin.code(&Cmd { prp1: HOLE, ..identify(1, 0) }), 4);
    assert_eq!(admin.code(&Cmd { prp1: DATA + 2, ..identify(1, 0) }), 0x13);
    assert_eq!(admin.code(&Cmd { prp1: DATA + 8, prp2: DATA + 0x1008, ..identify(1, 0) }), 0x13);
    assert_eq!(admin.code(&Cmd { flags: 0x40, ..identify(1, 0) }), 2);
}

#[test]
fn a_read_only_namespace_says_so() {
    let disk = Arc::new(MemDisk { read_only: true, ..MemDisk::patterned(8) });
    let (mut admin, mut io) = started(disk);
    admin.must(&identify(0, 1));
    assert_eq!(admin.bench.take(DATA + 99, 1), [1]);
    for opcode in [io_op::WRITE, io_op::WRITE_ZEROES] {
        assert_eq!(io.code(&Cmd::blocks(opcode, DATA, 0, 1)), 0x20);
    }
    assert_eq!(io.code(&Cmd::new(io_op::DATASET_MANAGEMENT, 1, DATA + 0x2000, &[0, 4])), 0x20);
    assert_eq!(io.code(&Cmd::blocks(io_op::READ, DATA, 0, 1)), 0);
}

#[test]
fn unknown_commands_are_refused_for_good() {
    let (mut admin, mut io) = started(disk());
    for opcode in [0x03, 0x0d, 0x10, 0x18, 0x7c, 0x80, 0xc0, 0xff] {
        let done = admin.run(&Cmd::new(opcode, 0, 0, &[]));
        assert_eq!((done.code, done.retry), (1, false), "{opcode:#x}");
    }
    for opcode in [0x04, 0x0c, 0x0d, 0x79, 0xff] {
        let done = io.run(&Cmd::new(opcode, 1, 0, &[]));
        assert_eq!((done.code, done.retry), (1, false), "{opcode:#x}");
    }
    assert_eq!(admin.bench.nvme.counters().refused.load(Ordering::Relaxed), 13);
}

#[test]
fn queues_are_created_and_deleted_by_the_rules() {
    let mut admin = Bench::new(disk()).enable(16);
    let base = RINGS + 0x1_0000;
    let cases = [
        (create_completion(0, 4, base, 0), 0x101),
        (create_completion(QUEUES + 1, 4, base, 0), 0x101),
        (create_completion(1, 1, base, 0), 0x102),
        (create_completion(1, MAX_ENTRIES + 1, base, 0), 0x102),
        (create_completion(1, 0, base, 0), 0x102),
        (create_completion(1, 4, base, VECTORS), 0x108),
        (create_completion(1, 4, base + 8, 0), 0x13),
        (create_completion(1, 4, HOLE, 0), 2),
        (create_completion(1, 4, !0xfff, 0), 2),
        (create_completion(1, MAX_ENTRIES, HOLE - 0x1000, 0), 2),
        (Cmd { cdw: [0x3_0001, 2, 0, 0, 0, 0], ..create_completion(1, 4, base, 0) }, 2),
        (create_submission(1, 4, base, 1), 0x100),
        (create_submission(1, 4, base, 0), 0x101),
        (create_submission(1, 4, base, QUEUES + 1), 0x101),
        (create_completion(1, 4, base, 1), 0),
        (create_completion(1, 4, base, 1), 0x101),
        (create_submission(0, 4, base, 1), 0x101),
        (create_submission(QUEUES + 1, 4, base, 1), 0x101),
        (create_submission(1, 1, base, 1), 0x102),
        (create_submission(1, 4, base + 64, 1), 0x13),
        (create_submission(1, 4, HOLE, 1), 2),
        (Cmd { cdw: [0x3_0001, 1 << 16, 0, 0, 0, 0], ..create_submission(1, 4, base, 1) }, 2),
        (create_submission(1, 4, base + 0x1000, 1), 0),
        (create_submission(1, 4, base + 0x1000, 1), 0x101),
        (create_submission(2, 4, base + 0x1000, 1), 0),
        (Cmd::new(admin_op::DELETE_COMPLETION_QUEUE, 0, 0, &[1]), 0x10c),
        (Cmd::new(admin_op::DELETE_SUBMISSION_QUEUE, 0, 0, &[0]), 0x101),
        (Cmd::new(admin_op::DELETE_SUBMISSION_QUEUE, 0, 0, &[3]), 0x101),
        (Cmd::new(admin_op::DELETE_SUBMISSION_QUEUE, 0, 0, &[0xffff]), 0x101),
        (Cmd::new(admin_op::DELETE_SUBMISSION_QUEUE, 0, 0, &[1]), 0),
        (Cmd::new(admin_op::DELETE_SUBMISSION_QUEUE, 0, 0, &[1]), 0x101),
        (Cmd::new(admin_op::DELETE_COMPLETION_QUEUE, 0, 0, &[1]), 0x10c),
        (Cmd::new(admin_op::DELETE_SUBMISSION_QUEUE, 0, 0, &[2]), 0),
        (Cmd::new(admin_op::DELETE_COMPLETION_QUEUE, 0, 0, &[0]), 0x101),
        (Cmd::new(admin_op::DELETE_COMPLETION_QUEUE, 0, 0, &[1]), 0),
        (Cmd::new(admin_op::DELETE_COMPLETION_QUEUE, 0, 0, &[1]), 0x101),
    ];
    for (number, (cmd, code)) in cases.iter().enumerate() {
        assert_eq!(admin.code(cmd), *code, "case {number}: {cmd:x?}");
    }
    assert_eq!(admin.bench.nvme.state().queues.len(), 2);
    // Entry sizes that were never set.
    admin.bench.nvme.reset();
    let mut admin = admin.bench.enable(16);
    admin.bench.set(CC, 1);
    assert_eq!(admin.code(&create_completion(1, 4, base, 0)), 0x102);
    admin.bench.set(CC, ENABLED);
    assert_eq!(admin.code(&create_completion(1, 4, base, 0)), 0);
}

#[test]
fn a_set_up_that_cannot_work_is_fatal_until_reset() {
    let bench = Bench::new(disk());
    let good = || {
        bench.set(AQA, 0xf_000f);
        bench.set_long(ASQ, RINGS);
        bench.set_long(ACQ, RINGS + PAGE);
    };
    let spoil: [&dyn Fn() -> u32; 9] = [
        &|| ENABLED | 1 << 4,
        &|| ENABLED | 1 << 7,
        &|| ENABLED | 1 << 11,
        &|| ENABLED | 1 << 16,
        &|| {
            bench.set_long(ASQ, HOLE);
            ENABLED
        },
        &|| {
            bench.set_long(ACQ, u64::MAX);
            ENABLED
        },
        &|| {
            bench.set(AQA, 0xf_0000);
            ENABLED
        },
        &|| {
            bench.set(AQA, 0x0fff_000f);
            ENABLED
        },
        &|| {
            bench.set_long(ASQ, HOLE - 0x1000);
            bench.set(AQA, 0x000f_00ff);
            ENABLED
        },
    ];
    for (number, spoil) in spoil.iter().enumerate() {
        good();
        bench.set(CC, spoil());
        assert_eq!(bench.get(CSTS), 2, "{number}");
        bench.set(0x1000, 1);
        // Shutdown is over at once, where nothing works.
        bench.set(CC, bench.get(CC) | 1 << 14);
        assert_eq!(bench.get(CSTS) & 0xc, 8);
        bench.set(CC, 0);
        assert_eq!(bench.get(CSTS), 0);
    }
    bench.enable(16).must(&identify(1, 0));
    assert_eq!(bench.nvme.counters().fatal.load(Ordering::Relaxed), 9);
}

#[test]
fn what_is_fixed_while_enabled_stays() {
    let mut admin = Bench::new(disk()).enable(16);
    let bench = admin.bench.clone();
    let before = bench.nvme.state();
    bench.set(AQA, 0);
    bench.set_long(ASQ, 0);
    bench.set(CC, ENABLED | 1 << 7);
    assert_eq!(bench.nvme.state(), before);
    admin.must(&identify(1, 0));
    // A reset keeps the admin queues' registers; a second enable is a new start.
    bench.set(CC, 0);
    assert_eq!((bench.get(CSTS), bench.get(AQA), bench.nvme.state().queues.len()), (0, 0xf_000f, 0));
    let mut admin = bench.enable(16);
    admin.must(&identify(1, 0));
    bench.nvme.reset();
    assert_eq!((bench.get(AQA), bench.get(ASQ), bench.get(CC)), (0, 0, 0));
}

#[test]
fn shutdown_makes_the_disk_durable() {
    let disk = disk();
    let (admin, _io) = started(disk.clone());
    admin.bench.set(CC, ENABLED | 1 << 14);
    admin.bench.wait_status(0xc, 8);
    assert_eq!(disk.flushes.load(Ordering::SeqCst), 1);
    assert_eq!(admin.bench.get(CSTS), 9);
    admin.bench.set(CC, 0);
    assert_eq!(admin.bench.get(CSTS), 0);
    // Without a worker there is nothing to wait for.
    admin.bench.set(CC, 2 << 14);
    assert_eq!(admin.bench.get(CSTS), 8);
}

#[test]
fn features_are_told_and_set() {
    let mut admin = Bench::new(disk()).enable(16);
    let pairs = u32::from(QUEUES) - 1;
    assert_eq!(admin.must(&set_feature(7, 0xff_00ff)), pairs << 16 | pairs);
    assert_eq!(admin.must(&get_feature(7, 0)), pairs << 16 | pairs);
    assert_eq!(admin.code(&set_feature(7, 0xffff)), 2);
    // Feature, value to set, what is read then, default.
    for (id, value, read, default) in [
        (1, 0x0102_0303, 0x0102_0303, 0),
        (2, 0, 0, 0),
        (5, 9, 9, 0),
        (6, 0, 0, 1),
        (8, 0x0102, 0x0102, 0),
        (0xa, 1, 1, 0),
        (0xb, 0x3, 0x3, 0),
    ] {
        let nsid = u32::from(id == 5);
        assert_eq!(admin.must(&Cmd { nsid, ..get_feature(id, 0) }), default, "{id}");
        admin.must(&Cmd { nsid, ..set_feature(id, value) });
        assert_eq!(admin.must(&Cmd { nsid, ..get_feature(id, 0) }), read, "{id}");
        assert_eq!(admin.must(&Cmd { nsid, ..get_feature(id | 1 << 8, 0) }), default, "{id}");
        assert_eq!(admin.must(&Cmd { nsid, ..get_feature(id | 3 << 8, 0) }) & 4, 4, "{id}");
    }
    admin.must(&set_feature(9, 1 << 16 | 2));
    assert_eq!((admin.must(&get_feature(9, 2)), admin.must(&get_feature(9, 1))), (1 << 16 | 2, 1));
    admin.must(&set_feature(4, 1 << 20 | 250));
    assert_eq!((admin.must(&get_feature(4, 1 << 20)), admin.must(&get_feature(4, 0))), (250, 343));
    let refused = [
        (get_feature(0, 0), 2),
        (get_feature(3, 0), 2),
        (get_feature(0x80, 0), 2),
        (get_feature(1 | 4 << 8, 0), 2),
        (get_feature(9, VECTORS.into()), 2),
        (get_feature(4, 1 << 16), 2),
        (get_feature(5, 0), 0x0b),
        (Cmd { nsid: 7, ..get_feature(1, 0) }, 0x0b),
        (set_feature(1 | 1 << 31, 0), 0x10d),
        (set_feature(0x0c, 0), 2),
        (set_feature(2, 1), 2),
        (set_feature(9, VECTORS.into()), 2),
        (Cmd { nsid: 1, ..set_feature(5, 1 << 16) }, 2),
        (set_feature(4, 3 << 20), 2),
    ];
    for (cmd, code) in refused {
        assert_eq!(admin.code(&cmd), code, "{cmd:x?}");
    }
    admin.create(1, 4, 4);
    assert_eq!(admin.code(&set_feature(7, 0)), 0x0c);
    // A reset forgets.
    admin.bench.set(CC, 0);
    assert_eq!(admin.bench.enable(16).must(&get_feature(1, 0)), 0);
}

#[test]
fn log_pages_are_read_in_parts() {
    let (mut admin, mut io) = started(disk());
    io.must(&Cmd::blocks(io_op::READ, DATA + 0x2000, 0, 8));
    io.must(&Cmd::blocks(io_op::WRITE, DATA + 0x2000, 0, 8));
    admin.must(&log_page(2, u32::MAX, 512));
    let page = admin.bench.take(DATA, 512);
    assert_eq!((page[0], &page[1..3], page[3]), (0, &300_u16.to_le_bytes()[..], 100));
    assert_eq!((page[32], page[48], page[64], page[80], page[160]), (1, 1, 1, 1, 0));
    admin.must(&log_page(3, 0, 512));
    assert_eq!((admin.bench.take(DATA, 1), &admin.bench.take(DATA + 8, 8)[..]), (vec![1], &b"1.0     "[..]));
    // From byte 8 on; beyond the end there are zeroes.
    admin.bench.put(DATA, &[0xee; 1024]);
    let mut part = log_page(3, 0, 1024);
    part.cdw[2] = 8;
    admin.must(&part);
    assert_eq!(&admin.bench.take(DATA, 4), b"1.0 ");
    assert_eq!(admin.bench.take(DATA + 8, 1016), [0; 1016]);
    for (offset, code) in [(512, 0), (516, 2), (2, 2)] {
        part.cdw[2] = offset;
        assert_eq!(admin.code(&part), code, "{offset}");
    }
    part.cdw[3] = 1;
    assert_eq!(admin.code(&part), 2);
    assert_eq!(admin.code(&log_page(2, 1, 512)), 2);
    assert_eq!(admin.code(&log_page(0, 0, 512)), 0x109);
    assert_eq!(admin.code(&log_page(0xd0, 0, 512)), 0x109);
    // More than a transfer can have.
    let mut long = log_page(1, 0, 4096);
    long.cdw[..2].copy_from_slice(&[0xffff_0001, 0xffff]);
    assert_eq!(admin.code(&long), 2);
}

#[test]
fn events_are_held_told_once_and_aborted() {
    let mut admin = Bench::new(disk()).enable(16);
    let request = Cmd::new(admin_op::ASYNC_EVENT_REQUEST, 0, 0, &[]);
    let ids: Vec<u16> = (0..4).map(|_| admin.submit(&request)).collect();
    assert_eq!(admin.code(&request), 0x105);
    let abort = |queue: u32, id: u16| Cmd::new(admin_op::ABORT, 0, 0, &[queue | u32::from(id) << 16]);
    // Not there, of another queue, there.
    assert_eq!((admin.must(&abort(0, 999)), admin.must(&abort(1, ids[1]))), (1, 1));
    let id = admin.submit(&abort(0, ids[1]));
    let done = admin.next();
    assert_eq!((done.id, done.code), (ids[1], 7));
    let done = admin.next();
    assert_eq!((done.id, done.code, done.result), (id, 0, 0));
    // A doorbell of no queue, one with a bad value, and again: one event, until the log is read.
    admin.bench.set(Bench::submission_doorbell(3), 1);
    let done = admin.next();
    assert_eq!((done.id, done.result), (ids[0], 0x0001_0000));
    admin.bench.set(Bench::completion_doorbell(0), 16);
    admin.bench.set(Bench::completion_doorbell(0), 16);
    admin.must(&Cmd::new(admin_op::GET_LOG_PAGE, 0, DATA, &[1 | 1 << 15 | 0x1f << 16]));
    let entry = admin.bench.take(DATA, 12);
    // The second bad value is an error of its own if the worker was quick.
    assert!((2..=3).contains(&entry[0]), "{entry:?}");
    assert_eq!(entry[1..], [0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    let id = admin.submit(&log_page(1, 0, 64));
    let mut both = [admin.next(), admin.next()];
    both.sort_by_key(|done| done.id);
    assert_eq!((both[0].id, both[0].result, both[1].id), (ids[2], 0x0001_0100, id));
    assert_eq!(admin.bench.nvme.counters().bad_doorbells.load(Ordering::Relaxed), 3);
    // A threshold under the temperature.
    admin.must(&set_feature(0xb, 2));
    admin.submit(&set_feature(4, 290));
    let mut both = [admin.next(), admin.next()];
    both.sort_by_key(|done| done.id);
    assert_eq!((both[0].id, both[0].result), (ids[3], 0x0002_0101));
    admin.must(&log_page(2, 0, 512));
    assert_eq!(admin.bench.take(DATA, 1), [2]);
}

#[test]
fn a_namespace_that_grows_is_told_where_the_driver_wants_to_know() {
    let disk = Arc::new(MemDisk::patterned(8));
    let mut admin = Bench::new(disk.clone()).enable(16);
    let changed = |admin: &mut Pair, retain: u32| {
        admin.must(&Cmd { nsid: u32::MAX, ..log_page(4 | retain << 15, 0, 4096) });
        let page = admin.bench.take(DATA, 4096);
        assert_eq!(page[4..], [0; 4092]);
        page[0]
    };
    admin.must(&identify(1, 0));
    assert_eq!(admin.bench.take(DATA + 92, 4), [0, 1, 0, 0]);
    assert_eq!(changed(&mut admin, 0), 0);
    // Nobody wants to know, but the list has it, until it was read.
    let request = admin.submit(&Cmd::new(admin_op::ASYNC_EVENT_REQUEST, 0, 0, &[]));
    admin.bench.nvme.resized();
    assert_eq!([1, 0, 0].map(|retain| changed(&mut admin, retain)), [1, 1, 0]);
    admin.must(&set_feature(0xb, 0x100));
    assert_eq!(admin.must(&get_feature(0xb, 0)), 0x100);
    disk.resize(40);
    admin.bench.nvme.resized();
    let done = admin.next();
    assert_eq!((done.id, done.result), (request, 0x0004_0002));
    // Told once until the list is read.
    let request = admin.submit(&Cmd::new(admin_op::ASYNC_EVENT_REQUEST, 0, 0, &[]));
    admin.bench.nvme.resized();
    admin.must(&identify(0, 1));
    assert_eq!(admin.bench.take(DATA, 8), 40_u64.to_le_bytes());
    admin.submit(&Cmd { nsid: u32::MAX, ..log_page(4, 0, 4096) });
    let mut both = [admin.next(), admin.next()];
    both.sort_by_key(|done| done.id);
    assert_eq!((both[0].id, both[0].result), (request, 0x0004_0002));
    let mut io = admin.create(1, 4, 4);
    assert_eq!(io.code(&Cmd::blocks(io_op::READ, DATA, 39, 1)), 0);
    assert_eq!(io.code(&Cmd::blocks(io_op::READ, DATA, 40, 1)), 0x80);
}

#[test]
fn doorbells_before_the_start_are_counted_and_forgotten() {
    let bench = Bench::new(disk());
    bench.set(Bench::submission_doorbell(0), 1);
    bench.set(Bench::completion_doorbell(9), 1);
    let mut admin = bench.enable(16);
    admin.must(&log_page(1, 0, 64));
    assert_eq!(bench.take(DATA, 64), [0; 64]);
    assert_eq!(bench.nvme.counters().bad_doorbells.load(Ordering::Relaxed), 2);
}
