//! ICMP (RFC 792): echoes, and what cannot be delivered.

use std::net::Ipv4Addr;

use super::ipv4::Ipv4;
use super::{ICMP, checksum, put_u16};

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO: u8 = 8;
/// How much of the packet that could not be delivered is shown: its longest header and eight bytes.
const SHOWN: usize = 68;

/// Why a packet cannot be delivered: the codes of "destination unreachable".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Unreachable {
    /// No way to its network.
    Network = 0,
    /// Its host does not answer.
    Host = 1,
    /// Its host does not speak that protocol.
    Protocol = 2,
    /// Nobody listens at its port.
    Port = 3,
}

/// The answer to an echo request, if `packet` is one.
pub(crate) fn echo_reply(packet: &Ipv4<'_>) -> Option<Vec<u8>> {
    let is_echo = packet.protocol == ICMP && !packet.fragment && packet.payload.len() >= 8;
    if !is_echo || packet.payload.first() != Some(&ECHO) || checksum(&[packet.payload]) != 0 {
        return None;
    }
    let mut message = packet.payload.to_vec();
    *message.first_mut()? = ECHO_REPLY;
    finish(message, packet.destination, packet.source)
}

/// What tells the sender of `packet` that it cannot be delivered, from `teller`. Nothing for what must not be answered so
/// (RFC 1122, section 3.2.2): errors, later fragments, and what is from nobody.
pub(crate) fn unreachable(packet: &Ipv4<'_>, why: Unreachable, teller: Ipv4Addr) -> Option<Vec<u8>> {
    let is_error =
        packet.protocol == ICMP && packet.payload.first().is_none_or(|kind| ![ECHO, ECHO_REPLY].contains(kind));
    if is_error || packet.fragment || packet.source.is_unspecified() {
        return None;
    }
    let mut message = vec![UNREACHABLE, why as u8, 0, 0, 0, 0, 0, 0];
    message.extend(packet.whole.get(..SHOWN).unwrap_or(packet.whole));
    finish(message, teller, packet.source)
}

fn finish(mut message: Vec<u8>, source: Ipv4Addr, destination: Ipv4Addr) -> Option<Vec<u8>> {
    put_u16(&mut message, 2, 0);
    let sum = checksum(&[&message]);
    put_u16(&mut message, 2, sum);
    Ipv4 { source, destination, protocol: ICMP, ttl: 64, fragment: false, payload: &message, whole: &[] }.build()
}
