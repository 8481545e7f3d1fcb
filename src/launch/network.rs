//! The network of a machine: what a person asks for, what it is told, and the link made of that.

use std::fmt::{self, Display};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::imds::{Document, Service};
use crate::net::cidr::Cidr;
use crate::net::tap::{Lease, Services, TapError, TapLink, is_name};
use crate::net::user::{Forward, Neighbours, NoForward, Notice, Outside, UserConfig, UserError, UserLink};
use crate::net::{Link, Mac, StreamService, bridge};
use crate::vmm::virtio::net::NetworkConfig as Card;

/// The longest IP packet of a guest, in bytes: EC2's, within a VPC.
const MTU: u16 = 9001;
/// The same of a guest at a tap of the host, whose other ports have that.
const HOST_MTU: u16 = 1500;

/// What is at the other end of a machine's network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackEnd {
    /// The outside world by way of the host, without privileges.
    User,
    /// Neighbours and the metadata service, and nothing outside.
    Isolated,
    /// A tap of the host that is there already.
    Tap(String),
    /// A bridge of the host.
    Bridge(String),
    /// The machine has no card.
    None,
}

/// It is no back end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network: user, isolated, tap=NAME, bridge=NAME or none")]
pub struct NoBackEnd(pub String);

impl FromStr for BackEnd {
    type Err = NoBackEnd;

    fn from_str(text: &str) -> Result<Self, NoBackEnd> {
        match text.split_once('=') {
            Some(("tap", name)) if is_name(name) => Ok(Self::Tap(name.into())),
            Some(("bridge", name)) if is_name(name) => Ok(Self::Bridge(name.into())),
            None if text == "user" => Ok(Self::User),
            None if text == "isolated" => Ok(Self::Isolated),
            None if text == "none" => Ok(Self::None),
            _ => Err(NoBackEnd(text.into())),
        }
    }
}

impl Display for BackEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("user"),
            Self::Isolated => f.write_str("isolated"),
            Self::Tap(name) => write!(f, "tap={name}"),
            Self::Bridge(name) => write!(f, "bridge={name}"),
            Self::None => f.write_str("none"),
        }
    }
}

impl Serialize for BackEnd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BackEnd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A machine's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// What is at the other end of the card.
    pub back_end: BackEnd,
    /// Whether a host without a way outside for [`BackEnd::User`] will do: the machine is isolated then.
    #[serde(default)]
    pub outside_is_optional: bool,
    /// The card's address.
    #[serde(with = "mac")]
    pub mac: Mac,
    /// The machine's private address.
    pub address: Ipv4Addr,
    /// The subnet, whose second address is the gateway.
    pub subnet: Cidr,
    /// The VPC, whose third address is the resolver.
    pub vpc: Cidr,
    /// The machine's name with its domain, as in `ip-172-31-5-6.ec2.internal`.
    pub host_name: String,
    /// How many pairs of queues a card at a tap has at the most.
    #[serde(default = "one")]
    pub queue_pairs: u16,
    /// Ports of the host that lead to ports of the guest, as in `8080:80` or `127.0.0.1:5353:53/udp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<String>,
    /// The directory in which machines of the subnet find each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbours: Option<PathBuf>,
    /// What the machine is told of itself; without it there is no metadata service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Document>,
}

fn one() -> u16 {
    1
}

/// Why a machine has no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The metadata service.
    #[error("the metadata service: {0}")]
    Metadata(std::io::Error),
    /// The default link.
    #[error(transparent)]
    User(#[from] UserError),
    /// A tap, or a bridge.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// What is served in front of a tap.
    #[error("the services of the tap: {0}")]
    Services(std::io::Error),
    /// A forwarding of a port.
    #[error(transparent)]
    Forward(#[from] NoForward),
    /// Ports are forwarded by the default link only.
    #[error("ports of the host lead to the guest only with --net user, not with --net {0}")]
    NoForwards(BackEnd),
}

/// A network that is being made.
pub struct Opening(JoinHandle<Result<Network, NetworkError>>);

impl Opening {
    /// Waits until it is made.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn wait(self) -> Result<Network, NetworkError> {
        let panicked =
            |_| Err(NetworkError::Services(std::io::Error::other("the thread that makes the network panicked")));
        self.0.join().unwrap_or_else(panicked)
    }
}

/// A machine's network, ready for its card.
pub struct Network {
    card: Card,
    service: Option<Arc<Service>>,
    forwards: Vec<Forward>,
}

impl Network {
    /// Makes the link. Where there is no program for the world outside, and that is optional, `notice` is told.
    ///
    /// # Errors
    /// [`NetworkError`]; nothing of it is left then.
    pub fn open(config: &NetworkConfig, notice: &Notice) -> Result<Self, NetworkError> {
        let service = config.metadata.as_ref().map(Service::new).transpose().map_err(NetworkError::Metadata)?;
        let forwards: Vec<Forward> = config.forwards.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        if config.back_end != BackEnd::User && !forwards.is_empty() {
            return Err(NetworkError::NoForwards(config.back_end.clone()));
        }
        let host = |tap: TapLink| -> Result<(Arc<dyn Link>, u16), NetworkError> {
            Ok((Arc::new(in_front_of(tap, config, &service)?), HOST_MTU))
        };
        let (link, mtu): (Arc<dyn Link>, u16) = match &config.back_end {
            BackEnd::Tap(name) => host(TapLink::open(name, config.queue_pairs)?)?,
            BackEnd::Bridge(name) => host(bridge::open(name, config.queue_pairs)?)?,
            BackEnd::Isolated | BackEnd::None => (open_user(config, None, &service, notice)?, MTU),
            BackEnd::User => {
                let link = open_outside(config, forwards, &service, notice)?;
                let taken = link.forwards().to_vec();
                return Ok(Self { card: Card { mac: config.mac, link, mtu: MTU }, service, forwards: taken });
            }
        };
        Ok(Self { card: Card { mac: config.mac, link, mtu }, service, forwards: Vec::new() })
    }

    /// The same in a thread of its own, since the way outside takes a while: what else a machine needs is got meanwhile.
    ///
    /// # Errors
    /// Where the host has no thread.
    pub fn begin(config: NetworkConfig, notice: Notice) -> std::io::Result<Opening> {
        let open = move || Self::open(&config, &notice);
        Ok(Opening(thread::Builder::new().name("network".into()).spawn(open)?))
    }

    /// What the machine's card is made of.
    #[must_use]
    pub fn card(&self) -> Card {
        self.card.clone()
    }

    /// The ports of the host that lead to the guest, as they were taken.
    #[must_use]
    pub fn forwards(&self) -> &[Forward] {
        &self.forwards
    }

    /// Connects `stream` to a TCP port of the guest.
    ///
    /// # Errors
    /// Where the network has no way for that.
    pub fn dial(&self, port: u16, stream: UnixStream) -> std::io::Result<()> {
        self.card.link.dial(port, stream)
    }

    /// The guest is told this of itself from now on; nothing where it has no metadata service.
    pub fn tell(&self, document: &Document) {
        if let Some(service) = &self.service {
            service.reconfigure(document);
        }
    }
}

/// The metadata service, and DHCP, in front of a tap.
fn in_front_of(tap: TapLink, config: &NetworkConfig, service: &Option<Arc<Service>>) -> Result<TapLink, NetworkError> {
    let Some(service) = service.clone() else { return Ok(tap) };
    let gateway = config.subnet.address(1).unwrap_or(config.address);
    let lease = Lease {
        address: config.address,
        network: config.subnet,
        gateway,
        // Whoever made the tap has it answer there, or gives the guest another resolver.
        resolvers: vec![gateway],
        host_name: config.host_name.clone(),
        domain: domain(config).to_owned(),
        mtu: HOST_MTU,
    };
    let ipv6 = is_ipv6(config);
    let services = Services { mac: config.mac, metadata: service, ipv6, dhcp: Some(lease), mtu: HOST_MTU };
    tap.with_services(services).map_err(NetworkError::Services)
}

/// The default link. Where there is no program for the world outside, and that is optional, it has none.
fn open_outside(
    config: &NetworkConfig,
    forwards: Vec<Forward>,
    service: &Option<Arc<Service>>,
    notice: &Notice,
) -> Result<Arc<UserLink>, NetworkError> {
    let outside = Some(Outside { forwards, ..Outside::default() });
    match open_user(config, outside, service, notice) {
        // The program is not there, or the host has no way outside itself: what is on the host works all the same.
        Err(NetworkError::User(UserError::Outside(error))) if config.outside_is_optional => {
            notice(&format!("{error}; the guest has no way outside now"));
            open_user(config, None, service, notice)
        }
        opened => opened,
    }
}

fn domain(config: &NetworkConfig) -> &str {
    config.host_name.split_once('.').map_or("", |(_, domain)| domain)
}

fn is_ipv6(config: &NetworkConfig) -> bool {
    config.metadata.as_ref().is_some_and(|document| document.options.ipv6)
}

fn open_user(
    config: &NetworkConfig,
    outside: Option<Outside>,
    service: &Option<Arc<Service>>,
    notice: &Notice,
) -> Result<Arc<UserLink>, NetworkError> {
    let neighbours = config.neighbours.clone();
    let neighbours = neighbours.map(|directory| Neighbours { directory, network: config.vpc });
    Ok(UserLink::start(UserConfig {
        mac: config.mac,
        address: config.address,
        subnet: config.subnet,
        resolver: config.vpc.address(2).unwrap_or(config.address),
        link_local_resolver: true,
        host_name: config.host_name.clone(),
        domain: domain(config).to_owned(),
        mtu: MTU,
        outside,
        neighbours,
        imds: service.clone().map(|service| service as Arc<dyn StreamService>),
        imds_ipv6: is_ipv6(config),
        notice: notice.clone(),
    })?)
}

mod mac {
    use super::{Deserialize, Deserializer, Mac, Serializer};

    // The form is serde's.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub fn serialize<S: Serializer>(mac: &Mac, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(mac)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mac, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_ends_are_read_as_they_are_written() {
        for text in ["user", "isolated", "tap=tap0", "bridge=br0", "none"] {
            assert_eq!(text.parse::<BackEnd>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "tap",
            "tap=",
            "tap=a/b",
            "bridge=0123456789abcdef",
            "user=x",
            "nat",
            "tap=a b",
            "tap=a%d",
            "bridge=..",
        ] {
            assert_eq!(text.parse::<BackEnd>(), Err(NoBackEnd(text.into())));
        }
    }
}
