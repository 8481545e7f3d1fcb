//! UDP ports of the host that lead to the guest.
//!
//! To the guest each peer of the host's port is a port of the gateway; what the guest sends there goes back to that peer, from
//! the host's port. Nothing else of the host can be reached so.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use super::forward::{Forward, ForwardError};
use crate::net::Mac;
use crate::net::queue::FrameQueue;
use crate::net::services::Companion;
use crate::net::wire::udp::Udp;
use crate::net::wire::{Ethernet, IPV4};

/// The most peers that are kept apart; the one that was silent for the longest goes first.
const PEERS_MAX: usize = 256;
/// The first port of the gateway that stands for a peer whose own is taken.
const FIRST_PORT: u16 = 32_768;
/// How many datagrams are taken in a row.
const BATCH: usize = 64;

/// Between whom datagrams are carried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    /// The guest's card.
    pub guest_mac: Mac,
    /// The guest's address.
    pub guest: Ipv4Addr,
    /// The gateway's Ethernet address.
    pub gateway_mac: Mac,
    /// The gateway's address.
    pub gateway: Ipv4Addr,
    /// The longest IP packet to the guest, in bytes.
    pub mtu: u16,
}

impl Ends {
    /// Gives the guest a datagram, unless it is longer than the link carries.
    pub(super) fn give(&self, source: SocketAddrV4, port: u16, payload: &[u8], to_guest: &FrameQueue) {
        let destination = SocketAddrV4::new(self.guest, port);
        let packet = Udp { source, destination, payload }.build();
        if let Some(packet) = packet.filter(|packet| packet.len() <= usize::from(self.mtu)) {
            let (destination, source) = (self.guest_mac, self.gateway_mac);
            to_guest.push(Ethernet { destination, source, kind: IPV4, payload: &packet }.build());
        }
    }
}

/// All UDP ports that lead to one guest.
pub(super) struct UdpForwards {
    ends: Ends,
    ports: Vec<(Forward, UdpSocket)>,
    peers: Vec<Peer>,
    buffer: Vec<u8>,
}

struct Peer {
    /// Its place in `ports`.
    port: usize,
    address: SocketAddr,
    /// The gateway's port that stands for it.
    seen_as: u16,
    last: Instant,
}

impl UdpForwards {
    /// Takes the ports.
    ///
    /// # Errors
    /// [`ForwardError`], of the first that cannot be had.
    pub(super) fn bind(ends: Ends, forwards: &[Forward]) -> Result<Self, ForwardError> {
        let mut ports = Vec::new();
        for forward in forwards.iter().filter(|forward| forward.udp) {
            let told = |cause| ForwardError { forward: *forward, cause };
            let socket = UdpSocket::bind(forward.host).map_err(told)?;
            socket.set_nonblocking(true).map_err(told)?;
            let host = match socket.local_addr().map_err(told)? {
                SocketAddr::V4(host) => host,
                SocketAddr::V6(_) => forward.host,
            };
            ports.push((Forward { host, ..*forward }, socket));
        }
        Ok(Self { ends, ports, peers: Vec::new(), buffer: vec![0; 1 << 16] })
    }

    /// The ports as they were taken.
    pub(super) fn forwards(&self) -> Vec<Forward> {
        self.ports.iter().map(|(forward, _)| *forward).collect()
    }

    /// The gateway's port that stands for a peer.
    fn seen_as(&mut self, port: usize, address: SocketAddr, now: Instant) -> u16 {
        if let Some(known) = self.peers.iter_mut().find(|peer| peer.port == port && peer.address == address) {
            known.last = now;
            return known.seen_as;
        }
        if self.peers.len() >= PEERS_MAX
            && let Some(oldest) = (0..self.peers.len()).min_by_key(|at| self.peers.get(*at).map(|peer| peer.last))
        {
            self.peers.swap_remove(oldest);
        }
        let is_free = |wanted: &u16| *wanted != 0 && self.peers.iter().all(|peer| peer.seen_as != *wanted);
        let mut wanted = std::iter::once(address.port()).chain(FIRST_PORT..=u16::MAX);
        // More ports than peers.
        let seen_as = wanted.find(is_free).unwrap_or(FIRST_PORT);
        self.peers.push(Peer { port, address, seen_as, last: now });
        seen_as
    }
}

impl Companion for UdpForwards {
    fn wait_for<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.extend(self.ports.iter().map(|(_, socket)| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)));
    }

    fn attend(&mut self, now: Instant, to_guest: &FrameQueue) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for at in 0..self.ports.len() {
            for _ in 0..BATCH {
                let Some((forward, socket)) = self.ports.get(at) else { break };
                let guest = forward.guest;
                match socket.recv_from(&mut buffer) {
                    Ok((len, peer)) => {
                        let source = SocketAddrV4::new(self.ends.gateway, self.seen_as(at, peer, now));
                        self.ends.give(source, guest, buffer.get(..len).unwrap_or_default(), to_guest);
                    }
                    // An answer that could not be delivered; the next may be a datagram.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(_) => break,
                }
            }
        }
        self.buffer = buffer;
    }

    fn datagram(&mut self, datagram: &Udp<'_>, now: Instant) -> bool {
        if *datagram.destination.ip() != self.ends.gateway {
            return false;
        }
        let (from, to) = (datagram.source.port(), datagram.destination.port());
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.seen_as == to) else { return false };
        let Some((_, socket)) = self.ports.get(peer.port).filter(|(forward, _)| forward.guest == from) else {
            return false;
        };
        peer.last = now;
        // What cannot be sent is lost, as datagrams are.
        let _ = socket.send_to(datagram.payload, peer.address);
        true
    }
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
