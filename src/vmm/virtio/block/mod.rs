//! The block device (virtio 1.2, section 5.2).

#[cfg(test)]
mod flight_tests;
mod gone;
mod handler;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod model_tests;
pub mod request;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use serde::Serialize;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_ID_BYTES,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use self::gone::Gone;
use self::handler::Handler;
use self::request::{MAX_DISCARD_RANGES, MAX_DISCARD_SECTORS, MAX_ZEROES_RANGES, MAX_ZEROES_SECTORS};
use super::worker::{QueueWorker, RING_FEATURES};
use super::{ActivateError, Activation, ActiveQueue, Interrupt, Log, VirtioDevice};
use crate::disk::{Disk, Engine, SECTOR_SIZE};
use crate::vmm::memory::GuestMemory;

/// Length of the serial number in bytes.
pub const SERIAL_LEN: usize = VIRTIO_BLK_ID_BYTES as usize;
/// The most queues that a device can have.
pub const MAX_QUEUES: u16 = 64;
/// Entries of each queue.
pub const QUEUE_SIZE: u16 = 256;

/// What remains of a queue without indirect descriptors once header and status have their own.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Physical blocks of 4096 bytes, as a power of two of sectors: writes of less make the host read first.
const PHYSICAL_BLOCK_EXP: u8 = 3;
/// Discards of less than 4096 bytes give nothing back.
const DISCARD_ALIGNMENT_SECTORS: u32 = 8;
/// Failures that are told one by one; those after them are only counted.
const LOGGED_FAILURES: u32 = 8;

/// What the device has done; readable while it runs.
#[derive(Debug, Default, Serialize)]
pub struct BlockCounters {
    /// Reads that succeeded.
    pub reads: AtomicU64,
    /// Writes that succeeded.
    pub writes: AtomicU64,
    /// Flushes that the driver asked for and that succeeded.
    pub flushes: AtomicU64,
    /// Discards that succeeded.
    pub discards: AtomicU64,
    /// Requests to write zeroes that succeeded.
    pub write_zeroes: AtomicU64,
    /// Questions for the serial number.
    pub get_ids: AtomicU64,
    /// Bytes read from the disk.
    pub read_bytes: AtomicU64,
    /// Bytes written to the disk, without discards and zeroes.
    pub written_bytes: AtomicU64,
    /// Requests that the host could not do: answered with an I/O error, and told to the log.
    pub host_errors: AtomicU64,
    /// Requests refused because of what the driver asked.
    pub refused: AtomicU64,
    /// Chains that could not even be answered, because they are broken or have no place for a status.
    pub malformed: AtomicU64,
}

/// What all queues of a device share.
struct Shared {
    disk: Arc<dyn Disk>,
    serial: [u8; SERIAL_LEN],
    counters: Arc<BlockCounters>,
    log: Log,
    logged: AtomicU32,
}

impl Shared {
    fn host_error(&self, what: &str, offset: u64, error: &std::io::Error) {
        self.counters.host_errors.fetch_add(1, Ordering::Relaxed);
        // Saturates: the guest decides how often this happens.
        let update = |logged: u32| (logged < LOGGED_FAILURES).then_some(logged + 1);
        let Ok(before) = self.logged.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update) else { return };
        let end = self.serial.iter().position(|&byte| byte == 0).unwrap_or(SERIAL_LEN);
        let serial = String::from_utf8_lossy(self.serial.get(..end).unwrap_or_default());
        let last = if before + 1 == LOGGED_FAILURES { "; further failures are counted, not told" } else { "" };
        (self.log)(&format!("disk {serial}: {what} at byte {offset} failed: {error}{last}"));
    }
}

/// A disk that the guest sees as a virtio block device.
pub struct Block {
    shared: Arc<Shared>,
    queue_sizes: Vec<u16>,
    engine: Engine,
    workers: Vec<(u16, QueueWorker)>,
    /// What workers are started with, while the device is active.
    active: Option<Active>,
}

/// What all queues of an active device have in common.
#[derive(Clone)]
struct Active {
    memory: GuestMemory,
    interrupt: Arc<dyn Interrupt>,
    features: u64,
}

impl Block {
    /// A new, idle device over `disk`. The guest sees the first [`SERIAL_LEN`] bytes of `serial`. `queues` is brought
    /// into 1 to [`MAX_QUEUES`]; each is served by a thread of its own.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, serial: &str, queues: u16, log: Log) -> Self {
        let mut padded = [0; SERIAL_LEN];
        padded.iter_mut().zip(serial.bytes()).for_each(|(to, from)| *to = from);
        let shared = Shared { disk, serial: padded, counters: Arc::default(), log, logged: AtomicU32::new(0) };
        Self {
            shared: Arc::new(shared),
            queue_sizes: vec![QUEUE_SIZE; queues.clamp(1, MAX_QUEUES).into()],
            engine: Engine::of_host(),
            workers: Vec::new(),
            active: None,
        }
    }

    /// The same with requests done in another way than the best that the host has.
    #[must_use]
    pub fn with_engine(self, engine: Engine) -> Self {
        Self { engine, ..self }
    }

    /// What the device has done.
    #[must_use]
    pub fn counters(&self) -> Arc<BlockCounters> {
        self.shared.counters.clone()
    }

    /// struct `virtio_blk_config` (section 5.2.4) up to the fields of write zeroes.
    fn config(&self) -> [u8; 60] {
        let mut config = [0; 60];
        let mut put = |at: usize, bytes: &[u8]| {
            config.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
        };
        let queues = u16::try_from(self.queue_sizes.len()).unwrap_or(MAX_QUEUES);
        put(0, &(self.shared.disk.size() / SECTOR_SIZE).to_le_bytes());
        put(12, &SEG_MAX.to_le_bytes());
        put(20, &512_u32.to_le_bytes());
        put(24, &[PHYSICAL_BLOCK_EXP]);
        put(34, &queues.to_le_bytes());
        put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
        put(40, &MAX_DISCARD_RANGES.to_le_bytes());
        put(44, &DISCARD_ALIGNMENT_SECTORS.to_le_bytes());
        put(48, &MAX_ZEROES_SECTORS.to_le_bytes());
        put(52, &MAX_ZEROES_RANGES.to_le_bytes());
        // write_zeroes_may_unmap
        put(56, &[1]);
        config
    }

    fn start_queue(&self, index: u16, queue: ActiveQueue, active: &Active) -> Result<QueueWorker, ActivateError> {
        let Active { memory, interrupt, features } = active.clone();
        let handler = Handler::new(self.shared.clone(), &memory, features, self.engine);
        QueueWorker::start(format!("virtio-blk-{index}"), index, queue, memory, interrupt, handler)
            .map_err(|error| ActivateError { device: "block", reason: format!("no thread for queue {index}: {error}") })
    }
}

impl VirtioDevice for Block {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn features(&self) -> u64 {
        let mut features = RING_FEATURES
            | 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE
            | 1 << VIRTIO_BLK_F_TOPOLOGY
            | 1 << VIRTIO_BLK_F_FLUSH;
        if self.shared.disk.is_read_only() {
            features |= 1 << VIRTIO_BLK_F_RO;
        } else {
            features |= 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES;
        }
        if self.queue_sizes.len() > 1 {
            features |= 1 << VIRTIO_BLK_F_MQ;
        }
        features
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        data.iter_mut().zip(self.config().iter().skip(at)).for_each(|(to, from)| *to = *from);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let Activation { memory, queues, interrupt, features } = activation;
        let active = Active { memory, interrupt, features };
        self.active = Some(active.clone());
        for (index, queue) in (0..).zip(queues) {
            let Some(queue) = queue else { continue };
            match self.start_queue(index, queue, &active) {
                Ok(worker) => self.workers.push((index, worker)),
                Err(error) => {
                    self.reset();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// What comes after it is answered with errors: a driver that is asked to go finds no request without an answer.
    fn withdraw(&mut self) -> bool {
        let queues: Vec<_> = self.workers.drain(..).map(|(index, worker)| (index, worker.stop())).collect();
        let Shared { disk, serial, counters, log, .. } = &*self.shared;
        let disk = Arc::new(Gone { size: disk.size(), is_read_only: disk.is_read_only() });
        // They are expected to fail: nobody need be told.
        let logged = AtomicU32::new(LOGGED_FAILURES);
        let shared = Shared { disk, serial: *serial, counters: counters.clone(), log: log.clone(), logged };
        self.shared = Arc::new(shared);
        let Some(active) = self.active.clone() else { return true };
        for (index, queue) in queues {
            let Some(queue) = queue else { continue };
            let kick = queue.kick.clone();
            match self.start_queue(index, queue, &active) {
                Ok(worker) => {
                    // For what was left in the ring.
                    let _ = kick.write(1);
                    self.workers.push((index, worker));
                }
                Err(error) => active.interrupt.needs_reset(&error.to_string()),
            }
        }
        true
    }

    fn reset(&mut self) {
        // Each worker ends its request before its thread is joined.
        self.workers.clear();
        self.active = None;
    }
}
