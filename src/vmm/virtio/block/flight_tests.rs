//! Requests that the disk has begun: others overtake them, and a reset waits for them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use super::super::testing::attachment::{Attachment, on_every_transport};
use super::super::testing::*;
use super::*;
use crate::disk::testing::{GATED, Gated, pattern};

const DEFAULT: u64 = VERSION_1 | 1 << VIRTIO_BLK_F_FLUSH;
const GATED_SECTORS: u64 = GATED / SECTOR_SIZE;

/// Request number `n` has its header here, and its status and its sector of data behind it.
fn header(n: u16) -> u64 {
    DATA + 0x1000 * u64::from(n)
}
fn status(n: u16) -> u64 {
    header(n) + 0x100
}
fn data(n: u16) -> u64 {
    header(n) + 0x200
}

/// Makes a request for one sector available, as number `n`, without a kick.
fn offer<T: Attachment>(driver: &mut DriverOn<T>, n: u16, kind: u32, sector: u64) {
    driver.put(header(n), &[kind.to_le_bytes(), [0; 4]].concat());
    driver.put(header(n) + 8, &sector.to_le_bytes());
    driver.put(status(n), &[0xee]);
    let mut buffers = vec![(header(n), 16, false), (data(n), 512, kind == 0), (status(n), 1, true)];
    if kind == 4 {
        buffers.remove(1);
    }
    driver.describe_chain(DESC, 3 * n, &buffers);
    driver.offer(3 * n);
}

on_every_transport!(
    what_is_ready_is_used_first,
    a_reset_waits_for_what_is_in_flight,
    a_disk_is_let_go_when_what_is_in_flight_has_ended,
);

fn what_is_ready_is_used_first<T: Attachment>() {
    for features in [DEFAULT, DEFAULT | EVENT_IDX] {
        let Some(disk) = Gated::new().map(Arc::new) else { return };
        let device = Block::new(disk.clone(), "", 1, no_log()).with_engine(Engine::IoUring);
        let mut driver = DriverOn::<T>::started(Box::new(device), features, 64);
        driver.put(data(3), &[5; 512]);
        for (n, kind, sector) in [(0, 0, 0), (1, 0, GATED_SECTORS), (2, 4, 0), (3, 1, GATED_SECTORS + 9)] {
            offer(&mut driver, n, kind, sector);
        }
        driver.kick();
        let mut used = [driver.next_used(), driver.next_used(), driver.next_used()];
        used.sort_unstable();
        assert_eq!(used, [(3, 513), (6, 1), (9, 1)]);
        assert_eq!([1, 2, 3].map(|n| driver.take(status(n), 1)[0]), [0; 3]);
        assert_eq!(driver.take(data(1), 512), pattern(GATED, 512));
        // The driver has no more to say while the first one waits.
        assert_eq!(driver.take(status(0), 1), [0xee]);
        disk.let_through(&[6; 512]);
        assert_eq!(driver.next_used(), (0, 513));
        assert_eq!((driver.take(data(0), 512), driver.take(status(0), 1)), (vec![6; 512], vec![0]));
        // And again, from an idle worker.
        offer(&mut driver, 3, 0, GATED_SECTORS + 9);
        driver.kick();
        assert_eq!(driver.next_used(), (9, 513));
        assert_eq!(driver.take(data(3), 512), [5; 512]);
    }
}

fn a_reset_waits_for_what_is_in_flight<T: Attachment>() {
    let Some(disk) = Gated::new().map(Arc::new) else { return };
    let device = Block::new(disk.clone(), "", 1, no_log()).with_engine(Engine::IoUring);
    let counters = device.counters();
    let mut driver = DriverOn::<T>::started(Box::new(device), DEFAULT, 64);
    for (n, sector) in [(0, 0), (1, 1), (2, GATED_SECTORS)] {
        offer(&mut driver, n, 0, sector);
    }
    driver.kick();
    // The third one being used shows that the others were begun.
    assert_eq!(driver.next_used(), (6, 513));
    thread::scope(|scope| {
        let transport = driver.transport.clone();
        let reset = scope.spawn(move || transport.reset());
        for _ in 0..1000 {
            thread::yield_now();
        }
        assert!(!reset.is_finished());
        disk.let_through(&[6; 512]);
        for _ in 0..1000 {
            thread::yield_now();
        }
        assert!(!reset.is_finished(), "one is still in flight");
        disk.let_through(&[7; 512]);
        reset.join().unwrap();
    });
    assert_eq!((driver.device_used_idx(), counters.reads.load(Ordering::Relaxed)), (3, 3));
    // The memory is the driver's again: nothing more is put into it.
    for n in [0, 1] {
        driver.put(data(n), &[1; 512]);
    }
    disk.let_through(&[8; 512]);
    driver.start(DEFAULT, 64);
    offer(&mut driver, 2, 0, GATED_SECTORS);
    driver.kick();
    assert_eq!(driver.next_used(), (6, 513));
    assert_eq!([driver.take(data(0), 512), driver.take(data(1), 512)].concat(), [1; 1024]);
}

fn a_disk_is_let_go_when_what_is_in_flight_has_ended<T: Attachment>() {
    for features in [DEFAULT, DEFAULT | EVENT_IDX] {
        let Some(disk) = Gated::new().map(Arc::new) else { return };
        let device = Block::new(disk.clone(), "", 1, no_log()).with_engine(Engine::IoUring);
        let mut driver = DriverOn::<T>::started(Box::new(device), features, 64);
        for (n, sector) in [(0, 0), (1, GATED_SECTORS)] {
            offer(&mut driver, n, 0, sector);
        }
        driver.kick();
        assert_eq!(driver.next_used(), (3, 513));
        // One is in flight, one in the ring, without a kick.
        offer(&mut driver, 2, 0, GATED_SECTORS);
        thread::scope(|scope| {
            let transport = driver.transport.clone();
            let withdrawal = scope.spawn(move || transport.withdraw());
            for _ in 0..1000 {
                thread::yield_now();
            }
            assert!(!withdrawal.is_finished());
            disk.let_through(&[6; 512]);
            assert!(withdrawal.join().unwrap());
        });
        assert_eq!(Arc::strong_count(&disk), 1);
        // Each has its answer: the one in flight that of the disk, the one in the ring either that or that there is none, later
        // ones the latter.
        let mut used = [driver.next_used(), driver.next_used()];
        used.sort_unstable();
        assert_eq!((used[0], used[1].0), ((0, 513), 6));
        assert_eq!(driver.take(status(0), 1), [0]);
        assert!(driver.take(status(2), 1)[0] <= 1);
        for (n, kind) in [(3, 0), (4, 1), (5, 4)] {
            offer(&mut driver, n, kind, GATED_SECTORS);
            driver.kick();
            assert_eq!((driver.next_used().0, driver.take(status(n), 1)[0]), (3 * u32::from(n), 1));
        }
        // It lasts, and the device can be reset.
        assert!(driver.transport.withdraw());
        driver.set_status(0);
        driver.start(features, 64);
        offer(&mut driver, 0, 0, GATED_SECTORS);
        driver.kick();
        assert_eq!((driver.next_used().0, driver.take(status(0), 1)[0]), (0, 1));
    }
}

#[test]
fn more_requests_than_can_be_in_flight_wait_in_the_ring() {
    const ALL: u16 = 200;
    let Some(disk) = Gated::new().map(Arc::new) else { return };
    let device = Block::new(disk.clone(), "", 1, no_log()).with_engine(Engine::IoUring);
    let mut driver = Driver::started(Box::new(device), DEFAULT, 256);
    offer(&mut driver, 0, 0, 0);
    for _ in 1..ALL {
        // The same chain again: another request all the same.
        driver.offer(0);
    }
    driver.kick();
    for done in 0..ALL {
        disk.let_through(&[u8::try_from(done).unwrap(); 512]);
        assert_eq!(driver.next_used(), (0, 513));
    }
    assert_eq!((disk.left(), driver.device_used_idx()), (0, ALL));
    offer(&mut driver, 1, 0, GATED_SECTORS);
    driver.kick();
    assert_eq!(driver.next_used(), (3, 513));
}

#[test]
fn a_driver_that_breaks_the_ring_meanwhile_does_no_harm() {
    let Some(disk) = Gated::new().map(Arc::new) else { return };
    let device = Block::new(disk.clone(), "", 1, no_log()).with_engine(Engine::IoUring);
    let mut driver = Driver::started(Box::new(device), DEFAULT, 64);
    offer(&mut driver, 0, 0, 0);
    offer(&mut driver, 1, 0, GATED_SECTORS);
    driver.kick();
    assert_eq!(driver.next_used(), (3, 513));
    driver.publish(1000);
    driver.kick();
    // The worker gives up, and ends when what it began has ended. The interrupt of the request before may come late.
    while driver.wait_interrupt() & 2 == 0 {}
    disk.let_through(&[6; 512]);
    driver.set_status(0);
    driver.start(DEFAULT, 64);
    offer(&mut driver, 1, 0, GATED_SECTORS);
    driver.kick();
    assert_eq!(driver.next_used(), (3, 513));
}
