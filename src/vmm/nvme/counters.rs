//! What a controller has done.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// What the controller has done since it was made, across its resets; readable while it runs.
#[derive(Debug, Default, Serialize)]
pub struct NvmeCounters {
    /// Reads that succeeded.
    pub reads: AtomicU64,
    /// Writes that succeeded.
    pub writes: AtomicU64,
    /// Flushes that succeeded.
    pub flushes: AtomicU64,
    /// Write Zeroes commands that succeeded.
    pub write_zeroes: AtomicU64,
    /// Dataset Management commands that succeeded.
    pub dataset_managements: AtomicU64,
    /// Compare commands that found the same.
    pub compares: AtomicU64,
    /// Bytes read from the disk for the guest.
    pub read_bytes: AtomicU64,
    /// Bytes written to the disk, without zeroes.
    pub written_bytes: AtomicU64,
    /// Admin commands, whatever became of them.
    pub admin_commands: AtomicU64,
    /// Commands that the host could not do.
    pub host_errors: AtomicU64,
    /// Commands refused because of what the driver asked.
    pub refused: AtomicU64,
    /// Writes to doorbells of queues that do not exist, or with values beyond their queue.
    pub bad_doorbells: AtomicU64,
    /// Register accesses of a width or at a place that no register has, and writes that came at the wrong time.
    pub bad_accesses: AtomicU64,
    /// Times that the controller was enabled.
    pub enabled: AtomicU64,
    /// Times that the controller went into its fatal status.
    pub fatal: AtomicU64,
}

impl NvmeCounters {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
