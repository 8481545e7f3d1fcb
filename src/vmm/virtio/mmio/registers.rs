//! The register file of virtio-mmio (virtio 1.2, section 4.2.2) and the status machine (sections 2.1 and 3.1), as plain
//! data: what the driver wrote, and when it may write what.
//!
//! ```text
//!   0 ──► ACKNOWLEDGE ──► DRIVER ─────────► FEATURES_OK ──────────► DRIVER_OK
//!                         features written   queues set up           nothing but reset
//! ```

use serde::Serialize;
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE as ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER as DRIVER,
    VIRTIO_CONFIG_S_DRIVER_OK as DRIVER_OK, VIRTIO_CONFIG_S_FAILED as FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK as FEATURES_OK, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio as reg;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use crate::vmm::memory::GuestMemory;

/// `MagicValue`: "virt".
const MAGIC: u32 = 0x7472_6976;
/// `Version` of devices that are not legacy.
const VERSION: u32 = 2;
/// `VendorID`: "AMIB".
const VENDOR: u32 = 0x4249_4d41;
/// What the shared memory registers read for a region that does not exist (section 4.2.2).
const NO_REGION: u32 = u32::MAX;

const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;

/// A queue as the driver describes it; unchecked until `DRIVER_OK`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QueueRegisters {
    /// `QueueNumMax`: the largest size, in descriptors.
    pub max_size: u16,
    /// `QueueNum`: the size the driver chose.
    pub size: u32,
    /// `QueueReady`.
    pub ready: bool,
    /// `QueueDesc`: guest physical address of the descriptor table.
    pub desc: u64,
    /// `QueueDriver`: guest physical address of the available ring.
    pub driver: u64,
    /// `QueueDevice`: guest physical address of the used ring.
    pub device: u64,
}

impl QueueRegisters {
    fn new(max_size: u16) -> Self {
        Self { max_size, size: max_size.into(), ..Self::default() }
    }

    fn build(&self, event_idx: bool, memory: &GuestMemory) -> Result<Queue, String> {
        let size = u16::try_from(self.size).map_err(|_| format!("its size of {} is too large", self.size))?;
        let mut queue = Queue::new(self.max_size).map_err(|error| error.to_string())?;
        queue
            .try_set_size(size)
            .and_then(|()| queue.try_set_desc_table_address(GuestAddress(self.desc)))
            .and_then(|()| queue.try_set_avail_ring_address(GuestAddress(self.driver)))
            .and_then(|()| queue.try_set_used_ring_address(GuestAddress(self.device)))
            .map_err(|error| error.to_string())?;
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        if queue.is_valid(memory) { Ok(queue) } else { Err("its rings are not in guest memory".into()) }
    }
}

/// What a write to `Status` asks of the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusChange {
    /// Nothing more.
    None,
    /// Device and registers are to be reset.
    Reset,
    /// `DRIVER_OK` was just set: the device is to be activated.
    DriverOk,
}

/// What the guest can see of a transport, but for what the device changes on its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Registers {
    device_type: u32,
    device_features: u64,
    status: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    queues: Vec<QueueRegisters>,
}

impl Registers {
    /// The registers of a device after a reset. `VIRTIO_F_VERSION_1` is added to its features.
    #[must_use]
    pub fn new(device_type: u32, device_features: u64, queue_sizes: &[u16]) -> Self {
        Self {
            device_type,
            device_features: device_features | VERSION_1,
            status: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            queues: queue_sizes.iter().map(|&size| QueueRegisters::new(size)).collect(),
        }
    }

    /// Forgets all that the driver wrote.
    pub fn reset(&mut self) {
        let sizes: Vec<u16> = self.queues.iter().map(|queue| queue.max_size).collect();
        *self = Self::new(self.device_type, self.device_features, &sizes);
    }

    /// The driver's part of `Status`.
    #[must_use]
    pub fn status(&self) -> u32 {
        self.status
    }

    /// The features the driver accepted.
    #[must_use]
    pub fn driver_features(&self) -> u64 {
        self.driver_features
    }

    /// Reads a register; those that are write-only or not there read as zero.
    #[must_use]
    pub fn read(&self, offset: u32) -> u32 {
        match offset {
            reg::VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            reg::VIRTIO_MMIO_VERSION => VERSION,
            reg::VIRTIO_MMIO_DEVICE_ID => self.device_type,
            reg::VIRTIO_MMIO_VENDOR_ID => VENDOR,
            reg::VIRTIO_MMIO_DEVICE_FEATURES => half(self.device_features, self.device_features_sel),
            reg::VIRTIO_MMIO_QUEUE_NUM_MAX => self.selected().map_or(0, |queue| queue.max_size.into()),
            reg::VIRTIO_MMIO_QUEUE_READY => self.selected().map_or(0, |queue| queue.ready.into()),
            reg::VIRTIO_MMIO_SHM_LEN_LOW
            | reg::VIRTIO_MMIO_SHM_LEN_HIGH
            | reg::VIRTIO_MMIO_SHM_BASE_LOW
            | reg::VIRTIO_MMIO_SHM_BASE_HIGH => NO_REGION,
            _ => 0,
        }
    }

    /// Writes a register other than `Status`; what the driver may not write now is ignored.
    pub fn write(&mut self, offset: u32, value: u32) {
        match offset {
            reg::VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.device_features_sel = value,
            reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            reg::VIRTIO_MMIO_QUEUE_SEL => self.queue_sel = value,
            reg::VIRTIO_MMIO_DRIVER_FEATURES => self.write_features(value),
            _ => self.write_queue(offset, value),
        }
    }

    fn write_features(&mut self, value: u32) {
        if self.status & (DRIVER | FEATURES_OK | FAILED) == DRIVER {
            set_half(&mut self.driver_features, self.driver_features_sel, value);
        }
    }

    /// Queues are set up between `FEATURES_OK` and `DRIVER_OK` (section 3.1.1), and a ready queue is not changed.
    fn write_queue(&mut self, offset: u32, value: u32) {
        if self.status & (FEATURES_OK | DRIVER_OK | FAILED) != FEATURES_OK {
            return;
        }
        let Some(queue) = usize::try_from(self.queue_sel).ok().and_then(|index| self.queues.get_mut(index)) else {
            return;
        };
        if offset == reg::VIRTIO_MMIO_QUEUE_READY {
            queue.ready = value & 1 != 0;
            return;
        }
        if queue.ready {
            return;
        }
        match offset {
            reg::VIRTIO_MMIO_QUEUE_NUM => queue.size = value,
            reg::VIRTIO_MMIO_QUEUE_DESC_LOW => set_half(&mut queue.desc, 0, value),
            reg::VIRTIO_MMIO_QUEUE_DESC_HIGH => set_half(&mut queue.desc, 1, value),
            reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW => set_half(&mut queue.driver, 0, value),
            reg::VIRTIO_MMIO_QUEUE_AVAIL_HIGH => set_half(&mut queue.driver, 1, value),
            reg::VIRTIO_MMIO_QUEUE_USED_LOW => set_half(&mut queue.device, 0, value),
            reg::VIRTIO_MMIO_QUEUE_USED_HIGH => set_half(&mut queue.device, 1, value),
            _ => {}
        }
    }

    /// Writes `Status`. Bits are only ever added, each only after the one before it; a write that would clear any but
    /// not all is ignored, and after `FAILED` only a reset counts.
    pub fn write_status(&mut self, value: u32) -> StatusChange {
        if value == 0 {
            return StatusChange::Reset;
        }
        if self.status & !value != 0 || self.status & FAILED != 0 {
            return StatusChange::None;
        }
        if value & FAILED != 0 {
            self.status |= FAILED;
            return StatusChange::None;
        }
        let was = self.status;
        for (bit, before) in [
            (ACKNOWLEDGE, 0),
            (DRIVER, ACKNOWLEDGE),
            (FEATURES_OK, ACKNOWLEDGE | DRIVER),
            (DRIVER_OK, ACKNOWLEDGE | DRIVER | FEATURES_OK),
        ] {
            let allowed = self.status & before == before && (bit != FEATURES_OK || self.features_acceptable());
            if value & bit != 0 && allowed {
                self.status |= bit;
            }
        }
        if (self.status & !was) & DRIVER_OK != 0 { StatusChange::DriverOk } else { StatusChange::None }
    }

    fn features_acceptable(&self) -> bool {
        self.driver_features & !self.device_features == 0 && self.driver_features & VERSION_1 != 0
    }

    /// The queues that the driver made ready, checked: a legal size, aligned rings, all of them in guest memory.
    ///
    /// # Errors
    /// Which queue is wrong, and how.
    pub fn build_queues(&self, memory: &GuestMemory) -> Result<Vec<Option<Queue>>, String> {
        let event_idx = self.driver_features & EVENT_IDX != 0;
        self.queues
            .iter()
            .enumerate()
            .map(|(index, queue)| match queue.ready {
                false => Ok(None),
                true => queue.build(event_idx, memory).map(Some).map_err(|why| format!("queue {index}: {why}")),
            })
            .collect()
    }

    fn selected(&self) -> Option<&QueueRegisters> {
        usize::try_from(self.queue_sel).ok().and_then(|index| self.queues.get(index))
    }
}

/// The low or the high 32 bits; there is nothing above.
fn half(value: u64, sel: u32) -> u32 {
    let shift = match sel {
        0 => 0,
        1 => 32,
        _ => return 0,
    };
    u32::try_from((value >> shift) & u64::from(u32::MAX)).unwrap_or_default()
}

/// Replaces the low or the high 32 bits.
fn set_half(target: &mut u64, sel: u32, value: u32) {
    match sel {
        0 => *target = (*target & !u64::from(u32::MAX)) | u64::from(value),
        1 => *target = (*target & u64::from(u32::MAX)) | (u64::from(value) << 32),
        _ => {}
    }
}
