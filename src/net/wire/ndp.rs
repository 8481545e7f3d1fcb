//! ICMPv6: echoes (RFC 4443), and how neighbours and routers are found (RFC 4861).

use std::net::Ipv6Addr;

use super::ipv6::{Ipv6, pseudo_header};
use super::{ICMPV6, bytes_at, checksum, put_u16};
use crate::net::Mac;

const ECHO: u8 = 128;
const ECHO_REPLY: u8 = 129;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// The option with the sender's link-layer address.
const SOURCE_LINK_ADDRESS: u8 = 1;
/// The option with the target's link-layer address.
const TARGET_LINK_ADDRESS: u8 = 2;
/// The option with a prefix of the link.
const PREFIX: u8 = 3;

/// All hosts of a link.
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What a host asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// Who has this address?
    Neighbour(Ipv6Addr),
    /// Which routers are there?
    Router,
    /// Answer with these bytes (identifier, number and data).
    Echo(Vec<u8>),
}

impl Question {
    /// Reads the question in a packet, if it is one whose checksum is right.
    pub(crate) fn parse(packet: &Ipv6<'_>) -> Option<Self> {
        let message = packet.payload;
        let len = u16::try_from(message.len()).ok()?;
        let pseudo = pseudo_header(packet.source, packet.destination, ICMPV6, len);
        if packet.next != ICMPV6 || checksum(&[&pseudo, message]) != 0 {
            return None;
        }
        // Neighbours' packets have passed no router (section 7.1.1).
        let (is_near, code) = (packet.hop_limit == 255, *message.get(1)?);
        match *message.first()? {
            NEIGHBOUR_SOLICITATION if is_near && code == 0 => {
                options_are_sound(message.get(24..)?).then_some(())?;
                Some(Self::Neighbour(bytes_at::<16>(message, 8)?.into()))
            }
            ROUTER_SOLICITATION if is_near && code == 0 => options_are_sound(message.get(8..)?).then_some(Self::Router),
            ECHO if message.len() >= 8 => Some(Self::Echo(message.get(4..)?.to_vec())),
            _ => None,
        }
    }
}

/// Whether every option has a length, and fits.
fn options_are_sound(mut options: &[u8]) -> bool {
    while let [_, len, ..] = options {
        match options.get(usize::from(*len) * 8..) {
            Some(rest) if *len > 0 => options = rest,
            _ => return false,
        }
    }
    options.is_empty()
}

/// Who answers, and whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    /// Who answers.
    pub source: Ipv6Addr,
    /// Whom.
    pub destination: Ipv6Addr,
}

/// The answer that `target` is at `mac`.
pub(crate) fn neighbour_advertisement(way: Way, target: Ipv6Addr, mac: Mac, solicited: bool) -> Option<Vec<u8>> {
    // Solicited, and it may replace what is known.
    let mut body = vec![if solicited { 0x60 } else { 0x20 }, 0, 0, 0];
    body.extend(target.octets());
    body.extend([TARGET_LINK_ADDRESS, 1]);
    body.extend(mac.0);
    message(way, NEIGHBOUR_ADVERTISEMENT, &body)
}

/// The answer that this is no router, but that addresses with that prefix of 64 bits are of this link, and hosts may give
/// themselves one (RFC 4862).
pub(crate) fn router_advertisement(way: Way, prefix: Ipv6Addr, mac: Mac) -> Option<Vec<u8>> {
    // Hop limit 64, no flags, no life as a router, no times.
    let mut body = vec![64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    body.extend([SOURCE_LINK_ADDRESS, 1]);
    body.extend(mac.0);
    // On the link, and for hosts to use; valid and preferred for ever.
    body.extend([PREFIX, 4, 64, 0xc0]);
    body.extend([[0xff; 4], [0xff; 4], [0; 4]].concat());
    body.extend(prefix.octets());
    message(way, ROUTER_ADVERTISEMENT, &body)
}

/// The answer to an echo request.
pub(crate) fn echo_reply(way: Way, body: &[u8]) -> Option<Vec<u8>> {
    message(way, ECHO_REPLY, body)
}

fn message(way: Way, kind: u8, body: &[u8]) -> Option<Vec<u8>> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(body);
    let len = u16::try_from(message.len()).ok()?;
    let sum = checksum(&[&pseudo_header(way.source, way.destination, ICMPV6, len), &message]);
    put_u16(&mut message, 2, sum);
    let Way { source, destination } = way;
    Ipv6 { source, destination, next: ICMPV6, hop_limit: 255, payload: &message, whole: &[] }.build()
}
