//! KVM's kernel modules: which are there, how they run guests, and what brings a missing one.

use std::fmt;

use serde::Serialize;

use crate::host::processor::Processor;
use crate::host::report::Mend;
use crate::host::root::Root;

/// How this host's KVM runs guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KvmKind {
    /// Intel's hardware virtualization.
    VtX,
    /// AMD's hardware virtualization.
    Svm,
    /// No hardware virtualization: guest kernel code is interpreted. Stock kernels do not run.
    Interpreting,
}

impl fmt::Display for KvmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VtX => "VT-x (Intel)",
            Self::Svm => "SVM (AMD)",
            Self::Interpreting => "interpreting (no hardware virtualization)",
        })
    }
}

/// What the kernel has of KVM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drivers {
    /// The modules in it, loaded or built in, for example `kvm_intel`.
    pub modules: Vec<String>,
    /// Whether guests may run guests of their own; nothing where the modules do not say.
    pub nested_guests: Option<bool>,
    /// Whether the kernel has registered the device, whatever this process sees of `/dev`.
    pub registered: bool,
}

const MODULES: [&str; 4] = ["kvm", "kvm_intel", "kvm_amd", "kvm_pvm"];

impl Drivers {
    /// Looks at sysfs.
    #[must_use]
    pub fn read(root: &Root) -> Self {
        let there = |module: &&str| root.has(format!("/sys/module/{module}"));
        let nested = |module| root.line(format!("/sys/module/{module}/parameters/nested"));
        Self {
            modules: MODULES.iter().filter(|m| there(m)).map(ToString::to_string).collect(),
            nested_guests: nested("kvm_intel").or_else(|| nested("kvm_amd")).map(|v| v == "Y" || v == "1"),
            registered: root.has("/sys/class/misc/kvm"),
        }
    }

    fn has(&self, module: &str) -> bool {
        self.modules.iter().any(|m| m == module)
    }

    /// How guests run, by the processor and the module that drives it.
    #[must_use]
    pub fn kind(&self, processor: &Processor) -> KvmKind {
        if self.has("kvm_pvm") && !self.has("kvm_intel") && !self.has("kvm_amd") {
            return KvmKind::Interpreting;
        }
        match (processor.vt_x(), processor.svm()) {
            (true, _) => KvmKind::VtX,
            (_, true) => KvmKind::Svm,
            // Without either there is nothing else it could be.
            _ => KvmKind::Interpreting,
        }
    }

    /// What brings the device, where there is none or nothing answers behind it.
    #[must_use]
    pub fn mend_missing(&self, processor: &Processor) -> Mend {
        if self.registered {
            // Seen in containers: the kernel has it, this file system does not.
            return Mend::run_then(
                "The kernel has KVM but this file system has no device for it: start a container with `--device \
                 /dev/kvm`, or make it",
                "sudo mknod -m 660 /dev/kvm c 10 232",
                "",
            );
        }
        match (processor.vt_x(), processor.svm()) {
            (true, _) => Mend::run("Load the module", "sudo modprobe kvm_intel"),
            (_, true) => Mend::run("Load the module", "sudo modprobe kvm_amd"),
            _ => mend_hardware(processor),
        }
    }
}

/// What brings hardware virtualization to a processor that shows none.
#[must_use]
pub fn mend_hardware(processor: &Processor) -> Mend {
    let how = if processor.is_virtual() {
        "This host is a virtual machine: switch nested virtualization on in the host that runs it (`options kvm_intel \
         nested=1` or `kvm_amd` in its /etc/modprobe.d, and its processor passed through to this one), or run on bare \
         metal"
    } else {
        "Switch virtualization (VT-x, or SVM) on in this machine's firmware set-up"
    };
    Mend::tell(format!(
        "{how}; without it, the project's test machine runs amiboot in an emulated host (`tools/testbed`)."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processor(flags: &str) -> Processor {
        Processor::parse(&format!("flags : {flags}\n"))
    }

    fn drivers(modules: &[&str]) -> Drivers {
        Drivers { modules: modules.iter().map(ToString::to_string).collect(), ..Drivers::default() }
    }

    #[test]
    fn the_kind_is_told_from_the_flags_and_the_module() {
        assert_eq!(drivers(&["kvm", "kvm_intel"]).kind(&processor("vmx")), KvmKind::VtX);
        assert_eq!(drivers(&[]).kind(&processor("svm")), KvmKind::Svm);
        assert_eq!(drivers(&["kvm"]).kind(&processor("sse")), KvmKind::Interpreting);
        assert_eq!(drivers(&["kvm", "kvm_pvm"]).kind(&processor("vmx")), KvmKind::Interpreting);
        assert_eq!(drivers(&["kvm", "kvm_pvm", "kvm_amd"]).kind(&processor("svm")), KvmKind::Svm);
    }

    #[test]
    fn sysfs_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        assert_eq!(Drivers::read(&root), Drivers::default());
        std::fs::create_dir_all(dir.path().join("sys/module/kvm")).unwrap();
        std::fs::create_dir_all(dir.path().join("sys/module/kvm_amd/parameters")).unwrap();
        std::fs::create_dir_all(dir.path().join("sys/class/misc/kvm")).unwrap();
        std::fs::write(dir.path().join("sys/module/kvm_amd/parameters/nested"), "1\n").unwrap();
        let found = Drivers::read(&root);
        assert_eq!(found.modules, ["kvm", "kvm_amd"]);
        assert_eq!((found.nested_guests, found.registered), (Some(true), true));
    }

    #[test]
    fn each_host_without_a_device_has_its_own_mend() {
        let mend = |flags| Drivers::default().mend_missing(&processor(flags)).to_string();
        assert!(mend("vmx").contains("`sudo modprobe kvm_intel`"));
        assert!(mend("svm hypervisor").contains("`sudo modprobe kvm_amd`"));
        assert!(mend("sse hypervisor").contains("nested=1"));
        assert!(mend("sse").contains("firmware set-up") && mend("sse").contains("tools/testbed"));
        let container = Drivers { registered: true, ..drivers(&["kvm", "kvm_intel"]) };
        assert!(container.mend_missing(&processor("vmx")).text.contains("mknod -m 660 /dev/kvm c 10 232"));
    }
}
