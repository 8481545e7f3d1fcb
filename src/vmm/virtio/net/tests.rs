//! The card with a driver that keeps to the rules.

use std::sync::Mutex;
use std::thread;

use super::super::testing::attachment::{Attachment, on_every_transport};
use super::super::testing::*;
use super::testing::*;
use super::*;
use crate::net::Offloads;

on_every_transport!(
    frames_go_both_ways,
    a_frame_is_spread_over_chains_and_appears_at_once,
    frames_wait_until_there_is_room,
    the_driver_is_told_when_the_link_goes_down_and_comes_up,
    a_link_that_fails_is_down_until_the_driver_starts_again,
    a_link_that_cannot_be_opened_is_down,
    the_driver_chooses_how_many_pairs_work,
    commands_that_are_none_are_refused,
    a_reset_waits_for_the_frame_in_flight,
    a_ring_that_is_broken_asks_for_a_reset_and_works_again_after_it,
    a_card_without_queues_does_nothing,
);

fn frames_go_both_ways<T: Attachment>() {
    for features in [0, EVENT_IDX, EVENT_IDX | INDIRECT_DESC | MERGES, MERGES | CONTROL] {
        let wire = Wire::new(1, PLAIN);
        let card = card(&wire);
        let counters = card.counters();
        let mut driver = CardDriver::<T>::started(card, features, 2, 16);
        for round in 0..40_u8 {
            let head = u16::from(round) % 16;
            driver.offer(0, head, &[(SEAM - 700, 1530, true)]);
            driver.kick(0);
            let sent = frame(round, 60 + 20 * usize::from(round));
            wire.give(0, &sent);
            assert_eq!(driver.next_used(0), (head.into(), u32::try_from(12 + sent.len()).unwrap()));
            let seen = driver.on.take(SEAM - 700, 12 + sent.len());
            assert_eq!((&seen[..10], &seen[10..12], &seen[12..]), (&[0; 10][..], &[1, 0][..], &sent[..]));
            driver.send_frame(0, [0; 12], &sent);
            assert_eq!(wire.taken(0, 1), [[&[0; 12], &sent[..]].concat()]);
        }
        assert_eq!((counter(&counters.received_frames), counter(&counters.sent_frames)), (40, 40));
        let bytes: u64 = (0..40).map(|round| 60 + 20 * round).sum();
        assert_eq!((counter(&counters.received_bytes), counter(&counters.sent_bytes)), (bytes, bytes));
        assert_eq!((counter(&counters.malformed), counter(&counters.refused)), (0, 0));
    }
}

fn a_frame_is_spread_over_chains_and_appears_at_once<T: Attachment>() {
    for features in [MERGES | LARGE, MERGES | LARGE | EVENT_IDX] {
        let wire = Wire::new(1, ALL);
        let mut driver = CardDriver::<T>::started(card(&wire), features, 2, 64);
        assert_eq!(*wire.agreed.lock().unwrap(), [Offloads { tso6: false, ecn: false, ..ALL }]);
        for head in 0..64 {
            driver.offer(0, head, &[(DATA + 0x1000 * u64::from(head), 0x800, true)]);
        }
        driver.kick(0);
        // In the first chain, in three, and in one again.
        for (from, chains, len) in [(0, 1, 1514), (1, 3, 5000), (4, 1, 60)] {
            let sent = frame(3, len);
            wire.give(0, &sent);
            let mut seen = Vec::new();
            for index in 0..chains {
                let (head, used) = driver.next_used(0);
                assert_eq!(head, from + index);
                assert!(driver.used_idx(0) >= u16::try_from(from + chains).unwrap(), "all of them are there");
                seen.extend(driver.on.take(DATA + 0x1000 * u64::from(head), usize::try_from(used).unwrap()));
            }
            assert_eq!(seen[10..12], u16::try_from(chains).unwrap().to_le_bytes());
            assert_eq!(seen[12..], sent);
        }
    }
}

fn frames_wait_until_there_is_room<T: Attachment>() {
    for features in [0, EVENT_IDX, MERGES, MERGES | EVENT_IDX] {
        let wire = Wire::new(1, PLAIN);
        let mut driver = CardDriver::<T>::started(card(&wire), features, 2, 8);
        for seed in 0..20 {
            wire.give(0, &frame(seed, 100));
        }
        for seed in 0..20 {
            if seed % 4 == 0 {
                (0..4).for_each(|head| driver.offer(0, head, &[(DATA + 0x1000 * u64::from(head), 1530, true)]));
                driver.kick(0);
            }
            assert_eq!(driver.next_used(0), (u32::from(seed) % 4, 112));
            let at = DATA + 0x1000 * (u64::from(seed) % 4);
            assert_eq!(driver.on.take(at + 12, 100), frame(seed, 100));
        }
    }
    // Room for two frames, if the longest is to fit each time.
    let wire = Wire::new(1, ALL);
    let mut driver = CardDriver::<T>::started(card(&wire), MERGES | LARGE, 2, 8);
    (0..4).for_each(|_| wire.give(0, &frame(1, 100)));
    (0..4).for_each(|head| driver.offer(0, head, &[(DATA + 0x1_0000 * u64::from(head), 0x8000, true)]));
    driver.kick(0);
    assert_eq!([driver.next_used(0), driver.next_used(0)], [(0, 112), (1, 112)]);
    while !driver.wants_kick(0) {
        thread::yield_now();
    }
    assert_eq!((driver.used_idx(0), wire.lanes.lock().unwrap()[0].to_guest.len()), (2, 2));
    // All that the ring holds is room, however short it is.
    (4..8).for_each(|head| driver.offer(0, head, &[(DATA, 12, true)]));
    (0..2).for_each(|head| driver.offer(0, head, &[(DATA + 0x8000, 12, true)]));
    driver.kick(0);
    assert_eq!(driver.next_used(0), (2, 112));
    driver.offer(0, 2, &[(DATA, 12, true)]);
    driver.kick(0);
    assert_eq!(driver.next_used(0), (3, 112));
}

fn the_driver_is_told_when_the_link_goes_down_and_comes_up<T: Attachment>() {
    let wire = Wire::new(1, PLAIN);
    let card = card(&wire);
    let (carrier, counters) = (card.carrier(), card.counters());
    let mut driver = CardDriver::<T>::started(card, 0, 2, 16);
    driver.offer(0, 0, &[(DATA, 1530, true)]);
    driver.kick(0);
    assert!(carrier.set(false) && !carrier.set(false));
    driver.on.transport.config_changed();
    while driver.on.wait_interrupt() & 2 == 0 {}
    wire.give(0, &frame(1, 60));
    driver.send_frame(0, [0; 12], &frame(2, 60));
    while counter(&counters.lost_while_down) < 2 {
        thread::yield_now();
    }
    assert!(carrier.set(true) && !carrier.set(true));
    driver.on.transport.config_changed();
    while driver.on.wait_interrupt() & 2 == 0 {}
    driver.offer(0, 1, &[(DATA + 0x1000, 1530, true)]);
    wire.give(0, &frame(3, 60));
    assert_eq!(driver.next_used(0), (0, 72));
    assert_eq!(driver.on.take(DATA + 12, 60), frame(3, 60));
    driver.send_frame(0, [0; 12], &frame(4, 60));
    assert_eq!(wire.taken(0, 1).len(), 1);
}

fn a_link_that_fails_is_down_until_the_driver_starts_again<T: Attachment>() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    let log: Log = Arc::new(move |line| sink.lock().unwrap().push(line.to_owned()));
    let wire = Wire::new(1, PLAIN);
    let card = Net::new(&config(&wire), 1, log);
    let (carrier, counters) = (card.carrier(), card.counters());
    let mut driver = CardDriver::<T>::started(card, EVENT_IDX, 2, 16);
    driver.offer(0, 0, &[(DATA + 0x1000, 1530, true)]);
    driver.kick(0);
    wire.fail();
    while driver.on.wait_interrupt() & 2 == 0 {}
    assert!(!carrier.is_up() && driver.on.status() == 0xf);
    // It has failed once, and is not asked again for frames to the guest.
    driver.kick(0);
    driver.send_frame(0, [0; 12], &frame(1, 60));
    assert_eq!((counter(&counters.host_errors), counter(&counters.lost_while_down)), (1, 1));
    assert_eq!(lines.lock().unwrap().len(), 1);
    assert!(lines.lock().unwrap()[0].starts_with("network: receiving failed: No such device"), "{lines:?}");

    wire.fails.store(false, Ordering::SeqCst);
    driver.on.set_status(0);
    driver.start(0, 2, 16);
    assert!(carrier.is_up());
    driver.send_frame(0, [0; 12], &frame(1, 60));
    assert_eq!(wire.taken(0, 1).len(), 1);
    // And once more, on the way out.
    wire.fails.store(true, Ordering::SeqCst);
    driver.send_frame(0, [0; 12], &frame(1, 60));
    assert_eq!((carrier.is_up(), counter(&counters.host_errors), lines.lock().unwrap().len()), (false, 2, 2));
}

fn a_link_that_cannot_be_opened_is_down<T: Attachment>() {
    let wire = Wire::new(2, PLAIN);
    wire.fails_to_open.store(true, Ordering::SeqCst);
    let card = card(&wire);
    let carrier = card.carrier();
    let mut driver = CardDriver::<T>::started(card, MULTIQUEUE, 5, 16);
    assert!(!carrier.is_up());
    assert_eq!(driver.command(4, &pairs(2)), 1);
    wire.fails_to_open.store(false, Ordering::SeqCst);
    assert_eq!(driver.command(4, &pairs(2)), 0);
    assert!(carrier.is_up());
    // Those that work go on where others cannot be had.
    wire.fails_to_open.store(true, Ordering::SeqCst);
    assert_eq!(driver.command(4, &pairs(2)), 0);
    assert_eq!(driver.command(4, &pairs(1)), 1);
    assert!(!carrier.is_up());
    driver.on.set_status(0);
    assert_eq!(*wire.open.lock().unwrap(), 0);
}

fn the_driver_chooses_how_many_pairs_work<T: Attachment>() {
    for features in [MULTIQUEUE, MULTIQUEUE | EVENT_IDX | MERGES | LARGE] {
        let wire = Wire::new(2, ALL);
        let mut driver = CardDriver::<T>::started(card(&wire), features, 5, 16);
        // What is offered before waits for its pair to work, and what a pair has taken for the time when it works again.
        for pair in 0..2 {
            for head in 0..8 {
                driver.offer(2 * pair, 2 * head, &[(DATA + 0x8000, 0x8000, true), (SEAM, 0x8000, true)]);
            }
            driver.kick(2 * pair);
        }
        let mut next = [0, 0];
        let mut works = |driver: &mut CardDriver<T>, pairs: u16| {
            for pair in 0..pairs {
                wire.give(pair, &frame(7, 60));
                let head = &mut next[usize::from(pair)];
                assert_eq!(driver.next_used(2 * pair), (*head, 72), "in order, and none is lost");
                *head += 2;
                driver.send_frame(pair, [0; 12], &frame(8, 60));
                assert_eq!(wire.taken(pair, 1).len(), 1);
            }
        };
        works(&mut driver, 1);
        for (wanted, answer, working) in [(2, 0, 2), (0, 1, 2), (1, 0, 1), (2, 0, 2), (2, 0, 2), (3, 1, 2)] {
            assert_eq!(driver.command(4, &pairs(wanted)), answer, "{wanted}");
            works(&mut driver, working);
        }
        assert_eq!(*wire.opened.lock().unwrap(), [1, 2, 1, 2]);
    }
}

fn commands_that_are_none_are_refused<T: Attachment>() {
    let wire = Wire::new(2, PLAIN);
    let card = card(&wire);
    let counters = card.counters();
    let mut driver = CardDriver::<T>::started(card, MULTIQUEUE, 5, 16);
    let garbage: &[&[u8]] = &[
        &[4],
        &[4, 0],
        &[4, 0, 1],
        &[4, 0, 1, 0, 0],
        &[4, 1, 1, 0],
        &[0, 0, 1],
        &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[1, 1, 0, 0, 0, 0, 0, 0],
        &[3, 0],
        &[255; 64],
    ];
    for command in garbage {
        assert_eq!(driver.command(4, command), 1, "{command:?}");
    }
    assert_eq!(counter(&counters.commands_refused), garbage.len() as u64);
    // Without a place for an answer.
    for buffers in
        [vec![(DATA, 4, false)], vec![(DATA, 4, false), (HOLE, 1, true)], vec![(DATA, 1, true), (DATA, 4, false)]]
    {
        driver.on.put(DATA, &pairs(2));
        driver.offer(4, 0, &buffers);
        driver.kick(4);
        assert_eq!(driver.next_used(4), (0, 0));
    }
    assert_eq!((counter(&counters.malformed), wire.opened.lock().unwrap().len()), (3, 1));
    // Without the feature, the queue is another, and the command is none.
    driver.on.set_status(0);
    driver.start(CONTROL, 3, 16);
    assert_eq!(driver.command(2, &pairs(1)), 1);
}

fn a_reset_waits_for_the_frame_in_flight<T: Attachment>() {
    let wire = Wire::new(1, PLAIN);
    let mut driver = CardDriver::<T>::started(card(&wire), MERGES, 2, 16);
    // Before anything is offered: a thread that is just beginning looks at its ring without a kick.
    let gate = wire.gate.lock().unwrap();
    for head in 0..16 {
        driver.offer(0, head, &[(DATA + 0x1000 * u64::from(head), 1530, true)]);
        driver.on.put(DATA + 0x1_0000, &[0; 100]);
        driver.offer(1, head, &[(DATA + 0x1_0000, 72, false)]);
    }
    driver.kick(0);
    wire.give(0, &frame(1, 60));
    wire.give(0, &frame(2, 60));
    driver.kick(1);
    while counter(&wire.waiting) < 2 {
        thread::yield_now();
    }
    thread::scope(|scope| {
        let transport = driver.on.transport.clone();
        let reset = scope.spawn(move || transport.reset());
        for _ in 0..1000 {
            thread::yield_now();
        }
        assert!(!reset.is_finished());
        drop(gate);
        reset.join().unwrap();
    });
    assert_eq!(*wire.open.lock().unwrap(), 0, "all ports are closed");
    let used = driver.used_idx(0);
    let untouched = DATA + 0x1000 * u64::from(used);
    driver.on.put(untouched, &[0xee; 100]);
    wire.give(0, &frame(3, 60));
    driver.kick(0);
    for _ in 0..1000 {
        thread::yield_now();
    }
    assert_eq!((driver.used_idx(0), driver.on.take(untouched, 100)), (used, vec![0xee; 100]));
    driver.start(0, 2, 16);
    driver.offer(0, 5, &[(DATA, 1530, true)]);
    driver.kick(0);
    assert_eq!(driver.next_used(0), (5, 72));
}

fn a_ring_that_is_broken_asks_for_a_reset_and_works_again_after_it<T: Attachment>() {
    for index in [0, 1] {
        let wire = Wire::new(1, PLAIN);
        let mut driver = CardDriver::<T>::started(card(&wire), 0, 2, 16);
        driver.publish(index, 17);
        driver.kick(index);
        while driver.on.wait_interrupt() & 2 == 0 {}
        assert_eq!(driver.on.status(), 0x4f);
        let why = driver.on.transport.failure().unwrap();
        assert!(why.starts_with(&format!("queue {index}: invalid available ring index")), "{why}");
        driver.on.set_status(0);
        driver.start(0, 2, 16);
        driver.offer(0, 0, &[(DATA, 1530, true)]);
        driver.kick(0);
        wire.give(0, &frame(1, 60));
        assert_eq!(driver.next_used(0), (0, 72));
        driver.offer_head(0, 16);
        driver.kick(0);
        while driver.on.wait_interrupt() & 2 == 0 {}
        assert_eq!(driver.on.status(), 0x4f);
    }
}

fn a_card_without_queues_does_nothing<T: Attachment>() {
    let wire = Wire::new(1, PLAIN);
    let mut driver = CardDriver::<T>::started(card(&wire), 0, 0, 16);
    wire.give(0, &frame(1, 60));
    driver.on.set_status(0);
    driver.start(0, 1, 16);
    driver.offer(0, 0, &[(DATA, 1530, true)]);
    driver.kick(0);
    assert_eq!(driver.next_used(0), (0, 72));
}
