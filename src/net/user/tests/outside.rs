//! With the real `passt`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::net::testing::is_readable;

/// A link to the world outside. These tests need passt: apt install passt.
fn link(forwards: &[&str]) -> Result<Arc<UserLink>, UserError> {
    let forwards = forwards.iter().map(|text| text.parse().unwrap()).collect();
    UserLink::start(UserConfig { outside: Some(Outside { forwards, ..Outside::default() }), ..config() })
}

/// An address of this host that is not its loopback.
fn address_of_host() -> Ipv4Addr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent; the kernel says which address would be.
    socket.connect("192.0.2.1:9").expect("these tests need an interface besides the loopback");
    match socket.local_addr().unwrap() {
        SocketAddr::V4(address) => *address.ip(),
        SocketAddr::V6(_) => unreachable!(),
    }
}

#[test]
fn a_guest_connects_to_the_outside_but_not_to_the_hosts_loopback() {
    let link = link(&[]).unwrap();
    let mut guest = guest_of(&link, GUEST);
    let listener = TcpListener::bind((address_of_host(), 0)).unwrap();
    let one = guest.connect(listener.local_addr().unwrap());
    assert!(guest.is_connected(one));
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"hello\n").unwrap();
    assert_eq!(guest.ask(one, b"and you?\n", b"\n"), b"hello\n");
    stream.set_nonblocking(true).unwrap();
    let mut heard = [0; 9];
    guest.drive(|_| stream.read_exact(&mut heard).ok());
    assert_eq!(&heard, b"and you?\n");

    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = own.local_addr().unwrap().port();
    own.set_nonblocking(true).unwrap();
    // The stack sends to none of these by itself.
    let mut syn = super::hostile::tcp_segment(2);
    for to in [[127, 0, 0, 1], [127, 9, 9, 9], [0, 0, 0, 0], [0, 0, 0, 1]] {
        syn[30..34].copy_from_slice(&to);
        syn[36..38].copy_from_slice(&port.to_be_bytes());
        syn[24..26].fill(0);
        let sum = crate::net::wire::checksum(&[&syn[14..34]]);
        syn[24..26].copy_from_slice(&sum.to_be_bytes());
        guest.wire.send(&syn);
    }
    assert_eq!(link.counters().dropped_destination.load(Ordering::Relaxed), 4);
    // What listens at the loopback only is not to be had by another of the host's addresses, nor by the gateway's.
    for to in [address_of_host(), GATEWAY] {
        let two = guest.connect(SocketAddr::new(to.into(), port));
        assert!(!guest.is_connected(two), "{to}");
    }
    assert!(own.accept().is_err());
    // And the services go on as without the outside.
    let one = guest.connect(SERVICE.into());
    assert_eq!(guest.ask(one, b"hello\n", b"\n"), b"HELLO\n");
}

#[test]
fn a_port_of_the_host_leads_to_the_guest() {
    let link = link(&["0:22"]).unwrap();
    let [forward] = link.forwards() else { panic!() };
    assert_ne!(forward.host.port(), 0);
    let mut guest = guest_of(&link, GUEST);
    let buffer = || smoltcp::socket::tcp::SocketBuffer::new(vec![0; 65_536]);
    let mut listener = smoltcp::socket::tcp::Socket::new(buffer(), buffer());
    listener.listen(22).unwrap();
    let listener = guest.sockets.add(listener);
    let host = forward.host;
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(host).unwrap();
        stream.write_all(&b"x".repeat(1 << 20)).unwrap();
        stream.write_all(b"\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let heard = guest.ask(listener, b"thank you\n", b"\n");
    assert_eq!(heard.len(), (1 << 20) + 1);
    guest.tcp(listener).close();
    guest.drive(|_| client.is_finished().then_some(()));
    assert_eq!(client.join().unwrap(), "thank you\n");
}

#[test]
fn a_udp_port_of_the_host_leads_to_the_guest_and_back() {
    let link = link(&["0:53/udp"]).unwrap();
    let host = link.forwards()[0].host;
    let mut guest = guest_of(&link, GUEST);
    let buffer =
        || smoltcp::socket::udp::PacketBuffer::new(vec![smoltcp::socket::udp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
    let mut socket = smoltcp::socket::udp::Socket::new(buffer(), buffer());
    socket.bind(53).unwrap();
    let socket = guest.sockets.add(socket);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(host).unwrap();
    client.send(b"who?").unwrap();
    guest.drive(|guest| {
        let socket = guest.sockets.get_mut::<smoltcp::socket::udp::Socket<'_>>(socket);
        let (said, from) = socket.recv().map(|(said, from)| (said.to_vec(), from)).ok()?;
        assert_eq!((&said[..], from.endpoint.addr), (&b"who?"[..], IpAddress::from(GATEWAY)));
        socket.send_slice(b"me", from.endpoint).unwrap();
        Some(())
    });
    let mut heard = [0; 10];
    guest.drive(|_| is_readable(std::os::fd::AsFd::as_fd(&client)).then_some(()));
    assert_eq!(client.recv(&mut heard).unwrap(), 2);
    // From that port of the guest, and to that of the gateway, alone.
    let peer = client.local_addr().unwrap().port();
    for (from, to) in [(54, peer), (53, peer ^ 1)] {
        let packet = crate::net::wire::udp::Udp {
            source: SocketAddrV4::new(GUEST, from),
            destination: SocketAddrV4::new(GATEWAY, to),
            payload: b"no",
        };
        let packet = packet.build().unwrap();
        let frame = crate::net::wire::Ethernet {
            destination: mac_of(GATEWAY),
            source: mac_of(GUEST),
            kind: 0x800,
            payload: &packet,
        };
        guest.wire.send(&frame.build());
        let refused = guest.wire.expect(|frame| frame[12..14] == [8, 0] && frame[23] == 1);
        assert_eq!(refused[34..36], [3, 3]);
    }
    assert!(!is_readable(std::os::fd::AsFd::as_fd(&client)));
}

#[test]
fn a_taken_port_is_told_before_the_guest_starts() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!("{}:22", taken.local_addr().unwrap().port());
    let told = link(&[&text]).err().unwrap().to_string();
    assert!(told.contains(&text[..text.len() - 3]) && told.contains("-p 0:22"), "{told}");
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let text = format!("{}:22/udp", taken.local_addr().unwrap().port());
    let told = link(&[&text]).err().unwrap().to_string();
    assert!(told.contains("UDP") && told.contains("-p 0:22/udp"), "{told}");
    let told = link(&["198.51.100.1:0:22"]).err().unwrap().to_string();
    assert!(told.contains("none of this host's"), "{told}");
}

#[test]
fn a_missing_program_is_told_with_how_to_get_it() {
    let outside = Outside { program: "/nowhere/passt".into(), forwards: vec![] };
    let told = UserLink::start(UserConfig { outside: Some(outside), ..config() }).err().unwrap().to_string();
    assert!(told.contains("apt install passt") && told.contains("isolated"), "{told}");
}

/// A program in the place of passt.
fn script(dir: &std::path::Path, text: &str) -> std::path::PathBuf {
    let path = dir.join("passt");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_program_that_ends_at_once_is_told_with_what_it_said() {
    let dir = tempfile::tempdir().unwrap();
    let program =
        script(dir.path(), "echo 'Failed to send 7 bytes to syslog' >&2; echo 'no sockets today' >&2; exit 3");
    let told = UserLink::start(UserConfig { outside: Some(Outside { program, forwards: vec![] }), ..config() });
    let told = told.err().unwrap().to_string();
    assert!(told.contains("no sockets today") && told.contains('3') && !told.contains("syslog"), "{told}");
}

#[test]
fn what_the_program_is_told_keeps_the_host_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    let program = script(dir.path(), &format!("echo \"$@\" > {}/told; exit 1", dir.path().display()));
    let outside = Outside { program, forwards: vec!["0:22".parse().unwrap()] };
    UserLink::start(UserConfig { outside: Some(outside), ..config() }).err().unwrap();
    let told = std::fs::read_to_string(dir.path().join("told")).unwrap();
    for word in ["--no-map-gw", "--no-dhcp ", "--ipv4-only", "--address 172.31.16.17", "--tcp-ports 127.0.0.1/"] {
        assert!(told.contains(word), "{word}: {told}");
    }
}

#[test]
fn the_end_of_the_program_is_told_once_and_the_link_goes_on() {
    let told = Arc::new((Mutex::new(Vec::new()), AtomicUsize::new(0)));
    let theirs = told.clone();
    let notice: Notice = Arc::new(move |text| {
        theirs.0.lock().unwrap().push(text.to_owned());
        theirs.1.fetch_add(1, Ordering::Release);
    });
    let link = UserLink::start(UserConfig { outside: Some(Outside::default()), notice, ..config() }).unwrap();
    let mut guest = guest_of(&link, GUEST);
    let before = children();
    assert!(!before.is_empty());
    // The stream's end is what makes it end, as when this process is killed.
    link.shared.outside.as_ref().unwrap().close();
    guest.drive(|_| (told.1.load(Ordering::Acquire) > 0).then_some(()));
    let one = guest.connect(SERVICE.into());
    assert_eq!(guest.ask(one, b"hello\n", b"\n"), b"HELLO\n");
    guest.wire.send(&super::hostile::udp_frame(GUEST, "192.0.2.1:9".parse().unwrap(), b"x"));
    let refused = guest.wire.expect(|frame| frame[12..14] == [8, 0] && frame[23] == 1);
    assert_eq!(refused[34..36], [3, 0], "there is no network any more");
    let told = told.0.lock().unwrap();
    assert!(told.len() == 1 && told[0].contains("passt has ended"), "{told:?}");
}

/// The children of this process.
fn children() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let text: String = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok()).collect();
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_program_goes_with_the_link() {
    let link = link(&["0:22"]).unwrap();
    let host = link.forwards()[0].host;
    assert!(TcpListener::bind(host).is_err());
    drop(link);
    TcpListener::bind(host).unwrap();
}
