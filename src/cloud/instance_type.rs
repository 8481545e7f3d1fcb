//! Instance types: how many processors, how much memory, which instance-store disks.

mod query;

use serde::Serialize;

pub use query::describe;

use super::error::CloudError;

/// An instance type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct InstanceType {
    /// Its name, as in `t3.micro`.
    pub name: &'static str,
    /// Processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// How many instance-store disks it has.
    pub disks: u8,
    /// The size of each, in GB as EC2 says them.
    pub disk_gb: u64,
    /// Whether its volumes are NVMe controllers on EC2 (Nitro), and `/dev/nvme1n1` to the guest.
    pub nitro: bool,
    /// Whether it takes PV images: those before Nitro that did.
    pub paravirtual: bool,
}

const fn nitro(name: &'static str, vcpus: u32, memory_mib: u64) -> InstanceType {
    InstanceType { name, vcpus, memory_mib, disks: 0, disk_gb: 0, nitro: true, paravirtual: false }
}

const fn nitro_disks(name: &'static str, vcpus: u32, memory_mib: u64, disks: u8, disk_gb: u64) -> InstanceType {
    InstanceType { name, vcpus, memory_mib, disks, disk_gb, nitro: true, paravirtual: false }
}

const fn xen(
    name: &'static str,
    vcpus: u32,
    memory_mib: u64,
    disks: u8,
    disk_gb: u64,
    paravirtual: bool,
) -> InstanceType {
    InstanceType { name, vcpus, memory_mib, disks, disk_gb, nitro: false, paravirtual }
}

/// What EC2's documentation says of them.
pub const TYPES: &[InstanceType] = &[
    xen("t1.micro", 1, 627, 0, 0, true),
    xen("t2.nano", 1, 512, 0, 0, false),
    xen("t2.micro", 1, 1024, 0, 0, false),
    xen("t2.small", 1, 2048, 0, 0, false),
    xen("t2.medium", 2, 4096, 0, 0, false),
    xen("t2.large", 2, 8192, 0, 0, false),
    xen("t2.xlarge", 4, 16384, 0, 0, false),
    xen("t2.2xlarge", 8, 32768, 0, 0, false),
    nitro("t3.nano", 2, 512),
    nitro("t3.micro", 2, 1024),
    nitro("t3.small", 2, 2048),
    nitro("t3.medium", 2, 4096),
    nitro("t3.large", 2, 8192),
    nitro("t3.xlarge", 4, 16384),
    nitro("t3.2xlarge", 8, 32768),
    nitro("t3a.nano", 2, 512),
    nitro("t3a.micro", 2, 1024),
    nitro("t3a.small", 2, 2048),
    nitro("t3a.medium", 2, 4096),
    nitro("t3a.large", 2, 8192),
    nitro("t3a.xlarge", 4, 16384),
    nitro("t3a.2xlarge", 8, 32768),
    xen("m1.small", 1, 1740, 1, 160, true),
    xen("m1.medium", 1, 3840, 1, 410, true),
    xen("m1.large", 2, 7680, 2, 420, true),
    xen("m1.xlarge", 4, 15360, 4, 420, true),
    xen("m3.medium", 1, 3840, 1, 4, true),
    xen("m3.large", 2, 7680, 1, 32, true),
    xen("m3.xlarge", 4, 15360, 2, 40, true),
    xen("m3.2xlarge", 8, 30720, 2, 80, true),
    xen("m4.large", 2, 8192, 0, 0, false),
    xen("m4.xlarge", 4, 16384, 0, 0, false),
    xen("m4.2xlarge", 8, 32768, 0, 0, false),
    nitro("m5.large", 2, 8192),
    nitro("m5.xlarge", 4, 16384),
    nitro("m5.2xlarge", 8, 32768),
    nitro("m5.4xlarge", 16, 65536),
    nitro_disks("m5d.large", 2, 8192, 1, 75),
    nitro_disks("m5d.xlarge", 4, 16384, 1, 150),
    nitro_disks("m5d.2xlarge", 8, 32768, 1, 300),
    nitro("m6i.large", 2, 8192),
    nitro("m6i.xlarge", 4, 16384),
    nitro("m6i.2xlarge", 8, 32768),
    nitro("m7i.large", 2, 8192),
    nitro("m7i.xlarge", 4, 16384),
    xen("c1.medium", 2, 1740, 1, 350, true),
    xen("c1.xlarge", 8, 7168, 4, 420, true),
    xen("c3.large", 2, 3840, 2, 16, true),
    xen("c3.xlarge", 4, 7680, 2, 40, true),
    xen("c4.large", 2, 3840, 0, 0, false),
    xen("c4.xlarge", 4, 7680, 0, 0, false),
    nitro("c5.large", 2, 4096),
    nitro("c5.xlarge", 4, 8192),
    nitro("c5.2xlarge", 8, 16384),
    nitro_disks("c5d.large", 2, 4096, 1, 50),
    nitro_disks("c5d.xlarge", 4, 8192, 1, 100),
    nitro("c6i.large", 2, 4096),
    nitro("c6i.xlarge", 4, 8192),
    nitro("c7i.large", 2, 4096),
    xen("r3.large", 2, 15360, 1, 32, false),
    xen("r4.large", 2, 15616, 0, 0, false),
    nitro("r5.large", 2, 16384),
    nitro("r5.xlarge", 4, 32768),
    nitro_disks("r5d.large", 2, 16384, 1, 75),
    nitro("r6i.large", 2, 16384),
    nitro("r6i.xlarge", 4, 32768),
];

/// The type of a launch that names none.
pub const DEFAULT: &str = "t3.micro";

/// Finds a type by its name.
///
/// # Errors
/// `InvalidParameterValue`.
pub fn find(name: &str) -> Result<&'static InstanceType, CloudError> {
    TYPES.iter().find(|one| one.name == name).ok_or_else(|| {
        CloudError::value(format!(
            "Invalid value '{name}' for InstanceType; see those there are: amiboot instance types"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_there_once() {
        let mut names: Vec<_> = TYPES.iter().map(|one| one.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TYPES.len());
        assert_eq!(find(DEFAULT).unwrap().vcpus, 2);
        assert!(find("t3.huge").unwrap_err().to_string().contains("t3.huge"));
    }
}
