//! The common configuration structure (virtio 1.2, section 4.1.4.3) in front of a device's state.
//!
//! A field takes accesses of its own width; those of 64 bits take two of 32 bits too (section 4.1.3.1). Anything else
//! reads as zero and writes nothing.

use super::Shared;
use crate::vmm::virtio::state::{DeviceState, QueueRegisters, set_half};

/// Bytes of the structure, up to `queue_device`: notification data and reset of single queues are not offered.
pub const LEN: u64 = 56;

const DEVICE_FEATURE_SELECT: u64 = 0;
const DEVICE_FEATURE: u64 = 4;
const DRIVER_FEATURE_SELECT: u64 = 8;
const DRIVER_FEATURE: u64 = 12;
const CONFIG_MSIX_VECTOR: u64 = 16;
const NUM_QUEUES: u64 = 18;
const DEVICE_STATUS: u64 = 20;
const CONFIG_GENERATION: u64 = 21;
const QUEUE_SELECT: u64 = 22;
const QUEUE_SIZE: u64 = 24;
const QUEUE_MSIX_VECTOR: u64 = 26;
const QUEUE_ENABLE: u64 = 28;
const QUEUE_NOTIFY_OFF: u64 = 30;
const QUEUE_DESC: u64 = 32;
const QUEUE_DRIVER: u64 = 40;
const QUEUE_DEVICE: u64 = 48;

/// Width in bytes of the field at an offset.
fn width(offset: u64) -> Option<usize> {
    match offset {
        DEVICE_FEATURE_SELECT | DEVICE_FEATURE | DRIVER_FEATURE_SELECT | DRIVER_FEATURE => Some(4),
        DEVICE_STATUS | CONFIG_GENERATION => Some(1),
        CONFIG_MSIX_VECTOR | NUM_QUEUES | QUEUE_SELECT | QUEUE_SIZE | QUEUE_MSIX_VECTOR | QUEUE_ENABLE
        | QUEUE_NOTIFY_OFF => Some(2),
        _ => None,
    }
}

pub(super) fn read(shared: &Shared, offset: u64, data: &mut [u8]) {
    let value = if width(offset) == Some(data.len()) {
        read_field(shared, offset)
    } else if let Some(half) = address_half(offset, data.len()) {
        let state = &shared.core.lock().registers;
        state.queue().map_or(0, |queue| address(queue, offset) >> (32 * half))
    } else {
        0
    };
    data.fill(0);
    data.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
}

pub(super) fn write(shared: &Shared, offset: u64, data: &[u8]) {
    if width(offset) == Some(data.len()) {
        let mut bytes = [0; 4];
        bytes.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
        write_field(shared, offset, u32::from_le_bytes(bytes));
    } else if let Some(half) = address_half(offset, data.len()) {
        let state = &mut shared.core.lock().registers;
        for (sel, dword) in (half..).zip(data.as_chunks().0) {
            state.change_queue(|queue| {
                if let Some(target) = address_mut(queue, offset) {
                    set_half(target, sel, u32::from_le_bytes(*dword));
                }
            });
        }
    }
}

fn read_field(shared: &Shared, offset: u64) -> u64 {
    let (core, signal) = (&shared.core, &shared.signal);
    match offset {
        // A driver may read these two in its interrupt handler.
        CONFIG_GENERATION => return u64::from(core.interrupt().generation()),
        DEVICE_STATUS => return u64::from(core.status()),
        CONFIG_MSIX_VECTOR => return u64::from(signal.config_vector()),
        _ => {}
    }
    let state = &core.lock().registers;
    let queue = |value: fn(&QueueRegisters) -> u32| state.queue().map_or(0, |queue| u64::from(value(queue)));
    match offset {
        DEVICE_FEATURE_SELECT => u64::from(state.offered_sel()),
        DEVICE_FEATURE => u64::from(state.offered()),
        DRIVER_FEATURE_SELECT => u64::from(state.accepted_sel()),
        DRIVER_FEATURE => u64::from(state.accepted()),
        NUM_QUEUES => state.queue_count() as u64,
        QUEUE_SELECT => u64::from(state.queue_sel()),
        QUEUE_SIZE => queue(|queue| queue.size),
        QUEUE_ENABLE => queue(|queue| queue.ready.into()),
        QUEUE_MSIX_VECTOR => u64::from(signal.queue_vector(state.queue_sel())),
        // The queue's own index.
        QUEUE_NOTIFY_OFF => state.queue().map_or(0, |_| u64::from(state.queue_sel())),
        _ => 0,
    }
}

fn write_field(shared: &Shared, offset: u64, value: u32) {
    let (core, signal) = (&shared.core, &shared.signal);
    // Vectors are sixteen bits wide, and so is the access.
    let vector = u16::try_from(value).unwrap_or(u16::MAX);
    match offset {
        DEVICE_STATUS => core.write_status(value),
        CONFIG_MSIX_VECTOR => signal.set_config_vector(vector),
        QUEUE_MSIX_VECTOR => signal.set_queue_vector(core.lock().registers.queue_sel(), vector),
        _ => write_state(&mut core.lock().registers, offset, value),
    }
}

fn write_state(state: &mut DeviceState, offset: u64, value: u32) {
    match offset {
        DEVICE_FEATURE_SELECT => state.select_offered(value),
        DRIVER_FEATURE_SELECT => state.select_accepted(value),
        DRIVER_FEATURE => state.accept(value),
        QUEUE_SELECT => state.select_queue(value),
        QUEUE_SIZE => state.change_queue(|queue| queue.size = value),
        // A driver must not write anything but 1; only a reset takes it back.
        QUEUE_ENABLE if value == 1 => state.set_queue_ready(true),
        _ => {}
    }
}

/// For an access to the address of a ring: which half it begins with.
fn address_half(offset: u64, len: usize) -> Option<u32> {
    let half = match offset.checked_sub(QUEUE_DESC)? % 8 {
        0 => 0,
        4 => 1,
        _ => return None,
    };
    (offset < LEN && (len == 4 || len == 8 && half == 0)).then_some(half)
}

fn address(queue: &QueueRegisters, offset: u64) -> u64 {
    match offset & !7 {
        QUEUE_DESC => queue.desc,
        QUEUE_DRIVER => queue.driver,
        QUEUE_DEVICE => queue.device,
        _ => 0,
    }
}

fn address_mut(queue: &mut QueueRegisters, offset: u64) -> Option<&mut u64> {
    match offset & !7 {
        QUEUE_DESC => Some(&mut queue.desc),
        QUEUE_DRIVER => Some(&mut queue.driver),
        QUEUE_DEVICE => Some(&mut queue.device),
        _ => None,
    }
}
