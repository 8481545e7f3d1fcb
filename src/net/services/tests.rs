use std::net::SocketAddrV4;
use std::time::Duration;

use super::*;
use crate::net::address::{METADATA, mac_of};
use crate::net::services::testing::{dhcp_frame, dhcp_message, icmpv6_frame, router_solicitation};
use crate::net::testing::Echo;
use crate::net::wire::bytes_at;

mod tcp;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 31, 16, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(172, 31, 16, 17);

struct Bench {
    engine: Engine,
    out: FrameQueue,
    now: Instant,
    counters: Arc<NetCounters>,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let network = Cidr::new(GATEWAY, 20);
        let lease = dhcp::Lease {
            address: GUEST,
            network,
            gateway: GATEWAY,
            resolvers: vec![Ipv4Addr::new(172, 31, 0, 2)],
            host_name: "ip-172-31-16-17".into(),
            domain: "ec2.internal".into(),
            mtu: 1500,
        };
        let mut config = Config {
            guest: mac_of(GUEST),
            mac: mac_of(GATEWAY),
            addresses: vec![GATEWAY, METADATA],
            network: Some(network),
            dhcp: Some(lease),
            metadata: Some(Arc::new(Echo)),
            ipv6: true,
            mtu: 1500,
        };
        change(&mut config);
        let (counters, now) = (Arc::new(NetCounters::default()), Instant::now());
        let engine = Engine::new(config, counters.clone(), now);
        Self { engine, out: FrameQueue::new(100_000, 1 << 28).unwrap(), now, counters }
    }

    /// What is answered to a frame.
    fn tell(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        self.engine.take(frame, &mut [], self.now, &self.out);
        self.answers()
    }

    fn answers(&self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.out.pop()).collect()
    }

    /// Lets time go by.
    fn later(&mut self, time: Duration) -> Vec<Vec<u8>> {
        self.now += time;
        self.engine.attend(self.now, &self.out);
        self.answers()
    }
}

fn datagram(to: SocketAddrV4) -> Vec<u8> {
    let packet = Udp { source: SocketAddrV4::new(GUEST, 5000), destination: to, payload: b"x" }.build().unwrap();
    Ethernet { destination: mac_of(GATEWAY), source: mac_of(GUEST), kind: IPV4, payload: &packet }.build()
}

#[test]
fn arp_is_answered_for_the_services_and_never_for_the_guest() {
    let mut bench = Bench::new();
    let mut ask = |sender, target| {
        let arp = Arp { request: true, sender: (mac_of(GUEST), sender), target: (Mac([0; 6]), target) };
        bench.tell(&arp.build(BROADCAST))
    };
    for own in [GATEWAY, METADATA] {
        let answers = ask(GUEST, own);
        let answer = Arp::parse(&answers[0][14..]).unwrap();
        assert_eq!(
            (answer.request, answer.sender, answer.target),
            (false, (mac_of(GATEWAY), own), (mac_of(GUEST), GUEST))
        );
        assert_eq!(answers.len(), 1);
    }
    // A probe for the guest's own address, an announcement, and one for another.
    assert!(ask(Ipv4Addr::UNSPECIFIED, GUEST).is_empty());
    assert!(ask(GUEST, GUEST).is_empty());
    assert!(ask(GUEST, Ipv4Addr::new(172, 31, 16, 18)).is_empty());
}

#[test]
fn nobody_at_a_port_a_host_or_a_network_is_told_now_and_then() {
    let mut bench = Bench::new();
    for (to, code) in [(GATEWAY, 3), (Ipv4Addr::new(172, 31, 16, 99), 1), (Ipv4Addr::new(192, 0, 2, 1), 0)] {
        let answers = bench.tell(&datagram(SocketAddrV4::new(to, 9)));
        assert_eq!(answers[0][34..36], [3, code], "{to}");
    }
    let more: usize = (0..1000).map(|_| bench.tell(&datagram(SocketAddrV4::new(GATEWAY, 9))).len()).sum();
    assert!(more < 20, "{more}");
    bench.later(Duration::from_secs(60));
    assert_eq!(bench.tell(&datagram(SocketAddrV4::new(GATEWAY, 9))).len(), 1);
}

#[test]
fn errors_are_not_answered_by_errors() {
    let mut bench = Bench::new();
    let refused = bench.tell(&datagram(SocketAddrV4::new(GATEWAY, 9))).remove(0);
    let packet = Ipv4::parse(&refused[14..]).unwrap();
    let back = Ipv4 { source: GUEST, destination: Ipv4Addr::new(192, 0, 2, 1), ..packet }.build().unwrap();
    let frame = Ethernet { destination: mac_of(GATEWAY), source: mac_of(GUEST), kind: IPV4, payload: &back }.build();
    assert!(bench.tell(&frame).is_empty());
    let protocol = Ipv4 { source: GUEST, destination: GATEWAY, protocol: 47, ..packet }.build().unwrap();
    let frame =
        Ethernet { destination: mac_of(GATEWAY), source: mac_of(GUEST), kind: IPV4, payload: &protocol }.build();
    assert_eq!(bench.tell(&frame)[0][34..36], [3, 2]);
}

#[test]
fn a_guest_gets_an_ipv6_address_but_no_way_out() {
    let mut bench = Bench::new();
    let answers = bench.tell(&router_solicitation(mac_of(GUEST)));
    let packet = Ipv6::parse(&answers[0][14..]).unwrap();
    let advertisement = packet.payload;
    assert_eq!((advertisement[0], packet.hop_limit), (134, 255));
    assert_eq!(advertisement[6..8], [0, 0], "it is no router");
    let at = advertisement.windows(4).position(|window| window == [3, 4, 64, 0xc0]).unwrap();
    assert_eq!(bytes_at(advertisement, at + 16), Some(SERVICES_V6.octets()));
    let len = u16::try_from(advertisement.len()).unwrap();
    let pseudo = crate::net::wire::ipv6::pseudo_header(packet.source, packet.destination, 58, len);
    assert_eq!(crate::net::wire::checksum(&[&pseudo, advertisement]), 0);
}

#[test]
fn neighbour_solicitations_are_answered_for_the_services_only() {
    let mut bench = Bench::new();
    let mut ask = |target: Ipv6Addr, options: &[u8]| {
        let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), options].concat();
        bench.tell(&icmpv6_frame(mac_of(GUEST), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x254), message))
    };
    for own in [METADATA_V6, RESOLVER_V6, link_local_of(mac_of(GATEWAY))] {
        let answers = ask(own, &[1, 1, 2, 0, 0, 0, 0, 1]);
        let packet = Ipv6::parse(&answers[0][14..]).unwrap();
        assert_eq!((packet.payload[0], bytes_at(packet.payload, 8)), (136, Some(own.octets())));
        assert_eq!(bytes_at(packet.payload, 26), Some(mac_of(GATEWAY).0));
    }
    assert!(ask(link_local_of(mac_of(GUEST)), &[]).is_empty());
    for lie in [&[1][..], &[1, 0], &[1, 2, 0, 0, 0, 0, 0, 0], &[1, 1, 0], &[0; 8]] {
        assert!(ask(METADATA_V6, lie).is_empty(), "{lie:?}");
    }
}

#[test]
fn without_ipv6_nothing_of_it_is_answered() {
    let mut bench = Bench::with(|config| config.ipv6 = false);
    assert!(bench.tell(&router_solicitation(mac_of(GUEST))).is_empty());
}

#[test]
fn without_dhcp_no_lease_is_offered() {
    let message = dhcp_message(mac_of(GUEST), &[53, 1, 1, 255]);
    assert_eq!(Bench::new().tell(&dhcp_frame(mac_of(GUEST), &message)).len(), 1);
    let answers = Bench::with(|config| config.dhcp = None).tell(&dhcp_frame(mac_of(GUEST), &message));
    assert!(answers.is_empty());
}
