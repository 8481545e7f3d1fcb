//! Who answers at which address: port I/O and memory-mapped I/O, dispatched to devices.

use std::sync::Arc;

/// Something that answers reads and writes of a range of ports or addresses.
///
/// Called from any vCPU thread, several at once: a device guards its own state. `offset` counts from the start of the
/// claimed range; `offset + data.len()` never exceeds the range.
pub trait BusDevice: Send + Sync {
    /// Fills `data` (1, 2, 4 or 8 bytes) with what the guest reads.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Takes what the guest wrote.
    fn write(&self, offset: u64, data: &[u8]);
}

/// Why a range could not be claimed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BusError {
    /// An empty range, or one that wraps.
    #[error("the range {base:#x}+{len:#x} is empty or wraps")]
    BadRange {
        /// First address.
        base: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Two devices at one address.
    #[error("the range {base:#x}+{len:#x} overlaps a device at {other:#x}")]
    Overlap {
        /// First address.
        base: u64,
        /// Length in bytes.
        len: u64,
        /// First address of the device that is there.
        other: u64,
    },
}

struct Claim {
    base: u64,
    len: u64,
    device: Arc<dyn BusDevice>,
}

/// An address space of devices. Built once, then only read, so that vCPUs share it without a lock.
#[derive(Default)]
pub struct Bus {
    /// Sorted by base, not overlapping.
    claims: Vec<Claim>,
}

impl Bus {
    /// Gives `base..base + len` to a device.
    ///
    /// # Errors
    /// [`BusError`] where the range is empty, wraps, or is taken.
    pub fn claim(&mut self, base: u64, len: u64, device: Arc<dyn BusDevice>) -> Result<(), BusError> {
        if len == 0 || base.checked_add(len - 1).is_none() {
            return Err(BusError::BadRange { base, len });
        }
        let at = self.claims.partition_point(|c| c.base < base);
        let before = at.checked_sub(1).and_then(|i| self.claims.get(i)).filter(|c| base - c.base < c.len);
        let after = self.claims.get(at).filter(|c| c.base - base < len);
        if let Some(other) = before.or(after) {
            return Err(BusError::Overlap { base, len, other: other.base });
        }
        self.claims.insert(at, Claim { base, len, device });
        Ok(())
    }

    fn find(&self, addr: u64, len: usize) -> Option<(&dyn BusDevice, u64)> {
        let at = self.claims.partition_point(|c| c.base <= addr).checked_sub(1)?;
        let claim = self.claims.get(at)?;
        let offset = addr - claim.base;
        let end = offset.checked_add(len as u64)?;
        (end <= claim.len).then_some((claim.device.as_ref(), offset))
    }

    /// Reads; an address where nothing answers gives all ones, as an empty bus does.
    pub fn read(&self, addr: u64, data: &mut [u8]) {
        match self.find(addr, data.len()) {
            Some((device, offset)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes; to an address where nothing answers it is lost.
    pub fn write(&self, addr: u64, data: &[u8]) {
        if let Some((device, offset)) = self.find(addr, data.len()) {
            device.write(offset, data);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Log(Mutex<Vec<(u64, Vec<u8>)>>);

    impl BusDevice for Log {
        fn read(&self, offset: u64, data: &mut [u8]) {
            data.fill(u8::try_from(offset & 0xff).unwrap());
        }
        fn write(&self, offset: u64, data: &[u8]) {
            self.0.lock().unwrap().push((offset, data.to_vec()));
        }
    }

    #[test]
    fn reads_and_writes_reach_the_device_with_its_own_offset() {
        let mut bus = Bus::default();
        let log = Arc::new(Log::default());
        bus.claim(0x3f8, 8, log.clone()).unwrap();
        let mut data = [0];
        bus.read(0x3fd, &mut data);
        assert_eq!(data, [5]);
        bus.write(0x3f9, &[7]);
        assert_eq!(*log.0.lock().unwrap(), vec![(1, vec![7])]);
    }

    #[test]
    fn an_empty_bus_reads_ones_and_swallows_writes() {
        let bus = Bus::default();
        let mut data = [0; 4];
        bus.read(u64::MAX - 1, &mut data);
        assert_eq!(data, [0xff; 4]);
        bus.write(u64::MAX, &[0; 8]);
    }

    #[test]
    fn an_access_that_leaves_its_device_is_nobodys() {
        let mut bus = Bus::default();
        bus.claim(0x100, 4, Arc::new(Log::default())).unwrap();
        let mut data = [0; 4];
        bus.read(0x102, &mut data);
        assert_eq!(data, [0xff; 4]);
    }

    #[test]
    fn overlaps_and_wrapping_ranges_are_refused() {
        let mut bus = Bus::default();
        bus.claim(0x100, 0x10, Arc::new(Log::default())).unwrap();
        for (base, len) in [(0xf8, 0x10), (0x100, 1), (0x10f, 1), (0x108, 0x100), (0, 0x1000)] {
            assert!(
                matches!(bus.claim(base, len, Arc::new(Log::default())), Err(BusError::Overlap { .. })),
                "{base:#x}"
            );
        }
        bus.claim(0x110, 1, Arc::new(Log::default())).unwrap();
        assert!(matches!(bus.claim(u64::MAX, 2, Arc::new(Log::default())), Err(BusError::BadRange { .. })));
        assert!(matches!(bus.claim(0, 0, Arc::new(Log::default())), Err(BusError::BadRange { .. })));
        bus.claim(u64::MAX, 1, Arc::new(Log::default())).unwrap();
    }
}
