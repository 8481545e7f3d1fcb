//! What this host can do: its KVM, its memory, the firmware and tools on it. The lowest room.

pub mod checks;
pub mod files;
pub mod firmware;
pub mod io_uring;
pub mod kvm;
pub mod lock;
pub mod memory;
pub mod open_files;
pub mod panics;
pub mod processor;
pub mod report;
pub mod root;
pub mod storage;
pub mod tools;
