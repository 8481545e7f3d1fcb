//! The network card (virtio 1.2, section 5.1).
//!
//! It moves frames between guest memory and a [`Link`], straight: what the link reads and writes are the driver's own
//! buffers, but for the header of a frame from the guest, of which the link gets a checked copy.
//!
//! * [`terms`]: what card and driver have agreed on;
//! * [`header`]: the header of a frame from the guest, checked;
//! * [`transmit`]; [`receive`] with [`pool`] and [`ring`]: the two directions, a thread for each queue;
//! * [`pairs`], [`control`]: which queues work, and how the driver says so;
//! * [`carrier`]: whether the link is up.
//!
//! A host that has vhost-net could do the work of [`transmit`] and [`receive`] for a link that is a tap: [`pairs`] is the one
//! place that gives queues to whoever serves them, gets them back, and knows the port; nothing else would have to know.

pub mod carrier;
mod control;
pub mod header;
mod pairs;
mod pool;
mod receive;
mod ring;
mod terms;
mod transmit;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod load_tests;
#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde::Serialize;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU,
    VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
};

use self::carrier::Carrier;
use self::control::Control;
use self::pairs::{Pair, Pairs};
use self::receive::ReceiveQueue;
use self::terms::Terms;
use super::worker::{QueueWorker, RING_FEATURES};
use super::{ActivateError, Activation, Log, VirtioDevice};
use crate::net::{Link, Mac, QUEUE_PAIRS_MAX};

/// Entries of each queue.
pub const QUEUE_SIZE: u16 = 256;
/// The smallest MTU that a card can have, in bytes: IPv4 needs it (RFC 791), and Linux takes no less.
pub const MTU_MIN: u16 = 68;
/// Bytes of the shortest frame: an Ethernet header.
const FRAME_MIN: usize = 14;

/// A network card, as it is asked for.
#[derive(Clone)]
pub struct NetworkConfig {
    /// Its address.
    pub mac: Mac,
    /// What is at the cable's other end. A machine that restarts opens it anew.
    pub link: Arc<dyn Link>,
    /// The largest packet that the guest should send, in bytes, [`MTU_MIN`] at least: 1500, or up to 9001 on EC2.
    pub mtu: u16,
}

/// What the card has done; readable while it runs. Bytes are those of frames, without the headers before them.
#[derive(Debug, Default, Serialize)]
pub struct NetCounters {
    /// Frames that were given to the guest.
    pub received_frames: AtomicU64,
    /// Their bytes.
    pub received_bytes: AtomicU64,
    /// Frames of the guest that the link took.
    pub sent_frames: AtomicU64,
    /// Their bytes.
    pub sent_bytes: AtomicU64,
    /// Frames of the guest that were dropped: too short, too long, or with a header that says what cannot be.
    pub refused: AtomicU64,
    /// Chains that were none, or whose buffers were not memory, or too short for what must fit.
    pub malformed: AtomicU64,
    /// Frames of both directions that were dropped because the link was down.
    pub lost_while_down: AtomicU64,
    /// Failures of the host.
    pub host_errors: AtomicU64,
    /// Commands that came.
    pub commands: AtomicU64,
    /// Those of them that were not done.
    pub commands_refused: AtomicU64,
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// What all queues of a card share.
pub struct Shared {
    link: Arc<dyn Link>,
    carrier: Arc<Carrier>,
    counters: Arc<NetCounters>,
}

/// A network card.
pub struct Net {
    shared: Arc<Shared>,
    mac: Mac,
    mtu: u16,
    queue_sizes: Vec<u16>,
    /// Stopped before what it controls.
    control: Option<QueueWorker>,
    pairs: Option<Arc<Mutex<Pairs>>>,
}

impl Net {
    /// A new, idle card, its link up. It has as many pairs of queues as the link can serve, but at most `pairs_max`, and at
    /// least one; each queue in use is served by a thread of its own.
    #[must_use]
    pub fn new(config: &NetworkConfig, pairs_max: u16, log: Log) -> Self {
        let NetworkConfig { mac, link, mtu } = config.clone();
        let pairs = link.queue_pairs().min(pairs_max).clamp(1, QUEUE_PAIRS_MAX);
        let shared = Shared { link, carrier: Arc::new(Carrier::new(log)), counters: Arc::default() };
        let queue_sizes = vec![QUEUE_SIZE; 2 * usize::from(pairs) + 1];
        Self { shared: Arc::new(shared), mac, mtu: mtu.max(MTU_MIN), queue_sizes, control: None, pairs: None }
    }

    /// What the card has done.
    #[must_use]
    pub fn counters(&self) -> Arc<NetCounters> {
        self.shared.counters.clone()
    }

    /// Whether its link is up. Who changes that calls the driver, through the transport.
    #[must_use]
    pub fn carrier(&self) -> Arc<Carrier> {
        self.shared.carrier.clone()
    }

    fn pairs_max(&self) -> u16 {
        u16::try_from(self.queue_sizes.len() / 2).unwrap_or(QUEUE_PAIRS_MAX)
    }

    /// struct `virtio_net_config` (section 5.1.4) up to the MTU.
    fn config(&self) -> [u8; 12] {
        let status = if self.shared.carrier.is_up() { VIRTIO_NET_S_LINK_UP } else { 0 };
        let [status, _, _, _] = status.to_le_bytes();
        let ([p0, p1], [m0, m1], [a, b, c, d, e, f]) =
            (self.pairs_max().to_le_bytes(), self.mtu.to_le_bytes(), self.mac.0);
        [a, b, c, d, e, f, status, 0, p0, p1, m0, m1]
    }
}

impl VirtioDevice for Net {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn features(&self) -> u64 {
        let link = &self.shared.link;
        let multiqueue = if self.pairs_max() > 1 { 1 << VIRTIO_NET_F_MQ } else { 0 };
        RING_FEATURES
            | 1 << VIRTIO_NET_F_MAC
            | 1 << VIRTIO_NET_F_STATUS
            | 1 << VIRTIO_NET_F_MTU
            | 1 << VIRTIO_NET_F_MRG_RXBUF
            | 1 << VIRTIO_NET_F_CTRL_VQ
            | multiqueue
            | terms::offload_features(link.takes(), link.gives())
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        data.iter_mut().zip(self.config().iter().skip(at)).for_each(|(to, from)| *to = *from);
    }

    /// A link that cannot be opened is down; the driver works with it all the same.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let Activation { memory, mut queues, interrupt, features } = activation;
        let terms = Terms::new(features, self.mtu);
        // Without MQ the control queue comes behind the first pair (section 5.1.2).
        let pairs = if terms.multiqueue { self.pairs_max() } else { 1 };
        let mut take = |index: u16| queues.get_mut(usize::from(index)).and_then(Option::take);
        let idle = (0..pairs).map(|pair| Pair {
            receive: take(2 * pair).map(|active| ReceiveQueue { active, chains: Vec::new() }),
            transmit: take(2 * pair + 1),
        });
        let idle = idle.collect();
        let index = 2 * pairs;
        let control = take(index).filter(|_| terms.control);

        // What failed before may be mended; who was told so looks at the status only now.
        self.shared.carrier.mend();
        let mut all = Pairs::new(self.shared.clone(), memory.clone(), interrupt.clone(), terms, idle);
        // It tells of its own failure.
        drop(all.set(1));
        let all = Arc::new(Mutex::new(all));
        self.pairs = Some(all.clone());
        let Some(control) = control else { return Ok(()) };
        let handler = Control { shared: self.shared.clone(), pairs: all, multiqueue: terms.multiqueue };
        match QueueWorker::start("virtio-net-ctl".into(), index, control, memory, interrupt, handler) {
            Ok(worker) => self.control = Some(worker),
            Err(error) => {
                self.reset();
                return Err(ActivateError {
                    device: "network",
                    reason: format!("no thread for its commands: {error}"),
                });
            }
        }
        Ok(())
    }

    fn reset(&mut self) {
        // Only it shares the pairs, so that they end with what is dropped here.
        self.control = None;
        self.pairs = None;
    }
}
