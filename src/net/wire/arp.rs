//! ARP for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use super::{ARP, Ethernet, bytes_at, u16_at};
use crate::net::Mac;

/// Ethernet, IPv4, and the lengths of their addresses.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// One packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arp {
    /// It asks; else it answers.
    pub request: bool,
    /// Who sends it.
    pub sender: (Mac, Ipv4Addr),
    /// Of whom it speaks.
    pub target: (Mac, Ipv4Addr),
}

impl Arp {
    /// Reads a packet.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes_at(bytes, 0)? != KIND {
            return None;
        }
        let request = match u16_at(bytes, 6)? {
            REQUEST => true,
            REPLY => false,
            _ => return None,
        };
        let pair = |at: usize| Some((Mac(bytes_at(bytes, at)?), Ipv4Addr::from(bytes_at::<4>(bytes, at + 6)?)));
        Some(Self { request, sender: pair(8)?, target: pair(18)? })
    }

    /// Writes the frame with this packet, from its sender.
    pub(crate) fn build(&self, destination: Mac) -> Vec<u8> {
        let mut packet = KIND.to_vec();
        packet.extend(if self.request { REQUEST } else { REPLY }.to_be_bytes());
        for (mac, address) in [self.sender, self.target] {
            packet.extend(mac.0);
            packet.extend(address.octets());
        }
        Ethernet { destination, source: self.sender.0, kind: ARP, payload: &packet }.build()
    }
}
