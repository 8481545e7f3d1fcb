//! What processors say of themselves: what this KVM can do, with the guest's own topology and clock.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use super::VcpuError;

const FEATURES: u32 = 1;
const CACHES: u32 = 4;
const TOPOLOGY: u32 = 0xb;
const TOPOLOGY_V2: u32 = 0x1f;
const KVM_SIGNATURE: u32 = 0x4000_0000;
const HYPERVISOR_TIMING: u32 = 0x4000_0010;
const AMD_SIZES: u32 = 0x8000_0008;
const AMD_TOPOLOGY: u32 = 0x8000_001e;

/// `CPUID.1:ECX`: the local APIC's timer takes a TSC deadline. KVM does it on every host, but lists it apart.
const ECX_TSC_DEADLINE: u32 = 1 << 24;
const ECX_HYPERVISOR: u32 = 1 << 31;
const EDX_HTT: u32 = 1 << 28;
/// The bus clock of KVM's local APIC, in kHz.
const APIC_BUS_KHZ: u32 = 1_000_000;

/// What the host offers, turned into what one guest's processors say.
#[derive(Debug, Clone)]
pub struct CpuidTemplate {
    supported: CpuId,
    cpus: u8,
    tsc_deadline: bool,
}

impl CpuidTemplate {
    /// `supported` is KVM's own list; `cpus` the number of processors (1 to 254).
    #[must_use]
    pub fn new(supported: CpuId, cpus: u8, tsc_deadline: bool) -> Self {
        Self { supported, cpus, tsc_deadline }
    }

    /// The leaves of processor `id`; `tsc_khz` is its time-stamp counter's frequency.
    ///
    /// # Errors
    /// [`VcpuError::Cpuid`] where there are more leaves than KVM takes.
    pub fn for_vcpu(&self, id: u8, tsc_khz: Option<u32>) -> Result<CpuId, VcpuError> {
        let (id, cpus) = (u32::from(id), u32::from(self.cpus));
        let mut leaves: Vec<kvm_cpuid_entry2> = self
            .supported
            .as_slice()
            .iter()
            .filter(|leaf| !matches!(leaf.function, TOPOLOGY | TOPOLOGY_V2 | HYPERVISOR_TIMING))
            .copied()
            .collect();
        let has_topology = self.supported.as_slice().iter().any(|l| l.function == TOPOLOGY);
        for leaf in &mut leaves {
            self.adapt(leaf, id, cpus, tsc_khz.is_some());
        }
        if has_topology {
            leaves.extend(topology(id, cpus));
        }
        if let Some(khz) = tsc_khz {
            leaves.push(kvm_cpuid_entry2 {
                function: HYPERVISOR_TIMING,
                eax: khz,
                ebx: APIC_BUS_KHZ,
                ..Default::default()
            });
        }
        CpuId::from_entries(&leaves).map_err(|_| VcpuError::Cpuid(leaves.len()))
    }

    fn adapt(&self, leaf: &mut kvm_cpuid_entry2, id: u32, cpus: u32, timing: bool) {
        match leaf.function {
            FEATURES => {
                leaf.ebx = (leaf.ebx & 0x0000_ffff) | (cpus << 16) | (id << 24);
                leaf.ecx |= ECX_HYPERVISOR;
                if self.tsc_deadline {
                    leaf.ecx |= ECX_TSC_DEADLINE;
                }
                leaf.edx = if cpus > 1 { leaf.edx | EDX_HTT } else { leaf.edx & !EDX_HTT };
            }
            // Every cache but the last level is a core's own; cores in the package, less one, in bits 26 to 31.
            CACHES if leaf.eax & 0x1f != 0 => {
                let shared = if (leaf.eax >> 5) & 7 >= 3 { cpus - 1 } else { 0 };
                leaf.eax = (leaf.eax & 0x3fff) | (shared << 14) | ((cpus - 1).min(63) << 26);
            }
            KVM_SIGNATURE if timing => leaf.eax = leaf.eax.max(HYPERVISOR_TIMING),
            AMD_SIZES => leaf.ecx = (leaf.ecx & !0xf0ff) | (cpus - 1) | (id_bits(cpus) << 12),
            // Every core a unit of its own, all in node 0.
            AMD_TOPOLOGY => (leaf.eax, leaf.ebx, leaf.ecx) = (id, id, 0),
            _ => {}
        }
    }
}

/// How many bits an APIC id takes.
fn id_bits(cpus: u32) -> u32 {
    cpus.next_power_of_two().trailing_zeros()
}

/// Leaf 0xb (Intel SDM, "Extended Topology Enumeration"): one thread a core, all cores in one package.
fn topology(id: u32, cpus: u32) -> [kvm_cpuid_entry2; 3] {
    const LEVEL_THREAD: u32 = 1 << 8;
    const LEVEL_CORE: u32 = 2 << 8;
    let leaf = |index, eax, ebx, level| kvm_cpuid_entry2 {
        function: TOPOLOGY,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax,
        ebx,
        ecx: index | level,
        edx: id,
        ..Default::default()
    };
    [leaf(0, 0, 1, LEVEL_THREAD), leaf(1, id_bits(cpus), cpus, LEVEL_CORE), leaf(2, 0, 0, 0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(cpuid: &CpuId, function: u32, index: u32) -> Option<kvm_cpuid_entry2> {
        cpuid.as_slice().iter().find(|l| l.function == function && l.index == index).copied()
    }

    fn template(cpus: u8) -> CpuidTemplate {
        let entry = |function, eax| kvm_cpuid_entry2 { function, eax, ..Default::default() };
        let list = [
            entry(0, 0x1f),
            entry(1, 0),
            entry(4, 0x21),
            entry(0xb, 0),
            entry(0x4000_0000, 0x4000_0001),
            entry(0x8000_0008, 48),
        ];
        CpuidTemplate::new(CpuId::from_entries(&list).unwrap(), cpus, true)
    }

    #[test]
    fn each_processor_has_its_own_id_and_all_agree_on_the_count() {
        for id in 0..4 {
            let cpuid = template(4).for_vcpu(id, Some(2_000_000)).unwrap();
            let features = leaf(&cpuid, 1, 0).unwrap();
            assert_eq!(features.ebx >> 24, u32::from(id));
            assert_eq!((features.ebx >> 16) & 0xff, 4);
            assert_ne!(features.edx & EDX_HTT, 0);
            let core = leaf(&cpuid, 0xb, 1).unwrap();
            assert_eq!((core.eax, core.ebx, core.edx), (2, 4, u32::from(id)));
        }
    }

    #[test]
    fn the_clock_is_told_in_the_timing_leaf() {
        let cpuid = template(1).for_vcpu(0, Some(2_400_000)).unwrap();
        assert_eq!(leaf(&cpuid, HYPERVISOR_TIMING, 0).unwrap().eax, 2_400_000);
        assert_eq!(leaf(&cpuid, KVM_SIGNATURE, 0).unwrap().eax, HYPERVISOR_TIMING);
        let none = template(1).for_vcpu(0, None).unwrap();
        assert!(leaf(&none, HYPERVISOR_TIMING, 0).is_none());
    }
}
