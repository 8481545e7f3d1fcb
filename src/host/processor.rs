//! The host's processor, as `/proc/cpuinfo` tells it.

use super::root::Root;

/// The first processor's paragraph is all that is looked at; it is about 1.5 KiB. The kernel makes the text as it is
/// read, so that less is quicker.
const CPUINFO_MAX: u64 = 8 << 10;

/// What is known of the processor. Where `/proc/cpuinfo` cannot be read, everything is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processor {
    /// The maker's name, for example `GenuineIntel`.
    pub vendor: String,
    /// The model's name.
    pub model: String,
    flags: Vec<String>,
}

impl Processor {
    /// Reads it.
    #[must_use]
    pub fn read(root: &Root) -> Self {
        Self::parse(&root.read("/proc/cpuinfo", CPUINFO_MAX).unwrap_or_default())
    }

    pub(super) fn parse(cpuinfo: &str) -> Self {
        let field = |name: &str| {
            let value = cpuinfo.lines().filter_map(|l| l.split_once(':')).find(|(key, _)| key.trim() == name);
            value.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        Self {
            vendor: field("vendor_id"),
            model: field("model name"),
            flags: field("flags").split_whitespace().map(str::to_owned).collect(),
        }
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag)
    }

    /// Intel's virtualization, usable: the kernel hides it where the firmware has locked it.
    #[must_use]
    pub fn vt_x(&self) -> bool {
        self.has("vmx")
    }

    /// AMD's virtualization, usable.
    #[must_use]
    pub fn svm(&self) -> bool {
        self.has("svm")
    }

    /// Whether the processor is a virtual machine's: this host is then a guest itself.
    #[must_use]
    pub fn is_virtual(&self) -> bool {
        self.has("hypervisor")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_count() {
        let cpu =
            Processor::parse("processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon: a\nflags\t\t: a vmx\n");
        assert_eq!((cpu.vendor.as_str(), cpu.model.as_str()), ("GenuineIntel", "Xeon: a"));
        assert!(cpu.vt_x() && !cpu.svm() && !cpu.is_virtual());
        let cpu = Processor::parse("flags\t\t: fpu vmxnet svm_lock hypervisor\n");
        assert!(!cpu.vt_x() && !cpu.svm() && cpu.is_virtual());
        assert_eq!(Processor::parse("\u{0}nonsense"), Processor::default());
    }
}
