//! Devices that are not virtio: small state machines that know nothing of KVM.

pub mod i8042;
pub mod power;
pub mod pvpanic;
pub mod serial;
