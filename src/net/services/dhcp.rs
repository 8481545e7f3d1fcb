//! A DHCP server for one guest (RFC 2131, RFC 2132): it is always given the same address, which nobody else has.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::net::Mac;
use crate::net::cidr::Cidr;
use crate::net::wire::bytes_at;
use crate::net::wire::udp::Udp;

/// The server's port.
pub(in crate::net) const SERVER_PORT: u16 = 67;
/// The client's port.
pub(in crate::net) const CLIENT_PORT: u16 = 68;

/// Bytes before the options, the magic number included.
const FIXED: usize = 240;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// The least length of a message that old clients take.
const LEAST: usize = 300;
/// How long a lease is, in seconds.
const LEASE: u32 = 3600;

const PAD: u8 = 0;
const MASK: u8 = 1;
const ROUTER: u8 = 3;
const RESOLVERS: u8 = 6;
const HOST_NAME: u8 = 12;
const DOMAIN_NAME: u8 = 15;
const MTU: u8 = 26;
const BROADCAST: u8 = 28;
const REQUESTED: u8 = 50;
const LEASE_TIME: u8 = 51;
const KIND: u8 = 53;
const SERVER: u8 = 54;
const RENEWAL: u8 = 58;
const REBINDING: u8 = 59;
const END: u8 = 255;

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
const INFORM: u8 = 8;

/// What the guest is told.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its subnet.
    pub network: Cidr,
    /// The server, as which the gateway answers, and the way out.
    pub gateway: Ipv4Addr,
    /// The resolvers, in their order.
    pub resolvers: Vec<Ipv4Addr>,
    /// Its name; too long ones (above 255 bytes) are left out.
    pub host_name: String,
    /// Its domain; likewise.
    pub domain: String,
    /// The longest IP packet of its link, in bytes.
    pub mtu: u16,
}

/// An answer to the client.
#[derive(Debug)]
pub(super) struct Answer {
    /// The IPv4 packet.
    pub packet: Vec<u8>,
    /// It goes to all of the link, for the client has no address yet and asked for that.
    pub to_all: bool,
}

/// What a client's message says that matters here.
#[derive(Debug)]
struct Message {
    transaction: [u8; 4],
    flags: [u8; 2],
    client: Ipv4Addr,
    kind: u8,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
}

impl Message {
    /// Reads a request of `guest` that came through no relay.
    fn parse(bytes: &[u8], guest: Mac) -> Option<Self> {
        let is_request = bytes_at(bytes, 0)? == [1, 1, 6] && bytes_at(bytes, 236)? == MAGIC;
        if !is_request || bytes_at(bytes, 28)? != guest.0 || bytes_at(bytes, 24)? != [0; 4] {
            return None;
        }
        let mut message = Self {
            transaction: bytes_at(bytes, 4)?,
            flags: bytes_at(bytes, 10)?,
            client: bytes_at::<4>(bytes, 12)?.into(),
            kind: 0,
            requested: None,
            server: None,
        };
        let mut options = bytes.get(FIXED..)?;
        loop {
            match options {
                [END, ..] => break,
                [PAD, rest @ ..] => options = rest,
                [code, len, rest @ ..] => {
                    let (value, rest) = rest.split_at_checked(usize::from(*len))?;
                    let address = || value.try_into().ok().map(|octets: [u8; 4]| Ipv4Addr::from(octets));
                    match *code {
                        KIND => message.kind = <[u8; 1]>::try_from(value).ok()?[0],
                        REQUESTED => message.requested = Some(address()?),
                        SERVER => message.server = Some(address()?),
                        _ => {}
                    }
                    options = rest;
                }
                // Ended without saying so, or in the middle of an option.
                _ => return None,
            }
        }
        Some(message)
    }
}

/// What the server says to a datagram of `guest` to its port; nothing where it is no message to it, or needs no answer.
pub(super) fn answer(lease: &Lease, guest: Mac, datagram: &Udp<'_>) -> Option<Answer> {
    if datagram.source.port() != CLIENT_PORT {
        return None;
    }
    let message = Message::parse(datagram.payload, guest)?;
    let kind = match message.kind {
        DISCOVER => OFFER,
        INFORM => ACK,
        REQUEST => {
            if message.server.is_some_and(|server| server != lease.gateway) {
                return None;
            }
            // Selecting and after a boot it says which it wants; renewing it has it already (section 4.3.2).
            if message.requested.unwrap_or(message.client) == lease.address { ACK } else { NAK }
        }
        // Release and decline need no answer: nobody else gets the address.
        _ => return None,
    };
    let bytes = write(lease, guest, &message, kind);
    let asks_all = message.flags[0] & 0x80 != 0;
    // Section 4.1.
    let (to, to_all) = match (kind, message.client) {
        (NAK, _) => (Ipv4Addr::BROADCAST, true),
        (_, client) if !client.is_unspecified() => (client, false),
        _ if asks_all => (Ipv4Addr::BROADCAST, true),
        _ => (lease.address, false),
    };
    let packet = Udp {
        source: SocketAddrV4::new(lease.gateway, SERVER_PORT),
        destination: SocketAddrV4::new(to, CLIENT_PORT),
        payload: &bytes,
    };
    packet.build().map(|packet| Answer { packet, to_all })
}

fn write(lease: &Lease, guest: Mac, message: &Message, kind: u8) -> Vec<u8> {
    let (gives, has_lease) = (kind != NAK, kind != NAK && message.kind != INFORM);
    let client = if gives { message.client } else { Ipv4Addr::UNSPECIFIED };
    let yours = if has_lease { lease.address } else { Ipv4Addr::UNSPECIFIED };
    let mut bytes = vec![2, 1, 6, 0];
    bytes.extend(message.transaction);
    bytes.extend([0, 0]);
    bytes.extend(message.flags);
    for address in [client, yours, Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED] {
        bytes.extend(address.octets());
    }
    bytes.extend(guest.0);
    bytes.resize(FIXED - MAGIC.len(), 0);
    bytes.extend(MAGIC);
    let mut option = |code: u8, value: &[u8]| {
        if let Some(len) = u8::try_from(value.len()).ok().filter(|len| *len > 0) {
            bytes.extend([code, len]);
            bytes.extend(value);
        }
    };
    option(KIND, &[kind]);
    option(SERVER, &lease.gateway.octets());
    if has_lease {
        option(LEASE_TIME, &LEASE.to_be_bytes());
        option(RENEWAL, &(LEASE / 2).to_be_bytes());
        option(REBINDING, &(LEASE / 8 * 7).to_be_bytes());
    }
    if gives {
        option(MASK, &lease.network.mask().octets());
        option(BROADCAST, &lease.network.broadcast().octets());
        option(ROUTER, &lease.gateway.octets());
        let resolvers: Vec<u8> = lease.resolvers.iter().flat_map(Ipv4Addr::octets).collect();
        option(RESOLVERS, &resolvers);
        option(HOST_NAME, lease.host_name.as_bytes());
        option(DOMAIN_NAME, lease.domain.as_bytes());
        option(MTU, &lease.mtu.to_be_bytes());
    }
    bytes.push(END);
    bytes.resize(bytes.len().max(LEAST), PAD);
    bytes
}

#[cfg(test)]
mod tests;
