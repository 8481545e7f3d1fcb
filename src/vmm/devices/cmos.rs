//! The real-time clock and its battery-backed memory (Motorola MC146818A): the host's time of day in UTC, and what
//! firmware looks up of the machine.
//!
//! The clock's interrupt is not connected: its flags are worked out when the guest looks at them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::vmm::bus::BusDevice;

mod calendar;

use calendar::DateTime;

/// How many ports it takes: index and data.
pub const PORTS: u64 = 2;

const SIZE: usize = 128;
/// The index's highest bit masks the non-maskable interrupt.
const INDEX_MASK: u8 = 0x7f;

const SECONDS: usize = 0x00;
const SECONDS_ALARM: usize = 0x01;
const MINUTES: usize = 0x02;
const MINUTES_ALARM: usize = 0x03;
const HOURS: usize = 0x04;
const HOURS_ALARM: usize = 0x05;
const WEEKDAY: usize = 0x06;
const DAY: usize = 0x07;
const MONTH: usize = 0x08;
const YEAR: usize = 0x09;
const STATUS_A: usize = 0x0a;
const STATUS_B: usize = 0x0b;
const STATUS_C: usize = 0x0c;
const STATUS_D: usize = 0x0d;
/// Where the century is; the FADT says so too.
pub const CENTURY: u8 = 0x32;
const CENTURY_AT: usize = CENTURY as usize;

/// An update is in progress: the time is about to change.
const A_UPDATING: u8 = 1 << 7;
/// The 32.768 kHz divider runs, and the periodic rate is 1024 Hz.
const A_DEFAULT: u8 = 0x26;
const B_SET: u8 = 1 << 7;
const B_BINARY: u8 = 1 << 2;
const B_24_HOURS: u8 = 1 << 1;
const C_REQUEST: u8 = 1 << 7;
const C_PERIODIC: u8 = 1 << 6;
const C_ALARM: u8 = 1 << 5;
const C_UPDATE: u8 = 1 << 4;
/// Memory and time are valid: the battery is good.
const D_VALID: u8 = 1 << 7;
const PM: u8 = 1 << 7;
/// How long before a second's end the update flag stands (data sheet, table 6).
const UPDATE_WARNING: Duration = Duration::from_micros(244);

/// Time since 1970-01-01 00:00 UTC.
pub type WallClock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// What the memory says of the machine.
#[derive(Debug, Clone, Copy)]
pub struct CmosConfig {
    /// Memory below 4 GiB, in bytes.
    pub memory_below_4g: u64,
    /// Memory above 4 GiB, in bytes.
    pub memory_above_4g: u64,
    /// Number of processors, at least one.
    pub cpus: u8,
}

impl CmosConfig {
    /// The memory's bytes as firmware of a PC expects them.
    fn bytes(self) -> [u8; SIZE] {
        let mut cmos = [0; SIZE];
        let mut put = |at: usize, value: u64, len: usize| {
            cmos[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        };
        let low = self.memory_below_4g;
        let base_kib = 640;
        let above_1m_kib = (low.saturating_sub(1 << 20) >> 10).min(0xffff);
        // No floppy drives; a coprocessor.
        put(0x14, 0x02, 1);
        put(0x15, base_kib, 2);
        put(0x17, above_1m_kib, 2);
        put(0x30, above_1m_kib, 2);
        put(0x34, (low.saturating_sub(16 << 20) >> 16).min(0xffff), 2);
        // Boot from the first hard disk.
        put(0x3d, 0x02, 1);
        put(0x5b, (self.memory_above_4g >> 16).min(0xff_ffff), 3);
        put(0x5f, u64::from(self.cpus.saturating_sub(1)), 1);
        cmos[CENTURY_AT] = 0x20;
        cmos[STATUS_A] = A_DEFAULT;
        cmos[STATUS_B] = B_24_HOURS;
        cmos
    }
}

/// What the guest can see.
struct State {
    index: u8,
    bytes: [u8; SIZE],
    /// Seconds by which the guest has set the clock off from the host's.
    offset: i64,
    /// The host's time when status C was last read.
    seen: Duration,
}

/// The clock and its memory.
pub struct Cmos {
    state: Mutex<State>,
    clock: WallClock,
}

impl Cmos {
    /// `clock` is the host's time of day.
    #[must_use]
    pub fn new(config: CmosConfig, clock: WallClock) -> Self {
        let seen = clock();
        Self { state: Mutex::new(State { index: 0, bytes: config.bytes(), offset: 0, seen }), clock }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn status_b(&self) -> u8 {
        self.bytes[STATUS_B]
    }

    fn is_set(&self) -> bool {
        self.status_b() & B_SET != 0
    }

    fn seconds(&self, now: Duration) -> i64 {
        i64::try_from(now.as_secs()).unwrap_or(i64::MAX).saturating_add(self.offset)
    }

    /// Brings the time's bytes up to date, unless the guest is just setting them.
    fn update(&mut self, now: Duration) {
        if self.is_set() {
            return;
        }
        let time = DateTime::from_unix(self.seconds(now));
        for (at, value) in [
            (SECONDS, time.second),
            (MINUTES, time.minute),
            (WEEKDAY, time.weekday),
            (DAY, time.day),
            (MONTH, time.month),
            (YEAR, time.year_of_century()),
            (CENTURY_AT, time.century()),
        ] {
            self.bytes[at] = self.encode(value);
        }
        self.bytes[HOURS] = self.encode_hour(time.hour);
    }

    /// Takes the time from its bytes, as the guest has set them; what is no time changes nothing.
    fn take_time(&mut self, now: Duration) {
        let field = |at: usize| self.decode(self.bytes[at]);
        let year = u16::from(field(CENTURY_AT)) * 100 + u16::from(field(YEAR));
        let hour = self.decode_hour(self.bytes[HOURS]);
        if let Some(time) = DateTime::new(year, field(MONTH), field(DAY), hour, field(MINUTES), field(SECONDS)) {
            self.offset = time.to_unix().saturating_sub(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        }
    }

    fn encode(&self, value: u8) -> u8 {
        if self.status_b() & B_BINARY != 0 { value } else { ((value / 10) << 4) | (value % 10) }
    }

    fn decode(&self, byte: u8) -> u8 {
        if self.status_b() & B_BINARY != 0 { byte } else { (byte >> 4) * 10 + (byte & 0xf) }
    }

    fn encode_hour(&self, hour: u8) -> u8 {
        if self.status_b() & B_24_HOURS != 0 {
            return self.encode(hour);
        }
        let twelve = if hour.is_multiple_of(12) { 12 } else { hour % 12 };
        self.encode(twelve) | if hour >= 12 { PM } else { 0 }
    }

    fn decode_hour(&self, byte: u8) -> u8 {
        if self.status_b() & B_24_HOURS != 0 {
            return self.decode(byte);
        }
        self.decode(byte & !PM) % 12 + if byte & PM != 0 { 12 } else { 0 }
    }

    /// What has happened since it was last asked for.
    fn take_flags(&mut self, now: Duration) -> u8 {
        let seen = std::mem::replace(&mut self.seen, now);
        let mut flags = 0;
        if !self.is_set() && now.as_secs() > seen.as_secs() {
            flags |= C_UPDATE;
            if self.alarm_between(self.seconds(seen), self.seconds(now)) {
                flags |= C_ALARM;
            }
        }
        if let Some(period) = self.period()
            && now.as_nanos() / period > seen.as_nanos() / period
        {
            flags |= C_PERIODIC;
        }
        if flags & self.status_b() != 0 { flags | C_REQUEST } else { flags }
    }

    /// Nanoseconds of a period, where one is chosen (data sheet, table 5: rates 1 and 2 are 256 and 128 Hz).
    fn period(&self) -> Option<u128> {
        let rate = match self.bytes[STATUS_A] & 0xf {
            0 => return None,
            rate @ (1 | 2) => rate + 7,
            rate => rate,
        };
        Some((1u128 << (rate - 1)) * 1_000_000_000 / 32768)
    }

    /// Whether the alarm's time came in `(after, until]`; a byte from 0xc0 on matches any value.
    fn alarm_between(&self, after: i64, until: i64) -> bool {
        const DAY_SECONDS: i64 = 86400;
        let any = |at: usize| self.bytes[at] >= 0xc0;
        let matches = |seconds: i64| {
            let time = DateTime::from_unix(seconds);
            (any(SECONDS_ALARM) || self.bytes[SECONDS_ALARM] == self.encode(time.second))
                && (any(MINUTES_ALARM) || self.bytes[MINUTES_ALARM] == self.encode(time.minute))
                && (any(HOURS_ALARM) || self.bytes[HOURS_ALARM] == self.encode_hour(time.hour))
        };
        // A guest that has not looked for a day has the alarm if it can come at all, which one day tells.
        let first = after.saturating_add(1).max(until.saturating_sub(DAY_SECONDS));
        (first..=until).any(matches)
    }

    fn read(&mut self, now: Duration) -> u8 {
        let at = usize::from(self.index & INDEX_MASK);
        match at {
            SECONDS | MINUTES | HOURS | WEEKDAY | DAY | MONTH | YEAR | CENTURY_AT => self.update(now),
            STATUS_A => {
                let left = Duration::from_secs(1) - Duration::from_nanos(u64::from(now.subsec_nanos()));
                let updating = !self.is_set() && left <= UPDATE_WARNING;
                return self.bytes[STATUS_A] | if updating { A_UPDATING } else { 0 };
            }
            STATUS_C => return self.take_flags(now),
            STATUS_D => return D_VALID,
            _ => {}
        }
        self.bytes.get(at).copied().unwrap_or(0xff)
    }

    fn write(&mut self, value: u8, now: Duration) {
        let at = usize::from(self.index & INDEX_MASK);
        match at {
            STATUS_A => self.bytes[at] = value & !A_UPDATING,
            STATUS_B => {
                // The bytes stand still from the moment at which setting begins.
                self.update(now);
                let was_set = self.is_set();
                self.bytes[at] = value;
                if was_set && !self.is_set() {
                    self.take_time(now);
                }
            }
            STATUS_C | STATUS_D => {}
            SECONDS | MINUTES | HOURS | WEEKDAY | DAY | MONTH | YEAR | CENTURY_AT => {
                self.update(now);
                self.bytes[at] = value;
                if !self.is_set() {
                    self.take_time(now);
                }
            }
            _ => {
                if let Some(byte) = self.bytes.get_mut(at) {
                    *byte = value;
                }
            }
        }
    }
}

impl BusDevice for Cmos {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut state = self.state();
        for (at, byte) in (offset..).zip(data) {
            // The index cannot be read back.
            *byte = if at == 1 { state.read((self.clock)()) } else { 0xff };
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut state = self.state();
        for (at, byte) in (offset..).zip(data) {
            match at {
                0 => state.index = *byte,
                _ => state.write(*byte, (self.clock)()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
