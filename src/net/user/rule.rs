//! Where a guest's frame may go: the rule that keeps a guest to its own addresses, and the host's own to the host.
//!
//! * A frame comes from the guest's card and, where it is IPv4 or ARP, from the guest's own address. From nowhere (0.0.0.0) may
//!   come what asks for an address. IPv6 comes from link-local addresses, from those of the services' prefix, or from nowhere.
//! * Nothing goes to the host's loopback: neither to 127.0.0.0/8 nor to 0.0.0.0/8, which Linux takes for the same. Nothing goes
//!   to link-local addresses that are not the services' own, to multicast or broadcast (but for DHCP and ARP), or to the reserved
//!   addresses from 240.0.0.0 on.
//! * To the world outside go unicast IPv4 packets, whole ones, for addresses outside the guest's network.
//! * To another instance goes what is for an address of that network, and there it is checked once more
//!   ([`super::neighbours`]).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::net::Mac;
use crate::net::address::SERVICES_V6;
use crate::net::cidr::Cidr;
use crate::net::services::dhcp::{CLIENT_PORT, SERVER_PORT};
use crate::net::wire::arp::Arp;
use crate::net::wire::ipv4::Ipv4;
use crate::net::wire::ipv6::Ipv6;
use crate::net::wire::{ARP, Ethernet, IPV4, IPV6, TCP, UDP, u16_at};

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// To what answers at the link's own addresses, or says that nobody does.
    Services,
    /// To the world outside.
    Outside,
    /// To the instance with that address.
    Neighbour(Ipv4Addr),
    /// Nowhere.
    Nowhere(Why),
}

/// Why a frame goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It is cut short, or contradicts itself.
    Malformed,
    /// It is from an address that is not the guest's.
    Source,
    /// It is to an address that nothing is sent to.
    Destination,
    /// It is of a protocol that is not carried.
    Protocol,
}

/// What the rule has to know.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// The guest's card.
    pub mac: Mac,
    /// The guest's address.
    pub address: Ipv4Addr,
    /// Its subnet, or the larger network that others are in.
    pub network: Cidr,
    /// Its subnet.
    pub subnet: Cidr,
    /// The way out, which is one of the link's own addresses.
    pub gateway: Ipv4Addr,
    /// The gateway's Ethernet address.
    pub gateway_mac: Mac,
    /// The link's own addresses.
    pub own: Vec<Ipv4Addr>,
    /// Whether other instances are to be reached.
    pub has_neighbours: bool,
    /// Whether connections from outside come in, which seem to come from the gateway.
    pub has_forwards: bool,
    /// Whether there are services over IPv6.
    pub ipv6: bool,
}

impl Rule {
    /// Where a frame of the guest goes.
    pub(super) fn way(&self, frame: &[u8]) -> Way {
        let Some(ethernet) = Ethernet::parse(frame) else { return Way::Nowhere(Why::Malformed) };
        if ethernet.source != self.mac {
            return Way::Nowhere(Why::Source);
        }
        let way = match ethernet.kind {
            ARP => self.way_of_arp(ethernet.payload),
            IPV4 => self.way_of_ipv4(&ethernet),
            IPV6 if self.ipv6 => way_of_ipv6(ethernet.payload),
            _ => Some(Way::Nowhere(Why::Protocol)),
        };
        way.unwrap_or(Way::Nowhere(Why::Malformed))
    }

    fn way_of_arp(&self, packet: &[u8]) -> Option<Way> {
        let (mac, address) = Arp::parse(packet)?.sender;
        let is_own = mac == self.mac && (address == self.address || address.is_unspecified());
        Some(if is_own { Way::Services } else { Way::Nowhere(Why::Source) })
    }

    fn way_of_ipv4(&self, frame: &Ethernet<'_>) -> Option<Way> {
        let packet = Ipv4::parse(frame.payload)?;
        let (source, destination) = (packet.source, packet.destination);
        if is_dhcp(&packet) && (destination.is_broadcast() || destination == self.gateway) {
            let may = source.is_unspecified() || source == self.address;
            return Some(if may { Way::Services } else { Way::Nowhere(Why::Source) });
        }
        if source != self.address {
            return Some(Way::Nowhere(Why::Source));
        }
        if self.own.contains(&destination) {
            let goes_out = destination == self.gateway && self.has_forwards && goes_on(&packet);
            return Some(if goes_out { Way::Outside } else { Way::Services });
        }
        let is_group = frame.destination.0[0] & 1 != 0;
        if is_group || destination == self.address || self.is_never_sent_to(destination) {
            return Some(Way::Nowhere(Why::Destination));
        }
        if self.network.contains(destination) {
            return Some(if self.has_neighbours { Way::Neighbour(destination) } else { Way::Services });
        }
        if frame.destination != self.gateway_mac {
            return Some(Way::Nowhere(Why::Destination));
        }
        // Pieces cannot be told apart by connection, and outside is no router that would pass them on.
        Some(if packet.fragment { Way::Nowhere(Why::Protocol) } else { Way::Outside })
    }

    fn is_never_sent_to(&self, address: Ipv4Addr) -> bool {
        address.octets()[0] == 0
            || address.is_loopback()
            || address.is_link_local()
            || address >= Ipv4Addr::new(224, 0, 0, 0)
            || [self.subnet, self.network].iter().any(|net| net.contains(address) && !net.has_host(address))
    }
}

fn is_dhcp(packet: &Ipv4<'_>) -> bool {
    let ports = (u16_at(packet.payload, 0), u16_at(packet.payload, 2));
    packet.protocol == UDP && !packet.fragment && ports == (Some(CLIENT_PORT), Some(SERVER_PORT))
}

/// Whether it belongs to a connection that someone else began: TCP, and not its first segment.
fn goes_on(packet: &Ipv4<'_>) -> bool {
    packet.protocol == TCP && !packet.fragment && packet.payload.get(13).is_some_and(|flags| flags & 0x12 != 0x02)
}

fn way_of_ipv6(packet: &[u8]) -> Option<Way> {
    let source = Ipv6::parse(packet)?.source;
    let prefix = |address: Ipv6Addr| address.to_bits() >> 64;
    let may = source.is_unspecified() || source.is_unicast_link_local() || prefix(source) == prefix(SERVICES_V6);
    Some(if may { Way::Services } else { Way::Nowhere(Why::Source) })
}

#[cfg(test)]
mod tests;
