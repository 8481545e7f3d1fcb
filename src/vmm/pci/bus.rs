//! The bus: which function answers at which slot, and at this moment at which addresses.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use vmm_sys_util::eventfd::EventFd;

use super::{DevFn, IoEvents, PciError, PciFunction, Region, Space};
use crate::vmm::bus::{Bus, BusDevice, BusError};

/// The addresses that functions may be moved to. Elsewhere they do not answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PciWindows {
    /// Memory addresses, clear of guest memory and of the machine's other devices.
    pub memory: Vec<Range<u64>>,
    /// Ports, clear of the machine's other devices.
    pub io: Vec<Range<u64>>,
}

impl PciWindows {
    fn of(&self, space: Space) -> &[Range<u64>] {
        match space {
            Space::Memory => &self.memory,
            Space::Io => &self.io,
        }
    }

    fn hold(&self, region: &Region) -> bool {
        let Some(last) = region.len.checked_sub(1).and_then(|len| region.base.checked_add(len)) else { return false };
        self.of(region.space).iter().any(|window| window.contains(&region.base) && window.contains(&last))
    }
}

/// A doorbell that the machine listens to.
#[derive(Clone)]
struct Listening {
    addr: u64,
    datum: Option<u32>,
    event: Arc<EventFd>,
}

impl PartialEq for Listening {
    fn eq(&self, other: &Self) -> bool {
        self.addr == other.addr && self.datum == other.datum && Arc::ptr_eq(&self.event, &other.event)
    }
}

#[derive(Default)]
struct Map {
    /// In the order of slots and BARs: where regions overlap, the first answers.
    regions: Vec<(DevFn, Region)>,
    listening: Vec<Listening>,
}

impl Map {
    /// The region that answers the whole access, and where in it the access begins.
    fn find(&self, space: Space, addr: u64, len: usize) -> Option<(&Region, u64)> {
        self.regions.iter().map(|(_, region)| region).filter(|region| region.space == space).find_map(|region| {
            let offset = addr.checked_sub(region.base)?;
            let end = offset.checked_add(len as u64)?;
            (end <= region.len).then_some((region, offset))
        })
    }

    /// The doorbells that are not hidden by another region.
    fn doorbells(&self) -> Vec<Listening> {
        let mut bells = Vec::new();
        for (_, region) in self.regions.iter().filter(|(_, region)| region.space == Space::Memory) {
            for bell in region.doorbells.iter().filter(|bell| bell.offset < region.len) {
                let addr = region.base + bell.offset;
                if self.find(Space::Memory, addr, 1).is_some_and(|(found, _)| std::ptr::eq(found, region)) {
                    bells.push(Listening { addr, datum: bell.datum, event: bell.event.clone() });
                }
            }
        }
        bells
    }
}

/// PCI bus 0.
pub struct PciBus {
    windows: PciWindows,
    io_events: Arc<dyn IoEvents>,
    functions: RwLock<BTreeMap<DevFn, Arc<dyn PciFunction>>>,
    map: RwLock<Map>,
    /// Held while anything changes that the map follows from.
    changing: Mutex<()>,
}

impl PciBus {
    /// An empty bus.
    #[must_use]
    pub fn new(windows: PciWindows, io_events: Arc<dyn IoEvents>) -> Self {
        Self { windows, io_events, functions: RwLock::default(), map: RwLock::default(), changing: Mutex::default() }
    }

    /// Puts a function into a slot. Functions 1 to 7 of a device are found only beside a function 0 that says that it is
    /// one of several.
    ///
    /// # Errors
    /// [`PciError::SlotTaken`].
    pub fn add(&self, slot: DevFn, function: Arc<dyn PciFunction>) -> Result<(), PciError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        if functions.contains_key(&slot) {
            return Err(PciError::SlotTaken(slot));
        }
        self.follow(slot, function.as_ref());
        functions.insert(slot, function);
        Ok(())
    }

    /// Claims every window of the bus in the machine's address spaces.
    ///
    /// # Errors
    /// [`BusError`] where another device is in the way.
    pub fn claim(self: &Arc<Self>, memory: &mut Bus, ports: &mut Bus) -> Result<(), BusError> {
        for (space, bus) in [(Space::Memory, memory), (Space::Io, ports)] {
            for window in self.windows.of(space) {
                let device = Window { bus: self.clone(), space, base: window.start };
                bus.claim(window.start, window.end.saturating_sub(window.start), Arc::new(device))?;
            }
        }
        Ok(())
    }

    /// Reads 1, 2 or 4 bytes of configuration space within one dword; ones where no function is.
    pub fn read_config(&self, slot: DevFn, offset: u8, data: &mut [u8]) {
        match self.function(slot) {
            Some(function) => function.read_config(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes 1, 2 or 4 bytes of configuration space within one dword.
    pub fn write_config(&self, slot: DevFn, offset: u8, data: &[u8]) {
        let Some(function) = self.function(slot) else { return };
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        function.write_config(offset, data);
        self.follow(slot, function.as_ref());
    }

    /// Puts every function back into its state after power-on. When it returns, no request is in flight.
    pub fn reset(&self) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner).clone();
        for (slot, function) in functions {
            function.reset();
            self.follow(slot, function.as_ref());
        }
    }

    /// Reads from where functions answer now.
    pub fn read(&self, space: Space, addr: u64, data: &mut [u8]) {
        match self.find(space, addr, data.len()) {
            Some((device, offset)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes to where functions answer now.
    pub fn write(&self, space: Space, addr: u64, data: &[u8]) {
        if let Some((device, offset)) = self.find(space, addr, data.len()) {
            device.write(offset, data);
        }
    }

    fn function(&self, slot: DevFn) -> Option<Arc<dyn PciFunction>> {
        self.functions.read().unwrap_or_else(PoisonError::into_inner).get(&slot).cloned()
    }

    fn map(&self) -> RwLockReadGuard<'_, Map> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock is not held while the device works: it may be slow, and others may want to move.
    fn find(&self, space: Space, addr: u64, len: usize) -> Option<(Arc<dyn BusDevice>, u64)> {
        self.map().find(space, addr, len).map(|(region, offset)| (region.device.clone(), offset))
    }

    /// Brings the map and the doorbells up to what a function says that it decodes.
    fn follow(&self, slot: DevFn, function: &dyn PciFunction) {
        let mut regions = function.regions();
        regions.retain(|region| self.windows.hold(region));
        if self.map().regions.iter().filter(|(of, _)| *of == slot).map(|(_, r)| r).eq_by_place(&regions) {
            return;
        }
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        map.regions.retain(|(of, _)| *of != slot);
        let at = map.regions.partition_point(|(of, _)| *of < slot);
        map.regions.splice(at..at, regions.into_iter().map(|region| (slot, region)));

        let wanted = map.doorbells();
        let (kept, gone): (Vec<_>, Vec<_>) = map.listening.drain(..).partition(|bell| wanted.contains(bell));
        for bell in gone {
            // What cannot be taken back listens to an address where nothing is; a wrong kick does no harm.
            let _ = self.io_events.unregister(bell.addr, bell.datum, &bell.event);
        }
        map.listening = kept;
        for bell in wanted {
            if !map.listening.contains(&bell) && self.io_events.register(bell.addr, bell.datum, &bell.event).is_ok() {
                map.listening.push(bell);
            }
        }
    }
}

/// Comparison of regions by where they are, and whose.
trait EqByPlace {
    fn eq_by_place(self, others: &[Region]) -> bool;
}

impl<'a, I: Iterator<Item = &'a Region>> EqByPlace for I {
    fn eq_by_place(self, others: &[Region]) -> bool {
        let place = |region: &Region| (region.space, region.base, region.len, Arc::as_ptr(&region.device).cast::<()>());
        self.map(place).eq(others.iter().map(place))
    }
}

/// A part of the machine's address space that belongs to the bus.
struct Window {
    bus: Arc<PciBus>,
    space: Space,
    base: u64,
}

impl BusDevice for Window {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.bus.read(self.space, self.base + offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.bus.write(self.space, self.base + offset, data);
    }
}
