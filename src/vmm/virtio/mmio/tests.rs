//! Each rule of the register file, seen through reads and writes, and random sequences of them.

use std::sync::Mutex;
use std::time::Duration;

use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryBackend;
use vmm_sys_util::eventfd::EFD_CLOEXEC;

use super::super::testing::*;
use super::super::{ActivateError, Activation, VirtioDevice};
use super::*;

/// Offered besides `VIRTIO_F_VERSION_1`.
const OFFERED: u64 = 1 << 0 | 1 << 9 | EVENT_IDX;

/// What happened to a [`Probe`].
#[derive(Default)]
struct Seen {
    activation: Option<Activation>,
    activations: usize,
    resets: usize,
    written: Vec<(u64, Vec<u8>)>,
    refuse: bool,
}

/// A device with queues of 256 and 64 that only notes what happens to it.
struct Probe(Arc<Mutex<Seen>>);

impl VirtioDevice for Probe {
    fn device_type(&self) -> u32 {
        42
    }
    fn queue_sizes(&self) -> &[u16] {
        &[256, 64]
    }
    fn features(&self) -> u64 {
        OFFERED
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
        if seen.refuse {
            return Err(ActivateError { device: "probe", reason: "told to".into() });
        }
        seen.activations += 1;
        seen.activation = Some(activation);
        Ok(())
    }
    fn reset(&mut self) {
        let mut seen = self.0.lock().unwrap();
        seen.activation = None;
        seen.resets += 1;
    }
}

fn probe() -> (Driver, Arc<Mutex<Seen>>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    (Driver::new(Box::new(Probe(seen.clone()))), seen)
}

fn started() -> (Driver, Arc<Mutex<Seen>>) {
    let (mut driver, seen) = probe();
    driver.start(VERSION_1, 64);
    (driver, seen)
}

#[test]
fn it_says_what_it_is() {
    let (driver, _) = probe();
    assert_eq!(driver.get(0x00).to_le_bytes(), *b"virt");
    assert_eq!((driver.get(0x04), driver.get(0x08)), (2, 42));
    assert_eq!(driver.get(0x0c).to_le_bytes(), *b"AMIB");
}

#[test]
fn features_come_in_two_halves_and_no_more() {
    let (driver, _) = probe();
    let half = |sel| {
        driver.set(0x14, sel);
        driver.get(0x10)
    };
    assert_eq!([half(0), half(1), half(2), half(u32::MAX)], [1 << 0 | 1 << 9 | 1 << 29, 1, 0, 0]);
}

#[test]
fn features_ok_needs_version_1_and_only_what_was_offered() {
    for (features, accepted) in [
        (VERSION_1, true),
        (VERSION_1 | OFFERED, true),
        (OFFERED, false),
        (VERSION_1 | 1 << 1, false),
        (VERSION_1 | 1 << 34, false),
        (0, false),
    ] {
        let (mut driver, _) = probe();
        driver.negotiate(features);
        assert_eq!(driver.get(0x70), if accepted { 0xb } else { 0x3 }, "{features:#x}");
        // After a refusal the driver may think again.
        driver.negotiate(VERSION_1);
        assert_eq!(driver.get(0x70), 0xb);
    }
}

#[test]
fn features_are_written_between_driver_and_features_ok() {
    let (mut driver, _) = probe();
    let features = |driver: &Driver| driver.transport.core.lock().registers.driver_features();
    driver.set(0x24, 0);
    driver.set(0x20, 1);
    driver.set(0x70, 1);
    driver.set(0x20, 1);
    assert_eq!(features(&driver), 0);
    driver.negotiate(VERSION_1);
    driver.set(0x24, 0);
    driver.set(0x20, 1);
    assert_eq!(features(&driver), VERSION_1);
    driver.set_up_queue(64);
    driver.set(0x70, 0xf);
    driver.set(0x20, 1);
    assert_eq!(features(&driver), VERSION_1);
}

#[test]
fn status_goes_up_in_order_and_down_only_by_a_reset() {
    let (mut driver, seen) = probe();
    for (value, status) in [(2, 0), (4, 0), (8, 0), (1, 1), (0xd, 1), (2, 1), (3, 3), (7, 3), (1, 3)] {
        driver.set(0x70, value);
        assert_eq!(driver.get(0x70), status, "{value:#x}");
    }
    driver.start(VERSION_1, 64);
    driver.set(0x70, 0xb);
    assert_eq!(driver.get(0x70), 0xf);
    driver.set(0x70, 0xf);
    assert_eq!(seen.lock().unwrap().activations, 1);
    driver.set(0x70, 0);
    assert_eq!(driver.get(0x70), 0);
    assert_eq!(seen.lock().unwrap().resets, 1);
    assert!(seen.lock().unwrap().activation.is_none());
    // The first steps in one write, as firmware does it.
    driver.set(0x70, 3);
    assert_eq!(driver.get(0x70), 3);
}

#[test]
fn after_failed_only_a_reset_counts() {
    let (mut driver, seen) = probe();
    driver.negotiate(VERSION_1);
    driver.set(0x70, 0x8b);
    driver.set(0x44, 1);
    driver.set(0x70, 0x8f);
    assert_eq!((driver.get(0x70), driver.get(0x44)), (0x8b, 0));
    assert_eq!(seen.lock().unwrap().activations, 0);
    driver.set(0x70, 0);
    driver.start(VERSION_1, 64);
    assert_eq!(seen.lock().unwrap().activations, 1);
}

#[test]
fn queues_are_set_up_between_driver_and_driver_ok() {
    let (mut driver, _) = probe();
    let queue =
        |driver: &Driver| serde_json::to_value(driver.transport.state()).unwrap()["registers"]["queues"][0].clone();
    let fresh = queue(&driver);
    let scribble = |driver: &Driver| {
        for register in [0x38, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4, 0x44] {
            driver.set(register, 1);
        }
    };
    scribble(&driver);
    driver.set(0x70, 1);
    scribble(&driver);
    assert_eq!(queue(&driver), fresh);
    driver.start(VERSION_1, 64);
    let set_up = queue(&driver);
    assert_eq!(set_up["size"], 64);
    scribble(&driver);
    driver.set(0x44, 0);
    assert_eq!(queue(&driver), set_up);
    driver.set(0x70, 0);
    assert_eq!(queue(&driver), fresh);
}

#[test]
fn a_ready_queue_is_not_changed() {
    let (mut driver, _) = probe();
    driver.negotiate(VERSION_1);
    driver.set_up_queue(64);
    driver.set(0x38, 128);
    assert_eq!(
        driver.transport.core.lock().registers.build_queues(&driver.memory).unwrap()[0].as_ref().unwrap().size(),
        64
    );
    driver.set(0x44, 0);
    driver.set(0x38, 128);
    driver.set(0x44, 1);
    assert_eq!(driver.get(0x44), 1);
    assert_eq!(
        driver.transport.core.lock().registers.build_queues(&driver.memory).unwrap()[0].as_ref().unwrap().size(),
        128
    );
}

#[test]
fn a_queue_that_is_not_there_reads_zero_and_takes_nothing() {
    let (mut driver, _) = probe();
    driver.negotiate(VERSION_1);
    for (sel, max) in [(0, 256), (1, 64), (2, 0), (u32::MAX, 0)] {
        driver.set(0x30, sel);
        assert_eq!(driver.get(0x34), max);
        driver.set(0x44, 1);
        assert_eq!(driver.get(0x44), u32::from(max > 0));
    }
}

#[test]
fn activation_brings_what_the_driver_set_up() {
    let (mut driver, seen) = probe();
    driver.negotiate(VERSION_1 | EVENT_IDX);
    driver.set_up_queue(128);
    driver.set(0x70, 0xf);
    let seen = seen.lock().unwrap();
    let activation = seen.activation.as_ref().unwrap();
    assert_eq!(activation.features, VERSION_1 | EVENT_IDX);
    assert!(activation.queues[1].is_none());
    let queue = &activation.queues[0].as_ref().unwrap().queue;
    assert_eq!((queue.size(), queue.max_size(), queue.event_idx_enabled()), (128, 256, true));
    assert_eq!((queue.desc_table(), queue.avail_ring(), queue.used_ring()), (DESC, AVAIL, USED));
}

#[test]
fn a_wrong_queue_asks_for_a_reset_instead_of_working() {
    let wrong: &[(u64, u32)] = &[
        (0x38, 0),
        (0x38, 3),
        (0x38, 512),
        (0x38, 0x1_0040),
        (0x80, 0x1008),
        (0x90, 0x2001),
        (0xa0, 0x3002),
        (0x84, 1),
        (0x94, u32::MAX),
        (0xa4, 0x8000_0000),
        (0x80, 0x20_0000),
        (0x90, 0x1f_fffe),
        (0xa0, 0x40_fffc),
    ];
    for &(register, value) in wrong {
        let (mut driver, seen) = probe();
        driver.negotiate(VERSION_1);
        driver.set_up_queue(64);
        driver.set(0x44, 0);
        driver.set(register, value);
        driver.set(0x44, 1);
        driver.set(0x70, 0xf);
        assert_eq!(driver.get(0x70), 0x4f, "{register:#x} {value:#x}");
        assert_eq!(seen.lock().unwrap().activations, 0);
        assert_eq!(driver.wait_interrupt(), 2);
        assert!(driver.transport.state().failure.unwrap().starts_with("queue 0: "));
        // The driver writes the status it read, and the device stays as it is until the reset.
        driver.set(0x70, 0x4f);
        assert_eq!(driver.get(0x70), 0x4f);
        driver.set(0x70, 0);
        assert_eq!((driver.get(0x70), driver.transport.state().failure), (0, None));
    }
}

#[test]
fn a_device_that_cannot_start_asks_for_a_reset() {
    let (mut driver, seen) = probe();
    seen.lock().unwrap().refuse = true;
    driver.negotiate(VERSION_1);
    driver.set_up_queue(64);
    driver.set(0x70, 0xf);
    assert_eq!(driver.get(0x70), 0x4f);
    assert_eq!(driver.transport.state().failure.unwrap(), "a probe device could not start: told to");
}

#[test]
fn interrupts_are_kept_until_acknowledged() {
    let (driver, seen) = started();
    let interrupt = seen.lock().unwrap().activation.as_ref().unwrap().interrupt.clone();
    assert_eq!(driver.get(0x60), 0);
    interrupt.queue(0);
    interrupt.queue(1);
    assert_eq!(driver.irq.read().unwrap(), 2);
    assert_eq!((driver.get(0x60), driver.get(0xfc)), (1, 0));
    interrupt.config();
    assert_eq!((driver.get(0x60), driver.get(0xfc)), (3, 1));
    driver.set(0x64, 2);
    assert_eq!(driver.get(0x60), 1);
    driver.set(0x64, u32::MAX);
    assert_eq!(driver.get(0x60), 0);
    // A bit that is set already raises an edge again.
    interrupt.queue(0);
    driver.irq.read().unwrap();
    interrupt.queue(0);
    assert_eq!(driver.irq.read().unwrap(), 1);
    driver.set(0x70, 0);
    assert_eq!((driver.get(0x60), driver.get(0xfc)), (0, 1));
    assert!(!driver.interrupt_within(Duration::ZERO));
}

#[test]
fn a_notification_that_was_not_caught_reaches_its_queue() {
    let (driver, _) = started();
    driver.set(0x50, 1);
    driver.set(0x50, 1);
    driver.set(0x50, 2);
    driver.set(0x50, u32::MAX);
    driver.set(0x50, 0);
    let kicks = driver.transport.queue_kicks();
    assert_eq!((kicks[0].read().unwrap(), kicks[1].read().unwrap(), kicks.len()), (1, 2, 2));
}

#[test]
fn registers_take_only_aligned_words() {
    let (driver, _) = probe();
    for (offset, len) in [(0, 1), (0, 2), (0, 8), (1, 4), (2, 4), (0xfe, 4), (0xfc, 8), (u64::MAX, 4), (1 << 32, 4)] {
        let mut data = vec![0xaa; len];
        driver.transport.read(offset, &mut data);
        assert_eq!(data, vec![0; len], "{offset:#x}+{len}");
    }
    for (offset, data) in
        [(0x70, vec![1]), (0x70, vec![1, 0]), (0x70, vec![1; 8]), (0x71, vec![0, 0, 0, 1]), (0x6e, vec![1; 4])]
    {
        driver.transport.write(offset, &data);
        assert_eq!(driver.get(0x70), 0);
    }
}

#[test]
fn configuration_space_takes_natural_widths_within_its_bounds() {
    let (driver, seen) = probe();
    for (offset, len, answered) in [
        (0x110, 1, true),
        (0x110, 2, true),
        (0x111, 4, true),
        (0x1f8, 8, true),
        (0x110, 3, false),
        (0x1f9, 8, false),
        (0x200, 1, false),
    ] {
        let mut data = vec![0xaa; len];
        driver.transport.read(offset, &mut data);
        assert_eq!(u64::from(data[0]), if answered { offset - 0x100 } else { 0 });
        driver.transport.write(offset, &data);
        let written = std::mem::take(&mut seen.lock().unwrap().written);
        assert_eq!(written.len(), usize::from(answered));
        if answered {
            assert_eq!(written, [(offset - 0x100, data)]);
        }
    }
}

#[test]
fn there_is_no_shared_memory_and_nothing_at_other_offsets() {
    let (driver, _) = probe();
    driver.set(0xac, 0);
    for offset in [0xb0, 0xb4, 0xb8, 0xbc] {
        assert_eq!(driver.get(offset), u32::MAX);
    }
    for offset in [0x18, 0x20, 0x30, 0x38, 0x40, 0x50, 0x64, 0x80, 0x90, 0xa0, 0xc0, 0xf8] {
        assert_eq!(driver.get(offset), 0, "{offset:#x}");
    }
}

#[test]
fn impossible_queue_sizes_are_refused() {
    struct Odd;
    impl VirtioDevice for Odd {
        fn device_type(&self) -> u32 {
            1
        }
        fn queue_sizes(&self) -> &[u16] {
            &[3]
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
    let made = MmioTransport::new(Box::new(Odd), memory(), EventFd::new(EFD_CLOEXEC).unwrap());
    assert_eq!(made.err().map(|error| error.kind()), Some(io::ErrorKind::InvalidInput));
}

/// A value that one register or another could take seriously.
fn value() -> impl Strategy<Value = u32> {
    prop_oneof![
        3 => 0_u32..16,
        2 => prop::sample::select(vec![64, 128, 256, 0x1000, 0x2000, 0x3000, 0x10_0000, 0x1f_f000, 0x40_0000]),
        1 => any::<u32>(),
    ]
}

fn offset() -> impl Strategy<Value = u64> {
    let registers = [0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x64, 0x70, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4];
    prop_oneof![8 => prop::sample::select(registers.to_vec()), 1 => 0_u64..0x200]
}

/// Whether a queue that reached a device keeps to the rules.
fn legal(queue: &Queue, memory: &GuestMemory) -> bool {
    let size = usize::from(queue.size());
    let inside = |addr, len| GuestMemoryBackend::check_range(memory, vm_memory::GuestAddress(addr), len);
    queue.size() <= queue.max_size()
        && size.is_power_of_two()
        && queue.desc_table().is_multiple_of(16)
        && queue.avail_ring().is_multiple_of(2)
        && queue.used_ring().is_multiple_of(4)
        && inside(queue.desc_table(), 16 * size)
        && inside(queue.avail_ring(), 6 + 2 * size)
        && inside(queue.used_ring(), 6 + 8 * size)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_sequence_of_accesses_activates_an_illegal_queue(
        start in 0_usize..4,
        steps in prop::collection::vec((offset(), value(), prop::sample::select(vec![4, 4, 4, 4, 1, 2, 8]), any::<bool>()), 0..60),
    ) {
        let (mut driver, seen) = probe();
        // Random writes alone seldom come far.
        if start > 0 {
            driver.negotiate(VERSION_1);
        }
        if start > 1 {
            driver.set_up_queue(64);
        }
        if start > 2 {
            driver.set(0x70, 0xf);
        }
        for (offset, value, len, write) in steps {
            let mut data = [value.to_le_bytes(); 2].concat();
            data.truncate(len);
            if write {
                driver.transport.write(offset, &data);
            } else {
                driver.transport.read(offset, &mut data);
            }
            let status = driver.get(0x70);
            let seen = seen.lock().unwrap();
            if let Some(activation) = &seen.activation {
                prop_assert_eq!(status & 0xf, 0xf);
                prop_assert!(activation.features & VERSION_1 != 0);
                prop_assert_eq!(activation.features & !(VERSION_1 | OFFERED), 0);
                for active in activation.queues.iter().flatten() {
                    prop_assert!(legal(&active.queue, &activation.memory));
                }
            } else {
                prop_assert!(status & 4 == 0 || status & 0x40 != 0);
            }
        }
    }
}
