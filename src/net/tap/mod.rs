//! A tap of the host: an interface whose other end is the guest's card. Frames go straight between it and guest memory.
//!
//! One line makes a tap for a user (as root): `ip tuntap add dev NAME mode tap user USER vnet_hdr multi_queue && ip link set NAME
//! master BRIDGE up`. Who may configure networks needs none, but a bridge ([`super::bridge`]).
//!
//! With [`Services`], frames for the metadata service are taken out before the tap ([`filter`]). Which addresses the guest may use
//! towards the tap is not looked at: that is for the filters of whoever made it.

mod error;
mod filter;
mod port;
pub(super) mod sys;

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

pub use self::error::TapError;
use self::filter::Filter;
pub use self::filter::{Lease, Services};
use self::port::{TapReceiver, TapSender};
pub(crate) use self::sys::is_name;
use super::address::{METADATA, mac_of};
use super::counters::NetCounters;
use super::services::attend::{Attendant, Desk};
use super::services::{Config, Engine};
use super::{Link, Offloads, Port, QUEUE_PAIRS_MAX};

/// A tap as a link.
pub struct TapLink {
    name: String,
    queues: Vec<Queue>,
    /// Which of the queues are in use; only of interest where there are several.
    used: Mutex<Vec<bool>>,
    several: bool,
    filter: Option<Arc<Filter>>,
    counters: Arc<NetCounters>,
    _attendant: Option<Attendant>,
}

#[derive(Clone)]
struct Queue(Arc<File>);

impl TapLink {
    /// Opens the tap of that name, which must be there, with as many pairs of queues as it has, but no more than `pairs` (at least
    /// 1, at most [`QUEUE_PAIRS_MAX`]). A tap that was made without `multi_queue` has one.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn open(name: &str, pairs: u16) -> Result<Self, TapError> {
        if !sys::is_name(name) {
            return Err(TapError::Name(name.into()));
        }
        let host = |what, cause| TapError::Host { name: name.into(), what, cause };
        let control = sys::control().map_err(|cause| host("no socket", cause))?;
        if sys::index_of(&control, name).is_err() {
            return Err(TapError::Missing { name: name.into(), several: several(pairs) });
        }
        let tap = Self::attach(name, pairs)?;
        if !sys::set_up(&control, name).map_err(|cause| host("its state cannot be read", cause))? {
            return Err(TapError::Down { name: name.into() });
        }
        Ok(tap)
    }

    /// Takes the queues of a tap, which is made where it is not there and this user may.
    pub(super) fn attach(name: &str, pairs: u16) -> Result<Self, TapError> {
        let pairs = pairs.clamp(1, QUEUE_PAIRS_MAX);
        let (first, name, has_several) = attach_first(name, pairs)?;
        let mut queues = vec![first];
        while has_several && queues.len() < usize::from(pairs) {
            let queue = open_device(&name)?;
            sys::attach(&queue, &name, true).map_err(|cause| refused(&name, pairs, cause))?;
            queues.push(queue);
        }
        for queue in &queues {
            let host = |cause| TapError::Host { name: name.clone(), what: "its header cannot be set", cause };
            sys::set_header_size(queue).map_err(host)?;
        }
        let used = Mutex::new(vec![true; queues.len()]);
        let queues = queues.into_iter().map(|queue| Queue(Arc::new(queue))).collect();
        let (filter, _attendant) = (None, None);
        Ok(Self { name, queues, used, several: has_several, filter, counters: Arc::default(), _attendant })
    }

    /// The same with services in front.
    ///
    /// # Errors
    /// What the host said.
    pub fn with_services(mut self, services: Services) -> io::Result<Self> {
        let desk = Desk::new()?;
        let filter = Arc::new(Filter::new(&services, desk.clone())?);
        filter.watch(&self.first()?.0)?;
        let config = Config {
            guest: services.mac,
            mac: mac_of(METADATA),
            // Only what the filter lets through comes here: of the gateway, DHCP.
            addresses: vec![METADATA],
            network: None,
            dhcp: services.dhcp,
            metadata: Some(services.metadata),
            ipv6: services.ipv6,
            mtu: services.mtu,
        };
        let engine = Engine::new(config, self.counters.clone(), Instant::now());
        self._attendant = Some(Attendant::start(engine, Vec::new(), desk)?);
        self.filter = Some(filter);
        Ok(self)
    }

    /// The tap's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the link has done.
    #[must_use]
    pub fn counters(&self) -> Arc<NetCounters> {
        self.counters.clone()
    }

    fn first(&self) -> io::Result<&Queue> {
        self.queues.first().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// What a command that makes a tap needs for that many pairs.
fn several(pairs: u16) -> &'static str {
    if pairs > 1 { " multi_queue" } else { "" }
}

fn open_device(name: &str) -> Result<File, TapError> {
    sys::open_device().map_err(|cause| match cause.raw_os_error() {
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => TapError::NoTaps,
        Some(libc::EACCES | libc::EPERM) => TapError::NotForUser,
        _ => TapError::Host { name: name.into(), what: "/dev/net/tun cannot be opened", cause },
    })
}

/// Takes the first queue, and tells whether there may be several.
fn attach_first(name: &str, pairs: u16) -> Result<(File, String, bool), TapError> {
    let wanted = pairs > 1;
    for has_several in [wanted, !wanted] {
        let queue = open_device(name)?;
        match sys::attach(&queue, name, has_several) {
            Ok(name) => return Ok((queue, name, has_several)),
            // It was made the other way.
            Err(cause) if cause.raw_os_error() == Some(libc::EINVAL) => {}
            Err(cause) => return Err(refused(name, pairs, cause)),
        }
    }
    Err(TapError::NoTap { name: name.into() })
}

fn refused(name: &str, pairs: u16, cause: io::Error) -> TapError {
    let name = name.to_owned();
    match cause.raw_os_error() {
        Some(libc::EBUSY) => TapError::Busy { name },
        Some(libc::EPERM) => TapError::Owner { name, several: several(pairs) },
        _ => TapError::Host { name, what: "it cannot be opened", cause },
    }
}

impl Link for TapLink {
    fn queue_pairs(&self) -> u16 {
        u16::try_from(self.queues.len()).unwrap_or(QUEUE_PAIRS_MAX)
    }

    fn takes(&self) -> Offloads {
        Offloads { checksum: true, tso4: true, tso6: true, ecn: true }
    }

    fn gives(&self) -> Offloads {
        self.takes()
    }

    fn agree(&self, offloads: Offloads) -> io::Result<()> {
        sys::set_offloads(&self.first()?.0, offloads)
    }

    fn open(&self, pairs: u16) -> io::Result<Vec<Port>> {
        if pairs == 0 || pairs > self.queue_pairs() {
            let told = format!("{} has {} pairs of queues, not {pairs}", self.name, self.queues.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, told));
        }
        if self.several {
            let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            for (number, (queue, is_used)) in self.queues.iter().zip(used.iter_mut()).enumerate() {
                let wanted = number < usize::from(pairs);
                if *is_used != wanted {
                    sys::use_queue(&queue.0, wanted)?;
                    *is_used = wanted;
                }
            }
        }
        if let Some(filter) = &self.filter {
            filter.desk.begin_anew();
        }
        let ports = self.queues.iter().take(usize::from(pairs)).enumerate().map(|(number, queue)| {
            let (queue, filter, counters) = (queue.0.clone(), self.filter.clone(), self.counters.clone());
            Port {
                sender: Box::new(TapSender::new(queue.clone(), filter.clone(), counters.clone())),
                // What the services answer comes by the first.
                receiver: Box::new(TapReceiver::new(queue, filter, number == 0, counters)),
            }
        });
        Ok(ports.collect())
    }

    fn dial(&self, port: u16, stream: UnixStream) -> io::Result<()> {
        match &self.filter {
            Some(filter) => filter.desk.dial(port, stream),
            None => Err(io::Error::new(io::ErrorKind::Unsupported, "nothing is served in front of this tap")),
        }
    }
}

#[cfg(test)]
mod tests;
