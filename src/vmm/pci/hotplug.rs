//! What system software learns of slots that are filled and emptied while it runs, and how it gives a device back: three
//! registers behind the `_EJ0` methods and the general-purpose event of the machine's ACPI tables.
//!
//! ```text
//!   0x0 ADDED   a bit for each slot that was filled and not looked at yet; writing ones clears
//!   0x4 WANTED  a bit for each slot whose device is wanted back and not looked at yet; writing ones clears
//!   0x8 EJECT   writing ones gives the devices of these slots back; reads as zero
//! ```
//!
//! Each takes aligned accesses of 4 bytes; anything else reads as zero and writes nothing. The event is level-triggered: it
//! is asserted while any bit is set, so that nothing is lost that happens before the system listens.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::vmm::bus::BusDevice;

/// How many ports.
pub const PORTS: u64 = 12;

const ADDED: u64 = 0;
const WANTED: u64 = 4;
const EJECT: u64 = 8;

/// Tells whether there is something to look at: at every change, and maybe when there is none.
pub type Event = Box<dyn Fn(bool) + Send + Sync>;

#[derive(Debug, Default)]
struct State {
    added: u32,
    wanted: u32,
}

/// What was told of slots 0 to 31 and not looked at yet.
pub struct SlotEvents {
    state: Mutex<State>,
    event: Event,
}

impl SlotEvents {
    /// Nothing has happened.
    #[must_use]
    pub fn new(event: Event) -> Self {
        Self { state: Mutex::default(), event }
    }

    /// There is a device in a slot that was empty.
    pub fn added(&self, slot: u8) {
        self.change(|state| state.added |= bit(slot));
    }

    /// The device of a slot is wanted back; or it is gone, and the system should see to that.
    pub fn wanted(&self, slot: u8) {
        self.change(|state| {
            state.added &= !bit(slot);
            state.wanted |= bit(slot);
        });
    }

    /// The slot is empty and nothing need be told of it any more.
    pub fn forget(&self, slot: u8) {
        self.change(|state| {
            state.added &= !bit(slot);
            state.wanted &= !bit(slot);
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The event is told with the state locked: so its last level is that of the last change.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        (self.event)(state.added | state.wanted != 0);
    }
}

fn bit(slot: u8) -> u32 {
    1_u32.checked_shl(slot.into()).unwrap_or(0)
}

/// The slots of a set.
fn slots(bits: u32) -> impl Iterator<Item = u8> {
    (0..32).filter(move |slot| bits & bit(*slot) != 0)
}

/// The registers.
pub struct HotplugPorts<E> {
    events: E,
    eject: Box<dyn Fn(u8) + Send + Sync>,
}

impl<E: AsRef<SlotEvents> + Send + Sync> HotplugPorts<E> {
    /// `eject` is told which slots the system wants emptied: any of the 32, whatever is in it.
    #[must_use]
    pub fn new(events: E, eject: Box<dyn Fn(u8) + Send + Sync>) -> Self {
        Self { events, eject }
    }
}

impl<E: AsRef<SlotEvents> + Send + Sync> BusDevice for HotplugPorts<E> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let [a, b, c, d] = data {
            let state = self.events.as_ref().lock();
            let value = match offset {
                ADDED => state.added,
                WANTED => state.wanted,
                _ => 0,
            };
            [*a, *b, *c, *d] = value.to_le_bytes();
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let &[a, b, c, d] = data else { return };
        let bits = u32::from_le_bytes([a, b, c, d]);
        match offset {
            ADDED => self.events.as_ref().change(|state| state.added &= !bits),
            WANTED => self.events.as_ref().change(|state| state.wanted &= !bits),
            EJECT => slots(bits).for_each(|slot| (self.eject)(slot)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use proptest::prelude::*;

    use super::*;

    struct Bench {
        events: Arc<SlotEvents>,
        ports: HotplugPorts<Arc<SlotEvents>>,
        level: Arc<AtomicBool>,
        ejected: Arc<Mutex<Vec<u8>>>,
    }

    fn bench() -> Bench {
        let (level, ejected) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (line, list) = (level.clone(), ejected.clone());
        let events = Arc::new(SlotEvents::new(Box::new(move |level| line.store(level, Ordering::SeqCst))));
        let ports = HotplugPorts::new(events.clone(), Box::new(move |slot| list.lock().unwrap().push(slot)));
        Bench { events, ports, level, ejected }
    }

    impl Bench {
        fn get(&self, offset: u64) -> u32 {
            let mut data = [0xff; 4];
            self.ports.read(offset, &mut data);
            u32::from_le_bytes(data)
        }
        fn set(&self, offset: u64, value: u32) {
            self.ports.write(offset, &value.to_le_bytes());
        }
        fn level(&self) -> bool {
            self.level.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn the_event_lasts_until_everything_was_looked_at() {
        let b = bench();
        assert!(!b.level());
        b.events.added(4);
        b.events.added(31);
        b.events.wanted(5);
        assert_eq!((b.get(ADDED), b.get(WANTED), b.get(EJECT), b.level()), (1 << 31 | 1 << 4, 1 << 5, 0, true));
        b.set(ADDED, 1 << 4);
        assert_eq!((b.get(ADDED), b.level()), (1 << 31, true));
        b.set(ADDED, u32::MAX);
        assert!(b.level());
        b.set(WANTED, 1 << 5);
        assert_eq!((b.get(ADDED), b.get(WANTED), b.level()), (0, 0, false));
        assert!(b.ejected.lock().unwrap().is_empty());
    }

    #[test]
    fn what_is_wanted_back_is_no_news_any_more() {
        let b = bench();
        b.events.added(7);
        b.events.wanted(7);
        assert_eq!((b.get(ADDED), b.get(WANTED)), (0, 1 << 7));
        b.events.forget(7);
        assert_eq!((b.get(WANTED), b.level()), (0, false));
        // No such slot.
        b.events.added(32);
        b.events.wanted(255);
        assert_eq!((b.get(ADDED), b.get(WANTED), b.level()), (0, 0, false));
    }

    #[test]
    fn each_slot_that_is_named_is_ejected() {
        let b = bench();
        b.set(EJECT, 1 | 1 << 9 | 1 << 31);
        b.set(EJECT, 0);
        assert_eq!(*b.ejected.lock().unwrap(), [0, 9, 31]);
    }

    proptest! {
        /// Against a model; accesses of other widths and offsets do nothing.
        #[test]
        fn any_access_does_what_the_model_does(steps in prop::collection::vec(
            (0_u8..6, 0_u8..40, 0_u64..PORTS + 4, 1_usize..9, any::<u64>()), 0..60,
        )) {
            let b = bench();
            let (mut added, mut wanted, mut ejected) = (0_u32, 0_u32, Vec::new());
            for (what, slot, offset, len, value) in steps {
                match what {
                    0 => { b.events.added(slot); added |= bit(slot); }
                    1 => { b.events.wanted(slot); added &= !bit(slot); wanted |= bit(slot); }
                    2 => { b.events.forget(slot); added &= !bit(slot); wanted &= !bit(slot); }
                    3 => {
                        let mut data = vec![0xaa; len];
                        b.ports.read(offset, &mut data);
                        let expected = match (offset, len) { (0, 4) => added, (4, 4) => wanted, _ => 0 };
                        let mut bytes = expected.to_le_bytes().to_vec();
                        bytes.resize(len.max(4), 0);
                        prop_assert_eq!(&data[..], &bytes[..len]);
                    }
                    _ => {
                        b.ports.write(offset, &value.to_le_bytes()[..len]);
                        let bits = u32::try_from(value & u64::from(u32::MAX)).unwrap();
                        match (offset, len) {
                            (0, 4) => added &= !bits,
                            (4, 4) => wanted &= !bits,
                            (8, 4) => ejected.extend(slots(bits)),
                            _ => {}
                        }
                    }
                }
                prop_assert_eq!((b.get(ADDED), b.get(WANTED), b.level()), (added, wanted, added | wanted != 0));
            }
            prop_assert_eq!(&*b.ejected.lock().unwrap(), &ejected);
        }
    }
}
