use std::fs;

use tempfile::TempDir;

use super::*;

/// A host of files only, on which everything but KVM is well.
struct Fake {
    dir: TempDir,
    host: Host,
}

impl Fake {
    fn new(flags: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Host {
            root: Root::at(dir.path()),
            architecture: "x86_64".into(),
            kernel: "6.12.1-test".into(),
            cache_dir: dir.path().join("home/.cache/amiboot"),
            scratch_dir: dir.path().join("scratch"),
            firmware_dir: None,
            path: dir.path().join("bin").into(),
        };
        let fake = Self { dir, host };
        fake.write("proc/cpuinfo", &format!("vendor_id : V\nmodel name : Model 1\nflags : fpu {flags}\n"));
        fake.meminfo(16 << 20, 8 << 20);
        for sub in ["dev", "home", "scratch", "bin"] {
            fs::create_dir(fake.dir.path().join(sub)).unwrap();
        }
        fake
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn meminfo(&self, total_kib: u64, available_kib: u64) {
        self.write("proc/meminfo", &format!("MemTotal: {total_kib} kB\nMemAvailable: {available_kib} kB\n"));
    }

    fn finding(&self, group: Group, name: &str) -> Finding {
        let findings = self.host.examine();
        findings.into_iter().find(|f| f.group == group && f.name == name).unwrap_or_else(|| panic!("no {name}"))
    }
}

#[test]
fn a_host_without_kvm_cannot_run_and_says_what_to_do() {
    let fake = Fake::new("vmx");
    let findings = fake.host.examine();
    assert!(!can_run(&findings));
    let device = fake.finding(Group::Kvm, "device");
    assert_eq!(device.state, State::Problem);
    assert_eq!(device.mend.unwrap().command.unwrap(), "sudo modprobe kvm_intel");
    assert_eq!(fake.finding(Group::Kvm, "hardware").state, State::Ok);
    assert_eq!(fake.finding(Group::Kvm, "modules").state, State::Note);
    assert_eq!(summary(&findings), format!("This host cannot run amiboot guests: {}.", device.seen));
}

#[test]
fn a_processor_without_virtualization_is_a_problem_of_its_own() {
    let fake = Fake::new("sse hypervisor");
    let hardware = fake.finding(Group::Kvm, "hardware");
    assert_eq!(hardware.state, State::Problem);
    assert!(hardware.mend.unwrap().text.contains("nested"));
    let processor = fake.finding(Group::Host, "processor");
    assert!(processor.seen.contains("Model 1") && processor.seen.contains("itself a virtual machine"));
    assert_eq!(processor.figures["nested"], 1);
}

#[test]
fn the_words_are_those_of_the_run_error() {
    let fake = Fake::new("svm");
    let problem = kvm::open_in(&fake.host.root).unwrap_err().to_string();
    let device = fake.finding(Group::Kvm, "device");
    assert_eq!(problem, format!("{}. {}", device.seen, device.mend.unwrap()));
}

#[test]
fn names_are_unique_and_every_problem_has_a_mend() {
    for flags in ["vmx", "sse"] {
        let findings = Fake::new(flags).host.examine();
        let mut names: Vec<_> = findings.iter().map(|f| (f.group, f.name)).collect();
        assert!(names.is_sorted_by_key(|(group, _)| *group), "groups stand together");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), findings.len());
        assert!(findings.iter().all(|f| f.state < State::Warning || f.mend.is_some()));
    }
}

#[test]
fn modules_say_whether_guests_may_have_guests() {
    let fake = Fake::new("vmx");
    fake.write("sys/module/kvm/parameters/x", "");
    fake.write("sys/module/kvm_intel/parameters/nested", "N\n");
    let modules = fake.finding(Group::Kvm, "modules");
    assert_eq!(modules.seen, "kvm, kvm_intel; guests may not run guests of their own");
}

#[test]
fn little_memory_is_a_warning() {
    let fake = Fake::new("vmx");
    let memory = fake.finding(Group::Host, "memory");
    assert_eq!((memory.state, memory.seen.as_str()), (State::Ok, "8 GiB available; 16 GiB in all, swap included"));
    assert_eq!(memory.figures["available_bytes"], 8 << 30);
    fake.meminfo(1 << 20, (512 << 10) - 1);
    let memory = fake.finding(Group::Host, "memory");
    assert_eq!(memory.state, State::Warning);
    assert!(memory.mend.unwrap().text.contains("--memory 256M"));
    fake.write("proc/meminfo", "nonsense");
    assert_eq!(fake.finding(Group::Host, "memory").state, State::Warning);
}

#[test]
fn another_architecture_is_refused() {
    let mut fake = Fake::new("vmx");
    fake.host.architecture = "aarch64".into();
    let architecture = fake.finding(Group::Host, "architecture");
    assert_eq!(architecture.state, State::Problem);
    assert!(architecture.seen.starts_with("aarch64"));
}

#[test]
fn directories_are_looked_at_and_left_alone() {
    let fake = Fake::new("vmx");
    let cache = fake.finding(Group::Storage, "cache");
    assert_ne!(cache.state, State::Problem);
    assert!(cache.seen.contains("made by the first run") && cache.figures["available_bytes"] > 0);
    assert_ne!(fake.finding(Group::Storage, "scratch").state, State::Problem);
    assert!(!fake.dir.path().join("home/.cache").exists());
    assert_eq!(fs::read_dir(fake.dir.path().join("scratch")).unwrap().count(), 0);
}

#[test]
fn directories_that_cannot_be_used_are_problems() {
    let mut fake = Fake::new("vmx");
    fake.write("home/.cache", "a file");
    fake.host.scratch_dir = fake.dir.path().join("none");
    let cache = fake.finding(Group::Storage, "cache");
    assert_eq!(cache.state, State::Problem);
    let (dir, file) = (&fake.host.cache_dir, fake.dir.path().join("home/.cache"));
    assert!(cache.seen.starts_with(&format!("{}: ", dir.display())), "{}", cache.seen);
    assert!(cache.seen.contains(&format!(": {}: ", file.display())) || cache.seen.contains("Not a directory"));
    assert!(cache.mend.unwrap().text.contains("export AMIBOOT_CACHE="));
    let scratch = fake.finding(Group::Storage, "scratch");
    assert_eq!(scratch.state, State::Problem);
    assert!(scratch.mend.unwrap().text.contains("export TMPDIR="));
}

#[test]
fn what_a_scratch_directory_lacks_is_a_warning() {
    let plain = Room { available: 1 << 40, file_system: "ext4".into(), in_memory: false };
    let full = Scratch { room: plain.clone(), unnamed_files: true, holes: true };
    let state = |scratch: &Scratch| scratch_found("scratch", Path::new("/s"), scratch).state;
    assert_eq!(state(&full), State::Ok);
    assert_eq!(state(&Scratch { unnamed_files: false, ..full.clone() }), State::Warning);
    assert_eq!(state(&Scratch { holes: false, ..full.clone() }), State::Warning);
    assert_eq!(state(&Scratch { room: Room { in_memory: true, ..plain.clone() }, ..full.clone() }), State::Warning);
    let low = Scratch { room: Room { available: SCRATCH_LOW - 1, ..plain.clone() }, ..full };
    assert_eq!(state(&low), State::Warning);
    let kept = Kept { room: Room { available: CACHE_LOW - 1, ..plain }, exists: true };
    assert_eq!(cache_found("cache", Path::new("/c"), &kept).state, State::Warning);
}

#[test]
fn a_file_system_that_does_not_answer_is_a_problem() {
    let found = |_: &'static str, _: &Path, (): &()| unreachable!();
    let finding = storage("cache", Path::new("/c"), None, found, "export A=b");
    assert_eq!(finding.state, State::Problem);
    assert!(finding.seen.contains("has not answered for 5 s"));
}

#[test]
fn missing_firmware_and_tools_are_by_the_way() {
    let fake = Fake::new("vmx");
    for (group, name, package) in [
        (Group::Firmware, "seabios", "seabios"),
        (Group::Firmware, "ovmf", "ovmf"),
        (Group::Tools, "qemu-img", "qemu-utils"),
    ] {
        let finding = fake.finding(group, name);
        assert_eq!(finding.state, State::Note);
        assert_eq!(finding.mend.unwrap().command.unwrap(), format!("sudo apt-get install -y {package}"));
    }
    fake.write("usr/share/seabios/bios-256k.bin", "firmware");
    let found = fake.finding(Group::Firmware, "seabios");
    assert_eq!((found.state, found.seen.as_str()), (State::Ok, "/usr/share/seabios/bios-256k.bin (8 B)"));
}

#[test]
fn summaries_count() {
    let ok = Finding::ok(Group::Host, "a", "fine");
    let warning = Finding::warning(Group::Host, "b", "low", Mend::tell("do"));
    let problem = Finding::problem(Group::Kvm, "c", "gone", Mend::tell("do"));
    assert_eq!(summary(std::slice::from_ref(&ok)), "This host can run amiboot guests.");
    assert!(summary(&[ok.clone(), warning.clone()]).ends_with("one thing to look at."));
    assert!(can_run(&[ok.clone(), warning.clone()]) && !can_run(&[ok, warning, problem.clone()]));
    assert_eq!(summary(&[problem]), "This host cannot run amiboot guests: gone.");
}
