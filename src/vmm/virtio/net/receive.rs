//! Frames to the guest: a thread that waits for both, frames on the link and room in the ring.
//!
//! While there is room it waits for the link, and the driver need not kick; while there is none it waits for the driver only,
//! and frames wait in the link. So it never runs without something to do.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use virtio_queue::QueueT;
use vmm_sys_util::eventfd::EventFd;

use super::super::chain::Buffers;
use super::super::worker::Used;
use super::super::{ActiveQueue, Interrupt};
use super::pool::{Chain, Pool};
use super::ring::Ring;
use super::terms::Terms;
use super::{Shared, count};
use crate::net::{HEADER_SIZE, Receiver};
use crate::vmm::kick;
use crate::vmm::memory::GuestMemory;

/// Frames after which the driver is called at the latest, though more of them wait.
const BATCH: usize = 64;

/// A queue with nobody at work, and the chains that were taken from it and not used.
pub struct ReceiveQueue {
    /// The queue.
    pub active: ActiveQueue,
    /// The chains, in order.
    pub chains: Vec<Chain>,
}

/// What a receiving thread works with.
pub struct Work {
    /// What all queues share.
    pub shared: Arc<Shared>,
    /// Where frames come from.
    pub receiver: Box<dyn Receiver>,
    /// What was agreed on.
    pub terms: Terms,
}

/// A thread that receives. Dropping it stops it and waits for it: guest memory is not touched afterwards.
pub struct ReceiveWorker {
    kick: Arc<EventFd>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Option<ReceiveQueue>>>,
}

impl ReceiveWorker {
    /// Starts a thread called `name` (the kernel keeps 15 bytes of it) for queue number `index`.
    ///
    /// # Errors
    /// What the host said when it could not make a thread.
    pub fn start(
        name: String,
        index: u16,
        queue: ReceiveQueue,
        memory: GuestMemory,
        interrupt: Arc<dyn Interrupt>,
        work: Work,
    ) -> io::Result<Self> {
        let ReceiveQueue { active, chains } = queue;
        let (kick, stop) = (active.kick.clone(), Arc::new(AtomicBool::new(false)));
        let ring = Ring::new(index, active.queue, memory, interrupt.clone());
        let mut receiving = Receiving { ring, work, stop: stop.clone(), used: Vec::new() };
        let waiting = active.kick;
        let thread = thread::Builder::new().name(name).spawn(move || {
            let why = match catch_unwind(AssertUnwindSafe(|| receiving.run(&waiting, chains))) {
                Ok(Ok(chains)) => {
                    let active = ActiveQueue { queue: receiving.ring.queue, kick: waiting };
                    return Some(ReceiveQueue { active, chains });
                }
                Ok(Err(error)) => error.to_string(),
                // The hook has printed it. The driver at least does not wait for what never comes.
                Err(_) => "the monitor's thread that serves it panicked".into(),
            };
            interrupt.needs_reset(&format!("queue {index}: {why}"));
            None
        })?;
        Ok(Self { kick, stop, thread: Some(thread) })
    }

    /// Stops as [`Drop`] does, and gives the queue back; nothing where it could not be served any more.
    pub fn stop(mut self) -> Option<ReceiveQueue> {
        self.join()
    }

    fn join(&mut self) -> Option<ReceiveQueue> {
        self.stop.store(true, Ordering::Release);
        // Wakes the thread. It fails only where the counter is full, and then the thread is awake anyway.
        let _ = self.kick.write(1);
        // A panic was already told.
        self.thread.take()?.join().ok().flatten()
    }
}

impl Drop for ReceiveWorker {
    fn drop(&mut self) {
        self.join();
    }
}

/// Why a queue cannot be served any more.
#[derive(Debug, thiserror::Error)]
enum Broken {
    /// The driver broke it.
    #[error(transparent)]
    Ring(#[from] virtio_queue::Error),
    /// The host.
    #[error("nothing can be waited for: {0}")]
    Wait(#[from] io::Error),
}

/// What the link has for now.
#[derive(PartialEq, Eq)]
enum Link {
    /// Perhaps more.
    More,
    /// Nothing.
    Empty,
    /// Nothing ever again.
    Dead,
}

struct Receiving {
    ring: Ring,
    work: Work,
    stop: Arc<AtomicBool>,
    /// Kept for its room.
    used: Vec<Used>,
}

impl Receiving {
    /// Receives until it is to stop, and gives what is left of the chains.
    fn run(&mut self, kick: &EventFd, chains: Vec<Chain>) -> Result<Vec<Chain>, Broken> {
        let memory = self.ring.memory.clone();
        let mut pool = Pool::new(&memory, self.work.terms, self.ring.queue.size());
        for chain in chains {
            // They were in a pool before.
            let _ = pool.add(chain);
        }
        let mut link = Link::More;
        while !self.is_stopping() {
            self.fill(&mut pool)?;
            if link == Link::Dead || !pool.is_enough() {
                self.ring.call()?;
                // Of a link that is dead nothing comes, whatever room the driver makes for it.
                if link == Link::Dead || !self.ring.listen()? {
                    kick::wait(kick, None)?;
                }
                continue;
            }
            link = self.receive(&mut pool)?;
            self.ring.call()?;
            if link == Link::Empty {
                kick::wait(kick, Some(self.work.receiver.readable()))?;
            }
        }
        self.ring.call()?;
        Ok(pool.into_chains())
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Takes chains until there is room for a frame; those that are no room are given back.
    fn fill(&mut self, pool: &mut Pool<'_>) -> Result<(), Broken> {
        self.ring.silence()?;
        while !pool.is_enough() && !self.is_stopping() {
            let Some(chain) = self.ring.next_chain()? else { return Ok(()) };
            let head = chain.head_index();
            let segments = Buffers::collect(chain).ok().filter(|buffers| buffers.readable.is_empty());
            let chain = segments.map(|buffers| Chain { head, segments: buffers.writable });
            if chain.and_then(|chain| pool.add(chain).ok()).is_none() {
                count(&self.work.shared.counters.malformed, 1);
                self.ring.publish(&[(head, 0)])?;
            }
        }
        Ok(())
    }

    /// Puts frames into the pool for as long as there are frames and room.
    fn receive(&mut self, pool: &mut Pool<'_>) -> Result<Link, Broken> {
        let shared = self.work.shared.clone();
        let Shared { carrier, counters, .. } = &*shared;
        for _ in 0..BATCH {
            self.fill(pool)?;
            if !pool.is_enough() || self.is_stopping() {
                break;
            }
            let len = match self.work.receiver.receive(pool.pieces()) {
                Ok(Some(len)) => len,
                Ok(None) => return Ok(Link::Empty),
                Err(error) => {
                    count(&counters.host_errors, 1);
                    carrier.fail("receiving failed", &error, self.ring.interrupt.as_ref());
                    return Ok(Link::Dead);
                }
            };
            // Not used, the memory is there for the next one.
            if !carrier.is_up() {
                count(&counters.lost_while_down, 1);
                continue;
            }
            let len = len.min(pool.room());
            if len < HEADER_SIZE {
                count(&counters.host_errors, 1);
                continue;
            }
            self.used.clear();
            pool.take(len, &mut self.used);
            self.ring.publish(&self.used)?;
            count(&counters.received_frames, 1);
            count(&counters.received_bytes, (len - HEADER_SIZE) as u64);
        }
        Ok(Link::More)
    }
}
