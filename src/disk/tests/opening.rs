//! What [`open`] refuses, what it locks, and what is left of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};

use super::*;
use crate::disk::{Conflict, Error, blank};

const ROLE: &str = "AMIBOOT_TEST_DISK_ROLE";

/// Not a test of its own: what the other process of the tests below does, when it is told by the environment.
#[test]
fn other_process() {
    let Some(role) = std::env::var_os(ROLE) else { return };
    let path = PathBuf::from(std::env::var_os("AMIBOOT_TEST_DISK_PATH").unwrap());
    let dir = path.parent().unwrap().join("layers");
    let access = if role == "persist" { Access::Persist } else { Access::Throwaway { dir } };
    let opened = open_free(&source(&path, access)).unwrap();
    write(&*opened.disk, 0, &[7; 100_000]).unwrap();
    // Not where the test runner writes to.
    eprintln!("\nready");
    let _ = std::io::stdin().read(&mut [0]);
}

/// Another process that has the disk open; killed, so without any chance to clean up, when dropped.
struct Other(Child);

impl Other {
    fn new(role: &str, path: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "disk::tests::opening::other_process", "--nocapture"])
            .env(ROLE, role)
            .env("AMIBOOT_TEST_DISK_PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let other = Self(child);
        let ready = stderr.lines().map_while(Result::ok).any(|line| line == "ready");
        assert!(ready, "the other process could not open {}", path.display());
        other
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn with_layers(qcow2: Option<&str>) -> (tempfile::TempDir, PathBuf, Access) {
    let dir = test_dir();
    let layers = dir.path().join("layers");
    std::fs::create_dir(&layers).unwrap();
    let path = disk_file(dir.path(), qcow2);
    (dir, path, Access::Throwaway { dir: layers })
}

#[test]
fn a_layer_leaves_nothing_when_its_process_is_killed() {
    let (dir, path, _) = with_layers(None);
    let entries = || std::fs::read_dir(dir.path().join("layers")).unwrap().count();
    let other = Other::new("throwaway", &path);
    assert_eq!(entries(), 0, "while it runs");
    drop(other);
    assert_eq!(entries(), 0, "after it was killed");
    assert!(std::fs::read(&path).unwrap() == pattern(SIZE));
}

#[test]
fn throwaway_runs_share_a_file_and_a_persisting_one_has_it_alone() {
    for qcow2 in [None, Some(QCOW2_KINDS[0])] {
        let (_dir, path, throwaway) = with_layers(qcow2);
        let locked = |access: &Access| match open(&source(&path, access.clone())) {
            Err(Error::Locked { conflict, holders, .. }) => Some((conflict, holders)),
            Ok(_) => None,
            Err(error) => panic!("{error}"),
        };
        let other = Other::new("throwaway", &path);
        assert_eq!(locked(&throwaway), None);
        assert_eq!(locked(&Access::ReadOnly), None);
        let (conflict, holders) = locked(&Access::Persist).unwrap();
        assert_eq!((conflict, holders[0].pid), (Conflict::Read, other.0.id()));
        drop(other);

        let other = Other::new("persist", &path);
        for access in [&throwaway, &Access::ReadOnly, &Access::Persist] {
            let (conflict, holders) = locked(access).unwrap();
            assert_eq!((conflict, holders.len(), holders[0].pid), (Conflict::Written, 1, other.0.id()));
        }
        assert_eq!(locked(&Access::Inspect), None);
        let text = open(&source(&path, throwaway.clone())).err().unwrap().to_string();
        assert!(text.contains(&path.display().to_string()) && text.contains(&other.0.id().to_string()), "{text}");
        drop(other);
        open_free(&source(&path, Access::Persist)).unwrap();
    }
}

#[test]
fn writers_of_qemu_and_ours_keep_each_other_out() {
    for (format, qcow2) in [("raw", None), ("qcow2", Some(QCOW2_KINDS[0]))] {
        let (_dir, path, throwaway) = with_layers(qcow2);
        for access in [&throwaway, &Access::Persist] {
            let opened = open_free(&source(&path, access.clone())).unwrap();
            let theirs = Command::new("qemu-io").args(["-f", format, "-c", "write 0 512"]).arg(&path).output().unwrap();
            assert!(!theirs.status.success() && String::from_utf8_lossy(&theirs.stderr).contains("lock"), "{theirs:?}");
            drop(opened);
        }
        let mut command = Command::new("qemu-io");
        command.args(["-f", format]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut theirs = Other(command.spawn().unwrap());
        // It answers once it has the file.
        theirs.0.stdin.as_mut().unwrap().write_all(b"length\n").unwrap();
        let mut line = String::new();
        BufReader::new(theirs.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        for access in [&throwaway, &Access::Persist] {
            let error = open(&source(&path, access.clone())).err().unwrap().to_string();
            assert!(error.contains("writing") && error.contains("qemu-io"), "{error}");
        }
    }
}

#[test]
fn a_disk_keeps_its_lock_for_as_long_as_it_is_used() {
    let (_dir, path, throwaway) = with_layers(Some(QCOW2_KINDS[0]));
    let disk = open_free(&source(&path, throwaway)).unwrap().disk;
    assert!(matches!(open(&source(&path, Access::Persist)), Err(Error::Locked { .. })));
    drop(disk);
    let disk = open_free(&source(&path, Access::Persist)).unwrap().disk;
    assert!(matches!(open(&source(&path, Access::ReadOnly)), Err(Error::Locked { .. })));
    drop(disk);
    open_free(&source(&path, Access::ReadOnly)).unwrap();
}

#[test]
fn sizes_are_checked_against_the_file() {
    let (_dir, path, throwaway) = with_layers(None);
    let size = SIZE as u64;
    let with = |access: &Access, size| open(&Source { size: Some(size), ..source(&path, access.clone()) });
    assert_eq!(with(&throwaway, 2 * size).unwrap().disk.size(), 2 * size);
    assert_eq!(with(&throwaway, 2 * size).unwrap().base_size, size);
    assert_eq!(with(&Access::Persist, size).unwrap().disk.size(), size);
    assert!(matches!(with(&throwaway, size - 512), Err(Error::SizeTooSmall { .. })));
    assert!(matches!(with(&throwaway, size + 1), Err(Error::BadSize { .. })));
    assert!(matches!(with(&throwaway, (64 << 40) + 512), Err(Error::BadSize { .. })));
    let text = with(&Access::Persist, 2 * size).err().unwrap().to_string();
    assert!(text.contains("qemu-img resize -f raw"), "{text}");
}

#[test]
fn a_layer_needs_its_directory() {
    let (dir, path, _) = with_layers(None);
    let missing = dir.path().join("missing");
    let error = open(&source(&path, Access::Throwaway { dir: missing.clone() })).err().unwrap().to_string();
    assert!(error.contains(&missing.display().to_string()), "{error}");
}

#[test]
fn a_blank_disk_is_empty_and_leaves_nothing() {
    let dir = test_dir();
    let disk = blank(10 << 30, dir.path(), HostCache::Used).unwrap();
    assert_eq!((disk.size(), disk.is_read_only()), (10 << 30, false));
    write(&*disk, (10 << 30) - 512, &[3; 512]).unwrap();
    assert_eq!(read(&*disk, (10 << 30) - 1024, 1024), [[0; 512], [3; 512]].concat());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    for size in [0, 511, 513, (64 << 40) + 512] {
        assert!(matches!(blank(size, dir.path(), HostCache::Used), Err(Error::BadSize { .. })));
    }
}

#[test]
fn discards_free_room_in_qcow2_files_too() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let path = disk_file(dir.path(), Some(QCOW2_KINDS[0]));
    let room = || std::fs::metadata(&path).unwrap().blocks() * 512;
    let disk = open_free(&source(&path, Access::Persist)).unwrap().disk;
    let before = room();
    disk.discard(0, SIZE as u64).unwrap();
    assert!(room() + SIZE as u64 / 2 < before, "{} of {before} still held", room());
    disk.flush().unwrap();
    qemu_img(&[&"check", &"-U", &path]);
}

#[test]
fn past_the_page_cache_raw_disks_are_the_same_and_others_are_refused() {
    let (dir, path, throwaway) = with_layers(None);
    let past = |path: &Path, access: &Access| Source { cache: HostCache::Bypassed, ..source(path, access.clone()) };
    let before = std::fs::read(&path).unwrap();
    let layered = open(&past(&path, &throwaway)).unwrap().disk;
    // In whole sectors and not, over what is in the layer and what is not.
    let mut expected = before.clone();
    for (offset, len, byte) in [(0, 4096, 9), (512, 512, 8), (100, 1000, 7), (8192 + 7, 9000, 6), (4096, 8192, 5)] {
        write(&*layered, offset as u64, &vec![byte; len]).unwrap();
        expected[offset..offset + len].fill(byte);
        assert!(read(&*layered, 0, SIZE) == expected, "{offset} {len}");
    }
    assert!(std::fs::read(&path).unwrap() == before);
    drop(layered);
    let kept = open_free(&past(&path, &Access::Persist)).unwrap().disk;
    write(&*kept, 512, &[3; 1024]).unwrap();
    write(&*kept, 1, &[4; 9]).unwrap();
    kept.flush().unwrap();
    let after = std::fs::read(&path).unwrap();
    assert!(after[512..1536] == [3; 1024] && after[1..10] == [4; 9] && after[1536..] == before[1536..]);
    let qcow2 = disk_file(dir.path(), Some(QCOW2_KINDS[0]));
    let error = open(&past(&qcow2, &throwaway)).err().unwrap();
    assert!(matches!(error, Error::CachedFormat { .. }) && error.to_string().contains("qemu-img convert"), "{error}");
}
