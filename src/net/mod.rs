//! Where a network card's frames go to and come from.
//!
//! A [`Link`] is the cable: what is at its other end is a tap of the host, or amiboot's own small services with the outside
//! world behind them. The card (`vmm::virtio::net`) opens the link's ports when its driver starts, one for each pair of
//! queues, and moves frames between them and guest memory; it does not know what is behind the link, and the link does not
//! know guests.
//!
//! Every frame begins with a header of [`HEADER_SIZE`] bytes, `virtio_net_hdr` with its number of buffers (virtio 1.2, section
//! 5.1.6), which says what of checksums and segmentation is left to the receiver; [`Offloads`] says what may stand there.

pub mod address;
pub mod bridge;
pub mod cidr;
pub mod counters;
mod offload;
mod pieces;
mod queue;
mod services;
pub mod tap;
#[cfg(test)]
pub(crate) mod testing;
pub mod user;
mod wire;

use std::fmt::Display;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

use vm_memory::VolatileSlice;

/// Bytes of the header before each frame.
pub const HEADER_SIZE: usize = 12;
/// Bytes of the longest frame without segmentation offload: an Ethernet header with one tag, and 1500 bytes.
pub const FRAME_MAX: usize = 1518;
/// Bytes of the longest frame with segmentation offload, its header not counted: 64 KiB and the headers below IP.
pub const LARGE_FRAME_MAX: usize = 65_550;
/// The most pairs of queues that a link may have.
pub const QUEUE_PAIRS_MAX: u16 = 8;

/// What a frame may leave to its receiver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Checksums may be left out.
    pub checksum: bool,
    /// TCP over IPv4 may come in frames of up to [`LARGE_FRAME_MAX`] bytes.
    pub tso4: bool,
    /// The same over IPv6.
    pub tso6: bool,
    /// Such frames may carry congestion marks.
    pub ecn: bool,
}

/// The other end of a card.
pub trait Link: Send + Sync {
    /// How many pairs of queues it can serve at once, 1 to [`QUEUE_PAIRS_MAX`].
    fn queue_pairs(&self) -> u16;

    /// What frames towards the host may leave out.
    fn takes(&self) -> Offloads;

    /// What frames towards the guest could leave out, if the guest agrees.
    fn gives(&self) -> Offloads;

    /// The guest's driver has agreed that frames to it may leave this out; called before ports are opened.
    ///
    /// # Errors
    /// What the host said.
    fn agree(&self, offloads: Offloads) -> io::Result<()>;

    /// Opens the ports of that many pairs, 1 to [`Self::queue_pairs`]. Those opened before are closed by then.
    ///
    /// # Errors
    /// What the host said.
    fn open(&self, pairs: u16) -> io::Result<Vec<Port>>;

    /// Connects `stream` to a TCP port of the guest; it is closed where the guest does not take the connection, and when that
    /// ends.
    ///
    /// # Errors
    /// Where this link has nothing that could do that.
    fn dial(&self, port: u16, stream: UnixStream) -> io::Result<()> {
        let _ = (port, stream);
        Err(io::Error::new(io::ErrorKind::Unsupported, "this network has no way from the host to the guest"))
    }
}

/// Both directions of a pair of queues.
pub struct Port {
    /// Takes frames from the guest.
    pub sender: Box<dyn Sender>,
    /// Gives frames to the guest.
    pub receiver: Box<dyn Receiver>,
}

/// Takes frames from the guest.
pub trait Sender: Send {
    /// Takes one frame, its header first, out of pieces of guest memory. A frame that the link has no room for or cannot make
    /// sense of is dropped, as on a cable; that is no error.
    ///
    /// # Errors
    /// Where the host has failed for good.
    fn send(&mut self, frame: &[VolatileSlice<'_>]) -> io::Result<()>;
}

/// Gives frames to the guest.
pub trait Receiver: Send {
    /// Puts the next frame, its header first, into pieces of guest memory, and gives the bytes of both; nothing where no frame
    /// waits. What does not fit is dropped. The number of buffers in the header is the caller's to set.
    ///
    /// # Errors
    /// Where the host has failed for good.
    fn receive(&mut self, frame: &[VolatileSlice<'_>]) -> io::Result<Option<usize>>;

    /// Readable while a frame may wait.
    fn readable(&self) -> BorrowedFd<'_>;
}

/// Something that answers at an address of the link itself, over TCP.
pub trait StreamService: Send + Sync {
    /// A connection has come.
    fn connect(&self) -> Box<dyn Conversation>;
}

/// One connection to a [`StreamService`].
pub trait Conversation: Send {
    /// Bytes have come; adds what is answered to `answer`. Nothing is given while an earlier answer is not yet sent, so that
    /// memory stays bounded.
    fn receive(&mut self, bytes: &[u8], answer: &mut Vec<u8>) -> Next;
}

/// How a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// It is closed once the answer is sent.
    pub close: bool,
    /// The time to live of the packets that carry this answer; 64 where nothing is said.
    pub hop_limit: Option<u8>,
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// It is not six pairs of hexadecimal digits with colons between them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no Ethernet address: six pairs of hexadecimal digits, as in 0a:1b:2c:3d:4e:5f")]
pub struct NoMac(pub String);

impl std::str::FromStr for Mac {
    type Err = NoMac;

    fn from_str(text: &str) -> Result<Self, NoMac> {
        let no = || NoMac(text.into());
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = part.and_then(|part| u8::from_str_radix(part, 16).ok()).ok_or_else(no)?;
        }
        parts.next().map_or(Ok(Self(mac)), |_| Err(no()))
    }
}
