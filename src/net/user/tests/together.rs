//! Two instances of one host.

use super::*;

fn two(directory: &std::path::Path, first: Ipv4Addr, second: Ipv4Addr) -> (Arc<UserLink>, Arc<UserLink>) {
    let link = |address| {
        let network = Cidr::new(GATEWAY, 16);
        let neighbours = Some(Neighbours { directory: directory.into(), network });
        UserLink::start(UserConfig { address, mac: mac_of(address), neighbours, ..config() }).unwrap()
    };
    (link(first), link(second))
}

#[test]
fn two_instances_ping_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let other = Ipv4Addr::new(172, 31, 20, 1);
    let (one, two) = two(&dir.path().join("subnet"), GUEST, other);
    let (mut one, mut two) = (guest_of(&one, GUEST), guest_of(&two, other));
    let socket = one.sockets.add(ping(other));
    let from = one.drive(|one| {
        two.step();
        // The first answers may be lost: while this stack looks for a neighbour it keeps none.
        say_echo(one.sockets.get_mut(socket), other);
        one.sockets.get_mut::<icmp::Socket<'_>>(socket).recv().ok().map(|(_, from)| from)
    });
    assert_eq!(from, IpAddress::from(other));
}

#[test]
fn instances_of_one_host_connect_to_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let other = Ipv4Addr::new(172, 31, 20, 1);
    let (one, two) = two(dir.path(), GUEST, other);
    let (mut one, mut two) = (guest_of(&one, GUEST), guest_of(&two, other));
    let buffer = || smoltcp::socket::tcp::SocketBuffer::new(vec![0; 4096]);
    let mut listener = smoltcp::socket::tcp::Socket::new(buffer(), buffer());
    listener.listen(22).unwrap();
    let listener = two.sockets.add(listener);
    let client = one.connect(SocketAddr::new(other.into(), 22));
    one.drive(|one| {
        two.step();
        (one.tcp(client).may_send() && two.tcp(listener).may_send()).then_some(())
    });
}

#[test]
fn an_instance_that_is_not_there_is_unreachable() {
    let dir = tempfile::tempdir().unwrap();
    let link = UserLink::start(UserConfig {
        neighbours: Some(Neighbours { directory: dir.path().into(), network: subnet() }),
        ..config()
    })
    .unwrap();
    let mut guest = guest_of(&link, GUEST);
    let gone = Ipv4Addr::new(172, 31, 20, 9);
    let frame = super::hostile::udp_frame(GUEST, SocketAddrV4::new(gone, 9), b"hello");
    guest.wire.send(&frame);
    let answer = guest.wire.expect(|frame| frame[12..14] == [8, 0]);
    assert_eq!(answer[34..36], [3, 1], "its host does not answer");
    // And nobody says where it is.
    let asked =
        crate::net::wire::arp::Arp { request: true, sender: (mac_of(GUEST), GUEST), target: (Mac([0; 6]), gone) };
    guest.wire.send(&asked.build(crate::net::wire::BROADCAST));
    let asked = crate::net::wire::arp::Arp { target: (Mac([0; 6]), GATEWAY), ..asked };
    guest.wire.send(&asked.build(crate::net::wire::BROADCAST));
    let answer = guest.wire.expect(|frame| frame[12..14] == [8, 6]);
    assert_eq!(answer[28..32], GATEWAY.octets());
}

#[test]
fn nobody_reaches_another_instances_metadata() {
    let dir = tempfile::tempdir().unwrap();
    let other = Ipv4Addr::new(172, 31, 20, 1);
    let (one, two) = two(dir.path(), GUEST, other);
    // What a stranger in the directory could send, past its own link's rule.
    let stranger = std::os::unix::net::UnixDatagram::unbound().unwrap();
    let path = dir.path().join(other.to_string());
    let to = |destination, source_mac: Mac, source, to_mac: Mac| {
        let mut frame = super::hostile::udp_frame(source, SocketAddrV4::new(destination, 80), b"x");
        frame[..6].copy_from_slice(&to_mac.0);
        frame[6..12].copy_from_slice(&source_mac.0);
        frame
    };
    let (mine, its) = (mac_of(GUEST), mac_of(other));
    let frames = [
        to(METADATA, mine, GUEST, its),
        to(METADATA, mine, GUEST, mac_of(GATEWAY)),
        to(other, mine, METADATA, its),
        to(other, mac_of(METADATA), METADATA, its),
        to(other, mac_of(GATEWAY), GUEST, its),
        to(other, mine, Ipv4Addr::new(10, 0, 0, 1), its),
        to(other, mine, GUEST, Mac([0xff; 6])),
        to(other, its, other, its),
        vec![],
        vec![0; 14],
    ];
    for frame in &frames {
        stranger.send_to(frame, &path).unwrap();
    }
    let right = to(other, mine, GUEST, its);
    stranger.send_to(&right, &path).unwrap();
    let mut guest = guest_of(&two, other);
    assert_eq!(guest.wire.expect(|_| true), right, "the first that comes in is the only right one");
    assert_eq!(two.counters().dropped_incoming.load(Ordering::Relaxed), frames.len() as u64);
    assert_eq!(two.counters().to_services.load(Ordering::Relaxed), 0);
    drop(one);
}

#[test]
fn an_address_has_one_instance_and_its_socket_goes_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a".repeat(120)).join("b".repeat(120));
    let neighbours = Neighbours { directory: deep.clone(), network: subnet() };
    let with = || UserConfig { neighbours: Some(neighbours.clone()), ..config() };
    let link = UserLink::start(with()).unwrap();
    let refused = UserLink::start(with()).err().unwrap();
    assert!(refused.to_string().contains("another instance"), "{refused}");
    drop(link);
    assert_eq!(std::fs::read_dir(&deep).unwrap().count(), 0);
    // One that was killed leaves its socket.
    let fd = std::fs::File::open(&deep).unwrap();
    let path = format!("/proc/self/fd/{}/{GUEST}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    drop(std::os::unix::net::UnixDatagram::bind(path).unwrap());
    assert_eq!(std::fs::read_dir(&deep).unwrap().count(), 1);
    UserLink::start(with()).unwrap();
    let refused = UserLink::start(UserConfig { mac: Mac([2, 0, 0, 0, 0, 1]), ..with() }).err().unwrap();
    assert!(refused.to_string().contains("02:ec:ac:1f:10:11"), "{refused}");
}
