//! Guests that keep to no rule.

use proptest::prelude::*;

use super::*;
use crate::net::HEADER_SIZE;
use crate::net::wire::udp::Udp;
use crate::net::wire::{Ethernet, IPV4};

/// A frame of the guest.
pub(super) fn udp_frame(source: Ipv4Addr, destination: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let packet = Udp { source: SocketAddrV4::new(source, 5000), destination, payload }.build().unwrap();
    Ethernet { destination: mac_of(GATEWAY), source: mac_of(GUEST), kind: IPV4, payload: &packet }.build()
}

fn answers(guest: &mut Guest) -> bool {
    let one = guest.connect(SERVICE.into());
    guest.ask(one, b"hello\n", b"\n") == b"HELLO\n"
}

#[test]
fn frames_of_other_cards_and_addresses_are_dropped() {
    let link = UserLink::start(config()).unwrap();
    let mut guest = guest_of(&link, GUEST);
    let right = udp_frame(GUEST, SocketAddrV4::new(GATEWAY, 9), b"x");
    let mut other_card = right.clone();
    other_card[11] ^= 1;
    guest.wire.send(&other_card);
    guest.wire.send(&udp_frame(Ipv4Addr::new(172, 31, 16, 18), SERVICE, b"x"));
    guest.wire.send(&udp_frame(METADATA, SERVICE, b"x"));
    guest.wire.send(&udp_frame(Ipv4Addr::UNSPECIFIED, SERVICE, b"x"));
    let counters = link.counters();
    assert_eq!(counters.dropped_source.load(Ordering::Relaxed), 4);
    assert_eq!(counters.to_services.load(Ordering::Relaxed), 0);
    // An unwanted header.
    let mut bytes = [vec![1; HEADER_SIZE], right.clone()].concat();
    guest.wire.send_with_header(&mut bytes);
    guest.wire.send_with_header(&mut [0; HEADER_SIZE - 1]);
    guest.wire.send(&vec![0; 70_000]);
    guest.wire.send(&right[..13]);
    assert_eq!(counters.dropped_malformed.load(Ordering::Relaxed), 4);
    guest.wire.send(&right);
    let answer = guest.wire.expect(|frame| frame[12..14] == [8, 0]);
    assert_eq!(answer[34..36], [3, 3], "nobody listens at that port");
    assert!(answers(&mut guest));
}

#[test]
fn a_hundred_thousand_half_open_connections_lock_nobody_out() {
    let link = UserLink::start(config()).unwrap();
    let mut guest = guest_of(&link, GUEST);
    let mut syn = tcp_segment(2);
    for number in 0..100_000u32 {
        let [a, b, c, d] = number.to_be_bytes();
        syn[34..36].copy_from_slice(&[c, d]);
        syn[38..42].copy_from_slice(&[d, c, b, a]);
        finish_tcp(&mut syn);
        guest.wire.send(&syn);
    }
    assert!(answers(&mut guest), "an honest one gets through");
    let counters = link.counters();
    assert!(counters.connections.load(Ordering::Relaxed) == 1);
    let taken = counters.to_services.load(Ordering::Relaxed) + counters.dropped_full.load(Ordering::Relaxed);
    assert!(taken >= 100_000);
}

/// An Ethernet frame with a TCP segment for the metadata service, with these flags.
pub(super) fn tcp_segment(flags: u8) -> Vec<u8> {
    let mut segment = vec![0; 20];
    segment[..4].copy_from_slice(&[0x30, 0, 0, 80]);
    (segment[12], segment[13], segment[14]) = (0x50, flags, 0xff);
    let packet = crate::net::wire::ipv4::Ipv4 {
        source: GUEST,
        destination: METADATA,
        protocol: 6,
        ttl: 64,
        fragment: false,
        payload: &segment,
        whole: &[],
    };
    let packet = packet.build().unwrap();
    let mut frame =
        Ethernet { destination: mac_of(GATEWAY), source: mac_of(GUEST), kind: IPV4, payload: &packet }.build();
    finish_tcp(&mut frame);
    frame
}

/// Puts the right checksum into such a frame.
pub(super) fn finish_tcp(frame: &mut [u8]) {
    use crate::net::wire::{checksum, ipv4::pseudo_header};
    frame[50..52].fill(0);
    let len = u16::try_from(frame.len() - 34).unwrap();
    let sum = checksum(&[&pseudo_header(GUEST, METADATA, 6, len), &frame[34..]]);
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn fragments_for_the_services_are_dropped() {
    let link = UserLink::start(config()).unwrap();
    let mut guest = guest_of(&link, GUEST);
    let mut frame = tcp_segment(2);
    for (offset, flags) in [(0u8, 0x20u8), (1, 0x20), (1, 0), (255, 0x1f)] {
        (frame[20], frame[21]) = (flags, offset);
        frame[24..26].fill(0);
        let sum = crate::net::wire::checksum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        guest.wire.send(&frame);
    }
    assert!(answers(&mut guest));
    assert_eq!(link.counters().connections.load(Ordering::Relaxed), 1);
    assert!(guest.wire.receive().is_none_or(|frame| frame[12..14] != [8, 0] || frame[23] == 6));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_guest_sends_the_services_live(
        frames in proptest::collection::vec((any::<prop::sample::Index>(), proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), any::<prop::sample::Index>(), any::<bool>()), 1..60),
    ) {
        let link = UserLink::start(config()).unwrap();
        let mut guest = guest_of(&link, GUEST);
        let right = [
            tcp_segment(2),
            tcp_segment(0x10),
            tcp_segment(0x18),
            udp_frame(GUEST, SERVICE, b"hello"),
            udp_frame(GUEST, SocketAddrV4::new(RESOLVES, 53), b"hello"),
            crate::net::wire::arp::Arp { request: true, sender: (mac_of(GUEST), GUEST), target: (Mac([0; 6]), GATEWAY) }.build(Mac([0xff; 6])),
            crate::net::services::testing::discover(mac_of(GUEST)),
            crate::net::services::testing::router_solicitation(mac_of(GUEST)),
        ];
        for (which, changes, cut, is_cut) in &frames {
            let mut frame = which.get(&right).clone();
            for (at, value) in changes {
                *frame.get_mut(at.index(right.len().max(1) * 8)).unwrap_or(&mut 0) = *value;
            }
            if *is_cut {
                frame.truncate(cut.index(frame.len()));
            }
            guest.wire.send(&frame);
        }
        prop_assert!(answers(&mut guest));
    }
}
