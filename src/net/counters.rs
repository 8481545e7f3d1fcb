//! What a link has done.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// What a link has done; readable while it runs.
#[derive(Debug, Default, Serialize)]
pub struct NetCounters {
    /// Frames that the guest sent.
    pub sent_frames: AtomicU64,
    /// Their bytes, without the header before each.
    pub sent_bytes: AtomicU64,
    /// Frames that the guest was given.
    pub received_frames: AtomicU64,
    /// Their bytes, without the header before each.
    pub received_bytes: AtomicU64,
    /// The guest's frames that went to the link's own services.
    pub to_services: AtomicU64,
    /// The guest's frames that went to the world outside.
    pub to_outside: AtomicU64,
    /// The guest's frames that went to other instances.
    pub to_neighbours: AtomicU64,
    /// Dropped: cut short, too long, or contradicting themselves.
    pub dropped_malformed: AtomicU64,
    /// Dropped: from an address that is not the guest's.
    pub dropped_source: AtomicU64,
    /// Dropped: to an address that nothing is sent to: loopback, multicast, other link-local ones.
    pub dropped_destination: AtomicU64,
    /// Dropped: of a protocol that the link does not carry.
    pub dropped_protocol: AtomicU64,
    /// Dropped: no room where it should go.
    pub dropped_full: AtomicU64,
    /// Dropped on the way to the guest: not for it, not from whom it says, or no room in its buffers.
    pub dropped_incoming: AtomicU64,
    /// Connections to the link's own services that were opened.
    pub connections: AtomicU64,
    /// Connections given up to make room for newer ones.
    pub connections_evicted: AtomicU64,
    /// Connections given up because nothing came for too long.
    pub connections_idle: AtomicU64,
}

impl NetCounters {
    /// One more.
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// One more frame from the guest.
    pub(super) fn count_sent(&self, bytes: usize) {
        Self::count(&self.sent_frames);
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// One more frame to the guest.
    pub(super) fn count_received(&self, bytes: usize) {
        Self::count(&self.received_frames);
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
