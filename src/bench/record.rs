//! What a bench has measured, as it is kept in a file: every single run, and what is needed to measure again.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::phase::{Ends, Event, last_event};

/// The version of the file's form. It changes when a reader of the older form would go wrong.
pub const SCHEMA: u32 = 1;
/// What the file says it is.
pub const KIND: &str = "amiboot-bench-boot";

/// A file may have this size, in bytes.
const FILE_MAX: u64 = 32 << 20;
/// A file may have that many runs.
const RUNS_MAX: usize = 20_000;
/// A run may have that many events.
const EVENTS_MAX: usize = 512;
/// A time in milliseconds is less than this: a month.
const MS_MAX: f64 = 31.0 * 24.0 * 3600.0 * 1000.0;

/// How a guest is booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Paravirtual.
    Pv,
    /// By SeaBIOS and the disk's boot loader.
    Hvm,
    /// By OVMF and the disk's boot loader.
    HvmUefi,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pv, Self::Hvm, Self::HvmUefi];

    /// Its name, as it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pv => "pv",
            Self::Hvm => "hvm",
            Self::HvmUefi => "hvm-uefi",
        }
    }

    /// Whether it has neither firmware nor boot loader.
    #[must_use]
    pub fn is_pv(self) -> bool {
        self == Self::Pv
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What the host remembers of earlier runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cache {
    /// Nothing: no unpacked kernel, and the files not in memory.
    Cold,
    /// As after a run.
    Warm,
}

impl Cache {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Cold, Self::Warm];

    /// Its name, as it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// The processor's model.
    pub processor: String,
    /// How many processors there are for this process.
    pub processors: u32,
    /// The kernel's release.
    pub kernel: String,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// How its KVM runs guests.
    pub kvm: String,
    /// Whether the host is itself a virtual machine.
    pub is_virtual: bool,
}

/// A file that was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Where.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, where it was taken.
    pub sha256: Option<String>,
}

/// A firmware, and the mode that it was used for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareFacts {
    /// The mode.
    pub mode: Mode,
    /// The file.
    pub file: FileFacts,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Modes, in their order.
    pub modes: Vec<Mode>,
    /// States of the caches, in their order.
    pub caches: Vec<Cache>,
    /// Runs of each mode and state.
    pub runs: u32,
    /// Warm-up runs of each mode.
    pub warm_up: u32,
    /// How the page cache was made cold.
    pub cold_by: String,
    /// For each mode, the words after `amiboot` with which it can be run by hand.
    pub commands: Vec<CommandFacts>,
}

/// The words of a mode's runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandFacts {
    /// The mode.
    pub mode: Mode,
    /// The words.
    pub words: Vec<String>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Counted from 1, in the order in which they were made.
    pub number: u32,
    /// How the guest was booted.
    pub mode: Mode,
    /// The state of the caches.
    pub cache: Cache,
    /// It does not count.
    pub warm_up: bool,
    /// How it ended, as the boot report has it; `failed` where there is none.
    pub outcome: String,
    /// Why it does not count, where it went wrong.
    pub failure: Option<String>,
    /// What happened when.
    pub events: Vec<Event>,
    /// Memory of the guest that was resident at the end, in bytes.
    pub guest_bytes: Option<u64>,
    /// Memory of the monitor beside it, in bytes.
    pub monitor_bytes: Option<u64>,
}

impl Run {
    /// Whether it counts.
    #[must_use]
    pub fn counts(&self) -> bool {
        !self.warm_up && self.failure.is_none() && self.ends().is_some()
    }

    /// When its phases ended.
    #[must_use]
    pub fn ends(&self) -> Option<Ends> {
        Ends::of(&self.events, self.mode.is_pv())
    }

    /// Processor time of the monitor up to the guest's first instruction, in milliseconds.
    #[must_use]
    pub fn cpu_to_first_instruction(&self) -> Option<f64> {
        self.events.iter().find(|e| e.name == "first_instruction").map(|e| e.cpu_ms)
    }

    /// Processor time of the monitor up to the boot's end, guest execution included, in milliseconds.
    #[must_use]
    pub fn cpu_total(&self) -> Option<f64> {
        last_event(&self.events).map(|e| e.cpu_ms)
    }
}

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: u32,
    /// [`KIND`].
    pub kind: String,
    /// The version of amiboot.
    pub amiboot: String,
    /// When it began: UTC, as RFC 3339 writes it.
    pub started: String,
    /// False where it was ended before all runs were made.
    pub complete: bool,
    /// The host.
    pub host: HostFacts,
    /// The image.
    pub image: FileFacts,
    /// The guest's kernel, as a paravirtual run tells it.
    pub guest_kernel: Option<String>,
    /// Firmware.
    pub firmware: Vec<FirmwareFacts>,
    /// What was asked for.
    pub options: Options,
    /// Every run, in the order in which they were made.
    pub runs: Vec<Run>,
}

/// A record cannot be read. The message names the file and the field.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct RecordError {
    path: PathBuf,
    why: String,
}

impl Record {
    /// The runs that count of a mode and a state.
    pub fn counting(&self, mode: Mode, cache: Cache) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |r| r.mode == mode && r.cache == cache && r.counts())
    }

    /// The runs of a mode and a state that went wrong, without warm-ups.
    pub fn failed(&self, mode: Mode, cache: Cache) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |r| r.mode == mode && r.cache == cache && !r.warm_up && !r.counts())
    }

    /// Modes and states of which there is at least one run that counts, modes first.
    #[must_use]
    pub fn groups(&self) -> Vec<(Cache, Mode)> {
        let all = Cache::ALL.into_iter().flat_map(|cache| Mode::ALL.map(|mode| (cache, mode)));
        all.filter(|(cache, mode)| self.counting(*mode, *cache).next().is_some()).collect()
    }

    /// Reads a record and checks every value in it: the file may hold anything.
    ///
    /// # Errors
    /// [`RecordError`], which names the file and the field.
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let fail = |why: String| RecordError { path: path.into(), why };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(|e| fail(e.to_string()))?;
        file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(|e| fail(e.to_string()))?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(fail(format!("it is larger than {} MiB, which no bench writes", FILE_MAX >> 20)));
        }
        Self::parse(&bytes).map_err(fail)
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        const FOREIGN: &str = "it is no file of `amiboot bench boot --json`";
        let Ok(Value::Object(mut fields)) = serde_json::from_slice(bytes) else { return Err(FOREIGN.into()) };
        if fields.get("kind").and_then(Value::as_str) != Some(KIND) {
            return Err(format!("{FOREIGN}: its field \"kind\" is not \"{KIND}\""));
        }
        let schema: u32 = field(&mut fields, "schema")?;
        if schema != SCHEMA {
            return Err(format!("schema {schema}: this amiboot reads schema {SCHEMA}; measure again"));
        }
        let runs: Vec<Value> = field(&mut fields, "runs")?;
        if runs.len() > RUNS_MAX {
            return Err(format!("runs: {} are more than {RUNS_MAX}", runs.len()));
        }
        let runs =
            runs.into_iter().enumerate().map(|(index, run)| read_run(run).map_err(|e| format!("runs[{index}]{e}")));
        Ok(Self {
            schema,
            kind: KIND.into(),
            amiboot: field(&mut fields, "amiboot")?,
            started: field(&mut fields, "started")?,
            complete: field(&mut fields, "complete")?,
            host: field(&mut fields, "host")?,
            image: field(&mut fields, "image")?,
            guest_kernel: field(&mut fields, "guest_kernel")?,
            firmware: field(&mut fields, "firmware")?,
            options: field(&mut fields, "options")?,
            runs: runs.collect::<Result<_, String>>()?,
        })
    }
}

fn field<T: DeserializeOwned>(fields: &mut Map<String, Value>, name: &str) -> Result<T, String> {
    let value = fields.remove(name).ok_or_else(|| format!("the field \"{name}\" is missing"))?;
    serde_json::from_value(value).map_err(|e| format!("{name}: {e}"))
}

fn read_run(value: Value) -> Result<Run, String> {
    let run: Run = serde_json::from_value(value).map_err(|e| format!(": {e}"))?;
    if run.events.len() > EVENTS_MAX {
        return Err(format!(".events: {} are more than {EVENTS_MAX}", run.events.len()));
    }
    for (index, event) in run.events.iter().enumerate() {
        for (name, ms) in [("wall_ms", event.wall_ms), ("cpu_ms", event.cpu_ms)] {
            if !(0.0..MS_MAX).contains(&ms) {
                return Err(format!(".events[{index}].{name}: {ms} is no time of a boot"));
            }
        }
    }
    Ok(run)
}

#[cfg(test)]
pub(super) mod tests;
