//! The host's memory.

use super::root::Root;

/// It is about 1.5 KiB.
const MEMINFO_MAX: u64 = 64 << 10;

/// Memory of the host, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct HostMemory {
    /// All of it, swap included.
    pub total: u64,
    /// What can be had now without swapping.
    pub available: u64,
}

impl HostMemory {
    /// Reads `/proc/meminfo`; nothing where it cannot be read.
    #[must_use]
    pub fn read() -> Option<Self> {
        Self::read_in(&Root::default())
    }

    /// As [`HostMemory::read`], on a host below `root`.
    #[must_use]
    pub fn read_in(root: &Root) -> Option<Self> {
        Self::parse(&root.read("/proc/meminfo", MEMINFO_MAX).ok()?)
    }

    fn parse(meminfo: &str) -> Option<Self> {
        let field = |name: &str| {
            let rest = meminfo.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
            rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        let total = field("MemTotal")?.checked_add(field("SwapTotal").unwrap_or(0))?;
        Some(Self { total, available: field("MemAvailable")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read() {
        let text = "MemTotal:       16 kB\nMemFree: 1 kB\nMemAvailable:    8 kB\nSwapTotal:       4 kB\n";
        assert_eq!(HostMemory::parse(text), Some(HostMemory { total: 20 << 10, available: 8 << 10 }));
        assert_eq!(HostMemory::parse("nonsense"), None);
        assert!(HostMemory::read().is_some());
    }
}
