//! A serial port with a name (virtio 1.2, section 5.3): the console device with one port, which is no console.
//!
//! Port 0 is reserved for a console, so the port is number 1. Its queues come behind those of the controls:
//!
//! ```text
//!   0 receive, 1 transmit: port 0       2 receive, 3 transmit: controls       4 receive, 5 transmit: port 1
//! ```
//!
//! * [`control`]: how the driver learns of the port, and the device of who has it open;
//! * [`to_guest`], [`to_host`]: the two directions, a thread for each queue;
//! * [`channel`]: the host's end.

pub mod channel;
mod control;
mod to_guest;
mod to_host;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

use self::channel::Channel;
use self::control::{Listening, Ports, Told};
use self::to_guest::ToGuest;
use self::to_host::ToHost;
use super::worker::{QueueHandler, QueueWorker, RING_FEATURES};
use super::{ActivateError, Activation, VirtioDevice};

/// The name by which guests know the port of their agent.
pub const AGENT_PORT: &str = "org.qemu.guest_agent.0";

/// The device has ports, and queues that control them (section 5.3.3).
const MULTIPORT: u64 = 1 << 1;
/// The number of the port.
const PORT: u32 = 1;
/// How many ports there may be: port 0 counts, though it is none.
const PORTS_MAX: u32 = 2;
/// Few: a driver fills receive queues with buffers of a page each.
const QUEUE_SIZES: [u16; 6] = [16; 6];

/// What the device has done; readable while it runs.
#[derive(Debug, Default, Serialize)]
pub struct ConsoleCounters {
    /// Bytes that were given to the guest, messages about the port included.
    pub to_guest_bytes: AtomicU64,
    /// Bytes of the guest that the host has got.
    pub to_host_bytes: AtomicU64,
    /// Messages of the driver that were heeded.
    pub messages: AtomicU64,
    /// Those that made no sense.
    pub messages_refused: AtomicU64,
    /// Chains that were none, or whose buffers were not memory, or too short for what must fit.
    pub malformed: AtomicU64,
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// A device with one port.
pub struct Console {
    name: &'static str,
    channel: Arc<Channel>,
    counters: Arc<ConsoleCounters>,
    workers: Vec<QueueWorker>,
}

impl Console {
    /// A new, idle device whose port has this name, and the host's end of it in `channel`.
    #[must_use]
    pub fn new(name: &'static str, channel: Arc<Channel>) -> Self {
        Self { name, channel, counters: Arc::default(), workers: Vec::new() }
    }

    /// What the device has done.
    #[must_use]
    pub fn counters(&self) -> Arc<ConsoleCounters> {
        self.counters.clone()
    }
}

impl VirtioDevice for Console {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        RING_FEATURES | MULTIPORT
    }

    /// struct `virtio_console_config` (section 5.3.4): no columns, no rows, and how many ports there may be.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let [a, b, c, d] = PORTS_MAX.to_le_bytes();
        let config = [0, 0, 0, 0, a, b, c, d];
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        data.iter_mut().zip(config.iter().skip(at)).for_each(|(to, from)| *to = *from);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let fail = |error| ActivateError { device: "agent port", reason: format!("no thread or event: {error}") };
        self.channel.set_open(false);
        let mut starting = Starting { activation, workers: Vec::new() };
        let to_host = |channel| ToHost { channel, counters: self.counters.clone() };
        let started = if starting.activation.features & MULTIPORT == 0 {
            // A driver that knows of no ports has port 0, and waits for what it sends to be taken.
            starting.start(1, "virtio-port0", to_host(None))
        } else {
            Ports::new(self.name, self.channel.clone()).map(Arc::new).and_then(|ports| {
                let counters = || self.counters.clone();
                starting.start(2, "virtio-port-ci", ToGuest::new(Told(ports.clone()), counters()))?;
                starting.start(3, "virtio-port-co", Listening { ports, counters: counters() })?;
                starting.start(4, "virtio-port-in", ToGuest::new(self.channel.clone(), counters()))?;
                starting.start(5, "virtio-port-out", to_host(Some(self.channel.clone())))
            })
        };
        started.map_err(fail)?;
        self.workers = starting.workers;
        Ok(())
    }

    fn reset(&mut self) {
        self.workers.clear();
        // After the last who could say that it is open.
        self.channel.set_open(false);
    }
}

/// The queues on their way to their threads.
struct Starting {
    activation: Activation,
    workers: Vec<QueueWorker>,
}

impl Starting {
    /// Starts a thread for a queue that the driver has set up.
    fn start(&mut self, index: u16, name: &str, handler: impl QueueHandler) -> std::io::Result<()> {
        let Activation { memory, queues, interrupt, .. } = &mut self.activation;
        let Some(active) = queues.get_mut(usize::from(index)).and_then(Option::take) else { return Ok(()) };
        let (memory, interrupt) = (memory.clone(), interrupt.clone());
        self.workers.push(QueueWorker::start(name.into(), index, active, memory, interrupt, handler)?);
        Ok(())
    }
}
