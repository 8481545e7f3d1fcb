//! The 32-bit and 64-bit Linux boot protocols: descriptors and page tables (Linux, `Documentation/arch/x86/boot.rst`).

use vm_memory::{Bytes, GuestAddress};

use super::BootError;
use crate::vmm::machine::pv;
use crate::vmm::memory::GuestMemory;

/// Flat 64-bit code: present, execute and read, long mode.
pub(super) const CODE_64: u64 = 0x00af_9b00_0000_ffff;
/// Flat 32-bit code: present, execute and read, 4 GiB.
pub(super) const CODE_32: u64 = 0x00cf_9b00_0000_ffff;
/// Flat data: present, read and write, 4 GiB.
const DATA: u64 = 0x00cf_9300_0000_ffff;
/// A busy 32-bit task state segment of 0x67 bytes at zero: processors want one.
const TASK: u64 = 0x0000_8b00_0000_0067;

/// Writes the descriptor table: null, null, code (selector 0x10), data (0x18), task (0x20).
pub(super) fn write_gdt(memory: &GuestMemory, code: u64) -> Result<(), BootError> {
    for (index, descriptor) in [0, 0, code, DATA, TASK].into_iter().enumerate() {
        memory.write_obj(descriptor, GuestAddress(pv::BOOT_GDT + 8 * index as u64))?;
    }
    Ok(())
}

/// Descriptors, and page tables that map the first 4 GiB one to one with pages of 2 MiB.
pub(super) fn set_up_64(memory: &GuestMemory) -> Result<(), BootError> {
    const PRESENT_WRITABLE: u64 = 0x3;
    const LARGE: u64 = 0x80;
    write_gdt(memory, CODE_64)?;
    let level_3 = pv::BOOT_PAGE_TABLES + 0x1000;
    memory.write_obj(level_3 | PRESENT_WRITABLE, GuestAddress(pv::BOOT_PAGE_TABLES))?;
    for gib in 0..4u64 {
        let level_2 = level_3 + 0x1000 * (gib + 1);
        memory.write_obj(level_2 | PRESENT_WRITABLE, GuestAddress(level_3 + 8 * gib))?;
        for page in 0..512u64 {
            let addr = (gib << 30) | (page << 21);
            memory.write_obj(addr | PRESENT_WRITABLE | LARGE, GuestAddress(level_2 + 8 * page))?;
        }
    }
    Ok(())
}

/// Descriptors for a 32-bit entry.
pub(super) fn set_up_32(memory: &GuestMemory) -> Result<(), BootError> {
    write_gdt(memory, CODE_32)
}
