//! What the tests of links share: a guest at the other end of a port, with a network stack that is not the link's.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{EthernetAddress, IpCidr};
use vm_memory::VolatileSlice;

use super::cidr::Cidr;
use super::{Conversation, HEADER_SIZE, LARGE_FRAME_MAX, Link, Mac, Next, Port, StreamService};

/// After how long a test that waits has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether it can be read from now.
pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    wait_readable(fd, Duration::ZERO)
}

/// Waits until it can be read from.
pub(crate) fn wait_for(fd: BorrowedFd<'_>) {
    assert!(wait_readable(fd, PATIENCE), "nothing came");
}

fn wait_readable(fd: BorrowedFd<'_>, most: Duration) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::try_from(most).unwrap())).unwrap() > 0
}

/// A guest.
pub(crate) struct Guest {
    pub wire: Wire,
    pub interface: Interface,
    pub sockets: SocketSet<'static>,
    started: Instant,
    next_port: u16,
}

/// A guest's card.
pub(crate) struct Wire {
    pub port: Port,
    waiting: VecDeque<Vec<u8>>,
}

impl Wire {
    /// Sends a frame in pieces.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        let mut bytes = vec![0; HEADER_SIZE];
        bytes.extend(frame);
        self.send_with_header(&mut bytes);
    }

    /// Sends bytes that begin with a header.
    pub(crate) fn send_with_header(&mut self, bytes: &mut [u8]) {
        let (a, b) = bytes.split_at_mut(bytes.len() / 3);
        self.port.sender.send(&[VolatileSlice::from(a), VolatileSlice::from(b)]).unwrap();
    }

    /// The next frame, if one waits.
    pub(crate) fn receive(&mut self) -> Option<Vec<u8>> {
        let mut bytes = vec![0xaa; HEADER_SIZE + LARGE_FRAME_MAX];
        let (a, b) = bytes.split_at_mut(100);
        let len = self.port.receiver.receive(&[VolatileSlice::from(a), VolatileSlice::from(b)]).unwrap()?;
        // No checksum is left out, and nothing is to be cut.
        assert!(bytes[0] & 1 == 0 && bytes[1..10].iter().all(|byte| *byte == 0));
        Some(bytes[HEADER_SIZE..len].to_vec())
    }

    /// The next frame that is wanted; others are dropped.
    pub(crate) fn expect(&mut self, mut wanted: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.receive() {
                Some(frame) if wanted(&frame) => return frame,
                Some(_) => {}
                None => assert!(wait_readable(self.port.receiver.readable(), until - Instant::now()), "no such frame"),
            }
        }
    }
}

impl Device for Wire {
    type RxToken<'a> = In;
    type TxToken<'a> = Out<'a>;

    fn receive(&mut self, _now: StackInstant) -> Option<(In, Out<'_>)> {
        let frame = self.waiting.pop_front().or_else(|| Wire::receive(self))?;
        Some((In(frame), Out(self)))
    }

    fn transmit(&mut self, _now: StackInstant) -> Option<Out<'_>> {
        Some(Out(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

pub(crate) struct In(Vec<u8>);

impl RxToken for In {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

pub(crate) struct Out<'a>(&'a mut Wire);

impl TxToken for Out<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut frame = vec![0; len];
        let done = fill(&mut frame);
        self.0.send(&frame);
        done
    }
}

impl Guest {
    /// A guest that has a card, and no address yet.
    pub(crate) fn new(link: &dyn Link, mac: Mac) -> Self {
        let port = link.open(1).unwrap().pop().unwrap();
        let mut wire = Wire { port, waiting: VecDeque::new() };
        let config = Config::new(EthernetAddress(mac.0).into());
        let interface = Interface::new(config, &mut wire, StackInstant::ZERO);
        let sockets = SocketSet::new(Vec::new());
        Self { wire, interface, sockets, started: Instant::now(), next_port: 40_000 }
    }

    /// The same with an address.
    pub(crate) fn with_address(mut self, address: Ipv4Addr, subnet: Cidr, gateway: Ipv4Addr) -> Self {
        self.interface.update_ip_addrs(|all| all.push(IpCidr::new(address.into(), subnet.bits())).unwrap());
        self.interface.routes_mut().add_default_ipv4_route(gateway).unwrap();
        self
    }

    /// Lets the stack do what it can now.
    pub(crate) fn step(&mut self) {
        let now = self.now();
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
    }

    fn now(&self) -> StackInstant {
        StackInstant::from_micros(i64::try_from(self.started.elapsed().as_micros()).unwrap())
    }

    /// Lets the stack work until `done` gives something.
    pub(crate) fn drive<T>(&mut self, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            self.step();
            if let Some(it) = done(self) {
                return it;
            }
            assert!(Instant::now() < until, "it did not come to that");
            let now = self.now();
            let delay = self.interface.poll_delay(now, &self.sockets).map_or(1000, |delay| delay.total_millis());
            wait_readable(self.wire.port.receiver.readable(), Duration::from_millis(delay.min(20)));
        }
    }

    /// Begins a connection.
    pub(crate) fn connect(&mut self, to: SocketAddr) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 8192]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        self.next_port += 1;
        socket.connect(self.interface.context(), to, self.next_port).unwrap();
        self.sockets.add(socket)
    }

    /// The socket of a connection.
    pub(crate) fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Whether a connection comes to be; else it is refused.
    pub(crate) fn is_connected(&mut self, handle: SocketHandle) -> bool {
        self.drive(|guest| match guest.tcp(handle).state() {
            tcp::State::Established | tcp::State::CloseWait => Some(true),
            tcp::State::Closed => Some(false),
            _ => None,
        })
    }

    /// Sends `text` over a connection and gives what is answered up to `end`.
    pub(crate) fn ask(&mut self, handle: SocketHandle, text: &[u8], end: &[u8]) -> Vec<u8> {
        let (mut sent, mut heard) = (0, Vec::new());
        self.drive(|guest| {
            let socket = guest.tcp(handle);
            if socket.can_send() && sent < text.len() {
                sent += socket.send_slice(&text[sent..]).unwrap();
            }
            while socket.can_recv() {
                socket.recv(|bytes| (bytes.len(), heard.extend_from_slice(bytes))).unwrap();
            }
            (heard.ends_with(end)).then_some(())
        });
        heard
    }
}

/// Answers each line with itself in capitals; `ttl N` has that time to live, `bye` ends, `long N` is answered by so many
/// bytes.
pub(crate) struct Echo;

struct Lines(Vec<u8>);

impl StreamService for Echo {
    fn connect(&self) -> Box<dyn Conversation> {
        Box::new(Lines(Vec::new()))
    }
}

impl Conversation for Lines {
    fn receive(&mut self, bytes: &[u8], answer: &mut Vec<u8>) -> Next {
        let mut next = Next { close: false, hop_limit: None };
        self.0.extend(bytes);
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.0.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line).into_owned();
            next.close |= line == "bye\n";
            if let Some(ttl) = line.strip_prefix("ttl ") {
                next.hop_limit = ttl.trim().parse().ok();
            }
            if let Some(len) = line.strip_prefix("long ") {
                answer.resize(len.trim().parse().unwrap(), b'x');
            }
            answer.extend(line.to_uppercase().as_bytes());
        }
        next
    }
}
