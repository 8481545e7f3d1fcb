//! Every kind of disk against a plain vector of bytes, and the helpers that tests of this room share.

mod hostile;
mod opening;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use proptest::prelude::*;
use vm_memory::VolatileSlice;

use super::{Access, Disk, Format, HostCache, Opened, Overlay, Raw, Source, check_range, file_io, open, scratch};

/// A disk in memory.
pub(super) struct Memory(RwLock<Vec<u8>>);

impl Memory {
    pub(super) fn filled(size: u64, byte: u8) -> Self {
        Self(RwLock::new(vec![byte; usize::try_from(size).unwrap()]))
    }
}

impl Disk for Memory {
    fn size(&self) -> u64 {
        self.0.read().unwrap().len() as u64
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn read_at(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        check_range(self.size(), offset, file_io::total_len(bufs)?)?;
        let bytes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut at = usize::try_from(offset).unwrap();
        for buf in bufs {
            buf.copy_from(&bytes[at..at + buf.len()]);
            at += buf.len();
        }
        Ok(())
    }
    fn write_at(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        check_range(self.size(), offset, file_io::total_len(bufs)?)?;
        let mut bytes = self.0.write().unwrap();
        let mut at = usize::try_from(offset).unwrap();
        for buf in bufs {
            buf.copy_to(&mut bytes[at..at + buf.len()]);
            at += buf.len();
        }
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_zeroes(offset, len, true)
    }
    fn write_zeroes(&self, offset: u64, len: u64, _: bool) -> io::Result<()> {
        check_range(self.size(), offset, len)?;
        let from = usize::try_from(offset).unwrap();
        self.0.write().unwrap()[from..from + usize::try_from(len).unwrap()].fill(0);
        Ok(())
    }
}

pub(super) fn read(disk: &dyn Disk, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xa5; len];
    disk.read_exact_at(offset, &mut bytes).unwrap();
    bytes
}

pub(super) fn write(disk: &dyn Disk, offset: u64, bytes: &[u8]) -> io::Result<()> {
    disk.write_at(offset, &[VolatileSlice::from(&mut bytes.to_vec()[..])])
}

/// One thing done to a disk.
#[derive(Clone, Debug)]
enum Op {
    Read,
    Write(u8),
    Discard,
    Zeroes { unmap: bool },
    Flush,
}

/// Where it is done, and in segments of how many bytes.
#[derive(Clone, Debug)]
struct Step {
    op: Op,
    offset: usize,
    len: usize,
    segment: usize,
}

/// Steps on a disk of `size` bytes; half of them on whole sectors, as guests do.
fn steps(size: usize) -> impl Strategy<Value = Vec<Step>> {
    let op = prop_oneof![
        4 => Just(Op::Read),
        6 => any::<u8>().prop_map(Op::Write),
        1 => Just(Op::Discard),
        2 => any::<bool>().prop_map(|unmap| Op::Zeroes { unmap }),
        1 => Just(Op::Flush),
    ];
    let len = prop_oneof![0usize..2000, 3000usize..6000, 0usize..200_000];
    let step =
        (op, 0..size, len, 1usize..70_000, any::<bool>()).prop_map(move |(op, offset, len, segment, sectors)| {
            let (mut offset, mut len) = (offset, len);
            if sectors {
                (offset, len) = (offset & !511, len & !511);
            }
            Step { op, offset, len: len.min(size - offset), segment: segment.max(len / 2000) }
        });
    prop::collection::vec(step, 1..40)
}

/// Does the steps to both `disk`, counted from byte `origin`, and `model`; what is read must agree, also at the end.
fn agree(disk: &dyn Disk, origin: u64, model: &mut [u8], steps: &[Step]) -> Result<(), TestCaseError> {
    for (number, step) in steps.iter().enumerate() {
        let at = origin + step.offset as u64;
        let range = step.offset..step.offset + step.len;
        match step.op {
            Op::Read => {
                let mut got = vec![0xa5; step.len];
                let bufs: Vec<_> = got.chunks_mut(step.segment).map(VolatileSlice::from).collect();
                disk.read_at(at, &bufs).unwrap();
                prop_assert!(got == model[range], "step {}: {:?}", number, step);
            }
            Op::Write(seed) => {
                // Cheap even where nothing is optimized.
                let block: Vec<u8> = (0..253u8).map(|i| seed.wrapping_add(i)).collect();
                let mut data = block.repeat(step.len / block.len() + 1);
                data.truncate(step.len);
                model[range].copy_from_slice(&data);
                let bufs: Vec<_> = data.chunks_mut(step.segment).map(VolatileSlice::from).collect();
                disk.write_at(at, &bufs).unwrap();
            }
            Op::Discard => {
                disk.discard(at, step.len as u64).unwrap();
                model[range].fill(0);
            }
            Op::Zeroes { unmap } => {
                disk.write_zeroes(at, step.len as u64, unmap).unwrap();
                model[range].fill(0);
            }
            Op::Flush => disk.flush().unwrap(),
        }
    }
    prop_assert!(read(disk, origin, model.len()) == model, "at the end");
    Ok(())
}

/// Bytes of the disks that are compared: no whole number of clusters of any size.
const SIZE: usize = (1 << 20) + 3 * 512;

fn pattern(size: usize) -> Vec<u8> {
    let block: Vec<u8> = (1..=255u8).flat_map(|byte| [byte; 512]).collect();
    let mut bytes = block.repeat(size / block.len() + 1);
    bytes.truncate(size);
    bytes
}

/// Runs `qemu-img`, which must succeed.
pub(super) fn qemu_img(arguments: &[&dyn AsRef<OsStr>]) -> String {
    loop {
        let output = Command::new("qemu-img").args(arguments.iter().map(AsRef::as_ref)).output();
        let output = output.expect("tests need qemu-img: apt-get install qemu-utils");
        let said = String::from_utf8_lossy(&output.stderr);
        // As in open_free().
        if said.contains("lock") {
            std::thread::yield_now();
            continue;
        }
        assert!(output.status.success(), "{said}");
        return String::from_utf8(output.stdout).unwrap();
    }
}

/// Opens a disk that is free. Another test may just be starting a program: its child shares all locks of this process
/// until it has become that program.
pub(super) fn open_free(source: &Source) -> Result<Opened, crate::disk::Error> {
    loop {
        match open(source) {
            Err(crate::disk::Error::Locked { .. }) => std::thread::yield_now(),
            other => return other,
        }
    }
}

/// A directory for many small disks: in memory where that can be, since they are flushed again and again.
fn test_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A disk file in `dir` with the bytes of [`pattern`]; for qcow2, with these options.
fn disk_file(dir: &Path, qcow2: Option<&str>) -> PathBuf {
    let Some(options) = qcow2 else {
        let raw = dir.join("disk.raw");
        std::fs::write(&raw, pattern(SIZE)).unwrap();
        return raw;
    };
    // Made once by each process, since starting programs is slow.
    static MADE: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let path = dir.join("disk.qcow2");
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes = made.entry(options.to_owned()).or_insert_with(|| {
        let raw = disk_file(dir, None);
        let mut arguments: Vec<&dyn AsRef<OsStr>> = vec![&"convert", &"-f", &"raw", &"-O", &"qcow2"];
        let options: Vec<_> = options.split_ascii_whitespace().collect();
        arguments.extend(options.iter().map(|option| option as &dyn AsRef<OsStr>));
        arguments.extend([&raw as &dyn AsRef<OsStr>, &path]);
        qemu_img(&arguments);
        std::fs::read(&path).unwrap()
    });
    std::fs::write(&path, bytes).unwrap();
    path
}

fn source(path: &Path, access: Access) -> Source {
    Source { path: path.into(), format: None, access, size: None, cache: HostCache::Used }
}

/// Few cases, since each makes files; no file in the source tree when one fails.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() }
}

/// Options of `qemu-img convert` for the kinds of qcow2 that are compared.
const QCOW2_KINDS: [&str; 6] = [
    "-o cluster_size=64k",
    "-o cluster_size=512,refcount_bits=1",
    "-o cluster_size=4k,lazy_refcounts=off,refcount_bits=64",
    "-o compat=0.10,cluster_size=4k",
    "-c -o cluster_size=4k",
    "-c -o compat=0.10,cluster_size=64k",
];

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn raw_is_what_was_written(steps in steps(SIZE)) {
        let dir = test_dir();
        let path = disk_file(dir.path(), None);
        let mut model = pattern(SIZE);
        agree(&*open_free(&source(&path, Access::Persist)).unwrap().disk, 0, &mut model, &steps)?;
        prop_assert!(std::fs::read(&path).unwrap() == model);
    }

    #[test]
    fn an_overlay_is_what_was_written_and_its_base_stays(steps in steps(SIZE), qcow2 in any::<bool>()) {
        let dir = test_dir();
        let path = disk_file(dir.path(), qcow2.then_some("-c -o cluster_size=4k"));
        let before = std::fs::read(&path).unwrap();
        let throwaway = Access::Throwaway { dir: dir.path().into() };
        agree(&*open_free(&source(&path, throwaway)).unwrap().disk, 0, &mut pattern(SIZE), &steps)?;
        prop_assert!(std::fs::read(&path).unwrap() == before);
    }

    #[test]
    fn a_larger_overlay_has_zeroes_beyond(steps in steps(2 * SIZE)) {
        let dir = test_dir();
        let path = disk_file(dir.path(), None);
        let mut model = pattern(SIZE);
        model.resize(2 * SIZE, 0);
        let access = Access::Throwaway { dir: dir.path().into() };
        let source = Source { size: Some(2 * SIZE as u64), ..source(&path, access) };
        agree(&*open_free(&source).unwrap().disk, 0, &mut model, &steps)?;
    }

    #[test]
    fn an_overlay_agrees_where_regions_meet(steps in steps(SIZE)) {
        let dir = test_dir();
        // Regions are 128 MiB; the base ends a little after the first.
        let meeting = 128u64 << 20;
        let base = Raw::new(scratch::unnamed_file(dir.path(), meeting + 77 * 512).unwrap(), false).unwrap();
        write(&base, meeting - 4096, &[9; 8192]).unwrap();
        let disk = Overlay::new(Arc::new(base), 3 * meeting, dir.path(), HostCache::Used).unwrap();
        let mut model = vec![0; SIZE];
        model[(1 << 19) - 4096..(1 << 19) + 4096].fill(9);
        agree(&disk, meeting - (1 << 19), &mut model, &steps)?;
    }
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn qcow2_is_what_was_written_and_stays_clean(steps in steps(SIZE), kind in 0..QCOW2_KINDS.len()) {
        let dir = test_dir();
        let path = disk_file(dir.path(), Some(QCOW2_KINDS[kind]));
        let mut model = pattern(SIZE);
        let opened = open_free(&source(&path, Access::Persist)).unwrap();
        prop_assert_eq!(opened.format, Format::Qcow2);
        agree(&*opened.disk, 0, &mut model, &steps)?;
        // What was flushed is in the file, though the disk is not closed yet: a machine may be killed.
        opened.disk.flush().unwrap();
        let copy = dir.path().join("copy");
        std::fs::copy(&path, &copy).unwrap();
        qemu_img(&[&"check", &copy]);
        let back = dir.path().join("back");
        qemu_img(&[&"convert", &"-O", &"raw", &copy, &back]);
        prop_assert!(std::fs::read(back).unwrap() == model);
    }
}

/// Threads that each have every n-th sector write to them and read them back, so that they meet in every cluster.
fn hammer(disk: &dyn Disk) {
    const THREADS: usize = 4;
    let sectors = usize::try_from(disk.size()).unwrap() / 512;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut random = 0x9e37_79b9_7f4a_7c15u64 + thread as u64;
                let mut model: Vec<Option<u8>> = vec![None; sectors];
                for round in (0..250u8).cycle().take(1500) {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let own = usize::try_from(random >> 33).unwrap() % (sectors / THREADS) * THREADS + thread;
                    let offset = own as u64 * 512;
                    match (round % 8, model[own]) {
                        (7, _) => {
                            disk.discard(offset, 512).unwrap();
                            model[own] = Some(0);
                        }
                        (5 | 6, Some(byte)) => assert_eq!(read(disk, offset, 512), vec![byte; 512]),
                        _ => {
                            write(disk, offset, &[round; 512]).unwrap();
                            model[own] = Some(round);
                        }
                    }
                }
                for (own, byte) in model.iter().enumerate().filter_map(|(own, byte)| Some((own, (*byte)?))) {
                    assert_eq!(read(disk, own as u64 * 512, 512), vec![byte; 512], "sector {own}");
                }
            });
        }
    });
}

#[test]
fn threads_on_their_own_sectors_do_not_disturb_each_other() {
    let dir = test_dir();
    for qcow2 in [None, Some(QCOW2_KINDS[0]), Some("-c -o cluster_size=4k"), Some(QCOW2_KINDS[1])] {
        let path = disk_file(dir.path(), qcow2);
        let throwaway = Access::Throwaway { dir: dir.path().into() };
        hammer(&*open_free(&source(&path, throwaway)).unwrap().disk);
        hammer(&*open_free(&source(&path, Access::Persist)).unwrap().disk);
        if qcow2.is_some() {
            qemu_img(&[&"check", &path]);
        }
    }
}
