//! Whether the card's link is up, and what becomes known of its failures.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::{Interrupt, Log};

/// Whether the link is up, as the driver sees it (virtio 1.2, section 5.1.4).
pub struct Carrier {
    /// Somebody has pulled the cable.
    pulled: AtomicBool,
    /// The host has failed at the other end.
    failed: AtomicBool,
    log: Log,
}

impl Carrier {
    /// A link that is up.
    pub fn new(log: Log) -> Self {
        Self { pulled: AtomicBool::new(false), failed: AtomicBool::new(false), log }
    }

    /// Whether frames go through.
    pub fn is_up(&self) -> bool {
        !self.pulled.load(Ordering::Acquire) && !self.failed.load(Ordering::Acquire)
    }

    /// Plugs the cable in, or pulls it; tells whether that has changed anything.
    pub fn set(&self, up: bool) -> bool {
        let before = self.is_up();
        self.pulled.store(!up, Ordering::Release);
        before != self.is_up()
    }

    /// The host can do no more for the link until it is opened anew: tells driver and log, once.
    pub fn fail(&self, what: &str, error: &dyn Display, interrupt: &dyn Interrupt) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            (self.log)(&format!("network: {what}: {error}; the guest's link is down until its driver starts again"));
            interrupt.config();
        }
    }

    /// The link was opened anew; tells whether it had failed.
    pub fn mend(&self) -> bool {
        self.failed.swap(false, Ordering::AcqRel)
    }
}
