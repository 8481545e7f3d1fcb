//! The machine: memory, processors, devices, and the threads that run them. Knows nothing of images or instances.

pub mod boot;
pub mod builder;
pub mod bus;
pub mod config;
pub mod console;
pub mod devices;
pub mod firmware;
mod huge_pages;
pub mod io_events;
pub mod irq_routing;
mod kick;
pub mod machine;
pub mod memory;
pub mod nvme;
pub mod pci;
pub mod running;
pub mod smbios;
pub mod stop;
pub mod timeline;
pub mod vcpu;
pub mod virtio;
pub mod volumes;
