//! Bad input: a clear error that names the file, the field and the mend; nothing changed, nothing left behind.

mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use support::disks::{BzImage, elf32_segment, gzip, menu, patch, text, tool};
use support::{Ended, World, finish, require_kvm};

/// Runs what must be refused before any guest starts, and checks that it did nothing else.
#[track_caller]
fn refuse(world: &World, code: i32, words: &[&dyn AsRef<OsStr>], says: &[&str]) -> Ended {
    require_kvm();
    let before = world.contents();
    let ended = finish(world.amiboot().args(words.iter().map(AsRef::as_ref))).code(code).says(says);
    assert_eq!(ended.stdout, "", "{ended:?}");
    assert_eq!(world.contents(), before, "a file was changed: {ended:?}");
    assert_eq!(world.leftovers(), Vec::<PathBuf>::new(), "{ended:?}");
    // One error, in one line: not a trace of it through all the layers.
    if code == 1 || !ended.stderr.contains("For more information") {
        assert_eq!(ended.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{ended:?}");
    }
    ended
}

/// Refuses to run a disk.
#[track_caller]
fn refuse_disk(world: &World, disk: &Path, says: &[&str]) -> Ended {
    let named = [&[text(disk)], says].concat();
    refuse(world, 1, &[&"run", &disk], &named)
}

/// Refuses to run a kernel.
#[track_caller]
fn refuse_kernel(world: &World, kernel: &Path, says: &[&str]) -> Ended {
    let named = [&["--kernel", text(kernel)], says].concat();
    refuse(world, 1, &[&"run", &world.blank_disk(), &"--kernel", &kernel], &named)
}

#[test]
fn what_is_no_disk() {
    let world = World::new();
    let pipe = world.path("pipe");
    tool("coreutils", "mkfifo", &[text(&pipe)]);
    let folder = world.path("folder");
    fs::create_dir(&folder).unwrap();
    let prose = "It was the best of times, it was the worst of times.\n".repeat(20);
    for (disk, says) in [
        (world.path("none.raw"), "no such file"),
        (folder, "this is a directory"),
        (pipe, "this is a named pipe"),
        ("/dev/null".into(), "this is a character device"),
        (world.file("empty.raw", ""), "the file is empty"),
        (world.file("short.raw", [0; 100]), "100 bytes do not look like a disk"),
        (world.file("prose.raw", prose), "this is text"),
    ] {
        refuse_disk(&world, &disk, &[says]);
        refuse(&world, 1, &[&"image", &"inspect", &disk], &[text(&disk), says]);
    }
    let both = world.blank_disk();
    refuse(&world, 1, &[&"run", &both, &"--format", &"qcow2"], &[text(&both), "not a qcow2 file", "--format raw"]);
}

#[test]
fn a_disk_without_a_kernel() {
    let world = World::new();
    let mend = &["no kernel to boot", "amiboot image inspect", "--kernel"];
    refuse_disk(&world, &world.blank_disk(), mend);
    refuse_disk(&world, &world.ext("no-boot.raw", &["-t", "ext4"], &[("etc/hostname", b"x")]), mend);
}

#[test]
fn a_disk_that_was_cut_off() {
    let world = World::new();
    let whole = world.pv_image("whole.raw");
    refuse_disk(&world, &world.cut(&whole, "cut.raw", 4 << 20), &["the disk is truncated", "8388608 bytes"]);

    let parts = world.partitioned("parts.raw", &["-n1:2048:40000"], &[(2048, &whole)]);
    refuse_disk(&world, &world.cut(&parts, "cut-parts.raw", 4 << 20), &["partition 1 ends at byte", "is truncated"]);

    let qcow2 = world.qcow2_of(&whole, "whole.qcow2");
    refuse_disk(&world, &world.cut(&qcow2, "cut-tables.qcow2", 100_000), &["table"]);
    refuse_disk(&world, &world.cut(&qcow2, "cut-header.qcow2", 600), &[]);
}

#[test]
fn an_entry_that_names_what_is_not_there() {
    let world = World::new();
    let kernel = fs::read(world.guest("hello")).unwrap();
    let no_kernel = menu("/boot/vmlinuz-gone ro", None);
    let no_initrd = menu("/boot/vmlinuz ro", Some("/boot/initrd-gone"));
    let mend = &["menu.lst", "--entry", "--kernel", "no such file"];
    let disk = world.ext("no-kernel.raw", &["-t", "ext2"], &[("boot/grub/menu.lst", no_kernel.as_bytes())]);
    refuse_disk(&world, &disk, &[&["/boot/vmlinuz-gone"], &mend[..]].concat());
    let files: [(&str, &[u8]); 2] = [("boot/vmlinuz", &kernel), ("boot/grub/menu.lst", no_initrd.as_bytes())];
    let disk = world.ext("no-initrd.raw", &["-t", "ext3"], &files);
    refuse_disk(&world, &disk, &[&["/boot/initrd-gone"], &mend[..]].concat());
    // Another's own kernel does without.
    let own = world.guest("halt");
    let run = [text(&disk), "--kernel", text(&own), "--initrd", text(&own), "--until", "ready"];
    finish(world.amiboot().arg("run").args(run)).code(0);
    refuse(&world, 1, &[&"run", &disk, &"--entry", &"Windows"], &[text(&disk), "--entry \"Windows\"", "0 \"Tiny\""]);
    let none = world.blank_disk();
    let words: [&dyn AsRef<OsStr>; 6] = [&"run", &none, &"--kernel", &own, &"--entry", &"0"];
    refuse(&world, 1, &words, &[text(&none), "--entry \"0\"", "there is none on this disk"]);
}

#[test]
fn a_default_entry_that_is_passed_over_is_told() {
    let world = World::new();
    let kernel = fs::read(world.guest("hello")).unwrap();
    let both = format!("{}\ntitle Other\nroot (hd0)\nkernel /boot/vmlinuz\n", menu("/boot/vmlinuz-gone", None));
    let files: [(&str, &[u8]); 2] = [("boot/vmlinuz", &kernel), ("boot/grub/menu.lst", both.as_bytes())];
    let disk = world.ext("two.raw", &["-t", "ext4"], &files);
    let says = ["the default boot entry \"Tiny\" cannot be booted", "/boot/vmlinuz-gone", "taking \"Other\""];
    finish(world.amiboot().arg("run").arg(&disk)).code(0).shows("hello").says(&says);
    // Asked for by name, it is an error; and asked for the other, there is nothing to tell.
    refuse(&world, 1, &[&"run", &disk, &"--entry", &"Tiny"], &["\"Tiny\"", "no such file"]);
    let ended = finish(world.amiboot().arg("run").arg(&disk).args(["--entry", "Other"])).code(0);
    assert_eq!(ended.stderr, "");
}

#[test]
fn a_file_system_that_cannot_be_read() {
    let world = World::new();
    let menu = menu("/boot/vmlinuz ro", None);
    let files: [(&str, &[u8]); 1] = [("boot/grub/menu.lst", menu.as_bytes())];
    let inline = world.ext("inline.raw", &["-t", "ext4", "-O", "inline_data"], &files);
    refuse_disk(&world, &inline, &["ext4 with the feature inline_data"]);

    let luks = world.file("luks.raw", [&b"LUKS\xba\xbe\0\x02"[..], &[0; 1 << 20]].concat());
    refuse_disk(&world, &luks, &["LUKS"]);
    let files: [(&str, &[u8]); 2] = [("boot/vmlinuz", b"kernel"), ("boot/grub/menu.lst", menu.as_bytes())];
    let locked = world.ext("locked.raw", &["-t", "ext4", "-O", "encrypt"], &files);
    // EXT4_ENCRYPT_FL beside EXT4_EXTENTS_FL (Linux, Documentation/filesystems/ext4/inodes.rst).
    tool("e2fsprogs", "debugfs", &["-w", "-R", "set_inode_field /boot flags 0x80800", text(&locked)]);
    refuse_disk(&world, &locked, &["/boot", "is encrypted (ext4 fscrypt)"]);

    let part = world.partitioned("luks-part.raw", &["-n1:2048:0"], &[(2048, &luks)]);
    refuse_disk(&world, &part, &["partition 1 (crypto_LUKS)", "encrypted (LUKS version 2)"]);
}

#[test]
fn a_qcow2_that_is_not_whole_in_itself() {
    let world = World::new();
    let raw = world.blank_disk();
    let backed = world.path("backed.qcow2");
    tool("qemu-utils", "qemu-img", &["create", "-qf", "qcow2", "-F", "raw", "-b", text(&raw), text(&backed)]);
    refuse_disk(&world, &backed, &["backing file", "blank.raw", "qemu-img convert"]);
    // crypt_method of the header; to have one made takes long.
    let locked = world.qcow2_of(&raw, "locked.qcow2");
    patch(&locked, 32, &2_u32.to_be_bytes());
    refuse_disk(&world, &locked, &["encrypted (crypt_method 2)", "qemu-img convert"]);
    let external = world.path("external.qcow2");
    let option = format!("data_file={}", text(&world.path("data")));
    tool("qemu-utils", "qemu-img", &["create", "-qf", "qcow2", "-o", &option, text(&external), "1M"]);
    refuse_disk(&world, &external, &["incompatible_features", "qemu-img"]);
}

#[test]
fn a_qcow2_made_to_harm() {
    let world = World::new();
    let good = world.qcow2_of(&world.blank_disk(), "good.qcow2");
    // Offsets and fields of QEMU's docs/interop/qcow2.txt.
    let cases: [(&str, u64, &[u8], &str); 6] = [
        ("cluster_bits", 20, &63_u32.to_be_bytes(), "cluster_bits"),
        ("size", 24, &u64::MAX.to_be_bytes(), "size"),
        ("l1_size", 36, &u32::MAX.to_be_bytes(), "l1_size"),
        ("l1_table_offset", 40, &(1_u64 << 60).to_be_bytes(), "l1_table_offset"),
        ("refcount_table_clusters", 56, &u32::MAX.to_be_bytes(), "refcount_table"),
        ("version", 4, &9_u32.to_be_bytes(), "version 9"),
    ];
    for (name, offset, bytes, says) in cases {
        let path = world.path(&format!("{name}.qcow2"));
        fs::copy(&good, &path).unwrap();
        patch(&path, offset, bytes);
        refuse_disk(&world, &path, &[says]);
    }
}

#[test]
fn a_kernel_that_is_none() {
    let world = World::new();
    let elf = fs::read(world.guest("hello")).unwrap();
    let mut arm_elf = elf.clone();
    arm_elf[18..20].copy_from_slice(&183_u16.to_le_bytes());
    let mut arm_image = vec![0; 4096];
    arm_image[0x38..0x3c].copy_from_slice(b"ARM\x64");
    let folder = world.path("folder");
    fs::create_dir(&folder).unwrap();
    let pipe = world.path("pipe");
    tool("coreutils", "mkfifo", &[text(&pipe)]);
    for (kernel, says) in [
        (world.path("gone"), "No such file"),
        (folder, "it is a directory"),
        (pipe, "a pipe; give a regular file"),
        (world.file("empty", ""), "empty"),
        (world.file("text", "vmlinuz ".repeat(100)), "not a Linux kernel for x86"),
        (world.file("zeros", [0; 9000]), "not a Linux kernel for x86"),
        (world.file("arm-elf", arm_elf), "built for aarch64; only x86_64 and i386"),
        (world.file("arm-image", arm_image), "built for aarch64"),
        (world.file("cut-elf", &elf[..0x60]), "the kernel is truncated"),
    ] {
        refuse_kernel(&world, &kernel, &[says]);
    }
}

#[test]
fn a_kernel_that_lies_in_its_header() {
    let world = World::new();
    let elf = fs::read(world.guest("hello")).unwrap();
    let payload = gzip(&elf);
    let good = BzImage::of(&payload).bytes();
    finish(world.amiboot().arg("run").arg(world.blank_disk()).arg("--kernel").arg(world.file("good", &good)))
        .code(0)
        .shows("hello");
    let lie = |change: &dyn Fn(&mut BzImage<'_>)| {
        let mut image = BzImage::of(&payload);
        change(&mut image);
        image.bytes()
    };
    let garbage = [&payload[..10], &[0xff; 600], &1000_u32.to_le_bytes()].concat();
    for (name, bytes, says) in [
        ("cut", good[..good.len() - 100].to_vec(), "the compressed payload ends at byte"),
        ("cut-header", good[..0x210].to_vec(), "the setup header ends at byte"),
        ("setup_sects", lie(&|k| k.setup_sects = 255), "the setup code ends at byte"),
        ("payload_offset", lie(&|k| k.payload_offset = u32::MAX - 15), "the compressed payload ends at byte"),
        ("payload_length", lie(&|k| k.payload_length = u32::MAX), "the compressed payload ends at byte"),
        ("init_size", lie(&|k| k.init_size = 0xf000_0000), "init_size"),
        ("garbage", BzImage::of(&garbage).bytes(), "gzip payload is damaged"),
    ] {
        refuse_kernel(&world, &world.file(name, bytes), &[says]);
    }
}

#[test]
fn a_kernel_that_unpacks_without_end() {
    let world = World::new();
    // 600 MiB of nothing, and then a size that tells so, or one that does not.
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    for _ in 0..600 {
        packed.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let packed = packed.finish().unwrap();
    for (name, size, says) in [("honest", 600_u32 << 20, "the limit is 536870912"), ("liar", 1000, "damaged")] {
        let payload = [&packed[..], &size.to_le_bytes()].concat();
        refuse_kernel(&world, &world.file(name, BzImage::of(&payload).bytes()), &["gzip payload", says]);
    }
}

#[test]
fn a_kernel_beyond_memory() {
    let world = World::new();
    let mut elf = fs::read(world.guest("hello")).unwrap();
    let memory_size = elf32_segment(&elf, 20);
    elf[memory_size..memory_size + 4].copy_from_slice(&(1_u32 << 30).to_le_bytes());
    refuse_kernel(&world, &world.file("large", &elf), &["the kernel needs memory", "--memory"]);
}

#[test]
fn an_initrd_that_cannot_be_loaded() {
    let world = World::new();
    let (kernel, disk) = (world.guest("hello"), world.blank_disk());
    let sparse = |name, len| {
        let path = world.path(name);
        File::create(&path).unwrap().set_len(len).unwrap();
        path
    };
    for (initrd, says) in [
        (world.path("gone"), "No such file"),
        (world.file("empty", ""), "the file is empty"),
        (sparse("large", 40 << 20), "give the guest more with --memory"),
        (sparse("huge", (1 << 30) + 1), "the limit is 1073741824"),
    ] {
        refuse(
            &world,
            1,
            &[&"run", &disk, &"--kernel", &kernel, &"--memory", &"32M", &"--initrd", &initrd],
            &["--initrd", text(&initrd), says],
        );
    }
}

#[test]
fn memory_and_processors_that_there_are_not() {
    let world = World::new();
    let (kernel, disk) = (world.guest("hello"), world.blank_disk());
    let cases: [(i32, &str, &str, &str); 9] = [
        (2, "--memory", "0", "say the unit too"),
        (2, "--memory", "0M", "at least 16 MiB"),
        (2, "--memory", "4K", "at least 16 MiB"),
        (2, "--memory", "15M", "at least 16 MiB"),
        (1, "--memory", "1000T", "ask for less"),
        (2, "--cpus", "0", "at least one"),
        (1, "--cpus", "255", "at most"),
        (1, "--cpus", "4294967295", "at most"),
        (2, "--cpus", "4294967296", "4294967295"),
    ];
    for (code, option, value, says) in cases {
        refuse(&world, code, &[&"run", &disk, &"--kernel", &kernel, &option, &value], &[option, says]);
    }
}

#[test]
fn a_mapping_that_cannot_be() {
    let world = World::new();
    let (kernel, disk) = (world.guest("hello"), world.blank_disk());
    let data = text(&disk).to_owned();
    let file = |rest: &str| format!("/dev/sdf={data}{rest}");
    let mut cases: Vec<(i32, Vec<String>, Vec<&str>)> = vec![
        (2, vec!["/dev/foo=1G".into()], vec!["/dev/foo", "not a device name", "/dev/sdf to /dev/sdp"]),
        (2, vec!["/dev/sda16=1G".into()], vec!["/dev/sda16", "from 1 to 15"]),
        (2, vec!["/dev/sdf=1G".into(), "/dev/sdf=2G".into()], vec!["/dev/sdf is there twice"]),
        (1, vec![file(",size=4K")], vec!["/dev/sdf", &data, "smaller than snapshot"]),
        (1, vec!["/dev/sda1=4K".into()], vec!["/dev/sda1", &data, "smaller than snapshot"]),
        (2, vec![file(",colour=red")], vec!["\"colour\" is not known", "read-only"]),
        (2, vec![file(",read-only=perhaps")], vec!["neither true nor false"]),
        (2, vec![file(",format=vmdk")], vec!["\"vmdk\" is not known", "raw and qcow2"]),
        (2, vec!["/dev/sdf=snap-0123456789abcdef0".into()], vec!["/dev/sdf", "SnapshotId", "give the disk file"]),
        (1, vec!["/dev/sdf=gone.raw".into()], vec!["/dev/sdf", "gone.raw", "no such file"]),
        (2, vec!["/dev/sdf=10".into()], vec!["/dev/sdf", "say the unit too"]),
        (2, vec!["/dev/sdf=0G".into()], vec!["/dev/sdf", "size"]),
        (2, vec!["/dev/sdf=1000T".into()], vec!["/dev/sdf", "at most 64T"]),
        (2, vec!["/dev/sdf=ephemeral99".into()], vec!["/dev/sdf", "ephemeral23"]),
        (2, vec!["/dev/sda1=none".into()], vec!["/dev/sda1", "the root device"]),
        (2, vec!["/dev/sdf".into()], vec!["DEV=SOURCE"]),
        (2, vec!["/dev/sdf=".into()], vec!["there is no source"]),
        (1, vec!["@gone.json".into()], vec!["@gone.json", "cannot read"]),
        (2, vec!["[{\"DeviceName\":\"/dev/sdf\",\"Ebs\":{\"Size\":1}}]".into()], vec!["Size", "VolumeSize"]),
        (2, vec!["[".into()], vec!["not the JSON of a block device mapping"]),
    ];
    let many = ('b'..='z').map(|c| format!("/dev/sd{c}=1M")).chain(('b'..='z').map(|c| format!("/dev/xvd{c}=1M")));
    cases.push((2, many.collect(), vec!["51 volumes", "room for"]));
    for (code, mapping, says) in cases {
        let mut words: Vec<&dyn AsRef<OsStr>> = vec![&"run", &disk, &"--kernel", &kernel];
        for entry in &mapping {
            words.extend([&"--bdm" as &dyn AsRef<OsStr>, entry]);
        }
        refuse(&world, code, &words, &says);
    }
}

#[test]
fn a_command_line_over_the_limit() {
    let world = World::new();
    let (kernel, disk) = (world.guest("hello"), world.blank_disk());
    let long = "x".repeat(2048);
    let words: [&dyn AsRef<OsStr>; 6] = [&"run", &disk, &"--kernel", &kernel, &"--append", &long];
    refuse(&world, 1, &words, &[text(&kernel), "at most 2047", "--append"]);
    let words: [&dyn AsRef<OsStr>; 6] = [&"run", &disk, &"--kernel", &kernel, &"--append", &"two\nlines"];
    refuse(&world, 1, &words, &[text(&kernel), "0x0a", "--append"]);
    let fits = "x".repeat(2047 - "console=ttyS0 ".len());
    finish(world.amiboot().args(words[..5].iter().map(AsRef::as_ref)).arg(fits)).code(0);
}

#[test]
fn a_report_that_cannot_be_written() {
    let world = World::new();
    let (kernel, disk) = (world.guest("hello"), world.blank_disk());
    for (path, says) in [
        (world.path("no-folder").join("report.json"), "there is no directory"),
        (disk.join("report.json"), "there is no directory"),
        (world.scratch(), "it is a directory"),
    ] {
        refuse(
            &world,
            1,
            &[&"run", &disk, &"--kernel", &kernel, &"--boot-report", &path],
            &["--boot-report", text(&path), says],
        );
    }
}

#[test]
fn scratch_and_cache_directories_that_are_not_there() {
    let world = World::new();
    let gone = world.path("gone");
    let before = world.contents();
    let mut run = world.run("hello");
    finish(run.env("TMPDIR", &gone)).code(1).says(&[text(&gone), "TMPDIR names another"]);
    let file = world.file("file", "x");
    finish(world.run("hello").env("AMIBOOT_CACHE", &file)).code(1).says(&[text(&file), "AMIBOOT_CACHE"]);
    assert!(world.contents().len() > before.len());
    // A cache directory is made where there is none.
    finish(world.run("hello").env("AMIBOOT_CACHE", world.path("new/cache"))).code(0);
}

/// Where mount namespaces can be had, hides /dev/kvm and sees how the program takes it.
#[test]
fn a_host_without_kvm() {
    let world = World::new();
    let mut hidden = std::process::Command::new("unshare");
    hidden.args(["-m", "sh", "-c", "mount --bind /dev/null /dev/kvm"]);
    let can_hide = hidden.stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success());
    if !can_hide {
        eprintln!("not tried: this user cannot make a mount namespace (root can)");
        return;
    }
    let hide = |script: &str| {
        let program = env!("CARGO_BIN_EXE_amiboot");
        let script = format!("mount --bind /dev/null /dev/kvm && '{program}' {script}");
        let mut command = world.shell("exec unshare -m sh -c \"$SCRIPT\"");
        command.env("SCRIPT", script);
        command
    };
    let disk = world.blank_disk();
    finish(&mut hide(&format!("run '{}'", disk.display()))).code(1).says(&["/dev/kvm"]);
    // Who has named a wrong file reads of that.
    finish(&mut hide("run gone.raw")).code(1).says(&["gone.raw", "no such file"]);
}
