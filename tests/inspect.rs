//! `amiboot image inspect`: what it says of disks made by the tools that make disks.

mod support;

use std::fs::{self, File};
use std::path::Path;

use serde_json::{Value, json};
use support::disks::{menu, put_file, text, tool};
use support::pty::Pty;
use support::{Running, World, finish};

fn inspect(world: &World, disk: &Path) -> Value {
    let before = fs::metadata(disk).unwrap();
    let ended = finish(world.amiboot().args(["image", "inspect", "--json"]).arg(disk)).code(0);
    assert_eq!(ended.stderr, "");
    assert_eq!(fs::metadata(disk).unwrap().modified().unwrap(), before.modified().unwrap());
    serde_json::from_str(&ended.stdout).unwrap()
}

fn described(world: &World, disk: &Path) -> String {
    finish(world.amiboot().args(["image", "inspect"]).arg(disk)).code(0).stdout
}

#[test]
fn a_bare_file_system() {
    let world = World::new();
    let disk = world.pv_image("root.raw");
    let found = inspect(&world, &disk);
    assert_eq!(found["path"], text(&disk));
    assert_eq!(found["format"], "raw");
    assert_eq!(found["virtual_size"], 8 << 20);
    assert_eq!(found["partition_table"], "none");
    assert_eq!(found["partitions"].as_array().unwrap().len(), 1);
    let partition = &found["partitions"][0];
    assert_eq!(
        (&partition["number"], &partition["start"], &partition["size"], &partition["mount_point"]),
        (&json!(0), &json!(0), &json!(8 << 20), &json!("/"))
    );
    let uuid = "11111111-2222-3333-4444-555555555555";
    let expected = json!({"type": "ext4", "label": "tiny-root", "uuid": uuid, "unsupported": null});
    assert_eq!(partition["filesystem"], expected);
    assert_eq!(found["root"], 0);
    assert_eq!(found["os"]["id"], "tiny");
    assert_eq!(found["os"]["version_id"], "7");
    assert_eq!(found["os"]["pretty_name"], "Tiny System 7");
    assert_eq!(found["architecture"], "i386");
    assert_eq!(found["boot_modes"]["pv"]["possible"], true);
    for mode in ["hvm-bios", "hvm-uefi"] {
        assert_eq!(found["boot_modes"][mode]["possible"], false);
        assert!(!found["boot_modes"][mode]["reason"].as_str().unwrap().is_empty());
    }
    assert_eq!(found["default_entry"], 0);
    let entry = &found["entries"][0];
    assert_eq!(entry["title"], "Tiny");
    assert_eq!(entry["kind"], "menu.lst");
    assert_eq!(entry["kernel"], json!({"partition": 0, "path": "/boot/vmlinuz"}));
    assert_eq!(entry["cmdline"], "root=/dev/sda1 ro");
    assert_eq!(entry["source"], json!({"partition": 0, "path": "/boot/grub/menu.lst", "line": 4}));
    assert_eq!(entry["default"], true);
    assert_eq!(entry["problem"], Value::Null);
    assert_eq!(entry["kernel_info"]["format"], "ELF");
}

#[test]
fn the_same_in_words() {
    let world = World::new();
    let shown = described(&world, &world.pv_image("root.raw"));
    for fact in [
        "8 MiB",
        "none: one file system on the whole disk",
        "Tiny System 7",
        "i386",
        "ext4",
        "tiny-root",
        "11111111-2222-3333-4444-555555555555",
        "pv        yes",
        "hvm-uefi  no",
        "Tiny (default)",
        "/boot/vmlinuz",
        "root=/dev/sda1 ro",
        "/boot/grub/menu.lst:4",
    ] {
        assert!(shown.contains(fact), "{fact:?} is not in {shown}");
    }
    assert!(!shown.contains('\x1b'), "colours, though this is no terminal: {shown:?}");
}

#[test]
fn partitions_fit_a_narrow_terminal() {
    let world = World::new();
    let root = world.pv_image("root.raw");
    let disk = world.partitioned("disk.raw", &["-n1:2048:40000", "-n2:40960:0", "-t2:ef02"], &[(2048, &root)]);
    let shown = described(&world, &disk);
    let (_, rest) = shown.split_once("Partitions\n").unwrap();
    let (partitions, _) = rest.split_once("\n\n").unwrap();
    let expected = "  1    Linux filesystem, 18.5 MiB at 1 MiB, /\n       ext4, UUID 11111111-2222-3333-4444-555555555555, label tiny-root\n  2    BIOS boot";
    assert!(partitions.starts_with(expected), "{partitions}");
    assert!(partitions.lines().all(|line| line.len() <= 80), "{partitions}");
}

#[test]
fn a_raw_disk_and_its_qcow2_are_the_same() {
    let world = World::new();
    let raw = world.pv_image("root.raw");
    let qcow2 = world.qcow2_of(&raw, "root.qcow2");
    let (mut one, mut other) = (inspect(&world, &raw), inspect(&world, &qcow2));
    assert_eq!(other["format"], "qcow2");
    for found in [&mut one, &mut other] {
        found.as_object_mut().unwrap().retain(|name, _| name != "path" && name != "format");
    }
    assert_eq!(one, other);
}

#[test]
fn a_gpt_with_a_root_and_an_esp() {
    let world = World::new();
    let root = world.pv_image("root.raw");
    let esp = world.path("esp.raw");
    File::create(&esp).unwrap().set_len(8 << 20).unwrap();
    tool("dosfstools", "mkfs.vfat", &["-n", "EFISYS", "-i", "abcd1234", text(&esp)]);
    let guid = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";
    let options = [
        "-U",
        guid,
        "-n1:2048:18431",
        "-t1:8300",
        "-c1:system",
        "-n15:20480:36863",
        "-t15:ef00",
        "-n3:40960:43007",
        "-t3:ef02",
    ];
    let disk = world.partitioned("disk.raw", &options, &[(2048, &root), (20480, &esp)]);
    let found = inspect(&world, &disk);
    assert_eq!(found["partition_table"], "gpt");
    assert_eq!(found["disk_id"].as_str().unwrap().to_lowercase(), guid);
    let numbers: Vec<_> = found["partitions"].as_array().unwrap().iter().map(|p| p["number"].clone()).collect();
    assert_eq!(numbers, [json!(1), json!(3), json!(15)]);
    assert_eq!((&found["root"], &found["esp"]), (&json!(1), &json!(15)));
    let first = &found["partitions"][0];
    assert_eq!((&first["start"], &first["size"]), (&json!(1 << 20), &json!(8 << 20)));
    assert_eq!(first["label"], "system");
    assert_eq!(first["filesystem"]["label"], "tiny-root");
    let last = &found["partitions"][2];
    assert_eq!(last["filesystem"]["type"], "vfat");
    assert_eq!(last["filesystem"]["label"], "EFISYS");
    assert_eq!(last["filesystem"]["uuid"], "ABCD-1234");
    assert_eq!(found["entries"][0]["kernel"], json!({"partition": 1, "path": "/boot/vmlinuz"}));
    assert!(described(&world, &disk).contains(&found["disk_id"].as_str().unwrap().to_owned()));
}

#[test]
fn an_mbr() {
    let world = World::new();
    let root = world.pv_image("root.raw");
    let disk = world.path("disk.raw");
    File::create(&disk).unwrap().set_len(32 << 20).unwrap();
    let script = world.file("script", "label: dos\nlabel-id: 0x12345678\nstart=2048, size=16384, type=83, bootable\n");
    tool("bash", "bash", &["-c", "sfdisk -q \"$0\" <\"$1\"", text(&disk), text(&script)]);
    put_file(&disk, 1 << 20, &root);
    let found = inspect(&world, &disk);
    assert_eq!(found["partition_table"], "mbr");
    assert!(found["disk_id"].as_str().unwrap().contains("12345678"), "{found:#}");
    let partition = &found["partitions"][0];
    assert_eq!((&partition["number"], &partition["active"]), (&json!(1), &json!(true)));
    assert_eq!(partition["filesystem"]["label"], "tiny-root");
    assert_eq!(found["boot_modes"]["pv"]["possible"], true);
    finish(world.amiboot().arg("run").arg(&disk)).code(0).shows("root=/dev/vda1 ro console=ttyS0|end");
}

#[test]
fn file_systems_of_every_kind() {
    let world = World::new();
    let made = |name: &str, package: &str, program: &str, options: &[&str], size: u64| {
        let path = world.path(name);
        File::create(&path).unwrap().set_len(size).unwrap();
        tool(package, program, &[options, &[text(&path)]].concat());
        path
    };
    for (kind, disk) in [
        ("ext2", made("ext2", "e2fsprogs", "mke2fs", &["-qt", "ext2", "-L", "label"], 8 << 20)),
        ("ext3", made("ext3", "e2fsprogs", "mke2fs", &["-qt", "ext3", "-L", "label"], 8 << 20)),
        ("xfs", made("xfs", "xfsprogs", "mkfs.xfs", &["-q", "-L", "label"], 512 << 20)),
        ("btrfs", made("btrfs", "btrfs-progs", "mkfs.btrfs", &["-q", "-L", "label"], 256 << 20)),
        ("vfat", made("vfat", "dosfstools", "mkfs.vfat", &["-n", "label"], 8 << 20)),
        ("swap", made("swap", "util-linux", "mkswap", &["-L", "label"], 8 << 20)),
    ] {
        let found = inspect(&world, &disk);
        let filesystem = &found["partitions"][0]["filesystem"];
        assert_eq!(filesystem["type"], kind, "{found:#}");
        assert_eq!(filesystem["label"].as_str().unwrap().to_lowercase(), "label");
        assert!(filesystem["uuid"].as_str().unwrap().len() >= 9);
        assert_eq!(filesystem["unsupported"].is_null(), kind != "swap", "{found:#}");
    }
}

#[test]
fn an_entry_that_cannot_boot_says_why() {
    let world = World::new();
    let menu = menu("/boot/vmlinuz-gone ro", None);
    let disk = world.ext("root.raw", &["-t", "ext4"], &[("boot/grub/menu.lst", menu.as_bytes())]);
    let found = inspect(&world, &disk);
    let problem = found["entries"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("/boot/vmlinuz-gone") && problem.contains("no such file"), "{problem}");
    assert_eq!(found["boot_modes"]["pv"]["possible"], false);
    assert!(described(&world, &disk).contains(problem));
}

#[test]
fn what_an_image_says_cannot_drive_the_terminal() {
    let world = World::new();
    let menu = "default 0\ntitle a\x1b[2Jb\x07\u{9b}c\nroot (hd0)\nkernel /boot/vmlinuz \x1b]0;owned\x07\n";
    let os = b"PRETTY_NAME=\"x\x1b[31my\"\n";
    let files: [(&str, &[u8]); 2] = [("boot/grub/menu.lst", menu.as_bytes()), ("etc/os-release", os)];
    let disk = world.ext("root.raw", &["-t", "ext4"], &files);
    let shown = described(&world, &disk);
    assert!(shown.contains("[2J"), "{shown}");
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    let ended = finish(world.amiboot().arg("run").arg(&disk)).code(1);
    assert!(!ended.stderr.chars().any(|c| c.is_control() && c != '\n'), "{ended:?}");
}

#[test]
fn nor_can_an_error_about_it() {
    let world = World::new();
    let menu = "default 0\ntitle \x1b]0;owned\x07\nroot (hd0)\nkernel /boot/\x1b]0;owned\x07 ro\n";
    let disk = world.ext("root.raw", &["-t", "ext4"], &[("boot/grub/menu.lst", menu.as_bytes())]);
    for words in [&["run"][..], &["image", "inspect"]] {
        let mut look = world.amiboot();
        // A terminal that takes colours.
        look.env_remove("NO_COLOR").env("TERM", "xterm-256color").args(words).arg(&disk);
        let ended = Pty::open().start(&mut look).end();
        assert!(ended.stdout.contains("]0;owned"), "{ended:?}");
        assert!(!ended.stdout.contains("\x1b]") && !ended.stdout.contains('\x07'), "{ended:?}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let world = World::new();
    let disk = world.pv_image("root.raw");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut look = world.amiboot();
    look.args(["image", "inspect"]).arg(&disk).stdout(writer).stderr(std::process::Stdio::piped());
    let ended = Running::start_as_it_is(&mut look).end().code(0);
    assert_eq!(ended.stderr, "");
}

#[test]
fn the_words_of_the_call() {
    let world = World::new();
    finish(world.amiboot().args(["image", "inspect"])).code(2).says(&["<FILE>"]);
    finish(world.amiboot().args(["image", "look"])).code(2).says(&["look"]);
    finish(world.amiboot().args(["image", "inspect", "x", "--format", "vmdk"])).code(2).says(&["vmdk", "raw"]);
}
