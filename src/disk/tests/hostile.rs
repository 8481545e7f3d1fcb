//! qcow2 files that are damaged or made to harm.

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::*;
use crate::disk::Error;

/// Bytes to put at offsets.
type Patches<'a> = &'a [(u64, &'a [u8])];

/// A qcow2 file with some numbers of its header changed.
fn patched(dir: &Path, options: &str, patches: Patches<'_>) -> PathBuf {
    let path = disk_file(dir, Some(options));
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    for (offset, bytes) in patches {
        file.write_all_at(bytes, *offset).unwrap();
    }
    path
}

fn refused(path: &Path, access: Access) -> String {
    let before = std::fs::read(path).unwrap();
    let error = open(&source(path, access)).err().expect("must be refused");
    assert!(std::fs::read(path).unwrap() == before, "a refused file must stay as it was");
    let text = error.to_string();
    assert!(text.contains(&path.display().to_string()), "{text}");
    text
}

#[test]
fn headers_that_cannot_be_used_are_refused_with_the_field_and_the_mend() {
    const V3: &str = "-o cluster_size=64k";
    let huge = u64::MAX.to_be_bytes();
    let cases: &[(Patches, &[&str])] = &[
        (&[(4, &[0, 0, 0, 4])], &["version 4"]),
        (&[(8, &[0, 0, 0, 0, 0, 0, 2, 0]), (16, &[0, 0, 0, 11]), (512, b"/etc/shadow")], &["/etc/shadow", "convert"]),
        (&[(8, &huge), (16, &[0xff; 4])], &["backing file", "convert"]),
        (&[(20, &[0, 0, 0, 8])], &["cluster_bits is 8"]),
        (&[(20, &[0, 0, 0, 22])], &["cluster_bits is 22"]),
        (&[(20, &[0xff; 4])], &["cluster_bits is 4294967295"]),
        (&[(24, &[0; 8])], &["size is 0"]),
        (&[(24, &huge)], &["size is 18446744073709551615", "64 TiB"]),
        (&[(31, &[1])], &["size is", "multiple of 512"]),
        (&[(24, &[0, 0, 0x20, 0, 0, 0, 0, 0])], &["l1_size is 1", "possible are"]),
        (&[(32, &[0, 0, 0, 1])], &["encrypted", "crypt_method 1", "convert"]),
        (&[(32, &[0, 0, 0, 2])], &["encrypted", "crypt_method 2"]),
        (&[(36, &[0; 4])], &["l1_size is 0"]),
        (&[(36, &[0, 0x3f, 0xff, 0xff])], &["l1_table_offset", "inside the file"]),
        (&[(36, &[0xff; 4])], &["l1_size is 4294967295"]),
        (&[(40, &[0; 8])], &["l1_table_offset is 0"]),
        (&[(47, &[1])], &["l1_table_offset"]),
        (&[(40, &huge)], &["l1_table_offset"]),
        (&[(48, &huge)], &["refcount_table_offset"]),
        (&[(56, &[0; 4])], &["refcount_table_clusters is 0"]),
        (&[(56, &[0, 0, 0, 128])], &["refcount_table_offset", "inside the file"]),
        (&[(56, &[0xff; 4])], &["refcount_table_clusters is 4294967295"]),
        (&[(79, &[1])], &["not closed", "check -r all"]),
        (&[(79, &[3])], &["corrupt", "check -r all"]),
        (&[(79, &[4])], &["in another file", "convert"]),
        (&[(79, &[8])], &["zstd", "convert"]),
        (&[(79, &[16])], &["extended", "convert"]),
        (&[(72, &[0x80])], &["not known", "incompatible_features 0x8000000000000000"]),
        (&[(96, &[0xff; 4])], &["refcount_order"]),
        (&[(100, &[0; 4])], &["header_length is 0"]),
        (&[(100, &[0xff; 4])], &["header_length is 4294967295"]),
    ];
    let dir = test_dir();
    for (patches, words) in cases {
        let path = patched(dir.path(), V3, patches);
        for access in [Access::Inspect, Access::Persist] {
            let text = refused(&path, access);
            assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
        }
    }
}

#[test]
fn refcounts_that_a_writer_would_get_lost_in_are_refused() {
    let dir = test_dir();
    let path = disk_file(dir.path(), Some(QCOW2_KINDS[0]));
    let bytes = std::fs::read(&path).unwrap();
    let table = u64::from_be_bytes(bytes[48..56].try_into().unwrap());
    let first = &bytes[usize::try_from(table).unwrap()..][..8];
    let cases: &[(Patches, &str)] = &[
        (&[(table, &[0; 8])], "refcount table entry is 0"),
        (&[(table, &[0xff; 8])], "refcount table entry"),
        (&[(table + 8, first)], "beyond the end"),
    ];
    for (patches, words) in cases {
        let path = patched(dir.path(), QCOW2_KINDS[0], patches);
        assert!(refused(&path, Access::Persist).contains(words));
        // Who only reads does not use them.
        open_free(&source(&path, Access::ReadOnly)).unwrap();
    }
    // The second block of a file that has need of it, in place of which the first counts again.
    let small = "-o cluster_size=512,refcount_bits=64";
    let bytes = std::fs::read(disk_file(dir.path(), Some(small))).unwrap();
    let table = u64::from_be_bytes(bytes[48..56].try_into().unwrap());
    let first = &bytes[usize::try_from(table).unwrap()..][..8];
    let path = patched(dir.path(), small, &[(table + 8, first)]);
    assert!(refused(&path, Access::Persist).contains("which is there twice"));
}

#[test]
fn what_other_tools_make_and_is_not_supported_is_refused() {
    let dir = test_dir();
    let raw = disk_file(dir.path(), None);
    let path = dir.path().join("made.qcow2");
    for (options, word) in [("compression_type=zstd", "zstd"), ("extended_l2=on", "extended")] {
        qemu_img(&[&"convert", &"-O", &"qcow2", &"-o", &options, &raw, &path]);
        assert!(refused(&path, Access::Inspect).contains(word));
    }
    qemu_img(&[&"create", &"-q", &"-f", &"qcow2", &"-F", &"raw", &"-b", &raw, &path]);
    assert!(refused(&path, Access::Inspect).contains("disk.raw"));
}

#[test]
fn internal_snapshots_are_read_over_and_not_written_to() {
    let dir = test_dir();
    let path = disk_file(dir.path(), Some(QCOW2_KINDS[0]));
    qemu_img(&[&"snapshot", &"-c", &"one", &path]);
    assert!(refused(&path, Access::Persist).contains("nb_snapshots"));
    let throwaway = open_free(&source(&path, Access::Throwaway { dir: dir.path().into() })).unwrap();
    write(&*throwaway.disk, 0, &[7; 512]).unwrap();
    assert!(read(&*throwaway.disk, 0, SIZE)[512..] == pattern(SIZE)[512..]);
}

#[test]
fn a_file_that_is_cut_short_is_refused() {
    let dir = test_dir();
    let path = disk_file(dir.path(), Some(QCOW2_KINDS[0]));
    for len in [512, 65536, 3 * 65536] {
        std::fs::File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
        assert!(refused(&path, Access::Inspect).contains("inside the file"));
    }
}

#[test]
fn raw_is_not_taken_for_qcow2() {
    let dir = test_dir();
    let path = disk_file(dir.path(), None);
    let as_qcow2 = Source { format: Some(Format::Qcow2), ..source(&path, Access::Inspect) };
    assert!(matches!(open(&as_qcow2), Err(Error::Header { .. })));
    // A guest may write such a header into its raw disk; who says raw gets the bytes.
    let qcow2 = disk_file(dir.path(), Some(QCOW2_KINDS[0]));
    let as_raw = Source { format: Some(Format::Raw), ..source(&qcow2, Access::Persist) };
    let opened = open(&as_raw).unwrap();
    assert_eq!(opened.format, Format::Raw);
    assert_eq!(read(&*opened.disk, 0, 4), b"QFI\xfb");
}

/// Numbers that are likely to reach a corner.
fn interesting(random: u64) -> u64 {
    match random % 8 {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << (random >> 32 & 63),
        3 => (1 << (random >> 32 & 63)) - 1,
        4 => (1 << 63) | ((random >> 20) & 0xff_0000),
        5 => (1 << 62) | (random >> 8),
        6 => (random >> 20) & 0xf_ffff,
        _ => random,
    }
}

/// Changes bytes of the header, of both kinds of tables and of the refcounts, and uses what can still be opened.
#[test]
fn mutated_files_neither_panic_nor_hang() {
    let dir = test_dir();
    let start = Instant::now();
    let mut opened = 0;
    for (kind, options) in QCOW2_KINDS.iter().enumerate() {
        let path = disk_file(dir.path(), Some(options));
        let good = std::fs::read(&path).unwrap();
        let number = |at: usize| u64::from_be_bytes(good[at..at + 8].try_into().unwrap());
        let at = |offset: u64| usize::try_from(offset & 0x00ff_ffff_ffff_fe00).unwrap();
        let l1 = at(number(40));
        let l2 = at(number(l1));
        let refcount_table = at(number(48));
        let places = [(0, 128), (l1, 16), (l2, 512), (refcount_table, 16), (at(number(refcount_table)), 256)];
        let mut random = 0x1123_4567_89ab_cdefu64 + kind as u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            random ^ random >> 29
        };
        for round in 0..120 {
            let mut bytes = good.clone();
            for _ in 0..=next() % 3 {
                let (from, len) = places[usize::try_from(next() % 5).unwrap()];
                let at = from + usize::try_from(next() % len).unwrap();
                if next() % 2 == 0 {
                    bytes[at] = next().to_le_bytes()[0];
                } else {
                    let at = at & !7;
                    bytes[at..at + 8].copy_from_slice(&interesting(next()).to_be_bytes());
                }
            }
            // A new file each time: what is left of a sparse one would not be small.
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, &bytes).unwrap();
            let access = if round % 2 == 0 { Access::Inspect } else { Access::Persist };
            let source = Source { format: Some(Format::Qcow2), ..source(&path, access) };
            let Ok(Opened { disk, .. }) = open(&source) else { continue };
            opened += 1;
            let end = disk.size().min(2 * SIZE as u64);
            let mut buf = vec![0; 70_000];
            for offset in (0..end).step_by(60_000) {
                let len = buf.len().min(usize::try_from(end - offset).unwrap());
                // Whether it can be read does not matter, only that it is answered.
                let _ = disk.read_exact_at(offset, &mut buf[..len]);
            }
            if round % 2 == 1 {
                for _ in 0..12 {
                    let (offset, len) = (next() % end, next() % 150_000);
                    let len = len.min(end - offset);
                    let _ = match next() % 4 {
                        0 => disk.discard(offset, len),
                        1 => disk.write_zeroes(offset, len, next() % 2 == 0),
                        2 => disk.flush(),
                        _ => write(&*disk, offset, &vec![7; usize::try_from(len).unwrap()]),
                    };
                }
            }
        }
    }
    assert!(opened > 100, "only {opened} could be opened, so little was tested");
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn a_file_that_was_cut_off_is_refused() {
    let dir = test_dir();
    let path = dir.path().join("cut.qcow2");
    qemu_img(&[&"create", &"-q", &"-f", &"qcow2", &path, &"8M"]);
    let disk = open_free(&source(&path, Access::Persist)).unwrap().disk;
    let mut bytes = vec![7; 4 << 20];
    disk.write_at(0, &[VolatileSlice::from(bytes.as_mut_slice())]).unwrap();
    disk.flush().unwrap();
    drop(disk);
    open_free(&source(&path, Access::ReadOnly)).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    // Header and tables come first; what is lost is data.
    file.set_len(file.metadata().unwrap().len() - (1 << 20)).unwrap();
    let error = open_free(&source(&path, Access::ReadOnly)).err().unwrap().to_string();
    assert!(error.contains("cut off"), "{error}");
}
