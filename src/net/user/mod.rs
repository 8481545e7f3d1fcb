//! The default link, which needs no privileges: amiboot's own small services, the world outside by [`passt`], and the other
//! instances of the host by [`neighbours`].
//!
//! What the guest sends is sorted in the card's own thread ([`rule`]): to the services, which run in a thread of theirs, to
//! `passt` or to a neighbour. What it is given waits in three places, and one descriptor tells of all of them.

mod forward;
mod neighbours;
mod passt;
mod port;
mod resolver;
mod rule;
mod udp_forward;

use std::io;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

pub use self::forward::{Forward, ForwardError, NoForward};
use self::neighbours::{Acquaintance, Place};
pub use self::neighbours::{Neighbours, NeighboursError};
pub use self::passt::{Outside, OutsideError};
use self::port::{Incoming, UserReceiver, UserSender};
use self::resolver::Resolver;
use self::rule::Rule;
use self::udp_forward::{Ends, UdpForwards};
use super::address::{METADATA, RESOLVER, mac_of};
use super::cidr::Cidr;
use super::counters::NetCounters;
use super::services::attend::{Attendant, Desk};
use super::services::{Companion, Config, Engine, dhcp::Lease};
use super::{Link, Mac, Offloads, Port, StreamService};

/// Told what the person who runs the guest should know, once each.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

/// The least length of IP packets that a link carries, in bytes (RFC 791).
const MTU_MIN: u16 = 576;
/// The most (EC2's).
const MTU_MAX: u16 = 9001;

/// What a link is to be.
#[derive(Clone)]
pub struct UserConfig {
    /// The guest's card.
    pub mac: Mac,
    /// The guest's address.
    pub address: Ipv4Addr,
    /// Its subnet, whose first address after its own is the gateway's.
    pub subnet: Cidr,
    /// Where the guest asks its resolver: in EC2 the second address of the VPC.
    pub resolver: Ipv4Addr,
    /// Whether the resolver also answers at [`RESOLVER`].
    pub link_local_resolver: bool,
    /// The name that the guest is told it has.
    pub host_name: String,
    /// The domain that the guest is told it is in.
    pub domain: String,
    /// The longest IP packet, in bytes, 576 to 9001.
    pub mtu: u16,
    /// The world outside; nothing for a guest that is isolated.
    pub outside: Option<Outside>,
    /// Where other instances of the host are met.
    pub neighbours: Option<Neighbours>,
    /// The metadata service.
    pub imds: Option<Arc<dyn StreamService>>,
    /// Whether it answers over IPv6 as well; without that the link carries no IPv6.
    pub imds_ipv6: bool,
    /// Who is told of what happens to the link.
    pub notice: Notice,
}

/// Why a link cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The guest's address is no host's of its subnet.
    #[error("{0} is no address for a guest in its subnet")]
    Address(Ipv4Addr),
    /// Packets of that length are none.
    #[error("the longest packet has {MTU_MIN} to {MTU_MAX} bytes, not {0}")]
    Mtu(u16),
    /// There is no way outside.
    #[error(transparent)]
    Outside(#[from] OutsideError),
    /// The instance cannot take its place among the others.
    #[error(transparent)]
    Neighbours(#[from] NeighboursError),
    /// The host refuses.
    #[error("the guest's network: {0}")]
    Host(#[from] io::Error),
}

/// The default link.
pub struct UserLink {
    /// The services, which end with the link.
    _attendant: Attendant,
    shared: Arc<Shared>,
    forwards: Vec<Forward>,
}

/// What the link and its ports share.
struct Shared {
    rule: Rule,
    desk: Arc<Desk>,
    outside: Option<Arc<passt::Stream>>,
    place: Option<Arc<Place>>,
    counters: Arc<NetCounters>,
    incoming: Incoming,
}

impl UserLink {
    /// Makes the link, starts its services and, where wanted, the way outside.
    ///
    /// # Errors
    /// [`UserError`]; nothing of it is left then.
    pub fn start(config: UserConfig) -> Result<Arc<Self>, UserError> {
        let UserConfig { mac, address, subnet, mtu, .. } = config;
        let gateway = Ipv4Addr::from_bits(subnet.first().to_bits().saturating_add(1));
        if !subnet.has_host(address) || address == gateway || address == config.resolver {
            return Err(UserError::Address(address));
        }
        if !(MTU_MIN..=MTU_MAX).contains(&mtu) {
            return Err(UserError::Mtu(mtu));
        }
        let gateway_mac = mac_of(gateway);
        let mut own = vec![gateway, METADATA];
        let mut resolvers = vec![config.resolver];
        resolvers.extend(config.link_local_resolver.then_some(RESOLVER));
        own.extend(resolvers.iter().filter(|resolver| **resolver != gateway));
        let desk = Desk::new()?;
        let counters = Arc::new(NetCounters::default());
        let mut companions: Vec<Box<dyn Companion>> = Vec::new();
        let (mut outside, mut reader, mut forwards) = (None, None, Vec::new());
        if let Some(wanted) = &config.outside {
            let ends = Ends { guest_mac: mac, guest: address, gateway_mac, gateway, mtu };
            let udp = UdpForwards::bind(ends, &wanted.forwards).map_err(OutsideError::from)?;
            let guest = passt::Guest { mac, address, subnet, gateway, gateway_mac, mtu };
            let started = passt::start(wanted, &guest, desk.clone(), config.notice.clone())?;
            forwards = [started.forwards, udp.forwards()].concat();
            (outside, reader) = (Some(started.stream), Some(started.reader));
            companions.push(Box::new(Resolver::new(ends, resolvers.clone(), Box::new(resolver::of_host))));
            companions.push(Box::new(udp));
            companions.push(Box::new(started.keeper));
        }
        let place = match &config.neighbours {
            Some(neighbours) => Some(Arc::new(Place::take(neighbours, address, mac)?)),
            None => None,
        };
        if let Some(place) = &place {
            companions.push(Box::new(Acquaintance { place: place.clone(), subnet }));
        }
        let network = config.neighbours.as_ref().map_or(subnet, |neighbours| neighbours.network);
        let rule = Rule {
            mac,
            address,
            network,
            subnet,
            gateway,
            gateway_mac,
            own: own.clone(),
            has_neighbours: place.is_some(),
            has_forwards: forwards.iter().any(|forward| !forward.udp),
            ipv6: config.imds_ipv6,
        };
        let lease = Lease {
            address,
            network: subnet,
            gateway,
            resolvers: vec![config.resolver],
            host_name: config.host_name,
            domain: config.domain,
            mtu,
        };
        let engine = Config {
            guest: mac,
            mac: gateway_mac,
            addresses: own,
            network: Some(network),
            dhcp: Some(lease),
            metadata: config.imds,
            ipv6: config.imds_ipv6,
            mtu,
        };
        let engine = Engine::new(engine, counters.clone(), Instant::now());
        let incoming = Incoming::new(&desk, outside.clone().zip(reader), place.as_ref())?;
        let attendant = Attendant::start(engine, companions, desk.clone())?;
        let shared = Arc::new(Shared { rule, desk, outside, place, counters, incoming });
        Ok(Arc::new(Self { _attendant: attendant, shared, forwards }))
    }

    /// The ports that lead to the guest, as they were taken: none is 0.
    #[must_use]
    pub fn forwards(&self) -> &[Forward] {
        &self.forwards
    }

    /// What the link has done.
    #[must_use]
    pub fn counters(&self) -> Arc<NetCounters> {
        self.shared.counters.clone()
    }
}

impl Link for UserLink {
    fn queue_pairs(&self) -> u16 {
        1
    }

    fn takes(&self) -> Offloads {
        Offloads::default()
    }

    fn gives(&self) -> Offloads {
        Offloads::default()
    }

    fn agree(&self, _offloads: Offloads) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, pairs: u16) -> io::Result<Vec<Port>> {
        if pairs != 1 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this link has one pair of queues"));
        }
        self.shared.desk.begin_anew();
        Ok(vec![Port {
            sender: Box::new(UserSender::new(self.shared.clone())),
            receiver: Box::new(UserReceiver::new(self.shared.clone())),
        }])
    }

    fn dial(&self, port: u16, stream: UnixStream) -> io::Result<()> {
        self.shared.desk.dial(port, stream)
    }
}

#[cfg(test)]
mod tests;
