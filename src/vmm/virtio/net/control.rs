//! The control queue (virtio 1.2, section 5.1.6.5): how many pairs of queues are in use. There is nothing else to ask for:
//! the card passes all frames, as one does that offers no filters.

use std::sync::{Arc, Mutex, PoisonError};

use virtio_bindings::virtio_net::{VIRTIO_NET_ERR, VIRTIO_NET_OK};
use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestMemoryBackend};

use super::super::chain::{Buffers, Segment, take_front, total};
use super::super::worker::QueueHandler;
use super::pairs::Pairs;
use super::{Shared, count};
use crate::vmm::memory::GuestMemory;

/// Class and command that say how many pairs are used.
const MQ_VQ_PAIRS_SET: [u8; 2] = [4, 0];

/// Serves the control queue.
pub struct Control {
    /// What all queues share.
    pub shared: Arc<Shared>,
    /// What is controlled.
    pub pairs: Arc<Mutex<Pairs>>,
    /// Whether the driver may use several pairs.
    pub multiqueue: bool,
}

impl QueueHandler for Control {
    fn serve(&mut self, memory: &GuestMemory, chain: DescriptorChain<&GuestMemory>) -> Option<u32> {
        let counters = &self.shared.counters;
        count(&counters.commands, 1);
        let answered = Buffers::collect(chain).ok().and_then(|Buffers { readable, writable }| {
            // Before the command is done: one that cannot be answered is none.
            let place = writable.first()?.addr;
            if !memory.address_in_range(place) {
                return None;
            }
            let ack = if self.obey(memory, readable).is_some() {
                VIRTIO_NET_OK
            } else {
                count(&counters.commands_refused, 1);
                VIRTIO_NET_ERR
            };
            memory.write_obj(u8::try_from(ack).unwrap_or(1), place).ok()
        });
        if answered.is_none() {
            count(&counters.malformed, 1);
        }
        Some(u32::from(answered.is_some()))
    }
}

impl Control {
    /// Does a command; nothing where it is none that could be done.
    fn obey(&self, memory: &GuestMemory, mut command: Vec<Segment>) -> Option<()> {
        let mut which = [0; 2];
        take_front(memory, &mut command, &mut which)?;
        if which != MQ_VQ_PAIRS_SET || !self.multiqueue || total(&command) != 2 {
            return None;
        }
        let mut wanted = [0; 2];
        take_front(memory, &mut command, &mut wanted)?;
        let wanted = u16::from_le_bytes(wanted);
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted == 0 || wanted > pairs.count() {
            return None;
        }
        pairs.set(wanted).ok()
    }
}
