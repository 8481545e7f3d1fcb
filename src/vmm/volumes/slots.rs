//! The volumes of a machine with a PCI bus: each in a slot, put in and taken out while the guest runs, as ACPI describes it.
//!
//! ```text
//!   empty ──plug──► present ──────────────────guest ejects──► leaving ──flushed, disk released──► empty
//!                    │  └──unplug──► present, wanted ──guest ejects──┘
//!                    └──remove──► leaving ──flushed, disk released──► missed ──guest ejects──► empty
//! ```
//!
//! The first slot has the guest's root: it stays. A slot whose volume was taken away is not used again, as long as there is
//! another, before the guest's driver has let go.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::functions::{DiskFunction, Functions};
use super::{DiskConfig, Ejected, Ejections, PlugError, Volumes};
use crate::vmm::pci::bus::PciBus;
use crate::vmm::pci::hotplug::SlotEvents;
use crate::vmm::pci::{DevFn, PciFunction};

/// What is in a slot.
enum Occupant {
    Present {
        disk: DiskConfig,
        function: Arc<dyn DiskFunction>,
        /// The guest was asked for it.
        wanted: bool,
    },
    /// Nothing that the guest sees; the disk is being released.
    Leaving { serial: String, device: String },
    /// No volume, and the guest has yet to see to that: nothing, or a function whose requests fail.
    Missed,
}

impl Occupant {
    /// Serial number and device.
    fn names(&self) -> Option<[&str; 2]> {
        match self {
            Self::Present { disk, .. } => Some([&disk.serial, &disk.device]),
            Self::Leaving { serial, device } => Some([serial, device]),
            Self::Missed => None,
        }
    }

    fn is_missed(&self) -> bool {
        matches!(self, Self::Missed)
    }
}

type Slots = BTreeMap<u8, Occupant>;

/// The volumes of a machine with a PCI bus.
pub struct SlotVolumes {
    bus: Arc<PciBus>,
    events: Arc<SlotEvents>,
    functions: Functions,
    /// The first is the root's.
    range: Range<u8>,
    slots: Mutex<Slots>,
    ejections: Arc<Ejections>,
    /// Threads that release disks which the guest has let go.
    releasing: Mutex<Vec<JoinHandle<()>>>,
}

impl SlotVolumes {
    /// No volumes yet; they go into the slots of `range`.
    ///
    /// # Errors
    /// What the host said when it could not make an event.
    pub fn new(
        bus: Arc<PciBus>,
        events: Arc<SlotEvents>,
        functions: Functions,
        range: Range<u8>,
    ) -> io::Result<Arc<Self>> {
        let ejections = Arc::new(Ejections::new()?);
        let (slots, releasing) = (Mutex::default(), Mutex::default());
        Ok(Arc::new(Self { bus, events, functions, range, slots, ejections, releasing }))
    }

    /// What else there is in slots is made alike.
    #[must_use]
    pub fn functions(&self) -> &Functions {
        &self.functions
    }

    /// The guest lets the volume of a slot go (`_EJ0`). A slot without one, and the root's, are left as they are.
    ///
    /// When this returns, the slot is empty for the guest. The disk is flushed and released behind its back.
    pub fn eject(self: &Arc<Self>, slot: u8) {
        if slot == self.range.start {
            return;
        }
        let mut slots = self.lock();
        if slots.get(&slot).is_some_and(Occupant::is_missed) {
            drop(self.bus.remove(DevFn::new(slot, 0)));
            slots.remove(&slot);
            self.events.forget(slot);
            return;
        }
        let Some((disk, asked)) = self.empty(slots, slot, false) else { return };
        self.events.forget(slot);
        // Where there is no thread, the guest waits for it.
        let held = Arc::new(Mutex::new(Some(disk)));
        let (volumes, hand) = (self.clone(), held.clone());
        let take = |held: &Mutex<Option<DiskConfig>>| held.lock().unwrap_or_else(PoisonError::into_inner).take();
        let release = move || {
            if let Some(disk) = take(&hand) {
                volumes.release(slot, disk, asked);
            }
        };
        match thread::Builder::new().name("volume-release".into()).spawn(release) {
            Ok(thread) => {
                let mut releasing = self.releasing.lock().unwrap_or_else(PoisonError::into_inner);
                releasing.retain(|thread| !thread.is_finished());
                releasing.push(thread);
            }
            Err(_) => take(&held).into_iter().for_each(|disk| self.release(slot, disk, asked)),
        }
    }

    /// Tells that a volume was let go, once its disk is.
    fn release(&self, slot: u8, disk: DiskConfig, asked: bool) {
        let (serial, device) = (disk.serial.clone(), disk.device.clone());
        let flushed = let_go(disk);
        self.lock().remove(&slot);
        self.ejections.add(Ejected { serial, device, asked, flushed });
    }

    /// Takes what is in a slot off the bus, or, where `stays` and that can be, has it let go of its disk. Nothing is in
    /// flight any more when it returns, and the slot stays taken. Tells whether the guest was asked for it.
    fn empty(&self, mut slots: MutexGuard<'_, Slots>, slot: u8, stays: bool) -> Option<(DiskConfig, bool)> {
        let occupant = slots.get_mut(&slot)?;
        // Where nothing is present, somebody else is at it already.
        let Occupant::Present { disk, .. } = &*occupant else { return None };
        let leaving = Occupant::Leaving { serial: disk.serial.clone(), device: disk.device.clone() };
        let Occupant::Present { disk, wanted, function } = std::mem::replace(occupant, leaving) else { return None };
        // What is in flight may take its time.
        drop(slots);
        let withdrawn = stays && function.withdraw();
        drop(function);
        if !withdrawn {
            drop(self.bus.remove(DevFn::new(slot, 0)));
        }
        Some((disk, wanted))
    }

    fn put(&self, disk: DiskConfig, seen: bool) -> Result<(), PlugError> {
        let mut slots = self.lock();
        let same = |occupant: &&Occupant| {
            occupant.names().is_some_and(|[serial, device]| serial == disk.serial || device == disk.device)
        };
        match slots.values().find(same) {
            Some(Occupant::Present { disk: other, .. }) => {
                let (other, device) = (other.serial.clone(), other.device.clone());
                return Err(PlugError::Taken { serial: disk.serial, other, device });
            }
            Some(Occupant::Leaving { serial, .. }) => return Err(PlugError::Leaving(serial.clone())),
            Some(Occupant::Missed) | None => {}
        }
        let empty = |slot: &u8| !slots.contains_key(slot);
        let missed = |slot: &u8| slots.get(slot).is_some_and(Occupant::is_missed);
        let Some(slot) = self.range.clone().find(empty).or_else(|| self.range.clone().find(missed)) else {
            return Err(PlugError::NoSlot { serial: disk.serial, most: self.range.len() });
        };
        drop(self.bus.remove(DevFn::new(slot, 0)));
        let host = |cause| PlugError::Host { serial: disk.serial.clone(), cause };
        let function = self.functions.disk(slot, &disk).map_err(host)?;
        let on_bus: Arc<dyn PciFunction> = function.clone();
        self.bus.add(DevFn::new(slot, 0), on_bus).map_err(|error| host(io::Error::other(error)))?;
        slots.insert(slot, Occupant::Present { disk, function, wanted: false });
        // With the slots locked: what is told of a slot is told in the order in which it happened.
        self.events.forget(slot);
        if !seen {
            self.events.added(slot);
        }
        Ok(())
    }

    /// Puts one in before the guest runs: it looks for it by itself.
    ///
    /// # Errors
    /// [`PlugError`].
    pub fn put_before_start(&self, disk: DiskConfig) -> Result<(), PlugError> {
        self.put(disk, true)
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slot of a volume that the guest can be asked for.
    fn removable(&self, slots: &Slots, name: &str) -> Result<u8, PlugError> {
        match find(slots, name)? {
            (slot, disk, _) if slot == self.range.start => Err(PlugError::Root(disk.serial.clone())),
            (slot, ..) => Ok(slot),
        }
    }
}

/// A volume that is present.
fn find<'a>(slots: &'a Slots, name: &str) -> Result<(u8, &'a DiskConfig, &'a dyn DiskFunction), PlugError> {
    let is_named = |occupant: &Occupant| occupant.names().is_some_and(|names| names.contains(&name));
    match slots.iter().find(|(_, occupant)| is_named(occupant)) {
        Some((slot, Occupant::Present { disk, function, .. })) => Ok((*slot, disk, function.as_ref())),
        Some((_, Occupant::Leaving { serial, .. })) => Err(PlugError::Leaving(serial.clone())),
        Some((_, Occupant::Missed)) | None => Err(PlugError::None(name.into())),
    }
}

/// Makes a disk durable and drops it.
fn let_go(disk: DiskConfig) -> io::Result<()> {
    let DiskConfig { disk, .. } = disk;
    if disk.is_read_only() { Ok(()) } else { disk.flush() }
}

impl Volumes for SlotVolumes {
    fn disks(&self) -> Vec<DiskConfig> {
        let present = |occupant: &Occupant| match occupant {
            Occupant::Present { disk, .. } => Some(disk.clone()),
            Occupant::Leaving { .. } | Occupant::Missed => None,
        };
        self.lock().values().filter_map(present).collect()
    }

    fn plug(&self, disk: DiskConfig) -> Result<(), PlugError> {
        self.put(disk, false)
    }

    fn unplug(&self, name: &str) -> Result<(), PlugError> {
        let mut slots = self.lock();
        let slot = self.removable(&slots, name)?;
        if let Some(Occupant::Present { wanted, .. }) = slots.get_mut(&slot) {
            *wanted = true;
        }
        // With the slots locked: an ejection comes before or after.
        self.events.wanted(slot);
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), PlugError> {
        let slots = self.lock();
        let slot = self.removable(&slots, name)?;
        let Some((disk, _)) = self.empty(slots, slot, true) else { return Err(PlugError::None(name.into())) };
        let serial = disk.serial.clone();
        let flushed = let_go(disk);
        let mut slots = self.lock();
        slots.insert(slot, Occupant::Missed);
        // The guest's driver is to go too.
        self.events.wanted(slot);
        flushed.map_err(|cause| PlugError::Flush { serial, cause })
    }

    fn resized(&self, name: &str) -> Result<u64, PlugError> {
        let slots = self.lock();
        let (_, disk, function) = find(&slots, name)?;
        function.resized();
        Ok(disk.disk.size())
    }

    fn ejections(&self) -> &Ejections {
        &self.ejections
    }

    fn settle(&self) {
        let releasing = std::mem::take(&mut *self.releasing.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in releasing {
            // A panic was already told by the hook.
            let _ = thread.join();
        }
    }
}
