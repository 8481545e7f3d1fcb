//! Partition tables: GPT (UEFI 2.10, chapter 5), MBR with logical partitions, or none at all, in sectors of 512 bytes.
//!
//! A classic paravirtual AMI has no table: its file system covers the whole disk. It is then given as one volume with the
//! number 0.

use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::sync::Arc;

use gpt::disk::LogicalBlockSize;
use serde::Serialize;

use super::window::Window;
use crate::disk::{Disk, SECTOR_SIZE};

/// Partitions of a GPT that are read at most; the usual table has 128 entries.
const MAX_GPT_ENTRIES: u32 = 1024;
/// Logical partitions that are followed at most; the chain of a damaged table could be endless.
const MAX_LOGICAL: u32 = 128;

/// The kind of partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// GUID partition table.
    Gpt,
    /// Master boot record.
    Mbr,
    /// None: the whole disk is one volume, number 0.
    None,
}

/// A partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its kind.
    pub kind: TableKind,
    /// The disk's GUID, or the MBR's disk signature as 8 hexadecimal digits.
    pub id: Option<String>,
    /// The used partitions in the order of their numbers.
    pub partitions: Vec<Slot>,
    /// What is wrong with the table, in words.
    pub notes: Vec<String>,
    /// Whether the first sector holds boot code (for a PC BIOS).
    pub boot_code: bool,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Slot {
    /// Its number as Linux counts, from 1; 0 for the whole disk.
    pub number: u32,
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
    /// The type GUID in lower case, or the MBR type as `0x83`; `None` for the whole disk.
    pub type_id: Option<String>,
    /// What that type is called.
    pub type_name: Option<String>,
    /// What `root=PARTUUID=` names.
    pub partuuid: Option<String>,
    /// The name in the GPT.
    pub label: Option<String>,
    /// The active flag of the MBR, or the GPT's legacy-BIOS-bootable attribute.
    pub active: bool,
}

/// The EFI system partition's type GUID.
pub const TYPE_ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
/// The BIOS boot partition's type GUID, where GRUB keeps its core image.
pub const TYPE_BIOS_BOOT: &str = "21686148-6449-6e6f-744e-656564454649";
/// The type GUID of an x86-64 root (Discoverable Partitions Specification).
pub const TYPE_ROOT_X86_64: &str = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709";
/// The type GUID of a 32-bit x86 root.
pub const TYPE_ROOT_X86: &str = "44479540-f297-41b2-9af7-d131d5f0458a";
/// The type GUID of the extended boot loader partition, usually `/boot`.
pub const TYPE_XBOOTLDR: &str = "bc13c2ff-59e6-4262-a352-b275fd6f7172";

const TYPE_NAMES: [(&str, &str); 18] = [
    (TYPE_ESP, "EFI system"),
    (TYPE_BIOS_BOOT, "BIOS boot"),
    (TYPE_ROOT_X86_64, "Linux root (x86-64)"),
    (TYPE_ROOT_X86, "Linux root (x86)"),
    (TYPE_XBOOTLDR, "Linux extended boot"),
    ("b921b045-1df0-41c3-af44-4c6f280d3fae", "Linux root (arm64)"),
    ("0fc63daf-8483-4772-8e79-3d69d8477de4", "Linux filesystem"),
    ("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", "Linux swap"),
    ("e6d6d379-f507-44c2-a23c-238f2a3df928", "Linux LVM"),
    ("933ac7e1-2eb4-4f13-b844-0e14e2aef915", "Linux home"),
    ("8484680c-9521-48c6-9c11-b0720656f69e", "Linux /usr (x86-64)"),
    ("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "Microsoft basic data"),
    ("0x83", "Linux filesystem"),
    ("0x82", "Linux swap"),
    ("0x8e", "Linux LVM"),
    ("0xef", "EFI system"),
    ("0x0c", "FAT32"),
    ("0x07", "NTFS or exFAT"),
];

fn type_name(id: &str) -> Option<String> {
    TYPE_NAMES.iter().find(|(known, _)| *known == id).map(|(_, name)| (*name).to_owned())
}

/// Reads the partition table of a disk.
///
/// # Errors
/// What the disk said. A damaged table is no error: what can be read is there, and `notes` say what is wrong.
pub(super) fn read(disk: &Arc<dyn Disk>) -> io::Result<Table> {
    let window = Window::new(Arc::clone(disk), 0, disk.size());
    let sector = window.read_up_to(0, SECTOR_SIZE)?;
    let signed = sector.get(510..512) == Some(&[0x55, 0xaa]);
    let boot_code = signed && sector.iter().take(440).any(|&b| b != 0);
    let mut table = match gpt_table(&window)? {
        Some(table) => table,
        None if signed => mbr_table(&window, &sector)?,
        None => Table { kind: TableKind::None, id: None, partitions: Vec::new(), notes: Vec::new(), boot_code },
    };
    table.boot_code = boot_code;
    table.cut_at(disk.size());
    if table.kind == TableKind::None {
        table.partitions = vec![Slot {
            number: 0,
            start: 0,
            size: disk.size(),
            type_id: None,
            type_name: None,
            partuuid: None,
            label: None,
            active: false,
        }];
    }
    Ok(table)
}

impl Table {
    /// Leaves out what lies beyond the end of the disk, and says so.
    fn cut_at(&mut self, disk_size: u64) {
        let notes = &mut self.notes;
        self.partitions.retain_mut(|p| {
            let end = p.start.saturating_add(p.size);
            if end <= disk_size {
                return true;
            }
            notes.push(format!(
                "partition {} ends at byte {end}, the disk has only {disk_size}: the disk file is truncated",
                p.number
            ));
            p.size = disk_size.saturating_sub(p.start);
            p.size > 0
        });
        self.partitions.sort_by_key(|p| p.number);
        self.partitions.dedup_by_key(|p| p.number);
    }
}

/// The whole disk as the `gpt` crate reads it, with the headers that it must not see blanked out.
struct Headers {
    window: Window,
    masked: Vec<u64>,
}

impl Read for Headers {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let at = self.window.stream_position()?;
        let got = self.window.read(buf)?;
        if self.masked.contains(&at) {
            buf.fill(0);
        }
        Ok(got)
    }
}

impl Seek for Headers {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.window.seek(to)
    }
}

impl io::Write for Headers {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Headers").field("masked", &self.masked).finish_non_exhaustive()
    }
}

/// The GPT, from the primary header or, where that or its entries are damaged, from the backup at the end of the disk.
fn gpt_table(window: &Window) -> io::Result<Option<Table>> {
    let last = (window.len() / SECTOR_SIZE).saturating_sub(1) * SECTOR_SIZE;
    let mut masked = Vec::new();
    let mut notes = Vec::new();
    for (at, which) in [(SECTOR_SIZE, "primary"), (last, "backup")] {
        if let Err(why) = check_header(window, at)? {
            masked.push(at);
            notes.push(format!("the {which} GPT header {why}"));
        }
    }
    if masked.len() == 2 {
        return Ok(None);
    }
    let device = Headers { window: window.clone(), masked };
    let config = gpt::GptConfig::new().writable(false).logical_block_size(LogicalBlockSize::Lb512);
    let Ok(disk) = config.open_from_device(device) else {
        return Ok(None);
    };
    if disk.primary_header().is_err() {
        notes.push("the backup GPT is used".to_owned());
    }
    let partitions = disk.partitions().iter().filter_map(|(&number, p)| gpt_slot(number, p)).collect();
    let id = Some(disk.guid().to_string());
    Ok(Some(Table { kind: TableKind::Gpt, id, partitions, notes, boot_code: false }))
}

fn gpt_slot(number: u32, partition: &gpt::partition::Partition) -> Option<Slot> {
    let start = partition.first_lba.checked_mul(SECTOR_SIZE)?;
    let sectors = partition.last_lba.checked_sub(partition.first_lba)?.checked_add(1)?;
    let size = sectors.checked_mul(SECTOR_SIZE)?;
    if partition.first_lba == 0 || partition.part_type_guid.guid.is_nil() {
        return None;
    }
    let type_id = partition.part_type_guid.guid.to_string().to_lowercase();
    let label: String = partition.name.chars().filter(|c| !c.is_control()).collect();
    Some(Slot {
        number,
        start,
        size,
        type_name: type_name(&type_id),
        type_id: Some(type_id),
        partuuid: Some(partition.part_guid.to_string().to_lowercase()),
        label: (!label.is_empty()).then_some(label),
        active: partition.flags & 0x4 != 0,
    })
}

/// Checks what the crate takes for granted: the signature, the size and number of the entries, and their checksum.
fn check_header(window: &Window, at: u64) -> io::Result<Result<(), &'static str>> {
    let header = window.read_up_to(at, 92)?;
    if !header.starts_with(b"EFI PART") || header.len() < 92 {
        return Ok(Err("is missing"));
    }
    let mut fields = Cursor::new(&header);
    let mut field = |offset: u64, len: usize| -> io::Result<u64> {
        let mut raw = [0; 8];
        fields.seek(SeekFrom::Start(offset))?;
        fields.read_exact(raw.split_at_mut(len).0)?;
        Ok(u64::from_le_bytes(raw))
    };
    let (entries, count, size, crc) = (field(72, 8)?, field(80, 4)?, field(84, 4)?, field(88, 4)?);
    if size != 128 || count > u64::from(MAX_GPT_ENTRIES) {
        return Ok(Err("describes entries of an unsupported size or number"));
    }
    let Some(start) = entries.checked_mul(SECTOR_SIZE) else {
        return Ok(Err("points beyond the disk"));
    };
    let array = window.read_up_to(start, count * size)?;
    let mut sum = flate2::Crc::new();
    sum.update(&array);
    let whole = u64::try_from(array.len()).is_ok_and(|len| len == count * size);
    Ok(if whole && u64::from(sum.sum()) == crc { Ok(()) } else { Err("has entries with a wrong checksum") })
}

struct MbrEntry {
    active: bool,
    kind: u8,
    start: u64,
    sectors: u64,
}

fn mbr_entries(sector: &[u8]) -> Option<[MbrEntry; 4]> {
    let entry = |i: usize| {
        let raw: &[u8; 16] = sector.get(446 + 16 * i..462 + 16 * i)?.try_into().ok()?;
        let &[status, _, _, _, kind, _, _, _, s0, s1, s2, s3, n0, n1, n2, n3] = raw;
        let start = u64::from(u32::from_le_bytes([s0, s1, s2, s3]));
        let sectors = u64::from(u32::from_le_bytes([n0, n1, n2, n3]));
        // Anything but 0x00 and 0x80 says that this is no partition table but, for one, a FAT boot sector.
        (status & 0x7f == 0).then_some(MbrEntry { active: status == 0x80, kind, start, sectors })
    };
    Some([entry(0)?, entry(1)?, entry(2)?, entry(3)?])
}

impl MbrEntry {
    fn is_used(&self) -> bool {
        self.kind != 0 && self.sectors != 0
    }

    fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }

    fn slot(&self, number: u32, base: u64, signature: u32) -> Slot {
        let type_id = format!("{:#04x}", self.kind);
        Slot {
            number,
            start: (base + self.start) * SECTOR_SIZE,
            size: self.sectors * SECTOR_SIZE,
            type_name: type_name(&type_id),
            type_id: Some(type_id),
            partuuid: (signature != 0).then(|| format!("{signature:08x}-{number:02x}")),
            label: None,
            active: self.active,
        }
    }
}

/// The MBR's four primary partitions and the chain of logical ones, numbered from 5 as Linux does.
fn mbr_table(window: &Window, sector: &[u8]) -> io::Result<Table> {
    let mut table =
        Table { kind: TableKind::None, id: None, partitions: Vec::new(), notes: Vec::new(), boot_code: false };
    let Some(primary) = mbr_entries(sector) else {
        return Ok(table);
    };
    if !primary.iter().any(MbrEntry::is_used) || primary.iter().any(|e| e.is_used() && e.start == 0) {
        return Ok(table);
    }
    // A boot sector of a bare FAT volume ends in the same two bytes; a table's entries lie on the disk.
    let sectors = window.len() / SECTOR_SIZE;
    if primary.iter().filter(|e| e.is_used()).all(|e| e.start >= sectors) {
        return Ok(table);
    }
    let signature = sector.get(440..444).and_then(|s| s.try_into().ok()).map_or(0, u32::from_le_bytes);
    table.kind = TableKind::Mbr;
    table.id = (signature != 0).then(|| format!("{signature:08x}"));
    for (number, entry) in (1..).zip(&primary) {
        if !entry.is_used() {
            continue;
        }
        if entry.kind == 0xee {
            table.notes.push("there is a protective MBR, but neither of the two GPT headers is intact".to_owned());
        } else if entry.is_extended() {
            logical(window, entry, signature, &mut table)?;
        } else {
            table.partitions.push(entry.slot(number, 0, signature));
        }
    }
    Ok(table)
}

/// Follows the chain of extended boot records: each holds one logical partition, relative to itself, and a link to the
/// next, relative to the extended partition.
fn logical(window: &Window, extended: &MbrEntry, signature: u32, table: &mut Table) -> io::Result<()> {
    let mut base = extended.start;
    let mut number = 5;
    for _ in 0..MAX_LOGICAL {
        let sector = window.read_up_to(base.saturating_mul(SECTOR_SIZE), SECTOR_SIZE)?;
        let entries = mbr_entries(&sector).filter(|_| sector.get(510..512) == Some(&[0x55, 0xaa]));
        let Some([first, link, _, _]) = entries else {
            table.notes.push(format!("the extended boot record at sector {base} is damaged"));
            return Ok(());
        };
        if first.is_used() {
            table.partitions.push(first.slot(number, base, signature));
            number += 1;
        }
        if !link.is_used() || !link.is_extended() {
            return Ok(());
        }
        base = extended.start + link.start;
    }
    table.notes.push(format!("the chain of logical partitions does not end after {MAX_LOGICAL}"));
    Ok(())
}

#[cfg(test)]
mod tests;
