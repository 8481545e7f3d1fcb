//! What is taken out of a tap's frames for the services, and what may not come from it.
//!
//! From the guest's own card go to the services: what is for the metadata service's addresses, who asks for those by ARP or
//! neighbour discovery, and DHCP where the services are to answer it. Who asks for IPv6 routers is told of the services'
//! prefix, and asks the tap as well. Of what comes from the tap nothing may seem to be from the metadata service: another machine
//! of the same bridge could answer in its place.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll;

use crate::net::address::{METADATA, METADATA_V6};
use crate::net::services::attend::Desk;
pub use crate::net::services::dhcp::Lease;
use crate::net::services::dhcp::{CLIENT_PORT, SERVER_PORT};
use crate::net::wire::{ARP, Ethernet, ICMPV6, IPV4, IPV6, UDP, bytes_at, u16_at};
use crate::net::{Mac, StreamService};

/// How much of a frame tells where it goes: Ethernet's header, the longest of IPv4, UDP's.
pub(super) const TOLD_BY: usize = 14 + 60 + 8;

/// What is served in front of a tap.
pub struct Services {
    /// The guest's card.
    pub mac: Mac,
    /// The metadata service.
    pub metadata: Arc<dyn StreamService>,
    /// Whether it answers over IPv6 as well.
    pub ipv6: bool,
    /// What the guest is told by DHCP; nothing where a server behind the tap is to tell it.
    pub dhcp: Option<Lease>,
    /// The longest IP packet, in bytes.
    pub mtu: u16,
}

/// Where a frame of the guest goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Tap,
    Services,
    Both,
}

/// Tells the frames apart.
pub(super) struct Filter {
    mac: Mac,
    ipv6: bool,
    /// Whom DHCP is served as.
    dhcp: Option<Ipv4Addr>,
    /// Where the services' frames go.
    pub desk: Arc<Desk>,
    /// Tells of frames of the tap and of the services.
    epoll: OwnedFd,
}

impl Filter {
    pub(super) fn new(services: &Services, desk: Arc<Desk>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &desk.to_guest, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        let dhcp = services.dhcp.as_ref().map(|lease| lease.gateway);
        Ok(Self { mac: services.mac, ipv6: services.ipv6, dhcp, desk, epoll })
    }

    /// Tells of the frames of this queue, too.
    pub(super) fn watch(&self, queue: &File) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, queue, epoll::EventData::new_u64(1), epoll::EventFlags::IN)?)
    }

    /// Where a frame of the guest goes that begins so.
    pub(super) fn way(&self, start: &[u8]) -> Way {
        let Some(frame) = Ethernet::parse(start).filter(|frame| frame.source == self.mac) else { return Way::Tap };
        let packet = frame.payload;
        let is_for_services = match frame.kind {
            ARP => bytes_at(packet, 24) == Some(METADATA.octets()),
            IPV4 => self.takes_ipv4(packet),
            IPV6 if self.ipv6 => match self.asks(packet) {
                Some((ROUTER_SOLICITATION, _)) => return Way::Both,
                Some((NEIGHBOUR_SOLICITATION, target)) if target == Some(METADATA_V6) => true,
                _ => bytes_at(packet, 24) == Some(METADATA_V6.octets()),
            },
            _ => false,
        };
        if is_for_services { Way::Services } else { Way::Tap }
    }

    fn takes_ipv4(&self, packet: &[u8]) -> bool {
        let Some(destination) = bytes_at::<4>(packet, 16).map(Ipv4Addr::from) else { return false };
        let header = usize::from(packet.first().copied().unwrap_or_default() & 0xf) * 4;
        let ports = (u16_at(packet, header), u16_at(packet, header.saturating_add(2)));
        let is_dhcp = packet.get(9) == Some(&UDP) && ports == (Some(CLIENT_PORT), Some(SERVER_PORT));
        let asks_us = self.dhcp.is_some_and(|gateway| destination == gateway || destination.is_broadcast());
        destination == METADATA || (is_dhcp && asks_us)
    }

    /// The kind of an ICMPv6 message, and the address that some are about.
    fn asks(&self, packet: &[u8]) -> Option<(u8, Option<Ipv6Addr>)> {
        let kind = *packet.get(40)?;
        (packet.get(6) == Some(&ICMPV6)).then(|| (kind, bytes_at::<16>(packet, 48).map(Ipv6Addr::from)))
    }

    /// Whether a frame that begins so may come from the tap.
    pub(super) fn may_come_in(&self, start: &[u8]) -> bool {
        let Some(frame) = Ethernet::parse(start) else { return false };
        let packet = frame.payload;
        match frame.kind {
            ARP => bytes_at(packet, 14) != Some(METADATA.octets()),
            IPV4 => bytes_at(packet, 12) != Some(METADATA.octets()),
            IPV6 => {
                let speaks_for = self.asks(packet).filter(|(kind, _)| *kind == NEIGHBOUR_ADVERTISEMENT);
                bytes_at(packet, 8) != Some(METADATA_V6.octets())
                    && speaks_for.is_none_or(|(_, target)| target != Some(METADATA_V6))
            }
            _ => true,
        }
    }
}

impl AsFd for Filter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

const ROUTER_SOLICITATION: u8 = 133;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
