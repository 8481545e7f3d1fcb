//! What was asked for: the machine's size, checked against what there is.

use serde::{Deserialize, Serialize};

use crate::host::memory::HostMemory;

/// The least memory a Linux kernel could make use of, in bytes.
pub const MEMORY_MIN: u64 = 16 << 20;
/// APIC ids are one byte, and the I/O APIC takes one.
pub const CPUS_MAX: u32 = 254;

/// A machine's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineConfig {
    /// Memory in bytes, a multiple of a page.
    pub memory: u64,
    /// Number of processors.
    pub cpus: u32,
}

/// Why a machine cannot have this size.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Too little memory.
    #[error("--memory {asked} bytes: a guest needs at least {} MiB", MEMORY_MIN >> 20)]
    MemoryTooSmall {
        /// Bytes asked for.
        asked: u64,
    },
    /// More memory than there is.
    #[error("--memory {} MiB: this host has {} MiB in all, swap included; ask for less", asked >> 20, total >> 20)]
    MemoryTooLarge {
        /// Bytes asked for.
        asked: u64,
        /// Bytes there are.
        total: u64,
    },
    /// No processor.
    #[error("--cpus 0: a guest needs at least one processor")]
    NoCpus,
    /// More processors than KVM gives.
    #[error("--cpus {asked}: this host's KVM gives a guest at most {max}")]
    TooManyCpus {
        /// How many were asked for.
        asked: u32,
        /// How many there may be.
        max: u32,
    },
    /// More disks than the machine has places for.
    #[error("{asked} volumes: this machine has room for {max}; leave some out of the mapping")]
    TooManyDisks {
        /// How many were asked for.
        asked: usize,
        /// How many there may be.
        max: usize,
    },
}

impl MachineConfig {
    /// Checks that there is some memory, and a processor.
    ///
    /// # Errors
    /// [`ConfigError`], which names the option and the mend.
    pub fn check_minimum(&self) -> Result<(), ConfigError> {
        if self.memory < MEMORY_MIN {
            return Err(ConfigError::MemoryTooSmall { asked: self.memory });
        }
        if self.cpus == 0 { Err(ConfigError::NoCpus) } else { Ok(()) }
    }

    /// Checks the size against limits; `kvm_max_cpus` is what this KVM gives one guest.
    ///
    /// # Errors
    /// [`ConfigError`], which names the option and the mend.
    pub fn check(&self, host: Option<HostMemory>, kvm_max_cpus: u32) -> Result<(), ConfigError> {
        self.check_minimum()?;
        if let Some(total) = host.map(|h| h.total).filter(|total| self.memory > *total) {
            return Err(ConfigError::MemoryTooLarge { asked: self.memory, total });
        }
        let max = kvm_max_cpus.min(CPUS_MAX);
        match self.cpus {
            asked if asked > max => Err(ConfigError::TooManyCpus { asked, max }),
            _ => Ok(()),
        }
    }

    /// Checks that a machine that can have `max` disks has a place for each of `disks`.
    ///
    /// # Errors
    /// [`ConfigError::TooManyDisks`].
    pub fn check_disks(disks: usize, max: usize) -> Result<(), ConfigError> {
        if disks > max { Err(ConfigError::TooManyDisks { asked: disks, max }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked_against_what_there_is() {
        let host = Some(HostMemory { total: 8 << 30, available: 1 << 30 });
        let check = |memory, cpus| MachineConfig { memory, cpus }.check(host, 300);
        assert_eq!(check(512 << 20, 1), Ok(()));
        assert_eq!(check(8 << 30, 254), Ok(()));
        assert!(matches!(check(0, 1), Err(ConfigError::MemoryTooSmall { .. })));
        assert!(matches!(check((8 << 30) + 1, 1), Err(ConfigError::MemoryTooLarge { .. })));
        assert_eq!(check(1 << 30, 0), Err(ConfigError::NoCpus));
        assert!(matches!(check(1 << 30, 255), Err(ConfigError::TooManyCpus { max: 254, .. })));
        assert!(MachineConfig::check_disks(31, 31).is_ok());
        assert!(MachineConfig::check_disks(32, 31).is_err());
    }
}
