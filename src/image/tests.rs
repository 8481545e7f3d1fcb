//! Whole disks, made with the usual tools and inspected.

#![allow(clippy::cast_possible_truncation, reason = "test data of known size")]

use super::partition::TableKind;
use super::testing::{BOOT_UUID, Fixture, ROOT_UUID, Random, TestDisk};
use super::*;

const GRUB_CFG: &str = include_str!("boot/grub/debian12.cfg");

fn debian_cfg() -> String {
    GRUB_CFG.replace("ROOT-UUID", ROOT_UUID)
}

#[test]
fn debian_with_gpt() {
    let f = Fixture::new();
    f.debian().kernel("root/boot", "6.1.0-25-amd64").kernel("root/boot", "6.1.0-22-amd64");
    f.add("root/boot/grub/grub.cfg", debian_cfg());
    f.add("esp/EFI/BOOT/BOOTX64.EFI", "MZ").add("esp/EFI/debian/grub.cfg", "x");
    let root = f.ext4("root", "root.img", ROOT_UUID, &[]);
    let esp = f.vfat("esp", "esp.img", "16", 16 << 20);
    let disk = f.gpt("disk.raw", &[(14, "ef02", None), (15, "ef00", Some(&esp)), (1, "8304", Some(&root))]);
    let image = inspect(TestDisk::file(&disk).shared()).unwrap();
    let i = image.inspection();
    assert_eq!((i.partition_table, i.root, i.boot, i.esp), (TableKind::Gpt, Some(1), Some(1), Some(15)));
    assert_eq!(i.notes, Vec::<String>::new());
    assert_eq!(i.architecture, Some(Architecture::X86_64));
    let os = i.os.as_ref().unwrap();
    assert_eq!((os.id.as_deref(), os.version_id.as_deref()), (Some("debian"), Some("12")));
    assert!(i.boot_modes.pv.possible && i.boot_modes.hvm_bios.possible && i.boot_modes.hvm_uefi.possible, "{i:?}");
    let titles: Vec<_> = i.entries.iter().map(|e| (e.title.as_str(), e.problem.is_none(), e.initrds.len())).collect();
    assert_eq!(
        titles,
        [
            ("Debian GNU/Linux", true, 1),
            ("Debian GNU/Linux, with Linux 6.1.0-25-amd64", true, 1),
            ("Debian GNU/Linux, with Linux 6.1.0-25-amd64 (recovery mode)", true, 1),
            ("Debian GNU/Linux, with Linux 6.1.0-22-amd64", true, 1),
            ("Debian GNU/Linux, with Linux 6.1.0-22-amd64 (recovery mode)", true, 1),
        ]
    );
    let entry = image.boot_entry().unwrap();
    assert!(entry.default);
    assert_eq!(entry.kernel, FileRef { partition: 1, path: "/boot/vmlinuz-6.1.0-25-amd64".into() });
    assert_eq!(entry.cmdline, format!("root=UUID={ROOT_UUID} ro consoleblank=0 console=tty0 console=ttyS0,115200"));
    let (bytes, info) = image.read_kernel(&entry.kernel).unwrap();
    assert_eq!(info.version.as_deref(), Some("6.1.0-25-amd64"));
    assert_eq!(kernel::extract_elf(&bytes).unwrap(), kernel::testing::elf(true, true));
    let p15 = i.partitions.iter().find(|p| p.slot.number == 15).unwrap();
    let fs = p15.filesystem.as_ref().unwrap();
    assert_eq!((fs.kind.as_str(), fs.uuid.as_deref(), fs.label.as_deref()), ("vfat", Some("1234-ABCD"), Some("UEFI")));
    assert_eq!(p15.slot.type_name.as_deref(), Some("EFI system"));
    let json = serde_json::to_value(i).unwrap();
    assert_eq!(json["partitions"][0]["number"], 1);
    assert_eq!(json["boot_modes"]["hvm-bios"]["possible"], true);
    assert_eq!(json["entries"][0]["kind"], "grub.cfg");
}

fn inspection(disk: &std::path::Path) -> Image {
    inspect(TestDisk::file(disk).shared()).unwrap()
}

const MENU_LST: &str = "default 0\ntimeout 0\ntitle Debian PV\nroot (hd0)\n\
    kernel /boot/vmlinuz-3.2 root=/dev/xvda1 ro console=hvc0\ninitrd /boot/initrd.img-3.2\n";

#[test]
fn a_classic_paravirtual_image() {
    let f = Fixture::new();
    f.debian().kernel("root/boot", "3.2").add("root/boot/grub/menu.lst", MENU_LST);
    f.link("root/boot/grub/grub.conf", "menu.lst");
    // Left by an installer, for another way of booting: PV-GRUB reads menu.lst.
    f.add("root/boot/grub/grub.cfg", debian_cfg());
    let image = inspection(&f.ext4("root", "disk", ROOT_UUID, &["-t", "ext3"]));
    let i = image.inspection();
    assert_eq!((i.partition_table, i.root, i.boot, i.esp), (TableKind::None, Some(0), Some(0), None));
    let entry = image.boot_entry().unwrap();
    assert_eq!((entry.title.as_str(), entry.kind, entry.source.line), ("Debian PV", EntryKind::MenuLst, 3));
    assert_eq!(entry.cmdline, "root=/dev/xvda1 ro console=hvc0");
    assert_eq!(i.entries.iter().filter(|e| e.kind == EntryKind::MenuLst).count(), 1);
    assert!(i.boot_modes.pv.possible);
    assert_eq!(i.boot_modes.hvm_bios.reason, "the first sector holds no boot code");
    assert_eq!(i.boot_modes.hvm_uefi.reason, "there is no EFI system partition");
    // The entries of grub.cfg name kernels that are not there.
    let missing = i.entries.iter().find(|e| e.kind == EntryKind::GrubCfg).unwrap();
    assert_eq!(missing.problem.as_deref(), Some("kernel /boot/vmlinuz-6.1.0-25-amd64: no such file"));
    let mut initrd = Vec::new();
    let twice = [entry.initrds[0].clone(), entry.initrds[0].clone()];
    assert_eq!(image.copy_initrds(&twice, &mut initrd).unwrap(), 32);
    assert_eq!(initrd, b"initrd of 3.2\0\0\0initrd of 3.2\0\0\0");
}

#[test]
fn boot_apart_root_on_btrfs_entries_of_bls() {
    let f = Fixture::new();
    f.debian().kernel("boot", "6.5.6-300.fc39.x86_64").add("boot/grub2/grubenv", "saved_entry=m-6.5.6\n");
    f.add(
        "root/etc/fstab",
        format!("UUID={ROOT_UUID} / btrfs subvol=root 0 0\nLABEL=cloudimg /boot ext4 defaults 1 2\n"),
    );
    f.add("boot/grub2/grub.cfg", include_str!("boot/grub/fedora.cfg").replace("BOOT", BOOT_UUID));
    f.add(
        "boot/loader/entries/m-6.5.6.conf",
        "title Fedora\nlinux /vmlinuz-6.5.6-300.fc39.x86_64\ninitrd /initrd.img-6.5.6-300.fc39.x86_64 $tuned_initrd\n\
         options $kernelopts\n",
    );
    f.add("esp/EFI/fedora/shimx64.efi", "MZ");
    let (root, boot) = (f.btrfs("root", "root.img"), f.ext4("boot", "boot.img", BOOT_UUID, &[]));
    let esp = f.vfat("esp", "esp.img", "16", 16 << 20);
    let disk = f
        .gpt("disk", &[(1, "ef02", None), (2, "ef00", Some(&esp)), (3, "8300", Some(&boot)), (4, "8300", Some(&root))]);
    let image = inspection(&disk);
    let i = image.inspection();
    assert_eq!((i.root, i.boot, i.esp), (Some(4), Some(3), Some(2)), "{i:?}");
    let entry = image.boot_entry().unwrap();
    assert_eq!((entry.kind, entry.problem.as_deref(), entry.default), (EntryKind::Bls, None, true), "{i:?}");
    assert_eq!(entry.kernel, FileRef { partition: 3, path: "/vmlinuz-6.5.6-300.fc39.x86_64".into() });
    assert_eq!(entry.cmdline, "root=UUID=ROOT ro rootflags=subvol=root no_timer_check console=ttyS0");
    assert!(i.boot_modes.hvm_uefi.possible && i.boot_modes.hvm_uefi.reason.contains("boot variable"));
    let mounts: Vec<_> = i.partitions.iter().map(|p| p.mount_point.as_deref()).collect();
    assert_eq!(mounts, [None, Some("/boot/efi"), Some("/boot"), Some("/")]);
}

#[test]
fn amazon_linux_on_xfs_with_mbr() {
    let f = Fixture::new();
    f.debian().kernel("root/boot", "4.14").add("root/usr/lib/os-release", "NAME=\"Amazon Linux\"\nID=\"amzn\"\n");
    f.add("root/boot/grub/menu.lst", MENU_LST.replace("(hd0)", "(hd0,0)").replace("3.2", "4.14"));
    let root = f.xfs("root", "root.img");
    let disk = f.path("disk");
    let sectors = u32::try_from(root.metadata().unwrap().len() / 512).unwrap();
    let mut sector = vec![0; 512];
    sector[0] = 0xeb;
    sector[446..462].copy_from_slice(&[0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0]);
    sector[458..462].copy_from_slice(&sectors.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&disk, sector).unwrap();
    std::fs::OpenOptions::new().write(true).open(&disk).unwrap().set_len(u64::from(2048 + sectors) * 512).unwrap();
    super::testing::copy_sparse(&root, &disk, 2048 * 512);
    let image = inspection(&disk);
    let i = image.inspection();
    assert_eq!((i.partition_table, i.root), (TableKind::Mbr, Some(1)));
    let entry = image.boot_entry().unwrap();
    assert_eq!((entry.kernel.partition, entry.problem.as_deref()), (1, None));
    assert!(i.boot_modes.hvm_bios.possible && i.boot_modes.pv.possible);
    assert_eq!(i.os.as_ref().unwrap().id.as_deref(), Some("amzn"));
}

#[test]
fn entries_with_problems() {
    let f = Fixture::new();
    f.debian().kernel("root/boot", "1");
    let entry = |name: &str, initrd: &str| format!("title {name}\nkernel /boot/{name} x\ninitrd /boot/{initrd}\n");
    let whole = std::fs::read(f.path("root/boot/vmlinuz-1")).unwrap();
    let mut arm = kernel::testing::elf(true, false);
    arm[18] = 183;
    f.add("root/boot/cut", &whole[..whole.len() - 1000]).add("root/boot/arm", arm).add("root/boot/text", "hello\n");
    f.add("root/boot/elf", kernel::testing::elf(false, true)).add("root/boot/none", "").add("root/boot/empty", "");
    let names = ["cut", "arm", "text", "empty", "absent", "grub"];
    let mut menu: String = names.iter().map(|n| entry(n, "initrd.img-1")).collect();
    menu += &entry("vmlinuz-1", "missing");
    menu += &entry("vmlinuz-1", "none");
    menu += &entry("elf", "initrd.img-1");
    f.add("root/boot/grub/menu.lst", menu);
    let image = inspection(&f.ext4("root", "disk", ROOT_UUID, &[]));
    let problems: Vec<_> = image.inspection().entries.iter().map(|e| e.problem.clone().unwrap_or_default()).collect();
    let expected = [
        "truncated",
        "built for aarch64",
        "not a Linux kernel",
        "empty",
        "kernel /boot/absent: no such file",
        "kernel /boot/grub: is a directory",
        "initrd /boot/missing: no such file",
        "initrd /boot/none: the file is empty",
        "",
    ];
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.contains(expected) && problem.is_empty() == expected.is_empty(), "{expected}: {problem}");
    }
    // The default cannot be booted, so the first that can is taken.
    let entry = image.boot_entry().unwrap();
    assert_eq!((entry.kernel.path.as_str(), entry.default), ("/boot/elf", false));
    assert_eq!(entry.kernel_info.as_ref().unwrap().arch, Architecture::I386);
    assert!(image.inspection().boot_modes.pv.possible);
    let arm = FileRef { partition: 0, path: "/boot/arm".into() };
    let error = image.read_kernel(&arm).unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot use /boot/arm: the kernel is built for aarch64; only x86_64 and i386 kernels can run here"
    );
    let gone = FileRef { partition: 3, path: "/x".into() };
    assert_eq!(image.read_file(&gone, 1).unwrap_err().to_string(), "the disk has no partition 3");
}

#[test]
fn a_direct_boot_takes_the_initrd_of_the_second_try() {
    let f = Fixture::new();
    f.debian().kernel("root/boot", "1").kernel("root/boot", "2");
    let cfg = "menuentry U {\n if [ \"${initrdfail}\" = 1 ]; then\n linux /boot/vmlinuz-1 a\n initrd /boot/initrd.img-1\n\
               else\n linux /boot/vmlinuz-1 b\n fi\n initrdfail\n}\n";
    f.add("root/boot/grub/grub.cfg", cfg);
    let image = inspection(&f.ext4("root", "disk", ROOT_UUID, &[]));
    let i = image.inspection();
    assert_eq!((i.default_entry, i.entries[0].retry_entry, i.entries[0].cmdline.as_str()), (Some(0), Some(1), "b"));
    assert_eq!(image.boot_entry().unwrap().cmdline, "a");
}

#[test]
fn a_loader_that_is_not_read_is_named() {
    let f = Fixture::new();
    f.debian().add("root/boot/extlinux.conf", "DEFAULT virt\n");
    let image = inspection(&f.ext4("root", "disk", ROOT_UUID, &[]));
    let expected = "/boot/extlinux.conf: an extlinux configuration cannot be read; \
                    name the kernel and initrd yourself, or boot with firmware";
    assert_eq!(image.inspection().notes, [expected]);
}

#[test]
fn kernels_and_initrds_are_read_whole() {
    let f = Fixture::new();
    f.debian().kernel("root/boot", "3.2").add("root/boot/grub/menu.lst", MENU_LST);
    let image = inspection(&f.ext4("root", "disk", ROOT_UUID, &[]));
    let entry = image.boot_entry().unwrap();
    let (bytes, info) = image.read_kernel(&entry.kernel).unwrap();
    assert_eq!(info.version.as_deref(), Some("3.2"));
    assert_eq!(*kernel::extract_elf(&bytes).unwrap(), *kernel::testing::elf(true, true));
    let mut initrds = Vec::new();
    assert_eq!(image.copy_initrds(&entry.initrds, &mut initrds).unwrap(), 16);
    assert_eq!(initrds, b"initrd of 3.2\0\0\0");
    let error = image.read_kernel(&entry.initrds[0]).unwrap_err().to_string();
    assert!(error.starts_with("cannot use /boot/initrd.img-3.2: not a Linux kernel for x86"), "{error}");
}

#[test]
fn nothing_to_boot() {
    assert!(matches!(inspect(TestDisk::memory(Vec::new()).shared()), Err(Error::Empty)));
    for bytes in [b"#!/bin/sh\necho this is text\n".to_vec(), vec![0; 1 << 20], vec![0xff; 1 << 20]] {
        let image = inspect(TestDisk::memory(bytes).shared()).unwrap();
        let i = image.inspection();
        assert!(i.root.is_none() && i.entries.is_empty() && image.boot_entry().is_none());
        assert!(i.notes[0].contains("neither a partition with a known file system"), "{:?}", i.notes);
        assert!(!i.boot_modes.pv.possible && !i.boot_modes.hvm_bios.possible && !i.boot_modes.hvm_uefi.possible);
        assert!(i.boot_modes.pv.reason.contains("no boot entry was found"));
    }
    let mut luks = vec![0; 1 << 20];
    luks[..6].copy_from_slice(b"LUKS\xba\xbe");
    let image = inspect(TestDisk::memory(luks).shared()).unwrap();
    let fs = image.inspection().partitions[0].filesystem.clone().unwrap();
    assert_eq!((fs.kind.as_str(), fs.unsupported.as_deref()), ("crypto_LUKS", Some("encrypted (LUKS version 0)")));
}

#[test]
fn damaged_disks_never_panic() {
    let f = Fixture::new();
    f.debian().kernel("root/boot", "3.2").add("root/boot/grub/menu.lst", MENU_LST);
    f.add("esp/EFI/BOOT/BOOTX64.EFI", "MZ").add("esp/loader/entries/a-long-name.conf", "linux /vmlinuz\n");
    let images = [
        (f.ext4("root", "ext4", ROOT_UUID, &[]), 80_u64 << 10),
        (f.ext4("root", "ext2", ROOT_UUID, &["-t", "ext2"]), 80 << 10),
        (f.vfat("esp", "fat16", "16", 16 << 20), 300 << 10),
        (f.vfat("esp", "fat32", "32", 64 << 20), 2 << 20),
        (f.xfs("root", "xfs"), 128 << 10),
        (f.btrfs("root", "btrfs"), 40 << 20),
    ];
    let mut random = Random(99);
    for (path, hot) in &images {
        // Where the metadata is: blocks that hold anything.
        let bytes = std::fs::File::open(path).unwrap();
        let used: Vec<u64> = (0..hot / 512)
            .filter(|i| {
                let mut sector = [0; 512];
                std::os::unix::fs::FileExt::read_exact_at(&bytes, &mut sector, i * 512).unwrap();
                sector.iter().any(|&b| b != 0)
            })
            .collect();
        for _ in 0..40 {
            let mut disk = TestDisk::file(path);
            for _ in 0..=random.below(8) {
                let at = used[random.below(used.len())] * 512 + random.next() % 512;
                disk.change(at, [0, 1, 0xff, 0x7f, random.next() as u8][random.below(5)]);
            }
            let image = inspect(disk.shared()).unwrap();
            if let Some(entry) = image.boot_entry() {
                let _ = image.read_kernel(&entry.kernel);
                let _ = image.copy_initrds(&entry.initrds, &mut std::io::sink());
            }
        }
    }
}

#[test]
fn a_look_at_a_disk_reads_no_more_than_its_budget() {
    let f = Fixture::new();
    f.add("root/etc/os-release", "ID=x\n").add("root/file", vec![7; 1 << 20]);
    let disk = TestDisk::file(&f.ext4("root", "img", ROOT_UUID, &[])).shared();
    let table = partition::read(&disk).unwrap();
    let read = |budget| -> Result<(), Error> {
        let mut volumes = Volumes::new(&disk, &table, budget)?;
        let file = |path: &str| FileRef { partition: 0, path: path.to_owned() };
        // However little each of them takes.
        for _ in 0..3 {
            volumes.copy(&file("/file"), 1 << 20, &mut io::sink())?;
        }
        Ok(())
    };
    read(8 << 20).unwrap();
    for budget in [68 << 10, 100 << 10, 2 << 20, 3 << 20] {
        let error = read(budget).unwrap_err().to_string();
        assert!(error.contains("more reading than any real one"), "{budget}: {error}");
    }
}
