//! What the guest sees at the controller's addresses (section 3.1): properties and doorbells.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::counters::NvmeCounters;
use super::doorbell::{BadDoorbell, Kind};
use super::engine::{Engine, Event};
use super::identity::Identity;
use super::worker::Worker;
use super::{MAX_ENTRIES, REGISTERS_LEN, Setup, Shared, VERSION, status_bits};
use crate::vmm::bus::BusDevice;

const CAP: u64 = 0x00;
const VS: u64 = 0x08;
const INTMS: u64 = 0x0c;
const INTMC: u64 = 0x10;
const CC: u64 = 0x14;
const CSTS: u64 = 0x1c;
const AQA: u64 = 0x24;
const ASQ: u64 = 0x28;
const ACQ: u64 = 0x30;
/// Doorbells of queue 0; each queue has two of 4 bytes (CAP.DSTRD = 0).
const DOORBELLS: u64 = 0x1000;

/// CC.EN.
const ENABLE: u32 = 1;
/// CC.SHN.
const SHUTDOWN_NOTIFICATION: u32 = 3 << 14;
/// CC.CSS, CC.MPS, CC.AMS: command set, page size, arbitration. Only zero is supported: the NVM command set, 4096
/// bytes, round robin.
const MODES: u32 = 7 << 4 | 0xf << 7 | 7 << 11;
/// CC.IOSQES and CC.IOCQES: entry sizes.
const ENTRY_SIZES: u32 = 0xff << 16;
/// Both entry sizes as they should be: 2^6 and 2^4 bytes.
const RIGHT_ENTRY_SIZES: u32 = 6 << 16 | 4 << 20;

/// How long the driver should wait for the controller to become ready or not, in units of 500 ms: a command in flight
/// may be a long one.
const TIMEOUT: u64 = 40;
/// MQES, CQR, TO, and CSS with the NVM command set (section 3.1.1).
const CAPABILITIES: u64 = (MAX_ENTRIES as u64 - 1) | 1 << 16 | TIMEOUT << 24 | 1 << 37;

/// Registers that the driver reads back.
#[derive(Default)]
struct Registers {
    interrupt_mask: u32,
    admin_entries: u32,
    submission_base: u64,
    completion_base: u64,
    worker: Option<Worker>,
}

/// What the guest can see of a controller.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct NvmeState {
    /// CC.
    pub configuration: u32,
    /// CSTS.
    pub status: u32,
    /// Interrupt mask, of no effect with MSI-X.
    pub interrupt_mask: u32,
    /// AQA.
    pub admin_entries: u32,
    /// ASQ.
    pub admin_submission_base: u64,
    /// ACQ.
    pub admin_completion_base: u64,
    /// The queues that exist.
    pub queues: Vec<QueueState>,
}

/// A queue that exists.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct QueueState {
    /// Submission or completion.
    pub kind: &'static str,
    /// Its number.
    pub id: u16,
    /// Its entries.
    pub entries: u16,
    /// Its doorbell: tail or head.
    pub doorbell: u16,
}

/// An NVMe controller: the device behind the first [`REGISTERS_LEN`] bytes of its BAR 0.
pub struct Nvme {
    shared: Arc<Shared>,
    registers: Mutex<Registers>,
}

impl Nvme {
    /// A new controller, not enabled.
    ///
    /// # Errors
    /// What the host said when it could not make an event.
    pub fn new(setup: Setup) -> io::Result<Self> {
        Ok(Self { shared: Arc::new(Shared::new(setup)?), registers: Mutex::default() })
    }

    /// How it presents itself.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// What it has done.
    #[must_use]
    pub fn counters(&self) -> Arc<NvmeCounters> {
        self.shared.counters.clone()
    }

    /// What the guest can see of it.
    #[must_use]
    pub fn state(&self) -> NvmeState {
        let registers = self.lock();
        let kind = |kind| match kind {
            Kind::Submission => "submission",
            Kind::Completion => "completion",
        };
        let existing = self.shared.doorbells.existing();
        NvmeState {
            configuration: self.shared.configuration.load(Ordering::SeqCst),
            status: self.shared.status.load(Ordering::SeqCst),
            interrupt_mask: registers.interrupt_mask,
            admin_entries: registers.admin_entries,
            admin_submission_base: registers.submission_base,
            admin_completion_base: registers.completion_base,
            queues: existing
                .map(|(of, id, entries, doorbell)| QueueState { kind: kind(of), id, entries, doorbell })
                .collect(),
        }
    }

    /// Puts the controller into the state it was made in, as a reset of its PCI function or of the machine does. When it
    /// returns, no command is in flight and guest memory is not touched any more.
    pub fn reset(&self) {
        let mut registers = self.lock();
        self.disable(&mut registers);
        *registers = Registers::default();
        self.shared.configuration.store(0, Ordering::SeqCst);
    }

    /// The disk has another size: a driver that wants to know of such changes is told.
    pub fn resized(&self) {
        self.shared.resized.store(true, Ordering::SeqCst);
        self.shared.wake();
    }

    fn lock(&self) -> MutexGuard<'_, Registers> {
        // Every change is whole before anything that could panic.
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The register at a multiple of 4.
    fn get(&self, offset: u64) -> u32 {
        let status = || self.shared.status.load(Ordering::SeqCst);
        match offset {
            CAP => low(CAPABILITIES),
            4 => high(CAPABILITIES),
            VS => VERSION,
            CC => self.shared.configuration.load(Ordering::SeqCst),
            CSTS => status(),
            _ if offset >= DOORBELLS => 0,
            INTMS | INTMC => self.lock().interrupt_mask,
            AQA => self.lock().admin_entries,
            ASQ => low(self.lock().submission_base),
            0x2c => high(self.lock().submission_base),
            ACQ => low(self.lock().completion_base),
            0x34 => high(self.lock().completion_base),
            _ => 0,
        }
    }

    fn set(&self, offset: u64, value: u32) {
        let mut registers = self.lock();
        match offset {
            INTMS => registers.interrupt_mask |= value,
            INTMC => registers.interrupt_mask &= !value,
            CC => self.configure(&mut registers, value),
            AQA | ASQ | 0x2c | ACQ | 0x34 if self.is_enabled() => self.bad_access(),
            AQA => registers.admin_entries = value & 0x0fff_0fff,
            ASQ => set_low(&mut registers.submission_base, value & !0xfff),
            0x2c => set_high(&mut registers.submission_base, value),
            ACQ => set_low(&mut registers.completion_base, value & !0xfff),
            0x34 => set_high(&mut registers.completion_base, value),
            _ => self.bad_access(),
        }
    }

    fn bad_access(&self) {
        NvmeCounters::count(&self.shared.counters.bad_accesses);
    }

    fn is_enabled(&self) -> bool {
        self.shared.configuration.load(Ordering::SeqCst) & ENABLE != 0
    }

    /// A write to CC (section 3.1.5): first enable or disable, then shutdown.
    fn configure(&self, registers: &mut Registers, value: u32) {
        let old = self.shared.configuration.load(Ordering::SeqCst);
        // What must not change while the controller is enabled does not.
        let value = value & (ENABLE | MODES | SHUTDOWN_NOTIFICATION | ENTRY_SIZES);
        let kept = if old & value & ENABLE != 0 { MODES } else { 0 };
        let new = value & !kept | old & kept;
        self.shared.configuration.store(new, Ordering::SeqCst);
        match (old & ENABLE != 0, new & ENABLE != 0) {
            (false, true) => self.enable(registers, new),
            (true, false) => self.disable(registers),
            _ => {}
        }
        if old & SHUTDOWN_NOTIFICATION == 0 && new & SHUTDOWN_NOTIFICATION != 0 {
            self.shut_down(registers);
        }
    }

    /// Starts the worker, or goes into the fatal status.
    fn enable(&self, registers: &mut Registers, configuration: u32) {
        NvmeCounters::count(&self.shared.counters.enabled);
        // What was written to doorbells before is not this life's error.
        self.shared.bad_doorbells.store(0, Ordering::SeqCst);
        // The driver has yet to ask for the size.
        self.shared.resized.store(false, Ordering::SeqCst);
        match self.start(registers, configuration) {
            Ok(worker) => {
                registers.worker = Some(worker);
                self.shared.status.fetch_or(status_bits::READY, Ordering::SeqCst);
            }
            Err(why) => {
                self.shared.doorbells.close_all();
                self.shared.fatal(&why);
            }
        }
    }

    fn start(&self, registers: &Registers, configuration: u32) -> Result<Worker, String> {
        // The entry sizes matter only when I/O queues are created.
        let sizes = configuration & ENTRY_SIZES;
        if configuration & MODES != 0 || sizes & !RIGHT_ENTRY_SIZES != 0 {
            return Err(format!("it cannot be enabled with CC {configuration:#x}"));
        }
        let entries = registers.admin_entries;
        let submission = (registers.submission_base, (entries & 0xfff) + 1);
        let completion = (registers.completion_base, (entries >> 16) + 1);
        let engine = Engine::new(self.shared.clone(), submission, completion).map_err(|_| {
            format!(
                "it cannot be enabled with admin queues at {:#x} and {:#x} (AQA {entries:#x})",
                submission.0, completion.0
            )
        })?;
        Worker::start(self.shared.clone(), engine).map_err(|error| format!("no thread for its queues: {error}"))
    }

    /// Controller reset (section 7.3.2): AQA, ASQ and ACQ stay.
    fn disable(&self, registers: &mut Registers) {
        registers.worker = None;
        registers.interrupt_mask = 0;
        self.shared.doorbells.close_all();
        self.shared.bad_doorbells.store(0, Ordering::SeqCst);
        self.shared.shutdown.store(false, Ordering::SeqCst);
        self.shared.status.store(0, Ordering::SeqCst);
    }

    /// Shutdown is the worker's business, where there is one: a flush can take long.
    fn shut_down(&self, registers: &Registers) {
        let status = &self.shared.status;
        status.fetch_and(!status_bits::SHUTDOWN, Ordering::SeqCst);
        let working = registers.worker.is_some() && status.load(Ordering::SeqCst) & status_bits::FATAL == 0;
        if working {
            status.fetch_or(status_bits::SHUTDOWN_OCCURRING, Ordering::SeqCst);
            self.shared.shutdown.store(true, Ordering::SeqCst);
            self.shared.wake();
        } else {
            status.fetch_or(status_bits::SHUTDOWN_COMPLETE, Ordering::SeqCst);
        }
    }

    /// A doorbell write: without a lock, and without a kick where the worker is awake.
    fn ring(&self, offset: u64, value: u32) {
        let number = (offset - DOORBELLS) / 4;
        let kind = if number.is_multiple_of(2) { Kind::Submission } else { Kind::Completion };
        let id = u16::try_from(number / 2).unwrap_or(u16::MAX);
        let shared = &self.shared;
        match shared.doorbells.ring(kind, id, value) {
            // A completion queue that was not full has no news for the worker.
            Ok(()) if kind == Kind::Completion && !shared.starved.load(Ordering::SeqCst) => return,
            Ok(()) => {}
            Err(bad) => {
                NvmeCounters::count(&shared.counters.bad_doorbells);
                let bit = match bad {
                    BadDoorbell::Register => Event::BAD_REGISTER_BIT,
                    BadDoorbell::Value => Event::BAD_VALUE_BIT,
                };
                shared.bad_doorbells.fetch_or(bit, Ordering::SeqCst);
            }
        }
        shared.wake();
    }
}

impl BusDevice for Nvme {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if offset.saturating_add(data.len() as u64) > REGISTERS_LEN {
            return self.bad_access();
        }
        let mut cached = None;
        for (at, byte) in (offset..).zip(data) {
            let start = at & !3;
            let word = match cached {
                Some((of, word)) if of == start => word,
                _ => self.get(start),
            };
            cached = Some((start, word));
            let [a, b, c, d] = word.to_le_bytes();
            *byte = match at & 3 {
                0 => a,
                1 => b,
                2 => c,
                _ => d,
            };
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if !offset.is_multiple_of(4) || offset >= REGISTERS_LEN {
            return self.bad_access();
        }
        match (offset, data.as_chunks::<4>()) {
            (DOORBELLS.., ([value], [])) => self.ring(offset, u32::from_le_bytes(*value)),
            (_, ([value], [])) => self.set(offset, u32::from_le_bytes(*value)),
            // Only registers of 64 bits can be written as such.
            (ASQ | ACQ, ([low, high], [])) => {
                self.set(offset, u32::from_le_bytes(*low));
                self.set(offset + 4, u32::from_le_bytes(*high));
            }
            _ => self.bad_access(),
        }
    }
}

impl Drop for Nvme {
    fn drop(&mut self) {
        self.reset();
    }
}

fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn high(value: u64) -> u32 {
    low(value >> 32)
}

fn set_low(register: &mut u64, value: u32) {
    *register = *register >> 32 << 32 | u64::from(value);
}

fn set_high(register: &mut u64, value: u32) {
    *register = *register & 0xffff_ffff | u64::from(value) << 32;
}
