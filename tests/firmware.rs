//! Which guest a disk becomes, by which firmware; UEFI variables and where they are kept.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use support::disks::{menu, patch, text, uefi_variables};
use support::{Ended, Running, World, finish, require_kvm};

/// Runs what must be refused before any guest starts; nothing is changed or left.
#[track_caller]
fn refuse(world: &World, disk: &Path, options: &[&str], says: &[&str]) -> Ended {
    refuse_with(1, world, disk, options, says)
}

/// The same, where the exit code is another.
#[track_caller]
fn refuse_with(code: i32, world: &World, disk: &Path, options: &[&str], says: &[&str]) -> Ended {
    require_kvm();
    let before = world.contents();
    let ended = finish(world.amiboot().arg("run").arg(disk).args(options)).code(code).says(says);
    assert_eq!(ended.stdout, "", "{ended:?}");
    assert_eq!(world.contents(), before, "a file was changed: {ended:?}");
    assert_eq!(world.leftovers(), Vec::<PathBuf>::new(), "{ended:?}");
    ended
}

/// Tiny firmware that uses the flash chip of its variables, and the template of these, in files as OVMF's are named.
fn flash_firmware(world: &World) -> PathBuf {
    world.file("TINY_VARS.fd", uefi_variables(8192));
    world.firmware("flash_rom", "TINY_CODE.fd")
}

/// A disk whose first sector looks like boot code, and that has nothing else.
fn boot_sector(world: &World) -> PathBuf {
    let disk = world.blank_disk();
    patch(&disk, 0, &[0xeb, 0xfe]);
    patch(&disk, 510, &[0x55, 0xaa]);
    disk
}

#[test]
fn firmware_uses_its_flash_chip_and_finds_what_it_wrote_after_a_restart() {
    let world = World::new();
    require_kvm();
    let firmware = flash_firmware(&world);
    let before = world.contents();
    let report = world.scratch().join("report.json");
    let mut run = world.amiboot();
    run.arg("run").arg(world.blank_disk()).arg("--firmware").arg(&firmware).arg("--boot-report").arg(&report);
    let ended = finish(&mut run).code(0);
    assert_eq!(ended.stdout, "fresh\r\nwritten\r\nrom kept\r\nkept\r\nwritten\r\nrom kept\r\n");
    let report: serde_json::Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    assert_eq!((&report["mode"], &report["starts"]), (&"hvm".into(), &2.into()));
    // Neither the template nor the firmware is written to, and the next run begins anew.
    let files = |all: Vec<(PathBuf, u64, std::time::SystemTime, Option<[u8; 32]>)>| {
        all.into_iter().filter(|(path, ..)| path.extension().is_some_and(|e| e == "fd")).collect::<Vec<_>>()
    };
    assert_eq!(files(world.contents()), files(before));
    finish(&mut run).code(0).shows("fresh");
}

#[test]
fn variables_are_kept_in_a_file_whatever_ends_the_run() {
    let world = World::new();
    require_kvm();
    let firmware = flash_firmware(&world);
    let (disk, file) = (world.blank_disk(), world.path("vars.fd"));
    let run = || {
        let mut run = world.amiboot();
        run.arg("run").arg(&disk).arg("--firmware").arg(&firmware).arg("--uefi-vars").arg(&file);
        run
    };
    // Killed: what the guest has written is there.
    let killed = Running::start(&mut run());
    killed.wait_for("written");
    killed.signal(Signal::KILL);
    assert_eq!(killed.end().code, None);
    let kept = fs::read(&file).unwrap();
    assert_eq!((kept.len(), kept[0x1234]), (8192, 0x41));
    // The next run begins with it; the file is not made a second time.
    let ended = finish(&mut run()).code(0);
    assert!(ended.stdout.starts_with("kept\r\n") && !ended.stderr.contains("is made from"), "{ended:?}");
    assert_eq!(fs::read(&file).unwrap()[16..32], [0xff; 16], "the other block was erased");
    // Another file is another's variables.
    let other = world.path("other.fd");
    let mut another = world.amiboot();
    another.arg("run").arg(&disk).arg("--firmware").arg(&firmware).arg("--uefi-vars").arg(&other);
    finish(another.arg("--no-reboot")).code(0).says(&["other.fd is made from", "TINY_VARS.fd"]).shows("fresh");
}

#[test]
fn variables_that_another_run_has_are_refused() {
    let world = World::new();
    let firmware = flash_firmware(&world);
    let (disk, file) = (world.blank_disk(), world.file("vars.fd", uefi_variables(8192)));
    // Held as a run holds it, by a disk that is written to.
    let mut holder = world.shell(&format!(
        "'{}' run '{}' --kernel '{}' --bdm '/dev/sdf={},persist,format=raw'",
        env!("CARGO_BIN_EXE_amiboot"),
        disk.display(),
        world.guest("echo").display(),
        file.display()
    ));
    let holder = Running::start(holder.stdin(std::process::Stdio::piped()));
    holder.wait_for("type");
    let options = ["--firmware", text(&firmware), "--uefi-vars", text(&file)];
    finish(world.amiboot().arg("run").arg(&disk).args(options)).code(1).says(&[
        "--uefi-vars",
        "vars.fd",
        "is writing to",
    ]);
    drop(holder);
}

#[test]
fn firmware_and_variables_that_are_none_are_refused_by_name() {
    let world = World::new();
    let disk = world.blank_disk();
    let odd = world.file("odd.bin", "not a ROM");
    refuse(&world, &disk, &["--firmware", text(&odd)], &["--firmware", "odd.bin", "64 KiB"]);
    refuse(&world, &disk, &["--firmware", "gone.bin"], &["--firmware", "gone.bin", "No such file"]);
    refuse(&world, &disk, &["--firmware", text(&world.scratch())], &["--firmware", "no regular file"]);

    let code = flash_firmware(&world);
    let vars = world.path("vars.fd");
    let keep = ["--firmware", text(&code), "--uefi-vars", text(&vars)];
    fs::write(&vars, uefi_variables(4096)).unwrap();
    refuse(&world, &disk, &keep, &["--uefi-vars", "vars.fd", "4096 bytes", "have 8192", "TINY_VARS.fd"]);
    fs::remove_file(&vars).unwrap();
    let nowhere = world.path("no-folder/vars.fd");
    refuse(&world, &disk, &["--firmware", text(&code), "--uefi-vars", text(&nowhere)], &["no-folder/vars.fd"]);
    let template = world.path("TINY_VARS.fd");
    for (bytes, says) in [(vec![0; 8191], "8191 bytes"), (vec![0; 8192], "no store of UEFI variables")] {
        fs::write(&template, bytes).unwrap();
        refuse(&world, &disk, &keep, &["TINY_VARS.fd", says]);
    }
    fs::write(&template, uefi_variables(16 << 20)).unwrap();
    refuse(&world, &disk, &keep, &["TINY_CODE.fd", "at most 16 MiB"]);
    fs::remove_file(&template).unwrap();
    refuse(&world, &disk, &keep, &["--uefi-vars", "no template", "TINY_CODE.fd"]);
    fs::write(&code, [0; 5000]).unwrap();
    fs::write(&template, uefi_variables(8192)).unwrap();
    refuse(&world, &disk, &keep, &["TINY_CODE.fd", "5000 bytes"]);

    let combined = world.file("combined.fd", uefi_variables(128 << 10));
    let options = ["--firmware", text(&combined), "--uefi-vars", text(&vars)];
    refuse(&world, &disk, &options, &["--uefi-vars", "combined.fd", "holds its variables itself"]);
    assert!(!vars.exists());
}

#[test]
fn the_directory_of_the_environment_comes_first() {
    let world = World::new();
    require_kvm();
    let own = world.scratch().join("own");
    fs::create_dir(&own).unwrap();
    fs::rename(flash_firmware(&world), own.join("OVMF_CODE_4M.fd")).unwrap();
    fs::rename(world.path("TINY_VARS.fd"), own.join("OVMF_VARS_4M.fd")).unwrap();
    let disk = world.blank_disk();
    let run = || {
        let mut run = world.amiboot();
        run.env("AMIBOOT_FIRMWARE_PATH", &own).arg("run").arg(&disk).arg("--firmware");
        run
    };
    finish(run().arg("uefi")).code(0).shows("kept").says(&["does not look as if uefi", "no EFI system partition"]);
    let vars = own.join("kept.fd");
    let mut bios = run();
    fs::copy(own.join("OVMF_CODE_4M.fd"), own.join("bios-256k.bin")).unwrap();
    let ended = finish(bios.arg("bios").arg("--uefi-vars").arg(&vars)).code(1);
    ended.says(&["--uefi-vars", "--firmware uefi"]);
    assert!(!vars.exists());
    // A BIOS has no flash chip, and this one says so.
    finish(run().arg("bios")).code(0).shows("fail: no status");
    let mut doctor = world.amiboot();
    finish(doctor.arg("doctor").env("AMIBOOT_FIRMWARE_PATH", &own))
        .shows("own/OVMF_CODE_4M.fd")
        .shows("own/bios-256k.bin");
}

#[test]
fn a_disk_that_no_firmware_can_boot_is_refused_unless_firmware_is_asked_for() {
    let world = World::new();
    let blank = world.blank_disk();
    let mend = "--firmware bios|uefi|FILE";
    let hvm = ["no boot code", "no EFI system partition", mend, text(&blank)];
    refuse(&world, &blank, &["--mode", "hvm"], &hvm);
    let ended = refuse(&world, &blank, &[], &hvm);
    ended.says(&["neither a PV nor an HVM guest", "no boot entry was found", "--kernel"]);
    let ended = refuse(&world, &blank, &["--mode", "pv"], &["no kernel to boot"]);
    assert!(!ended.stderr.contains("EFI"), "{ended:?}");
    let empty = world.efi_disk("empty-esp.raw", &[]);
    refuse(&world, &empty, &["--mode", "hvm"], &["partition 1 has neither EFI/BOOT/BOOTX64.EFI"]);
    let other = world.efi_disk("arm-esp.raw", &[("EFI/BOOT/BOOTAA64.EFI", b"MZ")]);
    refuse(&world, &other, &[], &["partition 1 has neither EFI/BOOT/BOOTX64.EFI"]);
}

#[test]
fn a_disk_without_a_kernel_becomes_an_hvm_guest_by_the_firmware_that_it_can_boot_by() {
    let world = World::new();
    require_kvm();
    let own = world.scratch().join("own");
    fs::create_dir(&own).unwrap();
    fs::copy(flash_firmware(&world), own.join("OVMF_CODE_4M.fd")).unwrap();
    fs::copy(world.path("TINY_VARS.fd"), own.join("OVMF_VARS_4M.fd")).unwrap();
    fs::copy(world.path("TINY_CODE.fd"), own.join("bios-256k.bin")).unwrap();
    let run = |disk: &Path, options: &[&str]| {
        let report = world.scratch().join("report.json");
        let mut run = world.amiboot();
        run.env("AMIBOOT_FIRMWARE_PATH", &own).arg("run").arg(disk).args(options).arg("--boot-report").arg(&report);
        let ended = finish(&mut run).code(0);
        let report: serde_json::Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
        (ended, report["mode"].as_str().unwrap().to_owned())
    };
    let bios = "fail: no status";
    // Boot code and no partitions, as memtest86+ has it.
    let (ended, mode) = run(&boot_sector(&world), &[]);
    assert_eq!(mode, "hvm");
    let ended =
        ended.shows(bios).says(&["an HVM guest (bios: boot code in the first sector)", "no boot entry was found"]);
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    let uefi = world.efi_disk("uefi.raw", &[("EFI/BOOT/BOOTX64.EFI", b"MZ")]);
    let (ended, mode) = run(&uefi, &[]);
    assert_eq!(mode, "hvm");
    ended.shows("kept").says(&["an HVM guest (uefi: /EFI/BOOT/BOOTX64.EFI on partition 1)"]);
    run(&uefi, &["--mode", "hvm"]).0.shows("kept");
    run(&uefi, &["--disk", "nvme"]).0.shows("kept");
    run(&uefi, &["--firmware", "bios"]).0.shows(bios).says(&["does not look as if bios could boot it", "no boot code"]);
    // Both ways: as EC2 starts an image without a registered boot mode.
    patch(&uefi, 0, &[0xeb, 0xfe]);
    run(&uefi, &["--mode", "hvm"]).0.shows(bios);
    run(&uefi, &["--uefi-vars", text(&world.scratch().join("vars.fd"))]).0.shows("kept");
    // What has a kernel is a PV guest.
    let pv = world.pv_image("pv.raw");
    patch(&pv, 0, &[0xeb, 0xfe]);
    patch(&pv, 510, &[0x55, 0xaa]);
    assert_eq!(run(&pv, &[]).1, "pv");
    assert_eq!(run(&pv, &["--mode", "hvm"]).1, "hvm");
    // A kernel that is not there, and boot code that is.
    let menu = menu("/boot/vmlinuz-gone ro", None);
    let gone = world.ext("gone.raw", &["-t", "ext2"], &[("boot/grub/menu.lst", menu.as_bytes())]);
    let ended = finish(world.amiboot().arg("run").arg(&gone)).code(1);
    ended.says(&["neither a PV", "/boot/vmlinuz-gone", "no boot code"]);
    patch(&gone, 0, &[0xeb, 0xfe]);
    patch(&gone, 510, &[0x55, 0xaa]);
    let (ended, mode) = run(&gone, &[]);
    assert_eq!(mode, "hvm");
    ended.shows(bios).says(&["/boot/vmlinuz-gone", "bios: boot code"]);
}

#[test]
fn options_of_the_other_kind_of_guest_are_not_passed_over() {
    let world = World::new();
    let vars = world.scratch().join("vars.fd");
    let hvm = [["--firmware", "uefi"], ["--disk", "nvme"], ["--firmware-log", "log"], ["--uefi-vars", text(&vars)]];
    for option in hvm {
        let both = finish(world.run("hello").args(option)).code(2);
        both.says(&[option[0], "--kernel", "leave out one of them"]);
        finish(world.run("hello").args(option).args(["--mode", "pv"])).code(2).says(&[option[0], "--mode hvm"]);
    }
    let disk = world.blank_disk();
    for option in [["--kernel", "k"], ["--initrd", "i"], ["--cmdline", "c"], ["--append", "a"], ["--entry", "0"]] {
        let says = [option[0], "--mode pv"];
        refuse_with(2, &world, &disk, &[&option[..], &["--mode", "hvm"]].concat(), &says);
        refuse_with(2, &world, &disk, &[&option[..], &["--disk", "nvme"]].concat(), &[option[0], "--disk"]);
    }
    assert!(!vars.exists());
}
