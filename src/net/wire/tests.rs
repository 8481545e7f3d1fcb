use std::net::{Ipv4Addr, SocketAddrV4};

use proptest::prelude::*;

use super::*;
use arp::Arp;
use icmp::Unreachable;
use ipv4::Ipv4;
use ipv6::Ipv6;
use ndp::Question;
use udp::Udp;

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn datagram(payload: &[u8]) -> Vec<u8> {
    Udp { source: SocketAddrV4::new(A, 1), destination: SocketAddrV4::new(B, 2), payload }.build().unwrap()
}

#[test]
fn a_checksum_is_that_of_the_rfc() {
    // The example of RFC 1071, section 3.
    assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
    assert_eq!(checksum(&[&[0xff; 70_000][..], &[0xff]]), 0x00ff);
}

#[test]
fn lengths_that_lie_are_refused() {
    let right = datagram(b"hello");
    assert_eq!(Ipv4::parse(&right).unwrap().payload.len(), 13);
    let with = |at: usize, value: u8| {
        let mut bytes = right.clone();
        bytes[at] = value;
        bytes[10..12].fill(0);
        let sum = checksum(&[&bytes[..20]]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes
    };
    assert!(Ipv4::parse(&with(3, 34)).is_none(), "longer than there is");
    assert!(Ipv4::parse(&with(3, 19)).is_none(), "shorter than its header");
    assert!(Ipv4::parse(&with(0, 0x44)).is_none(), "a header of 16 bytes");
    assert!(Ipv4::parse(&with(0, 0x4f)).is_none(), "a header longer than the packet");
    assert!(Ipv4::parse(&with(0, 0x65)).is_none(), "another version");
    let mut padded = right.clone();
    padded.extend([0; 20]);
    assert_eq!(Ipv4::parse(&padded).unwrap().whole, &right[..]);
    for at in 0..right.len() {
        assert!(Ipv4::parse(&right[..at]).is_none());
    }
    for (at, value) in [(25, 14), (25, 7), (24, 1), (27, 9), (28, b'H')] {
        let mut bytes = right.clone();
        bytes[at] = value;
        assert!(Udp::parse(&Ipv4::parse(&bytes).unwrap()).is_none(), "{at}");
    }
    let mut unsummed = right.clone();
    unsummed[26..28].fill(0);
    assert_eq!(Udp::parse(&Ipv4::parse(&unsummed).unwrap()).unwrap().payload, b"hello");
}

#[test]
fn what_must_not_be_answered_is_not() {
    let bytes = datagram(b"hello");
    let packet = Ipv4::parse(&bytes).unwrap();
    let told = icmp::unreachable(&packet, Unreachable::Port, B).unwrap();
    let told = Ipv4::parse(&told).unwrap();
    assert_eq!((told.source, told.destination, &told.payload[8..]), (B, A, &bytes[..]));
    assert!(icmp::unreachable(&told, Unreachable::Port, B).is_none());
    assert!(icmp::unreachable(&Ipv4 { fragment: true, ..packet }, Unreachable::Port, B).is_none());
    assert!(icmp::unreachable(&Ipv4 { source: Ipv4Addr::UNSPECIFIED, ..packet }, Unreachable::Port, B).is_none());
    let empty = Ipv4 { protocol: ICMP, payload: &[], ..packet };
    assert!(icmp::unreachable(&empty, Unreachable::Port, B).is_none() && icmp::echo_reply(&empty).is_none());
}

proptest! {
    #[test]
    fn whatever_comes_is_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _ = Arp::parse(&bytes);
        if let Some(frame) = Ethernet::parse(&bytes) {
            prop_assert_eq!(frame.build(), bytes.clone());
        }
        if let Some(packet) = Ipv6::parse(&bytes) {
            let _ = Question::parse(&packet);
        }
    }

    #[test]
    fn whatever_follows_a_right_header_is_read_without_harm(
        protocol: u8, payload in proptest::collection::vec(any::<u8>(), 0..80), fragment: bool,
    ) {
        let packet = Ipv4 { source: A, destination: B, protocol, ttl: 1, fragment, payload: &payload, whole: &[] };
        let bytes = packet.build().unwrap();
        let packet = Ipv4::parse(&bytes).unwrap();
        prop_assert_eq!(packet.payload, &payload[..]);
        let _ = (Udp::parse(&packet), icmp::echo_reply(&packet), icmp::unreachable(&packet, Unreachable::Host, A));
        let packet = Ipv6 { source: ndp::ALL_NODES, destination: ndp::ALL_NODES, next: protocol, hop_limit: 255, payload: &payload, whole: &[] };
        let bytes = packet.build().unwrap();
        let _ = Question::parse(&Ipv6::parse(&bytes).unwrap());
    }

    #[test]
    fn what_is_written_is_read_again(payload in proptest::collection::vec(any::<u8>(), 0..2000), from: u16, to: u16) {
        let (source, destination) = (SocketAddrV4::new(A, from), SocketAddrV4::new(B, to));
        let bytes = Udp { source, destination, payload: &payload }.build().unwrap();
        let packet = Ipv4::parse(&bytes).unwrap();
        let back = Udp::parse(&packet).unwrap();
        prop_assert_eq!((back.source, back.destination, back.payload), (source, destination, &payload[..]));
    }
}
