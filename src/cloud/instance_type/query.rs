//! Listings of instance types, and what they can be looked for by: EC2's filters of DescribeInstanceTypes.

use std::borrow::Cow;

use super::{InstanceType, TYPES};
use crate::cloud::error::CloudError;
use crate::cloud::filter::values::{one, shown, truth};
use crate::cloud::filter::{Filter, Filtered, Filters};
use crate::cloud::tag::{NO_TAGS, Tags};

/// Instance types that pass `filters` ("DescribeInstanceTypes"): of all, or of those of `names`, each of which has to be there.
///
/// # Errors
/// `InvalidInstanceType`; what [`Filters::parse`] says.
pub fn describe(names: &[String], filters: &[Filter]) -> Result<Vec<&'static InstanceType>, CloudError> {
    let filters = Filters::parse::<InstanceType>(filters)?;
    if let Some(name) = names.iter().find(|name| !TYPES.iter().any(|kind| kind.name == **name)) {
        let message = format!("The following supplied instance types do not exist: [{name}]");
        return Err(CloudError::Parameter { code: "InvalidInstanceType", message });
    }
    let is_asked_for = |kind: &InstanceType| names.is_empty() || names.iter().any(|name| name == kind.name);
    Ok(TYPES.iter().filter(|kind| is_asked_for(kind) && filters.pass(*kind)).collect())
}

impl InstanceType {
    /// `nitro` or `xen`.
    #[must_use]
    pub fn hypervisor(&self) -> &'static str {
        if self.nitro { "nitro" } else { "xen" }
    }

    /// Whether it is of a generation that EC2 still recommends.
    #[must_use]
    pub fn is_current_generation(&self) -> bool {
        self.nitro || self.name.starts_with("t2.") || ["m4.", "c4.", "r4."].iter().any(|old| self.name.starts_with(old))
    }

    /// Whether its processor time is in credits.
    #[must_use]
    pub fn is_burstable(&self) -> bool {
        self.name.starts_with('t')
    }

    /// Whether it is in EC2's free tier.
    #[must_use]
    pub fn is_free_tier(&self) -> bool {
        matches!(self.name, "t2.micro" | "t3.micro")
    }

    /// Processors that guests may be for ("supportedArchitectures").
    #[must_use]
    pub fn architectures(&self) -> &'static [&'static str] {
        if self.nitro { &["x86_64"] } else { &["i386", "x86_64"] }
    }

    /// Ways of starting guests ("supportedVirtualizationTypes").
    #[must_use]
    pub fn virtualization_types(&self) -> &'static [&'static str] {
        match self.name.split('.').next() {
            Some("t1" | "m1" | "c1") => &["paravirtual"],
            _ if self.paravirtual => &["hvm", "paravirtual"],
            _ => &["hvm"],
        }
    }

    /// Kinds of root volumes ("supportedRootDeviceTypes").
    #[must_use]
    pub fn root_device_types(&self) -> &'static [&'static str] {
        if self.disks > 0 && !self.nitro { &["ebs", "instance-store"] } else { &["ebs"] }
    }

    /// How guests may be started ("supportedBootModes").
    #[must_use]
    pub fn boot_modes(&self) -> &'static [&'static str] {
        if self.nitro { &["legacy-bios", "uefi"] } else { &["legacy-bios"] }
    }

    /// GB of all its instance-store disks.
    #[must_use]
    pub fn storage_gb(&self) -> u64 {
        self.disk_gb.saturating_mul(self.disks.into())
    }
}

impl Filtered for InstanceType {
    const FILTERS: &'static [&'static str] = &[
        "auto-recovery-supported",
        "bare-metal",
        "burstable-performance-supported",
        "current-generation",
        "dedicated-hosts-supported",
        "ebs-info.ebs-optimized-support",
        "ebs-info.encryption-support",
        "ebs-info.nvme-support",
        "free-tier-eligible",
        "hibernation-supported",
        "hypervisor",
        "instance-storage-info.disk.count",
        "instance-storage-info.disk.size-in-gb",
        "instance-storage-info.nvme-support",
        "instance-storage-info.total-size-in-gb",
        "instance-storage-supported",
        "instance-type",
        "memory-info.size-in-mib",
        "network-info.ena-support",
        "network-info.ipv6-supported",
        "network-info.maximum-network-interfaces",
        "processor-info.supported-architecture",
        "supported-boot-mode",
        "supported-root-device-type",
        "supported-usage-class",
        "supported-virtualization-type",
        "vcpu-info.default-vcpus",
        // Those that no type has anything for here.
        "ebs-info.attachment-limit-type",
        "ebs-info.ebs-optimized-info.baseline-bandwidth-in-mbps",
        "ebs-info.ebs-optimized-info.baseline-iops",
        "ebs-info.ebs-optimized-info.baseline-throughput-in-mbps",
        "ebs-info.ebs-optimized-info.maximum-bandwidth-in-mbps",
        "ebs-info.ebs-optimized-info.maximum-iops",
        "ebs-info.ebs-optimized-info.maximum-throughput-in-mbps",
        "ebs-info.maximum-ebs-attachments",
        "ebs-info.maximum-ebs-cards",
        "instance-storage-info.disk.type",
        "instance-storage-info.encryption-support",
        "network-info.bandwidth-weightings",
        "network-info.efa-info.maximum-efa-interfaces",
        "network-info.efa-supported",
        "network-info.encryption-in-transit-supported",
        "network-info.flexible-ena-queues-support",
        "network-info.ipv4-addresses-per-interface",
        "network-info.ipv6-addresses-per-interface",
        "network-info.maximum-network-cards",
        "network-info.network-performance",
        "nitro-enclaves-support",
        "nitro-tpm-info.supported-versions",
        "nitro-tpm-support",
        "processor-info.supported-features",
        "processor-info.sustained-clock-speed-in-ghz",
        "reboot-migration-support",
        "vcpu-info.default-cores",
        "vcpu-info.default-threads-per-core",
        "vcpu-info.valid-cores",
        "vcpu-info.valid-threads-per-core",
    ];

    fn values(&self, filter: &str) -> Vec<Cow<'_, str>> {
        let several = |words: &'static [&'static str]| words.iter().map(|word| Cow::from(*word)).collect();
        match filter {
            "auto-recovery-supported"
            | "bare-metal"
            | "dedicated-hosts-supported"
            | "hibernation-supported"
            | "network-info.ipv6-supported" => one(truth(false)),
            "burstable-performance-supported" => one(truth(self.is_burstable())),
            "current-generation" => one(truth(self.is_current_generation())),
            "ebs-info.ebs-optimized-support" | "ebs-info.encryption-support" => one("unsupported"),
            "ebs-info.nvme-support" => one(if self.nitro { "required" } else { "unsupported" }),
            "free-tier-eligible" => one(truth(self.is_free_tier())),
            "hypervisor" => one(self.hypervisor()),
            "instance-storage-info.disk.count" if self.disks > 0 => shown(&self.disks),
            "instance-storage-info.disk.size-in-gb" if self.disks > 0 => shown(&self.disk_gb),
            "instance-storage-info.nvme-support" if self.disks > 0 => {
                one(if self.nitro { "required" } else { "unsupported" })
            }
            "instance-storage-info.total-size-in-gb" if self.disks > 0 => shown(&self.storage_gb()),
            "instance-storage-supported" => one(truth(self.disks > 0)),
            "instance-type" => one(self.name),
            "memory-info.size-in-mib" => shown(&self.memory_mib),
            "network-info.ena-support" => one(if self.nitro { "required" } else { "unsupported" }),
            "network-info.maximum-network-interfaces" => shown(&1),
            "processor-info.supported-architecture" => several(self.architectures()),
            "supported-boot-mode" => several(self.boot_modes()),
            "supported-root-device-type" => several(self.root_device_types()),
            "supported-usage-class" => one("on-demand"),
            "supported-virtualization-type" => several(self.virtualization_types()),
            "vcpu-info.default-vcpus" => shown(&self.vcpus),
            _ => Vec::new(),
        }
    }

    fn tags(&self) -> &Tags {
        &NO_TAGS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(filters: &[(&str, &str)]) -> Vec<&'static str> {
        let filters: Vec<_> = filters.iter().map(|(name, value)| Filter::new(*name, [*value])).collect();
        describe(&[], &filters).unwrap().iter().map(|kind| kind.name).collect()
    }

    #[test]
    fn types_are_found_by_what_they_have() {
        assert_eq!(names(&[("free-tier-eligible", "true")]), ["t2.micro", "t3.micro"]);
        assert_eq!(names(&[("instance-type", "t3.*"), ("memory-info.size-in-mib", "1024")]), ["t3.micro"]);
        assert!(names(&[("supported-virtualization-type", "paravirtual")]).contains(&"m3.medium"));
        assert!(!names(&[("supported-virtualization-type", "paravirtual")]).contains(&"t3.micro"));
        assert_eq!(
            names(&[("instance-storage-info.total-size-in-gb", "300"), ("hypervisor", "nitro")]),
            ["m5d.2xlarge"]
        );
        assert!(names(&[("vcpu-info.default-cores", "*")]).is_empty());
        assert_eq!(describe(&["t3.nano".into()], &[]).unwrap().len(), 1);
        assert_eq!(describe(&["t3.huge".into()], &[]).unwrap_err().code(), "InvalidInstanceType");
        assert_eq!(describe(&[], &[Filter::new("colour", ["red"])]).unwrap_err().code(), "InvalidParameterValue");
    }
}
