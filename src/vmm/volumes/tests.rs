//! Volumes that come and go, from the side of the host and of a guest that reaches registers and functions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;

use super::fixed::FixedVolumes;
use super::functions::{DiskInterface, Functions};
use super::slots::SlotVolumes;
use super::*;
use crate::disk::Engine;
use crate::disk::testing::{GATED, Gated};
use crate::vmm::bus::BusDevice;
use crate::vmm::pci::hotplug::{HotplugPorts, SlotEvents};
use crate::vmm::pci::testing::{FakeController, FakeRoute, TestBus, WINDOW};
use crate::vmm::pci::{DevFn, Space};
use crate::vmm::virtio::testing::{MemDisk, memory, no_log};

const ROOT: u8 = 3;
/// Slots 3 to 7.
const SLOTS: std::ops::Range<u8> = 3..8;

/// A machine without processors.
struct Bench {
    bus: TestBus,
    ports: HotplugPorts<Arc<SlotEvents>>,
    event: Arc<AtomicBool>,
    volumes: Arc<SlotVolumes>,
}

fn bench(interface: DiskInterface) -> Bench {
    let bus = TestBus::new();
    let event = Arc::new(AtomicBool::new(false));
    let level = event.clone();
    let events = Arc::new(SlotEvents::new(Box::new(move |asserted| level.store(asserted, Ordering::SeqCst))));
    let functions = Functions {
        interface,
        memory: memory(),
        msi: Box::new(FakeController(Arc::new(FakeRoute::default()))),
        line: Box::new(|_| None),
        cpus: 1,
        log: no_log(),
    };
    let volumes = SlotVolumes::new(bus.bus.clone(), events.clone(), functions, SLOTS).unwrap();
    let ejecting = volumes.clone();
    let ports = HotplugPorts::new(events, Box::new(move |slot| ejecting.eject(slot)));
    volumes.put_before_start(volume("vol-root", "/dev/sda1", &mem_disk())).unwrap();
    Bench { bus, ports, event, volumes }
}

fn mem_disk() -> Arc<MemDisk> {
    Arc::new(MemDisk::patterned(8))
}

fn volume(serial: &str, device: &str, disk: &Arc<impl Disk + 'static>) -> DiskConfig {
    DiskConfig { disk: disk.clone(), serial: serial.into(), device: device.into(), ephemeral: None }
}

impl Bench {
    fn plug(&self, serial: &str, device: &str) -> Arc<MemDisk> {
        let disk = mem_disk();
        self.volumes.plug(volume(serial, device, &disk)).unwrap();
        disk
    }

    fn read(&self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.ports.read(register, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, register: u64, value: u32) {
        self.ports.write(register, &value.to_le_bytes());
    }

    /// Looks at everything that is new, as the event's handler does: slots that were filled, and whose device is wanted.
    fn look(&self) -> (u32, u32) {
        let seen = (self.read(0), self.read(4));
        self.write(0, seen.0);
        self.write(4, seen.1);
        seen
    }

    fn eject(&self, slot: u8) {
        self.write(8, 1 << slot);
    }

    fn id(&self, slot: u8) -> u32 {
        self.bus.get(DevFn::new(slot, 0), 0, 4)
    }

    fn serials(&self) -> Vec<String> {
        self.volumes.disks().into_iter().map(|disk| disk.serial).collect()
    }

    /// Those that were let go, once they are released.
    fn ejected(&self) -> Vec<(String, bool, bool)> {
        self.volumes.settle();
        let ejected = self.volumes.ejections().take();
        ejected.into_iter().map(|e| (e.serial, e.asked, e.flushed.is_ok())).collect()
    }
}

#[test]
fn a_volume_comes_and_goes_and_its_slot_is_used_again() {
    for (interface, id) in [(DiskInterface::Virtio, 0x1042_1af4), (DiskInterface::Nvme, 0x8061_1d0f)] {
        let b = bench(interface);
        assert_eq!((b.id(ROOT), b.id(4), b.event.load(Ordering::SeqCst)), (id, u32::MAX, false));
        for round in 0..100_u32 {
            let disk = b.plug("vol-1", "/dev/sdf");
            assert_eq!((b.id(4), b.event.load(Ordering::SeqCst)), (id, true));
            assert_eq!((b.look(), b.event.load(Ordering::SeqCst)), ((1 << 4, 0), false));
            assert_eq!(b.serials(), ["vol-root", "vol-1"]);
            // By either name.
            b.volumes.unplug(if round % 2 == 0 { "vol-1" } else { "/dev/sdf" }).unwrap();
            assert_eq!((b.look(), b.ejected().len(), b.id(4)), ((0, 1 << 4), 0, id));
            b.eject(4);
            assert_eq!(b.id(4), u32::MAX);
            assert_eq!(b.ejected(), [("vol-1".to_owned(), true, true)]);
            assert_eq!((Arc::strong_count(&disk), disk.flushes.load(Ordering::SeqCst)), (1, 1));
            assert_eq!((b.serials(), b.look()), (vec!["vol-root".to_owned()], (0, 0)));
        }
    }
}

#[test]
fn a_guest_that_does_not_answer_is_asked_again() {
    let b = bench(DiskInterface::Virtio);
    b.plug("vol-1", "/dev/sdf");
    for _ in 0..3 {
        b.volumes.unplug("vol-1").unwrap();
        assert_eq!((b.look(), b.look()), ((0, 1 << 4), (0, 0)));
    }
    b.eject(4);
    b.eject(4);
    assert_eq!(b.ejected().len(), 1);
}

#[test]
fn a_guest_may_let_go_what_nobody_asked_for_but_not_its_root() {
    let b = bench(DiskInterface::Virtio);
    b.plug("vol-1", "/dev/sdf");
    b.write(8, u32::MAX);
    assert_eq!(b.ejected(), [("vol-1".to_owned(), false, true)]);
    assert_eq!((b.serials(), b.id(ROOT)), (vec!["vol-root".to_owned()], 0x1042_1af4));
    b.bus.bus.add(DevFn::new(9, 0), Arc::new(crate::vmm::pci::chipset::IsaBridge::new())).unwrap();
    b.write(8, u32::MAX);
    assert_eq!(b.id(9), 0x7000_8086, "not a volume");
}

#[test]
fn what_cannot_be_is_refused_and_its_disk_released() {
    let b = bench(DiskInterface::Nvme);
    for (serial, device) in [("vol-1", "/dev/sdf"), ("vol-2", "/dev/sdg"), ("vol-3", "/dev/sdh"), ("vol-4", "/dev/sdi")]
    {
        b.plug(serial, device);
    }
    for (serial, device, expected) in [
        ("vol-1", "/dev/sdx", "has volume vol-1 as /dev/sdf already"),
        ("vol-9", "/dev/sdh", "has volume vol-3 as /dev/sdh already"),
        ("vol-root", "/dev/sdx", "has volume vol-root as /dev/sda1 already"),
        ("vol-9", "/dev/sdx", "5 volumes already"),
    ] {
        let disk = mem_disk();
        let error = b.volumes.plug(volume(serial, device, &disk)).unwrap_err().to_string();
        assert!(error.contains(serial) && error.contains(expected), "{error}");
        assert_eq!(Arc::strong_count(&disk), 1);
    }
    assert!(matches!(b.volumes.unplug("vol-root"), Err(PlugError::Root(serial)) if serial == "vol-root"));
    assert!(matches!(b.volumes.remove("/dev/sda1"), Err(PlugError::Root(_))));
    for error in [b.volumes.unplug("vol-9"), b.volumes.remove("vol-9"), b.volumes.resized("vol-9").map(|_| ())] {
        assert!(matches!(error, Err(PlugError::None(name)) if name == "vol-9"));
    }
    assert_eq!(b.look(), (0xf0, 0));
    // The slot that comes free is the next one's; the order is that of slots.
    b.eject(5);
    b.ejected();
    b.plug("vol-5", "/dev/sdj");
    assert_eq!(b.serials(), ["vol-root", "vol-1", "vol-5", "vol-3", "vol-4"]);
}

#[test]
fn a_volume_that_is_taken_away_leaves_its_slot_to_the_guests_driver() {
    // An NVMe controller is gone at once, a virtio function when its driver is.
    for (interface, id, left) in
        [(DiskInterface::Virtio, 0x1042_1af4, 0x1042_1af4), (DiskInterface::Nvme, 0x8061_1d0f, u32::MAX)]
    {
        let b = bench(interface);
        let disk = b.plug("vol-1", "/dev/sdf");
        b.look();
        b.volumes.remove("vol-1").unwrap();
        assert_eq!((Arc::strong_count(&disk), disk.flushes.load(Ordering::SeqCst)), (1, 1));
        assert_eq!((b.id(4), b.serials(), b.ejected().len()), (left, vec!["vol-root".to_owned()], 0));
        assert!(matches!(b.volumes.unplug("vol-1"), Err(PlugError::None(_))));
        // Its driver has not gone: the next one takes another slot.
        b.plug("vol-1", "/dev/sdf");
        assert_eq!((b.id(4), b.id(5)), (left, id));
        assert_eq!(b.look(), (1 << 5, 1 << 4));
        b.eject(4);
        assert_eq!((b.id(4), b.ejected().len()), (u32::MAX, 0));
        b.plug("vol-2", "/dev/sdg");
        assert_eq!((b.id(4), b.look()), (id, (1 << 4, 0)));
        // With no other slot left, it is used all the same, and nothing is told of what was.
        b.plug("vol-3", "/dev/sdh");
        b.plug("vol-4", "/dev/sdi");
        b.look();
        b.volumes.remove("vol-4").unwrap();
        b.plug("vol-5", "/dev/sdj");
        assert_eq!((b.id(7), b.look(), b.ejected().len()), (id, (1 << 7, 0), 0));
    }
}

#[test]
fn a_disk_that_cannot_be_flushed_is_released_and_told() {
    let b = bench(DiskInterface::Virtio);
    let disk = b.plug("vol-1", "/dev/sdf");
    disk.fail(|| io::Error::from_raw_os_error(libc::EIO));
    b.eject(4);
    assert_eq!(b.ejected(), [("vol-1".to_owned(), false, false)]);
    let disk = b.plug("vol-1", "/dev/sdf");
    disk.fail(|| io::Error::from_raw_os_error(libc::EIO));
    assert!(matches!(b.volumes.remove("vol-1"), Err(PlugError::Flush { .. })));
    assert_eq!((Arc::strong_count(&disk), b.serials().len()), (1, 1));
}

#[test]
fn ejections_are_readable_until_they_are_taken() {
    let b = bench(DiskInterface::Virtio);
    assert!(b.volumes.ejections().event().read().is_err());
    for (serial, device) in [("vol-1", "/dev/sdf"), ("vol-2", "/dev/sdg")] {
        b.plug(serial, device);
    }
    b.write(8, 0x30);
    b.volumes.settle();
    assert_eq!(b.volumes.ejections().event().read().unwrap(), 2);
    assert_eq!(b.ejected().len(), 2);
    assert!(b.volumes.ejections().event().read().is_err() && b.ejected().is_empty());
}

/// Sets a virtio-blk function in a slot to work; when this returns, a read of the gated part of its disk has begun.
fn begin_gated_read(b: &Bench, slot: u8) {
    let memory = &b.volumes.functions().memory;
    let function = DevFn::new(slot, 0);
    b.bus.set(function, 0x10, 4, u32::try_from(WINDOW.start).unwrap());
    b.bus.set(function, 4, 2, 6);
    let set = |offset: u64, len: usize, value: u64| {
        b.bus.bus.write(Space::Memory, WINDOW.start + offset, &value.to_le_bytes()[..len]);
    };
    for status in [1, 3] {
        set(20, 1, status);
    }
    set(8, 4, 1);
    set(12, 4, 1);
    set(20, 1, 0xb);
    set(24, 2, 8);
    for (field, address) in [(32, 0x1000), (40, 0x2000), (48, 0x3000)] {
        set(field, 8, address);
    }
    set(28, 2, 1);
    set(20, 1, 0xf);
    // Header, data, status: of a read behind the gate, and of one before it, which shows by its end that both were begun.
    use vm_memory::{Bytes, GuestAddress};
    let put = |at: u64, bytes: &[u8]| memory.write_slice(bytes, GuestAddress(at)).unwrap();
    for (first, header) in [(0_u16, 0x1_0000_u64), (3, 0x1_0010)] {
        let chain = [(header, 16_u32, 1_u16, first + 1), (0x1_1000, 512, 3, first + 2), (0x1_0100, 1, 2, 0)];
        for (index, (addr, len, flags, next)) in (u64::from(first)..).zip(chain) {
            let (len, flags, next) = (len.to_le_bytes(), flags.to_le_bytes(), next.to_le_bytes());
            put(0x1000 + 16 * index, &[&addr.to_le_bytes()[..], &len, &flags, &next].concat());
        }
    }
    put(0x1_0018, &(GATED / 512).to_le_bytes());
    put(0x2004, &[0, 0, 3, 0]);
    put(0x2002, &[2, 0]);
    set(0x3000, 2, 0);
    while memory.read_obj::<u8>(GuestAddress(0x3002)).unwrap() == 0 {
        thread::yield_now();
    }
}

#[test]
fn an_ejection_waits_for_the_request_in_flight() {
    for force in [false, true] {
        let Some(disk) = Gated::new().map(Arc::new) else { return };
        assert_eq!(Engine::of_host(), Engine::IoUring);
        let b = bench(DiskInterface::Virtio);
        b.volumes.plug(volume("vol-1", "/dev/sdf", &disk)).unwrap();
        begin_gated_read(&b, 4);
        thread::scope(|scope| {
            let gone = scope.spawn(|| if force { b.volumes.remove("vol-1").unwrap() } else { b.eject(4) });
            // It may not be had again, and not be asked for.
            while !matches!(b.volumes.resized("vol-1"), Err(PlugError::Leaving(_))) {
                thread::yield_now();
            }
            let again = volume("vol-1", "/dev/sdg", &mem_disk());
            assert!(matches!(b.volumes.plug(again), Err(PlugError::Leaving(_))));
            assert!(matches!(b.volumes.unplug("vol-1"), Err(PlugError::Leaving(_))));
            b.eject(4);
            assert!(!gone.is_finished());
            assert!(b.volumes.ejections().take().is_empty());
            disk.let_through(&[6; 512]);
            gone.join().unwrap();
        });
        assert_eq!(b.ejected().len(), usize::from(!force));
        assert_eq!((Arc::strong_count(&disk), disk.left()), (1, 0));
    }
}

#[test]
fn a_disk_that_grew_tells_its_new_size() {
    for interface in [DiskInterface::Virtio, DiskInterface::Nvme] {
        let b = bench(interface);
        let disk = b.plug("vol-1", "/dev/sdf");
        assert_eq!(b.volumes.resized("/dev/sdf").unwrap(), 8 * 512);
        disk.resize(16);
        assert_eq!(b.volumes.resized("vol-1").unwrap(), 16 * 512);
        assert_eq!(b.volumes.resized("vol-root").unwrap(), 8 * 512);
    }
}

#[test]
fn a_paravirtual_machine_keeps_its_volumes() {
    let (disk, told) = (mem_disk(), Arc::new(AtomicBool::new(false)));
    let telling = told.clone();
    let resized: super::fixed::Resized = Box::new(move || telling.store(true, Ordering::SeqCst));
    let volumes = FixedVolumes::new(vec![(volume("vol-root", "/dev/sda1", &disk), resized)]).unwrap();
    assert_eq!(volumes.disks()[0].serial, "vol-root");
    let refused =
        [volumes.plug(volume("vol-1", "/dev/sdf", &disk)), volumes.unplug("vol-root"), volumes.remove("/dev/sda1")];
    for result in refused {
        assert!(matches!(result, Err(PlugError::Paravirtual(_))), "{result:?}");
    }
    assert!(matches!(volumes.unplug("vol-1"), Err(PlugError::None(_))));
    disk.resize(9);
    assert_eq!((volumes.resized("vol-root").unwrap(), told.load(Ordering::SeqCst)), (9 * 512, true));
}

/// Host and guest at once: plugs and removals against ejections, scans and writes of whatever.
#[test]
fn guests_race_the_host() {
    for interface in [DiskInterface::Virtio, DiskInterface::Nvme] {
        let b = bench(interface);
        let done = AtomicBool::new(false);
        let mut disks = Vec::new();
        thread::scope(|scope| {
            for number in 0..2_u32 {
                let (b, done) = (&b, &done);
                scope.spawn(move || {
                    let mut seed = number + 7;
                    while !done.load(Ordering::SeqCst) {
                        seed = seed.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
                        let slot = DevFn::new(u8::try_from(4 + (seed >> 8) % 5).unwrap(), 0);
                        let addr = WINDOW.start + u64::from(seed >> 12 & 0x7fff);
                        match seed >> 28 {
                            0 => b.eject(slot.device()),
                            1 => drop(b.look()),
                            2..5 => b.bus.bus.write_config(slot, 0x10, &[0, 0, 0, 0xc0]),
                            5..8 => b.bus.bus.write_config(slot, 4, &[6]),
                            8..10 => b.bus.bus.read_config(slot, 0, &mut [0; 4]),
                            10 => b.bus.bus.read(Space::Memory, addr, &mut [0; 4]),
                            // Status of virtio, CC of NVMe.
                            11..14 => b.bus.bus.write(Space::Memory, WINDOW.start + 20, &[seed.to_le_bytes()[1]]),
                            _ => b.bus.bus.write(Space::Memory, addr & !3, &seed.to_le_bytes()),
                        }
                    }
                });
            }
            for round in 0..400_u32 {
                let (serial, device) = (format!("vol-{}", round % 3), format!("/dev/sd{}", round % 3));
                let disk = mem_disk();
                if b.volumes.plug(volume(&serial, &device, &disk)).is_ok() {
                    disks.push(disk);
                }
                let _ = b.volumes.resized(&serial);
                let _ = if round % 4 == 0 { b.volumes.unplug(&serial) } else { b.volumes.remove(&serial) };
            }
            done.store(true, Ordering::SeqCst);
        });
        for serial in ["vol-0", "vol-1", "vol-2"] {
            let _ = b.volumes.remove(serial);
        }
        b.write(8, u32::MAX);
        b.volumes.settle();
        assert_eq!(b.serials(), ["vol-root"]);
        assert!(disks.iter().all(|disk| Arc::strong_count(disk) == 1), "every disk is released");
        assert!((4..8).all(|slot| b.id(slot) == u32::MAX));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the order: a volume is either among those that there are, or its disk is released; and the bus shows a
    /// function in just as many slots.
    #[test]
    fn every_disk_is_either_there_or_released(
        nvme in any::<bool>(),
        steps in prop::collection::vec((0_u8..6, 0_u8..6, any::<u32>()), 0..60),
    ) {
        let b = bench(if nvme { DiskInterface::Nvme } else { DiskInterface::Virtio });
        let mut disks: Vec<Arc<MemDisk>> = Vec::new();
        for (what, which, bits) in steps {
            let (serial, device) = (format!("vol-{which}"), format!("/dev/sd{which}"));
            match what {
                0 => {
                    let disk = mem_disk();
                    let _ = b.volumes.plug(volume(&serial, &device, &disk));
                    disks.push(disk);
                }
                1 => drop(b.volumes.unplug(&device)),
                2 => drop(b.volumes.remove(&serial)),
                3 => b.eject(3 + which),
                4 => b.write(u64::from(which) * 2, bits),
                _ => drop(b.look()),
            }
            b.volumes.settle();
            let there = b.volumes.disks().len();
            let held = disks.iter().filter(|disk| Arc::strong_count(disk) > 1).count();
            let shown = SLOTS.filter(|slot| b.id(*slot) != u32::MAX).count();
            prop_assert_eq!(held + 1, there);
            // Of virtio, functions whose disks were taken away are there too.
            prop_assert!(shown == there || !nvme && shown > there);
        }
        b.write(8, u32::MAX);
        prop_assert_eq!(SLOTS.filter(|slot| b.id(*slot) != u32::MAX).count(), 1);
    }
}
