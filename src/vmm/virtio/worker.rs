//! A thread that serves one queue: it waits for the driver's kick, takes what is available, and calls the driver.

use std::io;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::{self, JoinHandle};

use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC, VRING_AVAIL_F_NO_INTERRUPT};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::{ActiveQueue, Interrupt};
use crate::vmm::kick;
use crate::vmm::memory::GuestMemory;

/// The ring features that every queue served by a worker can do.
pub const RING_FEATURES: u64 = 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// A chain that was served: its head, and the bytes written into it, counted from its first writable one: the used length
/// (virtio 1.2, section 2.7.8).
pub type Used = (u16, u32);

/// Serves the requests of one queue.
///
/// One that does so at once has only `serve`. One that begins requests and is told later how they ended has the rest, and
/// waits for them when it is dropped: guest memory is not touched afterwards.
pub trait QueueHandler: Send + 'static {
    /// Serves one chain to its end and gives the used length, or begins to serve it.
    fn serve(&mut self, memory: &GuestMemory, chain: DescriptorChain<&GuestMemory>) -> Option<u32>;

    /// Whether no more can be begun until something has ended.
    fn is_full(&self) -> bool {
        false
    }

    /// Readable when something that was begun has ended; nothing where nothing is begun.
    fn event(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Sees to it that what was begun goes on, and adds what has ended to `used`; of all that was begun if `all`.
    ///
    /// # Errors
    /// Where the host has failed for good.
    fn finish(&mut self, _memory: &GuestMemory, _all: bool, _used: &mut Vec<Used>) -> io::Result<()> {
        Ok(())
    }
}

/// Why a queue cannot be served any more.
#[derive(Debug, thiserror::Error)]
enum RingError {
    /// The driver broke it.
    #[error(transparent)]
    Queue(#[from] virtio_queue::Error),
    /// The host.
    #[error("the host does not finish its requests: {0}")]
    Host(#[from] io::Error),
}

/// A running worker. Dropping it stops the thread and waits for it: requests that were begun are finished, those behind
/// them are left in the ring, and guest memory is not touched afterwards.
pub struct QueueWorker {
    kick: Arc<EventFd>,
    stop: Arc<AtomicBool>,
    /// Gives the queue where it was stopped with all that was begun.
    thread: Option<JoinHandle<Option<Queue>>>,
}

impl QueueWorker {
    /// Starts a thread called `name` (the kernel keeps 15 bytes of it) for queue number `index`.
    ///
    /// # Errors
    /// What the host said when it could not make a thread.
    pub fn start(
        name: String,
        index: u16,
        active: ActiveQueue,
        memory: GuestMemory,
        interrupt: Arc<dyn Interrupt>,
        handler: impl QueueHandler,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let kick = active.kick.clone();
        let (queue, stopped) = (active.queue, stop.clone());
        let mut ring = Ring { index, queue, memory, interrupt, handler, stop: stopped, ended: Vec::new() };
        let waiting = active.kick;
        let thread = thread::Builder::new().name(name).spawn(move || {
            let ran = catch_unwind(AssertUnwindSafe(|| ring.run(&waiting)));
            match ran {
                Ok(true) => Some(ring.queue),
                Ok(false) => None,
                Err(_) => {
                    // The hook has printed it. The driver at least does not wait for what never comes.
                    ring.give_up("the monitor's thread that serves it panicked");
                    None
                }
            }
        })?;
        Ok(Self { kick, stop, thread: Some(thread) })
    }
}

impl QueueWorker {
    /// Stops as [`Drop`] does, and gives the queue back with its kick, for another worker to go on with; nothing where it
    /// could not be served any more.
    #[must_use]
    pub fn stop(mut self) -> Option<ActiveQueue> {
        let queue = self.join()?;
        Some(ActiveQueue { queue, kick: self.kick.clone() })
    }

    fn join(&mut self) -> Option<Queue> {
        self.stop.store(true, Ordering::Release);
        // Wakes the thread; the next owner of the queue at most looks at its ring once too often. Writing fails only
        // where the counter is full, and then the thread is awake anyway.
        let _ = self.kick.write(1);
        // A panic was already told by the hook, and there is nothing left to save.
        self.thread.take()?.join().ok().flatten()
    }
}

impl Drop for QueueWorker {
    fn drop(&mut self) {
        self.join();
    }
}

struct Ring<H> {
    index: u16,
    queue: Queue,
    memory: GuestMemory,
    interrupt: Arc<dyn Interrupt>,
    handler: H,
    stop: Arc<AtomicBool>,
    /// Kept for its room.
    ended: Vec<Used>,
}

impl<H: QueueHandler> Ring<H> {
    /// Serves until it is to stop; false where it cannot go on.
    fn run(&mut self, kick: &EventFd) -> bool {
        loop {
            if let Err(error) = kick::wait(kick, self.handler.event()) {
                self.give_up(&format!("its notification cannot be read: {error}"));
                return false;
            }
            let done = if self.stopping() { self.finish(true).and_then(|used| self.call(used)) } else { self.drain() };
            if let Err(error) = done {
                self.give_up(&error.to_string());
                return false;
            }
            if self.stopping() && self.handler.event().is_none() {
                return true;
            }
        }
    }

    fn give_up(&self, why: &str) {
        self.interrupt.needs_reset(&format!("queue {}: {why}", self.index));
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Serves all that is available. The driver need not kick meanwhile; before this returns it is asked to kick again,
    /// and the ring is looked at once more, so that no request is left without a kick (section 2.7.10). Where no more can
    /// be begun, the driver need not kick either: what ends wakes this thread.
    fn drain(&mut self) -> Result<(), RingError> {
        loop {
            self.queue.disable_notification(&self.memory)?;
            let used = self.serve_available()?;
            self.call(used)?;
            if self.stopping() || self.handler.is_full() || !self.queue.enable_notification(&self.memory)? {
                return Ok(());
            }
        }
    }

    /// Serves until nothing is available, no more can be begun or the worker is to stop; tells whether anything was used.
    fn serve_available(&mut self) -> Result<bool, RingError> {
        let mut used = false;
        while !self.stopping() && !self.handler.is_full() {
            // The index is read and checked anew for each chain: the driver may add to the ring while we work, but never
            // more than the ring holds.
            let Some(chain) = self.queue.iter(&self.memory)?.next() else { break };
            let head = chain.head_index();
            if head >= self.queue.size() {
                return Err(virtio_queue::Error::InvalidDescriptorIndex.into());
            }
            if let Some(len) = self.handler.serve(&self.memory, chain) {
                self.queue.add_used(&self.memory, head, len)?;
                used = true;
            }
        }
        Ok(used | self.finish(false)?)
    }

    /// Uses what has ended of that which was begun; tells whether anything was.
    fn finish(&mut self, all: bool) -> Result<bool, RingError> {
        self.ended.clear();
        let result = self.handler.finish(&self.memory, all, &mut self.ended);
        for &(head, len) in &self.ended {
            self.queue.add_used(&self.memory, head, len)?;
        }
        result?;
        Ok(!self.ended.is_empty())
    }

    /// Calls the driver, if buffers were used and it wants to know.
    fn call(&mut self, used: bool) -> Result<(), RingError> {
        if used && self.driver_wants_interrupt()? {
            self.interrupt.queue(self.index);
        }
        Ok(())
    }

    fn driver_wants_interrupt(&mut self) -> Result<bool, virtio_queue::Error> {
        // With event indices the flag must be ignored, without them it should be heeded (section 2.7.7.2).
        if !self.queue.event_idx_enabled() {
            fence(Ordering::SeqCst);
            let flags: u16 = self
                .memory
                .load(GuestAddress(self.queue.avail_ring()), Ordering::Relaxed)
                .map_err(virtio_queue::Error::GuestMemory)?;
            return Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0);
        }
        self.queue.needs_notification(&self.memory)
    }
}

/// Serves what a queue holds to its end, as a worker does after a kick and when it stops, but in the caller's thread.
#[cfg(test)]
pub fn drain_here(
    queue: Queue,
    memory: &GuestMemory,
    interrupt: Arc<dyn Interrupt>,
    handler: impl QueueHandler,
) -> Result<Queue, virtio_queue::Error> {
    let memory = memory.clone();
    let mut ring = Ring { index: 0, queue, memory, interrupt, handler, stop: Arc::default(), ended: Vec::new() };
    let done = ring.drain().and_then(|()| ring.finish(true)).and_then(|used| ring.call(used));
    match done {
        Ok(()) => Ok(ring.queue),
        Err(RingError::Queue(error)) => Err(error),
        Err(RingError::Host(error)) => panic!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::Address;

    use super::super::testing::*;
    use super::*;

    /// Uses every chain without looking into it.
    struct Echo;

    impl QueueHandler for Echo {
        fn serve(&mut self, _: &GuestMemory, chain: DescriptorChain<&GuestMemory>) -> Option<u32> {
            Some(u32::from(chain.head_index()) + 100)
        }
    }

    const SIZE: u16 = 8;

    fn queue(event_idx: bool) -> (Queue, GuestMemory) {
        let mut queue = Queue::new(SIZE).unwrap();
        queue.try_set_desc_table_address(GuestAddress(DESC)).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(AVAIL)).unwrap();
        queue.try_set_used_ring_address(GuestAddress(USED)).unwrap();
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        (queue, memory())
    }

    fn put(memory: &GuestMemory, at: u64, value: u16) {
        memory.write_obj(value.to_le(), GuestAddress(at)).unwrap();
    }

    fn get(memory: &GuestMemory, at: u64) -> u16 {
        memory.read_obj::<u16>(GuestAddress(at)).map(u16::from_le).unwrap()
    }

    #[test]
    fn a_batch_is_used_in_order_with_one_interrupt() {
        let (queue, memory) = queue(false);
        for (slot, head) in [3, 1, 7, 3].into_iter().enumerate() {
            put(&memory, AVAIL + 4 + 2 * slot as u64, head);
        }
        put(&memory, AVAIL + 2, 4);
        let interrupt = Arc::new(CountInterrupts::default());
        let queue = drain_here(queue, &memory, interrupt.clone(), Echo).unwrap();
        assert_eq!((queue.next_avail(), queue.next_used(), get(&memory, USED + 2)), (4, 4, 4));
        assert_eq!(interrupt.queue.load(Ordering::SeqCst), 1);
        for (slot, head) in [3_u32, 1, 7, 3].into_iter().enumerate() {
            let at = GuestAddress(USED).unchecked_add(4 + 8 * slot as u64);
            assert_eq!(memory.read_obj::<[u32; 2]>(at).unwrap(), [head, head + 100]);
        }
        // Nothing new: nobody is called, and the driver is asked to kick.
        let queue = drain_here(queue, &memory, interrupt.clone(), Echo).unwrap();
        assert_eq!((queue.next_used(), interrupt.queue.load(Ordering::SeqCst), get(&memory, USED)), (4, 1, 0));
    }

    #[test]
    fn a_driver_that_wants_no_interrupt_gets_none() {
        let (queue, memory) = queue(false);
        put(&memory, AVAIL, 1);
        put(&memory, AVAIL + 2, 2);
        let interrupt = Arc::new(CountInterrupts::default());
        drain_here(queue, &memory, interrupt.clone(), Echo).unwrap();
        assert_eq!(interrupt.queue.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn with_event_indices_the_driver_is_called_when_it_said() {
        for (used_event, calls) in [(0, 1), (1, 1), (2, 0), (u16::MAX, 0)] {
            let (queue, memory) = queue(true);
            // The flag must be ignored.
            put(&memory, AVAIL, 1);
            put(&memory, AVAIL + 2, 2);
            put(&memory, AVAIL + 4 + 2 * u64::from(SIZE), used_event);
            let interrupt = Arc::new(CountInterrupts::default());
            drain_here(queue, &memory, interrupt.clone(), Echo).unwrap();
            assert_eq!(interrupt.queue.load(Ordering::SeqCst), calls, "{used_event}");
            // And the device wants a kick for the next buffer.
            assert_eq!(get(&memory, USED + 4 + 8 * u64::from(SIZE)), 2);
        }
    }

    #[test]
    fn a_ring_that_holds_more_than_it_can_is_broken() {
        for (avail_idx, broken) in [(SIZE, false), (SIZE + 1, true), (u16::MAX, true)] {
            let (queue, memory) = queue(false);
            put(&memory, AVAIL + 2, avail_idx);
            let result = drain_here(queue, &memory, Arc::new(CountInterrupts::default()), Echo);
            assert_eq!(result.is_err(), broken, "{avail_idx}");
        }
        let (queue, memory) = queue(false);
        put(&memory, AVAIL + 4, SIZE);
        put(&memory, AVAIL + 2, 1);
        assert!(drain_here(queue, &memory, Arc::new(CountInterrupts::default()), Echo).is_err());
        assert_eq!(get(&memory, USED + 2), 0);
    }

    /// A driver that makes one more buffer available for each that is used, from another vCPU as it were.
    struct Endless(Arc<AtomicBool>);

    impl QueueHandler for Endless {
        fn serve(&mut self, memory: &GuestMemory, _: DescriptorChain<&GuestMemory>) -> Option<u32> {
            // While the ring is being served, no kick is wanted.
            assert_eq!(get(memory, USED), 1);
            put(memory, AVAIL + 2, get(memory, AVAIL + 2).wrapping_add(1));
            self.0.store(true, Ordering::SeqCst);
            Some(0)
        }
    }

    /// A fault of this program.
    struct Faulty;

    impl QueueHandler for Faulty {
        fn serve(&mut self, _: &GuestMemory, _: DescriptorChain<&GuestMemory>) -> Option<u32> {
            panic!("a test's own, on purpose")
        }
    }

    #[test]
    fn a_worker_that_panics_asks_for_a_reset() {
        let (queue, memory) = queue(false);
        put(&memory, AVAIL + 2, 1);
        let kick = Arc::new(EventFd::new(0).unwrap());
        kick.write(1).unwrap();
        let interrupt = Arc::new(CountInterrupts::default());
        let active = ActiveQueue { queue, kick };
        let worker = QueueWorker::start("faulty".into(), 0, active, memory, interrupt.clone(), Faulty).unwrap();
        while !worker.thread.as_ref().unwrap().is_finished() {
            thread::yield_now();
        }
        assert_eq!(interrupt.needs_reset.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_worker_stops_though_the_ring_never_empties() {
        let (queue, memory) = queue(false);
        put(&memory, AVAIL + 2, 1);
        let kick = Arc::new(EventFd::new(0).unwrap());
        kick.write(1).unwrap();
        let serving = Arc::new(AtomicBool::new(false));
        let active = ActiveQueue { queue, kick };
        let interrupt = Arc::new(CountInterrupts::default());
        let handler = Endless(serving.clone());
        let worker = QueueWorker::start("endless".into(), 0, active, memory.clone(), interrupt, handler).unwrap();
        while !serving.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        drop(worker);
        let used = get(&memory, USED + 2);
        assert_eq!(get(&memory, AVAIL + 2), used.wrapping_add(1));
    }
}
