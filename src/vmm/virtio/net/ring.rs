//! A queue whose buffers are used several at a time: a frame in many buffers must appear at once (virtio 1.2, section
//! 5.1.6.4: a driver that sees the first of them takes all others to be there).

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{DescriptorChain, Error, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::super::Interrupt;
use super::super::worker::Used;
use crate::vmm::memory::GuestMemory;

/// Offsets in the used ring: its index, its first element (section 2.7.8).
const USED_IDX: u64 = 2;
const USED_RING: u64 = 4;
const USED_ELEMENT: u64 = 8;
/// Offset of the first element of the available ring, each of which has 2 bytes (section 2.7.6).
const AVAIL_RING: u64 = 4;

/// A queue at work.
pub struct Ring {
    /// Its number.
    pub index: u16,
    /// The queue itself.
    pub queue: Queue,
    /// Guest memory.
    pub memory: GuestMemory,
    /// How the driver is called.
    pub interrupt: Arc<dyn Interrupt>,
    /// The used index when the driver was last called, or found not to want it.
    told: u16,
    /// Whether the driver was asked not to kick.
    silenced: bool,
}

impl Ring {
    /// A queue of which all that was used has been told.
    pub fn new(index: u16, queue: Queue, memory: GuestMemory, interrupt: Arc<dyn Interrupt>) -> Self {
        let told = queue.next_used();
        Self { index, queue, memory, interrupt, told, silenced: false }
    }

    /// The next chain that is available, which is not so any more.
    ///
    /// # Errors
    /// Where the driver broke the ring.
    pub fn next_chain(&mut self) -> Result<Option<DescriptorChain<&GuestMemory>>, Error> {
        let size = self.queue.size();
        let Some(chain) = self.queue.iter(&self.memory)?.next() else { return Ok(None) };
        if chain.head_index() < size { Ok(Some(chain)) } else { Err(Error::InvalidDescriptorIndex) }
    }

    /// Puts buffers into the used ring, all at once. At most as many as the ring has places.
    ///
    /// # Errors
    /// Where the ring is not memory.
    pub fn publish(&mut self, used: &[Used]) -> Result<(), Error> {
        let (base, size) = (self.queue.used_ring(), self.queue.size());
        let at = |offset: u64| base.checked_add(offset).map(GuestAddress).ok_or(Error::AddressOverflow);
        let mut next = self.queue.next_used();
        for &(head, len) in used {
            let slot = u64::from(next.checked_rem(size).ok_or(Error::InvalidSize)?);
            let element = [u32::from(head).to_le(), len.to_le()];
            let place = at(USED_RING + USED_ELEMENT * slot)?;
            self.memory.write_obj(element, place).map_err(Error::GuestMemory)?;
            next = next.wrapping_add(1);
        }
        self.queue.set_next_used(next);
        self.memory.store(next.to_le(), at(USED_IDX)?, Ordering::Release).map_err(Error::GuestMemory)
    }

    /// Calls the driver, if buffers were used since it was called last and it wants to know.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn call(&mut self) -> Result<(), Error> {
        let (new, old) = (self.queue.next_used(), self.told);
        if new == old {
            return Ok(());
        }
        self.told = new;
        // What was used is seen before it is asked whether the driver waits for it (section 2.7.7.2).
        fence(Ordering::SeqCst);
        let load = |at: u64| -> Result<u16, Error> {
            let at = self.queue.avail_ring().checked_add(at).ok_or(Error::AddressOverflow)?;
            self.memory.load(GuestAddress(at), Ordering::Relaxed).map(u16::from_le).map_err(Error::GuestMemory)
        };
        let wanted = if self.queue.event_idx_enabled() {
            let used_event = load(AVAIL_RING + 2 * u64::from(self.queue.size()))?;
            new.wrapping_sub(used_event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            u32::from(load(0)?) & VRING_AVAIL_F_NO_INTERRUPT == 0
        };
        if wanted {
            self.interrupt.queue(self.index);
        }
        Ok(())
    }

    /// Asks the driver not to kick.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn silence(&mut self) -> Result<(), Error> {
        if !self.silenced {
            self.queue.disable_notification(&self.memory)?;
            self.silenced = true;
        }
        Ok(())
    }

    /// Asks the driver to kick, and tells whether something is available by now: then no kick may come for it.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn listen(&mut self) -> Result<bool, Error> {
        self.silenced = false;
        self.queue.enable_notification(&self.memory)
    }
}
