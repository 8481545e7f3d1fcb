//! What an instance's process is told: its machine, its volumes, and where its files are.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::console::log::{KEEP_MAX, KEEP_MIN};
use crate::disk::Format;
use crate::launch::bdm::DeviceName;
use crate::launch::firmware::FirmwareChoice;
use crate::launch::network::NetworkConfig;
use crate::launch::plan::{BootOverrides, Protocol};
use crate::launch::start::ModeWish;
use crate::vmm::builder::DiskInterface;
use crate::vmm::config::{ConfigError, MachineConfig};
use crate::vmm::smbios::Identity;

/// The version of [`InstanceConfig`] that this program reads.
pub const VERSION: u32 = 1;
/// More bytes than any configuration has.
const SIZE_MAX: u64 = 1 << 20;

/// All that an instance's process is told, as JSON. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceConfig {
    /// [`VERSION`].
    pub version: u32,
    /// The instance's id, as `i-` and 17 hexadecimal digits.
    pub id: String,
    /// Memory in bytes, a multiple of a page.
    pub memory: u64,
    /// Number of processors.
    pub cpus: u32,
    /// Which kind of guest.
    #[serde(default)]
    pub mode: Mode,
    /// What is the case for an HVM guest only.
    #[serde(default)]
    pub hvm: Hvm,
    /// What is the case for a PV guest only.
    #[serde(default)]
    pub pv: Pv,
    /// Who the guest is told that it is.
    pub identity: InstanceIdentity,
    /// The volumes, in the order in which the guest sees them; the first is the root.
    pub volumes: Vec<VolumeConfig>,
    /// Its network; a machine without a card where nothing is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkConfig>,
    /// Whether the guest gets a disk with its metadata (cloud-init's NoCloud), as they are at the start of this process.
    #[serde(default)]
    pub seed_disk: bool,
    /// Whether the guest gets a port for its agent, which freezes its file systems for snapshots.
    #[serde(default)]
    pub agent: bool,
    /// What is kept of the console.
    pub console_log: ConsoleLogConfig,
    /// The control socket, in a directory that only this user may enter.
    pub control_socket: PathBuf,
    /// The file that is locked for as long as the process lives.
    pub alive_lock: PathBuf,
    /// Where it is written how the instance ended.
    pub exit_file: PathBuf,
    /// A command that is started once the last machine has ended and everything is written: program and arguments. Where no
    /// machine could be started, who starts the process is told, and no command is started.
    #[serde(default)]
    pub on_exit: Vec<String>,
    /// How long the guest has to switch itself off once it is asked to, in milliseconds, where the request does not say.
    #[serde(default = "default_grace")]
    pub grace_ms: u64,
    /// Whether a guest that resets itself starts again.
    #[serde(default = "yes")]
    pub restart: bool,
}

/// Which kind of guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// PV where a kernel that can be booted is found on the root, else HVM.
    #[default]
    Auto,
    /// Paravirtual.
    Pv,
    /// With firmware.
    Hvm,
}

impl From<Mode> for ModeWish {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Auto => Self::Auto,
            Mode::Pv => Self::Pv,
            Mode::Hvm => Self::Hvm,
        }
    }
}

/// What is the case for an HVM guest only. Any of it says that the guest is one, where the mode does not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hvm {
    /// `bios`, `uefi` or a file; what the root can boot by where nothing is given.
    #[serde(default, with = "optional_text", skip_serializing_if = "Option::is_none")]
    pub firmware: Option<FirmwareName>,
    /// Where UEFI variables are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uefi_vars: Option<PathBuf>,
    /// Where the firmware's debug text goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware_log: Option<PathBuf>,
    /// How the guest sees its volumes; virtio where nothing is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disks>,
}

/// How an HVM guest sees its volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disks {
    /// virtio-blk.
    Virtio,
    /// NVMe controllers with the identity of EC2's.
    Nvme,
}

impl From<Disks> for DiskInterface {
    fn from(disks: Disks) -> Self {
        match disks {
            Disks::Virtio => Self::Virtio,
            Disks::Nvme => Self::Nvme,
        }
    }
}

/// `bios`, `uefi` or the path of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirmwareName(pub String);

impl FirmwareName {
    /// What it names.
    #[must_use]
    pub fn choice(&self) -> FirmwareChoice {
        // Whatever it is, it is a file's name at least.
        self.0.parse().unwrap_or_else(|never: std::convert::Infallible| match never {})
    }
}

impl FromStr for FirmwareName {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.into()))
    }
}

impl Display for FirmwareName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is the case for a PV guest only. Any of it says that the guest is one, where the mode does not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pv {
    /// A kernel file of the host, instead of the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,
    /// An initrd file of the host, instead of the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,
    /// The whole command line, instead of the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
    /// Words to add at the command line's end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub append: Vec<String>,
    /// The boot entry's number, id or title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
}

impl Pv {
    /// The same for the planner.
    #[must_use]
    pub fn overrides(&self) -> BootOverrides {
        let Self { kernel, initrd, cmdline, append, entry } = self.clone();
        BootOverrides { kernel, initrd, cmdline, append, entry, protocol: Protocol::Auto }
    }
}

/// Who the guest is told that it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceIdentity {
    /// System UUID.
    #[serde(with = "text")]
    pub uuid: Uuid,
    /// Instance type, such as `t3.micro`.
    pub instance_type: String,
}

/// What is kept of the console's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleLogConfig {
    /// The file of the newest output; the one before it has `.1` at the end of its name.
    pub path: PathBuf,
    /// How many bytes of the newest output are kept at least, 64 KiB to 64 MiB; at most twice as many are.
    pub keep: u64,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeConfig {
    /// Its device's name in the block device mapping.
    pub device: String,
    /// Its id, as `vol-` and 17 hexadecimal digits: the serial number is made of it.
    pub id: String,
    /// Whether the guest cannot write to it.
    #[serde(default)]
    pub read_only: bool,
    /// The number of the instance store volume that it is, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<u8>,
    /// What it is made of.
    pub source: VolumeSource,
}

/// What a volume is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum VolumeSource {
    /// Layers of the store.
    Layers {
        /// Their stems, the lowest first; the last is written to.
        stems: Vec<PathBuf>,
        /// Bytes of the volume.
        size: u64,
    },
    /// A disk file.
    File {
        /// The file.
        path: PathBuf,
        /// Its format; looked for in the file where nothing is given.
        #[serde(default, with = "optional_text", skip_serializing_if = "Option::is_none")]
        format: Option<Format>,
        /// A directory for a throw-away layer: writes go there, and the file stays as it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        throw_away: Option<PathBuf>,
    },
    /// Nothing at first, and gone with the process.
    Blank {
        /// The directory in whose file system it takes room.
        directory: PathBuf,
        /// Bytes of the volume.
        size: u64,
    },
}

fn default_grace() -> u64 {
    30_000
}

fn yes() -> bool {
    true
}

/// Why a configuration cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum InstanceConfigError {
    /// The file cannot be read.
    #[error("{}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        cause: io::Error,
    },
    /// It is no configuration.
    #[error("{}: {cause}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        cause: serde_json::Error,
    },
    /// It is of another version of the program.
    #[error("{}: version {version}: this program reads version {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        version: u64,
    },
    /// A field holds what cannot be.
    #[error("{field}: {why}")]
    Field {
        /// Its name.
        field: String,
        /// What is wrong with it, and the mend.
        why: String,
    },
    /// The machine cannot have this size.
    #[error(transparent)]
    Size(#[from] ConfigError),
}

impl InstanceConfig {
    /// Reads and checks one.
    ///
    /// # Errors
    /// [`InstanceConfigError`].
    pub fn read(path: &Path) -> Result<Self, InstanceConfigError> {
        let read = |cause| InstanceConfigError::Read { path: path.into(), cause };
        let mut text = Vec::new();
        File::open(path).map_err(read)?.take(SIZE_MAX + 1).read_to_end(&mut text).map_err(read)?;
        if text.len() as u64 > SIZE_MAX {
            return Err(read(io::Error::new(io::ErrorKind::FileTooLarge, "this is no configuration of an instance")));
        }
        let json = |cause| InstanceConfigError::Json { path: path.into(), cause };
        // First: another version may have other fields.
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(json)?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if version != u64::from(VERSION) => {
                return Err(InstanceConfigError::Version { path: path.into(), version });
            }
            _ => {}
        }
        // From the text once more: what is wrong is told with its line.
        let config: Self = serde_json::from_slice(&text).map_err(json)?;
        config.check()?;
        Ok(config)
    }

    /// Checks what can be checked without looking at any file.
    ///
    /// # Errors
    /// [`InstanceConfigError`].
    pub fn check(&self) -> Result<(), InstanceConfigError> {
        let fail = |field: String, why: &str| Err(InstanceConfigError::Field { field, why: why.into() });
        self.size().check_minimum()?;
        if !self.memory.is_multiple_of(crate::vmm::memory::PAGE_SIZE) {
            return fail("memory".into(), "it is no multiple of 4096 bytes");
        }
        if self.volumes.is_empty() {
            return fail("volumes".into(), "there is no root: the first volume is it");
        }
        if !(KEEP_MIN..=KEEP_MAX).contains(&self.console_log.keep) {
            return fail("console_log.keep".into(), "64 KiB to 64 MiB are kept");
        }
        for (at, volume) in self.volumes.iter().enumerate() {
            volume.check().or_else(|(field, why)| fail(format!("volumes[{at}].{field}"), &why))?;
            let is_twice =
                |of: fn(&VolumeConfig) -> &str| self.volumes.iter().take(at).any(|other| of(other) == of(volume));
            if is_twice(|v| &v.device) || is_twice(|v| &v.id) {
                return fail(format!("volumes[{at}]"), "another volume has this device or this id");
            }
        }
        if self.seed_disk && self.network.as_ref().is_none_or(|network| network.metadata.is_none()) {
            return fail("seed_disk".into(), "the instance is told nothing of itself: it needs network.metadata");
        }
        if let Some((field, _)) = self.paths().into_iter().find(|(_, path)| !path.is_absolute()) {
            return fail(field.into(), "give an absolute path");
        }
        Ok(())
    }

    fn paths(&self) -> Vec<(&'static str, &Path)> {
        let optional = [
            ("hvm.uefi_vars", &self.hvm.uefi_vars),
            ("hvm.firmware_log", &self.hvm.firmware_log),
            ("pv.kernel", &self.pv.kernel),
            ("pv.initrd", &self.pv.initrd),
        ];
        let own = [
            ("console_log.path", &self.console_log.path),
            ("control_socket", &self.control_socket),
            ("alive_lock", &self.alive_lock),
            ("exit_file", &self.exit_file),
        ];
        let optional = optional.into_iter().filter_map(|(field, path)| Some((field, path.as_deref()?)));
        optional.chain(own.map(|(field, path)| (field, path.as_path()))).collect()
    }

    /// The machine's size.
    #[must_use]
    pub fn size(&self) -> MachineConfig {
        MachineConfig { memory: self.memory, cpus: self.cpus }
    }

    /// Who the guest is told that it is.
    #[must_use]
    pub fn smbios(&self) -> Identity {
        let InstanceIdentity { uuid, instance_type } = self.identity.clone();
        Identity { uuid, instance_id: self.id.clone(), instance_type }
    }

    /// How long the guest has to switch itself off, where a request does not say.
    #[must_use]
    pub fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }
}

impl VolumeConfig {
    /// What is wrong: the field, and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        self.device.parse::<DeviceName>().map_err(|error| ("device", error.to_string()))?;
        let digits = self.id.strip_prefix("vol-").unwrap_or_default();
        if !matches!(digits.len(), 8 | 17) || !digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return Err(("id", format!("{:?} is no id of a volume, as vol-0123456789abcdef0", self.id)));
        }
        let relative = match &self.source {
            VolumeSource::Layers { stems, .. } if stems.is_empty() => {
                return Err(("source", "it has no layer".into()));
            }
            VolumeSource::Layers { stems, .. } => stems.iter().any(|stem| !stem.is_absolute()),
            VolumeSource::File { path, throw_away, .. } => {
                !path.is_absolute() || throw_away.as_ref().is_some_and(|dir| !dir.is_absolute())
            }
            VolumeSource::Blank { directory, .. } => !directory.is_absolute(),
        };
        if relative { Err(("source", "give absolute paths".into())) } else { Ok(()) }
    }

    /// The serial number that the guest sees: the id without its dash.
    #[must_use]
    pub fn serial(&self) -> String {
        self.id.replace('-', "")
    }
}

/// A value as its text.
mod text {
    use super::*;

    pub fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A value as its text, or nothing.
mod optional_text {
    use super::*;

    pub fn serialize<T: Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(ToString::to_string).serialize(serializer)
    }

    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests;
