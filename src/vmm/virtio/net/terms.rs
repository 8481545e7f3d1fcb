//! What card and driver have agreed on (virtio 1.2, section 5.1.3).

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MQ,
    VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU,
};

use crate::net::{HEADER_SIZE, LARGE_FRAME_MAX, Offloads};

/// What a packet has at most where the driver has not taken note of another size, in bytes.
const DEFAULT_MTU: usize = 1500;
/// An Ethernet header.
const ETHERNET: usize = 14;
/// A tag in it.
const TAG: usize = 4;

/// Feature bits of offloads towards the host, in the order of [`Offloads`].
const TO_HOST: [u32; 4] = [VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_ECN];
/// And towards the guest.
const TO_GUEST: [u32; 4] =
    [VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_ECN];

/// What card and driver have agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// What frames from the guest may leave out.
    pub to_host: Offloads,
    /// What frames to the guest may leave out.
    pub to_guest: Offloads,
    /// A frame to the guest may lie in several chains.
    pub merges: bool,
    /// There is a control queue.
    pub control: bool,
    /// The driver may use several pairs of queues.
    pub multiqueue: bool,
    /// The largest packet to the guest that is not segmented, in bytes.
    mtu: usize,
}

impl Terms {
    /// What these features mean on a card of this MTU.
    #[must_use]
    pub fn new(features: u64, mtu: u16) -> Self {
        let has = |bit: u32| features & (1 << bit) != 0;
        let control = has(VIRTIO_NET_F_CTRL_VQ);
        Self {
            to_host: consistent(offloads(features, TO_HOST)),
            to_guest: consistent(offloads(features, TO_GUEST)),
            merges: has(VIRTIO_NET_F_MRG_RXBUF),
            control,
            multiqueue: control && has(VIRTIO_NET_F_MQ),
            mtu: if has(VIRTIO_NET_F_MTU) { usize::from(mtu).max(DEFAULT_MTU) } else { DEFAULT_MTU },
        }
    }

    /// Bytes of the room that holds every frame to the guest, its header counted.
    #[must_use]
    pub fn receive_room(&self) -> usize {
        HEADER_SIZE + if self.is_large() { LARGE_FRAME_MAX } else { self.mtu + ETHERNET + TAG }
    }

    /// Bytes that a chain must hold where frames are not spread over several. Drivers need not have room for a tag (section
    /// 5.1.6.3.1).
    #[must_use]
    pub fn chain_min(&self) -> usize {
        match (self.merges, self.is_large()) {
            (true, _) => HEADER_SIZE,
            (false, true) => HEADER_SIZE + LARGE_FRAME_MAX,
            (false, false) => HEADER_SIZE + self.mtu + ETHERNET,
        }
    }

    fn is_large(&self) -> bool {
        self.to_guest.tso4 || self.to_guest.tso6
    }
}

/// The features that a card offers because of what its link takes and gives.
#[must_use]
pub fn offload_features(takes: Offloads, gives: Offloads) -> u64 {
    let bits = |offloads: Offloads, bits: [u32; 4]| {
        let Offloads { checksum, tso4, tso6, ecn } = consistent(offloads);
        [checksum, tso4, tso6, ecn].into_iter().zip(bits).fold(0, |all, (is, bit)| all | u64::from(is) << bit)
    };
    bits(takes, TO_HOST) | bits(gives, TO_GUEST)
}

fn offloads(features: u64, bits: [u32; 4]) -> Offloads {
    let [checksum, tso4, tso6, ecn] = bits.map(|bit| features & (1 << bit) != 0);
    Offloads { checksum, tso4, tso6, ecn }
}

/// Segmentation needs checksums, and marks need segmentation (section 5.1.3.1).
fn consistent(Offloads { checksum, tso4, tso6, ecn }: Offloads) -> Offloads {
    let (tso4, tso6) = (checksum && tso4, checksum && tso6);
    Offloads { checksum, tso4, tso6, ecn: ecn && (tso4 || tso6) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Offloads = Offloads { checksum: true, tso4: true, tso6: true, ecn: true };

    fn terms(bits: &[u32], mtu: u16) -> Terms {
        Terms::new(bits.iter().fold(0, |all, bit| all | 1 << bit), mtu)
    }

    #[test]
    fn what_a_link_has_is_offered_and_comes_back() {
        assert_eq!(offload_features(Offloads::default(), Offloads::default()), 0);
        assert_eq!(offload_features(ALL, Offloads::default()), 1 | 1 << 11 | 1 << 12 | 1 << 13);
        assert_eq!(offload_features(Offloads::default(), ALL), 1 << 1 | 1 << 7 | 1 << 8 | 1 << 9);
        let terms = Terms::new(offload_features(ALL, ALL), 1500);
        assert_eq!((terms.to_host, terms.to_guest), (ALL, ALL));
    }

    #[test]
    fn what_needs_something_else_is_nothing_without_it() {
        let none = Offloads::default();
        assert_eq!(terms(&[VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_ECN], 1500).to_host, none);
        assert_eq!(terms(&[VIRTIO_NET_F_GUEST_TSO6], 1500).to_guest, none);
        assert_eq!(offload_features(none, Offloads { tso4: true, ..none }), 0);
        let checksum = Offloads { checksum: true, ..none };
        assert_eq!(terms(&[VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_ECN], 1500).to_host, checksum);
        assert!(!terms(&[VIRTIO_NET_F_MQ], 1500).multiqueue);
        assert!(terms(&[VIRTIO_NET_F_MQ, VIRTIO_NET_F_CTRL_VQ], 1500).multiqueue);
    }

    #[test]
    fn room_follows_from_what_may_come() {
        let room = |bits: &[u32], mtu| (terms(bits, mtu).receive_room(), terms(bits, mtu).chain_min());
        assert_eq!(room(&[], 9001), (1530, 1526));
        assert_eq!(room(&[VIRTIO_NET_F_MTU], 9001), (9031, 9027));
        assert_eq!(room(&[VIRTIO_NET_F_MTU], 576), (1530, 1526));
        assert_eq!(room(&[VIRTIO_NET_F_MRG_RXBUF], 1500), (1530, 12));
        let large = [VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4];
        assert_eq!(room(&large, 1500), (65_562, 65_562));
        assert_eq!(room(&[&large[..], &[VIRTIO_NET_F_MRG_RXBUF]].concat(), 1500), (65_562, 12));
    }
}
