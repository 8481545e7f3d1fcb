//! What stands in frames: read with every length checked, and written.
//!
//! Readers give nothing for what is cut short or contradicts itself; they never read past what a length field says, nor past
//! the frame. Bytes behind the end that a header tells (Ethernet's padding) are left out.

pub(crate) mod arp;
pub(crate) mod icmp;
pub(crate) mod ipv4;
pub(crate) mod ipv6;
pub(crate) mod ndp;
pub(crate) mod udp;

use super::Mac;

/// Ethernet's number of IPv4.
pub(crate) const IPV4: u16 = 0x0800;
/// Ethernet's number of ARP.
pub(crate) const ARP: u16 = 0x0806;
/// Ethernet's number of IPv6.
pub(crate) const IPV6: u16 = 0x86dd;
/// To all.
pub(crate) const BROADCAST: Mac = Mac([0xff; 6]);
/// Bytes of Ethernet's header.
pub(crate) const ETHERNET_HEADER: usize = 14;

/// IP's number of ICMP.
pub(crate) const ICMP: u8 = 1;
/// IP's number of TCP.
pub(crate) const TCP: u8 = 6;
/// IP's number of UDP.
pub(crate) const UDP: u8 = 17;
/// IP's number of ICMPv6.
pub(crate) const ICMPV6: u8 = 58;

/// The `N` bytes at `at`.
pub(crate) fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// The big-endian number at `at`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_be_bytes)
}

/// A frame without its check sequence (IEEE 802.3, section 3).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ethernet<'a> {
    /// To whom.
    pub destination: Mac,
    /// From whom.
    pub source: Mac,
    /// What is in it: [`IPV4`] and others.
    pub kind: u16,
    /// What follows the header, padding included.
    pub payload: &'a [u8],
}

impl<'a> Ethernet<'a> {
    /// Reads a frame.
    pub(crate) fn parse(frame: &'a [u8]) -> Option<Self> {
        Some(Self {
            destination: Mac(bytes_at(frame, 0)?),
            source: Mac(bytes_at(frame, 6)?),
            kind: u16_at(frame, 12)?,
            payload: frame.get(ETHERNET_HEADER..)?,
        })
    }

    /// Writes a frame.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(ETHERNET_HEADER + self.payload.len());
        frame.extend(self.destination.0);
        frame.extend(self.source.0);
        frame.extend(self.kind.to_be_bytes());
        frame.extend(self.payload);
        frame
    }
}

/// The sum of the Internet checksum (RFC 1071) over pieces; each but the last must have an even length.
pub(crate) fn checksum(pieces: &[&[u8]]) -> u16 {
    let mut sum: u64 = 0;
    for piece in pieces {
        let (pairs, rest) = piece.as_chunks::<2>();
        sum += pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum::<u64>();
        sum += rest.first().map_or(0, |last| u64::from(*last) << 8);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// Writes `value` at `at`, where there is room for it.
pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = value.to_be_bytes();
    }
}

#[cfg(test)]
mod tests;
