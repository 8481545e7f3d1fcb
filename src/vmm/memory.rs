//! Guest memory: how much, where, and files mapped into it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use vm_memory::{
    Address, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MmapRegion,
};

use super::huge_pages;

/// Guest memory: regions of anonymous memory, shared by handle. Reached only through its checked accessors.
pub type GuestMemory = GuestMemoryMmap<()>;

/// The unit in which memory is mapped, in bytes.
pub const PAGE_SIZE: u64 = 4096;

/// Why guest memory could not be had or used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Mapping anonymous memory failed.
    #[error("cannot map {size} bytes of guest memory: {cause}")]
    Allocate {
        /// Bytes asked for.
        size: u64,
        /// What the host said.
        cause: String,
    },
    /// A file could not be mapped over guest memory.
    #[error("cannot map a file into guest memory at {addr:#x}: {cause}")]
    MapFile {
        /// Guest address.
        addr: u64,
        /// What the host said.
        cause: io::Error,
    },
    /// A range that is not in guest memory.
    #[error("the guest has no memory at {addr:#x}+{len:#x}")]
    OutOfRange {
        /// Guest address.
        addr: u64,
        /// Length in bytes.
        len: u64,
    },
    /// An access to guest memory failed.
    #[error("guest memory: {0}")]
    Access(#[from] GuestMemoryError),
}

/// Maps the given ranges of guest addresses to fresh anonymous memory, which costs nothing until it is touched.
///
/// # Errors
/// [`MemoryError::Allocate`] where the host has no address space for it.
pub fn allocate(ranges: &[(GuestAddress, usize)]) -> Result<GuestMemory, MemoryError> {
    let fail = |cause: String| {
        let size = ranges.iter().map(|(_, len)| *len as u64).sum();
        MemoryError::Allocate { size, cause }
    };
    let region = |&(base, len): &(GuestAddress, usize)| {
        let _spacer = huge_pages::Spacer::before(len);
        let mapping = MmapRegion::new(len).map_err(|e| fail(e.to_string()))?;
        GuestRegionMmap::new(mapping, base).ok_or_else(|| fail("it wraps around".into()))
    };
    let regions = ranges.iter().map(region).collect::<Result<Vec<_>, MemoryError>>()?;
    GuestMemory::from_regions(regions).map_err(|e| fail(e.to_string()))
}

/// The host address of `len` bytes of guest memory at `addr`, all in one region.
fn host_range(memory: &GuestMemory, addr: u64, len: u64) -> Result<*mut u8, MemoryError> {
    let out_of_range = MemoryError::OutOfRange { addr, len };
    let region = memory.find_region(GuestAddress(addr)).ok_or(MemoryError::OutOfRange { addr, len })?;
    let left = region.len() - (addr - region.start_addr().raw_value());
    if len > left {
        return Err(out_of_range);
    }
    Ok(memory.get_host_address(GuestAddress(addr))?)
}

/// Maps `len` bytes of `file` from `offset` over guest memory at `addr`, copy on write: the pages come out of the page
/// cache when the guest touches them, and what the guest writes stays its own.
///
/// `addr`, `offset` and `len` are multiples of [`PAGE_SIZE`]. The file must keep its length while the guest runs.
///
/// # Errors
/// [`MemoryError`] for a range that is not guest memory, not aligned, or not in the file, and for what the host says.
pub fn map_file(memory: &GuestMemory, addr: u64, file: &File, offset: u64, len: u64) -> Result<(), MemoryError> {
    let fail = |cause| MemoryError::MapFile { addr, cause };
    if len == 0 {
        return Ok(());
    }
    if !(addr | offset | len).is_multiple_of(PAGE_SIZE) {
        return Err(fail(io::Error::new(io::ErrorKind::InvalidInput, "not aligned to a page")));
    }
    let host = host_range(memory, addr, len)?;
    let end = offset.checked_add(len).ok_or_else(|| fail(io::Error::from(io::ErrorKind::InvalidInput)))?;
    let size = file.metadata().map_err(fail)?.len().next_multiple_of(PAGE_SIZE);
    if end > size {
        return Err(fail(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than the mapping")));
    }
    let (len, offset) = usize::try_from(len)
        .ok()
        .zip(libc::off_t::try_from(offset).ok())
        .ok_or_else(|| fail(io::Error::from(io::ErrorKind::InvalidInput)))?;
    // SAFETY: `host..host + len` was checked to lie inside one mapping that `memory` owns, so MAP_FIXED replaces only
    // pages of guest memory, which all code reaches by volatile access; the new mapping has the same protection and is
    // unmapped together with the region by its munmap.
    let mapped = unsafe {
        libc::mmap(
            host.cast(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
            file.as_raw_fd(),
            offset,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(fail(io::Error::last_os_error()));
    }
    Ok(())
}

/// Gives freed heap back to the host: looking through an image takes some that the monitor does not need again.
pub fn release_unused_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointers and may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Resident memory of this process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Resident {
    /// Pages of guest memory that are in the host's memory.
    pub guest_bytes: u64,
    /// All other pages of the monitor: code, heap, stacks, libraries.
    pub monitor_bytes: u64,
}

/// Where guest memory lies in this process.
#[derive(Debug, Clone)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Of this memory.
    #[must_use]
    pub fn of(memory: &GuestMemory) -> Self {
        Self(memory.iter().map(|r| (r.as_ptr() as u64, r.as_ptr() as u64 + r.len())).collect())
    }

    /// Adds up what is resident inside and outside guest memory, from `/proc/self/smaps`.
    ///
    /// # Errors
    /// What reading `/proc` says.
    pub fn resident(&self) -> io::Result<Resident> {
        Ok(add_up_smaps(&std::fs::read_to_string("/proc/self/smaps")?, &self.0))
    }
}

fn add_up_smaps(smaps: &str, guest: &[(u64, u64)]) -> Resident {
    let mut sum = Resident::default();
    let mut in_guest = false;
    for line in smaps.lines() {
        if let Some(kib) = line.strip_prefix("Rss:") {
            let kib: u64 = kib.trim().trim_end_matches(" kB").parse().unwrap_or(0);
            *(if in_guest { &mut sum.guest_bytes } else { &mut sum.monitor_bytes }) += kib * 1024;
        } else if let Some((start, _)) = line.split_once('-')
            && let Ok(start) = u64::from_str_radix(start, 16)
        {
            in_guest = guest.iter().any(|(from, to)| (*from..*to).contains(&start));
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use vm_memory::Bytes;

    use super::*;

    fn two_regions() -> GuestMemory {
        allocate(&[(GuestAddress(0), 0x10000), (GuestAddress(0x10_0000), 0x10000)]).unwrap()
    }

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_mapped_file_is_seen_and_what_the_guest_writes_does_not_reach_it() {
        let memory = two_regions();
        let file = file_of(&[7; 8192]);
        map_file(&memory, 0x10_1000, &file, 4096, 4096).unwrap();
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0x10_1fff)).unwrap(), 7);
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0x10_2000)).unwrap(), 0);
        memory.write_obj(9u8, GuestAddress(0x10_1000)).unwrap();
        let mut byte = [0];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, 4096).unwrap();
        assert_eq!(byte, [7]);
    }

    #[test]
    fn mappings_outside_guest_memory_or_the_file_are_refused() {
        let memory = two_regions();
        let file = file_of(&[7; 8192]);
        for (addr, offset, len) in [
            (0x10000, 0, 4096),              // in the hole
            (0xf000, 0, 8192),               // leaves its region
            (u64::MAX - 4095, 0, 4096),      // nowhere
            (0x1000, 8192, 4096),            // beyond the file
            (0x1000, 0, 12288),              // more than the file
            (0x1001, 0, 4096),               // not aligned
            (0x1000, 512, 4096),             // not aligned
            (0x1000, u64::MAX - 4095, 4096), // wraps
        ] {
            assert!(map_file(&memory, addr, &file, offset, len).is_err(), "{addr:#x} {offset:#x} {len:#x}");
        }
    }

    #[test]
    fn smaps_are_split_by_range() {
        let smaps = "1000-3000 rw-p 0 00:00 0\nSize: 8 kB\nRss:   8 kB\n5000-6000 r--p 0 0:0 0 /x-y\nRss: 4 kB\n";
        assert_eq!(add_up_smaps(smaps, &[(0x1000, 0x3000)]), Resident { guest_bytes: 8192, monitor_bytes: 4096 });
    }
}
