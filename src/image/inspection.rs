//! What [`super::inspect`] finds, in a form that a program can print or keep.
//!
//! The field names of these types are what `amiboot image inspect --json` prints: they only ever grow.

use serde::{Deserialize, Serialize};

pub use super::fs::Identity as FileSystemInfo;
pub use super::kernel::{Architecture, KernelInfo};
pub use super::partition::{Slot, TableKind};

/// Everything that can be said about a disk without booting or mounting it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// Size of the disk in bytes.
    pub virtual_size: u64,
    /// Kind of partition table.
    pub partition_table: TableKind,
    /// The GPT's disk GUID, or the MBR's disk signature.
    pub disk_id: Option<String>,
    /// The partitions; for a disk without a table, the whole disk as number 0.
    pub partitions: Vec<Partition>,
    /// Number of the partition that holds the system's root.
    pub root: Option<u32>,
    /// Number of the partition that holds `/boot`; the root's own where that is not apart.
    pub boot: Option<u32>,
    /// Number of the EFI system partition.
    pub esp: Option<u32>,
    /// What the system calls itself.
    pub os: Option<OsRelease>,
    /// The user whom its cloud-init makes for logging in.
    pub login_user: Option<String>,
    /// Architecture of the system's programs or, where none was found, of its kernel.
    pub architecture: Option<Architecture>,
    /// The ways to boot it.
    pub boot_modes: BootModes,
    /// Every boot entry, in the order of the menus they were found in.
    pub entries: Vec<BootEntry>,
    /// Index in `entries` of the one that boots when nobody chooses.
    pub default_entry: Option<usize>,
    /// What was found to be wrong or could not be read, in words.
    pub notes: Vec<String>,
}

/// A partition and what is on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// Where it lies and what the table says of it.
    #[serde(flatten)]
    pub slot: Slot,
    /// Its file system or other known content.
    pub filesystem: Option<FileSystemInfo>,
    /// Where the system uses it, as far as that is known: `/`, `/boot`, `/boot/efi`.
    pub mount_point: Option<String>,
}

/// The fields of `os-release` (os-release(5)) that are of use here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct OsRelease {
    /// `ID`, for example `debian`.
    pub id: Option<String>,
    /// `ID_LIKE`.
    pub id_like: Option<String>,
    /// `VERSION_ID`, for example `12`.
    pub version_id: Option<String>,
    /// `PRETTY_NAME`, for people.
    pub pretty_name: Option<String>,
}

/// For each way of booting, whether the disk can take it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootModes {
    /// Paravirtual: the kernel is read from the image and entered directly.
    pub pv: BootMode,
    /// The disk's own boot loader under a PC BIOS.
    #[serde(rename = "hvm-bios")]
    pub hvm_bios: BootMode,
    /// The disk's own boot loader under UEFI.
    #[serde(rename = "hvm-uefi")]
    pub hvm_uefi: BootMode,
}

/// Whether one way of booting is open, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootMode {
    /// Whether what it needs is on the disk. Whether it then succeeds is for the guest to show.
    pub possible: bool,
    /// What was found, or what is missing.
    pub reason: String,
}

/// A file on the disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileRef {
    /// Number of the partition; 0 for the whole disk.
    pub partition: u32,
    /// Path from the root of that partition's file system.
    pub path: String,
}

impl std::fmt::Display for FileRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.partition {
            0 => f.write_str(&self.path),
            n => write!(f, "{} on partition {n}", self.path),
        }
    }
}

/// Where a boot entry was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Number of the partition.
    pub partition: u32,
    /// Path of the configuration file.
    pub path: String,
    /// Line in it, from 1.
    pub line: u32,
}

/// The kind of configuration an entry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// GRUB legacy's `menu.lst` or `grub.conf`.
    #[serde(rename = "menu.lst")]
    MenuLst,
    /// GRUB 2's `grub.cfg`.
    #[serde(rename = "grub.cfg")]
    GrubCfg,
    /// A file of the Boot Loader Specification, type #1.
    #[serde(rename = "bls")]
    Bls,
}

/// One thing to boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootEntry {
    /// What the menu shows.
    pub title: String,
    /// The identifier, where the configuration gives one.
    pub id: Option<String>,
    /// What kind of configuration it comes from.
    pub kind: EntryKind,
    /// Where it stands.
    pub source: Source,
    /// The kernel.
    pub kernel: FileRef,
    /// The initial RAM disks, which are loaded one after the other.
    pub initrds: Vec<FileRef>,
    /// The kernel's command line as the image has it, variables replaced.
    pub cmdline: String,
    /// Whether this is the entry that boots when nobody chooses.
    pub default: bool,
    /// Index of the entry that the image itself tries after this one has failed. Ubuntu's cloud images have one: they
    /// start without an initrd first, which works only where the root's driver is built into the kernel.
    pub retry_entry: Option<usize>,
    /// What the kernel says of itself.
    pub kernel_info: Option<KernelInfo>,
    /// Why the entry cannot be booted, if it cannot.
    pub problem: Option<String>,
}
