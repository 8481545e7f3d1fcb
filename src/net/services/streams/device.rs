//! The packets between smoltcp and the engine.

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// One packet on its way in, and those on their way out.
pub(super) struct PacketDevice {
    /// From the guest.
    pub incoming: Option<Vec<u8>>,
    /// To the guest; there are never more than the windows of all connections allow.
    pub outgoing: Vec<Vec<u8>>,
    mtu: u16,
}

impl PacketDevice {
    pub(super) fn new(mtu: u16) -> Self {
        Self { incoming: None, outgoing: Vec::new(), mtu }
    }

    /// The longest packet, in bytes.
    pub(super) fn mtu(&self) -> u16 {
        self.mtu
    }
}

impl Device for PacketDevice {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        self.incoming.take().map(|packet| (Incoming(packet), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(self.mtu);
        // Both ways: what the guest sends with a wrong checksum is dropped.
        capabilities.checksum.tcp = Checksum::Both;
        capabilities
    }
}

/// A packet that has come.
pub(super) struct Incoming(Vec<u8>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

/// Room for a packet that goes.
pub(super) struct Outgoing<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut packet = vec![0; len];
        let done = fill(&mut packet);
        self.0.push(packet);
        done
    }
}
