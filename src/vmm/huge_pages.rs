//! Large pages for guest memory.
//!
//! The host can back 2 MiB of a guest's memory by one page, and map it to the guest by one entry, if the guest's address and
//! the address in this process lie equally between two multiples of 2 MiB. Guest memory begins at such multiples, so its
//! mapping should, too; kernels before Linux 6.7 put a mapping wherever the gap ends.

use std::ptr;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::memory::GuestMemory;

/// Bytes of a large page (Intel SDM volume 3, section 4.5).
const HUGE_PAGE: usize = 2 << 20;

/// Keeps a piece of address space free of other mappings, so that the next one of a certain length begins at a large page.
/// Where another thread maps something at the same time, or the kernel looks elsewhere, it may not: that costs only speed.
pub struct Spacer {
    start: *mut std::ffi::c_void,
    len: usize,
}

impl Spacer {
    /// For a mapping of `len` bytes; nothing where that is less than a large page, or aligned anyway.
    pub fn before(len: usize) -> Option<Self> {
        if len < HUGE_PAGE {
            return None;
        }
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping wherever the kernel likes, which nothing refers to, and its end.
        let probe = unsafe {
            let probe = mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), flags).ok()?;
            munmap(probe, len).ok()?;
            probe
        };
        let excess = probe.addr() % HUGE_PAGE;
        if excess == 0 {
            return None;
        }
        let start = probe.wrapping_byte_add(len - excess);
        // SAFETY: a mapping that nothing refers to; what is there meanwhile is not replaced (MAP_FIXED_NOREPLACE).
        let start =
            unsafe { mmap_anonymous(start, excess, ProtFlags::empty(), flags | MapFlags::FIXED_NOREPLACE).ok()? };
        Some(Self { start, len: excess })
    }
}

impl Drop for Spacer {
    fn drop(&mut self) {
        // SAFETY: the mapping that `before` made, which nothing refers to.
        let _ = unsafe { munmap(self.start, self.len) };
    }
}

/// Asks for large pages behind what is touched of a guest's memory from now on. A host without them says no, which is no
/// error. To clear one takes as long as a processor's whole way to its first instruction: so this is for when what the
/// monitor itself writes is there.
pub fn advise(memory: &GuestMemory) {
    for region in memory.iter() {
        let len = usize::try_from(region.len()).unwrap_or(0);
        if len >= HUGE_PAGE {
            // SAFETY: the range is a mapping that `memory` owns; the advice does not change what is in it.
            let _ = unsafe { madvise(region.as_ptr().cast(), len, Advice::LinuxHugepage) };
        }
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::vmm::memory::allocate;

    #[test]
    fn guest_memory_begins_at_a_large_page() {
        // Another thread's mapping may come between, but not every time.
        let is_aligned = |_| {
            let memory = allocate(&[(GuestAddress(0), 16 * HUGE_PAGE)]).unwrap();
            memory.iter().all(|region| region.as_ptr().addr().is_multiple_of(HUGE_PAGE))
        };
        assert!((0..1000).any(is_aligned));
    }

    #[test]
    fn guest_memory_is_whole_however_it_is_aligned() {
        let memory = allocate(&[(GuestAddress(0), 3 * HUGE_PAGE), (GuestAddress(1 << 32), HUGE_PAGE + 4096)]).unwrap();
        for addr in [0, 3 * HUGE_PAGE as u64 - 8, 1 << 32, (1 << 32) + HUGE_PAGE as u64 + 4088] {
            memory.write_obj(addr, GuestAddress(addr)).unwrap();
            assert_eq!(memory.read_obj::<u64>(GuestAddress(addr)).unwrap(), addr);
        }
    }
}
