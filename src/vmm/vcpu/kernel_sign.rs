//! The sign of life that a kernel gives before any console of it works: it takes KVM's clock.
//!
//! A kernel writes the address of its clock page to a model-specific register (KVM, "KVM-specific MSRs",
//! `MSR_KVM_SYSTEM_TIME_NEW`) early in its start, however quiet it is. KVM leaves that one write to the monitor, which
//! records the instant and hands the value back to KVM. SeaBIOS takes the clock too, without paging, which no kernel does.

use std::sync::Arc;

use kvm_bindings::{Msrs, kvm_enable_cap, kvm_msr_entry};
use kvm_ioctls::{Cap, Kvm, MsrExitReason, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VcpuFd, VmFd};

use crate::vmm::timeline::{Mark, Timeline};

/// `MSR_KVM_SYSTEM_TIME_NEW`.
const SYSTEM_TIME: u32 = 0x4b56_4d01;
/// Paging, in CR0.
const PAGING: u64 = 1 << 31;

/// Asks KVM to leave that register's writes to the monitor. A KVM that cannot is no worse for it: the kernel is then seen
/// when it writes to the console.
pub fn watch(kvm: &Kvm, vm: &VmFd) {
    if !kvm.check_extension(Cap::X86UserSpaceMsr) || !kvm.check_extension(Cap::X86MsrFilter) {
        return;
    }
    let mut capability = kvm_enable_cap { cap: Cap::X86UserSpaceMsr as u32, ..Default::default() };
    capability.args[0] = MsrExitReason::Filter.bits().into();
    // KVM reads a whole word of it; a zero is a write that it does not do itself.
    let bitmap = [0; 8];
    let range = MsrFilterRange { flags: MsrFilterRangeFlags::WRITE, base: SYSTEM_TIME, msr_count: 1, bitmap: &bitmap };
    // Without the first, the second would have the guest fault.
    if vm.enable_cap(&capability).is_ok() {
        let _ = vm.set_msr_filter(MsrFilterDefaultAction::ALLOW, &[range]);
    }
}

/// Does a write that KVM left to the monitor. False where the guest is to fault, as it would have without the watch.
pub fn write(vcpu: &VcpuFd, index: u32, data: u64, timeline: &Arc<Timeline>) -> bool {
    if index != SYSTEM_TIME {
        return false;
    }
    if vcpu.get_sregs().is_ok_and(|registers| registers.cr0 & PAGING != 0) {
        timeline.mark(Mark::KernelStarted);
    }
    let entry = kvm_msr_entry { index, data, ..Default::default() };
    Msrs::from_entries(&[entry]).is_ok_and(|msrs| vcpu.set_msrs(&msrs).is_ok_and(|written| written == 1))
}
