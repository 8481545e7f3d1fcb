//! The resolver that the guest is told of: its questions go to the host's own resolver.
//!
//! Nothing of them is read. Each of the guest's ports has a socket of the host to itself, so that answers find their way and
//! nobody who does not see a question can guess how to answer it. Only UDP: a longer answer says so itself, and what does not fit
//! the link is lost.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::udp_forward::Ends;
use crate::net::queue::FrameQueue;
use crate::net::services::Companion;
use crate::net::wire::udp::Udp;

/// The port of resolvers.
const PORT: u16 = 53;
/// The most ports of the guest that wait for answers; the one that asked first goes first.
const ASKERS_MAX: usize = 128;
/// How long an answer may take.
const WAIT: Duration = Duration::from_secs(15);
/// How many answers are taken in a row from one socket.
const BATCH: usize = 16;
/// How much of the host's configuration is read.
const CONFIGURATION_MAX: u64 = 64 << 10;

/// Who says where the host's resolver is.
pub(super) type Upstream = Box<dyn Fn() -> Option<SocketAddr> + Send>;

/// The first resolver of the host, by the file that names them (resolv.conf(5)).
pub(super) fn of_host() -> Option<SocketAddr> {
    first_in(Path::new("/etc/resolv.conf"))
}

fn first_in(path: &Path) -> Option<SocketAddr> {
    let mut text = String::new();
    let file = std::fs::File::open(path).ok()?;
    io::Read::read_to_string(&mut io::Read::take(file, CONFIGURATION_MAX), &mut text).ok()?;
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        address.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, PORT))
    })
}

/// Carries questions and answers.
pub(super) struct Resolver {
    ends: Ends,
    addresses: Vec<Ipv4Addr>,
    upstream: Upstream,
    askers: Vec<Asker>,
    buffer: Vec<u8>,
}

struct Asker {
    port: u16,
    /// Whom it asked.
    asked: SocketAddrV4,
    socket: UdpSocket,
    last: Instant,
}

impl Resolver {
    /// Answers at these addresses by what `upstream` names.
    pub(super) fn new(ends: Ends, addresses: Vec<Ipv4Addr>, upstream: Upstream) -> Self {
        Self { ends, addresses, upstream, askers: Vec::new(), buffer: vec![0; 1 << 16] }
    }

    /// The socket of one of the guest's ports, made where there is none.
    fn asker(&mut self, port: u16, asked: SocketAddrV4, now: Instant) -> Option<&mut Asker> {
        let is = |asker: &Asker| asker.port == port && asker.asked == asked;
        if !self.askers.iter().any(is) {
            let upstream = (self.upstream)()?;
            let any: IpAddr =
                if upstream.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0)).ok()?;
            socket.connect(upstream).ok()?;
            socket.set_nonblocking(true).ok()?;
            if self.askers.len() >= ASKERS_MAX {
                let oldest = (0..self.askers.len()).min_by_key(|at| self.askers.get(*at).map(|asker| asker.last));
                oldest.map(|at| self.askers.swap_remove(at));
            }
            self.askers.push(Asker { port, asked, socket, last: now });
        }
        self.askers.iter_mut().find(|asker| is(asker))
    }
}

impl Companion for Resolver {
    fn wait_for<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.extend(self.askers.iter().map(|asker| PollFd::from_borrowed_fd(asker.socket.as_fd(), PollFlags::IN)));
    }

    fn attend(&mut self, now: Instant, to_guest: &FrameQueue) {
        for asker in &self.askers {
            for _ in 0..BATCH {
                match asker.socket.recv(&mut self.buffer) {
                    Ok(len) => {
                        let answer = self.buffer.get(..len).unwrap_or_default();
                        self.ends.give(asker.asked, asker.port, answer, to_guest);
                    }
                    // Nobody listens there; the guest asks again.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(_) => break,
                }
            }
        }
        self.askers.retain(|asker| now.saturating_duration_since(asker.last) < WAIT);
    }

    fn deadline(&self) -> Option<Instant> {
        self.askers.iter().map(|asker| asker.last + WAIT).min()
    }

    fn datagram(&mut self, datagram: &Udp<'_>, now: Instant) -> bool {
        if datagram.destination.port() != PORT || !self.addresses.contains(datagram.destination.ip()) {
            return false;
        }
        if let Some(asker) = self.asker(datagram.source.port(), datagram.destination, now) {
            asker.last = now;
            // A question that cannot be sent is asked again.
            let _ = asker.socket.send(datagram.payload);
        }
        true
    }
}

#[cfg(test)]
mod tests;
