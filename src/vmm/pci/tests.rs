//! Configuration space, decoding and the chipset, as the guest sees them through ports and addresses.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use vmm_sys_util::eventfd::EventFd;

use super::chipset::{HostBridge, IsaBridge, PowerManagement};
use super::config::{BarKind, ConfigSpace, Identity};
use super::endpoint::{Endpoint, EndpointBuilder, MsixPlace};
use super::intx::{Intx, SharedLine};
use super::msix::Msix;
use super::testing::*;
use super::{DevFn, Doorbell, PciError, PciFunction, Space};
use crate::vmm::bus::{Bus, BusDevice};

const A: DevFn = DevFn::new(2, 0);
const B: DevFn = DevFn::new(9, 0);

fn whole(size: u64, device: Arc<dyn BusDevice>) -> Bus {
    let mut bus = Bus::default();
    bus.claim(0, size, device).unwrap();
    bus
}

const IDENTITY: Identity = Identity {
    vendor: 0x1d0f,
    device: 0x8061,
    revision: 3,
    class: 0x01_08_02,
    subsystem_vendor: 0xaa,
    subsystem: 0xbb,
};

struct Function {
    endpoint: Arc<Endpoint>,
    memory: Arc<Tagged>,
    memory64: Arc<Tagged>,
    io: Arc<Tagged>,
    bell: Arc<EventFd>,
    intx: Arc<Intx>,
    route: Arc<FakeRoute>,
}

/// BAR 0 of 4 KiB, BAR 2 of 64 KiB and 64 bits with MSI-X at its end and a doorbell, BAR 4 of 16 ports.
fn function(tag: u8) -> Function {
    let (memory, memory64, io) = (Tagged::new(tag), Tagged::new(tag + 1), Tagged::new(tag + 2));
    let bell = Arc::new(EventFd::new(0).unwrap());
    let intx = Intx::new(SharedLine::new(Box::new(|_| {})));
    let route = Arc::new(FakeRoute::default());
    let endpoint = Endpoint::builder(IDENTITY)
        .bar(0, BarKind::Memory32, 0x1000, whole(0x1000, memory.clone()))
        .and_then(|b| b.bar(2, BarKind::Memory64, 0x1_0000, whole(0x8000, memory64.clone())))
        .and_then(|b| b.bar(4, BarKind::Io, 16, whole(16, io.clone())))
        .map(|b| b.doorbells(2, vec![Doorbell { offset: 0x100, datum: None, event: bell.clone() }]))
        .and_then(|b| b.msix(Msix::new(5, route.clone()), MsixPlace { bar: 2, table: 0xc000, pba: 0xe000 }))
        .map(|b| b.intx(Some(intx.clone())))
        .and_then(EndpointBuilder::build)
        .unwrap();
    Function { endpoint: Arc::new(endpoint), memory, memory64, io, bell, intx, route }
}

fn with_one() -> (TestBus, Function) {
    let (bus, one) = (TestBus::new(), function(0x10));
    bus.bus.add(A, one.endpoint.clone()).unwrap();
    (bus, one)
}

#[test]
fn a_function_says_what_it_is_in_any_width() {
    let (bus, _) = with_one();
    assert_eq!(bus.get(A, 0, 4), 0x8061_1d0f);
    assert_eq!((bus.get(A, 0, 2), bus.get(A, 2, 2), bus.get(A, 3, 1)), (0x1d0f, 0x8061, 0x80));
    assert_eq!((bus.get(A, 8, 4), bus.get(A, 0x2c, 4), bus.get(A, 0x0e, 1)), (0x0108_0203, 0x00bb_00aa, 0));
    assert_eq!((bus.get(A, 0x3d, 1), bus.get(A, 0x30, 4)), (1, 0));
    // What tells the identity is not written.
    for register in [0, 8, 0x2c, 0x30, 0x34] {
        let before = bus.get(A, register, 4);
        bus.set(A, register, 4, !before);
        assert_eq!(bus.get(A, register, 4), before);
    }
    bus.set(A, 0x3c, 1, 11);
    assert_eq!(bus.get(A, 0x3c, 2), 0x10b);
}

#[test]
fn where_no_function_is_ones_are_read() {
    let (bus, _) = with_one();
    for slot in [DevFn::new(0, 0), DevFn::new(2, 1), DevFn::new(31, 7)] {
        bus.set(slot, 4, 4, 7);
        assert_eq!((bus.get(slot, 0, 4), bus.get(slot, 0, 2), bus.get(slot, 5, 1)), (u32::MAX, 0xffff, 0xff));
    }
    // Bus 1, and with accesses not enabled.
    for address in [0x8001_1000_u32, 0x0000_1000, 0xffff_1000] {
        bus.ports.write(0, &address.to_le_bytes());
        let mut data = [0; 4];
        bus.ports.read(4, &mut data);
        assert_eq!(data, [0xff; 4], "{address:#x}");
    }
}

#[test]
fn the_address_is_a_dword_and_data_stay_within_one() {
    let (bus, _) = with_one();
    bus.select(A, 0);
    let address = |bus: &TestBus| {
        let mut data = [0; 4];
        bus.ports.read(0, &mut data);
        u32::from_le_bytes(data)
    };
    let selected = address(&bus);
    assert_eq!(selected, 0x8000_1000);
    for (offset, data) in [(0, &[0xff_u8][..]), (0, &[0xff; 2]), (2, &[0xff; 2]), (3, &[0xff]), (2, &[0xff; 4])] {
        bus.ports.write(offset, data);
        assert_eq!(address(&bus), selected);
    }
    bus.ports.write(0, &[0xff; 4]);
    assert_eq!(address(&bus), 0x80ff_fffc);
    bus.select(A, 0);
    for (offset, len) in [(5, 4), (6, 4), (7, 2), (4, 8), (3, 2), (4, 3), (u64::MAX, 1)] {
        let mut data = vec![0; len];
        bus.ports.read(offset, &mut data);
        assert_eq!(data, vec![0xff; len], "{offset}+{len}");
        bus.ports.write(offset, &data);
    }
    let mut middle = [0; 2];
    bus.ports.read(5, &mut middle);
    assert_eq!(middle, [0x1d, 0x61]);
}

#[test]
fn port_0xcf9_resets_when_its_bit_rises() {
    let bus = TestBus::new();
    let resets = || *bus.resets.lock().unwrap();
    bus.ports.write(1, &[0x02]);
    assert_eq!(resets(), 0);
    bus.ports.write(1, &[0x06]);
    bus.ports.write(1, &[0x06]);
    assert_eq!(resets(), 1);
    let mut data = [0];
    bus.ports.read(1, &mut data);
    assert_eq!(data, [6]);
    bus.ports.write(1, &[0x00]);
    bus.ports.write(1, &[0x0e]);
    assert_eq!(resets(), 2);
}

#[test]
fn all_ones_tell_the_size_of_a_bar() {
    let (bus, _) = with_one();
    for (register, value) in
        [(0x10, 0xffff_f000_u32), (0x14, 0), (0x18, 0xffff_0004), (0x1c, u32::MAX), (0x20, 0xffff_fff1), (0x24, 0)]
    {
        bus.set(A, register, 4, u32::MAX);
        assert_eq!(bus.get(A, register, 4), value, "{register:#x}");
    }
    bus.set(A, 0x10, 4, 0xc123_4567);
    assert_eq!(bus.get(A, 0x10, 4), 0xc123_4000);
    bus.set(A, 0x13, 1, 0xc7);
    assert_eq!(bus.get(A, 0x10, 4), 0xc723_4000);
}

#[test]
fn bars_answer_where_they_are_put_and_only_while_decoding_is_on() {
    let (bus, one) = with_one();
    bus.set(A, 0x10, 4, 0xc000_1000);
    bus.set(A, 0x18, 4, 0x2000_0000);
    bus.set(A, 0x1c, 4, 0x11);
    bus.set(A, 0x20, 4, 0xc100);
    let tags = || {
        [(Space::Memory, 0xc000_1000), (Space::Memory, 0x11_2000_0000), (Space::Io, 0xc100)]
            .map(|(space, addr)| tag_at(&bus, space, addr))
    };
    assert_eq!(tags(), [0xff; 3]);
    bus.set(A, 4, 2, 2);
    assert_eq!(tags(), [0x10, 0x11, 0xff]);
    bus.set(A, 4, 2, 1);
    assert_eq!(tags(), [0xff, 0xff, 0x12]);
    bus.set(A, 4, 1, 3);
    assert_eq!(tags(), [0x10, 0x11, 0x12]);
    // Moved while it runs.
    bus.set(A, 0x10, 4, 0xc800_0000);
    assert_eq!((tags()[0], tag_at(&bus, Space::Memory, 0xc800_0fff)), (0xff, 0x10));
    assert_eq!(tag_at(&bus, Space::Memory, 0xc800_1000), 0xff);
    // An access that leaves the BAR is nobody's.
    one.memory.1.lock().unwrap().clear();
    let mut data = [0; 4];
    bus.bus.read(Space::Memory, 0xc800_0ffe, &mut data);
    bus.bus.write(Space::Memory, 0xc7ff_fffe, &data);
    assert_eq!((data, one.memory.1.lock().unwrap().len()), ([0xff; 4], 0));
    bus.bus.write(Space::Io, 0xc10f, &[1]);
    assert_eq!(one.io.1.lock().unwrap().last(), Some(&(15, 1)));
    bus.bus.reset();
    assert_eq!((tags(), bus.get(A, 0x10, 4), bus.get(A, 4, 2)), ([0xff; 3], 0, 0));
}

#[test]
fn outside_its_windows_a_bar_does_not_answer() {
    let (bus, _) = with_one();
    bus.set(A, 4, 2, 3);
    for base in [0, 0x1000, 0xbfff_f000, 0xd000_0000, 0xfee0_0000, 0xffff_f000] {
        bus.set(A, 0x10, 4, base);
        assert_eq!(tag_at(&bus, Space::Memory, base.into()), 0xff, "{base:#x}");
    }
    for (low, high) in [(0xffff_0000_u32, 0xf_u32), (0, 0x20), (0xffff_0000, u32::MAX), (0, 0)] {
        bus.set(A, 0x18, 4, low);
        bus.set(A, 0x1c, 4, high);
        let addr = u64::from(high) << 32 | u64::from(low);
        assert_eq!(tag_at(&bus, Space::Memory, addr), 0xff, "{addr:#x}");
    }
    for base in [0, 0x3f0, 0xcf0, 0xbff0, 0x1_0000, 0xffff_fff0] {
        bus.set(A, 0x20, 4, base);
        assert_eq!(tag_at(&bus, Space::Io, base.into()), 0xff, "{base:#x}");
    }
    assert!(bus.io_events.0.lock().unwrap().is_empty());
}

#[test]
fn windows_are_claimed_in_the_machines_address_spaces() {
    let (bus, _) = with_one();
    bus.set(A, 4, 2, 3);
    bus.set(A, 0x10, 4, 0xc000_1000);
    bus.set(A, 0x20, 4, 0xc100);
    let (mut memory, mut ports) = (Bus::default(), Bus::default());
    bus.bus.claim(&mut memory, &mut ports).unwrap();
    let mut data = [0; 2];
    memory.read(0xc000_1ffe, &mut data);
    assert_eq!(data, [0x10; 2]);
    ports.read(0xc100, &mut data);
    assert_eq!(data, [0x12; 2]);
    assert!(bus.bus.claim(&mut memory, &mut ports).is_err());
}

#[test]
fn doorbells_follow_their_bar() {
    let (bus, one) = with_one();
    let listening = || bus.io_events.0.lock().unwrap().iter().map(|bell| bell.0).collect::<Vec<_>>();
    bus.set(A, 0x18, 4, 0xc000_0000);
    assert!(listening().is_empty());
    bus.set(A, 4, 2, 2);
    assert_eq!(listening(), [0xc000_0100]);
    bus.set(A, 0x18, 4, 0xc123_0000);
    assert_eq!(listening(), [0xc123_0100]);
    bus.set(A, 0x1c, 4, 0x10);
    assert_eq!(listening(), [0x10_c123_0100]);
    bus.set(A, 0x1c, 4, 0x1);
    assert!(listening().is_empty());
    bus.set(A, 0x1c, 4, 0);
    assert_eq!(listening(), [0xc123_0100]);
    bus.bus.reset();
    assert!(listening().is_empty());
    assert_eq!(Arc::strong_count(&one.bell), 2);
}

#[test]
fn where_bars_overlap_the_first_slot_answers_and_the_other_comes_back() {
    let (bus, one) = with_one();
    let two = function(0x20);
    bus.bus.add(B, two.endpoint.clone()).unwrap();
    for (slot, base) in [(B, 0xc001_0000), (A, 0xc000_0000)] {
        bus.set(slot, 4, 2, 2);
        bus.set(slot, 0x18, 4, base);
    }
    let listening = || {
        let mut bells: Vec<_> = bus.io_events.0.lock().unwrap().iter().map(|bell| (bell.0, bell.2)).collect();
        bells.sort_unstable();
        bells
    };
    use std::os::fd::AsRawFd;
    let (fd_one, fd_two) = (one.bell.as_raw_fd(), two.bell.as_raw_fd());
    assert_eq!(listening(), [(0xc000_0100, fd_one), (0xc001_0100, fd_two)]);
    bus.set(A, 0x18, 4, 0xc001_0000);
    assert_eq!((tag_at(&bus, Space::Memory, 0xc001_0000), listening()), (0x11, vec![(0xc001_0100, fd_one)]));
    bus.set(A, 4, 2, 0);
    assert_eq!((tag_at(&bus, Space::Memory, 0xc001_0000), listening()), (0x21, vec![(0xc001_0100, fd_two)]));
    assert_eq!(two.memory64.1.lock().unwrap().len(), 1);
}

#[test]
fn msix_is_found_by_its_capability_and_works_through_its_bar() {
    let (bus, one) = with_one();
    let [(at, 0x11)] = bus.capabilities(A)[..] else { panic!("{:?}", bus.capabilities(A)) };
    assert_eq!((bus.get(A, at + 2, 2), bus.get(A, at + 4, 4), bus.get(A, at + 8, 4)), (4, 0xc002, 0xe002));
    bus.set(A, 4, 2, 2);
    bus.set(A, 0x18, 4, 0xc000_0000);
    bus.bus.write(Space::Memory, 0xc000_c000, &0xfee0_0000_u64.to_le_bytes());
    bus.bus.write(Space::Memory, 0xc000_c008, &0x31_u64.to_le_bytes());
    assert!(one.route.programmed.lock().unwrap().is_empty());
    bus.set(A, at + 2, 2, 0xffff);
    assert_eq!(bus.get(A, at + 2, 2), 0xc004);
    bus.set(A, at + 3, 1, 0x80);
    assert_eq!(one.route.programmed.lock().unwrap().len(), 1);
    // What lies between is nobody's.
    assert_eq!(tag_at(&bus, Space::Memory, 0xc000_9000), 0xff);
}

#[test]
fn status_tells_of_a_pending_interrupt_though_it_is_disabled() {
    let (bus, one) = with_one();
    assert_eq!(bus.get(A, 6, 2), 0x10);
    one.intx.update(|| true);
    assert_eq!((bus.get(A, 6, 2), bus.get(A, 6, 1), bus.get(A, 7, 1), bus.get(A, 4, 4)), (0x18, 0x18, 0, 0x18_0000));
    bus.set(A, 4, 2, 0x400);
    assert_eq!(bus.get(A, 4, 4), 0x18_0400);
    bus.bus.reset();
    assert_eq!(bus.get(A, 4, 4), 0x10_0000);
}

#[test]
fn intx_is_silent_when_disabled_or_replaced_by_msix() {
    let level = Arc::new(Mutex::new(false));
    let seen = level.clone();
    let intx = Intx::new(SharedLine::new(Box::new(move |level| *seen.lock().unwrap() = level)));
    let endpoint = Endpoint::builder(IDENTITY)
        .bar(0, BarKind::Memory32, 0x1000, Bus::default())
        .and_then(|b| b.msix(Msix::new(1, Arc::new(FakeRoute::default())), MsixPlace { bar: 0, table: 0, pba: 0x800 }))
        .map(|b| b.intx(Some(intx.clone())))
        .and_then(EndpointBuilder::build)
        .unwrap();
    let bus = TestBus::new();
    bus.bus.add(A, Arc::new(endpoint)).unwrap();
    intx.update(|| true);
    let level = || *level.lock().unwrap();
    assert!(level());
    bus.set(A, 4, 2, 0x400);
    assert!(!level());
    bus.set(A, 4, 2, 0);
    assert!(level());
    bus.set(A, 0x42, 2, 0x8000);
    assert!(!level());
    bus.set(A, 0x42, 2, 0);
    assert!(level());
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let bar = |index, kind, size| ConfigSpace::new(IDENTITY).add_bar(index, kind, size).is_ok();
    for (index, kind, size) in [(0, BarKind::Memory32, 16), (5, BarKind::Io, 256), (4, BarKind::Memory64, 1 << 31)] {
        assert!(bar(index, kind, size));
    }
    for (index, kind, size) in [
        (0, BarKind::Memory32, 0),
        (0, BarKind::Memory32, 8),
        (0, BarKind::Memory32, 0x1800),
        (0, BarKind::Memory64, 1 << 32),
        (0, BarKind::Io, 512),
        (6, BarKind::Io, 4),
        (5, BarKind::Memory64, 0x1000),
    ] {
        assert!(!bar(index, kind, size), "{index} {kind:?} {size:#x}");
    }
    let mut config = ConfigSpace::new(IDENTITY);
    config.add_bar(2, BarKind::Memory64, 0x1000).unwrap();
    for index in [1, 2, 3] {
        assert!(config.add_bar(index, BarKind::Memory64, 0x1000).is_err());
    }
    config.add_bar(4, BarKind::Memory32, 0x1000).unwrap();
    for _ in 0..12 {
        config.add_capability(9, &[0; 14], &[]).unwrap();
    }
    assert_eq!(config.add_capability(9, &[], &[]), Err(PciError::CapabilityTooLong { id: 9, len: 2 }));

    let (bus, one) = with_one();
    assert_eq!(bus.bus.add(A, one.endpoint), Err(PciError::SlotTaken(A)));
    let msix = |table, pba, bar| {
        Endpoint::builder(IDENTITY)
            .bar(0, BarKind::Memory32, 0x1000, whole(0x800, Tagged::new(1)))
            .and_then(|b| b.msix(Msix::new(8, Arc::new(FakeRoute::default())), MsixPlace { bar, table, pba }))
            .is_ok()
    };
    assert!(msix(0x800, 0x880, 0));
    for (table, pba, bar) in [
        (0x7f8, 0x880, 0),
        (0x800, 0x878, 0),
        (0x804, 0x900, 0),
        (0xfc0, 0x800, 0),
        (0x800, 0x1000, 0),
        (0x800, 0x880, 1),
        (0, 0x800, 6),
    ] {
        assert!(!msix(table, pba, bar), "{table:#x} {pba:#x} {bar}");
    }
}

/// Every register of a function that can be written, and some that cannot.
fn register() -> impl Strategy<Value = u8> {
    prop_oneof![4 => prop::sample::select(vec![4, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30, 0x3c, 0x40, 0x42]), 1 => any::<u8>()]
}

fn config_value() -> impl Strategy<Value = u32> {
    prop_oneof![
        2 => 0_u32..8,
        2 => (0_u32..64).prop_map(|page| WINDOW_START + page * 0x1000),
        1 => (0_u32..16).prop_map(|page| 0xcfff_0000 + page * 0x1000),
        1 => 0x10_u32..0x21,
        1 => 0xbff0_u32..0xc040,
        1 => any::<u32>(),
        1 => Just(u32::MAX),
    ]
}

const WINDOW_START: u32 = 0xc000_0000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_is_written_nothing_answers_outside_and_doorbells_are_where_their_bar_is(
        steps in prop::collection::vec((any::<bool>(), register(), prop::sample::select(vec![1, 2, 4]), config_value()), 0..50),
        probes in prop::collection::vec((any::<bool>(), any::<u64>(), prop::sample::select(vec![1, 2, 4, 8])), 0..20),
    ) {
        let (bus, one) = with_one();
        let two = function(0x20);
        bus.bus.add(B, two.endpoint.clone()).unwrap();
        for (first, register, len, value) in steps {
            let (slot, function) = if first { (A, &one) } else { (B, &two) };
            let register = register & !(u8::try_from(len).unwrap() - 1);
            bus.set(slot, register, len, value);
            bus.get(slot, register, len);
            // Identity and sizes stay.
            prop_assert_eq!(bus.get(slot, 0, 4), 0x8061_1d0f);
            for region in function.endpoint.regions() {
                prop_assert!(region.base.is_multiple_of(region.len));
            }
            for &(addr, ..) in bus.io_events.0.lock().unwrap().iter() {
                prop_assert!(WINDOW.contains(&addr) || HIGH_WINDOW.contains(&addr));
                let tag = tag_at(&bus, Space::Memory, addr);
                prop_assert!(tag == 0x11 || tag == 0x21, "{:#x}: {:#x}", addr, tag);
            }
        }
        let bases: Vec<u64> = one.endpoint.regions().iter().chain(&two.endpoint.regions()).map(|r| r.base).collect();
        for (io, addr, len) in probes {
            let space = if io { Space::Io } else { Space::Memory };
            // Near what decodes, and anywhere.
            for addr in bases.iter().map(|base| base.wrapping_add(addr % 0x2_0000).wrapping_sub(0x1000)).chain([addr]) {
                let mut data = vec![0; len];
                bus.bus.read(space, addr, &mut data);
                bus.bus.write(space, addr, &data);
                let inside = match space {
                    Space::Io => IO_WINDOW.contains(&addr) || (0x600..0x640).contains(&addr),
                    Space::Memory => WINDOW.contains(&addr) || HIGH_WINDOW.contains(&addr),
                };
                prop_assert!(inside || data.iter().all(|byte| *byte == 0xff));
            }
        }
        for (device, size) in [(&one.memory, 0x1000), (&two.memory64, 0x8000), (&one.io, 16)] {
            for &(offset, len) in device.1.lock().unwrap().iter() {
                prop_assert!(offset + len as u64 <= size);
            }
        }
        bus.bus.reset();
        prop_assert!(bus.io_events.0.lock().unwrap().is_empty());
    }

    #[test]
    fn the_ports_take_anything(steps in prop::collection::vec((0_u64..8, 1_usize..9, any::<u64>(), any::<bool>()), 0..60)) {
        let (bus, _one) = with_one();
        bus.bus.add(DevFn::new(0, 0), Arc::new(HostBridge::new(Box::new(|_| {})))).unwrap();
        bus.bus.add(DevFn::new(1, 0), Arc::new(IsaBridge::new())).unwrap();
        bus.bus.add(DevFn::new(1, 3), Arc::new(PowerManagement::new(Tagged::new(7)))).unwrap();
        for (offset, len, value, write) in steps {
            // The bus never lets an access leave the ports.
            let len = len.min(8 - usize::try_from(offset).unwrap());
            let mut data = value.to_le_bytes()[..len].to_vec();
            if write {
                // Addresses are likely to be of this bus.
                if (offset, len) == (0, 4) {
                    data[2] = 0;
                    data[3] = 0x80;
                    data[1] &= 0x1b;
                }
                bus.ports.write(offset, &data);
            } else {
                bus.ports.read(offset, &mut data);
            }
        }
        prop_assert_eq!(bus.get(A, 0, 4), 0x8061_1d0f);
        prop_assert_eq!(bus.get(DevFn::new(0, 0), 0, 4), 0x1237_8086);
    }
}
