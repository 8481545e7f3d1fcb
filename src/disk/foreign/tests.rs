//! Import and export against qemu-img, and against each other.

mod exports;
mod hostile;
mod imports;

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::export::{self, ExportError, ExportFormat, Summary, data_len};
use super::import::{self, ImportError, ImportFormat, Imported};
use super::{Flaw, Overwrite, Progress, is_zero};
use crate::disk::tests::qemu_img;
use crate::disk::{Disk, Error, Raw};

const MIB: u64 = 1 << 20;

/// Numbers that look random, and are the same each time.
fn random(seed: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1), |last| {
        Some(last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    })
    .map(|number| number >> 33)
    .skip(1)
}

/// A raw disk with holes, written zeroes, text and noise, which also has its last sector in use.
fn sample(dir: &Path, size: u64) -> PathBuf {
    let path = dir.join(format!("sample-{size}.raw"));
    let file = File::create(&path).unwrap();
    file.set_len(size).unwrap();
    let noise: Vec<u8> = random(7).take(50_000).flat_map(u64::to_le_bytes).collect();
    let text = b"all work and no play makes Jack a dull boy\n".repeat(5000);
    let parts: [(u64, &[u8]); 7] = [
        (0, b"boot sector"),
        (64 * 1024 - 3, b"across a cluster"),
        (MIB + 512, &noise),
        (3 * MIB, &[0; 300_000]),
        (4 * MIB - 100, &text),
        (33 * MIB, &noise[..70_000]),
        (size - 512, &[0x5a; 512]),
    ];
    for (at, bytes) in parts {
        if at + bytes.len() as u64 <= size {
            file.write_all_at(bytes, at).unwrap();
        }
    }
    path
}

/// Opens a file that is free, as [`crate::disk::tests::open_free`].
fn open(path: &Path, format: Option<ImportFormat>) -> Result<Imported, ImportError> {
    loop {
        match import::open(path, format) {
            Err(ImportError::Disk(Error::Locked { .. })) => std::thread::yield_now(),
            Err(ImportError::Flaw { source: Flaw::Extent { why, .. }, .. }) if why.contains("is writing") => {}
            other => return other,
        }
    }
}

/// What differs between a disk and the bytes of a raw file: nothing. Reads in pieces of an odd size.
fn assert_same(disk: &dyn Disk, raw: &Path) {
    let expected = std::fs::read(raw).unwrap();
    assert_eq!(disk.size(), expected.len() as u64);
    for (piece, at) in expected.chunks(70_001).zip((0u64..).step_by(70_001)) {
        let mut got = vec![0xa5; piece.len()];
        disk.read_exact_at(at, &mut got).unwrap();
        assert!(got == piece, "bytes {at}..{}", at + piece.len() as u64);
    }
    // Outside of what it calls data there is nothing, and what it calls data goes forward.
    let mut at = 0;
    while let Some(data) = disk.next_data(at).unwrap() {
        assert!(data.start >= at && data.end > data.start && data.end <= disk.size(), "{data:?} from {at}");
        let hole = &expected[usize::try_from(at).unwrap()..usize::try_from(data.start).unwrap()];
        assert!(is_zero(hole), "{at}..{}", data.start);
        at = data.end;
    }
    assert!(is_zero(&expected[usize::try_from(at).unwrap()..]), "from {at}");
}

fn raw_disk(path: &Path) -> Arc<dyn Disk> {
    Arc::new(Raw::new(File::open(path).unwrap(), true).unwrap())
}

/// Makes a file of another format of a raw one.
fn convert(raw: &Path, format: &str, options: &str, to: &Path) {
    let mut arguments: Vec<&dyn AsRef<OsStr>> = vec![&"convert", &"-f", &"raw", &"-O", &format];
    if !options.is_empty() {
        arguments.extend([&"-o" as &dyn AsRef<OsStr>, &options]);
    }
    arguments.extend([&raw as &dyn AsRef<OsStr>, &to]);
    qemu_img(&arguments);
}
