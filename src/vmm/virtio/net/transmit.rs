//! Frames from the guest.

use std::sync::Arc;

use virtio_queue::DescriptorChain;
use vm_memory::{Permissions, VolatileSlice};

use super::super::Interrupt;
use super::super::chain::{Buffers, slices, take_front, total};
use super::super::worker::QueueHandler;
use super::pool::PIECES_MAX;
use super::{FRAME_MIN, Shared, count, header};
use crate::net::{HEADER_SIZE, LARGE_FRAME_MAX, Offloads, Sender};
use crate::vmm::memory::GuestMemory;

/// Serves a queue of frames from the guest.
pub struct Transmitter {
    /// What all queues share.
    pub shared: Arc<Shared>,
    /// Where frames go.
    pub sender: Box<dyn Sender>,
    /// What they may leave out.
    pub agreed: Offloads,
    /// How the driver is called when the link fails.
    pub interrupt: Arc<dyn Interrupt>,
}

/// Why a frame goes nowhere.
enum Lost {
    /// The chain is none.
    Malformed,
    /// Length or header are not what they may be.
    Refused,
}

impl QueueHandler for Transmitter {
    fn serve(&mut self, memory: &GuestMemory, chain: DescriptorChain<&GuestMemory>) -> Option<u32> {
        let sent = self.send(memory, chain);
        let counters = &self.shared.counters;
        match sent {
            Ok(()) => {}
            Err(Lost::Malformed) => count(&counters.malformed, 1),
            Err(Lost::Refused) => count(&counters.refused, 1),
        }
        Some(0)
    }
}

impl Transmitter {
    fn send(&mut self, memory: &GuestMemory, chain: DescriptorChain<&GuestMemory>) -> Result<(), Lost> {
        let Buffers { mut readable, writable } = Buffers::collect(chain).map_err(|_| Lost::Malformed)?;
        if !writable.is_empty() {
            return Err(Lost::Malformed);
        }
        let len = usize::try_from(total(&readable)).ok().and_then(|len| len.checked_sub(HEADER_SIZE));
        let len = len.filter(|len| (FRAME_MIN..=LARGE_FRAME_MAX).contains(len)).ok_or(Lost::Refused)?;
        // A copy: the guest may write to its own at any time.
        let mut raw = [0; HEADER_SIZE];
        take_front(memory, &mut readable, &mut raw).ok_or(Lost::Malformed)?;
        let mut checked = header::check(raw, len, self.agreed).map_err(|_| Lost::Refused)?;
        let frame = slices(memory, &readable, Permissions::Read).ok_or(Lost::Malformed)?;
        if frame.len() >= PIECES_MAX {
            return Err(Lost::Malformed);
        }
        let Shared { carrier, counters, .. } = &*self.shared;
        if !carrier.is_up() {
            count(&counters.lost_while_down, 1);
            return Ok(());
        }
        let mut pieces = Vec::with_capacity(frame.len() + 1);
        pieces.push(VolatileSlice::from(&mut checked[..]));
        pieces.extend(frame);
        match self.sender.send(&pieces) {
            Ok(()) => {
                count(&counters.sent_frames, 1);
                count(&counters.sent_bytes, len as u64);
            }
            Err(error) => {
                count(&counters.host_errors, 1);
                carrier.fail("sending failed", &error, self.interrupt.as_ref());
            }
        }
        Ok(())
    }
}
