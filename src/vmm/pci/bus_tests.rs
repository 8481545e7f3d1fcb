//! Functions that come and go while the guest is at them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use vmm_sys_util::eventfd::EventFd;

use super::config::{BarKind, Identity};
use super::endpoint::{Endpoint, EndpointBuilder};
use super::testing::*;
use super::{DevFn, Doorbell, PciFunction, Region, Space};
use crate::vmm::bus::{Bus, BusDevice};

const SLOT: DevFn = DevFn::new(4, 0);
const OTHER: DevFn = DevFn::new(5, 0);
const BASE: u32 = 0xc000_0000;

/// A function with a BAR of 4 KiB, in which `device` is, and a doorbell; it counts resets.
struct Counted {
    endpoint: Endpoint,
    resets: Arc<AtomicUsize>,
}

fn function(device: Arc<dyn BusDevice>) -> Counted {
    let mut contents = Bus::default();
    contents.claim(0, 0x1000, device).unwrap();
    let event = Arc::new(EventFd::new(0).unwrap());
    let endpoint = Endpoint::builder(Identity { vendor: 0x1af4, device: 0x1042, ..Identity::default() })
        .bar(0, BarKind::Memory32, 0x1000, contents)
        .map(|b| b.doorbells(0, vec![Doorbell { offset: 0x800, datum: None, event }]))
        .and_then(EndpointBuilder::build)
        .unwrap();
    Counted { endpoint, resets: Arc::default() }
}

impl PciFunction for Counted {
    fn read_config(&self, offset: u8, data: &mut [u8]) {
        self.endpoint.read_config(offset, data);
    }
    fn write_config(&self, offset: u8, data: &[u8]) {
        self.endpoint.write_config(offset, data);
    }
    fn regions(&self) -> Vec<Region> {
        self.endpoint.regions()
    }
    fn reset(&self) {
        self.resets.fetch_add(1, Ordering::SeqCst);
        self.endpoint.reset();
    }
}

/// Puts BAR 0 somewhere and lets it answer.
fn place(bus: &TestBus, slot: DevFn, base: u32) {
    bus.set(slot, 0x10, 4, base);
    bus.set(slot, 4, 2, 2);
}

#[test]
fn a_slot_is_used_again_and_again() {
    let bus = TestBus::new();
    bus.bus.add(OTHER, Arc::new(function(Tagged::new(9)))).unwrap();
    place(&bus, OTHER, BASE + 0x1000);
    for round in 0..100_u8 {
        let device = Tagged::new(round);
        let added = Arc::new(function(device.clone()));
        let resets = added.resets.clone();
        bus.bus.add(SLOT, added).unwrap();
        assert!(bus.bus.add(SLOT, Arc::new(function(Tagged::new(1)))).is_err());
        assert_eq!((bus.get(SLOT, 0, 4), bus.get(SLOT, 0x10, 4)), (0x1042_1af4, 0), "as after power-on");
        place(&bus, SLOT, BASE);
        assert_eq!(tag_at(&bus, Space::Memory, BASE.into()), round);
        assert_eq!(bus.io_events.0.lock().unwrap().len(), 2);

        let removed = bus.bus.remove(SLOT).unwrap();
        assert_eq!((Arc::strong_count(&removed), resets.load(Ordering::SeqCst)), (1, 1));
        drop(removed);
        assert_eq!(Arc::strong_count(&device), 1);
        assert_eq!((bus.get(SLOT, 0, 4), bus.get(SLOT, 4, 2)), (u32::MAX, 0xffff));
        assert_eq!(tag_at(&bus, Space::Memory, BASE.into()), 0xff);
        // What the guest writes there is lost, and does not come back with the next.
        place(&bus, SLOT, BASE);
        assert_eq!(bus.io_events.0.lock().unwrap().len(), 1);
        assert!(bus.bus.remove(SLOT).is_none());
    }
    assert_eq!(tag_at(&bus, Space::Memory, u64::from(BASE) + 0x1000), 9);
}

#[test]
fn what_a_function_hid_answers_again_when_it_is_gone() {
    let bus = TestBus::new();
    for (slot, tag) in [(SLOT, 1), (OTHER, 2)] {
        bus.bus.add(slot, Arc::new(function(Tagged::new(tag)))).unwrap();
        place(&bus, slot, BASE);
    }
    assert_eq!(tag_at(&bus, Space::Memory, BASE.into()), 1);
    drop(bus.bus.remove(SLOT));
    assert_eq!((tag_at(&bus, Space::Memory, BASE.into()), bus.io_events.0.lock().unwrap().len()), (2, 1));
}

/// A device whose writes wait until they are let go.
struct Waiting {
    entered: mpsc::Sender<()>,
    go: std::sync::Mutex<mpsc::Receiver<()>>,
    left: Arc<AtomicBool>,
}

impl BusDevice for Waiting {
    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }
    fn write(&self, _: u64, _: &[u8]) {
        self.entered.send(()).unwrap();
        self.go.lock().unwrap().recv().unwrap();
        self.left.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_removal_waits_for_the_access_that_goes_on_and_lets_no_other_begin() {
    let bus = Arc::new(TestBus::new());
    let ((entered, inside), (let_go, go)) = (mpsc::channel(), mpsc::channel());
    let left = Arc::new(AtomicBool::new(false));
    let device = Arc::new(Waiting { entered, go: std::sync::Mutex::new(go), left: left.clone() });
    bus.bus.add(SLOT, Arc::new(function(device.clone()))).unwrap();
    place(&bus, SLOT, BASE);
    let writer = thread::spawn({
        let bus = bus.clone();
        move || bus.bus.write(Space::Memory, BASE.into(), &[1])
    });
    inside.recv().unwrap();
    let remover = thread::spawn({
        let (bus, left) = (bus.clone(), left.clone());
        move || {
            let removed = bus.bus.remove(SLOT).unwrap();
            (Arc::strong_count(&removed), left.load(Ordering::SeqCst))
        }
    });
    // Gone for everybody else while that access goes on.
    while bus.get(SLOT, 0, 4) != u32::MAX {
        thread::yield_now();
    }
    place(&bus, SLOT, BASE);
    assert_eq!(tag_at(&bus, Space::Memory, BASE.into()), 0xff);
    assert!(!remover.is_finished());
    let_go.send(()).unwrap();
    assert_eq!(remover.join().unwrap(), (1, true));
    writer.join().unwrap();
    assert_eq!(Arc::strong_count(&device), 1);
}

/// Accesses from all sides while functions come and go: what is gone is let go, and nothing of it stays in the map.
#[test]
fn accesses_race_removals() {
    const ROUNDS: usize = 300;
    let bus = Arc::new(TestBus::new());
    let done = Arc::new(AtomicBool::new(false));
    let mut guests = Vec::new();
    for number in 0..3_u32 {
        let (bus, done) = (bus.clone(), done.clone());
        guests.push(thread::spawn(move || {
            let mut seed = number + 1;
            while !done.load(Ordering::SeqCst) {
                seed = seed.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
                let mut data = [0; 4];
                match seed >> 28 {
                    0..4 => bus.bus.write_config(SLOT, 0x10, &(BASE + (seed & 0x3000)).to_le_bytes()),
                    4..7 => bus.bus.write_config(SLOT, 4, &[u8::try_from(seed >> 8 & 2).unwrap()]),
                    7..10 => bus.bus.read_config(SLOT, 0, &mut data),
                    10..13 => bus.bus.read(Space::Memory, u64::from(BASE + (seed & 0x3000)), &mut data),
                    _ => bus.bus.write(Space::Memory, u64::from(BASE + (seed & 0x3000)), &data),
                }
            }
        }));
    }
    for _ in 0..ROUNDS {
        let device = Tagged::new(1);
        bus.bus.add(SLOT, Arc::new(function(device.clone()))).unwrap();
        place(&bus, SLOT, BASE);
        let removed = bus.bus.remove(SLOT).unwrap();
        assert_eq!(Arc::strong_count(&removed), 1);
        drop(removed);
        assert_eq!(Arc::strong_count(&device), 1);
        assert!(bus.io_events.0.lock().unwrap().is_empty());
    }
    done.store(true, Ordering::SeqCst);
    guests.into_iter().for_each(|guest| guest.join().unwrap());
}
