//! The port with a driver that keeps to the rules, and with one that does not.

use std::time::Instant;

use super::super::testing::attachment::{Attachment, on_every_transport};
use super::super::testing::*;
use super::channel::{BUFFER_MAX, ChannelError, Conversation};
use super::testing::*;
use super::*;

on_every_transport!(
    a_driver_learns_of_the_port_and_bytes_go_both_ways,
    room_waits_for_bytes_and_bytes_for_room,
    what_is_no_room_is_given_back_and_nothing_is_lost,
    a_guest_that_floods_never_waits_and_nothing_grows,
    a_driver_without_ports_gets_rid_of_what_it_sends,
    a_reset_closes_the_port_and_it_works_again,
    a_device_without_queues_does_nothing,
);

fn device() -> (Console, Arc<Channel>) {
    let channel = Channel::new().unwrap();
    (Console::new(AGENT_PORT, channel.clone()), channel)
}

fn hear(talk: &Conversation, len: usize) -> Vec<u8> {
    let mut heard = Vec::new();
    while heard.len() < len {
        heard.extend(talk.receive(Instant::now() + PATIENCE).unwrap());
    }
    heard
}

fn a_driver_learns_of_the_port_and_bytes_go_both_ways<T: Attachment>() {
    for features in [MULTIPORT, MULTIPORT | EVENT_IDX | INDIRECT_DESC] {
        let (device, channel) = device();
        let counters = device.counters();
        let mut config = [0xaa; 16];
        device.read_config(0, &mut config);
        assert_eq!(config, [0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut driver = PortDriver::<T>::started(device, features);
        assert!(!channel.is_open());
        driver.open();
        let talk = channel.converse().unwrap();
        for round in 0..40_u8 {
            talk.send(&[round; 20]).unwrap();
            assert_eq!(driver.receive(IN), [round; 20]);
            driver.send(OUT, &[round, 1, 2]);
            assert_eq!(hear(&talk, 3), [round, 1, 2]);
        }
        assert_eq!(counters.to_host_bytes.load(Ordering::SeqCst), 120);
        assert_eq!(counters.messages.load(Ordering::SeqCst), 3);
        driver.say(1, 6, 0);
        assert_eq!(talk.send(b"x"), Err(ChannelError::Closed));
        assert_eq!(counters.malformed.load(Ordering::SeqCst) + counters.messages_refused.load(Ordering::SeqCst), 0);
    }
}

fn room_waits_for_bytes_and_bytes_for_room<T: Attachment>() {
    let (device, channel) = device();
    let mut driver = PortDriver::<T>::started(device, MULTIPORT);
    driver.open();
    let talk = channel.converse().unwrap();
    for head in 0..3 {
        driver.offer(IN, 2 * head, &[(ROOM + 100 * u64::from(head), 4, true), (SEAM - 2, 4, true)]);
    }
    // No room of it is used for nothing.
    driver.say(0, 0, 0);
    assert_eq!(driver.used(IN), 0);
    talk.send(b"twelve bytes").unwrap();
    assert_eq!([driver.next_used(IN), driver.next_used(IN)], [(0, 8), (2, 4)]);
    assert_eq!((driver.on.take(ROOM, 4), driver.on.take(ROOM + 100, 4)), (b"twel".to_vec(), b"ytes".to_vec()));
    talk.send(b"0123456789abcdef").unwrap();
    assert_eq!(driver.next_used(IN), (4, 8));
    assert_eq!(driver.on.take(SEAM - 2, 4), b"4567");
    assert_eq!(driver.receive(IN), b"89abcdef");
}

fn what_is_no_room_is_given_back_and_nothing_is_lost<T: Attachment>() {
    let (device, channel) = device();
    let counters = device.counters();
    let mut driver = PortDriver::<T>::started(device, MULTIPORT);
    driver.open();
    let talk = channel.converse().unwrap();
    talk.send(b"kept").unwrap();
    let bad: [&[Buffer]; 5] = [
        &[(ROOM, 8, false)],
        &[(ROOM, 8, false), (ROOM, 8, true)],
        &[(HOLE, 8, true)],
        &[(ROOM, 8, true), (u64::MAX, 8, true)],
        &[(ROOM, 0, true)],
    ];
    for buffers in bad {
        driver.offer(IN, 0, buffers);
        assert_eq!(driver.next_used(IN), (0, 0), "{buffers:x?}");
    }
    assert_eq!(driver.receive(IN), b"kept");
    for (queue, buffers) in [(OUT, bad[2]), (OUT, &[(ROOM, 8, true)]), (OUT, &[(u64::MAX, 1, false)])] {
        driver.offer(queue, 0, buffers);
        assert_eq!(driver.next_used(queue), (0, 0));
    }
    // A message that has no room is told later; one that is none is not heeded.
    driver.say(1, 3, 1);
    driver.offer(CONTROL_IN, 0, &[(ROOM, 8, true)]);
    assert_eq!(driver.next_used(CONTROL_IN), (0, 0));
    assert_eq!(driver.receive(CONTROL_IN).len(), 8 + AGENT_PORT.len());
    for len in [0, 7, 9, 4096] {
        driver.offer(CONTROL_OUT, 0, &[(ROOM, len, false)]);
        assert_eq!(driver.next_used(CONTROL_OUT), (0, 0));
    }
    assert_eq!(counters.malformed.load(Ordering::SeqCst), 13);
    assert!(channel.is_open());
}

fn a_guest_that_floods_never_waits_and_nothing_grows<T: Attachment>() {
    let (device, channel) = device();
    let counters = device.counters();
    let mut driver = PortDriver::<T>::started(device, MULTIPORT);
    driver.open();
    for listens in [false, true] {
        let talk = listens.then(|| channel.converse().unwrap());
        for _ in 0..4 {
            driver.offer(OUT, 0, &[(ROOM, 0x8_0000, false), (ROOM, 0x8_0000, false)]);
            assert_eq!(driver.next_used(OUT), (0, 0));
        }
        let kept = counters.to_host_bytes.load(Ordering::SeqCst);
        assert_eq!(kept, if listens { BUFFER_MAX as u64 } else { 0 });
        if let Some(talk) = talk {
            assert_eq!(hear(&talk, 1).len(), BUFFER_MAX);
            driver.send(OUT, b"more");
            assert_eq!(hear(&talk, 4), b"more");
        }
    }
    for _ in 0..1000 {
        driver.say(0, 0, 1);
        driver.say(1, 3, 1);
    }
    let told = [8, 8 + AGENT_PORT.len(), 8].map(|len| (len, driver.receive(CONTROL_IN).len()));
    assert!(told.iter().all(|(wanted, len)| wanted == len), "{told:?}");
}

fn a_driver_without_ports_gets_rid_of_what_it_sends<T: Attachment>() {
    let (device, channel) = device();
    let mut driver = PortDriver::<T>::started(device, 0);
    driver.send(1, b"to a console that nobody reads");
    assert!(!channel.is_open());
}

fn a_reset_closes_the_port_and_it_works_again<T: Attachment>() {
    let (device, channel) = device();
    let mut driver = PortDriver::<T>::started(device, MULTIPORT);
    driver.open();
    let talk = channel.converse().unwrap();
    // Some room that waits, and some bytes that do.
    driver.offer(CONTROL_IN, 0, &[(ROOM, 100, true)]);
    talk.send(b"to a guest that is no more").unwrap();
    driver.on.set_status(0);
    assert!(!channel.is_open());
    assert_eq!(talk.receive(Instant::now() + PATIENCE), Err(ChannelError::Closed));
    drop(talk);
    driver.start(MULTIPORT);
    driver.open();
    let talk = channel.converse().unwrap();
    talk.send(b"hello").unwrap();
    assert_eq!(driver.receive(IN), b"hello");
    driver.on.transport.reset();
    assert!(!channel.is_open());
}

fn a_device_without_queues_does_nothing<T: Attachment>() {
    let (device, channel) = device();
    let mut driver = DriverOn::<T>::new(Box::new(device));
    driver.negotiate(MULTIPORT | VERSION_1);
    driver.set_status(0xf);
    assert_eq!((driver.status(), channel.is_open()), (0xf, false));
    driver.set_status(0);
}
