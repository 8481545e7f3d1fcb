//! The machine: memory, processors, devices, and the loop that runs them. Knows nothing of images or instances.

pub mod bus;
pub mod memory;
pub mod virtio;
