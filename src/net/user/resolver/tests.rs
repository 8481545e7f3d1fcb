use super::super::udp_forward::testing::ends;
use super::*;
use crate::net::testing::wait_for;
use crate::net::wire::ipv4::Ipv4;

const ASKED: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 2);
const ALSO: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);

fn question(port: u16, asked: Ipv4Addr) -> Udp<'static> {
    let (source, destination) = (SocketAddrV4::new(ends().guest, port), SocketAddrV4::new(asked, PORT));
    Udp { source, destination, payload: b"question" }
}

fn resolver(upstream: SocketAddr) -> Resolver {
    Resolver::new(ends(), vec![ASKED, ALSO], Box::new(move || Some(upstream)))
}

#[test]
fn questions_go_to_the_hosts_resolver_and_answers_back() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut resolver = resolver(server.local_addr().unwrap());
    let now = Instant::now();
    for asked in [ASKED, ALSO] {
        assert!(resolver.datagram(&question(5000, asked), now));
        let mut heard = [0; 100];
        let (len, asker) = server.recv_from(&mut heard).unwrap();
        assert_eq!(&heard[..len], b"question");
        server.send_to(b"answer", asker).unwrap();
        wait_for(resolver.askers.last().unwrap().socket.as_fd());
        let queue = FrameQueue::new(8, 1 << 20).unwrap();
        resolver.attend(now, &queue);
        let frame = queue.pop().unwrap();
        let packet = Ipv4::parse(&frame[14..]).unwrap();
        let answer = Udp::parse(&packet).unwrap();
        assert_eq!((*answer.source.ip(), answer.source.port(), answer.destination.port()), (asked, PORT, 5000));
        assert_eq!(answer.payload, b"answer");
    }
    assert!(!resolver.datagram(&question(5000, ends().gateway), now));
    let other = SocketAddrV4::new(ASKED, 54);
    assert!(!resolver.datagram(&Udp { destination: other, ..question(5000, ASKED) }, now));
}

#[test]
fn many_questions_need_a_bounded_number_of_sockets_for_a_bounded_time() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut resolver = resolver(server.local_addr().unwrap());
    let now = Instant::now();
    for port in 1..2000 {
        assert!(resolver.datagram(&question(port, ASKED), now));
        assert!(resolver.askers.len() <= ASKERS_MAX);
    }
    assert_eq!(resolver.deadline(), Some(now + WAIT));
    resolver.attend(now + WAIT, &FrameQueue::new(8, 1 << 20).unwrap());
    assert!(resolver.askers.is_empty() && resolver.deadline().is_none());
}

#[test]
fn a_host_without_resolver_answers_nothing() {
    let mut resolver = Resolver::new(ends(), vec![ASKED], Box::new(|| None));
    assert!(resolver.datagram(&question(5000, ASKED), Instant::now()));
    assert!(resolver.askers.is_empty());
}

#[test]
fn the_hosts_resolver_is_the_first_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("resolv.conf");
    let of = |text: &str| {
        std::fs::write(&path, text).unwrap();
        first_in(&path)
    };
    assert_eq!(
        of("# nameserver 1.1.1.1\nsearch a b\n nameserver\t127.0.0.53 x\nnameserver 9.9.9.9\n"),
        Some(SocketAddr::from(([127, 0, 0, 53], 53)))
    );
    assert_eq!(of("nameserver fe80::1%eth0\nnameserver ::1\n"), Some("[::1]:53".parse().unwrap()));
    assert_eq!(of("nameservers 1.1.1.1\nnameserver\nnameserver x\n"), None);
    assert_eq!(first_in(&dir.path().join("none")), None);
}
