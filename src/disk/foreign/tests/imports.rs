//! Files that qemu-img has made, and files with tricks.

use std::os::unix::fs::symlink;

use super::*;

/// Formats, options for `qemu-img`, and the largest part of the disk that may be called data, in MiB.
const KINDS: [(&str, &str, ImportFormat, u64); 13] = [
    ("raw", "", ImportFormat::Raw, 3),
    ("qcow2", "", ImportFormat::Qcow2, 3),
    ("qcow2", "cluster_size=4k", ImportFormat::Qcow2, 3),
    ("vmdk", "subformat=monolithicSparse", ImportFormat::Vmdk, 3),
    ("vmdk", "subformat=monolithicSparse,zeroed_grain=on", ImportFormat::Vmdk, 3),
    ("vmdk", "subformat=streamOptimized", ImportFormat::Vmdk, 3),
    ("vmdk", "subformat=monolithicFlat", ImportFormat::Vmdk, 3),
    ("vmdk", "subformat=twoGbMaxExtentSparse", ImportFormat::Vmdk, 3),
    ("vmdk", "subformat=twoGbMaxExtentFlat", ImportFormat::Vmdk, 3),
    ("vpc", "force_size=on", ImportFormat::Vhd, 12),
    ("vpc", "subformat=fixed,force_size=on", ImportFormat::Vhd, 3),
    ("vhdx", "subformat=dynamic,block_size=1M", ImportFormat::Vhdx, 8),
    ("vhdx", "subformat=fixed", ImportFormat::Vhdx, 48),
];

#[test]
fn what_others_make_is_read_and_sparse_stays_sparse() {
    let dir = tempfile::tempdir().unwrap();
    // Whole numbers of grains, blocks and clusters, and not.
    for size in [40 * MIB, 34 * MIB + 77 * 512, 5 * MIB] {
        let raw = sample(dir.path(), size);
        for (number, (format, options, expected, most)) in KINDS.iter().enumerate() {
            let path = dir.path().join(format!("{number}-{size}.disk"));
            convert(&raw, format, options, &path);
            let Imported { disk, format } = open(&path, None).unwrap();
            assert_eq!(format, *expected, "{options}");
            assert!(disk.is_read_only());
            if disk.size() != size {
                // What these formats cannot have is rounded up.
                assert!(matches!(format, ImportFormat::Vhdx) && disk.size() - size < MIB, "{options}: {}", disk.size());
                let longer = dir.path().join("longer.raw");
                std::fs::copy(&raw, &longer).unwrap();
                File::options().write(true).open(&longer).unwrap().set_len(disk.size()).unwrap();
                assert_same(&*disk, &longer);
            } else {
                assert_same(&*disk, &raw);
            }
            let data = data_len(&*disk).unwrap();
            assert!(data <= most * MIB, "{options}: {data} bytes of data");
            // Also where the format is said.
            open(&path, Some(format)).unwrap();
        }
    }
}

#[test]
fn large_empty_disks_are_passed_over_quickly() {
    let dir = tempfile::tempdir().unwrap();
    for (format, options, size) in [
        ("qcow2", "", "64T"),
        ("vmdk", "subformat=monolithicSparse", "1T"),
        ("vpc", "force_size=on", "2040G"),
        ("vhdx", "", "63T"),
    ] {
        let path = dir.path().join(format!("empty.{format}"));
        if options.is_empty() {
            qemu_img(&[&"create", &"-q", &"-f", &format, &path, &size]);
        } else {
            qemu_img(&[&"create", &"-q", &"-f", &format, &"-o", &options, &path, &size]);
        }
        let disk = open(&path, None).unwrap().disk;
        assert!(disk.size() >= 1 << 40, "{}", disk.size());
        assert_eq!(disk.next_data(0).unwrap(), None, "{format}");
    }
}

fn refused(path: &Path, format: Option<ImportFormat>) -> String {
    let error = open(path, format).err().expect("must be refused").to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
    error
}

#[test]
fn differences_from_a_parent_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let raw = sample(dir.path(), 5 * MIB);
    for format in ["qcow2", "vmdk"] {
        let (base, child) = (dir.path().join(format!("base.{format}")), dir.path().join(format!("child.{format}")));
        convert(&raw, format, "", &base);
        qemu_img(&[&"create", &"-q", &"-f", &format, &"-F", &format, &"-b", &base, &child]);
        let error = refused(&child, None);
        assert!(error.contains("base") || error.contains("parent"), "{error}");
    }
    let vhd = dir.path().join("disk.vhd");
    convert(&raw, "vpc", "", &vhd);
    let mut bytes = std::fs::read(&vhd).unwrap();
    let footer = bytes.len() - 512;
    // The type, and the checksum that then fits.
    bytes[footer + 63] = 4;
    let sum = u32::from_be_bytes(bytes[footer + 64..][..4].try_into().unwrap()) - 1;
    bytes[footer + 64..][..4].copy_from_slice(&sum.to_be_bytes());
    std::fs::write(&vhd, bytes).unwrap();
    assert!(refused(&vhd, None).contains("parent"));
}

#[test]
fn formats_that_are_said_and_are_not_there_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let raw = sample(dir.path(), 5 * MIB);
    for format in [ImportFormat::Qcow2, ImportFormat::Vmdk, ImportFormat::Vhd, ImportFormat::Vhdx] {
        let error = refused(&raw, Some(format));
        assert!(error.contains("leave out"), "{error}");
    }
    // A disk that begins like another format, and is said to be raw.
    let path = dir.path().join("disk.vmdk");
    convert(&raw, "vmdk", "", &path);
    assert_eq!(open(&path, Some(ImportFormat::Raw)).unwrap().format, ImportFormat::Raw);
}

#[test]
fn what_cannot_be_imported_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let luks = [&b"QFI\xfb\0\0\0\x03"[..], &[0; 24], &[0, 0, 0, 2], &[0; 1000]].concat();
    let cases: [(&[u8], &str); 8] = [
        (&luks, "encrypted"),
        (b"", "empty"),
        (&[0; 511], "at least one sector"),
        (&[&b"COWD"[..], &[0; 2048]].concat(), "COWD"),
        (&[&0xcafe_babe_u64.to_le_bytes()[..], &[0; 2048]].concat(), "seSparse"),
        (&[&b"LUKS\xba\xbe"[..], &[0; 2048]].concat(), "LUKS"),
        (b"# Disk DescriptorFile\nencryption.keySafe = \"x\"\n", "encrypted"),
        (b"# Disk DescriptorFile\nversion=1\n", "number of extents is 0"),
    ];
    for (bytes, words) in cases {
        std::fs::write(&path, bytes).unwrap();
        let error = refused(&path, None);
        assert!(error.contains(words), "{words}: {error}");
    }
    assert!(refused(&dir.path().join("none"), None).contains("no such file"));
}

#[test]
fn extents_are_files_right_beside_the_descriptor() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("secret");
    std::fs::write(&outside, [0x55; 4096]).unwrap();
    let inner = dir.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    std::fs::create_dir(inner.join("sub")).unwrap();
    std::fs::write(inner.join("sub/flat"), [0x55; 4096]).unwrap();
    std::fs::write(inner.join("good"), [0x55; 4096]).unwrap();
    std::fs::write(inner.join("short"), [0x55; 1024]).unwrap();
    symlink(&outside, inner.join("link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, inner.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let path = inner.join("disk.vmdk");
    let descriptor = |extent: &str| {
        let text = format!("# Disk DescriptorFile\nversion=1\ncreateType=\"monolithicFlat\"\n{extent}\n");
        std::fs::write(&path, text).unwrap();
    };
    let absolute = outside.display().to_string();
    for (name, words) in [
        ("../secret", "right beside"),
        (&absolute, "right beside"),
        ("sub/flat", "right beside"),
        ("./good", "right beside"),
        ("good/", "right beside"),
        ("", "right beside"),
        ("..", "right beside"),
        ("link", "symbolic link"),
        ("pipe", "no regular file"),
        ("sub", "no regular file"),
        ("none", "no such file"),
        ("short", "broken off"),
    ] {
        descriptor(&format!("RW 8 FLAT \"{name}\" 0"));
        let error = refused(&path, None);
        assert!(error.contains(words), "{name}: {error}");
    }
    descriptor("RW 8 SPARSE \"good\"");
    assert!(refused(&path, None).contains("sparse extent"));
    descriptor("RW 8 FLAT \"good\" 0\nRW 8 ZERO\nRW 4 FLAT \"good\" 4");
    let disk = open(&path, None).unwrap().disk;
    let expected = [[0x55; 4096], [0; 4096], [0x55; 4096]].concat();
    std::fs::write(&outside, &expected[..4096 * 2 + 2048]).unwrap();
    assert_same(&*disk, &outside);
    // The descriptor itself may be reached by a link: its files are where it really is.
    symlink(&path, dir.path().join("elsewhere.vmdk")).unwrap();
    assert_eq!(open(&dir.path().join("elsewhere.vmdk"), None).unwrap().disk.size(), disk.size());
}

#[test]
fn files_that_were_cut_off_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let raw = sample(dir.path(), 40 * MIB);
    for (format, options) in [
        ("vmdk", "subformat=monolithicSparse"),
        ("vmdk", "subformat=streamOptimized"),
        ("vpc", "force_size=on"),
        ("vhdx", "block_size=1M"),
    ] {
        let path = dir.path().join("cut");
        convert(&raw, format, options, &path);
        let file = File::options().write(true).open(&path).unwrap();
        let len = file.metadata().unwrap().len();
        file.set_len(len * 3 / 4).unwrap();
        let error = match open(&path, None) {
            Err(error) => error.to_string(),
            Ok(imported) => {
                let to = dir.path().join("out");
                let written = export::write(&*imported.disk, ExportFormat::Raw, &to, Overwrite::Refuse, &mut |_| {});
                assert!(!to.exists());
                written.unwrap_err().to_string()
            }
        };
        assert!(error.contains("broken off"), "{format}: {error}");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_log_that_has_to_be_replayed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.vhdx");
    convert(&sample(dir.path(), 5 * MIB), "vhdx", "", &path);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    for at in [64 << 10, 128 << 10] {
        let mut header = vec![0; 4096];
        file.read_exact_at(&mut header, at).unwrap();
        header[48..64].fill(7);
        header[4..8].fill(0);
        let sum = super::super::vhdx::checksum(&header);
        header[4..8].copy_from_slice(&sum.to_le_bytes());
        file.write_all_at(&header, at).unwrap();
    }
    let error = refused(&path, None);
    assert!(error.contains("log") && error.contains("check -r all"), "{error}");
}
