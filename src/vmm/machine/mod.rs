//! The platforms. Each file states one machine's address map and devices, and nothing else does.

pub mod hvm;
pub mod hvm_acpi;
pub mod hvm_firmware;
mod hvm_hotplug;
pub mod pv;
pub mod pv_acpi;
