//! What this host can do: its KVM, its memory, the firmware and tools on it. The lowest room.

pub mod kvm;
pub mod memory;
