//! The registers of virtio-pci, seen through the bus. What the status machine and the queues do is tested with virtio-mmio;
//! here is how PCI reaches them, and what only PCI has.

use std::sync::Mutex;

use proptest::prelude::*;
use virtio_queue::QueueT;

use super::super::testing::attachment::{BAR, OnPci, SLOT};
use super::super::testing::*;
use super::super::{ActivateError, Activation, Interrupt};
use super::*;
use crate::vmm::pci::Space;
use crate::vmm::pci::testing::{FakeController, FakeRoute};

type Msix = DriverOn<OnPci<true>>;
type Intx = DriverOn<OnPci<false>>;

#[derive(Default)]
struct Seen {
    activation: Option<Activation>,
    written: Vec<(u64, Vec<u8>)>,
}

/// A device of type 42 with queues of 256 and 64 that only notes what happens to it.
struct Probe(Arc<Mutex<Seen>>);

impl VirtioDevice for Probe {
    fn device_type(&self) -> u32 {
        42
    }
    fn queue_sizes(&self) -> &[u16] {
        &[256, 64]
    }
    fn features(&self) -> u64 {
        EVENT_IDX | 1
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        data.iter_mut().zip(offset..).for_each(|(byte, at)| *byte = u8::try_from(at).unwrap_or(0));
    }
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.0.lock().unwrap().written.push((offset, data.to_vec()));
    }
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let mut seen = self.0.lock().unwrap();
        assert!(seen.activation.is_none(), "activated twice");
        seen.activation = Some(activation);
        Ok(())
    }
    fn reset(&mut self) {
        self.0.lock().unwrap().activation = None;
    }
}

fn probe<const MSIX: bool>() -> (DriverOn<OnPci<MSIX>>, Arc<Mutex<Seen>>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    (DriverOn::new(Box::new(Probe(seen.clone()))), seen)
}

fn started<const MSIX: bool>() -> (DriverOn<OnPci<MSIX>>, Arc<dyn Interrupt>) {
    let (mut driver, seen) = probe();
    driver.start(VERSION_1, 64);
    let interrupt = seen.lock().unwrap().activation.as_ref().unwrap().interrupt.clone();
    (driver, interrupt)
}

fn field<const MSIX: bool>(driver: &DriverOn<OnPci<MSIX>>, offset: u64, len: usize) -> u64 {
    driver.transport.read(offset, len)
}

fn set<const MSIX: bool>(driver: &DriverOn<OnPci<MSIX>>, offset: u64, len: usize, value: u64) {
    driver.transport.write(offset, len, value);
}

#[test]
fn it_is_a_modern_device_with_a_capability_for_each_structure() {
    let (driver, _): (Msix, _) = probe();
    let bus = &driver.transport.test_bus;
    assert_eq!((bus.get(SLOT, 0, 4), bus.get(SLOT, 8, 1), bus.get(SLOT, 0x2c, 4)), (0x106a_1af4, 1, 0x40_1af4));
    let structures: Vec<_> = bus
        .capabilities(SLOT)
        .into_iter()
        .filter(|(_, id)| *id == 9)
        .map(|(at, _)| {
            (bus.get(SLOT, at + 2, 1), bus.get(SLOT, at + 3, 1), bus.get(SLOT, at + 8, 4), bus.get(SLOT, at + 12, 4))
        })
        .collect();
    assert_eq!(
        structures,
        [(16, 1, 0, 56), (20, 2, 0x3000, 8), (16, 3, 0x1000, 1), (16, 4, 0x2000, 256), (20, 5, 0, 0)]
    );
    let notify = bus.capabilities(SLOT).into_iter().map(|(at, _)| at).find(|at| bus.get(SLOT, at + 3, 1) == 2).unwrap();
    assert_eq!(bus.get(SLOT, notify + 16, 4), 4);
    let at = driver.transport.msix();
    assert_eq!(bus.get(SLOT, at + 2, 2) & 0x7ff, 2);
}

#[test]
fn types_have_their_classes() {
    let class = |device_type| identity(device_type).map(|identity| (identity.device, identity.class));
    assert_eq!([1, 2, 3].map(class), [(0x1041, 0x02_0000), (0x1042, 0x01_0000), (0x1043, 0x07_8000)].map(Some));
    assert_eq!((class(4), class(0x40), class(u32::MAX)), (Some((0x1044, 0xff_0000)), None, None));
}

#[test]
fn impossible_queues_are_refused() {
    struct Odd(Vec<u16>);
    impl VirtioDevice for Odd {
        fn device_type(&self) -> u32 {
            1
        }
        fn queue_sizes(&self) -> &[u16] {
            &self.0
        }
        fn features(&self) -> u64 {
            0
        }
        fn read_config(&self, _: u64, _: &mut [u8]) {}
        fn activate(&mut self, _: Activation) -> Result<(), ActivateError> {
            Ok(())
        }
        fn reset(&mut self) {}
    }
    let made = |sizes| {
        VirtioPci::new(Box::new(Odd(sizes)), memory(), &FakeController(Arc::new(FakeRoute::default())), None)
            .map_err(|error| error.kind())
            .map(|function| function.state().queue_vectors.len())
    };
    assert_eq!(made(vec![3]), Err(io::ErrorKind::InvalidInput));
    assert_eq!(made(vec![4; 512]), Err(io::ErrorKind::InvalidInput));
    assert_eq!((made(vec![4; 511]), made(vec![])), (Ok(511), Ok(0)));
}

#[test]
fn fields_take_their_own_width_and_keep_what_is_selected() {
    let (driver, _): (Msix, _) = probe();
    let features = |sel| {
        set(&driver, 0, 4, sel);
        (field(&driver, 0, 4), field(&driver, 4, 4))
    };
    assert_eq!([0, 1, 2].map(features), [(0, 1 << 29 | 1), (1, 1), (2, 0)]);
    assert_eq!(field(&driver, 18, 2), 2);
    for (offset, len) in
        [(0, 1), (0, 2), (0, 8), (4, 2), (16, 4), (18, 1), (20, 2), (20, 4), (21, 2), (22, 4), (30, 1), (33, 4)]
    {
        set(&driver, offset, len, u64::MAX);
        assert_eq!(field(&driver, offset, len), 0, "{offset}+{len}");
    }
    assert_eq!((driver.status(), field(&driver, 22, 2)), (0, 0));
    // Beyond the structure nothing answers.
    assert_eq!(field(&driver, 56, 2), 0xffff);
    assert_eq!(field(&driver, 52, 8), u64::MAX);
}

#[test]
fn queues_are_described_and_activated() {
    let (mut driver, seen): (Msix, _) = probe();
    for (index, size, off) in [(0, 256, 0), (1, 64, 1), (2, 0, 0), (0xffff, 0, 0)] {
        set(&driver, 22, 2, index);
        assert_eq!((field(&driver, 22, 2), field(&driver, 24, 2), field(&driver, 30, 2)), (index, size, off));
        assert_eq!((field(&driver, 28, 2), field(&driver, 26, 2)), (0, 0xffff));
    }
    driver.negotiate(VERSION_1 | EVENT_IDX);
    driver.set_up_queue(128);
    assert_eq!((field(&driver, 24, 2), field(&driver, 28, 2)), (128, 1));
    assert_eq!([32, 40, 48].map(|at| field(&driver, at, 8)), [DESC, AVAIL, USED]);
    // Ready: not changed any more, and not taken back.
    set(&driver, 28, 2, 0);
    set(&driver, 24, 2, 64);
    set(&driver, 32, 8, 0x9000);
    assert_eq!((field(&driver, 28, 2), field(&driver, 24, 2), field(&driver, 32, 4)), (1, 128, DESC));
    // The other one, with addresses in one piece, is left unready by a value that is not 1.
    set(&driver, 22, 2, 1);
    set(&driver, 32, 8, 0x1_2345_6000);
    assert_eq!((field(&driver, 32, 4), field(&driver, 36, 4)), (0x2345_6000, 1));
    set(&driver, 28, 2, 2);
    set(&driver, 22, 2, 7);
    set(&driver, 28, 2, 1);
    driver.set_status(0xf);
    assert_eq!(driver.status(), 0xf);
    let seen = seen.lock().unwrap();
    let activation = seen.activation.as_ref().unwrap();
    assert!(activation.queues[1].is_none());
    let queue = &activation.queues[0].as_ref().unwrap().queue;
    assert_eq!((queue.size(), queue.max_size(), queue.event_idx_enabled()), (128, 256, true));
    assert_eq!((queue.desc_table(), queue.avail_ring(), queue.used_ring()), (DESC, AVAIL, USED));
}

#[test]
fn a_reset_takes_everything_back() {
    let (driver, _) = started::<true>();
    assert_eq!((field(&driver, 16, 2), field(&driver, 26, 2), field(&driver, 28, 2)), (0, 1, 1));
    driver.set_status(0);
    assert_eq!(driver.status(), 0);
    assert_eq!((field(&driver, 16, 2), field(&driver, 26, 2), field(&driver, 28, 2)), (0xffff, 0xffff, 0));
    assert_eq!((field(&driver, 24, 2), field(&driver, 32, 8)), (256, 0));
}

#[test]
fn vectors_that_do_not_exist_read_back_as_none() {
    let (driver, _): (Msix, _) = probe();
    for (vector, kept) in [(0, 0), (2, 2), (3, 0xffff), (2048, 0xffff), (0xffff, 0xffff)] {
        for offset in [16, 26] {
            set(&driver, offset, 2, vector);
            assert_eq!(field(&driver, offset, 2), kept);
        }
    }
    set(&driver, 22, 2, 2);
    set(&driver, 26, 2, 1);
    assert_eq!(field(&driver, 26, 2), 0xffff);
    assert_eq!(driver.transport.function.state().queue_vectors, [0xffff; 2]);
}

#[test]
fn with_msix_each_cause_has_its_vector() {
    let (driver, interrupt) = started::<true>();
    let sent = || std::mem::take(&mut *driver.transport.route.sent.lock().unwrap());
    interrupt.queue(0);
    assert_eq!((sent(), field(&driver, 0x1000, 1)), (vec![1], 0));
    // Queue 1 has no vector; queue 9 does not exist.
    interrupt.queue(1);
    interrupt.queue(9);
    assert!(sent().is_empty());
    interrupt.config();
    assert_eq!((sent(), field(&driver, 21, 1), field(&driver, 0x1000, 1)), (vec![0], 1, 2));
    interrupt.needs_reset("told to");
    assert_eq!((sent(), driver.status()), (vec![0], 0x4f));
    // Masked by the table, it waits.
    set(&driver, 0x401c, 4, 1);
    interrupt.queue(0);
    assert_eq!((sent(), field(&driver, 0x6000, 8)), (vec![], 0b10));
    set(&driver, 0x401c, 4, 0);
    assert_eq!((sent(), field(&driver, 0x6000, 8)), (vec![1], 0));
}

#[test]
fn without_msix_the_status_holds_the_line_until_it_is_read() {
    let (driver, interrupt) = started::<false>();
    let bus = &driver.transport.test_bus;
    let pending = || bus.get(SLOT, 6, 2) & 8 != 0;
    assert!(!pending());
    interrupt.queue(0);
    interrupt.queue(1);
    assert!(pending());
    assert_eq!(driver.irq.read().unwrap(), 1);
    interrupt.config();
    assert_eq!((field(&driver, 0x1000, 1), field(&driver, 0x1000, 1)), (3, 0));
    assert!(!pending());
    interrupt.queue(0);
    assert_eq!(driver.irq.read().unwrap(), 1);
    driver.set_status(0);
    assert!(!pending());
    assert_eq!(field(&driver, 0x1000, 1), 0);
}

#[test]
fn a_notification_reaches_the_queue_of_its_address_whatever_is_written() {
    let (driver, _) = started::<false>();
    for (offset, len) in [(0x3000, 2), (0x3004, 2), (0x3004, 4), (0x3004, 1), (0x3006, 2), (0x3008, 2), (0x3ffc, 4)] {
        set(&driver, offset, len, 9);
    }
    let kicks = driver.transport.function.shared.core.kicks();
    assert_eq!((kicks[0].read().unwrap(), kicks[1].read().unwrap()), (1, 3));
    // And so do the kernel's events.
    let mut bells: Vec<_> = driver.transport.test_bus.io_events.0.lock().unwrap().iter().map(|b| (b.0, b.1)).collect();
    bells.sort_unstable();
    assert_eq!(bells, [(BAR + 0x3000, None), (BAR + 0x3004, None)]);
}

#[test]
fn device_configuration_is_that_of_the_device() {
    let (driver, seen): (Intx, _) = probe();
    assert_eq!((field(&driver, 0x2010, 4), field(&driver, 0x20f8, 8) & 0xff), (0x1312_1110, 0xf8));
    assert_eq!(field(&driver, 0x20fc, 8), u64::MAX);
    set(&driver, 0x2020, 2, 0x1234);
    set(&driver, 0x20ff, 2, 0);
    assert_eq!(seen.lock().unwrap().written, [(0x20, vec![0x34, 0x12])]);
}

#[test]
fn the_window_in_configuration_space_reaches_the_bar() {
    let (driver, seen): (Msix, _) = probe();
    let bus = &driver.transport.test_bus;
    // Firmware uses it with BARs that it cannot reach.
    bus.set(SLOT, 4, 2, 0);
    assert_eq!(field(&driver, 20, 1), 0xff);
    let at = bus.capabilities(SLOT).into_iter().map(|(at, _)| at).find(|at| bus.get(SLOT, at + 3, 1) == 5).unwrap();
    let aim = |offset, len, bar| {
        bus.set(SLOT, at + 4, 1, bar);
        bus.set(SLOT, at + 8, 4, offset);
        bus.set(SLOT, at + 12, 4, len);
    };
    aim(20, 1, 0);
    bus.set(SLOT, at + 16, 1, 3);
    assert_eq!(bus.get(SLOT, at + 16, 1), 3);
    aim(0x2010, 4, 0);
    assert_eq!(bus.get(SLOT, at + 16, 4), 0x1312_1110);
    aim(0x2012, 2, 0);
    assert_eq!(bus.get(SLOT, at + 16, 2), 0x1312);
    bus.set(SLOT, at + 16, 2, 0x5678);
    assert_eq!(std::mem::take(&mut seen.lock().unwrap().written), [(0x12, vec![0x78, 0x56])]);
    // What is not legal reaches nothing.
    for (offset, len, bar) in [
        (0x2010, 3, 0),
        (0x2010, 8, 0),
        (0x2010, 0, 0),
        (0x2011, 2, 0),
        (0x2010, 4, 1),
        (0x8000, 4, 0),
        (u32::MAX, 1, 0),
        (u32::MAX - 3, 4, 0),
        (0x2010, 4, 255),
    ] {
        aim(offset, len, bar);
        bus.set(SLOT, at + 16, 4, 0x1111_1111);
        bus.get(SLOT, at + 16, 4);
    }
    aim(0x2010, 4, 0);
    bus.set(SLOT, at + 17, 1, 0);
    assert!(seen.lock().unwrap().written.is_empty());
}

#[test]
fn a_function_that_is_reset_is_as_after_power_on() {
    let (driver, _) = started::<true>();
    let fresh = probe::<true>().0.transport.function.state();
    driver.transport.test_bus.bus.reset();
    assert_eq!(driver.transport.function.state(), fresh);
    assert_eq!(field(&driver, 20, 1), 0xff);
    assert!(driver.transport.test_bus.io_events.0.lock().unwrap().is_empty());
    assert_eq!(driver.transport.test_bus.get(SLOT, driver.transport.msix() + 2, 2), 2);
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => prop::sample::select(vec![0, 4, 8, 12, 16, 20, 22, 24, 26, 28, 32, 36, 40, 44, 48, 52]),
        1 => prop::sample::select(vec![0x1000, 0x2000, 0x3000, 0x3004, 0x4000, 0x400c, 0x401c, 0x6000]),
        1 => 0_u64..0x8000,
    ]
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => 0_u64..16,
        2 => prop::sample::select(vec![64, 128, 256, 0x1000, 0x2000, 0x3000, 0x10_0000, 0x1f_f000, 0x40_0000]),
        1 => any::<u64>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(384))]

    #[test]
    fn no_sequence_of_accesses_activates_an_illegal_queue(
        start in 0_usize..4,
        steps in prop::collection::vec((offset(), value(), prop::sample::select(vec![1, 2, 2, 4, 4, 8]), 0_u8..5), 0..60),
    ) {
        let (mut driver, seen): (Intx, _) = probe();
        if start > 0 {
            driver.negotiate(VERSION_1);
        }
        if start > 1 {
            driver.set_up_queue(64);
        }
        if start > 2 {
            driver.set_status(0xf);
        }
        let bus = &driver.transport.test_bus;
        for (offset, value, len, what) in steps {
            match what {
                0 => { field(&driver, offset, len); }
                // Configuration space, the window and MSI-X's control among it; then the BAR is put back.
                1 => {
                    let register = u8::try_from(offset & 0xfc).unwrap();
                    bus.set(SLOT, register, len.min(4), u32::try_from(value & 0xffff_ffff).unwrap());
                    bus.set(SLOT, 0x10, 4, u32::try_from(BAR).unwrap());
                    bus.set(SLOT, 4, 2, 6);
                }
                _ => set(&driver, offset, len, value),
            }
            let mut status = [0];
            bus.bus.read(Space::Memory, BAR + 20, &mut status);
            let seen = seen.lock().unwrap();
            if let Some(activation) = &seen.activation {
                prop_assert_eq!(status[0] & 0xf, 0xf);
                prop_assert_eq!(activation.features & !(EVENT_IDX | 1), VERSION_1);
                for active in activation.queues.iter().flatten() {
                    prop_assert!(active.queue.is_valid(&activation.memory));
                    prop_assert!(active.queue.size() <= active.queue.max_size());
                }
                activation.interrupt.queue(0);
                activation.interrupt.config();
            } else {
                prop_assert!(status[0] & 4 == 0 || status[0] & 0x40 != 0);
            }
        }
    }
}
