//! The files of layers: made, opened, locked, handed on, filled.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::disk::layered::{UNIT, changes, check, fill, merge, remove, seal};
use crate::disk::tests::{Memory, read, write};
use crate::disk::{Disk, Raw};

const SIZE: u64 = 1 << 20;

fn go_on(_: u64, _: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_new_layer_takes_no_room_and_its_name_cannot_be_given_again() {
    let dir = test_dir();
    let stem = dir.path().join("vol.1");
    let made = LayerFiles::create(&stem, 64 << 40).or_else(|_| LayerFiles::create(&stem, 1 << 40)).unwrap();
    let info = made.info().unwrap();
    assert!(!info.sealed && info.size >= 1 << 40 && info.allocated <= 64 * 1024, "{info:?}");
    assert_eq!(check(&stem).unwrap(), info);
    assert!(
        matches!(LayerFiles::create(&stem, SIZE), Err(LayerError::Exists { path }) if path.ends_with("vol.1.data"))
    );
    for size in [0, 511, 513, (64 << 40) + 512] {
        let error = LayerFiles::create(&dir.path().join("other"), size).unwrap_err();
        assert!(matches!(error, LayerError::BadSize { .. }), "{error}");
    }
    // Where one of the two cannot be made, neither is left.
    fs::write(dir.path().join("half.map"), "mine").unwrap();
    assert!(matches!(LayerFiles::create(&dir.path().join("half"), SIZE), Err(LayerError::Exists { .. })));
    assert!(!dir.path().join("half.data").exists() && dir.path().join("half.map").exists());
    assert_ne!(info.id, LayerFiles::create(&dir.path().join("another"), SIZE).unwrap().info().unwrap().id);
    drop(made);
    remove(&stem).unwrap();
    remove(&stem).unwrap();
    assert!(matches!(LayerFiles::open(&stem, LayerAccess::Inspect), Err(LayerError::Missing { .. })));
}

#[test]
fn a_writable_layer_is_one_users_and_a_sealed_one_any_numbers() {
    let dir = test_dir();
    let stem = dir.path().join("layer");
    let made = LayerFiles::create(&stem, SIZE).unwrap();
    for error in [LayerFiles::open(&stem, LayerAccess::Writable).unwrap_err(), seal(&stem).unwrap_err()] {
        let LayerError::Locked { path, holders, .. } = &error else { panic!("{error}") };
        assert!(path.ends_with("layer.data"));
        assert!(holders.iter().any(|holder| holder.pid == std::process::id()), "{error}");
    }
    LayerFiles::open(&stem, LayerAccess::Inspect).unwrap();
    drop(made);
    assert!(matches!(when_free(|| LayerFiles::open(&stem, LayerAccess::Sealed)), Err(LayerError::NotSealed { .. })));
    let sealed = when_free(|| seal(&stem)).unwrap();
    assert!(sealed.sealed);
    assert_eq!(when_free(|| seal(&stem)).unwrap(), sealed);
    let readers = [open_layer(&stem, LayerAccess::Sealed), open_layer(&stem, LayerAccess::Sealed)];
    assert!(matches!(
        LayerFiles::open(&stem, LayerAccess::Writable),
        Err(LayerError::Sealed { .. } | LayerError::Locked { .. })
    ));
    drop(readers);
    assert!(matches!(when_free(|| LayerFiles::open(&stem, LayerAccess::Writable)), Err(LayerError::Sealed { .. })));
}

#[test]
fn descriptors_are_the_layer_with_its_lock() {
    let dir = test_dir();
    let stem = dir.path().join("layer");
    let (data, map) = LayerFiles::create(&stem, SIZE).unwrap().into_fds();
    assert!(matches!(LayerFiles::open(&stem, LayerAccess::Writable), Err(LayerError::Locked { .. })));
    let files = LayerFiles::from_fds(data, map, LayerAccess::Writable).unwrap();
    assert_eq!(files.stem(), stem);
    let disk = Layered::open(vec![files], SIZE, false, HostCache::Used).unwrap();
    write(&disk, 5000, &[7; 100]).unwrap();
    disk.flush().unwrap();
    drop(disk);
    // Descriptors for reading are none for writing, and others are none at all.
    let (data, map) = open_layer(&stem, LayerAccess::Inspect).into_fds();
    let copies = (data.try_clone().unwrap(), map.try_clone().unwrap());
    assert!(LayerFiles::from_fds(data, map, LayerAccess::Writable).is_err());
    let error = LayerFiles::from_fds(copies.0.try_clone().unwrap(), copies.0, LayerAccess::Inspect).unwrap_err();
    assert!(matches!(error, LayerError::NotALayer { .. }), "{error}");
    let (outlet, inlet) = rustix::pipe::pipe().unwrap();
    assert!(LayerFiles::from_fds(outlet, inlet, LayerAccess::Inspect).is_err());
    let disk = open_chain(&[stem], SIZE, false, HostCache::Used);
    assert_eq!(read(&disk, 4999, 102), [&[0][..], &[7; 100], &[0]].concat());
}

#[test]
fn a_snapshot_can_be_opened_while_its_disk_goes_on() {
    let dir = test_dir();
    let stems = ["a", "b", "c"].map(|name| dir.path().join(name));
    let disk = Layered::open(vec![LayerFiles::create(&stems[0], SIZE).unwrap()], SIZE, false, HostCache::Used).unwrap();
    write(&disk, 0, &[1; 8192]).unwrap();
    disk.snapshot(LayerFiles::create(&stems[1], SIZE).unwrap()).unwrap();
    write(&disk, 100, &[2; 100]).unwrap();
    let then = open_chain(&stems[..1], SIZE, true, HostCache::Used);
    assert_eq!(read(&then, 0, 8192), [1; 8192]);
    assert_eq!(write(&then, 0, &[3; 512]).unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    // What cannot be the next layer leaves the disk as it was.
    let used = dir.path().join("used");
    let other = Layered::open(vec![LayerFiles::create(&used, SIZE).unwrap()], SIZE, false, HostCache::Used).unwrap();
    write(&other, 0, &[1; 512]).unwrap();
    other.flush().unwrap();
    drop(other);
    let large = LayerFiles::create(&dir.path().join("large"), 2 * SIZE).unwrap();
    let sealed = open_layer(&stems[0], LayerAccess::Sealed);
    for refused in [open_layer(&used, LayerAccess::Writable), large, sealed] {
        assert_eq!(disk.snapshot(refused).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    }
    assert_eq!(disk.layers(), 2);
    disk.snapshot(LayerFiles::create(&stems[2], SIZE).unwrap()).unwrap();
    drop(disk);
    let disk = open_chain(&stems, SIZE, false, HostCache::Used);
    assert_eq!((read(&disk, 99, 1), read(&disk, 100, 100)), (vec![1], vec![2; 100]));
    assert_eq!(disk.grow(SIZE - 512).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn chains_that_cannot_be_are_refused() {
    let dir = test_dir();
    let stems = ["small", "large"].map(|name| dir.path().join(name));
    for (stem, size) in stems.iter().zip([SIZE, 2 * SIZE]) {
        drop(LayerFiles::create(stem, size).unwrap());
        when_free(|| seal(stem)).unwrap();
    }
    let sealed = |at: usize| open_layer(&stems[at], LayerAccess::Sealed);
    let open = |chain, size| Layered::open(chain, size, true, HostCache::Used);
    open(vec![sealed(0), sealed(1)], 2 * SIZE).unwrap();
    open(vec![sealed(0), sealed(1)], 3 * SIZE).unwrap();
    assert!(matches!(
        open(vec![sealed(1), sealed(0)], 2 * SIZE),
        Err(LayerError::SizesDoNotFit { place: "above", .. })
    ));
    assert!(matches!(open(vec![sealed(0), sealed(1)], SIZE), Err(LayerError::SizesDoNotFit { place: "in", .. })));
    assert!(matches!(open(vec![sealed(0)], SIZE + 1), Err(LayerError::BadSize { .. })));
    assert!(matches!(open(vec![], SIZE), Err(LayerError::Count { count: 0 })));
    let top = Layered::open(vec![sealed(0)], SIZE, false, HostCache::Used);
    assert!(matches!(top, Err(LayerError::Sealed { .. })));
    let made = LayerFiles::create(&dir.path().join("open"), 2 * SIZE).unwrap();
    assert!(matches!(open(vec![made, sealed(1)], 2 * SIZE), Err(LayerError::NotSealed { .. })));
}

#[test]
fn filling_leaves_out_holes_and_zeroes() {
    let dir = test_dir();
    let source = dir.path().join("disk.raw");
    let file = fs::File::create_new(&source).unwrap();
    let size = (200 << 20) + 512;
    file.set_len(size).unwrap();
    let file = fs::File::options().read(true).write(true).open(&source).unwrap();
    let raw = Raw::new(file, false).unwrap();
    // Data where regions meet, zeroes that are written out, the last half unit.
    write(&raw, (128 << 20) - 5000, &[1; 10_000]).unwrap();
    write(&raw, 3 << 20, &vec![0; 2 << 20]).unwrap();
    write(&raw, 4 << 20, &[9; 1]).unwrap();
    write(&raw, size - 512, &[3; 512]).unwrap();
    let stem = dir.path().join("layer");
    let files = LayerFiles::create(&stem, size + 512).unwrap();
    let mut told = Vec::new();
    fill(&files, &raw, &mut |done, total| {
        told.push((done, total));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(told.is_sorted() && told.last() == Some(&(size, size)));
    let chain = [open_layer(&stem, LayerAccess::Sealed)];
    let all: Vec<_> = changes(&[], &chain).unwrap().collect();
    let unit = |at: u64| at - at % UNIT;
    let wanted = [(4 << 20, (4 << 20) + UNIT), (unit((128 << 20) - 5000), (128 << 20) + 8192), (200 << 20, size + 512)];
    assert_eq!(all, wanted.map(|(start, end)| start..end));
    let info = files.info().unwrap();
    assert!(info.sealed && info.allocated < 128 * 1024, "{info:?}");
    let disk = Layered::open(chain.into(), size + 512, true, HostCache::Used).unwrap();
    for (at, len) in [(0, 6 << 20), ((128 << 20) - 8192, 20_000), (size - 8192, 8192 + 512)] {
        let mut wanted = vec![0; usize::try_from((size - at).min(len)).unwrap()];
        raw.read_exact_at(at, &mut wanted).unwrap();
        wanted.resize(usize::try_from(len).unwrap(), 0);
        assert!(read(&disk, at, wanted.len()) == wanted, "{at}");
    }
    // Only once, and only what has room.
    assert!(matches!(fill(&files, &raw, &mut go_on), Err(LayerError::Sealed { .. })));
    let small = LayerFiles::create(&dir.path().join("small"), 512).unwrap();
    assert!(matches!(fill(&small, &raw, &mut go_on), Err(LayerError::SizesDoNotFit { .. })));
}

#[test]
fn filling_and_merging_can_be_broken_off() {
    let dir = test_dir();
    let stems = ["a", "b"].map(|name| dir.path().join(name));
    let full = Memory::filled(4 << 20, 5);
    for stem in &stems {
        let files = LayerFiles::create(stem, 4 << 20).unwrap();
        assert!(matches!(fill(&files, &full, &mut |_, _| ControlFlow::Break(())), Err(LayerError::BrokenOff)));
        assert!(!files.info().unwrap().sealed);
        drop(files);
        remove(stem).unwrap();
        fill(&LayerFiles::create(stem, 4 << 20).unwrap(), &full, &mut go_on).unwrap();
    }
    let merged = dir.path().join("merged");
    let stopped = when_free(|| merge(&stems, &merged, &mut |_, _| ControlFlow::Break(())));
    assert!(matches!(stopped, Err(LayerError::BrokenOff)));
    assert!(!merged.with_extension("data").exists() && !merged.with_extension("map").exists());
    assert!(matches!(when_free(|| merge(&stems, &stems[0], &mut go_on)), Err(LayerError::Exists { .. })));
    when_free(|| merge(&stems, &merged, &mut go_on)).unwrap();
    assert!(check(&stems[0]).is_ok(), "what had the name stays");
    let disk = open_chain(&[merged], 4 << 20, true, HostCache::Used);
    assert!(read(&disk, 0, 4 << 20) == vec![5; 4 << 20]);
}

#[test]
fn discards_take_no_room_and_hide_what_is_below() {
    let dir = test_dir();
    let stems = ["a", "b"].map(|name| dir.path().join(name));
    fill(&LayerFiles::create(&stems[0], 4 << 20).unwrap(), &Memory::filled(2 << 20, 5), &mut go_on).unwrap();
    drop(LayerFiles::create(&stems[1], 4 << 20).unwrap());
    let disk = open_chain(&stems, 4 << 20, false, HostCache::Used);
    disk.discard(0, 4 << 20).unwrap();
    assert!(read(&disk, 0, 4 << 20) == vec![0; 4 << 20]);
    assert_eq!(disk.next_data(0).unwrap(), None);
    let blocks = || fs::metadata(stems[1].with_extension("data")).unwrap().blocks();
    assert_eq!(blocks(), 0);
    drop(disk);
    let disk = open_chain(&stems, 4 << 20, false, HostCache::Used);
    assert!(read(&disk, 0, 2 << 20) == vec![5; 2 << 20], "it was not flushed");
    disk.discard(0, 4 << 20).unwrap();
    disk.flush().unwrap();
    drop(disk);
    let disk = open_chain(&stems, 4 << 20, false, HostCache::Used);
    assert!(read(&disk, 0, 4 << 20) == vec![0; 4 << 20]);
    // Beyond what is below, nothing was brought into the layer.
    drop(disk);
    let chain = [open_layer(&stems[1], LayerAccess::Inspect)];
    assert!(changes(&[], &chain).unwrap().eq(std::iter::once(0..2 << 20)));
}

#[test]
fn three_hundred_layers() {
    let dir = test_dir();
    let size = 300 << 20;
    let stems: Vec<_> = (0..301).map(|number| dir.path().join(format!("{number}"))).collect();
    let disk = Layered::open(vec![LayerFiles::create(&stems[0], size).unwrap()], size, false, HostCache::Used).unwrap();
    let mut model = vec![0; 1 << 20];
    let origin = (128 << 20) - (1 << 19);
    for (number, stem) in (1..).zip(&stems[1..]) {
        let byte = u8::try_from(number % 251 + 1).unwrap();
        for at in [number * 7919 % (1 << 20), number * 104_729 % (1 << 20)] {
            let len = (number * 37 % 9000).min((1 << 20) - at);
            write(&disk, origin + at as u64, &vec![byte; len]).unwrap();
            model[at..at + len].fill(byte);
        }
        disk.snapshot(LayerFiles::create(stem, size).unwrap()).unwrap();
    }
    assert_eq!(disk.layers(), 301);
    assert!(read(&disk, origin, model.len()) == model);
    drop(disk);
    let disk = open_chain(&stems, size, false, HostCache::Used);
    assert!(read(&disk, origin, model.len()) == model);
    drop(disk);
    let merged = dir.path().join("merged");
    when_free(|| merge(&stems[..300], &merged, &mut go_on)).unwrap();
    let disk = open_chain(&[merged], size, true, HostCache::Used);
    assert!(read(&disk, origin, model.len()) == model);
}
