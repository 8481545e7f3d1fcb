//! The block device end to end: a driver, the registers, the rings, a disk in memory.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;

use super::super::testing::attachment::{Attachment, on_every_transport};
use super::super::testing::*;
use super::super::{Log, VirtioDevice};
use super::*;

const HEADER: u64 = DATA;
const STATUS: u64 = DATA + 0x100;
const BUFFER: u64 = DATA + 0x1000;
const DEFAULT: u64 = VERSION_1 | 1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES;

fn block(disk: &Arc<MemDisk>) -> Block {
    Block::new(disk.clone(), "vol-0123456789abcdef0", 1, no_log())
}

fn driver(disk: &Arc<MemDisk>, features: u64) -> Driver {
    driver_on(disk, features)
}

fn driver_on<T: Attachment>(disk: &Arc<MemDisk>, features: u64) -> DriverOn<T> {
    DriverOn::started(Box::new(block(disk)), features, 128)
}

on_every_transport!(
    reads_and_writes_reach_the_disk,
    a_queue_may_be_set_up_before_the_features_are_agreed_on,
    a_disk_that_grows_calls_the_driver_that_is_at_work,
    a_broken_ring_asks_for_a_reset_and_works_again_after_it,
    a_reset_waits_for_the_request_in_flight_and_leaves_the_rest,
);

fn put_header<T: Attachment>(driver: &DriverOn<T>, kind: u32, sector: u64) {
    driver.put(HEADER, &[kind.to_le_bytes(), [0; 4]].concat());
    driver.put(HEADER + 8, &sector.to_le_bytes());
    driver.put(STATUS, &[0xee]);
}

/// A request with one data buffer; gives status and used length.
fn request<T: Attachment>(driver: &mut DriverOn<T>, kind: u32, sector: u64, data: Buffer) -> (u8, u32) {
    put_header(driver, kind, sector);
    let used = driver.submit(&[(HEADER, 16, false), data, (STATUS, 1, true)]);
    (driver.take(STATUS, 1)[0], used)
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [sector.to_le_bytes().as_slice(), &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

fn reads_and_writes_reach_the_disk<T: Attachment>() {
    for features in [DEFAULT, DEFAULT | EVENT_IDX | INDIRECT_DESC] {
        let disk = Arc::new(MemDisk::patterned(16));
        let mut driver = driver_on::<T>(&disk, features);
        assert_eq!(request(&mut driver, 0, 3, (BUFFER, 1024, true)), (0, 1025));
        assert_eq!(driver.take(BUFFER, 1024), disk.data.lock().unwrap()[3 * 512..5 * 512]);
        driver.put(BUFFER, &[7; 512]);
        assert_eq!(request(&mut driver, 1, 15, (BUFFER, 512, false)), (0, 1));
        assert_eq!(disk.data.lock().unwrap()[15 * 512..], [7; 512]);
        assert_eq!(disk.flushes.load(Ordering::SeqCst), 0);
    }
}

fn a_disk_that_grows_calls_the_driver_that_is_at_work<T: Attachment>() {
    let disk = Arc::new(MemDisk::patterned(16));
    let mut driver = DriverOn::<T>::new(Box::new(block(&disk)));
    driver.transport.config_changed();
    assert_eq!(driver.transport.take_interrupt(), 0, "it has not looked yet");
    driver.start(DEFAULT, 128);
    assert_eq!(request(&mut driver, 0, 31, (BUFFER, 512, true)).0, 1);
    disk.resize(32);
    driver.transport.config_changed();
    // Configuration has changed. The interrupt of the request before may come late.
    while driver.wait_interrupt() & 2 == 0 {}
    assert_eq!(request(&mut driver, 0, 31, (BUFFER, 512, true)), (0, 513));
}

#[test]
fn the_capacity_is_that_of_the_disk_at_this_moment() {
    let disk = Arc::new(MemDisk::patterned(16));
    let device = block(&disk);
    let capacity = || {
        let mut data = [0; 8];
        device.read_config(0, &mut data);
        u64::from_le_bytes(data)
    };
    assert_eq!(capacity(), 16);
    disk.resize(48);
    assert_eq!(capacity(), 48);
}

#[test]
fn counters_tell_what_was_done() {
    let disk = Arc::new(MemDisk::patterned(16));
    let device = block(&disk);
    let counters = device.counters();
    let mut driver = Driver::started(Box::new(device), DEFAULT, 8);
    request(&mut driver, 0, 0, (BUFFER, 1024, true));
    request(&mut driver, 1, 0, (BUFFER, 512, false));
    request(&mut driver, 1, 16, (BUFFER, 512, false));
    request(&mut driver, 99, 0, (BUFFER, 512, false));
    request(&mut driver, 0, 0, (HOLE, 512, true));
    driver.submit(&[(HEADER, 16, false)]);
    let seen = serde_json::to_value(&*counters).unwrap();
    for (name, value) in [
        ("reads", 1),
        ("read_bytes", 1024),
        ("writes", 1),
        ("written_bytes", 512),
        ("refused", 3),
        ("malformed", 1),
        ("host_errors", 0),
    ] {
        assert_eq!(seen[name], value, "{name}");
    }
}

#[test]
fn a_segment_may_cross_regions_of_memory() {
    let disk = Arc::new(MemDisk::patterned(16));
    let mut driver = driver(&disk, DEFAULT);
    assert_eq!(request(&mut driver, 0, 1, (SEAM - 700, 2048, true)), (0, 2049));
    assert_eq!(driver.take(SEAM - 700, 2048), disk.data.lock().unwrap()[512..512 + 2048]);
    assert_eq!(request(&mut driver, 0, 1, (HOLE - 511, 512, true)), (1, 0));
    assert_eq!(request(&mut driver, 0, 1, (u64::MAX - 100, 512, true)), (1, 0));
}

#[test]
fn many_segments_and_indirect_tables_work() {
    let disk = Arc::new(MemDisk::patterned(300));
    let mut driver = driver(&disk, DEFAULT | INDIRECT_DESC);
    put_header(&driver, 0, 2);
    let mut buffers = vec![(HEADER, 16, false)];
    buffers.extend((0..254).map(|i| (BUFFER + 513 * i, 512, true)));
    buffers.push((STATUS, 1, true));
    assert_eq!(driver.submit_indirect(&buffers), 254 * 512 + 1);
    assert_eq!(driver.take(STATUS, 1), [0]);
    for i in 0..254 {
        let at = usize::try_from(i).unwrap() * 512 + 1024;
        assert_eq!(driver.take(BUFFER + 513 * i, 512), disk.data.lock().unwrap()[at..at + 512]);
    }
}

#[test]
fn header_and_status_may_be_split_and_joined_with_data() {
    let disk = Arc::new(MemDisk::patterned(16));
    let mut driver = driver(&disk, DEFAULT);
    // Header over three buffers, the last of which is data too.
    driver.put(BUFFER, &[1, 0, 0]);
    driver.put(BUFFER + 0x100, &[0, 0, 0, 0, 0, 4, 0, 0]);
    driver.put(BUFFER + 0x200, &[0; 5]);
    driver.put(BUFFER + 0x205, &[9; 512]);
    let buffers = [(BUFFER, 3, false), (BUFFER + 0x100, 8, false), (BUFFER + 0x200, 517, false), (STATUS, 1, true)];
    assert_eq!(driver.submit(&buffers), 1);
    assert_eq!(disk.data.lock().unwrap()[4 * 512..5 * 512], [9; 512]);
    // Status as the last byte of the data.
    put_header(&driver, 0, 0);
    assert_eq!(driver.submit(&[(HEADER, 16, false), (BUFFER, 513, true)]), 513);
    assert_eq!(driver.take(BUFFER, 512), disk.data.lock().unwrap()[..512]);
    assert_eq!(driver.take(BUFFER + 512, 1), [0]);
}

#[test]
fn what_leaves_the_disk_or_is_no_whole_sector_is_refused() {
    let disk = Arc::new(MemDisk::patterned(16));
    let before = disk.data.lock().unwrap().clone();
    let mut driver = driver(&disk, DEFAULT);
    for kind in [0, 1] {
        for (sector, len) in
            [(16, 512), (15, 1024), (0, 511), (0, 513), (u64::MAX, 512), (u64::MAX / 512, 512), (1 << 55, 512), (17, 0)]
        {
            let (status, used) = request(&mut driver, kind, sector, (BUFFER, len, kind == 0));
            assert_eq!(status, 1, "{kind} {sector} {len}");
            assert_eq!(used, u32::from(kind == 1 || len == 0));
        }
    }
    assert_eq!(*disk.data.lock().unwrap(), before);
    assert_eq!(disk.begun.load(Ordering::SeqCst), 0);
}

#[test]
fn flush_waits_for_the_disk_and_without_the_feature_every_write_does() {
    let disk = Arc::new(MemDisk::patterned(16));
    let mut with = driver(&disk, DEFAULT);
    assert_eq!(request(&mut with, 4, 0, (BUFFER, 0, false)), (0, 1));
    assert_eq!(disk.flushes.load(Ordering::SeqCst), 1);
    drop(with);
    let mut without = driver(&disk, VERSION_1);
    assert_eq!(request(&mut without, 1, 0, (BUFFER, 512, false)), (0, 1));
    assert_eq!(disk.flushes.load(Ordering::SeqCst), 2);
}

#[test]
fn the_serial_number_is_padded_and_cut() {
    let disk = Arc::new(MemDisk::patterned(1));
    let mut long = driver(&disk, DEFAULT);
    assert_eq!(request(&mut long, 8, 0, (BUFFER, 20, true)), (0, 21));
    assert_eq!(long.take(BUFFER, 20), b"vol-0123456789abcdef");
    long.put(BUFFER, &[0xcc; 32]);
    assert_eq!(request(&mut long, 8, 0, (BUFFER, 5, true)), (0, 6));
    assert_eq!(long.take(BUFFER, 6), b"vol-0\xcc");
    assert_eq!(request(&mut long, 8, 0, (BUFFER, 32, true)), (0, 20));
    assert_eq!(long.take(BUFFER, 22), b"vol-0123456789abcdef\xcc\xcc");

    let mut short = Driver::started(Box::new(Block::new(disk, "a", 1, no_log())), DEFAULT, 8);
    assert_eq!(request(&mut short, 8, 0, (BUFFER, 20, true)), (0, 21));
    assert_eq!(short.take(BUFFER, 20), [b"a".as_slice(), &[0; 19]].concat());
}

#[test]
fn discards_and_zeroes_are_done_whole_or_not_at_all() {
    let disk = Arc::new(MemDisk::patterned(16));
    let before = disk.data.lock().unwrap().clone();
    let mut driver = driver(&disk, DEFAULT);
    let mut ask = |kind, ranges: &[Vec<u8>]| {
        let bytes = ranges.concat();
        driver.put(BUFFER, &bytes);
        request(&mut driver, kind, 0, (BUFFER, u32::try_from(bytes.len()).unwrap(), false)).0
    };
    for (kind, ranges, status) in [
        (11, vec![], 1),
        (11, vec![range(0, 1, 0)[..15].to_vec()], 1),
        (11, vec![range(0, 1, 0), range(16, 1, 0)], 1),
        (11, vec![range(u64::MAX, 1, 0)], 1),
        (11, vec![range(0, 1, 0), range(1, 1, 1)], 2),
        (11, vec![range(0, 1, 2)], 2),
        (11, vec![range(0, u32::MAX, 0)], 1),
        (11, vec![range(0, 1, 0); 33], 1),
        (13, vec![range(0, 1, 2)], 2),
        (13, vec![range(0, 17, 0)], 1),
        (13, vec![range(0, 1, 0); 2], 1),
        (14, vec![range(0, 1, 0)], 2),
    ] {
        assert_eq!(ask(kind, &ranges), status, "{kind} {ranges:?}");
    }
    assert_eq!(*disk.data.lock().unwrap(), before);
    assert_eq!(ask(11, &[range(1, 2, 0), range(15, 1, 0), range(16, 0, 0)]), 0);
    assert_eq!(ask(13, &[range(8, 1, 1)]), 0);
    let mut expected = before;
    expected[512..3 * 512].fill(0);
    expected[8 * 512..9 * 512].fill(0);
    expected[15 * 512..].fill(0);
    assert_eq!(*disk.data.lock().unwrap(), expected);
}

#[test]
fn what_was_not_negotiated_is_not_supported() {
    let disk = Arc::new(MemDisk::patterned(16));
    let mut driver = driver(&disk, VERSION_1);
    driver.put(BUFFER, &range(0, 1, 0));
    assert_eq!(request(&mut driver, 11, 0, (BUFFER, 16, false)).0, 2);
    assert_eq!(request(&mut driver, 13, 0, (BUFFER, 16, false)).0, 2);
}

#[test]
fn a_read_only_disk_says_so_and_refuses() {
    let disk = Arc::new(MemDisk { read_only: true, ..MemDisk::patterned(16) });
    let device = block(&disk);
    assert_ne!(device.features() & 1 << VIRTIO_BLK_F_RO, 0);
    assert_eq!(device.features() & (1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES), 0);
    let mut driver = Driver::started(Box::new(device), VERSION_1 | 1 << VIRTIO_BLK_F_RO, 8);
    driver.put(BUFFER, &range(0, 1, 0));
    for (kind, len) in [(1, 512), (11, 16), (13, 16)] {
        assert_eq!(request(&mut driver, kind, 0, (BUFFER, len, false)).0, 1);
    }
    assert_eq!(request(&mut driver, 0, 0, (BUFFER, 512, true)).0, 0);
    assert_eq!(disk.begun.load(Ordering::SeqCst), 1);
}

#[test]
fn host_errors_become_io_errors_and_a_few_lines() {
    let disk = Arc::new(MemDisk::patterned(16));
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    let log: Log = Arc::new(move |line| sink.lock().unwrap().push(line.to_owned()));
    let device = Block::new(disk.clone(), "vol-1", 1, log);
    let counters = device.counters();
    let mut driver = Driver::started(Box::new(device), DEFAULT, 8);
    let faults: [fn() -> io::Error; 3] =
        [|| rustix::io::Errno::IO.into(), || rustix::io::Errno::NOSPC.into(), || io::ErrorKind::UnexpectedEof.into()];
    for fault in faults {
        disk.fail(fault);
        assert_eq!(request(&mut driver, 0, 0, (BUFFER, 512, true)), (1, 0));
        assert_eq!(request(&mut driver, 1, 2, (BUFFER, 512, false)), (1, 1));
        assert_eq!(request(&mut driver, 4, 0, (BUFFER, 0, false)), (1, 1));
    }
    *disk.fault.lock().unwrap() = None;
    assert_eq!(request(&mut driver, 0, 0, (BUFFER, 512, true)).0, 0);
    assert_eq!(counters.host_errors.load(Ordering::SeqCst), 9);
    let lines = lines.lock().unwrap();
    assert_eq!(lines.len(), 8);
    assert!(lines[4].starts_with("disk vol-1: write at byte 1024 failed: No space left"), "{}", lines[4]);
    assert!(lines[7].ends_with("further failures are counted, not told"));
}

#[test]
fn a_chain_without_a_place_for_a_status_is_given_back() {
    let disk = Arc::new(MemDisk::patterned(16));
    let mut driver = driver(&disk, DEFAULT);
    put_header(&driver, 1, 0);
    for buffers in [
        vec![(HEADER, 16, false), (BUFFER, 512, false)],
        vec![(HEADER, 16, false), (HOLE, 1, true)],
        vec![(STATUS, 1, true), (HEADER, 16, false)],
        vec![(HEADER, 16, false), (STATUS, 0, true)],
    ] {
        assert_eq!(driver.submit(&buffers), 0);
    }
    assert_eq!(driver.take(STATUS, 1), [0xee]);
    // A header that is too short can at least be answered.
    assert_eq!(driver.submit(&[(HEADER, 15, false), (STATUS, 1, true)]), 1);
    assert_eq!(driver.take(STATUS, 1), [1]);
    assert_eq!(driver.submit(&[(STATUS, 1, true)]), 1);
    assert_eq!(disk.begun.load(Ordering::SeqCst), 0);
}

/// As SeaBIOS before 1.16.2 does.
fn a_queue_may_be_set_up_before_the_features_are_agreed_on<T: Attachment>() {
    let disk = Arc::new(MemDisk::patterned(16));
    let mut driver = DriverOn::<T>::new(Box::new(block(&disk)));
    driver.set_status(3);
    driver.set_up_queue(128);
    driver.negotiate(DEFAULT);
    driver.set_status(0xf);
    assert_eq!(driver.status(), 0xf);
    assert_eq!(request(&mut driver, 0, 3, (BUFFER, 512, true)), (0, 513));
}

fn a_broken_ring_asks_for_a_reset_and_works_again_after_it<T: Attachment>() {
    let disk = Arc::new(MemDisk::patterned(16));
    let mut driver = driver_on::<T>(&disk, DEFAULT);
    driver.publish(129);
    driver.kick();
    assert_eq!(driver.wait_interrupt() & 2, 2);
    assert_eq!(driver.status(), 0x4f);
    assert!(driver.transport.failure().unwrap().starts_with("queue 0: invalid available ring index"));
    driver.set_status(0);
    assert_eq!(driver.status(), 0);
    driver.start(DEFAULT, 128);
    assert_eq!(request(&mut driver, 0, 3, (BUFFER, 512, true)), (0, 513));
    driver.offer(128);
    driver.kick();
    assert_eq!(driver.wait_interrupt() & 2, 2);
    assert_eq!(driver.status(), 0x4f);
}

fn a_reset_waits_for_the_request_in_flight_and_leaves_the_rest<T: Attachment>() {
    let disk = Arc::new(MemDisk::patterned(16));
    let mut driver = driver_on::<T>(&disk, DEFAULT);
    put_header(&driver, 0, 0);
    let gate = disk.gate.lock().unwrap();
    for head in [0, 3, 6] {
        driver.describe_chain(DESC, head, &[(HEADER, 16, false), (BUFFER, 512, true), (STATUS, 1, true)]);
        driver.offer(head);
    }
    driver.kick();
    while disk.begun.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    thread::scope(|scope| {
        let transport = driver.transport.clone();
        let reset = scope.spawn(move || transport.reset());
        // The reset holds the registers and cannot end; what workers and interrupt handlers use is not behind that lock.
        driver.transport.take_interrupt();
        driver.kick();
        assert!(!reset.is_finished());
        drop(gate);
        reset.join().unwrap();
    });
    let (begun, used) = (disk.begun.load(Ordering::SeqCst), driver.device_used_idx());
    assert!(used >= 1 && begun == u64::from(used), "{begun} {used}");
    assert_eq!((driver.status(), driver.transport.take_interrupt()), (0, 0));
    // Nobody listens any more.
    driver.kick();
    driver.start(DEFAULT, 128);
    assert_eq!(request(&mut driver, 0, 1, (BUFFER, 512, true)), (0, 513));
}

#[test]
fn the_configuration_space_tells_the_disk() {
    let disk = Arc::new(MemDisk::patterned(16));
    let device = Block::new(disk, "", 3, no_log());
    assert_eq!(device.queue_sizes(), [256, 256, 256]);
    assert_ne!(device.features() & 1 << VIRTIO_BLK_F_MQ, 0);
    let field = |at, len: usize| {
        let mut data = [0; 8];
        device.read_config(at, &mut data[..len]);
        u64::from_le_bytes(data)
    };
    assert_eq!(field(0, 8), 16);
    assert_eq!((field(12, 4), field(20, 4), field(34, 2)), (254, 512, 3));
    assert_eq!((field(36, 4), field(40, 4)), (1 << 23, 32));
    assert_eq!((field(48, 4), field(52, 4), field(56, 1)), (1 << 19, 1, 1));
    assert_eq!((field(58, 8), field(200, 8), field(u64::MAX, 8)), (0, 0, 0));
}
