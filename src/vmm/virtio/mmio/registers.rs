//! The register file of virtio-mmio (virtio 1.2, section 4.2.2) in front of a device's state.

use virtio_bindings::virtio_mmio as reg;

use crate::vmm::virtio::state::{DeviceState, set_half};

/// `MagicValue`: "virt".
const MAGIC: u32 = 0x7472_6976;
/// `Version` of devices that are not legacy.
const VERSION: u32 = 2;
/// `VendorID`: "AMIB".
const VENDOR: u32 = 0x4249_4d41;
/// What the shared memory registers read for a region that does not exist (section 4.2.2).
const NO_REGION: u32 = u32::MAX;

/// Reads a register; those that are write-only or not there read as zero.
pub fn read(state: &DeviceState, offset: u32) -> u32 {
    match offset {
        reg::VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
        reg::VIRTIO_MMIO_VERSION => VERSION,
        reg::VIRTIO_MMIO_DEVICE_ID => state.device_type(),
        reg::VIRTIO_MMIO_VENDOR_ID => VENDOR,
        reg::VIRTIO_MMIO_DEVICE_FEATURES => state.offered(),
        reg::VIRTIO_MMIO_QUEUE_NUM_MAX => state.queue().map_or(0, |queue| queue.max_size.into()),
        reg::VIRTIO_MMIO_QUEUE_READY => state.queue().map_or(0, |queue| queue.ready.into()),
        reg::VIRTIO_MMIO_SHM_LEN_LOW
        | reg::VIRTIO_MMIO_SHM_LEN_HIGH
        | reg::VIRTIO_MMIO_SHM_BASE_LOW
        | reg::VIRTIO_MMIO_SHM_BASE_HIGH => NO_REGION,
        _ => 0,
    }
}

/// Writes a register other than `Status`; what the driver may not write now is ignored.
pub fn write(state: &mut DeviceState, offset: u32, value: u32) {
    match offset {
        reg::VIRTIO_MMIO_DEVICE_FEATURES_SEL => state.select_offered(value),
        reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL => state.select_accepted(value),
        reg::VIRTIO_MMIO_QUEUE_SEL => state.select_queue(value),
        reg::VIRTIO_MMIO_DRIVER_FEATURES => state.accept(value),
        reg::VIRTIO_MMIO_QUEUE_READY => state.set_queue_ready(value & 1 != 0),
        _ => state.change_queue(|queue| match offset {
            reg::VIRTIO_MMIO_QUEUE_NUM => queue.size = value,
            reg::VIRTIO_MMIO_QUEUE_DESC_LOW => set_half(&mut queue.desc, 0, value),
            reg::VIRTIO_MMIO_QUEUE_DESC_HIGH => set_half(&mut queue.desc, 1, value),
            reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW => set_half(&mut queue.driver, 0, value),
            reg::VIRTIO_MMIO_QUEUE_AVAIL_HIGH => set_half(&mut queue.driver, 1, value),
            reg::VIRTIO_MMIO_QUEUE_USED_LOW => set_half(&mut queue.device, 0, value),
            reg::VIRTIO_MMIO_QUEUE_USED_HIGH => set_half(&mut queue.device, 1, value),
            _ => {}
        }),
    }
}
