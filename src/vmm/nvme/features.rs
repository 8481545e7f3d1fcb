//! Get Features and Set Features (sections 5.14, 5.27). Nothing is saved: after a reset everything is as it was.

use super::command::{Command, Outcome, Status};
use super::{BROADCAST, NAMESPACE, Shared};

/// Composite temperature in kelvin: 27 °C, for ever.
pub const TEMPERATURE: u16 = 300;
/// Above this the driver is warned, in kelvin.
pub const WARNING_TEMPERATURE: u16 = 343;
/// Above this the controller would stop working, in kelvin.
pub const CRITICAL_TEMPERATURE: u16 = 353;

const ARBITRATION: u8 = 0x01;
const POWER_MANAGEMENT: u8 = 0x02;
const TEMPERATURE_THRESHOLD: u8 = 0x04;
const ERROR_RECOVERY: u8 = 0x05;
const WRITE_CACHE: u8 = 0x06;
const NUMBER_OF_QUEUES: u8 = 0x07;
const INTERRUPT_COALESCING: u8 = 0x08;
const INTERRUPT_VECTOR: u8 = 0x09;
const WRITE_ATOMICITY: u8 = 0x0a;
const EVENT_CONFIGURATION: u8 = 0x0b;

/// Namespace Attribute Notices, in what the controller can tell (Identify, OAES) and in what the driver wants to know.
pub const NAMESPACE_EVENT: u32 = 1 << 8;

/// What Select asks for (figure 184).
const CURRENT: u32 = 0;
const DEFAULT: u32 = 1;
const SAVED: u32 = 2;
const CAPABILITIES: u32 = 3;
/// Capabilities: the feature can be changed.
const CHANGEABLE: u32 = 1 << 2;
/// Capabilities: the feature belongs to a namespace.
const PER_NAMESPACE: u32 = 1 << 1;

/// The features as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    arbitration: u32,
    over_temperature: u16,
    under_temperature: u16,
    error_recovery: u32,
    write_cache: bool,
    coalescing: u32,
    /// For each vector, that its interrupts must not be coalesced.
    vectors: Vec<bool>,
    write_atomicity: bool,
    events: u32,
}

impl Features {
    /// What holds after a reset.
    pub fn new(vectors: u16) -> Self {
        Self {
            arbitration: 0,
            over_temperature: WARNING_TEMPERATURE,
            under_temperature: 0,
            error_recovery: 0,
            write_cache: true,
            coalescing: 0,
            vectors: vec![false; vectors.into()],
            write_atomicity: false,
            events: 0,
        }
    }

    /// Whether writes need not be durable before a Flush.
    pub fn write_cache(&self) -> bool {
        self.write_cache
    }

    /// Whether the temperature is outside the driver's thresholds.
    pub fn temperature_warning(&self) -> bool {
        TEMPERATURE >= self.over_temperature || TEMPERATURE <= self.under_temperature
    }

    /// Whether the driver wants an event for this warning.
    pub fn wants_temperature_event(&self) -> bool {
        self.events & 1 << 1 != 0 && self.temperature_warning()
    }

    /// Whether the driver wants an event when the namespace changes.
    pub fn wants_namespace_event(&self) -> bool {
        self.events & NAMESPACE_EVENT != 0
    }

    /// Get Features.
    ///
    /// # Errors
    /// [`Status::INVALID_FIELD`] for a feature that there is not.
    pub fn get(&self, shared: &Shared, command: &Command) -> Outcome {
        let [feature, select, ..] = command.cdw(10).to_le_bytes();
        check_namespace(feature, command.nsid)?;
        match u32::from(select & 7) {
            CURRENT => self.value(shared, feature, command.cdw(11)),
            DEFAULT | SAVED => Self::new(shared.vectors).value(shared, feature, command.cdw(11)),
            CAPABILITIES => {
                self.value(shared, feature, 0)?;
                Ok(CHANGEABLE | if feature == ERROR_RECOVERY { PER_NAMESPACE } else { 0 })
            }
            _ => Err(Status::INVALID_FIELD),
        }
    }

    fn value(&self, shared: &Shared, feature: u8, cdw11: u32) -> Outcome {
        Ok(match feature {
            ARBITRATION => self.arbitration,
            POWER_MANAGEMENT => 0,
            TEMPERATURE_THRESHOLD => match Threshold::parse(cdw11)? {
                Threshold { under: false, .. } => self.over_temperature.into(),
                Threshold { under: true, .. } => self.under_temperature.into(),
            },
            ERROR_RECOVERY => self.error_recovery,
            WRITE_CACHE => self.write_cache.into(),
            NUMBER_OF_QUEUES => queues(shared),
            INTERRUPT_COALESCING => self.coalescing,
            INTERRUPT_VECTOR => {
                let vector = cdw11 & 0xffff;
                let unmerged = usize::try_from(vector).ok().and_then(|at| self.vectors.get(at));
                vector | u32::from(*unmerged.ok_or(Status::INVALID_FIELD)?) << 16
            }
            WRITE_ATOMICITY => self.write_atomicity.into(),
            EVENT_CONFIGURATION => self.events,
            _ => return Err(Status::INVALID_FIELD),
        })
    }

    /// Set Features. `queues_exist`: there is already an I/O queue.
    ///
    /// # Errors
    /// [`Status`] for a feature or a value that there is not.
    pub fn set(&mut self, shared: &Shared, command: &Command, queues_exist: bool) -> Outcome {
        let feature = command.cdw(10).to_le_bytes()[0];
        let value = command.cdw(11);
        check_namespace(feature, command.nsid)?;
        self.value(shared, feature, 0)?;
        if command.cdw(10) & 1 << 31 != 0 {
            return Err(Status::FEATURE_NOT_SAVEABLE);
        }
        match feature {
            ARBITRATION => self.arbitration = value,
            // Power state 0 is the only one.
            POWER_MANAGEMENT if value & 0x1f == 0 => {}
            TEMPERATURE_THRESHOLD => {
                let threshold = Threshold::parse(value)?;
                *(if threshold.under { &mut self.under_temperature } else { &mut self.over_temperature }) =
                    threshold.kelvin;
            }
            // Reads of deallocated blocks do not fail here.
            ERROR_RECOVERY if value & 1 << 16 == 0 => self.error_recovery = value & 0xffff,
            WRITE_CACHE => self.set_write_cache(shared, value & 1 != 0)?,
            NUMBER_OF_QUEUES if queues_exist => return Err(Status::SEQUENCE_ERROR),
            NUMBER_OF_QUEUES if value & 0xffff == 0xffff || value >> 16 == 0xffff => return Err(Status::INVALID_FIELD),
            NUMBER_OF_QUEUES => return Ok(queues(shared)),
            INTERRUPT_COALESCING => self.coalescing = value & 0xffff,
            INTERRUPT_VECTOR => {
                let at = usize::try_from(value & 0xffff).ok().and_then(|at| self.vectors.get_mut(at));
                *at.ok_or(Status::INVALID_FIELD)? = value & 1 << 16 != 0;
            }
            WRITE_ATOMICITY => self.write_atomicity = value & 1 != 0,
            // Warnings that SMART can have, and changes of the namespace: of the rest nothing ever happens.
            EVENT_CONFIGURATION => self.events = value & (0xff | NAMESPACE_EVENT),
            _ => return Err(Status::INVALID_FIELD),
        }
        Ok(0)
    }

    /// What was written while the cache was on must not stay volatile when it goes off.
    fn set_write_cache(&mut self, shared: &Shared, on: bool) -> Result<(), Status> {
        if self.write_cache && !on {
            super::io::flush(shared)?;
        }
        self.write_cache = on;
        Ok(())
    }
}

/// Queues that the driver may create, submission and completion, zero-based: all, however many it asks for.
fn queues(shared: &Shared) -> u32 {
    let last = u32::from(shared.queues) - 1;
    last << 16 | last
}

fn check_namespace(feature: u8, nsid: u32) -> Result<(), Status> {
    let known = [0, NAMESPACE, BROADCAST].contains(&nsid) && (feature != ERROR_RECOVERY || nsid != 0);
    if known { Ok(()) } else { Err(Status::INVALID_NAMESPACE) }
}

/// Temperature Threshold (section 5.27.1.4).
struct Threshold {
    kelvin: u16,
    under: bool,
}

impl Threshold {
    /// Only the composite temperature has thresholds.
    fn parse(cdw11: u32) -> Result<Self, Status> {
        let [low, high, select, _] = cdw11.to_le_bytes();
        let kelvin = u16::from_le_bytes([low, high]);
        match (select & 0x0f, select >> 4 & 3) {
            (0, 0) => Ok(Self { kelvin, under: false }),
            // All sensors, which only can be set, is the composite one too.
            (0x0f, 0) => Ok(Self { kelvin, under: false }),
            (0 | 0x0f, 1) => Ok(Self { kelvin, under: true }),
            _ => Err(Status::INVALID_FIELD),
        }
    }
}
