//! The bus: which function answers at which slot, and at this moment at which addresses.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, mpsc};

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

/// Held by everyone who uses a function at this moment: its end is the end of the last access.
#[derive(Clone)]
struct Presence {
    _sender: Arc<mpsc::Sender<Infallible>>,
}

/// A function in its slot.
struct Occupant {
    function: Arc<dyn PciFunction>,
    presence: Presence,
    /// Hears the end of `presence`.
    gone: Mutex<mpsc::Receiver<Infallible>>,
}

impl Occupant {
    fn new(function: Arc<dyn PciFunction>) -> Self {
        let (sender, receiver) = mpsc::channel();
        Self { function, presence: Presence { _sender: Arc::new(sender) }, gone: Mutex::new(receiver) }
    }

    /// The function, once every access to it has ended. Nobody can begin another: it is in no slot and in no map.
    fn leave(self) -> Arc<dyn PciFunction> {
        let Self { function, presence, gone } = self;
        drop(presence);
        let gone = gone.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Nothing is ever sent: it ends when there is nobody left who could.
        let Err(mpsc::RecvError) = gone.recv();
        function
    }
}

/// A region where it answers now.
struct Decoded {
    slot: DevFn,
    region: Region,
    presence: Presence,
}

/// A device that is about to be accessed.
struct Access {
    device: Arc<dyn BusDevice>,
    offset: u64,
    /// After the device, so that who waits for the end of this access finds the device let go.
    _presence: Presence,
}

#[derive(Default)]
struct Map {
    /// In the order of slots and BARs: where regions overlap, the first answers.
    regions: Vec<Decoded>,
    listening: Vec<Listening>,
}

impl Map {
    /// The region that answers the whole access, and where in it the access begins.
    fn find(&self, space: Space, addr: u64, len: usize) -> Option<(&Decoded, u64)> {
        self.regions.iter().filter(|decoded| decoded.region.space == space).find_map(|decoded| {
            let offset = addr.checked_sub(decoded.region.base)?;
            let end = offset.checked_add(len as u64)?;
            (end <= decoded.region.len).then_some((decoded, offset))
        })
    }

    /// The doorbells that are not hidden by another region.
    fn doorbells(&self) -> Vec<Listening> {
        let mut bells = Vec::new();
        for decoded in self.regions.iter().filter(|decoded| decoded.region.space == Space::Memory) {
            let region = &decoded.region;
            for bell in region.doorbells.iter().filter(|bell| bell.offset < region.len) {
                let addr = region.base + bell.offset;
                if self.find(Space::Memory, addr, 1).is_some_and(|(found, _)| std::ptr::eq(found, decoded)) {
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
    functions: RwLock<BTreeMap<DevFn, Occupant>>,
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
        let occupant = Occupant::new(function);
        self.follow(slot, occupant.function.as_ref(), &occupant.presence);
        functions.insert(slot, occupant);
        Ok(())
    }

    /// Takes a function out of its slot, reset, and gives it back. When it returns, no request is in flight, no access to
    /// the function goes on, and none can begin: who drops what it gives back has dropped the function.
    ///
    /// Not to be called from within an access to that very function, for whose end it would wait.
    pub fn remove(&self, slot: DevFn) -> Option<Arc<dyn PciFunction>> {
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let occupant = self.functions.write().unwrap_or_else(PoisonError::into_inner).remove(&slot)?;
        self.show(slot, Vec::new(), &occupant.presence);
        drop(changing);
        // Before the reset: an access that still goes on could set the function to work again.
        let function = occupant.leave();
        function.reset();
        Some(function)
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
            Some((_presence, function)) => function.read_config(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes 1, 2 or 4 bytes of configuration space within one dword.
    pub fn write_config(&self, slot: DevFn, offset: u8, data: &[u8]) {
        // First: a function that leaves meanwhile must not come back into the map.
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((presence, function)) = self.function(slot) else { return };
        function.write_config(offset, data);
        self.follow(slot, function.as_ref(), &presence);
    }

    /// Puts every function back into its state after power-on. When it returns, no request is in flight.
    pub fn reset(&self) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // None comes or goes meanwhile.
        let slots: Vec<_> = self.functions.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        for (slot, (presence, function)) in slots.into_iter().filter_map(|slot| Some((slot, self.function(slot)?))) {
            function.reset();
            self.follow(slot, function.as_ref(), &presence);
        }
    }

    /// Reads from where functions answer now.
    pub fn read(&self, space: Space, addr: u64, data: &mut [u8]) {
        match self.find(space, addr, data.len()) {
            Some(access) => access.device.read(access.offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes to where functions answer now.
    pub fn write(&self, space: Space, addr: u64, data: &[u8]) {
        if let Some(access) = self.find(space, addr, data.len()) {
            access.device.write(access.offset, data);
        }
    }

    /// To be bound in this order: what is bound last is let go first, and presence tells that it was.
    fn function(&self, slot: DevFn) -> Option<(Presence, Arc<dyn PciFunction>)> {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        functions.get(&slot).map(|occupant| (occupant.presence.clone(), occupant.function.clone()))
    }

    fn map(&self) -> RwLockReadGuard<'_, Map> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock is not held while the device works: it may be slow, and others may want to move.
    fn find(&self, space: Space, addr: u64, len: usize) -> Option<Access> {
        self.map().find(space, addr, len).map(|(decoded, offset)| Access {
            device: decoded.region.device.clone(),
            offset,
            _presence: decoded.presence.clone(),
        })
    }

    /// Brings the map and the doorbells up to what a function says that it decodes.
    fn follow(&self, slot: DevFn, function: &dyn PciFunction, presence: &Presence) {
        let mut regions = function.regions();
        regions.retain(|region| self.windows.hold(region));
        self.show(slot, regions, presence);
    }

    /// Brings the map and the doorbells up to what a slot decodes.
    fn show(&self, slot: DevFn, regions: Vec<Region>, presence: &Presence) {
        if self.map().regions.iter().filter(|d| d.slot == slot).map(|d| &d.region).eq_by_place(&regions) {
            return;
        }
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        map.regions.retain(|decoded| decoded.slot != slot);
        let at = map.regions.partition_point(|decoded| decoded.slot < slot);
        let decoded = |region| Decoded { slot, region, presence: presence.clone() };
        map.regions.splice(at..at, regions.into_iter().map(decoded));

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
