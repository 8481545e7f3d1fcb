use std::time::Duration;

use super::testing::{GATEWAY, GUEST, ends};
use super::*;
use crate::net::testing::wait_for;
use crate::net::wire::ipv4::Ipv4;

/// What comes to the guest: from which port of the gateway, and what.
fn come(forwards: &mut UdpForwards, now: Instant) -> (SocketAddrV4, SocketAddrV4, Vec<u8>) {
    let queue = FrameQueue::new(8, 1 << 20).unwrap();
    let frame = loop {
        wait_for(forwards.ports[0].1.as_fd());
        forwards.attend(now, &queue);
        if let Some(frame) = queue.pop() {
            break frame;
        }
    };
    let packet = Ipv4::parse(&frame[14..]).unwrap();
    let datagram = Udp::parse(&packet).unwrap();
    (datagram.source, datagram.destination, datagram.payload.to_vec())
}

#[test]
fn peers_are_kept_apart_and_the_silent_are_forgotten() {
    let mut forwards = UdpForwards::bind(ends(), &["0:53/udp".parse().unwrap(), "0:22".parse().unwrap()]).unwrap();
    let [forward] = forwards.forwards()[..] else { panic!() };
    let mut now = Instant::now();
    let mut seen = std::collections::HashSet::new();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"first", forward.host).unwrap();
    let (from, to, said) = come(&mut forwards, now);
    assert_eq!((to, &said[..], *from.ip()), (SocketAddrV4::new(GUEST, 53), &b"first"[..], GATEWAY));
    for number in 0..PEERS_MAX {
        now += Duration::from_millis(1);
        let address = SocketAddr::from(([127, 0, 1, u8::try_from(number % 256).unwrap()], 999));
        assert!(seen.insert(forwards.seen_as(0, address, now)), "each has a port of its own");
    }
    assert_eq!(forwards.peers.len(), PEERS_MAX);
    let answer = Udp { source: SocketAddrV4::new(GUEST, 53), destination: from, payload: b"late" };
    assert!(!forwards.datagram(&answer, now), "nobody knows whom that is for");
    client.send_to(b"again", forward.host).unwrap();
    let (from, ..) = come(&mut forwards, now);
    assert!(forwards.datagram(&Udp { destination: from, ..answer }, now));
    let mut heard = [0; 10];
    assert_eq!(client.recv(&mut heard).unwrap(), 4);
    let elsewhere = SocketAddrV4::new(Ipv4Addr::new(172, 31, 16, 2), from.port());
    assert!(!forwards.datagram(&Udp { destination: elsewhere, ..answer }, now));
}

#[test]
fn what_is_longer_than_the_link_carries_is_lost() {
    let mut forwards = UdpForwards::bind(ends(), &["0:53/udp".parse().unwrap()]).unwrap();
    let host = forwards.forwards()[0].host;
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(&[1; 1473], host).unwrap();
    client.send_to(&[2; 1472], host).unwrap();
    assert_eq!(come(&mut forwards, Instant::now()).2, [2; 1472]);
}
