//! The state a processor starts with.

use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;

use super::VcpuError;
use crate::vmm::machine::pv;

/// How the first processor starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// PVH: 32-bit, EBX points to the start info (Xen, "x86/HVM direct boot ABI").
    Pvh {
        /// Physical address of the first instruction.
        entry: u64,
        /// Physical address of the start info.
        start_info: u64,
    },
    /// The 64-bit Linux boot protocol: long mode, RSI points to the zero page.
    Linux64 {
        /// Physical address of the first instruction.
        entry: u64,
    },
    /// The 32-bit Linux boot protocol: paging off, ESI points to the zero page.
    Linux32 {
        /// Physical address of the first instruction.
        entry: u64,
    },
}

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 of RFLAGS is always set.
const RFLAGS: u64 = 2;

const MSR_IA32_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1;
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs on, all memory write-back.
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;

fn code_segment(long: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: 0x10,
        type_: 0xb,
        present: 1,
        s: 1,
        g: 1,
        l: u8::from(long),
        db: u8::from(!long),
        ..Default::default()
    }
}

fn data_segment() -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: 0x18,
        type_: 0x3,
        present: 1,
        s: 1,
        g: 1,
        db: 1,
        ..Default::default()
    }
}

fn task_segment() -> kvm_segment {
    kvm_segment { limit: 0x67, selector: 0x20, type_: 0xb, present: 1, ..Default::default() }
}

fn set_segments(sregs: &mut kvm_sregs, long: bool) {
    sregs.cs = code_segment(long);
    let data = data_segment();
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = task_segment();
    sregs.gdt.base = pv::BOOT_GDT;
    sregs.gdt.limit = 5 * 8 - 1;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
}

/// Sets the first processor to `entry`. The others wait for their start-up interrupt.
///
/// # Errors
/// [`VcpuError::Kvm`].
pub fn set_entry(vcpu: &VcpuFd, entry: Entry) -> Result<(), VcpuError> {
    let mut sregs = vcpu.get_sregs().map_err(VcpuError::kvm("read special registers"))?;
    let mut regs = kvm_regs { rflags: RFLAGS, rsp: pv::BOOT_STACK, rbp: pv::BOOT_STACK, ..Default::default() };
    sregs.cr0 = CR0_PE | CR0_ET;
    match entry {
        Entry::Pvh { entry, start_info } => {
            set_segments(&mut sregs, false);
            regs.rip = entry;
            regs.rbx = start_info;
        }
        Entry::Linux32 { entry } => {
            set_segments(&mut sregs, false);
            // The protocol wants these zero.
            (regs.rbp, regs.rdi, regs.rbx) = (0, 0, 0);
            regs.rip = entry;
            regs.rsi = pv::ZERO_PAGE;
        }
        Entry::Linux64 { entry } => {
            set_segments(&mut sregs, true);
            sregs.cr3 = pv::BOOT_PAGE_TABLES;
            sregs.cr4 |= CR4_PAE;
            sregs.cr0 |= CR0_PG;
            sregs.efer |= EFER_LME | EFER_LMA;
            regs.rip = entry;
            regs.rsi = pv::ZERO_PAGE;
        }
    }
    vcpu.set_sregs(&sregs).map_err(VcpuError::kvm("set special registers"))?;
    vcpu.set_regs(&regs).map_err(VcpuError::kvm("set registers"))
}

/// Model-specific registers that firmware would have set.
///
/// # Errors
/// [`VcpuError::Kvm`]; a register that this KVM does not have is passed over.
pub fn set_msrs(vcpu: &VcpuFd) -> Result<(), VcpuError> {
    for (index, data) in [(MSR_IA32_MISC_ENABLE, MISC_ENABLE_FAST_STRING), (MSR_MTRR_DEF_TYPE, MTRR_WRITE_BACK)] {
        let entry = kvm_msr_entry { index, data, ..Default::default() };
        let msrs = Msrs::from_entries(&[entry]).map_err(|_| VcpuError::Msr { index })?;
        // KVM says how many it has set; an unknown register is not needed either.
        vcpu.set_msrs(&msrs).map_err(VcpuError::kvm("set model-specific registers"))?;
    }
    Ok(())
}
