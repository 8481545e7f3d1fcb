//! IPv4 (RFC 791).

use std::net::Ipv4Addr;

use super::{bytes_at, checksum, put_u16, u16_at};

const HEADER: usize = 20;

/// One packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ipv4<'a> {
    /// From whom.
    pub source: Ipv4Addr,
    /// To whom.
    pub destination: Ipv4Addr,
    /// What is in it: [`super::UDP`] and others.
    pub protocol: u8,
    /// How many routers it may still pass.
    pub ttl: u8,
    /// It is part of a larger one.
    pub fragment: bool,
    /// What follows the header, as long as the header says.
    pub payload: &'a [u8],
    /// Header and payload.
    pub whole: &'a [u8],
}

impl<'a> Ipv4<'a> {
    /// Reads a packet whose header's checksum is right.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let first = *bytes.first()?;
        let header = usize::from(first & 0xf) * 4;
        let total = usize::from(u16_at(bytes, 2)?);
        if first >> 4 != 4 || header < HEADER || checksum(&[bytes.get(..header)?]) != 0 {
            return None;
        }
        let whole = bytes.get(..total)?;
        Some(Self {
            source: bytes_at::<4>(bytes, 12)?.into(),
            destination: bytes_at::<4>(bytes, 16)?.into(),
            protocol: *bytes.get(9)?,
            ttl: *bytes.get(8)?,
            // More fragments, or an offset.
            fragment: u16_at(bytes, 6)? & 0x3fff != 0,
            payload: whole.get(header..)?,
            whole,
        })
    }

    /// Writes a packet; nothing where it would be too long. `fragment` and `whole` are not looked at.
    pub(crate) fn build(&self) -> Option<Vec<u8>> {
        let total = u16::try_from(HEADER.checked_add(self.payload.len())?).ok()?;
        let mut packet = vec![0x45, 0];
        packet.extend(total.to_be_bytes());
        // No identification, and not to be fragmented (RFC 6864).
        packet.extend([0, 0, 0x40, 0, self.ttl, self.protocol, 0, 0]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        let sum = checksum(&[&packet]);
        put_u16(&mut packet, 10, sum);
        packet.extend(self.payload);
        Some(packet)
    }
}

/// What the checksums of UDP and TCP also cover.
pub(crate) fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: u16) -> [u8; 12] {
    let ([a, b, c, d], [e, f, g, h], [i, j]) = (source.octets(), destination.octets(), len.to_be_bytes());
    [a, b, c, d, e, f, g, h, 0, protocol, i, j]
}
