//! With real taps, which only who may configure networks can make.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use smoltcp::socket::dhcpv4;

use super::*;
use crate::net::cidr::Cidr;
use crate::net::testing::{Echo, Guest};
use crate::net::{Mac, bridge};

/// An interface that goes with the test.
struct Made(String);

impl Drop for Made {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.0]).output();
    }
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

fn number() -> u32 {
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

fn new_name() -> String {
    format!("at{}n{}", std::process::id() % 1_000_000, number())
}

fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).output().is_ok_and(|output| output.status.success())
}

/// A tap, made by a command in which NAME is its name; nothing where this host lets nobody make one.
fn made(command: &str) -> Option<Made> {
    let name = new_name();
    if ip(&command.replace("NAME", &name)) {
        return Some(Made(name));
    }
    eprintln!("left out: interfaces can only be made as root, with /dev/net/tun and iproute2");
    None
}

const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

/// The host's address at a tap, the guest's, and their network.
struct Addresses {
    host: Ipv4Addr,
    guest: Ipv4Addr,
    network: Cidr,
}

/// Addresses of a network that only that tap has.
fn addresses(tap: &Made) -> Addresses {
    let [_, _, a, b] = (std::process::id() % 4000 * 16 + number() % 16).to_be_bytes();
    let (host, guest) = (
        Ipv4Addr::new(198, 18 + (a >> 7), a, (b & 0x3f) << 2 | 1),
        Ipv4Addr::new(198, 18 + (a >> 7), a, (b & 0x3f) << 2 | 2),
    );
    assert!(ip(&format!("addr add {host}/30 dev {}", tap.0)));
    Addresses { host, guest, network: Cidr::new(host, 30) }
}

fn services(dhcp: Option<Lease>) -> Services {
    Services { mac: MAC, metadata: Arc::new(Echo), ipv6: true, dhcp, mtu: 1500 }
}

#[test]
fn a_guest_reaches_the_host_and_its_metadata_by_a_tap() {
    let Some(tap) = made("tuntap add dev NAME mode tap vnet_hdr") else { return };
    let link = TapLink::open(&tap.0, 4).unwrap().with_services(services(None)).unwrap();
    assert_eq!(link.queue_pairs(), 1, "it was made with one");
    let Addresses { host, guest, network } = addresses(&tap);
    link.agree(Offloads::default()).unwrap();
    let mut guest = Guest::new(&link, MAC).with_address(guest, network, host);
    let listener = TcpListener::bind((host, 0)).unwrap();
    let one = guest.connect(listener.local_addr().unwrap());
    assert!(guest.is_connected(one));
    let (mut stream, _) = listener.accept().unwrap();
    let mut theirs = stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || theirs.write_all(&[&b"y".repeat(100_000)[..], b"\n"].concat()).unwrap());
    assert_eq!(guest.ask(one, b"hello\n", b"\n").len(), 100_001);
    writer.join().unwrap();
    // The guest has to go on meanwhile: it may have to send that again.
    stream.set_nonblocking(true).unwrap();
    let mut heard = [0; 6];
    guest.drive(|_| stream.read_exact(&mut heard).ok());
    assert_eq!(&heard, b"hello\n");
    let two = guest.connect(SocketAddrV4::new(METADATA, 80).into());
    assert_eq!(guest.ask(two, b"hello\n", b"\n"), b"HELLO\n");
}

#[test]
fn dhcp_is_served_where_that_is_wanted() {
    let Some(tap) = made("tuntap add dev NAME mode tap vnet_hdr") else { return };
    let Addresses { host, guest: address, network } = addresses(&tap);
    let lease = Lease {
        address,
        network,
        gateway: host,
        resolvers: vec![host],
        host_name: "guest".into(),
        domain: "internal".into(),
        mtu: 1500,
    };
    let link = TapLink::open(&tap.0, 1).unwrap().with_services(services(Some(lease))).unwrap();
    let mut guest = Guest::new(&link, MAC);
    let socket = guest.sockets.add(dhcpv4::Socket::new());
    let given = guest.drive(|guest| match guest.sockets.get_mut::<dhcpv4::Socket<'_>>(socket).poll() {
        Some(dhcpv4::Event::Configured(it)) => Some(it.address.address()),
        _ => None,
    });
    assert_eq!(given, address);
}

#[test]
fn several_queues_are_used_and_put_away() {
    let Some(tap) = made("tuntap add dev NAME mode tap vnet_hdr multi_queue") else { return };
    let link = TapLink::open(&tap.0, 4).unwrap();
    assert_eq!(link.queue_pairs(), 4);
    link.agree(link.gives()).unwrap();
    for pairs in [1, 4, 2, 4, 1] {
        assert_eq!(link.open(pairs).unwrap().len(), usize::from(pairs));
    }
    assert!(link.open(0).is_err() && link.open(5).is_err());
    drop(link);
    assert_eq!(TapLink::open(&tap.0, 1).unwrap().queue_pairs(), 1, "a tap with several can be used with one");
}

#[test]
fn guests_of_one_bridge_reach_each_other_and_nobody_speaks_for_the_metadata() {
    let Some(first) = made("link add NAME type bridge") else { return };
    assert!(ip(&format!("link set {} up", first.0)));
    let link = |mac| {
        let link = bridge::open(&first.0, 2).unwrap();
        link.agree(Offloads::default()).unwrap();
        link.with_services(Services { mac, ..services(None) }).unwrap()
    };
    let other_mac = Mac([2, 0, 0, 0, 0, 10]);
    let (one, other) = (link(MAC), link(other_mac));
    let name = one.name().to_owned();
    assert!(std::path::Path::new("/sys/class/net").join(&name).exists());
    let network = Cidr::new(Ipv4Addr::new(198, 19, 255, 0), 24);
    let (own, its) = (Ipv4Addr::new(198, 19, 255, 2), Ipv4Addr::new(198, 19, 255, 3));
    let mut guest = Guest::new(&one, MAC).with_address(own, network, its);
    let mut peer = Guest::new(&other, other_mac).with_address(its, network, own);
    let buffer = || smoltcp::socket::tcp::SocketBuffer::new(vec![0; 4096]);
    let mut listener = smoltcp::socket::tcp::Socket::new(buffer(), buffer());
    listener.listen(22).unwrap();
    let listener = peer.sockets.add(listener);
    let client = guest.connect(SocketAddr::new(its.into(), 22));
    guest.drive(|guest| {
        peer.step();
        (guest.tcp(client).may_send() && peer.tcp(listener).may_send()).then_some(())
    });
    // What seems to come from the metadata service does not come in; what is sent behind it does.
    let arp = |sender| {
        let arp = crate::net::wire::arp::Arp { request: false, sender: (other_mac, sender), target: (MAC, own) };
        arp.build(MAC)
    };
    peer.wire.send(&arp(METADATA));
    peer.wire.send(&arp(its));
    let came = guest.wire.expect(|frame| frame[12..14] == [8, 6]);
    assert_eq!(came, arp(its));
    assert!(one.counters().dropped_incoming.load(Ordering::Relaxed) >= 1);
    drop((guest, peer, one, other));
    assert!(!std::path::Path::new("/sys/class/net").join(&name).exists(), "a port goes with its link");
}

#[test]
fn what_is_missing_is_told_with_the_command_that_makes_it() {
    let told = TapLink::open("no-such-tap", 4).err().unwrap().to_string();
    assert!(told.contains("ip tuntap add dev no-such-tap mode tap user $USER vnet_hdr multi_queue"), "{told}");
    let told = bridge::open("no-such-bridge", 1).err().unwrap().to_string();
    assert!(told.contains("ip link add no-such-bridge type bridge"), "{told}");
    for name in ["", "a name", "sixteen-letters!", "a/b", "tap%d", ".."] {
        assert!(matches!(TapLink::open(name, 1), Err(TapError::Name(_))), "{name}");
        assert!(matches!(bridge::open(name, 1), Err(TapError::Name(_))), "{name}");
    }
    let told = bridge::open("lo", 1).err().unwrap().to_string();
    assert!(told.contains("no bridge"), "{told}");
}

#[test]
fn a_tap_that_is_used_and_an_interface_that_is_none_are_told() {
    let Some(tap) = made("tuntap add dev NAME mode tap vnet_hdr") else { return };
    let _link = TapLink::open(&tap.0, 1).unwrap();
    let told = TapLink::open(&tap.0, 1).err().unwrap().to_string();
    assert!(told.contains("another process"), "{told}");
    let told = TapLink::open("lo", 1).err().unwrap().to_string();
    assert!(told.contains("no tap"), "{told}");
}

#[test]
fn malformed_frames_are_the_guests_own_fault() {
    let Some(tap) = made("tuntap add dev NAME mode tap vnet_hdr") else { return };
    let link = TapLink::open(&tap.0, 1).unwrap().with_services(services(None)).unwrap();
    let mut port = link.open(1).unwrap().pop().unwrap();
    for len in [0, 1, 11, 12, 13, 25, 26, 40, 60, 2000, 70_000] {
        for fill in [0, 1, 0xff] {
            let mut bytes = vec![fill; len];
            port.sender.send(&[vm_memory::VolatileSlice::from(&mut bytes[..])]).unwrap();
        }
    }
    port.sender.send(&[]).unwrap();
    assert!(link.counters().dropped_malformed.load(Ordering::Relaxed) > 0);
    // A frame that does not fit is lost, and the next one comes.
    let mut small = [0; 20];
    let _ = port.receiver.receive(&[vm_memory::VolatileSlice::from(&mut small[..])]).unwrap();
}

#[test]
fn a_tap_that_is_taken_away_is_an_error() {
    let Some(tap) = made("tuntap add dev NAME mode tap vnet_hdr") else { return };
    let link = TapLink::open(&tap.0, 1).unwrap();
    let mut port = link.open(1).unwrap().pop().unwrap();
    drop(tap);
    let mut bytes = [0; 100];
    assert!(port.sender.send(&[vm_memory::VolatileSlice::from(&mut bytes[..])]).is_err());
    assert!(port.receiver.receive(&[vm_memory::VolatileSlice::from(&mut bytes[..])]).is_err());
}
