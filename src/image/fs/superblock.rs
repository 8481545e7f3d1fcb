//! What a volume holds, by its superblock: the format's name, label and UUID, and whether it can be read here.

use std::io;

use serde::Serialize;

use crate::image::window::Window;

/// What the beginning of a volume says about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// The format by the name that `mount` and `blkid` use: `ext4`, `xfs`, `btrfs`, `vfat`, `swap`, `crypto_LUKS`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// Label, if it has one.
    pub label: Option<String>,
    /// UUID as `blkid` writes it: for FAT the serial number as `XXXX-XXXX`.
    pub uuid: Option<String>,
    /// Why its files cannot be read here, if they cannot.
    pub unsupported: Option<String>,
}

impl Identity {
    fn new(kind: &str, label: &[u8], uuid: Option<String>) -> Self {
        Self { kind: kind.to_owned(), label: text(label), uuid, unsupported: None }
    }

    fn unsupported(mut self, why: impl Into<String>) -> Self {
        self.unsupported = Some(why.into());
        self
    }
}

/// The beginning of a volume, with reads beyond its end giving zeros.
struct Head(Vec<u8>);

/// Block groups of an ext2/3/4 file system that are accepted.
const MAX_GROUPS: u64 = 1 << 20;

/// How much of a volume is looked at: the furthest superblock (btrfs) ends at 68 KiB.
const HEAD_LEN: u64 = 68 << 10;

/// Names what a volume holds; `None` where no known format is there.
///
/// # Errors
/// What the disk said when its first 68 KiB were read.
pub(in crate::image) fn identify(window: &Window) -> io::Result<Option<Identity>> {
    let head = Head(window.read_up_to(0, HEAD_LEN)?);
    let found = ext(&head, window.len())
        .or_else(|| xfs(&head, window.len()))
        .or_else(|| btrfs(&head, window.len()))
        .or_else(|| unreadable(&head))
        .or_else(|| fat(&head, window.len()));
    Ok(found)
}

/// Linux, Documentation/filesystems/ext4/super.rst.
fn ext(head: &Head, volume: u64) -> Option<Identity> {
    const SB: usize = 1024;
    if head.le16(SB + 0x38) != 0xef53 {
        return None;
    }
    let (compat, incompat, ro_compat) = (head.le32(SB + 0x5c), head.le32(SB + 0x60), head.le32(SB + 0x64));
    // Extents, 64bit, flex_bg, ... (incompat), huge_file and above (ro_compat) came with ext4.
    let kind = match () {
        () if incompat & !0x16 != 0 || ro_compat & !0x7 != 0 => "ext4",
        () if compat & 0x4 != 0 => "ext3",
        () => "ext2",
    };
    let identity = Identity::new(kind, head.slice(SB + 0x78, 16), head.uuid(SB + 0x68));
    const REFUSED: [(u32, &str); 9] = [
        (0x1, "compression"),
        (0x8, "journal_dev (the journal is on another device)"),
        (0x10, "meta_bg"),
        (0x100, "mmp"),
        (0x400, "ea_inode"),
        (0x1000, "dirdata"),
        (0x4000, "large_dir"),
        (0x8000, "inline_data"),
        (0x2_0000, "casefold"),
    ];
    let refused: Vec<&str> = REFUSED.iter().filter(|(bit, _)| incompat & bit != 0).map(|&(_, name)| name).collect();
    if !refused.is_empty() {
        return Some(identity.unsupported(format!("{kind} with the feature {}", refused.join(", "))));
    }
    if incompat & 0x2 == 0 {
        return Some(identity.unsupported(format!("{kind} without the feature filetype")));
    }
    let blocks = u64::from(head.le32(SB + 4)) | if incompat & 0x80 != 0 { head.le32_high(SB + 0x150) } else { 0 };
    let block_size = 1024_u64.checked_shl(head.le32(SB + 0x18)).unwrap_or(0);
    // Their descriptors are all read: with groups of the usual size this is enough for 128 TiB.
    if blocks / u64::from(head.le32(SB + 0x20)).max(1) > MAX_GROUPS {
        return Some(identity.unsupported(format!("{kind} with more than {MAX_GROUPS} block groups")));
    }
    Some(identity.fits(u128::from(blocks) * u128::from(block_size), volume))
}

/// XFS Algorithms and Data Structures, "Superblocks".
fn xfs(head: &Head, volume: u64) -> Option<Identity> {
    if head.slice(0, 4) != b"XFSB" {
        return None;
    }
    let identity = Identity::new("xfs", head.slice(108, 12), head.uuid(32));
    let blocks = u128::from(head.be32(8)) << 32 | u128::from(head.be32(12));
    Some(identity.fits(blocks * u128::from(head.be32(4)), volume))
}

/// btrfs documentation, "On-disk format: superblock". Several devices: its size is that of all of them together.
fn btrfs(head: &Head, volume: u64) -> Option<Identity> {
    const SB: usize = 64 << 10;
    if head.slice(SB + 0x40, 8) != b"_BHRfS_M" {
        return None;
    }
    let identity = Identity::new("btrfs", head.slice(SB + 0x12b, 256), head.uuid(SB + 0x20));
    let devices = head.le32(SB + 0x88);
    let total = u128::from(head.le32(SB + 0x70)) | u128::from(head.le32(SB + 0x74)) << 32;
    Some(if devices <= 1 { identity.fits(total, volume) } else { identity })
}

/// Microsoft, "FAT: General Overview of On-Disk Format" 1.03, with the checks that tell it from a mere boot sector.
fn fat(head: &Head, volume: u64) -> Option<Identity> {
    let sector = head.le16(11);
    let cluster = head.byte(13);
    let reserved = head.le16(14);
    let copies = head.byte(16);
    let root_entries = u64::from(head.le16(17));
    let sane = head.le16(510) == 0xaa55
        && matches!(sector, 512 | 1024 | 2048 | 4096)
        && cluster.is_power_of_two()
        && reserved > 0
        && matches!(copies, 1 | 2)
        && (head.byte(21) == 0xf0 || head.byte(21) >= 0xf8);
    if !sane {
        return None;
    }
    let either = |narrow: u16, wide: u32| if narrow == 0 { u64::from(wide) } else { u64::from(narrow) };
    let table = either(head.le16(22), head.le32(36));
    let total = either(head.le16(19), head.le32(32));
    let root = (root_entries * 32).div_ceil(u64::from(sector));
    let overhead = u64::from(reserved) + u64::from(copies) * table + root;
    let extended = if head.le16(22) == 0 { 64 } else { 36 };
    let serial = head.le32(extended + 3);
    let label = match head.slice(extended + 7, 11) {
        b"NO NAME    " => b"",
        label => label,
    };
    let identity = Identity::new("vfat", label, Some(format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff)));
    if overhead >= total || table == 0 {
        return Some(identity.unsupported("the FAT boot sector contradicts itself"));
    }
    Some(identity.fits(u128::from(total) * u128::from(sector), volume))
}

/// Formats that are recognised, so that a person sees why their disk is refused.
fn unreadable(head: &Head) -> Option<Identity> {
    if head.slice(0, 6) == b"LUKS\xba\xbe" {
        let why = format!("encrypted (LUKS version {})", head.be16(6));
        return Some(Identity::new("crypto_LUKS", b"", text(head.slice(168, 40))).unsupported(why));
    }
    if (0..4).any(|i| head.slice(i * 512, 8) == b"LABELONE" && head.slice(i * 512 + 24, 8) == b"LVM2 001") {
        return Some(Identity::new("LVM2_member", b"", None).unsupported("an LVM2 physical volume"));
    }
    if matches!(head.slice(4086, 10), b"SWAPSPACE2" | b"SWAP-SPACE") {
        let identity = Identity::new("swap", head.slice(1052, 16), head.uuid(1036));
        return Some(identity.unsupported("swap space holds no files"));
    }
    let at: [(usize, &[u8], &str, &str); 13] = [
        (0, b"hsqs", "squashfs", "squashfs cannot be read"),
        (1024, b"\xe2\xe1\xf5\xe0", "erofs", "EROFS cannot be read"),
        (1024, b"\x10\x20\xf5\xf2", "f2fs", "F2FS cannot be read"),
        (0, b"\xfc\x4e\x2b\xa9", "linux_raid_member", "a member of a Linux software RAID"),
        (4096, b"\xfc\x4e\x2b\xa9", "linux_raid_member", "a member of a Linux software RAID"),
        (0, b"verity\0\0", "DM_verity_hash", "dm-verity hashes hold no files"),
        (3, b"NTFS    ", "ntfs", "NTFS cannot be read"),
        (3, b"-FVE-FS-", "BitLocker", "encrypted (BitLocker)"),
        (3, b"EXFAT   ", "exfat", "exFAT cannot be read"),
        (32_769, b"CD001", "iso9660", "ISO 9660 cannot be read: give a disk image, not an installation medium"),
        (0, b"KDMV", "vmdk", "this is a VMDK file, not a raw disk: convert it first"),
        (0, b"conectix", "vhd", "this is a VHD file, not a raw disk: convert it first"),
        (0, b"vhdxfile", "vhdx", "this is a VHDX file, not a raw disk: convert it first"),
    ];
    let found = at.iter().find(|(offset, magic, _, _)| head.slice(*offset, magic.len()) == *magic);
    found.map(|(_, _, kind, why)| Identity::new(kind, b"", None).unsupported(*why))
}

impl Identity {
    fn fits(self, size: u128, volume: u64) -> Self {
        match size {
            0 => self.unsupported("the superblock gives a size of 0"),
            size if size > u128::from(volume) => self.unsupported(format!(
                "the disk is truncated: the file system has {size} bytes, the volume it is on only {volume}"
            )),
            _ => self,
        }
    }
}

impl Head {
    /// `len` bytes at `offset`, or none at all where they are not all there.
    fn slice(&self, offset: usize, len: usize) -> &[u8] {
        offset.checked_add(len).and_then(|end| self.0.get(offset..end)).unwrap_or_default()
    }

    fn byte(&self, offset: usize) -> u8 {
        self.0.get(offset).copied().unwrap_or(0)
    }

    fn le16(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.byte(offset), self.byte(offset + 1)])
    }

    fn be16(&self, offset: usize) -> u16 {
        self.le16(offset).swap_bytes()
    }

    fn le32(&self, offset: usize) -> u32 {
        u32::from(self.le16(offset)) | u32::from(self.le16(offset + 2)) << 16
    }

    fn le32_high(&self, offset: usize) -> u64 {
        u64::from(self.le32(offset)) << 32
    }

    fn be32(&self, offset: usize) -> u32 {
        self.le32(offset).swap_bytes()
    }

    fn uuid(&self, offset: usize) -> Option<String> {
        let uuid = uuid::Uuid::from_slice(self.slice(offset, 16)).ok()?;
        (!uuid.is_nil()).then(|| uuid.to_string())
    }
}

/// A NUL- or blank-padded label; `None` where nothing printable is in it.
fn text(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.split(|&b| b == 0).next().unwrap_or_default();
    let text: String = String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).collect();
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}
