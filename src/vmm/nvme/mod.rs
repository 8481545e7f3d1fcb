//! An NVMe 1.4 controller with one namespace over a disk, as EC2's Nitro instances see each of their volumes.
//!
//! * [`function`]: the PCI function that holds it;
//! * [`registers`]: what the guest sees at its addresses: properties, doorbells, enable, shutdown;
//! * [`doorbell`]: the one thing that processors and the worker share, without a lock;
//! * [`worker`]: the thread that serves all queues; stopped and joined before the queues are given up;
//! * [`engine`]: the queues, the order in which they are served, asynchronous events;
//! * [`queue`], [`command`], [`prp`]: rings, entries and data pointers in guest memory, checked;
//! * [`admin`], [`identify`], [`features`], [`log_page`], [`io`]: the commands.
//!
//! Section numbers are those of the NVM Express Base Specification 1.4.

mod admin;
mod command;
mod counters;
mod doorbell;
mod engine;
mod features;
#[cfg(test)]
mod flight_tests;
mod function;
#[cfg(test)]
mod hostile_tests;
mod identify;
mod identity;
mod io;
#[cfg(test)]
mod io_tests;
mod log_page;
#[cfg(test)]
mod model_tests;
mod prp;
mod queue;
#[cfg(test)]
mod queue_tests;
mod registers;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod worker;

pub use counters::NvmeCounters;
pub use function::NvmeFunction;
pub use identity::Identity;
pub use registers::{Nvme, NvmeState, QueueState};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

use self::doorbell::Doorbells;
use super::memory::GuestMemory;
use crate::disk::{Disk, Engine};

/// Bytes of the register space: properties, and from 0x1000 the doorbells (section 3.1). What else the same BAR holds,
/// as an MSI-X table, begins here or later.
pub const REGISTERS_LEN: u64 = 0x2000;
/// The most I/O queue pairs of a controller.
pub const MAX_QUEUES: u16 = 64;
/// The most entries of a queue (CAP.MQES + 1).
pub const MAX_ENTRIES: u16 = 1024;

/// Memory page size in bytes; the only one supported (CAP.MPSMIN = CAP.MPSMAX = 0).
const PAGE: u64 = 4096;
/// The largest transfer as a power of two of pages: 1 MiB (section 5.15.2.2, MDTS).
const MDTS: u8 = 8;
/// The largest transfer in bytes.
const MAX_TRANSFER: u64 = PAGE << MDTS;
/// The only namespace.
const NAMESPACE: u32 = 1;
/// All namespaces.
const BROADCAST: u32 = u32::MAX;
/// Version 1.4.0 (section 3.1.2).
const VERSION: u32 = 0x0001_0400;
/// Failures that are told one by one; those after them are only counted.
const LOGGED_FAILURES: u32 = 8;

/// Where a device says, seldom and in one line each, what a person should know.
pub type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// How the controller calls its driver: MSI-X behind PCI. Called from the worker thread.
pub trait Interrupts: Send + Sync {
    /// Sends the message of a vector; whether it is masked is not the controller's business.
    fn raise(&self, vector: u16);
}

/// What a controller is made of.
pub struct Setup {
    /// The disk behind the namespace.
    pub disk: Arc<dyn Disk>,
    /// How its requests are done.
    pub engine: Engine,
    /// How it presents itself.
    pub identity: Identity,
    /// Guest memory.
    pub memory: GuestMemory,
    /// How to call the driver.
    pub interrupts: Arc<dyn Interrupts>,
    /// Interrupt vectors that there are; at least one.
    pub vectors: u16,
    /// I/O queue pairs; brought into 1 to [`MAX_QUEUES`].
    pub queues: u16,
    /// Where to tell what a person should know.
    pub log: Log,
}

/// Bits of CSTS (section 3.1.6).
mod status_bits {
    pub const READY: u32 = 1;
    pub const FATAL: u32 = 1 << 1;
    pub const SHUTDOWN: u32 = 3 << 2;
    pub const SHUTDOWN_OCCURRING: u32 = 1 << 2;
    pub const SHUTDOWN_COMPLETE: u32 = 2 << 2;
}

/// What processors, through the registers, and the worker share.
struct Shared {
    disk: Arc<dyn Disk>,
    engine: Engine,
    identity: Identity,
    memory: GuestMemory,
    interrupts: Arc<dyn Interrupts>,
    vectors: u16,
    queues: u16,
    log: Log,
    logged: AtomicU32,
    counters: Arc<NvmeCounters>,
    /// CC, as written.
    configuration: AtomicU32,
    /// CSTS.
    status: AtomicU32,
    doorbells: Doorbells,
    /// Bad doorbell writes that the worker has not looked at yet: bits of [`engine::Event`].
    bad_doorbells: AtomicU32,
    /// The disk has another size than before, which the worker has not looked at yet.
    resized: AtomicBool,
    /// The worker is to make the disk durable and to say so in CSTS.
    shutdown: AtomicBool,
    stop: AtomicBool,
    /// The worker sleeps or is about to: whoever has news must kick.
    idle: AtomicBool,
    /// A completion queue was full: its head doorbell is news too.
    starved: AtomicBool,
    kick: EventFd,
}

impl Shared {
    fn new(setup: Setup) -> std::io::Result<Self> {
        let queues = setup.queues.clamp(1, MAX_QUEUES);
        Ok(Self {
            disk: setup.disk,
            engine: setup.engine,
            identity: setup.identity,
            memory: setup.memory,
            interrupts: setup.interrupts,
            vectors: setup.vectors.max(1),
            queues,
            log: setup.log,
            logged: AtomicU32::new(0),
            counters: Arc::default(),
            configuration: AtomicU32::new(0),
            status: AtomicU32::new(0),
            doorbells: Doorbells::new(queues),
            bad_doorbells: AtomicU32::new(0),
            resized: AtomicBool::new(false),
            shutdown: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            idle: AtomicBool::new(false),
            starved: AtomicBool::new(false),
            kick: EventFd::new(EFD_CLOEXEC)?,
        })
    }

    /// Tells the worker that there is news.
    fn wake(&self) {
        if self.idle.swap(false, Ordering::SeqCst) {
            self.kick();
        }
    }

    fn kick(&self) {
        // Fails only where the counter is full, and then the worker is awake anyway.
        let _ = self.kick.write(1);
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The controller cannot go on until it is reset (section 9.5).
    fn fatal(&self, why: &str) {
        NvmeCounters::count(&self.counters.fatal);
        self.status.fetch_or(status_bits::FATAL, Ordering::SeqCst);
        self.tell(&format!("NVMe controller {}: {why}", self.identity.serial()));
    }

    /// A failure of the host.
    fn host_error(&self, what: &str, offset: u64, error: &std::io::Error) {
        NvmeCounters::count(&self.counters.host_errors);
        self.tell(&format!("disk {}: {what} at byte {offset} failed: {error}", self.identity.serial()));
    }

    /// Saturates: the guest decides how often this happens.
    fn tell(&self, line: &str) {
        let update = |logged: u32| (logged < LOGGED_FAILURES).then_some(logged + 1);
        let Ok(before) = self.logged.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update) else { return };
        let last = if before + 1 == LOGGED_FAILURES { "; further failures are counted, not told" } else { "" };
        (self.log)(&format!("{line}{last}"));
    }
}
