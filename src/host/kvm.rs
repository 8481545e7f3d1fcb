//! The host's KVM: whether it is there, may be used, and of which kind it is.

use std::ffi::CString;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use kvm_ioctls::{Cap, Kvm};
use serde::Serialize;

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

/// What is wrong with this host's KVM. The message names the mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvmProblem {
    /// No device file.
    #[error("{path}: there is no such device. {mend}", path = .0.path.display(), mend = .0.mend)]
    Missing(Advice),
    /// Not allowed.
    #[error("{path}: this user may not open it. {mend}", path = .0.path.display(), mend = .0.mend)]
    Denied(Advice),
    /// Something else stands there, or the device does not answer.
    #[error("{path}: it cannot be used: {cause}. {mend}", cause = .1, path = .0.path.display(), mend = .0.mend)]
    Broken(Advice, String),
    /// The kind that interprets kernels.
    #[error(
        "{path}: this KVM has no hardware virtualization (VT-x or SVM) behind it: it interprets guest kernel code one \
         instruction at a time and cannot run stock kernels. {mend}", path = .0.path.display(), mend = .0.mend
    )]
    Interpreting(Advice),
    /// KVM lacks what the machine is built on.
    #[error("{path}: this KVM lacks {cause}. {mend}", cause = .1, path = .0.path.display(), mend = .0.mend)]
    TooOld(Advice, String),
}

/// Where the problem is, and the command that mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// The device file.
    pub path: PathBuf,
    /// What to do.
    pub mend: String,
}

const DEVICE: &str = "/dev/kvm";

/// KVM, open, and what is known of it.
#[derive(Debug)]
pub struct HostKvm {
    /// The open device.
    pub kvm: Kvm,
    /// How it runs guests.
    pub kind: KvmKind,
}

/// Opens the host's KVM and checks that machines can be built on it. An interpreting one is opened too: see
/// [`HostKvm::require_hardware`].
///
/// # Errors
/// [`KvmProblem`], which names the mend.
pub fn open() -> Result<HostKvm, KvmProblem> {
    open_at(Path::new(DEVICE))
}

fn open_at(path: &Path) -> Result<HostKvm, KvmProblem> {
    let advice = |mend: String| Advice { path: path.into(), mend };
    let c_path = CString::new(path.as_os_str().as_encoded_bytes())
        .map_err(|e| KvmProblem::Broken(advice(String::new()), e.to_string()))?;
    let kvm = match Kvm::new_with_path(&c_path) {
        Ok(kvm) => kvm,
        Err(e) => return Err(explain_open(path, &io::Error::from_raw_os_error(e.errno()))),
    };
    // The version has been 12 since Linux 2.6.22; anything else is not KVM.
    let version = kvm.get_api_version();
    if version != 12 {
        return Err(KvmProblem::Broken(
            advice("Is it the KVM device? `ls -l /dev/kvm` shows a character device 10, 232.".into()),
            format!("it answers API version {version} instead of 12"),
        ));
    }
    let needed = [
        (Cap::Irqchip, "an in-kernel interrupt controller"),
        (Cap::Irqfd, "irqfd"),
        (Cap::Ioeventfd, "ioeventfd"),
        (Cap::ImmediateExit, "immediate exit"),
        (Cap::UserMemory, "user memory regions"),
    ];
    let missing: Vec<&str> =
        needed.iter().filter(|(cap, _)| !kvm.check_extension(*cap)).map(|(_, name)| *name).collect();
    if !missing.is_empty() {
        return Err(KvmProblem::TooOld(
            advice("Use a host kernel of version 4.12 or later.".into()),
            missing.join(", "),
        ));
    }
    Ok(HostKvm { kvm, kind: kind() })
}

impl HostKvm {
    /// Refuses a KVM that cannot run stock kernels.
    ///
    /// # Errors
    /// [`KvmProblem::Interpreting`].
    pub fn require_hardware(&self) -> Result<(), KvmProblem> {
        if self.kind != KvmKind::Interpreting {
            return Ok(());
        }
        Err(KvmProblem::Interpreting(Advice {
            path: DEVICE.into(),
            mend:
                "Run on bare metal, on a virtual machine with nested virtualization switched on, or in the project's \
                   test machine (`tools/testbed`)."
                    .into(),
        }))
    }
}

/// The kind, from the processor's flags: without VT-x or SVM there is nothing else it could be.
#[must_use]
pub fn kind() -> KvmKind {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    kind_of_cpuinfo(&cpuinfo)
}

fn kind_of_cpuinfo(cpuinfo: &str) -> KvmKind {
    let flags = cpuinfo.lines().find(|l| l.starts_with("flags")).unwrap_or_default();
    let has = |flag| flags.split_whitespace().any(|f| f == flag);
    match (has("vmx"), has("svm")) {
        (true, _) => KvmKind::VtX,
        (_, true) => KvmKind::Svm,
        _ => KvmKind::Interpreting,
    }
}

/// Whether this host is itself a virtual machine.
#[must_use]
pub fn is_nested() -> bool {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpuinfo.lines().find(|l| l.starts_with("flags")).unwrap_or_default();
    flags.split_whitespace().any(|f| f == "hypervisor")
}

fn explain_open(path: &Path, cause: &io::Error) -> KvmProblem {
    let advice = |mend: String| Advice { path: path.into(), mend };
    match cause.kind() {
        io::ErrorKind::NotFound => KvmProblem::Missing(advice(missing_mend())),
        io::ErrorKind::PermissionDenied => KvmProblem::Denied(advice(group_mend(path))),
        _ => {
            let mend = match fs::metadata(path) {
                Ok(meta) if !meta.file_type().is_char_device() => {
                    "It is not a device file: remove it and load the module."
                }
                _ => "Is the KVM module loaded? `dmesg | grep -i kvm` tells why not.",
            };
            KvmProblem::Broken(advice(mend.into()), cause.to_string())
        }
    }
}

fn missing_mend() -> String {
    match kind() {
        KvmKind::VtX => "Load the module: `modprobe kvm_intel`.".into(),
        KvmKind::Svm => "Load the module: `modprobe kvm_amd`.".into(),
        KvmKind::Interpreting => {
            "This processor shows no VT-x or SVM: switch virtualization on in the firmware set-up, or \
                                  nested virtualization where this host is a virtual machine; without either, \
                                  `tools/testbed` runs amiboot in an emulated host."
                .into()
        }
    }
}

/// The command that lets this user open the device: the group that owns it, by name.
fn group_mend(path: &Path) -> String {
    let group = fs::metadata(path).ok().and_then(|meta| group_name(meta.gid()));
    match group {
        Some(group) if group != "root" => {
            format!("Join its group: `sudo usermod -aG {group} \"$USER\"`, then log in again.")
        }
        _ => format!(
            "Give it to a group: `sudo chgrp kvm {0} && sudo chmod 660 {0}`, and join that group.",
            path.display()
        ),
    }
}

fn group_name(gid: u32) -> Option<String> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>().ok()? == gid).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_names_the_mend() {
        let problem = open_at(Path::new("/nonexistent/kvm")).unwrap_err();
        assert!(matches!(problem, KvmProblem::Missing(_)));
        let text = problem.to_string();
        assert!(
            text.contains("/nonexistent/kvm") && (text.contains("modprobe") || text.contains("tools/testbed")),
            "{text}"
        );
    }

    #[test]
    fn a_file_that_is_no_device_is_told_from_kvm() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = open_at(file.path()).unwrap_err().to_string();
        assert!(text.contains("cannot be used"), "{text}");
        assert!(matches!(open_at(Path::new("/dev/null")).unwrap_err(), KvmProblem::Broken(..)));
    }

    #[test]
    fn the_kind_is_told_from_the_flags() {
        assert_eq!(kind_of_cpuinfo("processor: 0\nflags\t\t: fpu vmx sse\n"), KvmKind::VtX);
        assert_eq!(kind_of_cpuinfo("flags\t\t: fpu svm sse\n"), KvmKind::Svm);
        assert_eq!(kind_of_cpuinfo("flags\t\t: fpu vmxnet svm_lock\n"), KvmKind::Interpreting);
    }

    #[test]
    fn groups_are_found_by_number() {
        assert_eq!(group_name(0).as_deref(), Some("root"));
        assert_eq!(group_name(u32::MAX - 7), None);
    }
}
