//! UDP over IPv4 (RFC 768).

use std::net::SocketAddrV4;

use super::ipv4::{Ipv4, pseudo_header};
use super::{UDP, checksum, put_u16, u16_at};

const HEADER: usize = 8;

/// One datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Udp<'a> {
    /// From whom.
    pub source: SocketAddrV4,
    /// To whom.
    pub destination: SocketAddrV4,
    /// What it carries.
    pub payload: &'a [u8],
}

impl<'a> Udp<'a> {
    /// Reads the datagram in a packet; one with a checksum must have the right one.
    pub(crate) fn parse(packet: &Ipv4<'a>) -> Option<Self> {
        let bytes = packet.payload;
        if packet.protocol != UDP || packet.fragment {
            return None;
        }
        let len = u16_at(bytes, 4)?;
        let datagram = bytes.get(..usize::from(len))?;
        let pseudo = pseudo_header(packet.source, packet.destination, UDP, len);
        if u16_at(datagram, 6)? != 0 && checksum(&[&pseudo, datagram]) != 0 {
            return None;
        }
        Some(Self {
            source: SocketAddrV4::new(packet.source, u16_at(datagram, 0)?),
            destination: SocketAddrV4::new(packet.destination, u16_at(datagram, 2)?),
            payload: datagram.get(HEADER..)?,
        })
    }

    /// Writes the packet with this datagram; nothing where it would be too long.
    pub(crate) fn build(&self) -> Option<Vec<u8>> {
        let len = u16::try_from(HEADER.checked_add(self.payload.len())?).ok()?;
        let mut datagram = Vec::with_capacity(usize::from(len));
        for field in [self.source.port(), self.destination.port(), len, 0] {
            datagram.extend(field.to_be_bytes());
        }
        datagram.extend(self.payload);
        let pseudo = pseudo_header(*self.source.ip(), *self.destination.ip(), UDP, len);
        // Zero would say that there is none.
        let sum = Some(checksum(&[&pseudo, &datagram])).filter(|sum| *sum != 0).unwrap_or(0xffff);
        put_u16(&mut datagram, 6, sum);
        let (source, destination) = (*self.source.ip(), *self.destination.ip());
        Ipv4 { source, destination, protocol: UDP, ttl: 64, fragment: false, payload: &datagram, whole: &[] }.build()
    }
}
