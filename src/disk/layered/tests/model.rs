//! A chain against plain vectors of bytes.

use std::ops::ControlFlow;
use std::path::PathBuf;

use proptest::prelude::*;

use super::{open_chain, open_layer, test_dir, when_free};
use crate::disk::layered::{LayerAccess, LayerFiles, REGION, UNIT, changes, check, merge};
use crate::disk::tests::{read, write};
use crate::disk::{Disk, HostCache};

#[derive(Clone, Debug)]
enum Step {
    Write { at: usize, len: usize, byte: u8 },
    Zero { at: usize, len: usize, unmap: bool },
    Snapshot,
    Grow { sectors: usize },
    Flush,
    Reopen,
    Read { at: usize, len: usize },
}

/// Where the part of the disk that is looked at begins: a little before regions meet.
const ORIGIN: u64 = REGION - 100 * 1024;

/// Bytes of it at first: no whole number of units.
const START: usize = 200 * 1024 + 3 * 512;

fn step() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![1usize..2000, 3000usize..6000, 0usize..80_000];
    let place = || {
        (0usize..300 * 1024, len(), any::<bool>())
            .prop_map(|(at, len, whole)| if whole { (at & !511, (len + 511) & !511) } else { (at, len) })
    };
    prop_oneof![
        8 => (place(), 1u8..).prop_map(|((at, len), byte)| Step::Write { at, len, byte }),
        3 => (place(), any::<bool>()).prop_map(|((at, len), unmap)| Step::Zero { at, len, unmap }),
        2 => Just(Step::Snapshot),
        1 => (1usize..40).prop_map(|sectors| Step::Grow { sectors }),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        3 => place().prop_map(|(at, len)| Step::Read { at, len }),
    ]
}

/// What `next_data` does not tell of must be zero.
fn check_holes(disk: &dyn Disk, model: &[u8]) {
    let end = ORIGIN + model.len() as u64;
    let mut at = ORIGIN;
    loop {
        let data = disk.next_data(at).unwrap().unwrap_or(end..end);
        let index = |offset: u64| usize::try_from(offset.min(end) - ORIGIN).unwrap();
        assert!(data.start >= at && data.end <= disk.size());
        assert!(model[index(at)..index(data.start)].iter().all(|byte| *byte == 0), "{at}: {data:?}");
        if data.start >= end {
            return;
        }
        assert!(data.start < data.end);
        at = data.end;
    }
}

fn run(steps: &[Step], cache: HostCache) {
    let dir = test_dir();
    let dir = if cache == HostCache::Bypassed { tempfile::tempdir().unwrap() } else { dir };
    let mut stems: Vec<PathBuf> = Vec::new();
    let create = |size: u64, stems: &mut Vec<PathBuf>| {
        let stem = dir.path().join(format!("layer.{}", stems.len()));
        stems.push(stem.clone());
        LayerFiles::create(&stem, size).unwrap()
    };
    let mut model = vec![0u8; START];
    let mut snapshots: Vec<(usize, Vec<u8>)> = Vec::new();
    let size = |model: &[u8]| ORIGIN + model.len() as u64;
    drop(create(size(&model), &mut stems));
    let mut disk = open_chain(&stems, size(&model), false, cache);
    let clip = |at: usize, len: usize, end: usize| (at.min(end), len.min(end - at.min(end)));
    for step in steps {
        match *step {
            Step::Write { at, len, byte } => {
                let (at, len) = clip(at, len, model.len());
                write(&disk, ORIGIN + at as u64, &vec![byte; len]).unwrap();
                model[at..at + len].fill(byte);
            }
            Step::Zero { at, len, unmap } => {
                let (at, len) = clip(at, len, model.len());
                disk.write_zeroes(ORIGIN + at as u64, len as u64, unmap).unwrap();
                model[at..at + len].fill(0);
            }
            Step::Snapshot => {
                // Made for the size at the start: a disk that has grown makes its next layer larger.
                disk.snapshot(create(ORIGIN + START as u64, &mut stems)).unwrap();
                snapshots.push((stems.len() - 1, model.clone()));
            }
            Step::Grow { sectors } => {
                model.resize(model.len() + sectors * 512, 0);
                disk.grow(size(&model)).unwrap();
            }
            Step::Flush => disk.flush().unwrap(),
            Step::Reopen => {
                disk.flush().unwrap();
                drop(disk);
                disk = open_chain(&stems, size(&model), false, cache);
            }
            Step::Read { at, len } => {
                let (at, len) = clip(at, len, model.len());
                assert!(read(&disk, ORIGIN + at as u64, len) == model[at..at + len], "{step:?}");
            }
        }
        assert_eq!(disk.size(), size(&model));
    }
    assert!(read(&disk, ORIGIN, model.len()) == model);
    assert!(read(&disk, ORIGIN - 9000, 9000) == [0; 9000]);
    check_holes(&disk, &model);
    for (layers, then) in &snapshots {
        let disk = open_chain(&stems[..*layers], size(then), true, cache);
        assert!(read(&disk, ORIGIN, then.len()) == *then, "snapshot of {layers}");
        check_holes(&disk, then);
    }
    for (at, stem) in stems.iter().enumerate() {
        assert_eq!(when_free(|| check(stem)).unwrap().sealed, at + 1 < stems.len());
    }
    drop(disk);
    snapshots.insert(0, (0, Vec::new()));
    for pair in snapshots.windows(2) {
        check_changes(&stems, &pair[0], &pair[1]);
    }
    if snapshots.len() > 2 {
        check_merged(&stems, &snapshots[1..]);
    }
}

/// Outside of what may have changed, two snapshots are the same.
fn check_changes(stems: &[PathBuf], (older, before): &(usize, Vec<u8>), (newer, after): &(usize, Vec<u8>)) {
    let open =
        |count: usize| stems[..count].iter().map(|stem| open_layer(stem, LayerAccess::Sealed)).collect::<Vec<_>>();
    let mut may_differ = vec![false; after.len()];
    let mut last = 0;
    for range in changes(&open(*older), &open(*newer)).unwrap() {
        assert!(range.start.is_multiple_of(UNIT) && range.start < range.end && (last == 0 || last < range.start));
        last = range.end;
        let index = |offset: u64| usize::try_from(offset.saturating_sub(ORIGIN)).unwrap().min(after.len());
        may_differ[index(range.start)..index(range.end)].fill(true);
    }
    for (at, may) in may_differ.iter().enumerate() {
        assert!(*may || before.get(at).copied().unwrap_or(0) == after[at], "{at}");
    }
}

/// Any snapshots in the middle can be merged, and those above are the same.
fn check_merged(stems: &[PathBuf], snapshots: &[(usize, Vec<u8>)]) {
    let ((top, then), lower) = (snapshots.last().unwrap(), snapshots.len() / 3);
    let upper = snapshots.len() - usize::from(snapshots.len() > 3);
    let (from, to) = (snapshots[lower].0 - 1, snapshots[upper - 1].0);
    let merged = stems[0].with_file_name("merged");
    let info = merge(&stems[from..to], &merged, &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert!(info.sealed);
    assert_eq!(when_free(|| check(&merged)).unwrap(), info);
    let chain = [&stems[..from], &[merged], &stems[to..*top]].concat();
    let disk = open_chain(&chain, ORIGIN + then.len() as u64, true, HostCache::Used);
    assert!(read(&disk, ORIGIN, then.len()) == *then, "{from}..{to} of {top} merged");
    check_holes(&disk, then);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_chain_and_its_snapshots_are_what_was_written(steps in prop::collection::vec(step(), 1..50)) {
        run(&steps, HostCache::Used);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn also_past_the_page_cache(steps in prop::collection::vec(step(), 1..40)) {
        run(&steps, HostCache::Bypassed);
    }
}
