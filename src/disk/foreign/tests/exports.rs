//! Files that are written, read by qemu-img and by our own import.

use proptest::prelude::*;

use super::*;
use crate::disk::{HostCache, blank};

const FORMATS: [(ExportFormat, &str, ImportFormat); 4] = [
    (ExportFormat::Raw, "raw", ImportFormat::Raw),
    (ExportFormat::Qcow2, "qcow2", ImportFormat::Qcow2),
    (ExportFormat::Vmdk, "vmdk", ImportFormat::Vmdk),
    (ExportFormat::Vhd, "vpc", ImportFormat::Vhd),
];

fn write(disk: &dyn Disk, format: ExportFormat, to: &Path) -> Summary {
    let mut last: Option<Progress> = None;
    let summary = export::write(disk, format, to, Overwrite::Refuse, &mut |now| {
        assert!(last.is_none_or(|last| last.done <= now.done && last.total == now.total) && now.done <= now.total);
        last = Some(now);
    });
    assert!(last.is_some_and(|last| last.done == last.total));
    summary.unwrap()
}

/// The size that qemu-img sees.
fn size_by_qemu(path: &Path, format: &str) -> u64 {
    let said = qemu_img(&[&"info", &"--output=json", &"-f", &format, &path]);
    serde_json::from_str::<serde_json::Value>(&said).unwrap()["virtual-size"].as_u64().unwrap()
}

#[test]
fn what_is_written_is_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    for size in [40 * MIB, 34 * MIB + 77 * 512, 5 * MIB, 64 * 1024, 512] {
        let raw = sample(dir.path(), size);
        let disk = raw_disk(&raw);
        for (format, name, import) in FORMATS {
            let to = dir.path().join(format!("{size}.{name}"));
            let summary = write(&*disk, format, &to);
            assert_eq!(summary.disk_size, size);
            assert_eq!(summary.file_len, to.metadata().unwrap().len());
            assert!(summary.data >= 512 && summary.data <= 12 * MIB, "{summary:?}");
            if !matches!(format, ExportFormat::Raw | ExportFormat::Vhd) {
                qemu_img(&[&"check", &"-f", &name, &to]);
            }
            assert_eq!(size_by_qemu(&to, name), size, "{name}");
            qemu_img(&[&"compare", &"-f", &"raw", &"-F", &name, &raw, &to]);
            let imported = open(&to, Some(import)).unwrap();
            assert_same(&*imported.disk, &raw);
            // And from there into every other.
            for (again, _, import) in FORMATS.into_iter().filter(|_| size % MIB != 0) {
                let to = dir.path().join("again");
                write(&*imported.disk, again, &to);
                assert_same(&*open(&to, Some(import)).unwrap().disk, &raw);
                std::fs::remove_file(&to).unwrap();
            }
        }
    }
}

#[test]
fn formats_are_told_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let disk = raw_disk(&sample(dir.path(), 5 * MIB));
    for (format, name, import) in FORMATS {
        let to = dir.path().join(name);
        write(&*disk, format, &to);
        assert_eq!(open(&to, None).unwrap().format, import);
        assert_eq!(name.parse::<ExportFormat>().unwrap(), format);
        assert_eq!(name.parse::<ImportFormat>().unwrap(), import);
    }
}

#[test]
fn empty_disks_of_any_size_are_small_files() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    for (format, name, import) in FORMATS {
        for size in [512, 127 << 30, 2040 << 30] {
            let disk = blank(size, dir.path(), HostCache::Used).unwrap();
            let to = dir.path().join("empty");
            write(&*disk, format, &to);
            let imported = open(&to, Some(import)).unwrap().disk;
            assert_eq!(imported.size(), size, "{name}");
            assert_eq!(imported.next_data(0).unwrap(), None, "{name}");
            assert_eq!(size_by_qemu(&to, name), size, "{name}");
            assert!(to.metadata().unwrap().blocks() * 512 < 6 * MIB, "{name}: {}", to.metadata().unwrap().blocks());
            std::fs::remove_file(&to).unwrap();
        }
    }
    let disk = blank((2040 << 30) + 512, dir.path(), HostCache::Used).unwrap();
    let to = dir.path().join("large.vhd");
    let error = export::write(&*disk, ExportFormat::Vhd, &to, Overwrite::Refuse, &mut |_| {}).unwrap_err();
    assert!(matches!(error, ExportError::TooLarge { .. }) && !to.exists(), "{error}");
}

#[test]
fn a_file_that_is_there_stays_unless_it_is_to_be_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let disk = raw_disk(&sample(dir.path(), 5 * MIB));
    let to = dir.path().join("disk.vmdk");
    std::fs::write(&to, "mine").unwrap();
    let error = export::write(&*disk, ExportFormat::Vmdk, &to, Overwrite::Refuse, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("there already"), "{error}");
    assert_eq!(std::fs::read(&to).unwrap(), b"mine");
    export::write(&*disk, ExportFormat::Vmdk, &to, Overwrite::Replace, &mut |_| {}).unwrap();
    assert_eq!(open(&to, None).unwrap().disk.size(), 5 * MIB);
}

/// A disk of so many bytes, all of them data, that cannot be read from some byte on.
struct Broken {
    size: u64,
    from: u64,
}

impl Disk for Broken {
    fn size(&self) -> u64 {
        self.size
    }
    fn is_read_only(&self) -> bool {
        true
    }
    fn read_at(&self, offset: u64, bufs: &[vm_memory::VolatileSlice<'_>]) -> std::io::Result<()> {
        for buf in bufs {
            buf.copy_from(&vec![7u8; buf.len()][..]);
        }
        if offset >= self.from { Err(std::io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }
    fn write_at(&self, _: u64, _: &[vm_memory::VolatileSlice<'_>]) -> std::io::Result<()> {
        Ok(())
    }
    fn flush(&self) -> std::io::Result<()> {
        Ok(())
    }
    fn discard(&self, _: u64, _: u64) -> std::io::Result<()> {
        Ok(())
    }
    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn nothing_is_left_of_an_export_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("disk");
    for (format, ..) in FORMATS {
        let disk = Broken { size: 40 * MIB, from: 9 * MIB };
        let error = export::write(&disk, format, &to, Overwrite::Refuse, &mut |_| {}).unwrap_err();
        assert!(matches!(error, ExportError::Disk(_)), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
    // More than any host has room for.
    let disk = Broken { size: 64 << 40, from: u64::MAX };
    for format in [ExportFormat::Raw, ExportFormat::Qcow2] {
        let error = export::write(&disk, format, &to, Overwrite::Refuse, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("make room"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Wherever data lies, every format gives it back, and what is zero is not in the file.
    #[test]
    fn any_disk_comes_back(
        sectors in 1u64..9000,
        runs in prop::collection::vec((0u64..9000, 1u64..300, any::<bool>()), 0..12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let raw = dir.path().join("disk.raw");
        let file = File::create(&raw).unwrap();
        file.set_len(sectors * 512).unwrap();
        for (at, count, is_data) in runs.into_iter().filter(|(at, ..)| *at < sectors) {
            let len = usize::try_from(count.min(sectors - at) * 512).unwrap();
            file.write_all_at(&vec![if is_data { 0xc3 } else { 0 }; len], at * 512).unwrap();
        }
        let data = std::fs::read(&raw).unwrap().chunks(512).filter(|sector| sector[0] != 0).count() as u64 * 512;
        for (format, _, import) in FORMATS {
            let to = dir.path().join(format.to_string());
            let summary = write(&*raw_disk(&raw), format, &to);
            prop_assert!(summary.data >= data && (data > 0 || summary.data == 0), "{format}: {summary:?} {data}");
            assert_same(&*open(&to, Some(import)).unwrap().disk, &raw);
        }
    }
}
