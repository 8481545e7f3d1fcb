//! Instances of one host that reach each other by their private addresses, without privileges.
//!
//! Each has a datagram socket in a directory that all of a network share, named by its address; whoever can write to that
//! directory is of the network. A frame for an address goes to its socket. There it is taken only if it is whole IPv4, for the
//! instance's own address, from another host's of the network, and from the Ethernet address that belongs to that
//! ([`mac_of`]); never from or to a link-local address. So nobody reaches another's metadata, nor answers in its place.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::event::PollFd;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use crate::net::Mac;
use crate::net::address::mac_of;
use crate::net::cidr::Cidr;
use crate::net::queue::FrameQueue;
use crate::net::services::Companion;
use crate::net::wire::ipv4::Ipv4;
use crate::net::wire::{ETHERNET_HEADER, Ethernet, IPV4};

/// Where the instances of a network meet.
#[derive(Debug, Clone)]
pub struct Neighbours {
    /// The directory of their sockets, one for each network; made where it is not there, for its owner only.
    pub directory: PathBuf,
    /// The addresses they may have: the subnet, or all of the VPC.
    pub network: Cidr,
}

/// Why an instance cannot take its place.
#[derive(Debug, thiserror::Error)]
pub enum NeighboursError {
    /// Another has that address.
    #[error("{}: another instance has the address {address} now", directory.display())]
    Taken {
        /// Where they meet.
        directory: PathBuf,
        /// The address.
        address: Ipv4Addr,
    },
    /// Others would take none of its frames.
    #[error("among neighbours the card of {address} must have the address {wanted}, not {mac}")]
    Mac {
        /// The instance's address.
        address: Ipv4Addr,
        /// The card that it has.
        mac: Mac,
        /// The card that it must have.
        wanted: Mac,
    },
    /// The host refuses.
    #[error("{}: {cause}", directory.display())]
    Host {
        /// Where they meet.
        directory: PathBuf,
        /// What it said.
        cause: io::Error,
    },
}

/// An instance's place among its neighbours; given up when this goes.
#[derive(Debug)]
pub(super) struct Place {
    directory: OwnedFd,
    network: Cidr,
    address: Ipv4Addr,
    mac: Mac,
    socket: UnixDatagram,
}

impl Place {
    /// Takes the place of the instance with that address and card.
    ///
    /// # Errors
    /// [`NeighboursError`].
    pub(super) fn take(neighbours: &Neighbours, address: Ipv4Addr, mac: Mac) -> Result<Self, NeighboursError> {
        let Neighbours { directory: path, network } = neighbours;
        let host = |cause: io::Error| NeighboursError::Host { directory: path.clone(), cause };
        if mac != mac_of(address) {
            return Err(NeighboursError::Mac { address, mac, wanted: mac_of(address) });
        }
        make_directory(path).map_err(host)?;
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|error| host(error.into()))?;
        let socket = match UnixDatagram::bind(path_in(&directory, address)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if lives(&directory, address) {
                    return Err(NeighboursError::Taken { directory: path.clone(), address });
                }
                // Its owner was killed.
                rustix::fs::unlinkat(&directory, address.to_string(), AtFlags::empty())
                    .map_err(|error| host(error.into()))?;
                UnixDatagram::bind(path_in(&directory, address))
            }
            socket => socket,
        };
        let socket = socket.map_err(host)?;
        let place = Self { directory, network: *network, address, mac, socket };
        place.socket.set_nonblocking(true).map_err(host)?;
        Ok(place)
    }

    /// Gives a frame of this instance to the one with that address. Tells whether there is such a one; where it is too busy,
    /// the frame is lost.
    pub(super) fn send(&self, to: Ipv4Addr, frame: &mut [u8]) -> bool {
        if let Some(destination) = frame.first_chunk_mut() {
            *destination = mac_of(to).0;
        }
        match self.socket.send_to(frame, path_in(&self.directory, to)) {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused),
        }
    }

    /// The next frame that another has sent, right or not: its bytes, which begin the buffer.
    ///
    /// # Errors
    /// `WouldBlock` where none waits; else what the host said.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.recv(buffer)
    }

    /// Whether a frame that came is one that the instance may get.
    pub(super) fn may_come_in(&self, frame: &[u8]) -> bool {
        let Some(ethernet) = Ethernet::parse(frame).filter(|ethernet| ethernet.kind == IPV4) else { return false };
        let Some(packet) = Ipv4::parse(ethernet.payload) else { return false };
        ethernet.destination == self.mac
            && packet.destination == self.address
            && packet.source != self.address
            && self.network.has_host(packet.source)
            && !packet.source.is_link_local()
            && ethernet.source == mac_of(packet.source)
    }

    /// Whether there is an instance with that address.
    fn has(&self, address: Ipv4Addr) -> bool {
        address != self.address && self.network.has_host(address) && lives(&self.directory, address)
    }
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Where it cannot be removed, the next one finds that nobody listens there.
        let _ = rustix::fs::unlinkat(&self.directory, self.address.to_string(), AtFlags::empty());
    }
}

/// Tells the engine of the others.
pub(super) struct Acquaintance {
    /// The instance's place.
    pub place: std::sync::Arc<Place>,
    /// The instance's subnet: beyond it ARP asks for nobody.
    pub subnet: Cidr,
}

impl Companion for Acquaintance {
    fn wait_for<'a>(&'a self, _fds: &mut Vec<PollFd<'a>>) {}

    fn attend(&mut self, _now: Instant, _to_guest: &FrameQueue) {}

    fn mac_at(&self, address: Ipv4Addr) -> Option<Mac> {
        (self.subnet.contains(address) && self.place.has(address)).then(|| mac_of(address))
    }
}

/// A path to the socket of that address which is never too long for one (unix(7): 108 bytes).
fn path_in(directory: &OwnedFd, address: Ipv4Addr) -> PathBuf {
    format!("/proc/self/fd/{}/{address}", directory.as_raw_fd()).into()
}

/// Whether someone listens at the socket of that address.
fn lives(directory: &OwnedFd, address: Ipv4Addr) -> bool {
    UnixDatagram::unbound().is_ok_and(|socket| socket.connect(path_in(directory, address)).is_ok())
}

fn make_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The bytes of the longest frame that is carried.
pub(super) const FRAME_MAX: usize = ETHERNET_HEADER + 9216;
