use std::net::SocketAddrV4;

use proptest::prelude::*;

use super::*;
use crate::net::address::{METADATA, RESOLVER, mac_of};
use crate::net::services::testing::{dhcp_frame, icmpv6_frame, router_solicitation};
use crate::net::wire::BROADCAST;
use crate::net::wire::udp::Udp;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 31, 16, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(172, 31, 16, 17);

fn rule() -> Rule {
    let network = |prefix| Cidr::new(GATEWAY, prefix);
    Rule {
        mac: mac_of(GUEST),
        address: GUEST,
        network: network(16),
        subnet: network(20),
        gateway: GATEWAY,
        gateway_mac: mac_of(GATEWAY),
        own: vec![GATEWAY, METADATA, RESOLVER, Ipv4Addr::new(172, 31, 0, 2)],
        has_neighbours: true,
        has_forwards: true,
        ipv6: true,
    }
}

fn frame(source: Ipv4Addr, destination: Ipv4Addr, to: Mac) -> Vec<u8> {
    let (source, destination) = (SocketAddrV4::new(source, 5), SocketAddrV4::new(destination, 6));
    let packet = Udp { source, destination, payload: b"x" }.build().unwrap();
    Ethernet { destination: to, source: mac_of(GUEST), kind: IPV4, payload: &packet }.build()
}

#[test]
fn each_destination_has_its_way() {
    let nowhere = Way::Nowhere(Why::Destination);
    for (to, way) in [
        ([172, 31, 16, 1], Way::Services),
        ([169, 254, 169, 254], Way::Services),
        ([169, 254, 169, 253], Way::Services),
        ([172, 31, 0, 2], Way::Services),
        ([172, 31, 16, 18], Way::Neighbour([172, 31, 16, 18].into())),
        ([172, 31, 48, 1], Way::Neighbour([172, 31, 48, 1].into())),
        ([192, 0, 2, 1], Way::Outside),
        ([10, 0, 0, 1], Way::Outside),
        ([172, 31, 16, 17], nowhere),
        ([172, 31, 16, 0], nowhere),
        ([172, 31, 31, 255], nowhere),
        ([172, 31, 255, 255], nowhere),
        ([127, 0, 0, 1], nowhere),
        ([127, 255, 0, 1], nowhere),
        ([0, 0, 0, 0], nowhere),
        ([0, 1, 2, 3], nowhere),
        ([169, 254, 169, 252], nowhere),
        ([169, 254, 1, 1], nowhere),
        ([224, 0, 0, 251], nowhere),
        ([239, 255, 255, 250], nowhere),
        ([240, 0, 0, 1], nowhere),
        ([255, 255, 255, 255], nowhere),
    ] {
        assert_eq!(rule().way(&frame(GUEST, to.into(), mac_of(GATEWAY))), way, "{to:?}");
        // From another's address nothing goes anywhere.
        for other in [Ipv4Addr::new(172, 31, 16, 18), METADATA, Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED] {
            let way = rule().way(&frame(other, to.into(), mac_of(GATEWAY)));
            assert_eq!(way, Way::Nowhere(Why::Source), "{other} {to:?}");
        }
    }
    let alone = Rule { has_neighbours: false, ..rule() };
    assert_eq!(alone.way(&frame(GUEST, [172, 31, 16, 18].into(), mac_of(GATEWAY))), Way::Services);
    for group in [BROADCAST, Mac([1, 0, 0x5e, 0, 0, 1]), mac_of(Ipv4Addr::new(172, 31, 16, 18))] {
        assert_eq!(rule().way(&frame(GUEST, [192, 0, 2, 1].into(), group)), nowhere, "{group}");
    }
}

#[test]
fn who_asks_for_an_address_needs_none() {
    let asks = dhcp_frame(mac_of(GUEST), b"anything");
    assert_eq!(rule().way(&asks), Way::Services);
    assert_eq!(rule().way(&dhcp_frame(mac_of(GATEWAY), b"anything")), Way::Nowhere(Why::Source));
}

#[test]
fn arp_speaks_for_the_guest_only() {
    let arp = |mac, address| {
        let mut frame = Arp { request: true, sender: (mac, address), target: (Mac([0; 6]), GATEWAY) }.build(BROADCAST);
        frame[6..12].copy_from_slice(&mac_of(GUEST).0);
        rule().way(&frame)
    };
    assert_eq!(arp(mac_of(GUEST), GUEST), Way::Services);
    assert_eq!(arp(mac_of(GUEST), Ipv4Addr::UNSPECIFIED), Way::Services);
    for (mac, address) in [(mac_of(GUEST), GATEWAY), (mac_of(GATEWAY), GUEST), (mac_of(GUEST), METADATA)] {
        assert_eq!(arp(mac, address), Way::Nowhere(Why::Source));
    }
}

#[test]
fn connections_from_outside_go_on_and_none_begins_at_the_gateway() {
    let tcp = |flags: u8, rule: &Rule| {
        let mut segment = [0; 20];
        segment[13] = flags;
        let (source, destination) = (GUEST, GATEWAY);
        let packet =
            Ipv4 { source, destination, protocol: TCP, ttl: 64, fragment: false, payload: &segment, whole: &[] };
        let packet = packet.build().unwrap();
        rule.way(
            &Ethernet { destination: mac_of(GATEWAY), source: mac_of(GUEST), kind: IPV4, payload: &packet }.build(),
        )
    };
    assert_eq!(tcp(0x02, &rule()), Way::Services);
    for flags in [0x12, 0x10, 0x14, 0x04, 0x11] {
        assert_eq!(tcp(flags, &rule()), Way::Outside);
        assert_eq!(tcp(flags, &Rule { has_forwards: false, ..rule() }), Way::Services);
    }
}

#[test]
fn ipv6_is_the_links_own_affair() {
    let solicitation = router_solicitation(mac_of(GUEST));
    assert_eq!(rule().way(&solicitation), Way::Services);
    assert_eq!(Rule { ipv6: false, ..rule() }.way(&solicitation), Way::Nowhere(Why::Protocol));
    for (source, way) in [
        ("::", Way::Services),
        ("fd00:ec2::17", Way::Services),
        ("fd00:ec2:0:1::17", Way::Nowhere(Why::Source)),
        ("2001:db8::1", Way::Nowhere(Why::Source)),
        ("::1", Way::Nowhere(Why::Source)),
    ] {
        let mut frame = icmpv6_frame(mac_of(GUEST), Ipv6Addr::LOCALHOST, vec![128, 0, 0, 0]);
        frame[22..38].copy_from_slice(&source.parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(rule().way(&frame), way, "{source}");
    }
}

#[test]
fn other_protocols_and_pieces_go_nowhere() {
    let mut tagged = frame(GUEST, [192, 0, 2, 1].into(), mac_of(GATEWAY));
    (tagged[12], tagged[13]) = (0x81, 0);
    assert_eq!(rule().way(&tagged), Way::Nowhere(Why::Protocol));
    let mut piece = frame(GUEST, [192, 0, 2, 1].into(), mac_of(GATEWAY));
    (piece[20], piece[24], piece[25]) = (0x20, 0, 0);
    let sum = crate::net::wire::checksum(&[&piece[14..34]]);
    piece[24..26].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(rule().way(&piece), Way::Nowhere(Why::Protocol));
}

proptest! {
    #[test]
    fn whatever_is_sent_goes_out_only_from_the_guest_and_never_to_the_host_itself(
        to: [u8; 4],
        changes in proptest::collection::vec((0usize..43, any::<u8>()), 0..4),
        cut in 0usize..44,
    ) {
        let mut bytes = frame(GUEST, to.into(), mac_of(GATEWAY));
        for (at, value) in changes {
            bytes[at] = value;
        }
        if cut > 0 {
            bytes.truncate(cut);
        }
        if let Way::Outside | Way::Neighbour(_) = rule().way(&bytes) {
            let packet = Ipv4::parse(&bytes[14..]).unwrap();
            prop_assert_eq!(packet.source, GUEST);
            prop_assert_eq!(&bytes[6..12], &mac_of(GUEST).0[..]);
            let to = packet.destination;
            prop_assert!(!to.is_loopback() && !to.is_link_local() && !to.is_multicast() && to.octets()[0] != 0);
        }
    }
}
