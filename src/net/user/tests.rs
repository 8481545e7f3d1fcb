use std::net::{SocketAddr, SocketAddrV4};
use std::sync::atomic::Ordering;

use smoltcp::socket::{dhcpv4, icmp};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpAddress};

use super::*;
use crate::net::testing::{Echo, Guest};

mod dialed;
mod hostile;
mod outside;
mod together;

pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 31, 16, 1);
pub(super) const RESOLVES: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 2);
pub(super) const GUEST: Ipv4Addr = Ipv4Addr::new(172, 31, 16, 17);
pub(super) const SERVICE: SocketAddrV4 = SocketAddrV4::new(METADATA, 80);

pub(super) fn subnet() -> Cidr {
    Cidr::new(GATEWAY, 20)
}

pub(super) fn config() -> UserConfig {
    UserConfig {
        mac: mac_of(GUEST),
        address: GUEST,
        subnet: subnet(),
        resolver: RESOLVES,
        link_local_resolver: true,
        host_name: "ip-172-31-16-17".into(),
        domain: "ec2.internal".into(),
        mtu: 1500,
        outside: None,
        neighbours: None,
        imds: Some(Arc::new(Echo)),
        imds_ipv6: true,
        notice: Arc::new(|_| {}),
    }
}

pub(super) fn guest_of(link: &UserLink, address: Ipv4Addr) -> Guest {
    Guest::new(link, mac_of(address)).with_address(address, subnet(), GATEWAY)
}

/// A socket that has sent an echo request there.
pub(super) fn ping(to: Ipv4Addr) -> icmp::Socket<'static> {
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 512]);
    let mut socket = icmp::Socket::new(buffer(), buffer());
    socket.bind(icmp::Endpoint::Ident(7)).unwrap();
    say_echo(&mut socket, to);
    socket
}

/// Sends an echo request, unless enough are under way.
pub(super) fn say_echo(socket: &mut icmp::Socket<'_>, to: Ipv4Addr) {
    let echo = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 1, data: b"is anybody there?" };
    if let Ok(place) = socket.send(echo.buffer_len(), IpAddress::from(to)) {
        echo.emit(&mut Icmpv4Packet::new_unchecked(place), &smoltcp::phy::ChecksumCapabilities::default());
    }
}

#[test]
fn a_guest_gets_its_address_by_dhcp() {
    let link = UserLink::start(config()).unwrap();
    let mut guest = Guest::new(&*link, mac_of(GUEST));
    let socket = guest.sockets.add(dhcpv4::Socket::new());
    let (address, router, resolvers) =
        guest.drive(|guest| match guest.sockets.get_mut::<dhcpv4::Socket<'_>>(socket).poll() {
            Some(dhcpv4::Event::Configured(it)) => Some((it.address, it.router, it.dns_servers.to_vec())),
            _ => None,
        });
    assert_eq!((address.address(), address.prefix_len()), (GUEST, 20));
    assert_eq!((router, &resolvers[..]), (Some(GATEWAY), &[RESOLVES][..]));
}

#[test]
fn what_answers_at_the_links_addresses_can_be_pinged() {
    let link = UserLink::start(config()).unwrap();
    let mut guest = guest_of(&link, GUEST);
    for address in [GATEWAY, METADATA, RESOLVER] {
        let socket = guest.sockets.add(ping(address));
        let from =
            guest.drive(|guest| guest.sockets.get_mut::<icmp::Socket<'_>>(socket).recv().ok().map(|(_, from)| from));
        assert_eq!(from, IpAddress::from(address));
    }
}

#[test]
fn the_metadata_service_answers() {
    let link = UserLink::start(config()).unwrap();
    let mut guest = guest_of(&link, GUEST);
    let one = guest.connect(SERVICE.into());
    assert_eq!(guest.ask(one, b"hello\n", b"\n"), b"HELLO\n");
    assert_eq!(guest.ask(one, b"again\n", b"\n"), b"AGAIN\n");
    let long = guest.ask(one, b"long 200000\n", b"LONG 200000\n");
    assert_eq!(long.len(), 200_000 + 12);
    assert_eq!(guest.ask(one, b"bye\n", b"\n"), b"BYE\n");
    guest.drive(|guest| (!guest.tcp(one).may_recv()).then_some(()));
    assert_eq!(link.counters().connections.load(Ordering::Relaxed), 1);
}

#[test]
fn other_ports_are_refused_at_once() {
    let link = UserLink::start(config()).unwrap();
    let mut guest = guest_of(&link, GUEST);
    for address in [METADATA, GATEWAY, RESOLVER] {
        for port in [22, 443] {
            let one = guest.connect(SocketAddr::new(address.into(), port));
            assert!(!guest.is_connected(one), "{address}:{port}");
        }
    }
    let one = guest.connect(SocketAddr::new(GATEWAY.into(), 80));
    assert!(!guest.is_connected(one), "the gateway is not the metadata service");
}

#[test]
fn a_guest_without_metadata_service_is_refused_there() {
    let link = UserLink::start(UserConfig { imds: None, ..config() }).unwrap();
    let mut guest = guest_of(&link, GUEST);
    let one = guest.connect(SERVICE.into());
    assert!(!guest.is_connected(one));
}

#[test]
fn addresses_that_cannot_be_are_refused() {
    for (address, subnet) in
        [(GATEWAY, subnet()), ([172, 31, 16, 0].into(), subnet()), ([10, 0, 0, 1].into(), subnet())]
    {
        let refused = UserLink::start(UserConfig { address, subnet, ..config() }).err().unwrap();
        assert!(matches!(refused, UserError::Address(_)), "{refused}");
    }
    let refused = UserLink::start(UserConfig { mtu: 100, ..config() }).err().unwrap();
    assert!(refused.to_string().contains("576"), "{refused}");
}

#[test]
fn ports_can_be_opened_again() {
    let link = UserLink::start(config()).unwrap();
    assert!(link.open(0).is_err() && link.open(2).is_err());
    for _ in 0..3 {
        let mut guest = guest_of(&link, GUEST);
        let one = guest.connect(SERVICE.into());
        assert_eq!(guest.ask(one, b"hello\n", b"\n"), b"HELLO\n");
    }
}
