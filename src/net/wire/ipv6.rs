//! IPv6 (RFC 8200), without extension headers.

use std::net::Ipv6Addr;

use super::{bytes_at, u16_at};

const HEADER: usize = 40;

/// One packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ipv6<'a> {
    /// From whom.
    pub source: Ipv6Addr,
    /// To whom.
    pub destination: Ipv6Addr,
    /// What is in it: [`super::ICMPV6`] and others, extension headers among them.
    pub next: u8,
    /// How many routers it may still pass.
    pub hop_limit: u8,
    /// What follows the header, as long as the header says.
    pub payload: &'a [u8],
    /// Header and payload.
    pub whole: &'a [u8],
}

impl<'a> Ipv6<'a> {
    /// Reads a packet.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        if *bytes.first()? >> 4 != 6 {
            return None;
        }
        let whole = bytes.get(..HEADER.checked_add(usize::from(u16_at(bytes, 4)?))?)?;
        Some(Self {
            source: bytes_at::<16>(bytes, 8)?.into(),
            destination: bytes_at::<16>(bytes, 24)?.into(),
            next: *bytes.get(6)?,
            hop_limit: *bytes.get(7)?,
            payload: whole.get(HEADER..)?,
            whole,
        })
    }

    /// Writes a packet; nothing where it would be too long. `whole` is not looked at.
    pub(crate) fn build(&self) -> Option<Vec<u8>> {
        let len = u16::try_from(self.payload.len()).ok()?;
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(len.to_be_bytes());
        packet.extend([self.next, self.hop_limit]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend(self.payload);
        Some(packet)
    }
}

/// What the checksums of the protocols above also cover (section 8.1).
pub(crate) fn pseudo_header(source: Ipv6Addr, destination: Ipv6Addr, next: u8, len: u16) -> Vec<u8> {
    let mut header = [source.octets(), destination.octets()].concat();
    header.extend([0, 0]);
    header.extend(len.to_be_bytes());
    header.extend([0, 0, 0, next]);
    header
}
