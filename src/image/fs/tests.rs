#![allow(clippy::cast_possible_truncation, reason = "test data of known size")]

use std::fs;
use std::path::Path;

use super::*;
use crate::image::testing::{Fixture, ROOT_UUID, Random, TestDisk, run};

fn window(path: &Path) -> Window {
    let disk = TestDisk::file(path);
    let len = crate::disk::Disk::size(&disk);
    Window::new(disk.shared(), 0, len)
}

fn tree(path: &Path) -> (Identity, Tree) {
    let window = window(path);
    let identity = identify(&window).unwrap().unwrap();
    let tree = open(&window, &identity).unwrap();
    (identity, tree)
}

/// A file that spans many blocks and has a hole, which in the small blocks of these ext2 volumes is no whole indirect
/// block.
fn large() -> Vec<u8> {
    let mut random = Random(5);
    let mut out: Vec<u8> = (0..1_300_000).map(|_| random.next() as u8).collect();
    out[200_000..300_000].fill(0);
    out
}

fn fill(f: &Fixture) {
    f.add("root/boot/vmlinuz-1", large()).add("root/etc/os-release", "ID=x\n").add("root/empty", "");
    f.link("root/vmlinuz", "boot/vmlinuz-1").link("root/abs", "/boot/../etc/./os-release");
    f.link("root/loop", "loop2").link("root/loop2", "/loop").link("root/out", "../../../etc/os-release");
    f.link("root/dir", "boot").link("root/self", ".").link("root/none", "/nowhere");
    for i in 0..600 {
        f.add(&format!("root/many/a-file-with-a-name-of-some-length-{i:04}"), "");
    }
}

fn check(tree: &mut Tree) {
    assert_eq!(tree.read("/etc/os-release", 100).unwrap(), b"ID=x\n");
    assert!(tree.read("/vmlinuz", 2 << 20).unwrap() == large());
    assert!(tree.read("dir//vmlinuz-1", 2 << 20).unwrap() == large());
    assert_eq!(tree.read("/abs", 100).unwrap(), b"ID=x\n");
    assert_eq!(tree.read("/out", 100).unwrap(), b"ID=x\n");
    assert_eq!(tree.read("/self/self/self/empty", 0).unwrap(), b"");
    assert_eq!(tree.resolve("/dir/../dir/vmlinuz-1").unwrap().0, "/boot/vmlinuz-1");
    assert_eq!(tree.head("/vmlinuz", 100).unwrap(), (large()[..100].to_vec(), 1_300_000));
    assert!(matches!(tree.read("/loop", 100), Err(FsError::Loop(_))));
    assert!(matches!(tree.read("/none", 100), Err(FsError::NotFound(_))));
    assert!(matches!(tree.read("/etc/os-release/x", 100), Err(FsError::WrongKind { .. })));
    assert!(matches!(tree.read("/etc", 100), Err(FsError::WrongKind { .. })));
    let error = tree.read("/vmlinuz", 1_299_999).unwrap_err().to_string();
    assert_eq!(error, "/vmlinuz: 1300000 bytes, the limit is 1299999");
    let names = tree.list("/many").unwrap();
    assert_eq!((names.len(), names[599].as_str()), (600, "a-file-with-a-name-of-some-length-0599"));
    assert!(tree.list("/").unwrap().contains(&"vmlinuz".to_owned()));
    assert_eq!(tree.list("/nowhere").unwrap(), Vec::<String>::new());
    assert_eq!(tree.stat("/nowhere").unwrap(), None);
    assert_eq!(tree.stat("/").unwrap().unwrap().kind, Kind::Directory);
    assert!(tree.is_dir("/dir") && !tree.is_dir("/vmlinuz") && tree.exists("/vmlinuz"));
}

#[test]
fn ext() {
    let f = Fixture::new();
    fill(&f);
    for kind in ["ext2", "ext3", "ext4"] {
        let image = f.ext4("root", "img", ROOT_UUID, &["-t", kind]);
        let (identity, mut tree) = tree(&image);
        assert_eq!(identity.kind, kind);
        assert_eq!((identity.label.as_deref(), identity.uuid.as_deref()), (Some("cloudimg"), Some(ROOT_UUID)));
        check(&mut tree);
        fs::remove_file(image).unwrap();
    }
}

#[test]
fn a_large_hole_in_a_block_map_is_refused() {
    let f = Fixture::new();
    let mut file = vec![0; 1_300_000];
    file[1_299_999] = 1;
    f.add("root/hole", &file);
    let (_, mut tree) = tree(&f.ext4("root", "img", ROOT_UUID, &["-t", "ext2"]));
    let error = tree.read("/hole", 2 << 20).unwrap_err().to_string();
    assert_eq!(error, "unsupported: /hole has a hole that covers a whole indirect block (ext2, ext3)");
    // Extents have no such limit.
    let (_, mut tree) = super::tests::tree(&f.ext4("root", "img4", ROOT_UUID, &[]));
    assert!(tree.read("/hole", 2 << 20).unwrap() == file);
}

#[test]
fn xfs() {
    let f = Fixture::new();
    fill(&f);
    let (identity, mut tree) = tree(&f.xfs("root", "img"));
    assert_eq!((identity.kind.as_str(), identity.label.as_deref()), ("xfs", Some("xroot")));
    assert_eq!(identity.uuid.as_deref(), Some(ROOT_UUID));
    check(&mut tree);
}

#[test]
fn btrfs() {
    let f = Fixture::new();
    fill(&f);
    let (identity, mut tree) = tree(&f.btrfs("root", "img"));
    assert_eq!((identity.kind.as_str(), identity.label.as_deref()), ("btrfs", Some("broot")));
    assert_eq!(identity.uuid.as_deref(), Some(ROOT_UUID));
    check(&mut tree);
}

/// Subvolumes can only be made in a mounted file system, so this one came ready: 112 MiB, `mkfs.btrfs -m single -d
/// single`, `btrfs subvolume create` for root and home, and in root etc/os-release, etc/link -> os-release and
/// boot/vmlinuz-1; at the top level the file only-top. Packed with `zstd --ultra -22`.
const SUBVOLUMES: &[u8] = include_bytes!("subvolumes.btrfs.zst");

#[test]
fn btrfs_with_the_system_in_a_subvolume() {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut ruzstd::decoding::StreamingDecoder::new(SUBVOLUMES).unwrap(), &mut bytes).unwrap();
    let disk = TestDisk::memory(bytes);
    let len = crate::disk::Disk::size(&disk);
    let window = Window::new(disk.shared(), 0, len);
    let mut tree = open(&window, &identify(&window).unwrap().unwrap()).unwrap();
    assert_eq!(tree.read("/etc/link", 100).unwrap(), b"ID=fedora\n");
    assert_eq!(tree.list("/").unwrap(), ["boot", "etc", "sbin"]);
    // As GRUB writes its paths: from the top level.
    assert_eq!(tree.read("/root/boot/vmlinuz-1", 100).unwrap(), b"kernel\n");
    assert_eq!(tree.read("/only-top", 100).unwrap(), b"top\n");
    assert!(!tree.exists("/root/only-top") && tree.is_dir("/home"));
}

#[test]
fn fat() {
    let f = Fixture::new();
    f.add("esp/EFI/BOOT/BOOTX64.EFI", large()).add("esp/loader/entries/a-rather-long-name.conf", "title x\n");
    for (bits, size) in [("12", 4 << 20), ("16", 16 << 20), ("32", 64 << 20)] {
        let (identity, mut tree) = tree(&f.vfat("esp", "img", bits, size));
        assert_eq!((identity.kind.as_str(), identity.label.as_deref()), ("vfat", Some("UEFI")));
        assert_eq!(identity.uuid.as_deref(), Some("1234-ABCD"));
        assert!(tree.read("/efi/boot/bootx64.efi", 2 << 20).unwrap() == large());
        assert_eq!(tree.list("/loader/entries").unwrap(), ["a-rather-long-name.conf"]);
        assert_eq!(tree.read("/loader/entries/a-rather-long-name.conf", 8).unwrap(), b"title x\n");
        assert!(!tree.exists("/EFI/BOOT/BOOTX64.EFI/x") && !tree.exists("/EFI/none"));
    }
}

#[test]
fn what_cannot_be_read_says_why() {
    let refusal = |bytes: Vec<u8>| {
        let disk = TestDisk::memory(bytes);
        let len = crate::disk::Disk::size(&disk);
        let window = Window::new(disk.shared(), 0, len);
        let identity = identify(&window).unwrap().unwrap();
        let Err(e) = open(&window, &identity) else { panic!("{identity:?} was opened") };
        (identity.kind, e.to_string())
    };
    let with = |at: usize, magic: &[u8]| {
        let mut bytes = vec![0; 128 << 10];
        bytes[at..at + magic.len()].copy_from_slice(magic);
        bytes
    };
    for (at, magic, kind, why) in [
        (0, &b"LUKS\xba\xbe\0\x02"[..], "crypto_LUKS", "encrypted (LUKS version 2)"),
        (4086, b"SWAPSPACE2", "swap", "swap space"),
        (0, b"hsqs", "squashfs", "squashfs"),
        (1024, b"\xe2\xe1\xf5\xe0", "erofs", "EROFS"),
        (32_769, b"CD001", "iso9660", "installation medium"),
        (0, b"KDMV", "vmdk", "convert"),
    ] {
        let (found, error) = refusal(with(at, magic));
        assert_eq!(found, kind);
        assert!(error.starts_with("unsupported: ") && error.contains(why), "{error}");
    }
    let mut lvm = with(512, b"LABELONE");
    lvm[512 + 24..512 + 32].copy_from_slice(b"LVM2 001");
    assert!(refusal(lvm).1.contains("LVM2"));

    let f = Fixture::new();
    f.add("root/x", "y");
    for feature in ["inline_data", "mmp", "meta_bg,^resize_inode", "large_dir"] {
        let bytes = fs::read(f.ext4("root", "img", ROOT_UUID, &["-O", feature])).unwrap();
        let error = refusal(bytes).1;
        assert!(error.contains(feature.split(',').next().unwrap()), "{error}");
    }
    let mut half = fs::read(f.ext4("root", "img2", ROOT_UUID, &[])).unwrap();
    half.truncate(4 << 20);
    let error = refusal(half).1;
    assert!(
        error.contains("truncated: the file system has 8388608 bytes, the volume it is on only 4194304"),
        "{error}"
    );
}

#[test]
fn lies_about_sizes_end_soon() {
    let f = Fixture::new();
    f.add("root/boot/x", "y").add("root/file", "z");
    for kind in ["ext4", "ext2"] {
        let image = f.ext4("root", kind, ROOT_UUID, &["-t", kind, "-O", "^metadata_csum,^dir_index"]);
        for command in ["sif /boot size 0x3fffffffc00", "sif /file size 0x3fffffffc00", "ssv free_blocks_count 7"] {
            run("e2fsprogs", "debugfs", &["-w", "-R", command, image.to_str().unwrap()]);
        }
        let (_, mut tree) = tree(&image);
        assert!(matches!(tree.read("/file", 1 << 20), Err(FsError::TooLarge { .. })));
        // Found in the first block, or not found at all in any of billions.
        assert_eq!(tree.read("/boot/x", 10).unwrap(), b"y");
        let began = std::time::Instant::now();
        assert!(tree.read("/boot/nowhere", 10).is_err());
        assert!(tree.list("/boot").is_err());
        assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    }
    let image = f.ext4("root", "groups", ROOT_UUID, &["-O", "^metadata_csum"]);
    run("e2fsprogs", "debugfs", &["-w", "-R", "ssv blocks_per_group 0", image.to_str().unwrap()]);
    let window = window(&image);
    let identity = identify(&window).unwrap().unwrap();
    assert!(open(&window, &identity).is_err());
}

#[test]
fn an_encrypt_feature_alone_hides_nothing() {
    let f = Fixture::new();
    f.add("root/x", "y");
    let (_, mut tree) = tree(&f.ext4("root", "img", ROOT_UUID, &["-O", "encrypt"]));
    assert_eq!(tree.read("/x", 10).unwrap(), b"y");
}

#[test]
fn nothing_known() {
    let disk = TestDisk::memory(vec![0; 512]);
    assert_eq!(identify(&Window::new(disk.shared(), 0, 512)).unwrap(), None);
}
