//! Connections to the metadata service, segment by segment.

use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::super::streams::{CONNECTIONS_MAX, HALF_OPEN_MAX};
use super::*;
use crate::net::wire::ipv4::pseudo_header;
use crate::net::wire::{checksum, put_u16};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A segment of the guest.
#[derive(Clone, Copy)]
struct Segment<'a> {
    port: u16,
    flags: u8,
    sequence: u32,
    acknowledged: u32,
    window: u16,
    payload: &'a [u8],
}

impl Segment<'_> {
    fn frame(&self) -> Vec<u8> {
        let mut segment = Vec::new();
        segment.extend(self.port.to_be_bytes());
        segment.extend(80u16.to_be_bytes());
        segment.extend(self.sequence.to_be_bytes());
        segment.extend(self.acknowledged.to_be_bytes());
        segment.extend([0x50, self.flags]);
        segment.extend(self.window.to_be_bytes());
        segment.extend([0; 4]);
        segment.extend(self.payload);
        let len = u16::try_from(segment.len()).unwrap();
        let sum = checksum(&[&pseudo_header(GUEST, METADATA, TCP, len), &segment]);
        put_u16(&mut segment, 16, sum);
        let packet = Ipv4 {
            source: GUEST,
            destination: METADATA,
            protocol: TCP,
            ttl: 64,
            fragment: false,
            payload: &segment,
            whole: &[],
        };
        let packet = packet.build().unwrap();
        Ethernet { destination: mac_of(GATEWAY), source: mac_of(GUEST), kind: IPV4, payload: &packet }.build()
    }
}

/// A segment of the service.
struct Heard {
    ttl: u8,
    flags: u8,
    sequence: u32,
    payload: Vec<u8>,
}

fn heard(frame: &[u8]) -> Heard {
    let packet = Ipv4::parse(&frame[14..]).unwrap();
    let segment = packet.payload;
    let header = usize::from(segment[12] >> 4) * 4;
    Heard {
        ttl: packet.ttl,
        flags: segment[13],
        sequence: u32::from_be_bytes(bytes_at(segment, 4).unwrap()),
        payload: segment[header..].to_vec(),
    }
}

const OPEN: Segment<'_> =
    Segment { port: 40_000, flags: SYN, sequence: 100, acknowledged: 0, window: 8000, payload: &[] };

/// The segment with which a connection of the guest from that port goes on.
fn opened(bench: &mut Bench, port: u16) -> Segment<'static> {
    let answers = bench.tell(&Segment { port, ..OPEN }.frame());
    // Before it, another may be told that it is over.
    let answer = answers.iter().map(|frame| heard(frame)).find(|one| one.flags == SYN | ACK).unwrap();
    let first = Segment { port, flags: ACK, sequence: 101, acknowledged: answer.sequence.wrapping_add(1), ..OPEN };
    bench.tell(&first.frame());
    first
}

#[test]
fn segments_out_of_order_come_to_the_service_in_order() {
    let mut bench = Bench::new();
    let first = opened(&mut bench, 40_000);
    let parts: [(u32, &[u8]); 4] = [(6, b"wor"), (9, b"ld\n"), (3, b"lo "), (0, b"hel")];
    let mut answer = Vec::new();
    for (at, payload) in parts {
        let frames = bench.tell(&Segment { sequence: 101 + at, payload, ..first }.frame());
        answer.extend(frames.iter().flat_map(|frame| heard(frame).payload));
    }
    assert_eq!(answer, b"HELLO WORLD\n");
}

#[test]
fn an_answer_has_its_own_time_to_live_and_keeps_it_when_sent_again() {
    let mut bench = Bench::new();
    let first = opened(&mut bench, 40_000);
    let frames = bench.tell(&Segment { payload: b"ttl 1\nhello\n", ..first }.frame());
    let of_answers = |frames: &[Vec<u8>]| -> Vec<u8> {
        let all = frames.iter().map(|frame| heard(frame));
        all.filter(|one| !one.payload.is_empty()).map(|one| one.ttl).collect()
    };
    assert_eq!(of_answers(&frames), [1]);
    // Not acknowledged, and the next is asked for, whose answer could travel further.
    let frames = bench.tell(&Segment { sequence: 113, payload: b"more\n", ..first }.frame());
    assert!(of_answers(&frames).is_empty());
    let again = bench.later(Duration::from_secs(2));
    assert_eq!(of_answers(&again), [1]);
    let acknowledged = first.acknowledged.wrapping_add(12);
    let frames = bench.tell(&Segment { sequence: 118, acknowledged, ..first }.frame());
    assert_eq!(of_answers(&frames), [64]);
}

#[test]
fn a_flood_of_beginnings_needs_no_memory_and_ends_no_connection() {
    let mut bench = Bench::new();
    let honest = opened(&mut bench, 50_000);
    for number in 0..100_000u32 {
        let port = 1024 + u16::try_from(number % 30_000).unwrap();
        bench.tell(&Segment { port, sequence: number, ..OPEN }.frame());
        let (count, bytes) = bench.engine.streams.size();
        assert!(count <= HALF_OPEN_MAX + 1 && bytes <= (HALF_OPEN_MAX + 1) * (24 << 10));
    }
    let frames = bench.tell(&Segment { payload: b"hello\n", ..honest }.frame());
    assert!(frames.iter().any(|frame| heard(frame).payload == b"HELLO\n"));
    let late = opened(&mut bench, 50_001);
    let frames = bench.tell(&Segment { payload: b"hello\n", ..late }.frame());
    assert!(frames.iter().any(|frame| heard(frame).payload == b"HELLO\n"));
    bench.later(Duration::from_secs(6));
    assert_eq!(bench.engine.streams.size().0, 2, "beginnings do not last");
}

#[test]
fn more_connections_than_there_may_be_take_the_place_of_the_oldest() {
    let mut bench = Bench::new();
    let all: Vec<_> = (0..1000)
        .map(|number| {
            bench.now += Duration::from_millis(1);
            opened(&mut bench, 20_000 + number)
        })
        .collect();
    assert_eq!(bench.engine.streams.size().0, CONNECTIONS_MAX);
    let frames = bench.tell(&Segment { payload: b"hello\n", ..all[0] }.frame());
    assert!(frames.iter().all(|frame| heard(frame).flags & RST != 0), "it was told");
    let frames = bench.tell(&Segment { payload: b"hello\n", ..all[999] }.frame());
    assert!(frames.iter().any(|frame| heard(frame).payload == b"HELLO\n"));
    assert_eq!(bench.counters.connections_evicted.load(Ordering::Relaxed), 1000 - CONNECTIONS_MAX as u64);
}

#[test]
fn who_reads_nothing_is_given_up() {
    let mut bench = Bench::new();
    let first = opened(&mut bench, 40_000);
    bench.tell(&Segment { payload: b"long 1000000\n", ..first }.frame());
    let (_, bytes) = bench.engine.streams.size();
    assert!(bytes < 2 << 20);
    // It acknowledges, but has no room, and asks for more all the time.
    for number in 0..200u32 {
        let sequence = 114 + number;
        bench.tell(&Segment { sequence, window: 0, payload: b"x", ..first }.frame());
        bench.later(Duration::from_secs(1));
    }
    assert_eq!(bench.engine.streams.size().0, 0);
}

#[test]
fn who_says_nothing_is_given_up() {
    let mut bench = Bench::new();
    opened(&mut bench, 40_000);
    let due = bench.engine.deadline(bench.now).unwrap();
    assert!(due <= bench.now + Duration::from_secs(60));
    bench.later(Duration::from_secs(59));
    assert_eq!(bench.engine.streams.size().0, 1);
    let last = bench.later(Duration::from_secs(2));
    assert!(last.iter().any(|frame| heard(frame).flags & RST != 0));
    assert_eq!(bench.engine.streams.size().0, 0);
    assert_eq!(bench.counters.connections_idle.load(Ordering::Relaxed), 1);
    assert_eq!(bench.engine.deadline(bench.now), None);
}

#[test]
fn who_has_said_all_is_answered_before_the_end() {
    let mut bench = Bench::new();
    let first = opened(&mut bench, 40_000);
    let frames = bench.tell(&Segment { flags: ACK | FIN, payload: b"hello\n", ..first }.frame());
    let heard: Vec<_> = frames.iter().map(|frame| heard(frame)).collect();
    assert!(heard.iter().any(|one| one.payload == b"HELLO\n"));
    assert!(heard.iter().any(|one| one.flags & FIN != 0));
}

#[test]
fn a_port_can_be_taken_again_when_its_connection_is_over() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        let first = opened(&mut bench, 40_000);
        let frames = bench.tell(&Segment { payload: b"bye\n", ..first }.frame());
        assert!(frames.iter().any(|frame| heard(frame).flags & FIN != 0));
        let acknowledged = first.acknowledged.wrapping_add(5);
        bench.tell(&Segment { flags: ACK | FIN, sequence: 105, acknowledged, ..first }.frame());
    }
    assert_eq!(bench.counters.connections.load(Ordering::Relaxed), 3);
}

#[test]
fn what_is_forgotten_is_not_spoken_of() {
    let mut bench = Bench::new();
    opened(&mut bench, 40_000);
    bench.engine.forget();
    assert_eq!(bench.engine.streams.size().0, 0);
    assert!(bench.later(Duration::from_secs(100)).is_empty());
}

#[test]
fn the_service_answers_over_ipv6() {
    let mut bench = Bench::new();
    let (source, destination) = (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x17), METADATA_V6);
    let mut segment = Segment { ..OPEN }.frame()[34..].to_vec();
    segment[16..18].fill(0);
    let pseudo = crate::net::wire::ipv6::pseudo_header(source, destination, TCP, 20);
    let sum = checksum(&[&pseudo, &segment]);
    put_u16(&mut segment, 16, sum);
    let packet = Ipv6 { source, destination, next: TCP, hop_limit: 64, payload: &segment, whole: &[] }.build().unwrap();
    let frame = Ethernet { destination: mac_of(GATEWAY), source: mac_of(GUEST), kind: IPV6, payload: &packet }.build();
    let answers = bench.tell(&frame);
    let answer = Ipv6::parse(&answers[0][14..]).unwrap();
    assert_eq!((answer.source, answer.destination, answer.payload[13]), (destination, source, SYN | ACK));
}

proptest! {
    #[test]
    fn whatever_segments_come_memory_is_bounded(
        segments in proptest::collection::vec(
            (0u16..80, any::<u8>(), 95u32..130, -3i64..20, any::<u16>(), proptest::collection::vec(any::<u8>(), 0..40), 0u64..3000),
            1..200,
        ),
    ) {
        let mut bench = Bench::new();
        let acknowledged = opened(&mut bench, 40_000).acknowledged;
        for (port, flags, sequence, offset, window, payload, millis) in &segments {
            let acknowledged = u32::try_from((i64::from(acknowledged) + offset) & 0xffff_ffff).unwrap();
            let segment = Segment { port: 40_000 + port / 4, flags: *flags, sequence: *sequence, acknowledged, window: *window, payload };
            bench.tell(&segment.frame());
            bench.later(Duration::from_millis(*millis));
            prop_assert!(bench.engine.streams.size().0 <= CONNECTIONS_MAX);
        }
        bench.later(Duration::from_secs(10));
        let one = opened(&mut bench, 60_000);
        let frames = bench.tell(&Segment { payload: b"hello\n", ..one }.frame());
        prop_assert!(frames.iter().any(|frame| heard(frame).payload == b"HELLO\n"));
    }
}
