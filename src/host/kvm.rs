//! The host's KVM: whether it is there, may be used, and of which kind it is.

mod driver;
mod permission;

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use kvm_ioctls::{Cap, Kvm};

pub use driver::{Drivers, KvmKind, mend_hardware};

use super::processor::Processor;
use super::report::{Mend, shell_word};
use super::root::Root;

/// The device file.
pub const DEVICE: &str = "/dev/kvm";

/// The version has been this since Linux 2.6.22 and will stay (KVM API, section 4.1).
const API_VERSION: i32 = 12;

/// What the machine is built on.
const NEEDED: [(Cap, &str); 5] = [
    (Cap::Irqchip, "an in-kernel interrupt controller"),
    (Cap::Irqfd, "irqfd"),
    (Cap::Ioeventfd, "ioeventfd"),
    (Cap::ImmediateExit, "immediate exit"),
    (Cap::UserMemory, "user memory regions"),
];

/// Why this host's KVM cannot be used. The message names the mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {fault}. {mend}", device.display())]
pub struct KvmProblem {
    /// The device file.
    pub device: PathBuf,
    /// What is wrong.
    pub fault: KvmFault,
    /// What to do.
    pub mend: Mend,
}

impl KvmProblem {
    /// The message without the mend.
    #[must_use]
    pub fn seen(&self) -> String {
        format!("{}: {}", self.device.display(), self.fault)
    }
}

/// What can be wrong with KVM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvmFault {
    /// No device file.
    #[error("there is no such device")]
    Missing,
    /// Not allowed.
    #[error("this user may not open it")]
    Denied,
    /// Nothing answers behind the device.
    #[error("no KVM driver answers: {0}")]
    NoDriver(String),
    /// Something else stands there, or the device does not answer as it should.
    #[error("it cannot be used: {0}")]
    Broken(String),
    /// The kind that interprets kernels.
    #[error(
        "this KVM has no hardware virtualization (VT-x or SVM) behind it: it interprets guest kernel code one \
         instruction at a time and cannot run stock kernels"
    )]
    Interpreting,
    /// KVM lacks what the machine is built on.
    #[error("this KVM lacks {0}")]
    TooOld(String),
    /// It opens, but gives no machine.
    #[error("it cannot make a machine: {0}")]
    NoMachine(String),
}

/// KVM, open, and what is known of it.
#[derive(Debug)]
pub struct HostKvm {
    /// The open device.
    pub kvm: Kvm,
    /// How it runs guests.
    pub kind: KvmKind,
    device: PathBuf,
    processor: Processor,
}

/// Opens the host's KVM and checks that machines can be built on it. An interpreting one is opened too: see
/// [`HostKvm::require_hardware`].
///
/// # Errors
/// [`KvmProblem`], which names the mend.
pub fn open() -> Result<HostKvm, KvmProblem> {
    open_in(&Root::default())
}

/// As [`open`], on a host below `root`.
///
/// # Errors
/// As [`open`].
pub fn open_in(root: &Root) -> Result<HostKvm, KvmProblem> {
    let device = root.path(DEVICE);
    let processor = Processor::read(root);
    let drivers = Drivers::read(root);
    let problem = |fault, mend| KvmProblem { device: device.clone(), fault, mend };
    let kvm = open_device(&device).map_err(|cause| {
        let (fault, mend) = explain_open(root, &device, &cause, &processor, &drivers);
        problem(fault, mend)
    })?;
    let version = kvm.get_api_version();
    if version != API_VERSION {
        let seen = format!("it answers API version {version} instead of {API_VERSION}");
        return Err(problem(KvmFault::Broken(seen), remake(&device)));
    }
    let missing: Vec<&str> =
        NEEDED.iter().filter(|(cap, _)| !kvm.check_extension(*cap)).map(|(_, name)| *name).collect();
    if !missing.is_empty() {
        let mend = Mend::tell("Use a host kernel of version 4.12 or later.");
        return Err(problem(KvmFault::TooOld(missing.join(", ")), mend));
    }
    Ok(HostKvm { kvm, kind: drivers.kind(&processor), device, processor })
}

/// The names of the capabilities that every machine needs.
pub fn needed_capabilities() -> impl Iterator<Item = &'static str> {
    NEEDED.iter().map(|(_, name)| *name)
}

fn open_device(device: &Path) -> io::Result<Kvm> {
    let path = CString::new(device.as_os_str().as_bytes())?;
    if fs::metadata(device)?.file_type().is_char_device() {
        Kvm::new_with_path(&path).map_err(|e| io::Error::from_raw_os_error(e.errno()))
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a device file"))
    }
}

impl HostKvm {
    /// Refuses a KVM that cannot run stock kernels.
    ///
    /// # Errors
    /// [`KvmFault::Interpreting`].
    pub fn require_hardware(&self) -> Result<(), KvmProblem> {
        if self.kind != KvmKind::Interpreting {
            return Ok(());
        }
        Err(self.problem(KvmFault::Interpreting, mend_hardware(&self.processor)))
    }

    /// Makes an empty machine and lets it go, which is where another monitor that holds the processor shows.
    ///
    /// # Errors
    /// [`KvmFault::NoMachine`].
    pub fn try_machine(&self) -> Result<(), KvmProblem> {
        let Err(cause) = self.kvm.create_vm() else { return Ok(()) };
        let mend = match cause.errno() {
            libc::EBUSY => Mend::run(
                "Another monitor holds the processor's virtualization; for VirtualBox, end its machines and unload it",
                "sudo modprobe -r vboxnetadp vboxnetflt vboxdrv",
            ),
            libc::ENOMEM => Mend::tell("Free some memory on this host: `free -h` shows what there is."),
            _ => Mend::run("The kernel's log tells why", "sudo dmesg | grep -i kvm"),
        };
        let cause = io::Error::from_raw_os_error(cause.errno());
        Err(self.problem(KvmFault::NoMachine(cause.to_string()), mend))
    }

    fn problem(&self, fault: KvmFault, mend: Mend) -> KvmProblem {
        KvmProblem { device: self.device.clone(), fault, mend }
    }
}

fn explain_open(
    root: &Root,
    device: &Path,
    cause: &io::Error,
    processor: &Processor,
    drivers: &Drivers,
) -> (KvmFault, Mend) {
    match cause.kind() {
        io::ErrorKind::NotFound => (KvmFault::Missing, drivers.mend_missing(processor)),
        io::ErrorKind::PermissionDenied => {
            (KvmFault::Denied, permission::mend(root, device, cause, &permission::Caller::this()))
        }
        // What a device number without a driver answers (open(2)).
        _ if matches!(cause.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)) => {
            let drivers = Drivers { registered: false, ..drivers.clone() };
            (KvmFault::NoDriver(cause.to_string()), drivers.mend_missing(processor))
        }
        io::ErrorKind::InvalidInput => (KvmFault::Broken(cause.to_string()), remake(device)),
        _ => (
            KvmFault::Broken(cause.to_string()),
            Mend::run("The kernel's log may tell why", "sudo dmesg | grep -i kvm"),
        ),
    }
}

fn remake(device: &Path) -> Mend {
    let device = shell_word(device);
    Mend::run(
        "Something else stands in its place; KVM's is the character device 10, 232",
        format!("sudo rm {device} && sudo mknod -m 660 {device} c 10 232"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with these processor flags and nothing else.
    fn host(flags: &str) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["dev", "proc"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        fs::write(dir.path().join("proc/cpuinfo"), format!("flags\t\t: fpu {flags}\n")).unwrap();
        let root = Root::at(dir.path());
        (dir, root)
    }

    #[test]
    fn a_missing_device_names_the_mend() {
        let (_dir, root) = host("vmx");
        let problem = open_in(&root).unwrap_err();
        assert_eq!(problem.fault, KvmFault::Missing);
        let device = root.path(DEVICE);
        let text =
            format!("{}: there is no such device. Load the module: `sudo modprobe kvm_intel`.", device.display());
        assert_eq!(problem.to_string(), text);
        assert_eq!(format!("{}. {}", problem.seen(), problem.mend), text);
    }

    #[test]
    fn a_file_that_is_no_device_is_told_from_kvm() {
        let (_dir, root) = host("vmx");
        fs::write(root.path(DEVICE), "").unwrap();
        let text = open_in(&root).unwrap_err().to_string();
        assert!(text.contains("cannot be used: it is not a device file") && text.contains("mknod"), "{text}");
    }

    #[test]
    fn another_device_is_told_from_kvm() {
        let (_dir, root) = host("vmx");
        std::os::unix::fs::symlink("/dev/null", root.path(DEVICE)).unwrap();
        let problem = open_in(&root).unwrap_err();
        assert!(matches!(problem.fault, KvmFault::Broken(_)), "{problem}");
    }

    #[test]
    fn a_device_without_a_driver_is_told_to_load_it() {
        let drivers = Drivers { registered: true, ..Drivers::default() };
        let cause = io::Error::from_raw_os_error(libc::ENODEV);
        let processor = Processor::parse("flags : svm\n");
        let (fault, mend) = explain_open(&Root::default(), Path::new(DEVICE), &cause, &processor, &drivers);
        assert!(matches!(fault, KvmFault::NoDriver(_)));
        assert_eq!(mend.command.as_deref(), Some("sudo modprobe kvm_amd"));
    }

    #[test]
    fn an_unanswering_device_never_leaves_the_person_without_a_mend() {
        for errno in [libc::EACCES, libc::EPERM, libc::ENOENT, libc::ENXIO, libc::EIO, libc::EBUSY] {
            let cause = io::Error::from_raw_os_error(errno);
            let (fault, mend) =
                explain_open(&Root::default(), Path::new(DEVICE), &cause, &Processor::default(), &Drivers::default());
            assert!(!mend.text.is_empty(), "{fault}");
        }
    }
}
