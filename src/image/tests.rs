//! Whole disks, made with the usual tools and inspected.

use super::partition::TableKind;
use super::testing::{Fixture, ROOT_UUID, TestDisk};
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
    println!("{}", serde_json::to_string_pretty(i).unwrap());
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
