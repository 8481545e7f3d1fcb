//! Bytes from the guest.

use std::sync::Arc;

use virtio_queue::DescriptorChain;
use vm_memory::Permissions;

use super::super::chain::{Buffers, slices};
use super::super::worker::QueueHandler;
use super::channel::{BUFFER_MAX, Channel};
use super::{ConsoleCounters, count};
use crate::vmm::memory::GuestMemory;

/// Serves a transmit queue. What nobody listens to, or what there is no room for, is lost: a guest never waits for the host.
pub struct ToHost {
    /// Where bytes go; those of a port that is none go nowhere.
    pub channel: Option<Arc<Channel>>,
    /// What is counted.
    pub counters: Arc<ConsoleCounters>,
}

impl QueueHandler for ToHost {
    fn serve(&mut self, memory: &GuestMemory, chain: DescriptorChain<&GuestMemory>) -> Option<u32> {
        let kept = Buffers::collect(chain).ok().and_then(|buffers| self.take(memory, &buffers));
        match kept {
            Some(kept) => count(&self.counters.to_host_bytes, kept),
            None => count(&self.counters.malformed, 1),
        }
        Some(0)
    }
}

impl ToHost {
    /// Takes what there is room for; tells how many bytes that were, or nothing where it is no chain of this queue.
    fn take(&self, memory: &GuestMemory, buffers: &Buffers) -> Option<u64> {
        if !buffers.writable.is_empty() {
            return None;
        }
        let pieces = slices(memory, &buffers.readable, Permissions::Read)?;
        let Some(channel) = &self.channel else { return Some(0) };
        let mut taken = 0;
        let mut bytes = [0; 4096];
        for piece in pieces {
            let mut at = 0;
            while let Some(rest) = piece.offset(at).ok().filter(|rest| !rest.is_empty()) {
                let len = rest.copy_to(&mut bytes[..]);
                let kept = channel.put(bytes.get(..len).unwrap_or_default());
                taken += kept as u64;
                // Whatever follows is lost as well, however long the guest says that it is: one chain does not keep the thread.
                if kept < len || taken >= BUFFER_MAX as u64 {
                    return Some(taken);
                }
                at += len;
            }
        }
        Some(taken)
    }
}
