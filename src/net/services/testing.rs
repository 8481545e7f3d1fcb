//! What guests say to the services, for tests.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use crate::net::Mac;
use crate::net::address::link_local_of;
use crate::net::wire::ipv6::{Ipv6, pseudo_header};
use crate::net::wire::udp::Udp;
use crate::net::wire::{BROADCAST, Ethernet, ICMPV6, IPV4, IPV6, checksum};

/// A DHCP message with these options, without the end of them.
pub(crate) fn dhcp_message(mac: Mac, options: &[u8]) -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0, 0xca, 0xfe, 0xba, 0xbe];
    message.resize(28, 0);
    message.extend(mac.0);
    message.resize(236, 0);
    message.extend([99, 130, 83, 99]);
    message.extend(options);
    message
}

/// The frame with such a message.
pub(crate) fn dhcp_frame(mac: Mac, message: &[u8]) -> Vec<u8> {
    let (source, destination) =
        (SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68), SocketAddrV4::new(Ipv4Addr::BROADCAST, 67));
    let packet = Udp { source, destination, payload: message }.build().unwrap();
    Ethernet { destination: BROADCAST, source: mac, kind: IPV4, payload: &packet }.build()
}

/// The frame by which a guest looks for DHCP servers.
pub(crate) fn discover(mac: Mac) -> Vec<u8> {
    dhcp_frame(mac, &dhcp_message(mac, &[53, 1, 1, 255]))
}

/// A frame with an ICMPv6 message, which has a wrong checksum yet.
pub(crate) fn icmpv6_frame(mac: Mac, destination: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let source = link_local_of(mac);
    let sum = checksum(&[&pseudo_header(source, destination, ICMPV6, message.len().try_into().unwrap()), &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let packet = Ipv6 { source, destination, next: ICMPV6, hop_limit: 255, payload: &message, whole: &[] };
    let packet = packet.build().unwrap();
    Ethernet { destination: Mac([0x33, 0x33, 0, 0, 0, 2]), source: mac, kind: IPV6, payload: &packet }.build()
}

/// The frame by which a guest looks for IPv6 routers.
pub(crate) fn router_solicitation(mac: Mac) -> Vec<u8> {
    icmpv6_frame(mac, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2), vec![133, 0, 0, 0, 0, 0, 0, 0])
}
