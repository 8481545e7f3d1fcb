//! Files of layers that are not as they were written.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::disk::Disk;
use crate::disk::layered::{check, merge};
use crate::disk::tests::{read, write};

const SIZE: u64 = (256 << 20) + 5 * 512;

/// A chain of two sealed layers and an open one, and what it is.
fn original(dir: &Path) -> (Vec<PathBuf>, Vec<u8>) {
    let stems: Vec<PathBuf> = ["a", "b", "c"].map(|name| dir.join(name)).into();
    let first = LayerFiles::create(&stems[0], SIZE).unwrap();
    let disk = Layered::open(vec![first], SIZE, false, HostCache::Used).unwrap();
    for (byte, stem) in (1..).zip(&stems) {
        for at in [0, 3 * 4096, (128 << 20) - 4096, SIZE - 512] {
            write(&disk, at + u64::from(byte - 1) * 4096 * u64::from(at < 1 << 20), &[byte; 512]).unwrap();
        }
        if byte > 1 {
            disk.flush().unwrap();
        }
        if let Some(next) = stems.get(usize::from(byte)) {
            disk.snapshot(LayerFiles::create(next, SIZE).unwrap()).unwrap();
        }
        assert!(stem.with_extension("data").exists());
    }
    let all = looked_at(&disk).unwrap();
    (stems, all)
}

fn looked_at(disk: &Layered) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    for (at, len) in [(0, 128 << 10), ((128 << 20) - 8192, 16384), (SIZE - 8192, 8192)] {
        let mut part = vec![0; len];
        disk.read_exact_at(at, &mut part)?;
        all.extend(part);
    }
    let _ = disk.next_data(0)?;
    Ok(all)
}

fn open_all(stems: &[PathBuf]) -> Result<Layered, LayerError> {
    when_free(|| {
        let chain = stems.iter().enumerate().map(|(at, stem)| {
            LayerFiles::open(stem, if at == 2 { LayerAccess::Writable } else { LayerAccess::Sealed })
        });
        Layered::open(chain.collect::<Result<_, _>>()?, SIZE, false, HostCache::Used)
    })
}

/// Changes a few bytes, or the length. Where the bytes are is more often than not where there is something.
fn mutate(bytes: &mut Vec<u8>, mut next: impl FnMut(usize) -> usize) {
    for _ in 0..=next(3) {
        let at = match next(4) {
            0 => next(64),
            1 => 4096 + next(8),
            _ => next(bytes.len().max(1)),
        };
        match next(8) {
            0 => bytes.truncate(at),
            1 => bytes.resize(bytes.len() + next(9000), 0),
            2..=4 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << next(8)),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = u8::try_from(next(256)).unwrap()),
        }
    }
}

#[test]
fn changed_maps_are_named_or_do_no_harm() {
    let dir = test_dir();
    let (stems, wanted) = original(dir.path());
    let maps: Vec<Vec<u8>> = stems.iter().map(|stem| fs::read(stem.with_extension("map")).unwrap()).collect();
    let mut random = 0x1234_5678u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % below
    };
    let mut named = 0;
    for round in 0..1200 {
        let which = next(3);
        let mut bytes = maps[which].clone();
        mutate(&mut bytes, &mut next);
        let path = stems[which].with_extension("map");
        fs::write(&path, &bytes).unwrap();
        let checked = check(&stems[which]);
        match open_all(&stems) {
            Err(error) => {
                let said = error.to_string();
                // A sealed layer that says it is open, and the other way round, is what it says.
                let state = matches!(error, LayerError::NotSealed { .. } | LayerError::Sealed { .. });
                assert!(said.contains(stems[which].to_str().unwrap()), "{said}");
                let fits = matches!(error, LayerError::SizesDoNotFit { .. });
                assert!(checked.is_err() || state || fits, "round {round}: {said}");
                named += 1;
            }
            // Of the open layer the bitmap has no checksum: units may be missing or too many.
            Ok(disk) => {
                let found = looked_at(&disk);
                if which < 2 {
                    assert!(found.unwrap() == wanted, "round {round}");
                    checked.unwrap();
                }
                // It works; and is not flushed.
                write(&disk, 64 << 20, &[7; 5000]).unwrap();
                assert_eq!(read(&disk, 64 << 20, 5000), [7; 5000]);
            }
        }
        fs::write(&path, &maps[which]).unwrap();
    }
    assert!(named > 400, "{named}");
    assert!(looked_at(&open_all(&stems).unwrap()).unwrap() == wanted);
}

#[test]
fn each_damage_is_named() {
    let dir = test_dir();
    let (stems, _) = original(dir.path());
    let (data, map) = (stems[0].with_extension("data"), stems[0].with_extension("map"));
    let bytes = fs::read(&map).unwrap();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        fs::write(&map, bytes).unwrap();
        let error = check(&stems[0]).unwrap_err();
        assert!(error.to_string().starts_with(map.to_str().unwrap()), "{error}");
        // What is built on it finds it too.
        assert!(
            when_free(|| LayerFiles::open(&stems[0], LayerAccess::Sealed)
                .map(|files| vec![files])
                .and_then(|chain| { Layered::open(chain, SIZE, true, HostCache::Used) }))
            .is_err()
        );
        let into = dir.path().join("merged");
        assert!(when_free(|| merge(&stems[..2], &into, &mut |_, _| std::ops::ControlFlow::Continue(()))).is_err());
        assert!(!into.with_extension("data").exists());
        error
    };
    assert!(matches!(with(&|bytes| bytes[0] = b'X'), LayerError::NotALayer { .. }));
    assert!(matches!(with(&|bytes| bytes[8] = 2), LayerError::Version { version: 2, .. }));
    assert!(matches!(with(&|bytes| bytes[20] ^= 1), LayerError::Checksum { part: "header", .. }));
    assert!(matches!(with(&|bytes| bytes[4096] ^= 2), LayerError::Checksum { part: "bitmap", .. }));
    assert!(matches!(with(&|bytes| *bytes.last_mut().unwrap() = 1), LayerError::BeyondEnd { .. }));
    assert!(matches!(with(&|bytes| bytes.truncate(8192)), LayerError::Length { len: 8192, wanted: 16384, .. }));
    assert!(matches!(with(&|bytes| bytes.truncate(63)), LayerError::Length { len: 63, .. }));
    assert!(matches!(with(&|bytes| bytes.push(0)), LayerError::Length { .. }));
    fs::write(&map, &bytes).unwrap();
    check(&stems[0]).unwrap();
    let file = fs::File::options().write(true).open(&data).unwrap();
    file.set_len(SIZE - 1).unwrap();
    let error = check(&stems[0]).unwrap_err();
    assert!(matches!(error, LayerError::Length { .. }) && error.to_string().contains("a.data"), "{error}");
    for (path, other) in [(&data, &map), (&map, &data)] {
        let aside = dir.path().join("aside");
        fs::rename(path, &aside).unwrap();
        let error = check(&stems[0]).unwrap_err();
        assert!(matches!(&error, LayerError::Missing { path: missing } if missing == path), "{error}");
        fs::create_dir(path).unwrap();
        let error = check(&stems[0]).unwrap_err();
        assert!(matches!(error, LayerError::NotAFile { .. }), "{error} {other:?}");
        fs::remove_dir(path).unwrap();
        fs::rename(&aside, path).unwrap();
    }
}
