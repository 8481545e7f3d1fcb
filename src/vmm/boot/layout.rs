//! Kernel, initrd and command line: where in guest memory, mapped or copied.

use std::fs::File;
use std::os::unix::fs::FileExt;

use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::{BzImage, KernelLoader};
use serde::{Deserialize, Serialize};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend};

use super::{BootError, InitrdRange};
use crate::vmm::machine::pv;
use crate::vmm::memory::{self, GuestMemory, PAGE_SIZE};

/// An initrd of a 32-bit kernel must lie in its low memory (Linux boot protocol, `initrd_addr_max`).
const INITRD_MAX_32: u64 = 0x37ff_ffff;

/// One loadable part of an ELF kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Where it is in the file, in bytes.
    pub file_offset: u64,
    /// How much of it is in the file, in bytes.
    pub file_size: u64,
    /// Guest physical address.
    pub addr: u64,
    /// Its size in memory, in bytes; what is not in the file is zero.
    pub memory_size: u64,
}

/// What is in a kernel's file. Data of the file's author: everything is checked against the guest's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "kebab-case")]
pub enum KernelImage {
    /// An ELF kernel (`vmlinux`).
    Elf {
        /// 64-bit or 32-bit.
        is_64_bit: bool,
        /// What to load.
        segments: Vec<Segment>,
        /// Physical address of the kernel's own entry.
        entry: u64,
        /// Physical address of the PVH entry, where the kernel has one.
        pvh_entry: Option<u32>,
    },
    /// A bzImage that is to unpack itself.
    BzImage {
        /// 64-bit or 32-bit.
        is_64_bit: bool,
    },
}

pub(super) enum LoadedEntry {
    Pvh(u32),
    Linux64(u64),
    Linux32(u64),
}

pub(super) struct LoadedKernel {
    pub(super) entry: LoadedEntry,
    /// First address after the kernel and all that it uses before it looks at its memory map.
    pub(super) end: u64,
    /// The last address an initrd may have.
    pub(super) initrd_max: u64,
    pub(super) setup_header: Option<setup_header>,
}

pub(super) fn load_kernel(
    memory: &GuestMemory,
    memory_size: u64,
    file: &File,
    image: &KernelImage,
) -> Result<LoadedKernel, BootError> {
    match image {
        KernelImage::Elf { is_64_bit, segments, entry, pvh_entry } => {
            let end = load_segments(memory, memory_size, file, segments)?;
            let entry = match (pvh_entry, is_64_bit) {
                (Some(pvh), _) => LoadedEntry::Pvh(*pvh),
                (None, true) => LoadedEntry::Linux64(*entry),
                (None, false) => LoadedEntry::Linux32(*entry),
            };
            let initrd_max = if *is_64_bit { u64::from(u32::MAX) } else { INITRD_MAX_32 };
            Ok(LoadedKernel { entry, end, initrd_max, setup_header: None })
        }
        KernelImage::BzImage { is_64_bit } => load_bzimage(memory, memory_size, file, *is_64_bit),
    }
}

fn low_memory_end(memory_size: u64) -> u64 {
    memory_size.min(pv::MMIO_GAP_START)
}

/// Loads the segments and gives the first address after the last.
fn load_segments(memory: &GuestMemory, memory_size: u64, file: &File, segments: &[Segment]) -> Result<u64, BootError> {
    let memory_end = low_memory_end(memory_size);
    let mut end = 0;
    for segment in segments {
        let segment_end = segment
            .addr
            .checked_add(segment.memory_size)
            .ok_or_else(|| BootError::BadKernel("a segment wraps".into()))?;
        if segment.file_size > segment.memory_size {
            return Err(BootError::BadKernel(format!(
                "the segment at {:#x} has {} bytes in the file and only {} in memory",
                segment.addr, segment.file_size, segment.memory_size
            )));
        }
        if segment.addr < pv::HIGH_MEMORY {
            return Err(BootError::KernelTooLow { start: segment.addr });
        }
        if segment_end > memory_end {
            return Err(BootError::KernelTooLarge { start: segment.addr, end: segment_end, memory_end });
        }
        load_segment(memory, file, segment)?;
        end = end.max(segment_end);
    }
    if end == 0 {
        return Err(BootError::BadKernel("no loadable segment".into()));
    }
    Ok(end)
}

/// Maps the whole pages of a segment and copies the rest. What is not in the file is zero already, since guest memory
/// is fresh.
fn load_segment(memory: &GuestMemory, file: &File, segment: &Segment) -> Result<(), BootError> {
    let aligned = (segment.addr | segment.file_offset).is_multiple_of(PAGE_SIZE);
    let mapped = if aligned { segment.file_size - segment.file_size % PAGE_SIZE } else { 0 };
    memory::map_file(memory, segment.addr, file, segment.file_offset, mapped)?;
    let offset =
        segment.file_offset.checked_add(mapped).ok_or_else(|| BootError::BadKernel("a segment wraps".into()))?;
    copy_file(memory, segment.addr + mapped, file, offset, segment.file_size - mapped, "kernel")
}

fn copy_file(
    memory: &GuestMemory,
    addr: u64,
    file: &File,
    offset: u64,
    len: u64,
    what: &'static str,
) -> Result<(), BootError> {
    const CHUNK: usize = 64 << 10;
    let mut buf = vec![0; usize::try_from(len).unwrap_or(CHUNK).min(CHUNK)];
    let mut done = 0;
    while done < len {
        let chunk = usize::try_from(len - done).unwrap_or(usize::MAX).min(buf.len());
        file.read_exact_at(&mut buf[..chunk], offset + done).map_err(|cause| BootError::Read { what, cause })?;
        memory.write_slice(&buf[..chunk], GuestAddress(addr + done))?;
        done += chunk as u64;
    }
    Ok(())
}

/// Loads a bzImage as it is: the kernel unpacks itself, by its own 64-bit or 32-bit entry.
fn load_bzimage(
    memory: &GuestMemory,
    memory_size: u64,
    file: &File,
    is_64_bit: bool,
) -> Result<LoadedKernel, BootError> {
    let memory_end = low_memory_end(memory_size);
    let mut handle = file.try_clone().map_err(|cause| BootError::Read { what: "kernel", cause })?;
    let size = file.metadata().map_err(|cause| BootError::Read { what: "kernel", cause })?.len();
    let limit = pv::HIGH_MEMORY + size;
    if limit > memory_end {
        return Err(BootError::KernelTooLarge { start: pv::HIGH_MEMORY, end: limit, memory_end });
    }
    let loaded =
        BzImage::load(memory, Some(GuestAddress(pv::HIGH_MEMORY)), &mut handle, Some(GuestAddress(pv::HIGH_MEMORY)))
            .map_err(|e| BootError::BadKernel(e.to_string()))?;
    let header = loaded.setup_header.ok_or_else(|| BootError::BadKernel("no setup header".into()))?;
    let header = without_later_fields(header);
    let load = loaded.kernel_load.raw_value();
    // Unpacking happens at the preferred address where the kernel is loaded below it, and takes init_size from there.
    let preferred = header.pref_address;
    let alignment = u64::from(header.kernel_alignment).max(1);
    let aligned = load.checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
    let work = aligned.max(preferred);
    let init_size = u64::from(header.init_size);
    let end = work
        .checked_add(init_size)
        .ok_or_else(|| BootError::BadKernel("pref_address and init_size wrap".into()))?
        .max(loaded.kernel_end);
    if end > memory_end {
        return Err(BootError::KernelTooLarge { start: load, end, memory_end });
    }
    // The 64-bit entry is 0x200 bytes into the protected-mode kernel (Linux boot protocol, "64-bit boot protocol").
    let entry = if is_64_bit { LoadedEntry::Linux64(load + 0x200) } else { LoadedEntry::Linux32(load) };
    let initrd_max = match header.initrd_addr_max {
        0 => INITRD_MAX_32,
        max => u64::from(max),
    };
    Ok(LoadedKernel { entry, end, initrd_max, setup_header: Some(header) })
}

/// A header as its version defines it (Linux boot protocol, "Details of Header Fields"): what the protocol got later is
/// set-up code in an older kernel's file, and here zero.
fn without_later_fields(header: setup_header) -> setup_header {
    let mut known = header;
    let version = header.version;
    if version < 0x0203 {
        known.initrd_addr_max = 0;
    }
    if version < 0x0205 {
        (known.kernel_alignment, known.relocatable_kernel) = (0, 0);
    }
    if version < 0x0206 {
        known.cmdline_size = 0;
    }
    if version < 0x0207 {
        (known.hardware_subarch, known.hardware_subarch_data) = (0, 0);
    }
    if version < 0x0208 {
        (known.payload_offset, known.payload_length) = (0, 0);
    }
    if version < 0x020a {
        (known.pref_address, known.init_size) = (0, 0);
    }
    if version < 0x020c {
        known.xloadflags = 0;
    }
    // Boot loaders own these: nothing that a file says in them is true here.
    (known.ramdisk_image, known.ramdisk_size, known.setup_data) = (0, 0, 0);
    known
}

/// Puts the initrd as high as it may go, so that it is out of the way of the kernel.
pub(super) fn load_initrd(
    memory: &GuestMemory,
    memory_size: u64,
    file: &File,
    kernel_end: u64,
    initrd_max: u64,
) -> Result<InitrdRange, BootError> {
    let len = file.metadata().map_err(|cause| BootError::Read { what: "initrd", cause })?.len();
    let end = low_memory_end(memory_size).min(initrd_max.saturating_add(1));
    let kernel_end = kernel_end.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX);
    let room = end.saturating_sub(kernel_end);
    let pages = len.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX);
    let addr = match end.checked_sub(pages) {
        Some(addr) if pages <= room => addr - addr % PAGE_SIZE,
        _ => return Err(BootError::InitrdTooLarge { size: len, room }),
    };
    let mapped = len - len % PAGE_SIZE;
    memory::map_file(memory, addr, file, 0, mapped)?;
    copy_file(memory, addr + mapped, file, mapped, len - mapped, "initrd")?;
    Ok(InitrdRange { addr, len })
}

/// Writes the command line with its final NUL.
pub(super) fn write_cmdline(memory: &GuestMemory, cmdline: &str, limit: u32) -> Result<(), BootError> {
    let len = cmdline.len();
    if len > limit as usize || len as u64 >= pv::COMMAND_LINE_MAX {
        return Err(BootError::CommandLineTooLong { len, limit: limit.min(0xffff) });
    }
    if let Some(bad) = cmdline.bytes().find(|b| matches!(b, 0 | b'\n')) {
        return Err(BootError::BadCommandLine(format!("it holds a byte {bad:#04x}")));
    }
    memory.write_slice(cmdline.as_bytes(), GuestAddress(pv::COMMAND_LINE))?;
    memory.write_obj(0u8, GuestAddress(pv::COMMAND_LINE + len as u64))?;
    debug_assert!(memory.address_in_range(GuestAddress(pv::COMMAND_LINE)));
    Ok(())
}
