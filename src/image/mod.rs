//! What is inside a disk: partitions, file systems, boot entries, kernels. Reads through [`crate::disk::Disk`] only.
//!
//! [`inspect`] looks at a disk without booting or mounting it and gives an [`Image`]: its [`Inspection`], and the files
//! that the boot entries name. From the bottom up:
//!
//! * [`partition`]: GPT, MBR, or no table at all;
//! * [`fs`]: ext2/3/4, XFS, btrfs and FAT, behind one interface that follows links safely and bounds every read;
//! * `layout`: which partition is the root, `/boot`, the EFI system partition; the system on it;
//! * `boot`: the entries of `menu.lst`, `grub.cfg` and the Boot Loader Specification;
//! * [`kernel`]: bzImage and ELF, and the ELF inside a bzImage;
//! * [`cache`]: extracted kernels and initrds on the host, found again by content.
//!
//! A disk image is untrusted: nothing that it holds may cost more than a bounded amount of memory and time, or end in
//! anything but a result or an [`Error`].

mod boot;
pub mod bundle;
pub mod cache;
pub mod fs;
mod inspection;
pub mod kernel;
mod layout;
mod login;
mod modes;
pub mod partition;
#[cfg(test)]
pub(crate) mod testing;
mod volumes;
mod window;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

pub use inspection::*;
pub use modes::FirmwareModes;

use self::fs::{FsError, Kind};
use self::kernel::KernelError;
use self::volumes::Volumes;
use crate::disk::Disk;

/// The largest initial RAM disk that is read, in bytes; all those of an entry together.
pub const MAX_INITRD: u64 = 1 << 30;

/// Bytes that looking through a disk may read. A disk of a system takes some 10 MiB, a journal to be replayed some more.
const INSPECTION_BUDGET: u64 = 2 << 30;
/// Bytes that copying files out of a disk may read: besides the look at the disk, packed extents are read more than once.
const COPY_BUDGET: u64 = INSPECTION_BUDGET + 8 * MAX_INITRD;

/// Why a disk, or a file on it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to inspect.
    #[error("the disk is empty (0 bytes)")]
    Empty,
    /// The disk underneath failed.
    #[error("cannot read the disk: {0}")]
    Disk(#[from] io::Error),
    /// A number that the partition table does not have.
    #[error("the disk has no partition {partition}")]
    NoPartition {
        /// The number.
        partition: u32,
    },
    /// A partition cannot be read at all.
    #[error("{}: {source}", volume_name(*partition))]
    FileSystem {
        /// Its number; 0 for the whole disk.
        partition: u32,
        /// The reason.
        source: FsError,
    },
    /// A file cannot be read.
    #[error("cannot read {file}: {source}")]
    File {
        /// The file.
        file: FileRef,
        /// The reason.
        source: FsError,
    },
    /// The copy of a file cannot be written.
    #[error("cannot copy {file}: {source}")]
    Output {
        /// The file.
        file: FileRef,
        /// What the output said.
        source: io::Error,
    },
    /// A file is no kernel that could be started.
    #[error("cannot use {file}: {source}")]
    Kernel {
        /// The file.
        file: FileRef,
        /// The reason.
        source: KernelError,
    },
}

/// What a volume is called in messages.
fn volume_name(partition: u32) -> String {
    if partition == 0 { "the disk's file system".to_owned() } else { format!("partition {partition}") }
}

/// A disk that has been inspected.
pub struct Image {
    disk: Arc<dyn Disk>,
    table: partition::Table,
    inspection: Inspection,
}

/// Finds out what is on a disk.
///
/// # Errors
/// `Empty`, or `Disk` where the host cannot read it. What is damaged or unknown on the disk is no error: the inspection
/// says so in its notes, in the partitions' `unsupported` and in the entries' `problem`.
pub fn inspect(disk: Arc<dyn Disk>) -> Result<Image, Error> {
    if disk.size() == 0 {
        return Err(Error::Empty);
    }
    let table = partition::read(&disk)?;
    let mut volumes = Volumes::new(&disk, &table, INSPECTION_BUDGET)?;
    let layout = layout::find(&mut volumes);
    let mut ordered: Vec<u32> = layout.boot.into_iter().chain(layout.root).collect();
    for number in volumes.numbers() {
        if !ordered.contains(&number) {
            ordered.push(number);
        }
    }
    ordered.dedup();
    let whole_disk = table.kind == partition::TableKind::None;
    let places = boot::Places { ordered, esp: layout.esp, whole_disk };
    let (mut entries, default_entry) = boot::discover(&mut volumes, &places);
    check_entries(&mut volumes, &mut entries);
    let boot_modes = modes::judge(&table, &mut volumes, layout.esp, &entries);
    let of_kernel = default_entry.and_then(|i| entries.get(i)).or(entries.first());
    let of_kernel = of_kernel.and_then(|e| e.kernel_info.as_ref()).map(|k| k.arch);
    let mut notes = table.notes.clone();
    if entries.is_empty() {
        notes.extend(unread_loader(&mut volumes));
    }
    notes.append(&mut volumes.notes);
    if volumes.all.iter().all(|v| v.identity.is_none()) {
        notes.push("neither a partition with a known file system nor a bare file system was found".to_owned());
    }
    let mount_point = |number: u32| layout.mounts.iter().find(|(n, _)| *n == number).map(|(_, at)| (*at).to_owned());
    let partitions = volumes.all.into_iter().map(|v| {
        let mount_point = mount_point(v.slot.number);
        Partition { slot: v.slot, filesystem: v.identity, mount_point }
    });
    let inspection = Inspection {
        virtual_size: disk.size(),
        partition_table: table.kind,
        disk_id: table.id.clone(),
        partitions: partitions.collect(),
        root: layout.root,
        boot: layout.boot,
        esp: layout.esp,
        os: layout.os,
        login_user: layout.login_user,
        architecture: layout.architecture.or(of_kernel),
        boot_modes,
        entries,
        default_entry,
        notes,
    };
    Ok(Image { disk, table, inspection })
}

/// Finds out by which firmware a disk can boot, without looking at more of it than that takes.
///
/// # Errors
/// As [`inspect`].
pub fn firmware_modes(disk: &Arc<dyn Disk>) -> Result<FirmwareModes, Error> {
    if disk.size() == 0 {
        return Err(Error::Empty);
    }
    let table = partition::read(disk)?;
    let mut volumes = Volumes::new(disk, &table, INSPECTION_BUDGET)?;
    let esp = layout::find_esp(&mut volumes);
    Ok(modes::by_firmware(&table, &mut volumes, esp))
}

impl Image {
    /// What was found.
    #[must_use]
    pub fn inspection(&self) -> &Inspection {
        &self.inspection
    }

    /// The entry to boot when nobody chooses: the default one or, where that has a problem, the first without.
    ///
    /// Of an entry that the image would start first without and then with an initrd ([`BootEntry::retry_entry`]) it is
    /// the second: started directly, a guest has no boot loader to try again with.
    #[must_use]
    pub fn boot_entry(&self) -> Option<&BootEntry> {
        let entries = &self.inspection.entries;
        let sound = |e: &&BootEntry| e.problem.is_none();
        let default = self.inspection.default_entry.and_then(|i| entries.get(i));
        let chosen = default.filter(sound).or_else(|| entries.iter().find(sound)).or(default)?;
        let retry = chosen.retry_entry.and_then(|i| entries.get(i)).filter(sound);
        let same_with_initrd = |e: &&BootEntry| e.kernel == chosen.kernel && !e.initrds.is_empty();
        Some(retry.filter(same_with_initrd).filter(|_| chosen.initrds.is_empty()).unwrap_or(chosen))
    }

    /// The whole file, if it is no larger than `limit` bytes.
    ///
    /// # Errors
    /// `NoPartition`, `FileSystem`, or `File` with the reason: not there, too large, damaged, ...
    pub fn read_file(&self, file: &FileRef, limit: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.copy_file(file, limit, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes the file to `out`, if it is no larger than `limit` bytes, and returns its size in bytes.
    ///
    /// # Errors
    /// As [`Image::read_file`]; `Output` where `out` fails.
    pub fn copy_file(&self, file: &FileRef, limit: u64, out: &mut dyn Write) -> Result<u64, Error> {
        Volumes::new(&self.disk, &self.table, COPY_BUDGET)?.copy(file, limit, out)
    }

    /// Writes the initial RAM disks of an entry to `out`, one after the other and each padded with zeros to a multiple of
    /// 4 bytes, as Linux wants them (Documentation/driver-api/early-userspace/buffer-format.rst), and returns the length.
    ///
    /// # Errors
    /// As [`Image::copy_file`]; all together may have [`MAX_INITRD`] bytes.
    pub fn copy_initrds(&self, files: &[FileRef], out: &mut dyn Write) -> Result<u64, Error> {
        let mut volumes = Volumes::new(&self.disk, &self.table, COPY_BUDGET)?;
        let mut total = 0_u64;
        for file in files {
            let size = volumes.copy(file, MAX_INITRD - total, out)?;
            let padding = size.next_multiple_of(4) - size;
            let zeros = [0; 4];
            let zeros = zeros.get(..usize::try_from(padding).unwrap_or(0)).unwrap_or_default();
            out.write_all(zeros).map_err(|source| Error::Output { file: file.clone(), source })?;
            total = (total + size + padding).min(MAX_INITRD);
        }
        Ok(total)
    }

    /// Reads a kernel and what it says of itself.
    ///
    /// # Errors
    /// As [`Image::read_file`], and `Kernel` where the file is none for x86 or is not whole.
    pub fn read_kernel(&self, file: &FileRef) -> Result<(Vec<u8>, KernelInfo), Error> {
        let bytes = self.read_file(file, kernel::MAX_KERNEL_FILE)?;
        let info = kernel::parse(&bytes).map_err(|source| Error::Kernel { file: file.clone(), source })?;
        Ok((bytes, info))
    }
}

/// Says, where no boot entry was found, which loader's configuration is there but cannot be read.
fn unread_loader(volumes: &mut Volumes) -> Option<String> {
    const UNREAD: [(&str, &str); 6] = [
        ("/EFI/Linux", "unified kernel images"),
        ("/boot/extlinux.conf", "an extlinux configuration"),
        ("/extlinux.conf", "an extlinux configuration"),
        ("/boot/extlinux/extlinux.conf", "an extlinux configuration"),
        ("/boot/syslinux/syslinux.cfg", "a syslinux configuration"),
        ("/EFI/refind/refind.conf", "a rEFInd configuration"),
    ];
    UNREAD.iter().find_map(|(path, what)| {
        let partition = boot::Files::by_file(volumes, path)?;
        let file = FileRef { partition, path: (*path).to_owned() };
        Some(format!("{file}: {what} cannot be read; name the kernel and initrd yourself, or boot with firmware"))
    })
}

/// Looks at the kernel and the initrds of each entry, each file once.
fn check_entries(volumes: &mut Volumes, entries: &mut [BootEntry]) {
    let mut kernels: BTreeMap<FileRef, Result<KernelInfo, String>> = BTreeMap::new();
    let mut initrds: BTreeMap<FileRef, Option<String>> = BTreeMap::new();
    for entry in entries {
        let probed = kernels.entry(entry.kernel.clone()).or_insert_with(|| probe(volumes, &entry.kernel));
        let mut problem = match probed {
            Ok(info) => {
                entry.kernel_info = Some(info.clone());
                None
            }
            Err(why) => Some(format!("kernel {}: {why}", entry.kernel)),
        };
        for file in &entry.initrds {
            let missing = initrds.entry(file.clone()).or_insert_with(|| check_initrd(volumes, file));
            problem = problem.or_else(|| missing.as_ref().map(|why| format!("initrd {file}: {why}")));
        }
        if entry.problem.is_none() {
            entry.problem = problem;
        }
    }
}

fn probe(volumes: &mut Volumes, file: &FileRef) -> Result<KernelInfo, String> {
    let tree = volumes.tree(file.partition).map_err(|e| e.to_string())?;
    let want = u64::try_from(kernel::PROBE_LEN).unwrap_or(u64::MAX);
    let (mut head, size) = tree.head(&file.path, want).map_err(|e| without_path(&e))?;
    if size > kernel::MAX_KERNEL_FILE {
        return Err(format!("{size} bytes, the limit is {}", kernel::MAX_KERNEL_FILE));
    }
    if head.starts_with(b"\x7fELF") {
        head = tree.read(&file.path, kernel::MAX_KERNEL_FILE).map_err(|e| without_path(&e))?;
    }
    kernel::probe(&head, size).map_err(|e| e.to_string())
}

fn check_initrd(volumes: &mut Volumes, file: &FileRef) -> Option<String> {
    match volumes.stat(file) {
        Ok(Some(stat)) if stat.kind != Kind::File => Some("not a regular file".to_owned()),
        Ok(Some(stat)) if stat.size > MAX_INITRD => Some(format!("{} bytes, the limit is {MAX_INITRD}", stat.size)),
        Ok(Some(stat)) if stat.size == 0 => Some("the file is empty".to_owned()),
        Ok(Some(_)) => None,
        Ok(None) => Some("no such file".to_owned()),
        Err(e) => Some(e.to_string()),
    }
}

/// The message of an error whose path the caller has named already.
fn without_path(error: &FsError) -> String {
    match error {
        FsError::NotFound(_) => "no such file".to_owned(),
        FsError::WrongKind { what, .. } => (*what).to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
