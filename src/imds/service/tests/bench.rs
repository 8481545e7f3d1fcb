//! How long answers take, by way of the default link; not a test: `cargo test --release --lib imds::service::tests::bench --
//! --ignored --nocapture`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use smoltcp::iface::SocketHandle;

use super::*;
use crate::net::address::{METADATA, mac_of};
use crate::net::cidr::Cidr;
use crate::net::testing::Guest;
use crate::net::user::{UserConfig, UserLink};

const GUEST: Ipv4Addr = Ipv4Addr::new(172, 31, 5, 9);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 1);
const REQUESTS: usize = 5000;
/// The first are not like the others.
const WARM_UP: usize = 200;

fn link() -> Arc<UserLink> {
    let config = UserConfig {
        mac: mac_of(GUEST),
        address: GUEST,
        subnet: Cidr::new(GATEWAY, 20),
        resolver: Ipv4Addr::new(172, 31, 0, 2),
        link_local_resolver: true,
        host_name: "ip-172-31-5-9".into(),
        domain: "ec2.internal".into(),
        mtu: 9001,
        outside: None,
        neighbours: None,
        imds: Some(Service::new(&document()).unwrap()),
        imds_ipv6: false,
        notice: Arc::new(|_| {}),
    };
    UserLink::start(config).unwrap()
}

/// Whether that is a whole answer, by its Content-Length.
fn is_whole(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    length == Some(body.len())
}

/// The answer to a request, its last byte included.
fn ask(guest: &mut Guest, connection: SocketHandle, request: &str) -> String {
    assert_eq!(guest.tcp(connection).send_slice(request.as_bytes()), Ok(request.len()));
    let mut answer = String::new();
    guest.drive(|guest| {
        let socket = guest.tcp(connection);
        while socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), answer.push_str(std::str::from_utf8(bytes).unwrap()))).unwrap();
        }
        is_whole(&answer).then_some(())
    });
    answer
}

fn connect(guest: &mut Guest) -> SocketHandle {
    let connection = guest.connect(SocketAddr::new(METADATA.into(), 80));
    assert!(guest.is_connected(connection));
    connection
}

fn show(what: &str, mut took: Vec<Duration>) {
    took.drain(..WARM_UP);
    took.sort_unstable();
    let at = |share: usize| took[(took.len() * share / 1000).min(took.len() - 1)];
    println!("metadata: {what:44} median {:8.1?}  p99 {:8.1?}  max {:8.1?}", at(500), at(990), at(1000));
}

#[test]
#[ignore = "for figures"]
fn from_request_to_answer() {
    let link = link();
    let mut guest = Guest::new(&*link, mac_of(GUEST)).with_address(GUEST, Cidr::new(GATEWAY, 20), GATEWAY);
    let one = connect(&mut guest);
    let answer = ask(&mut guest, one, PUT);
    let token = answer.rsplit("\r\n").next().unwrap();
    let get = |path: &str| format!("GET /latest/{path} HTTP/1.1\r\nX-aws-ec2-metadata-token: {token}\r\n\r\n");
    let requests = [
        ("PUT api/token", PUT.to_owned()),
        ("GET meta-data/instance-id with a token", get("meta-data/instance-id")),
        ("GET meta-data/ with a token", get("meta-data/")),
        ("GET dynamic/instance-identity/document", get("dynamic/instance-identity/document")),
    ];
    for (what, request) in &requests {
        let took = (0..REQUESTS + WARM_UP).map(|_| {
            let start = Instant::now();
            assert!(ask(&mut guest, one, request).starts_with("HTTP/1.1 200 "));
            start.elapsed()
        });
        show(what, took.collect());
    }
    let took = (0..REQUESTS / 5 + WARM_UP).map(|_| {
        let start = Instant::now();
        let other = connect(&mut guest);
        ask(&mut guest, other, &requests[1].1);
        let took = start.elapsed();
        guest.tcp(other).abort();
        guest.step();
        guest.sockets.remove(other);
        took
    });
    show("the same GET on a connection of its own", took.collect());
}
