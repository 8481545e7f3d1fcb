//! Devices that are not virtio: small state machines that know nothing of KVM.

pub mod boot_timer;
pub mod chipset;
pub mod cmos;
pub mod debug_text;
pub mod flash;
pub mod fw_cfg;
pub mod i8042;
pub mod linker;
pub mod pm;
pub mod power;
pub mod ps2;
pub mod pvpanic;
pub mod serial;

use std::sync::Arc;

/// An interrupt line: told its level at every change, and maybe when there is none.
pub type Line = Arc<dyn Fn(bool) + Send + Sync>;
