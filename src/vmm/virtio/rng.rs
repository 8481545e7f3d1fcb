//! The entropy device (virtio 1.2, section 5.4).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::rand::{GetRandomFlags, getrandom};
use serde::Serialize;
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, Permissions};

use super::chain::{Buffers, slices};
use super::worker::{QueueHandler, QueueWorker, RING_FEATURES};
use super::{ActivateError, Activation, VirtioDevice};
use crate::vmm::memory::GuestMemory;

/// The most bytes that one request gets: a driver that wants more asks again, and one that asks for gigabytes cannot
/// keep the worker busy.
pub const MAX_BYTES: usize = 64 * 1024;

const QUEUE_SIZES: [u16; 1] = [64];

/// What the device has done; readable while it runs.
#[derive(Debug, Default, Serialize)]
pub struct RngCounters {
    /// Requests served.
    pub requests: AtomicU64,
    /// Random bytes given.
    pub bytes: AtomicU64,
    /// Requests that were no chain, whose buffers were not memory, or for which the host gave nothing.
    pub errors: AtomicU64,
}

/// Gives the guest the host's random bytes.
#[derive(Default)]
pub struct Rng {
    counters: Arc<RngCounters>,
    worker: Option<QueueWorker>,
}

impl Rng {
    /// A new, idle device.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the device has done.
    #[must_use]
    pub fn counters(&self) -> Arc<RngCounters> {
        self.counters.clone()
    }
}

impl VirtioDevice for Rng {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        RING_FEATURES
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let Activation { memory, queues, interrupt, .. } = activation;
        let Some(active) = queues.into_iter().next().flatten() else { return Ok(()) };
        let handler = Handler { counters: self.counters.clone() };
        let worker = QueueWorker::start("virtio-rng".into(), 0, active, memory, interrupt, handler)
            .map_err(|error| ActivateError { device: "random number", reason: format!("no thread: {error}") })?;
        self.worker = Some(worker);
        Ok(())
    }

    fn reset(&mut self) {
        self.worker = None;
    }
}

struct Handler {
    counters: Arc<RngCounters>,
}

impl QueueHandler for Handler {
    fn serve(&mut self, memory: &GuestMemory, chain: DescriptorChain<&GuestMemory>) -> Option<u32> {
        let given = Buffers::collect(chain).ok().and_then(|buffers| fill(memory, &buffers).ok()).unwrap_or(0);
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes.fetch_add(u64::from(given), Ordering::Relaxed);
        if given == 0 {
            self.counters.errors.fetch_add(1, Ordering::Relaxed);
        }
        Some(given)
    }
}

/// Fills the writable buffers, up to [`MAX_BYTES`].
fn fill(memory: &GuestMemory, buffers: &Buffers) -> io::Result<u32> {
    let slices = slices(memory, &buffers.writable, Permissions::Write).ok_or(io::ErrorKind::InvalidInput)?;
    let mut given = 0;
    // Random bytes go through the stack, because the system call takes no volatile memory.
    let mut random = [0; 4096];
    for slice in slices {
        let mut at = 0;
        while at < slice.len() && given < MAX_BYTES {
            let len = random.len().min(slice.len() - at).min(MAX_BYTES - given);
            let got = match getrandom(random.get_mut(..len).unwrap_or_default(), GetRandomFlags::empty()) {
                Ok(got) => got,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            slice.write_slice(random.get(..got).unwrap_or_default(), at).map_err(io::Error::other)?;
            at += got;
            given += got;
        }
    }
    u32::try_from(given).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::super::testing::attachment::{Attachment, on_every_transport};
    use super::super::testing::*;
    use super::*;

    fn driver<T: Attachment>() -> (DriverOn<T>, Arc<RngCounters>) {
        let device = Rng::new();
        let counters = device.counters();
        (DriverOn::started(Box::new(device), VERSION_1 | EVENT_IDX, 8), counters)
    }

    on_every_transport!(
        buffers_are_filled_and_nothing_beside_them,
        a_request_gets_no_more_than_its_share,
        what_cannot_be_written_gets_nothing,
        it_works_again_after_a_reset,
    );

    fn buffers_are_filled_and_nothing_beside_them<T: Attachment>() {
        let (mut driver, _) = driver::<T>();
        assert_eq!(driver.submit(&[(DATA, 100, true), (SEAM - 3000, 6000, true)]), 6100);
        assert_eq!(driver.take(DATA + 100, 100), [0; 100]);
        for (addr, len) in [(DATA, 100), (SEAM - 3000, 6000)] {
            let bytes = driver.take(addr, len);
            // Sixteen zeroes in a row are not random.
            assert!(bytes.chunks_exact(16).all(|run| run != [0; 16]), "{addr:#x}");
        }
        assert_eq!(driver.take(SEAM + 3000, 100), [0; 100]);
    }

    fn a_request_gets_no_more_than_its_share<T: Attachment>() {
        let (mut driver, counters) = driver::<T>();
        assert_eq!(driver.submit(&[(DATA, 0x1_8000, true), (SEAM, 64, true)]), 0x1_0000);
        assert_eq!(driver.take(DATA + 0x1_0000, 0x8000), [0; 0x8000]);
        assert_eq!(driver.take(SEAM, 64), [0; 64]);
        assert_eq!(counters.bytes.load(Ordering::SeqCst), 0x1_0000);
    }

    fn what_cannot_be_written_gets_nothing<T: Attachment>() {
        let (mut driver, counters) = driver::<T>();
        for buffers in [
            vec![(DATA, 64, false)],
            vec![(DATA, 0, true)],
            vec![(DATA, 64, true), (HOLE, 1, true)],
            vec![(DATA, u32::MAX, true)],
            vec![(DATA, 64, true), (DATA, 1, false)],
        ] {
            assert_eq!(driver.submit(&buffers), 0, "{buffers:x?}");
        }
        assert_eq!(driver.take(DATA, 64), [0; 64]);
        assert_eq!(counters.errors.load(Ordering::SeqCst), 5);
        assert_eq!(driver.submit(&[(DATA, 1, true)]), 1);
    }

    fn it_works_again_after_a_reset<T: Attachment>() {
        let (mut driver, _) = driver::<T>();
        driver.submit(&[(DATA, 1, true)]);
        driver.set_status(0);
        driver.start(VERSION_1 | INDIRECT_DESC, 4);
        assert_eq!(driver.submit_indirect(&[(DATA, 1, true), (DATA, 1, true)]), 2);
    }
}
