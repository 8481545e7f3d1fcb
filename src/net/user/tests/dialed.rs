//! Connections of the host's to the guest.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use smoltcp::socket::tcp;

use super::*;

/// A socket of the guest that takes a connection at a port.
fn listening(guest: &mut Guest, port: u16) -> smoltcp::iface::SocketHandle {
    let buffer = || tcp::SocketBuffer::new(vec![0; 4096]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.listen(port).unwrap();
    guest.sockets.add(socket)
}

/// Dials, and gives the host's end.
fn dial(link: &UserLink, port: u16) -> UnixStream {
    let (near, far) = UnixStream::pair().unwrap();
    link.dial(port, far).unwrap();
    near
}

#[test]
fn what_the_host_says_and_what_the_guest_answers_arrive_whole() {
    let link = UserLink::start(config()).unwrap();
    let mut guest = guest_of(&link, GUEST);
    let at = listening(&mut guest, 22);
    let mut host = dial(&link, 22);
    let said: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
    let sent = said.clone();
    let talking = thread::spawn(move || {
        host.write_all(&sent).unwrap();
        host.shutdown(std::net::Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        host.read_to_end(&mut heard).unwrap();
        heard
    });
    // The guest says back what it hears, and ends when the host has.
    let (mut heard, mut waiting) = (Vec::<u8>::new(), Vec::<u8>::new());
    guest.drive(|guest| {
        let socket = guest.sockets.get_mut::<tcp::Socket<'_>>(at);
        while socket.can_recv() {
            let piece = socket.recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap();
            heard.extend(&piece);
            waiting.extend(piece);
        }
        if socket.can_send() && !waiting.is_empty() {
            let count = socket.send_slice(&waiting).unwrap();
            waiting.drain(..count);
        }
        let is_over = heard.len() == said.len() && waiting.is_empty() && !socket.may_recv();
        if is_over {
            assert!(matches!(socket.remote_endpoint(), Some(end) if end.addr == IpAddress::from(METADATA)));
            socket.close();
        }
        is_over.then_some(())
    });
    // Until the last of it is with the host.
    guest.drive(|guest| (guest.sockets.get_mut::<tcp::Socket<'_>>(at).send_queue() == 0).then_some(()));
    guest.drive(|_| talking.is_finished().then_some(()));
    assert_eq!(heard, said);
    assert_eq!(talking.join().unwrap(), said);
}

#[test]
fn a_port_where_nobody_listens_closes_the_hosts_end() {
    let link = UserLink::start(config()).unwrap();
    let mut guest = guest_of(&link, GUEST);
    let mut host = dial(&link, 23);
    host.set_nonblocking(true).unwrap();
    let end = guest.drive(|_| match host.read(&mut [0; 1]) {
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => None,
        ended => Some(ended),
    });
    assert_eq!(end.unwrap(), 0);
}

#[test]
fn a_guest_that_begins_anew_has_no_connections() {
    let link = UserLink::start(config()).unwrap();
    let mut guest = guest_of(&link, GUEST);
    let at = listening(&mut guest, 22);
    let mut host = dial(&link, 22);
    guest.drive(|guest| guest.sockets.get_mut::<tcp::Socket<'_>>(at).may_send().then_some(()));
    let mut guest = guest_of(&link, GUEST);
    host.set_nonblocking(true).unwrap();
    // Whatever it sends first shows that the services have seen it.
    let one = guest.connect(SERVICE.into());
    assert_eq!(guest.ask(one, b"hello\n", b"\n"), b"HELLO\n");
    assert_eq!(host.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn ends_that_go_away_with_something_unread_are_forgotten() {
    let link = UserLink::start(config()).unwrap();
    let mut guest = guest_of(&link, GUEST);
    // More often than there may be connections at a time.
    for _ in 0..40 {
        let at = listening(&mut guest, 22);
        let host = dial(&link, 22);
        // More than the host's end takes, so that some of it waits.
        let mut sent = 0;
        guest.drive(|guest| {
            let socket = guest.sockets.get_mut::<tcp::Socket<'_>>(at);
            if socket.can_send() {
                sent += socket.send_slice(&[7; 4096]).unwrap();
            }
            (sent > 400_000 || sent > 0 && socket.send_queue() >= 4096).then_some(())
        });
        drop(host);
        guest.drive(|guest| (!guest.sockets.get_mut::<tcp::Socket<'_>>(at).is_active()).then_some(()));
        guest.sockets.remove(at);
    }
    let at = listening(&mut guest, 22);
    let _host = dial(&link, 22);
    guest.drive(|guest| guest.sockets.get_mut::<tcp::Socket<'_>>(at).may_send().then_some(()));
}

#[test]
fn more_than_there_is_room_for_are_closed_and_none_is_kept() {
    let link = UserLink::start(config()).unwrap();
    let mut guest = guest_of(&link, GUEST);
    let mut ends = Vec::new();
    let mut refused = 0;
    for _ in 0..200 {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        match link.dial(23, far) {
            Ok(()) => ends.push(near),
            Err(_) => refused += 1,
        }
    }
    assert!(refused < 200);
    // Nobody listens: each ends, whether it was begun or not.
    for mut end in ends {
        let ended = guest.drive(|_| match end.read(&mut [0; 1]) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => None,
            ended => Some(ended),
        });
        assert_eq!(ended.unwrap(), 0);
    }
}
