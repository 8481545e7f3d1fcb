//! All that is looked at on a host, one function each.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::firmware::{self, Firmware, FirmwareKind};
use super::io_uring;
use super::kvm::{self, Drivers, HostKvm, KvmKind, KvmProblem};
use super::memory::HostMemory;
use super::processor::Processor;
use super::report::{Finding, Group, Mend, State, bytes, shell_word};
use super::root::Root;
use super::storage::{self, Kept, Room, Scratch, StorageError};
use super::tools;

/// What a guest gets where nobody says otherwise, in bytes.
const GUEST_MEMORY: u64 = 512 << 20;
/// Below this a guest's writes soon fill the scratch directory, in bytes.
const SCRATCH_LOW: u64 = 1 << 30;
/// An unpacked kernel and an initrd take about half of this, in bytes.
const CACHE_LOW: u64 = 256 << 20;
/// A file system that has not answered by then is not going to.
const STORAGE_PATIENCE: Duration = Duration::from_secs(5);

/// What is to be looked at.
#[derive(Debug, Clone)]
pub struct Host {
    /// Where its files are.
    pub root: Root,
    /// The architecture, as uname(2) has it.
    pub architecture: String,
    /// The kernel's release, as uname(2) has it.
    pub kernel: String,
    /// Where kernels that were taken out of images are kept.
    pub cache_dir: PathBuf,
    /// Where throw-away layers take room.
    pub scratch_dir: PathBuf,
    /// A directory in which firmware is looked for first.
    pub firmware_dir: Option<PathBuf>,
    /// Where programs are looked for, written as `$PATH`.
    pub path: OsString,
}

impl Host {
    /// The host that this process runs on.
    #[must_use]
    pub fn this(cache_dir: PathBuf, scratch_dir: PathBuf) -> Self {
        let uname = rustix::system::uname();
        Self {
            root: Root::default(),
            architecture: uname.machine().to_string_lossy().into_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            cache_dir,
            scratch_dir,
            firmware_dir: firmware::own_dir(),
            path: std::env::var_os("PATH").unwrap_or_default(),
        }
    }

    /// Looks at all of it, in the order of the groups. Changes nothing, and never waits for long.
    #[must_use]
    pub fn examine(&self) -> Vec<Finding> {
        let processor = Processor::read(&self.root);
        let mut findings = vec![self.architecture(), self.kernel(), nesting(&processor)];
        findings.push(memory(HostMemory::read_in(&self.root)));
        findings.extend(self.kvm(&processor));
        let (cache, scratch) = (self.cache_dir.clone(), self.scratch_dir.clone());
        findings.push(storage(
            "cache",
            &self.cache_dir,
            storage::within(STORAGE_PATIENCE, move || storage::probe_kept(&cache)),
            cache_found,
            r#"export AMIBOOT_CACHE="$(mktemp -d /var/tmp/amiboot-cache.XXXXXX)""#,
        ));
        findings.push(storage(
            "scratch",
            &self.scratch_dir,
            storage::within(STORAGE_PATIENCE, move || storage::probe_scratch(&scratch)),
            scratch_found,
            "mkdir -p ~/amiboot-scratch && export TMPDIR=~/amiboot-scratch",
        ));
        findings.push(self.io_uring(io_uring::refusal()));
        let firmware = firmware::find(&self.root, self.firmware_dir.as_deref());
        findings.push(firmware_found("seabios", "SeaBIOS", FirmwareKind::Bios, &firmware));
        findings.push(firmware_found("ovmf", "OVMF", FirmwareKind::Uefi, &firmware));
        findings.push(self.qemu_img());
        findings
    }

    fn architecture(&self) -> Finding {
        if self.architecture == "x86_64" {
            return Finding::ok(Group::Host, "architecture", "x86_64");
        }
        let mend = Mend::tell("Use a host with an Intel or AMD processor and a 64-bit kernel.");
        Finding::problem(
            Group::Host,
            "architecture",
            format!("{}: amiboot runs on x86_64 hosts only", self.architecture),
            mend,
        )
    }

    fn kernel(&self) -> Finding {
        Finding::ok(Group::Host, "kernel", format!("Linux {}", self.kernel))
    }

    fn kvm(&self, processor: &Processor) -> Vec<Finding> {
        let drivers = Drivers::read(&self.root);
        let mut findings = Vec::new();
        match kvm::open_in(&self.root) {
            Ok(host) => {
                let api = u64::try_from(host.kvm.get_api_version()).unwrap_or(0);
                let needed: Vec<&str> = kvm::needed_capabilities().collect();
                let device = self.root.path(kvm::DEVICE).display().to_string();
                findings.push(
                    Finding::ok(Group::Kvm, "device", format!("{device} opens, API version {api}"))
                        .with("api_version", api),
                );
                findings.push(Finding::ok(Group::Kvm, "capabilities", format!("has {}", needed.join(", "))));
                findings.push(hardware(host.require_hardware(), &drivers, processor));
                findings.push(machine(&host));
            }
            Err(problem) => {
                findings.push(from_problem("device", &problem));
                findings.push(hardware_without_device(&drivers, processor));
            }
        }
        findings.push(driver(&drivers));
        findings
    }

    fn io_uring(&self, refusal: Option<&str>) -> Finding {
        let Some(why) = refusal else {
            return Finding::ok(Group::Storage, "io_uring", "works: a disk does many requests at a time");
        };
        let switch = self.root.path("/proc/sys/kernel/io_uring_disabled");
        let disabled = std::fs::read_to_string(switch).is_ok_and(|value| value.trim() != "0");
        let mend = if disabled {
            Mend::run("Allow it", "sudo sysctl kernel.io_uring_disabled=0")
        } else {
            Mend::tell(
                "In a container, allow io_uring_setup, io_uring_enter and io_uring_register in its seccomp profile.",
            )
        };
        let seen = format!("not to be had ({why}); each queue of a disk does one request after the other");
        Finding::note(Group::Storage, "io_uring", seen, Some(mend))
    }

    fn qemu_img(&self) -> Finding {
        match tools::find("qemu-img", &self.path) {
            Some(path) => Finding::ok(Group::Tools, "qemu-img", path.display().to_string()),
            None => Finding::note(
                Group::Tools,
                "qemu-img",
                "not found; it converts disks of other formats (VMDK, VHD) to raw or qcow2, which amiboot reads",
                Some(Mend::install("qemu-utils")),
            ),
        }
    }
}

fn nesting(processor: &Processor) -> Finding {
    let model = if processor.model.is_empty() { "an unknown processor" } else { &processor.model };
    let seen = if processor.is_virtual() {
        format!("{model}; this host is itself a virtual machine, so guests are slower than on bare metal")
    } else {
        format!("{model}; this host is no virtual machine")
    };
    Finding::ok(Group::Host, "processor", seen).with("nested", u64::from(processor.is_virtual()))
}

fn memory(memory: Option<HostMemory>) -> Finding {
    let Some(memory) = memory else {
        let mend = Mend::run("Mount the kernel's own file system", "sudo mount -t proc proc /proc");
        return Finding::warning(Group::Host, "memory", "/proc/meminfo cannot be read", mend);
    };
    let seen = format!("{} available; {} in all, swap included", bytes(memory.available), bytes(memory.total));
    let finding = if memory.available < GUEST_MEMORY {
        let mend = Mend::run("End other programs, or give guests less", "amiboot run --memory 256M IMAGE");
        Finding::warning(
            Group::Host,
            "memory",
            format!("{seen}: less than the {} that a guest gets by default", bytes(GUEST_MEMORY)),
            mend,
        )
    } else {
        Finding::ok(Group::Host, "memory", seen)
    };
    finding.with("available_bytes", memory.available).with("total_bytes", memory.total)
}

fn from_problem(name: &'static str, problem: &KvmProblem) -> Finding {
    Finding::problem(Group::Kvm, name, problem.seen(), problem.mend.clone())
}

fn hardware(required: Result<(), KvmProblem>, drivers: &Drivers, processor: &Processor) -> Finding {
    match required {
        Ok(()) => Finding::ok(Group::Kvm, "hardware", drivers.kind(processor).to_string()),
        Err(problem) => from_problem("hardware", &problem),
    }
}

/// Where the device is missing, the processor can still tell what there would be behind it.
fn hardware_without_device(drivers: &Drivers, processor: &Processor) -> Finding {
    match drivers.kind(processor) {
        KvmKind::Interpreting => Finding::problem(
            Group::Kvm,
            "hardware",
            "the processor shows neither VT-x nor SVM",
            kvm::mend_hardware(processor),
        ),
        kind => Finding::ok(Group::Kvm, "hardware", format!("{kind}, by the processor's flags")),
    }
}

fn machine(host: &HostKvm) -> Finding {
    let cpus = host.kvm.get_max_vcpus();
    match host.try_machine() {
        Ok(()) => Finding::ok(Group::Kvm, "machine", format!("can be made, with up to {cpus} processors")),
        Err(problem) => from_problem("machine", &problem),
    }
    .with("max_vcpus", u64::try_from(cpus).unwrap_or(u64::MAX))
}

fn driver(drivers: &Drivers) -> Finding {
    if drivers.modules.is_empty() {
        return Finding::note(Group::Kvm, "modules", "none of KVM's modules is loaded or built in", None);
    }
    let nested = match drivers.nested_guests {
        Some(true) => "; guests may run guests of their own",
        Some(false) => "; guests may not run guests of their own",
        None => "",
    };
    Finding::ok(Group::Kvm, "modules", format!("{}{nested}", drivers.modules.join(", ")))
}

/// What the probe of a directory says; `elsewhere` is the command that puts another in its place.
fn storage<T>(
    name: &'static str,
    dir: &Path,
    probed: Option<Result<T, StorageError>>,
    found: impl FnOnce(&'static str, &Path, &T) -> Finding,
    elsewhere: &str,
) -> Finding {
    let seen = match probed {
        Some(Ok(probed)) => return found(name, dir, &probed),
        Some(Err(error)) if error.path == dir => error.to_string(),
        Some(Err(error)) => format!("{}: cannot be made: {error}", dir.display()),
        None => format!("{}: its file system has not answered for {} s", dir.display(), STORAGE_PATIENCE.as_secs()),
    };
    Finding::problem(Group::Storage, name, seen, Mend::run("Let this user write to it, or use another", elsewhere))
}

fn cache_found(name: &'static str, dir: &Path, kept: &Kept) -> Finding {
    let later = if kept.exists { "" } else { ", made by the first run" };
    let seen = format!("{}: {}{later}", dir.display(), room(&kept.room));
    let finding = if kept.room.available < CACHE_LOW {
        Finding::warning(Group::Storage, name, format!("{seen}: little for kernels out of images"), free_space(dir))
    } else {
        Finding::ok(Group::Storage, name, seen)
    };
    finding.with("available_bytes", kept.room.available)
}

fn scratch_found(name: &'static str, dir: &Path, scratch: &Scratch) -> Finding {
    let seen = format!("{}: {}", dir.display(), room(&scratch.room));
    let warning = |what: &str, mend| Finding::warning(Group::Storage, name, format!("{seen}: {what}"), mend);
    let on_disk = || Mend::run("Use a directory on a disk with ext4, XFS or btrfs", "export TMPDIR=/path/to/directory");
    let finding = if scratch.room.available < SCRATCH_LOW {
        warning("little for what guests write", free_space(dir))
    } else if scratch.room.in_memory {
        warning("what guests write takes memory", on_disk())
    } else if !scratch.unnamed_files {
        warning("no files without a name (O_TMPFILE): a crash at the wrong moment leaves one", on_disk())
    } else if !scratch.holes {
        warning("no holes in files: space that guests discard is not given back", on_disk())
    } else {
        Finding::ok(Group::Storage, name, seen)
    };
    finding.with("available_bytes", scratch.room.available)
}

fn room(room: &Room) -> String {
    format!("{} free ({})", bytes(room.available), room.file_system)
}

fn free_space(dir: &Path) -> Mend {
    Mend::run("Free some space; this shows the file system", format!("df -h {}", shell_word(&existing(dir))))
}

fn existing(dir: &Path) -> PathBuf {
    dir.ancestors().find(|d| d.exists()).unwrap_or(dir).into()
}

fn firmware_found(name: &'static str, title: &str, kind: FirmwareKind, found: &[Firmware]) -> Finding {
    match found.iter().find(|f| f.kind == kind) {
        Some(best) => {
            let secure = if best.secure { ", with Secure Boot only" } else { "" };
            let seen = format!("{} ({}{secure})", best.path.display(), bytes(best.size));
            Finding::ok(Group::Firmware, name, seen).with("size_bytes", best.size)
        }
        None => Finding::note(
            Group::Firmware,
            name,
            format!("{title} not found; HVM guests need it"),
            Some(Mend::install(name)),
        ),
    }
}

/// Whether guests can run.
#[must_use]
pub fn can_run(findings: &[Finding]) -> bool {
    findings.iter().all(|f| f.state != State::Problem)
}

/// The whole of it in one sentence.
#[must_use]
pub fn summary(findings: &[Finding]) -> String {
    let with = |state| findings.iter().filter(move |f| f.state == state);
    let problems: Vec<&str> = with(State::Problem).map(|f| f.seen.as_str()).collect();
    if !problems.is_empty() {
        return format!("This host cannot run amiboot guests: {}.", problems.join("; "));
    }
    match with(State::Warning).count() {
        0 => "This host can run amiboot guests.".into(),
        1 => "This host can run amiboot guests, with one thing to look at.".into(),
        n => format!("This host can run amiboot guests, with {n} things to look at."),
    }
}

#[cfg(test)]
mod tests;
