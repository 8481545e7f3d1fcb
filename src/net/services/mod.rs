//! What answers at the link's own addresses: ARP, neighbour discovery, DHCP, echoes, and TCP for a [`StreamService`].
//!
//! [`Engine`] takes the guest's frames one after the other and writes answers to a queue; it waits for nothing and knows no
//! threads, which makes it the same in tests. [`attend`] runs it in a thread of its own, with its [`Companion`]s: what else
//! answers at these addresses and needs the host for that.
//!
//! What may come here is the guest's own frames alone. What comes from other machines never does: so nobody but the guest can
//! ask its metadata service.

pub(super) mod attend;
mod budget;
pub(super) mod dhcp;
mod streams;
#[cfg(test)]
pub(super) mod testing;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::PollFd;

use self::budget::Budget;
use self::streams::Streams;
use super::address::{METADATA_V6, RESOLVER_V6, SERVICES_V6, link_local_of};
use super::cidr::Cidr;
use super::counters::NetCounters;
use super::queue::FrameQueue;
use super::wire::arp::Arp;
use super::wire::icmp::{self, Unreachable};
use super::wire::ipv4::Ipv4;
use super::wire::ipv6::Ipv6;
use super::wire::ndp::{self, Question, Way};
use super::wire::udp::Udp;
use super::wire::{ARP, BROADCAST, Ethernet, ICMP, IPV4, IPV6, TCP, UDP};
use super::{Mac, StreamService};

/// Whom the engine serves, and as whom.
pub(super) struct Config {
    /// The guest's card.
    pub guest: Mac,
    /// Whose Ethernet address the services have.
    pub mac: Mac,
    /// Their IPv4 addresses, the gateway's first where there is one; at most five.
    pub addresses: Vec<Ipv4Addr>,
    /// The guest's subnet, of which unknown hosts are unreachable; beyond it networks are.
    pub network: Option<Cidr>,
    /// What the guest is told by DHCP; nothing where another server is to tell it.
    pub dhcp: Option<dhcp::Lease>,
    /// Who answers at port 80 of [`super::address::METADATA`].
    pub metadata: Option<Arc<dyn StreamService>>,
    /// Whether there are IPv6 addresses, and the metadata service at its own.
    pub ipv6: bool,
    /// The longest IP packet to the guest, in bytes.
    pub mtu: u16,
}

/// Something that answers at the services' addresses by means of the host, in the engine's thread.
pub(super) trait Companion: Send {
    /// Adds what it waits for.
    fn wait_for<'a>(&'a self, fds: &mut Vec<PollFd<'a>>);

    /// Does what can be done now, without waiting; called after any wait.
    fn attend(&mut self, now: Instant, to_guest: &FrameQueue);

    /// When it wants to be called at the latest.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Takes a datagram of the guest to one of the services' addresses; tells whether it is its.
    fn datagram(&mut self, _datagram: &Udp<'_>, _now: Instant) -> bool {
        false
    }

    /// Whose Ethernet address an IPv4 address of the guest's subnet has.
    fn mac_at(&self, _address: Ipv4Addr) -> Option<Mac> {
        None
    }
}

/// The services of one guest.
pub(super) struct Engine {
    config: Config,
    streams: Streams,
    /// What may yet be said of packets that cannot be delivered.
    errors: Budget,
}

impl Engine {
    pub(super) fn new(config: Config, counters: Arc<NetCounters>, now: Instant) -> Self {
        let v6 = if config.ipv6 { vec![link_local_of(config.mac), METADATA_V6, RESOLVER_V6] } else { vec![] };
        let streams = Streams::new(&config.addresses, &v6, config.metadata.clone(), config.mtu, counters, now);
        Self { config, streams, errors: Budget::new(now) }
    }

    /// When it wants to be called again at the latest, though no frame comes.
    pub(super) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        self.streams.deadline(now)
    }

    /// Begins a connection to a TCP port of the guest, whose other end is `stream`: it is closed where the guest's address is
    /// not known.
    pub(super) fn dial(&mut self, port: u16, stream: UnixStream, now: Instant, out: &FrameQueue) {
        if let Some(lease) = &self.config.dhcp {
            self.streams.dial((lease.address, port), stream);
            self.attend(now, out);
        }
    }

    /// Adds what it waits for beside frames.
    pub(super) fn wait_for<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        self.streams.wait_for(fds);
    }

    /// Does what is due.
    pub(super) fn attend(&mut self, now: Instant, out: &FrameQueue) {
        self.streams.attend(now);
        self.send_streams(out);
    }

    /// Forgets all connections, without a word to the guest.
    pub(super) fn forget(&mut self) {
        self.streams.forget();
    }

    /// Takes one frame of the guest.
    pub(super) fn take(&mut self, frame: &[u8], companions: &mut [Box<dyn Companion>], now: Instant, out: &FrameQueue) {
        let Some(ethernet) = Ethernet::parse(frame) else { return };
        match ethernet.kind {
            ARP => self.take_arp(ethernet.payload, companions, out),
            IPV4 => {
                if let Some(packet) = Ipv4::parse(ethernet.payload) {
                    self.take_ipv4(&packet, companions, now, out);
                }
            }
            IPV6 if self.config.ipv6 => {
                if let Some(packet) = Ipv6::parse(ethernet.payload) {
                    self.take_ipv6(&packet, now, out);
                }
            }
            _ => {}
        }
    }

    fn take_arp(&self, packet: &[u8], companions: &[Box<dyn Companion>], out: &FrameQueue) {
        let Some(asked) = Arp::parse(packet).filter(|arp| arp.request) else { return };
        let address = asked.target.1;
        let own = self.config.addresses.contains(&address).then_some(self.config.mac);
        let mac = own.or_else(|| companions.iter().find_map(|companion| companion.mac_at(address)));
        if let Some(mac) = mac {
            let answer = Arp { request: false, sender: (mac, address), target: asked.sender };
            out.push(answer.build(self.config.guest));
        }
    }

    fn take_ipv4(&mut self, packet: &Ipv4<'_>, companions: &mut [Box<dyn Companion>], now: Instant, out: &FrameQueue) {
        let datagram = Udp::parse(packet);
        if let (Some(lease), Some(datagram)) = (&self.config.dhcp, &datagram)
            && datagram.destination.port() == dhcp::SERVER_PORT
            && let Some(answer) = dhcp::answer(lease, self.config.guest, datagram)
        {
            let mac = if answer.to_all { BROADCAST } else { self.config.guest };
            return self.send(mac, IPV4, &answer.packet, out);
        }
        if !self.config.addresses.contains(&packet.destination) {
            let near = self.config.network.is_some_and(|network| network.contains(packet.destination));
            let why = if near { Unreachable::Host } else { Unreachable::Network };
            let teller = self.config.addresses.first().copied();
            return self.refuse(packet, why, teller.unwrap_or(packet.destination), now, out);
        }
        match (packet.protocol, datagram) {
            (TCP, _) => {
                self.streams.take(packet.whole, packet.source.into(), packet.destination.into(), packet.payload, now);
                self.send_streams(out);
            }
            (ICMP, _) => {
                if let Some(reply) = icmp::echo_reply(packet) {
                    self.send(self.config.guest, IPV4, &reply, out);
                }
            }
            (UDP, Some(datagram)) => {
                if !companions.iter_mut().any(|companion| companion.datagram(&datagram, now)) {
                    self.refuse(packet, Unreachable::Port, packet.destination, now, out);
                }
            }
            (UDP, None) => {}
            _ => self.refuse(packet, Unreachable::Protocol, packet.destination, now, out),
        }
    }

    fn take_ipv6(&mut self, packet: &Ipv6<'_>, now: Instant, out: &FrameQueue) {
        let own = link_local_of(self.config.mac);
        let is_own = |address: Ipv6Addr| [own, METADATA_V6, RESOLVER_V6].contains(&address);
        if packet.next == TCP && is_own(packet.destination) {
            self.streams.take(packet.whole, packet.source.into(), packet.destination.into(), packet.payload, now);
            return self.send_streams(out);
        }
        // Who has no address yet is answered by telling all.
        let is_nobody = packet.source.is_unspecified();
        let back = if is_nobody { ndp::ALL_NODES } else { packet.source };
        let way = |source| Way { source, destination: back };
        let answer = match Question::parse(packet) {
            Some(Question::Neighbour(target)) if is_own(target) => {
                ndp::neighbour_advertisement(way(target), target, self.config.mac, !is_nobody)
            }
            Some(Question::Router) => ndp::router_advertisement(way(own), SERVICES_V6, self.config.mac),
            Some(Question::Echo(body)) if is_own(packet.destination) && !is_nobody => {
                ndp::echo_reply(way(packet.destination), &body)
            }
            _ => None,
        };
        if let Some(answer) = answer {
            let mac = if is_nobody { Mac([0x33, 0x33, 0, 0, 0, 1]) } else { self.config.guest };
            self.send(mac, IPV6, &answer, out);
        }
    }

    fn refuse(&mut self, packet: &Ipv4<'_>, why: Unreachable, teller: Ipv4Addr, now: Instant, out: &FrameQueue) {
        if self.errors.spend(now)
            && let Some(message) = icmp::unreachable(packet, why, teller)
        {
            self.send(self.config.guest, IPV4, &message, out);
        }
    }

    fn send_streams(&mut self, out: &FrameQueue) {
        for packet in self.streams.drain() {
            let kind = if packet.first().is_some_and(|first| first >> 4 == 6) { IPV6 } else { IPV4 };
            let frame =
                Ethernet { destination: self.config.guest, source: self.config.mac, kind, payload: &packet }.build();
            // TCP sends again what had no room.
            out.push(frame);
        }
    }

    fn send(&self, destination: Mac, kind: u16, payload: &[u8], out: &FrameQueue) {
        out.push(Ethernet { destination, source: self.config.mac, kind, payload }.build());
    }
}

#[cfg(test)]
mod tests;
