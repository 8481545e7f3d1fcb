//! Power management as a PIIX4 has it (ACPI 6.5, section 4.8): PM1 event and control registers, the PM timer, and the
//! APM ports by which ACPI is switched on.
//!
//! The fixed hardware of this machine is a power button and a timer. General-purpose events (section 4.8.4.1) are
//! level-triggered: the status of one cannot be cleared while its source asserts it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Line;
use crate::vmm::bus::BusDevice;
use crate::vmm::stop::{StopReason, Stopper};
use crate::vmm::timeline::{Mark, Timeline};

/// How many ports the block of power management registers takes (Intel 82371AB, section 7.2).
pub const PORTS: u64 = 64;
/// Offset of the PM1 event block: status and enable, two bytes each.
pub const PM1_EVENT: u64 = 0;
/// Offset of the PM1 control register: two bytes.
pub const PM1_CONTROL: u64 = 4;
/// Offset of the PM timer: four bytes.
pub const PM_TIMER: u64 = 8;
/// Offset of the general-purpose event block: status and enable, two bytes each (Intel 82371AB, sections 7.2.5 and 7.2.6).
pub const GENERAL_EVENTS: u64 = 12;
/// Bytes of the general-purpose event block.
pub const GENERAL_EVENTS_LEN: u8 = 4;
/// How many APM ports there are: control and status.
pub const APM_PORTS: u64 = 2;
/// What is written to the APM control port to switch ACPI on.
pub const ACPI_ENABLE: u8 = 0xf1;
/// What is written to the APM control port to switch ACPI off.
pub const ACPI_DISABLE: u8 = 0xf0;
/// The sleep type that means power-off. Firmware knows it without tables: it is that of a PIIX4.
pub const SLEEP_TYPE_S5: u8 = 0;

/// Offset of the enable half of the general-purpose event block.
const GENERAL_ENABLE: u64 = GENERAL_EVENTS + 2;

/// The PM timer's frequency in Hz (ACPI 6.5, section 4.8.3.3).
const TIMER_HZ: u64 = 3_579_545;
/// The timer has 24 bits, and tells of every change of the highest.
const TIMER_BITS: u32 = 24;

/// `TMR_STS` and `TMR_EN`.
const TIMER: u16 = 1;
/// `GBL_STS` and `GBL_EN`.
const GLOBAL: u16 = 1 << 5;
/// `PWRBTN_STS` and `PWRBTN_EN`.
const POWER_BUTTON: u16 = 1 << 8;
/// `RTC_STS` and `RTC_EN`.
const RTC: u16 = 1 << 10;
/// `WAK_STS`.
const WAKE: u16 = 1 << 15;
const EVENTS: u16 = TIMER | GLOBAL | POWER_BUTTON | RTC;

/// `SCI_EN`.
const SCI_ENABLE: u16 = 1;
/// `SLP_EN`: reads as zero.
const SLEEP_ENABLE: u16 = 1 << 13;
/// `SLP_TYP`, three bits.
const SLEEP_TYPE_SHIFT: u32 = 10;

/// Nanoseconds of a clock that never runs back.
pub type MonotonicClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What the guest can see.
#[derive(Debug, Default)]
struct State {
    status: u16,
    enable: u16,
    control: u16,
    general_status: u16,
    general_enable: u16,
    /// General-purpose events that are asserted.
    general_level: u16,
    /// How often the timer's highest bit had changed when the guest last cleared its status.
    timer_seen: u64,
    apm_control: u8,
    apm_status: u8,
}

struct Inner {
    state: Mutex<State>,
    clock: MonotonicClock,
    start: u64,
    sci: Line,
    stopper: Stopper,
    timeline: Arc<Timeline>,
}

/// Power management; shared by its two ranges of ports and by who presses the button.
#[derive(Clone)]
pub struct PowerManagement(Arc<Inner>);

impl PowerManagement {
    /// `sci` is the system control interrupt, level-triggered. The timer starts from zero.
    #[must_use]
    pub fn new(clock: MonotonicClock, sci: Line, stopper: Stopper, timeline: Arc<Timeline>) -> Self {
        let start = clock();
        Self(Arc::new(Inner { state: Mutex::default(), clock, start, sci, stopper, timeline }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Presses the power button. A guest that has not switched its event on sees the press when it does.
    pub fn press_power_button(&self) {
        let mut state = self.state();
        state.status |= POWER_BUTTON;
        self.update_sci(&state);
    }

    /// Asserts or deasserts the source of general-purpose event `number`, 0 to 15. A guest that has not switched the event
    /// on sees it when it does.
    pub fn set_general_event(&self, number: u8, asserted: bool) {
        let bit = 1_u16.checked_shl(number.into()).unwrap_or(0);
        let mut state = self.state();
        if asserted {
            state.general_level |= bit;
            state.general_status |= bit;
        } else {
            state.general_level &= !bit;
        }
        self.update_sci(&state);
    }

    /// The timer without an end.
    fn ticks(&self) -> u64 {
        let nanos = (self.0.clock)().saturating_sub(self.0.start);
        u64::try_from(u128::from(nanos) * u128::from(TIMER_HZ) / 1_000_000_000).unwrap_or(u64::MAX)
    }

    fn timer(&self) -> u32 {
        u32::try_from(self.ticks() & ((1 << TIMER_BITS) - 1)).unwrap_or(0)
    }

    fn timer_changes(&self) -> u64 {
        self.ticks() >> (TIMER_BITS - 1)
    }

    /// The status register. The timer's bit is worked out when it is looked at: no guest of this machine uses the
    /// timer's interrupt.
    fn status(&self, state: &State) -> u16 {
        let timer = if self.timer_changes() > state.timer_seen { TIMER } else { 0 };
        state.status | timer
    }

    fn update_sci(&self, state: &State) {
        let wanted = state.status & state.enable & EVENTS | state.general_status & state.general_enable;
        (self.0.sci)(wanted != 0 && state.control & SCI_ENABLE != 0);
    }

    fn read_byte(&self, state: &State, offset: u64) -> u8 {
        // The timer is between control and general-purpose events.
        let registers =
            [self.status(state), state.enable, state.control, 0, 0, 0, state.general_status, state.general_enable];
        let half = |value: u16| value.to_le_bytes()[usize::from(offset % 2 == 1)];
        match usize::try_from(offset / 2).ok().and_then(|index| registers.get(index)) {
            Some(value) => half(*value),
            None => 0,
        }
    }

    /// Writes one 16-bit register; `mask` has the bits that the access covers.
    fn write_register(&self, state: &mut State, register: u64, value: u16, mask: u16) {
        match register {
            0 => {
                state.status &= !(value & (EVENTS | WAKE));
                if value & TIMER != 0 {
                    state.timer_seen = self.timer_changes();
                }
            }
            2 => state.enable = (state.enable & !mask | value) & EVENTS,
            4 => self.write_control(state, state.control & !mask | value),
            GENERAL_EVENTS => state.general_status = state.general_status & !value | state.general_level,
            GENERAL_ENABLE => state.general_enable = state.general_enable & !mask | value,
            _ => {}
        }
        self.update_sci(state);
    }

    fn write_control(&self, state: &mut State, value: u16) {
        state.control = value & !SLEEP_ENABLE;
        let sleep_type = (value >> SLEEP_TYPE_SHIFT) & 7;
        if value & SLEEP_ENABLE != 0 && sleep_type == u16::from(SLEEP_TYPE_S5) {
            self.0.timeline.mark(Mark::PowerOff);
            self.0.stopper.stop(StopReason::PowerOff);
        }
    }
}

impl BusDevice for PowerManagement {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let state = self.state();
        let timer = self.timer().to_le_bytes();
        for (at, byte) in (offset..).zip(data) {
            let in_timer = at.checked_sub(PM_TIMER).and_then(|i| usize::try_from(i).ok()).and_then(|i| timer.get(i));
            *byte = in_timer.copied().unwrap_or_else(|| self.read_byte(&state, at));
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut state = self.state();
        let mut at = offset;
        let mut rest = data;
        while let Some((&first, after)) = rest.split_first() {
            let (value, mask, taken) = match after.first() {
                Some(&second) if at.is_multiple_of(2) => (u16::from_le_bytes([first, second]), 0xffff, 2),
                _ if at.is_multiple_of(2) => (u16::from(first), 0x00ff, 1),
                _ => (u16::from(first) << 8, 0xff00, 1),
            };
            self.write_register(&mut state, at & !1, value, mask);
            at += taken;
            rest = rest.get(usize::try_from(taken).unwrap_or(rest.len())..).unwrap_or_default();
        }
    }
}

/// The APM control and status ports (Intel 82371AB, section 4.2.5), behind which there is no management mode but a
/// switch.
pub struct ApmPorts(pub PowerManagement);

impl BusDevice for ApmPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let state = self.0.state();
        for (at, byte) in (offset..).zip(data) {
            *byte = if at == 0 { state.apm_control } else { state.apm_status };
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut state = self.0.state();
        for (at, byte) in (offset..).zip(data) {
            if at != 0 {
                state.apm_status = *byte;
                continue;
            }
            state.apm_control = *byte;
            match *byte {
                ACPI_ENABLE => state.control |= SCI_ENABLE,
                ACPI_DISABLE => state.control &= !SCI_ENABLE,
                _ => {}
            }
            self.0.update_sci(&state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use proptest::prelude::*;

    use super::*;

    struct Bench {
        pm: PowerManagement,
        apm: ApmPorts,
        now: Arc<AtomicU64>,
        sci: Arc<AtomicBool>,
        stopper: Stopper,
    }

    fn bench() -> Bench {
        let (now, sci) = (Arc::new(AtomicU64::new(77)), Arc::new(AtomicBool::new(false)));
        let (clock, line) = (now.clone(), sci.clone());
        let stopper = Stopper::new().unwrap();
        let pm = PowerManagement::new(
            Arc::new(move || clock.load(Ordering::SeqCst)),
            Arc::new(move |level| line.store(level, Ordering::SeqCst)),
            stopper.clone(),
            Arc::new(Timeline::from_process_start()),
        );
        Bench { apm: ApmPorts(pm.clone()), pm, now, sci, stopper }
    }

    impl Bench {
        fn word(&self, offset: u64) -> u16 {
            let mut data = [0; 2];
            self.pm.read(offset, &mut data);
            u16::from_le_bytes(data)
        }
        fn timer(&self) -> u32 {
            let mut data = [0; 4];
            self.pm.read(PM_TIMER, &mut data);
            u32::from_le_bytes(data)
        }
        fn after(&self, nanos: u64) -> &Self {
            self.now.store(77 + nanos, Ordering::SeqCst);
            self
        }
    }

    #[test]
    fn the_timer_runs_at_its_frequency_and_wraps_at_24_bits() {
        let b = bench();
        assert_eq!(b.timer(), 0);
        assert_eq!(b.after(1_000_000_000).timer(), 3_579_545);
        assert_eq!(b.word(0) & TIMER, 0);
        assert_eq!(b.after(3_000_000_000).timer(), 3 * 3_579_545);
        assert_eq!(b.word(0) & TIMER, TIMER, "the highest bit has changed");
        b.pm.write(0, &TIMER.to_le_bytes());
        assert_eq!(b.word(0) & TIMER, 0);
        assert_eq!(b.after(5_000_000_000).timer(), 5 * 3_579_545 - (1 << 24));
        assert_eq!(b.word(0) & TIMER, TIMER);
        assert!(b.after(u64::MAX - 77).timer() < 1 << 24);
    }

    #[test]
    fn the_power_button_raises_a_level_that_falls_when_its_status_is_cleared() {
        let b = bench();
        let sci = || b.sci.load(Ordering::SeqCst);
        b.pm.write(2, &POWER_BUTTON.to_le_bytes());
        b.pm.press_power_button();
        assert!(!sci(), "ACPI is off");
        b.apm.write(0, &[ACPI_ENABLE]);
        assert_eq!(b.word(4) & SCI_ENABLE, SCI_ENABLE);
        assert!(sci());
        assert_eq!(b.word(0), POWER_BUTTON);
        b.pm.write(0, &TIMER.to_le_bytes());
        assert!(sci(), "another event's status was cleared");
        b.pm.write(0, &POWER_BUTTON.to_le_bytes());
        assert!(!sci());
        b.pm.press_power_button();
        assert!(sci());
        b.apm.write(0, &[ACPI_DISABLE]);
        assert!(!sci());
    }

    #[test]
    fn a_general_purpose_event_lasts_as_long_as_its_source() {
        let b = bench();
        let sci = || b.sci.load(Ordering::SeqCst);
        let status = || b.word(GENERAL_EVENTS);
        b.apm.write(0, &[ACPI_ENABLE]);
        b.pm.set_general_event(1, true);
        b.pm.set_general_event(16, true);
        assert_eq!((status(), sci()), (2, false), "it is not enabled");
        // Cleared when the system starts, and nothing is lost.
        b.pm.write(GENERAL_EVENTS, &0xffff_u32.to_le_bytes());
        assert_eq!((status(), b.word(GENERAL_ENABLE), sci()), (2, 0, false));
        b.pm.write(GENERAL_ENABLE, &[2]);
        assert!(sci());
        b.pm.write(GENERAL_EVENTS, &[2]);
        assert!(sci());
        b.pm.set_general_event(1, false);
        assert_eq!((status(), sci()), (2, true), "what has been is remembered");
        b.pm.write(GENERAL_EVENTS, &[0xfd, 0xff]);
        assert_eq!((status(), sci()), (2, true));
        b.pm.write(GENERAL_EVENTS, &[2]);
        assert_eq!((status(), b.word(GENERAL_ENABLE), sci()), (0, 2, false));
        b.pm.set_general_event(15, true);
        b.pm.write(GENERAL_ENABLE + 1, &[0x80]);
        assert_eq!((status(), b.word(GENERAL_ENABLE), sci()), (0x8000, 0x8002, true));
    }

    #[test]
    fn sleep_type_of_s5_with_its_enable_bit_powers_off() {
        for value in 0..=u16::MAX {
            if value % 64 != 1 {
                continue;
            }
            let b = bench();
            b.pm.write(PM1_CONTROL, &value.to_le_bytes());
            let off = value & SLEEP_ENABLE != 0 && (value >> 10) & 7 == 0;
            assert_eq!(b.stopper.reason(), off.then_some(&StopReason::PowerOff), "{value:#x}");
            assert_eq!(b.word(4), value & !SLEEP_ENABLE);
        }
        let b = bench();
        b.pm.write(PM1_CONTROL + 1, &[0x20]);
        assert_eq!(b.stopper.reason(), Some(&StopReason::PowerOff), "by bytes");
    }

    proptest! {
        #[test]
        fn no_access_does_harm(accesses in prop::collection::vec(
            (any::<bool>(), 0u64..64, prop::collection::vec(any::<u8>(), 1..9)), 0..40,
        )) {
            let b = bench();
            for (is_read, offset, mut data) in accesses {
                if is_read { b.pm.read(offset, &mut data) } else { b.pm.write(offset, &data) }
                b.apm.write(offset % 2, &data);
            }
            prop_assert_eq!(b.word(2) & !EVENTS, 0);
        }
    }
}
