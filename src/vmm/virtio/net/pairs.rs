//! The pairs of queues: which of them work, and their threads.

use std::io;
use std::sync::Arc;

use super::super::worker::QueueWorker;
use super::super::{ActiveQueue, Interrupt};
use super::Shared;
use super::receive::{ReceiveQueue, ReceiveWorker, Work};
use super::terms::Terms;
use super::transmit::Transmitter;
use crate::net::Port;
use crate::vmm::memory::GuestMemory;

/// One pair; what the driver has not set up, or has broken, is missing.
#[derive(Default)]
pub struct Pair {
    /// Frames to the guest.
    pub receive: Option<ReceiveQueue>,
    /// Frames from the guest.
    pub transmit: Option<ActiveQueue>,
}

/// A pair at work.
struct Running {
    receive: Option<ReceiveWorker>,
    transmit: Option<QueueWorker>,
}

/// All pairs of a card whose driver works. Dropping them stops their threads.
pub struct Pairs {
    shared: Arc<Shared>,
    memory: GuestMemory,
    interrupt: Arc<dyn Interrupt>,
    terms: Terms,
    /// Those that work, the first ones.
    running: Vec<Running>,
    /// The first `running.len()` have their queues given away.
    idle: Vec<Pair>,
}

impl Pairs {
    /// Pairs of which none works yet.
    pub fn new(
        shared: Arc<Shared>,
        memory: GuestMemory,
        interrupt: Arc<dyn Interrupt>,
        terms: Terms,
        idle: Vec<Pair>,
    ) -> Self {
        Self { shared, memory, interrupt, terms, running: Vec::new(), idle }
    }

    /// How many there are.
    pub fn count(&self) -> u16 {
        u16::try_from(self.idle.len()).unwrap_or(u16::MAX)
    }

    /// Lets the first `count` work, 1 to [`Self::count`], and no others. Nobody works where it fails and those that worked
    /// before cannot go on.
    ///
    /// # Errors
    /// What the link said.
    pub fn set(&mut self, count: u16) -> io::Result<()> {
        let before = self.running.len();
        if before == usize::from(count) {
            return Ok(());
        }
        self.stop();
        let opened = self.start(count);
        let again = u16::try_from(before).unwrap_or(1);
        if opened.is_err() && again > 0 && self.start(again).is_ok() {
            return opened;
        }
        if let Err(error) = &opened {
            self.shared.carrier.fail("it could not be opened", error, self.interrupt.as_ref());
        }
        opened
    }

    fn stop(&mut self) {
        for (idle, running) in self.idle.iter_mut().zip(self.running.drain(..)) {
            idle.receive = running.receive.and_then(ReceiveWorker::stop);
            idle.transmit = running.transmit.and_then(QueueWorker::stop);
        }
    }

    fn start(&mut self, count: u16) -> io::Result<()> {
        // No port is open now. Without this the guest might get what it has not agreed to.
        self.shared.link.agree(self.terms.to_guest)?;
        let ports = self.shared.link.open(count)?;
        if ports.len() != usize::from(count) {
            return Err(io::Error::other(format!("{count} ports were asked for and {} are there", ports.len())));
        }
        for (index, port) in (0_u16..).zip(ports) {
            let pair = self.idle.get_mut(usize::from(index)).map(std::mem::take).unwrap_or_default();
            let running = self.run(index, pair, port);
            self.running.push(running);
        }
        if self.shared.carrier.mend() {
            self.interrupt.config();
        }
        Ok(())
    }

    fn run(&self, index: u16, pair: Pair, port: Port) -> Running {
        let Port { sender, receiver } = port;
        let (memory, interrupt) = (|| self.memory.clone(), || self.interrupt.clone());
        let receive = pair.receive.and_then(|queue| {
            let work = Work { shared: self.shared.clone(), receiver, terms: self.terms };
            let name = format!("virtio-net-rx{index}");
            self.started(ReceiveWorker::start(name, 2 * index, queue, memory(), interrupt(), work))
        });
        let transmit = pair.transmit.and_then(|queue| {
            let kick = queue.kick.clone();
            let agreed = self.terms.to_host;
            let handler = Transmitter { shared: self.shared.clone(), sender, agreed, interrupt: interrupt() };
            let name = format!("virtio-net-tx{index}");
            let worker =
                self.started(QueueWorker::start(name, 2 * index + 1, queue, memory(), interrupt(), handler))?;
            // For what is in the ring already.
            let _ = kick.write(1);
            Some(worker)
        });
        Running { receive, transmit }
    }

    fn started<T>(&self, worker: io::Result<T>) -> Option<T> {
        worker.inspect_err(|error| self.interrupt.needs_reset(&format!("no thread for a queue: {error}"))).ok()
    }
}
