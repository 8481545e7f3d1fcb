//! What the driver of a device wrote, and when it may write what: the status machine (virtio 1.2, sections 2.1 and 3.1),
//! features and queues, as plain data. Every transport puts its own registers in front of it.
//!
//! ```text
//!   0 ──► ACKNOWLEDGE ──► DRIVER ─────────► FEATURES_OK ──────────► DRIVER_OK
//!                         features written                           nothing but reset
//!                         ────────── queues set up ──────────►
//! ```

use serde::Serialize;
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE as ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER as DRIVER,
    VIRTIO_CONFIG_S_DRIVER_OK as DRIVER_OK, VIRTIO_CONFIG_S_FAILED as FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK as FEATURES_OK, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use crate::vmm::memory::GuestMemory;

const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;

/// A queue as the driver describes it; unchecked until `DRIVER_OK`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QueueRegisters {
    /// The largest size, in descriptors.
    pub max_size: u16,
    /// The size the driver chose.
    pub size: u32,
    /// The driver has set it up.
    pub ready: bool,
    /// Guest physical address of the descriptor table.
    pub desc: u64,
    /// Guest physical address of the available ring.
    pub driver: u64,
    /// Guest physical address of the used ring.
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

/// What a write of the device status asks of the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusChange {
    /// Nothing more.
    None,
    /// Device and registers are to be reset.
    Reset,
    /// `DRIVER_OK` was just set: the device is to be activated.
    DriverOk,
}

/// What the guest can see of a device, but for what the device changes on its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceState {
    device_type: u32,
    device_features: u64,
    status: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    queues: Vec<QueueRegisters>,
}

impl DeviceState {
    /// A device after a reset. `VIRTIO_F_VERSION_1` is added to its features.
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

    /// The driver's part of the device status.
    #[must_use]
    pub fn status(&self) -> u32 {
        self.status
    }

    /// The features the driver accepted.
    #[must_use]
    pub fn driver_features(&self) -> u64 {
        self.driver_features
    }

    /// Device type (section 5).
    #[must_use]
    pub fn device_type(&self) -> u32 {
        self.device_type
    }

    /// How many queues the device has.
    #[must_use]
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// Which 32 feature bits [`Self::offered`] gives: 0 the low ones, 1 the high ones.
    pub fn select_offered(&mut self, sel: u32) {
        self.device_features_sel = sel;
    }

    /// Which half [`Self::offered`] gives.
    #[must_use]
    pub fn offered_sel(&self) -> u32 {
        self.device_features_sel
    }

    /// The selected half of the features that the device offers.
    #[must_use]
    pub fn offered(&self) -> u32 {
        half(self.device_features, self.device_features_sel)
    }

    /// Which 32 feature bits [`Self::accept`] sets.
    pub fn select_accepted(&mut self, sel: u32) {
        self.driver_features_sel = sel;
    }

    /// Which half [`Self::accept`] sets.
    #[must_use]
    pub fn accepted_sel(&self) -> u32 {
        self.driver_features_sel
    }

    /// The selected half of the features that the driver accepted.
    #[must_use]
    pub fn accepted(&self) -> u32 {
        half(self.driver_features, self.driver_features_sel)
    }

    /// The driver accepts features; heeded between `DRIVER` and `FEATURES_OK` (section 3.1.1).
    pub fn accept(&mut self, value: u32) {
        if self.status & (DRIVER | FEATURES_OK | FAILED) == DRIVER {
            set_half(&mut self.driver_features, self.driver_features_sel, value);
        }
    }

    /// Which queue the driver means from now on.
    pub fn select_queue(&mut self, index: u32) {
        self.queue_sel = index;
    }

    /// The index that the driver selected, whether or not there is such a queue.
    #[must_use]
    pub fn queue_sel(&self) -> u32 {
        self.queue_sel
    }

    /// The selected queue, if there is one.
    #[must_use]
    pub fn queue(&self) -> Option<&QueueRegisters> {
        usize::try_from(self.queue_sel).ok().and_then(|index| self.queues.get(index))
    }

    /// Changes the selected queue where it may be changed: between `DRIVER` and `DRIVER_OK`, and not while it is ready.
    ///
    /// A driver should wait for `FEATURES_OK` (section 3.1.1), but SeaBIOS before 1.16.2 sets its queues up first. Nothing
    /// depends on it: queues are checked and built at `DRIVER_OK`.
    pub fn change_queue(&mut self, change: impl FnOnce(&mut QueueRegisters)) {
        if let Some(queue) = self.changeable_queue().filter(|queue| !queue.ready) {
            change(queue);
        }
    }

    /// Makes the selected queue ready, or takes that back, while queues may be changed.
    pub fn set_queue_ready(&mut self, ready: bool) {
        if let Some(queue) = self.changeable_queue() {
            queue.ready = ready;
        }
    }

    fn changeable_queue(&mut self) -> Option<&mut QueueRegisters> {
        if self.status & (DRIVER | DRIVER_OK | FAILED) != DRIVER {
            return None;
        }
        usize::try_from(self.queue_sel).ok().and_then(|index| self.queues.get_mut(index))
    }

    /// Writes the device status. Bits are only ever added, each only after the one before it; a write that would clear any but
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
pub fn set_half(target: &mut u64, sel: u32, value: u32) {
    match sel {
        0 => *target = (*target & !u64::from(u32::MAX)) | u64::from(value),
        1 => *target = (*target & u64::from(u32::MAX)) | (u64::from(value) << 32),
        _ => {}
    }
}
