//! The keyboard controller (Intel 8042, as in the IBM PS/2 Technical Reference) with a keyboard that nobody types on: what
//! firmware and kernels probe is answered at once. There is no mouse.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Line;
use crate::vmm::bus::BusDevice;
use crate::vmm::stop::{StopReason, Stopper};

/// How many ports it takes: data is the first, status and command the last.
pub const PORTS: u64 = 5;

const DATA: u64 = 0;
const COMMAND: u64 = 4;
/// Bytes that may wait to be read. More than any answer has.
const QUEUE_MAX: usize = 16;

const STATUS_OUTPUT_FULL: u8 = 1;
const STATUS_SYSTEM: u8 = 1 << 2;
const STATUS_COMMAND: u8 = 1 << 3;
const STATUS_UNLOCKED: u8 = 1 << 4;
const STATUS_AUX: u8 = 1 << 5;

const MODE_IRQ_KEYBOARD: u8 = 1;
const MODE_IRQ_AUX: u8 = 1 << 1;
const MODE_SYSTEM: u8 = 1 << 2;
const MODE_KEYBOARD_OFF: u8 = 1 << 4;
const MODE_AUX_OFF: u8 = 1 << 5;
const MODE_TRANSLATE: u8 = 1 << 6;

/// Output port: the reset line (active low) and the gate of address line 20.
const OUTPUT_NO_RESET: u8 = 1;
const OUTPUT_A20: u8 = 1 << 1;

const ACK: u8 = 0xfa;
const RESEND: u8 = 0xfe;
const SELF_TEST_OK: u8 = 0x55;
const KEYBOARD_OK: u8 = 0xaa;
/// What the test of the auxiliary port gives where nothing is connected: its clock line is stuck low.
const AUX_STUCK: u8 = 1;

/// Which byte a write to the data port is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Expect {
    /// A command to the keyboard.
    #[default]
    Keyboard,
    /// The parameter of a keyboard command.
    KeyboardParameter(u8),
    /// The parameter of a command to the controller.
    Controller(u8),
}

/// What the guest can see.
#[derive(Debug)]
struct State {
    mode: u8,
    output_port: u8,
    expect: Expect,
    was_command: bool,
    scancode_set: u8,
    /// Bytes to be read, and whether they come from the auxiliary port.
    queue: VecDeque<(u8, bool)>,
    last: u8,
}

impl State {
    fn answer(&mut self, byte: u8) {
        self.put(byte, false);
    }

    fn put(&mut self, byte: u8, aux: bool) {
        if self.queue.len() < QUEUE_MAX {
            self.queue.push_back((byte, aux));
        }
    }

    fn status(&self) -> u8 {
        let mut status = STATUS_UNLOCKED;
        if let Some((_, aux)) = self.queue.front() {
            status |= STATUS_OUTPUT_FULL | if *aux { STATUS_AUX } else { 0 };
        }
        if self.mode & MODE_SYSTEM != 0 {
            status |= STATUS_SYSTEM;
        }
        if self.was_command {
            status |= STATUS_COMMAND;
        }
        status
    }

    fn read_data(&mut self) -> u8 {
        if let Some((byte, _)) = self.queue.pop_front() {
            self.last = byte;
        }
        self.last
    }

    /// A command to the controller. True where it resets the machine.
    fn command(&mut self, command: u8) -> bool {
        self.was_command = true;
        self.expect = Expect::Keyboard;
        match command {
            0x20 => self.answer(self.mode),
            0x60 | 0xd1..=0xd4 => self.expect = Expect::Controller(command),
            0xa7 => self.mode |= MODE_AUX_OFF,
            0xa8 => self.mode &= !MODE_AUX_OFF,
            0xa9 => self.answer(AUX_STUCK),
            0xaa => {
                self.mode |= MODE_SYSTEM;
                self.answer(SELF_TEST_OK);
            }
            0xab => self.answer(0),
            0xad => self.mode |= MODE_KEYBOARD_OFF,
            0xae => self.mode &= !MODE_KEYBOARD_OFF,
            // Input port: the keyboard is not locked.
            0xc0 => self.answer(0x80),
            0xd0 => self.answer(self.output_port),
            0xdd => self.output_port &= !OUTPUT_A20,
            0xdf => self.output_port |= OUTPUT_A20,
            // Pulses those lines of the output port whose bit is clear; the first is reset.
            0xf0..=0xff => return command & OUTPUT_NO_RESET == 0,
            _ => {}
        }
        false
    }

    /// A write to the data port. True where it resets the machine.
    fn write_data(&mut self, byte: u8) -> bool {
        self.was_command = false;
        match std::mem::take(&mut self.expect) {
            Expect::Controller(0x60) => self.mode = byte,
            Expect::Controller(0xd1) => {
                self.output_port = byte;
                return byte & OUTPUT_NO_RESET == 0;
            }
            Expect::Controller(0xd2) => self.answer(byte),
            // The loop-back test of the auxiliary port: an answer, but not from there.
            Expect::Controller(0xd3) => self.answer(byte),
            // Nothing is connected there that could answer.
            Expect::Controller(_) => self.put(RESEND, true),
            Expect::KeyboardParameter(command) => self.keyboard_parameter(command, byte),
            Expect::Keyboard => self.keyboard_command(byte),
        }
        false
    }

    fn keyboard_command(&mut self, command: u8) {
        // Talking to the keyboard switches it on.
        self.mode &= !MODE_KEYBOARD_OFF;
        match command {
            // Lights, scan code set, repeat rate: each with a parameter.
            0xed | 0xf0 | 0xf3 => {
                self.expect = Expect::KeyboardParameter(command);
                self.answer(ACK);
            }
            0xee => self.answer(0xee),
            0xf2 => {
                let id = if self.mode & MODE_TRANSLATE != 0 { 0x41 } else { 0x83 };
                for byte in [ACK, 0xab, id] {
                    self.answer(byte);
                }
            }
            // On, off, defaults, and what kinds of keys do: there are no keys.
            0xf4..=0xfa => self.answer(ACK),
            0xff => {
                self.queue.clear();
                self.scancode_set = 2;
                self.answer(ACK);
                self.answer(KEYBOARD_OK);
            }
            _ => self.answer(RESEND),
        }
    }

    fn keyboard_parameter(&mut self, command: u8, parameter: u8) {
        self.answer(ACK);
        match (command, parameter) {
            (0xf0, 0) => self.answer(self.scancode_set),
            (0xf0, 1..=3) => self.scancode_set = parameter,
            _ => {}
        }
    }
}

/// The controller.
pub struct KeyboardController {
    state: Mutex<State>,
    stopper: Stopper,
    keyboard_irq: Line,
    aux_irq: Line,
}

impl KeyboardController {
    /// Resets the machine through `stopper`; the lines are those of the keyboard and of the auxiliary port.
    #[must_use]
    pub fn new(stopper: Stopper, keyboard_irq: Line, aux_irq: Line) -> Self {
        let state = State {
            mode: MODE_AUX_OFF,
            output_port: OUTPUT_NO_RESET | OUTPUT_A20,
            expect: Expect::Keyboard,
            was_command: false,
            scancode_set: 2,
            queue: VecDeque::with_capacity(QUEUE_MAX),
            last: 0,
        };
        Self { state: Mutex::new(state), stopper, keyboard_irq, aux_irq }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update_lines(&self, state: &State) {
        let front = state.queue.front().map(|(_, aux)| *aux);
        (self.keyboard_irq)(front == Some(false) && state.mode & MODE_IRQ_KEYBOARD != 0);
        (self.aux_irq)(front == Some(true) && state.mode & MODE_IRQ_AUX != 0);
    }
}

impl BusDevice for KeyboardController {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Some(first) = data.first_mut() else { return };
        let mut state = self.state();
        match offset {
            DATA => {
                *first = state.read_data();
                // Every byte is an edge of its own.
                (self.keyboard_irq)(false);
                (self.aux_irq)(false);
                self.update_lines(&state);
            }
            COMMAND => *first = state.status(),
            _ => {}
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let Some(&byte) = data.first() else { return };
        let mut state = self.state();
        let resets = match offset {
            DATA => state.write_data(byte),
            COMMAND => state.command(byte),
            _ => false,
        };
        if resets {
            self.stopper.stop(StopReason::Reset);
        }
        self.update_lines(&state);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;

    struct Bench {
        controller: KeyboardController,
        stopper: Stopper,
        /// Rising edges of the keyboard's line.
        edges: Arc<AtomicUsize>,
    }

    fn bench() -> Bench {
        let stopper = Stopper::new().unwrap();
        let edges = Arc::new(AtomicUsize::new(0));
        let (counter, level) = (edges.clone(), Mutex::new(false));
        let line: Line = Arc::new(move |new| {
            let old = std::mem::replace(&mut *level.lock().unwrap(), new);
            counter.fetch_add(usize::from(new && !old), Ordering::SeqCst);
        });
        Bench { controller: KeyboardController::new(stopper.clone(), line, Arc::new(|_| {})), stopper, edges }
    }

    impl Bench {
        fn status(&self) -> u8 {
            let mut byte = [0];
            self.controller.read(COMMAND, &mut byte);
            byte[0]
        }
        /// All that waits to be read.
        fn answers(&self) -> Vec<u8> {
            let mut all = Vec::new();
            while self.status() & STATUS_OUTPUT_FULL != 0 {
                let mut byte = [0];
                self.controller.read(DATA, &mut byte);
                all.push(byte[0]);
            }
            all
        }
        fn command(&self, command: u8) -> Vec<u8> {
            self.controller.write(COMMAND, &[command]);
            self.answers()
        }
        fn data(&self, byte: u8) -> Vec<u8> {
            self.controller.write(DATA, &[byte]);
            self.answers()
        }
    }

    #[test]
    fn firmware_and_kernels_finish_probing() {
        let b = bench();
        assert_eq!(b.command(0xaa), [0x55]);
        assert_eq!(b.status() & STATUS_SYSTEM, STATUS_SYSTEM);
        assert_eq!(b.command(0xab), [0]);
        assert!(b.command(0x60).is_empty());
        assert!(b.data(0x61).is_empty());
        assert_eq!(b.command(0x20), [0x61]);
        assert_eq!(b.data(0xff), [0xfa, 0xaa]);
        assert_eq!(b.data(0xf2), [0xfa, 0xab, 0x41]);
        assert_eq!(b.data(0xf0), [0xfa]);
        assert_eq!(b.data(0), [0xfa, 2]);
        assert_eq!(b.data(0xed), [0xfa]);
        assert_eq!(b.data(2), [0xfa]);
        assert_eq!(b.data(0xee), [0xee]);
        assert_eq!(b.data(0xf4), [0xfa]);
        assert_eq!(b.data(0x02), [0xfe]);
        // No mouse: the loop-back answer is not from there, and the test says so.
        b.command(0xd3);
        b.controller.write(DATA, &[0x5a]);
        assert_eq!(b.status() & STATUS_AUX, 0);
        assert_eq!(b.answers(), [0x5a]);
        assert_eq!(b.command(0xa9), [1]);
    }

    #[test]
    fn every_byte_raises_an_interrupt_of_its_own_where_that_is_on() {
        let b = bench();
        b.data(0xf2);
        assert_eq!(b.edges.load(Ordering::SeqCst), 0);
        b.command(0x60);
        b.data(MODE_IRQ_KEYBOARD);
        b.data(0xf2);
        assert_eq!(b.edges.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn address_line_20_is_seen_to_switch_and_reset_resets() {
        let b = bench();
        assert_eq!(b.command(0xd0), [3]);
        b.command(0xdd);
        assert_eq!(b.command(0xd0), [1]);
        b.command(0xd1);
        b.data(3);
        assert_eq!(b.command(0xd0), [3]);
        b.command(0xff);
        assert!(!b.stopper.is_stopped());
        b.command(0xfe);
        assert_eq!(b.stopper.reason(), Some(&StopReason::Reset));
        let b = bench();
        b.command(0xd1);
        b.data(2);
        assert_eq!(b.stopper.reason(), Some(&StopReason::Reset));
    }

    proptest! {
        #[test]
        fn no_access_does_harm_and_the_queue_is_bounded(accesses in prop::collection::vec(
            (any::<bool>(), 0u64..5, prop::collection::vec(any::<u8>(), 1..5)), 0..200,
        )) {
            let b = bench();
            for (is_read, offset, mut data) in accesses {
                if is_read { b.controller.read(offset, &mut data) } else { b.controller.write(offset, &data) }
            }
            prop_assert!(b.answers().len() <= QUEUE_MAX);
            prop_assert_eq!(b.command(0xaa), [0x55]);
        }
    }
}
