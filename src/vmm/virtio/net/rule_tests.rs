//! What the card offers, what it takes for a frame and for room, and when it calls and rests.

use std::thread;
use std::time::Duration;

use super::super::mmio::MmioTransport;
use super::super::testing::*;
use super::testing::*;
use super::*;

#[test]
fn the_configuration_space_tells_the_card() {
    let wire = Wire::new(4, ALL);
    let card = Net::new(&NetworkConfig { mtu: 9001, ..config(&wire) }, 3, no_log());
    assert_eq!(card.queue_sizes().len(), 7);
    let mut space = [0xff; 20];
    card.read_config(0, &mut space);
    assert_eq!(space[..12], [0x0a, 1, 2, 3, 4, 5, 1, 0, 3, 0, 0x29, 0x23]);
    assert_eq!(space[12..], [0; 8]);
    card.carrier().set(false);
    let mut status = [0xff; 2];
    card.read_config(6, &mut status);
    assert_eq!(status, [0, 0]);
    card.read_config(u64::MAX, &mut status);
    assert_eq!(status, [0, 0]);
    let small = Net::new(&NetworkConfig { mtu: 0, ..config(&wire) }, 0, no_log());
    small.read_config(10, &mut status);
    assert_eq!((u16::from_le_bytes(status), small.queue_sizes().len()), (MTU_MIN, 3));
}

#[test]
fn features_follow_from_the_link() {
    let base = RING_FEATURES | 1 << 5 | 1 << 16 | 1 << 3 | MERGES | CONTROL;
    assert_eq!(card(&Wire::new(1, PLAIN)).features(), base);
    let offloads = 0b11 | 0b111 << 7 | 0b111 << 11;
    assert_eq!(card(&Wire::new(2, ALL)).features(), base | 1 << VIRTIO_NET_F_MQ | offloads);
}

#[test]
fn a_frame_may_be_cut_into_any_buffers_and_its_header_is_checked() {
    let wire = Wire::new(1, ALL);
    let card = card(&wire);
    let counters = card.counters();
    let mut driver = CardDriver::<MmioTransport>::started(card, 1 | 1 << 11, 2, 16);
    let sent = frame(5, 1000);
    let mut header = [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0];
    driver.on.put(DATA, &header[..3]);
    driver.on.put(DATA + 0x100, &[&header[3..], &sent[..1]].concat());
    driver.on.put(SEAM - 500, &sent[1..]);
    driver.send(0, &[(DATA, 3, false), (DATA + 0x100, 10, false), (SEAM - 500, 999, false)]);
    assert_eq!(wire.taken(0, 1), [[&header, &sent[..]].concat()]);
    // What means nothing does not get through.
    header[0] = 0x81;
    header[11] = 9;
    driver.send_frame(0, header, &sent);
    assert_eq!(wire.taken(0, 1)[0][..12], [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0]);
    // TCP over IPv6 was not agreed on.
    driver.send_frame(0, [1, 4, 54, 0, 0xa8, 5, 54, 0, 16, 0, 0, 0], &sent);
    driver.send_frame(0, [1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], &sent);
    assert_eq!((counter(&counters.refused), counter(&counters.sent_frames)), (2, 2));
}

#[test]
fn frames_of_impossible_lengths_and_chains_that_are_none_are_dropped() {
    let wire = Wire::new(1, ALL);
    let card = card(&wire);
    let counters = card.counters();
    let mut driver = CardDriver::<MmioTransport>::started(card, 0, 2, 16);
    for len in [0, 1, 11, 12, 25, 65_563, 0x8_0000] {
        driver.send(0, &[(DATA, len, false)]);
    }
    assert_eq!(counter(&counters.refused), 7);
    driver.send(0, &[(DATA, 72, false), (DATA, 1, true)]);
    driver.send(0, &[(DATA, 72, true)]);
    driver.send(0, &[(DATA, 12, false), (HOLE - 10, 60, false)]);
    driver.send(0, &[(HOLE - 1, 12, false), (DATA, 60, false)]);
    assert_eq!((counter(&counters.malformed), counter(&counters.sent_frames)), (4, 0));
    for len in [26, 65_562] {
        driver.send(0, &[(DATA, len, false)]);
    }
    assert_eq!(wire.taken(0, 2).len(), 2);
}

#[test]
fn chains_that_are_no_room_are_given_back() {
    for (features, short) in [(0, 1525), (MERGES, 11), (LARGE, 65_561)] {
        let wire = Wire::new(1, ALL);
        let card = card(&wire);
        let counters = card.counters();
        let mut driver = CardDriver::<MmioTransport>::started(card, features, 2, 16);
        let none: [&[Buffer]; 4] = [
            &[(DATA, short, true)],
            &[(DATA, 16, false), (DATA, 70_000, true)],
            &[(HOLE - 1, 70_000, true)],
            &[(DATA, 0, true)],
        ];
        for buffers in none {
            driver.offer(0, 3, buffers);
            driver.kick(0);
            assert_eq!(driver.next_used(0), (3, 0));
        }
        assert_eq!(counter(&counters.malformed), 4);
        driver.offer(0, 4, &[(DATA, 70_000, true)]);
        driver.kick(0);
        wire.give(0, &frame(1, 60));
        assert_eq!(driver.next_used(0), (4, 72));
    }
}

#[test]
fn a_batch_has_one_interrupt_and_a_card_with_nothing_to_do_rests() {
    let wire = Wire::new(1, PLAIN);
    let mut driver = CardDriver::<MmioTransport>::started(card(&wire), 0, 2, 16);
    let looked = |times| {
        while counter(&wire.looks) < times {
            thread::yield_now();
        }
    };
    for head in 0..9 {
        driver.offer(0, head, &[(DATA + 0x1000 * u64::from(head), 1530, true)]);
    }
    driver.kick(0);
    looked(1);
    let gate = wire.gate.lock().unwrap();
    for seed in 0..8 {
        wire.give(0, &frame(seed, 60));
    }
    drop(gate);
    // There is room and no frame: it waits for the link, and no kick is wanted.
    looked(10);
    assert!(driver.on.interrupt_within(Duration::from_secs(20)));
    assert_eq!((driver.on.irq.read().unwrap(), driver.used_idx(0)), (1, 8), "one interrupt for all");
    assert!(!driver.wants_kick(0));
    // There are frames and no room: it waits for the driver, who is asked to kick.
    wire.give(0, &frame(9, 60));
    wire.give(0, &frame(10, 60));
    while !driver.wants_kick(0) {
        thread::yield_now();
    }
    let looks = counter(&wire.looks);
    for _ in 0..1000 {
        thread::yield_now();
    }
    assert_eq!((counter(&wire.looks), driver.used_idx(0)), (looks, 9));
}
