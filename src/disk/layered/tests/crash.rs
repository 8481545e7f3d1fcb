//! What is left when the process, or the host, ends at any moment.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::{open_chain, test_dir, when_free};
use crate::disk::layered::{LayerAccess, LayerFiles, Layered, check};
use crate::disk::tests::{read, write};
use crate::disk::{Disk, HostCache};

const SECTORS: u64 = 1024;
const SIZE: u64 = SECTORS * 512;

/// Names the directory to the child.
const DIR: &str = "AMIBOOT_TEST_LAYERS";

fn mix(number: u64) -> u64 {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

/// Where write `number` goes: sectors.
fn place(number: u64) -> std::ops::Range<u64> {
    let start = mix(number) % SECTORS;
    start..(start + 1 + mix(number + 1_000_000) % 12).min(SECTORS)
}

/// The layers that are there: those that are sealed, and the first that is open.
fn chain(dir: &Path) -> Vec<PathBuf> {
    let mut stems = Vec::new();
    for number in 0.. {
        let stem = dir.join(number.to_string());
        let sealed = LayerFiles::open(&stem, LayerAccess::Inspect).unwrap().info().unwrap().sealed;
        stems.push(stem);
        if !sealed {
            break;
        }
    }
    stems
}

/// Writes, and says up to which write all is durable, until it is killed.
fn write_until_killed(dir: &Path) {
    let mut said = std::io::stdout().lock();
    let disk = open_chain(&chain(dir), SIZE, false, HostCache::Used);
    let first: u64 = fs::read_to_string(dir.join("next")).unwrap().parse().unwrap();
    for number in first.. {
        let place = place(number);
        if mix(number + 7).is_multiple_of(10) {
            disk.discard(place.start * 512, (place.end - place.start) * 512).unwrap();
        } else {
            let len = usize::try_from(place.end - place.start).unwrap() * 64;
            write(&disk, place.start * 512, &number.to_le_bytes().repeat(len)).unwrap();
        }
        if mix(number + 99).is_multiple_of(9) {
            disk.flush().unwrap();
            writeln!(said, "durable {number}").unwrap();
        }
        if mix(number + 123).is_multiple_of(37) {
            let stem = dir.join(disk.layers().to_string());
            let _ = super::super::remove(&stem);
            disk.snapshot(LayerFiles::create(&stem, SIZE).unwrap()).unwrap();
            writeln!(said, "durable {number}").unwrap();
        }
    }
}

#[test]
fn a_killed_process_loses_only_what_was_not_flushed() {
    if let Some(dir) = std::env::var_os(DIR) {
        return write_until_killed(Path::new(&dir));
    }
    let dir = test_dir();
    drop(LayerFiles::create(&dir.path().join("0"), SIZE).unwrap());
    let name = "disk::layered::tests::crash::a_killed_process_loses_only_what_was_not_flushed";
    // What each sector is: the write, and whether it was there for sure.
    let mut model = vec![0u64; usize::try_from(SECTORS).unwrap()];
    let mut next = 1;
    for round in 0..8u64 {
        fs::write(dir.path().join("next"), next.to_string()).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = 5 + mix(round) % 60;
        let durable = |line: std::io::Result<String>| {
            line.unwrap().rsplit_once("durable ").map(|(_, n)| n.parse::<u64>().unwrap())
        };
        let mut durable = lines.filter_map(durable);
        let mut last = durable.by_ref().nth(usize::try_from(wanted).unwrap()).expect("the child goes on");
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it was killed counts too.
        last = durable.last().unwrap_or(last);
        let stems = chain(dir.path());
        for stem in &stems {
            when_free(|| check(stem)).unwrap();
        }
        let disk = open_chain(&stems, SIZE, false, HostCache::Used);
        for number in next..=last {
            place(number).for_each(|sector| model[usize::try_from(sector).unwrap()] = number);
        }
        let later = last + 1..last + 200;
        let all = read(&disk, 0, usize::try_from(SIZE).unwrap());
        for (sector, bytes) in (0..).zip(all.as_chunks::<512>().0) {
            let words = bytes.as_chunks::<8>().0;
            let found = u64::from_le_bytes(words[0]);
            assert!(words.iter().all(|word| *word == words[0]), "sector {sector} is torn");
            let value = |number: u64| if mix(number + 7).is_multiple_of(10) { 0 } else { number };
            let sure = &mut model[usize::try_from(sector).unwrap()];
            if found != value(*sure) {
                let newer = later.clone().find(|&number| place(number).contains(&sector) && value(number) == found);
                *sure = newer.unwrap_or_else(|| panic!("round {round}, sector {sector}: {found} instead of {sure}"));
            }
        }
        // From here on it is durable; numbers must not come again.
        disk.flush().unwrap();
        next = later.end;
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write {
        sector: u64,
        count: u64,
    },
    Discard {
        sector: u64,
        count: u64,
    },
    Flush,
    /// The host ends; of what was not flushed each sector may be in the data file or not.
    Crash {
        seed: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let place = || (0..SECTORS, 1u64..40);
    prop_oneof![
        10 => place().prop_map(|(sector, count)| Step::Write { sector, count }),
        3 => place().prop_map(|(sector, count)| Step::Discard { sector, count }),
        2 => Just(Step::Flush),
        2 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
    ]
}

/// The files of the top as they are.
fn files_of(stem: &Path) -> (Vec<u8>, Vec<u8>) {
    (fs::read(stem.with_extension("data")).unwrap(), fs::read(stem.with_extension("map")).unwrap())
}

fn open(dir: &Path) -> Layered {
    open_chain(&[dir.join("base"), dir.join("top")], SIZE, false, HostCache::Used)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_host_that_ends_loses_only_what_was_not_flushed(steps in prop::collection::vec(step(), 1..60)) {
        let dir = test_dir();
        let (base, top) = (dir.path().join("base"), dir.path().join("top"));
        let below = crate::disk::tests::Memory::filled(SIZE, 0xee);
        let files = LayerFiles::create(&base, SIZE).unwrap();
        super::super::fill(&files, &below, &mut |_, _| std::ops::ControlFlow::Continue(())).unwrap();
        drop((files, LayerFiles::create(&top, SIZE).unwrap()));
        let mut disk = open(dir.path());
        // What each sector may be after a crash: at first what it was at the flush, last what it is now.
        let mut model: Vec<Vec<u8>> = vec![vec![0xee]; usize::try_from(SECTORS).unwrap()];
        let mut flushed = files_of(&top);
        for (step, byte) in steps.iter().zip((1..=200).cycle()) {
            let sectors = |sector: u64, count: u64| usize::try_from(sector).unwrap()..usize::try_from((sector + count).min(SECTORS)).unwrap();
            match *step {
                Step::Write { sector, count } => {
                    let range = sectors(sector, count);
                    write(&disk, sector * 512, &vec![byte; range.len() * 512]).unwrap();
                    model[range].iter_mut().for_each(|values| values.push(byte));
                }
                Step::Discard { sector, count } => {
                    let range = sectors(sector, count);
                    disk.discard(sector * 512, range.len() as u64 * 512).unwrap();
                    model[range].iter_mut().for_each(|values| values.push(0));
                }
                Step::Flush => {
                    disk.flush().unwrap();
                    flushed = files_of(&top);
                    model.iter_mut().for_each(|values| drop(values.drain(..values.len() - 1)));
                }
                Step::Crash { seed } => {
                    let (data, _) = files_of(&top);
                    drop(disk);
                    let mut mixed = flushed.0.clone();
                    for (sector, (old, new)) in (0..).zip(mixed.as_chunks_mut::<512>().0.iter_mut().zip(data.as_chunks::<512>().0)) {
                        if !mix(seed ^ sector).is_multiple_of(3) {
                            *old = *new;
                        }
                    }
                    fs::write(top.with_extension("data"), &mixed).unwrap();
                    fs::write(top.with_extension("map"), &flushed.1).unwrap();
                    disk = open(dir.path());
                    let all = read(&disk, 0, usize::try_from(SIZE).unwrap());
                    for (sector, values) in model.iter_mut().enumerate() {
                        let bytes = &all[sector * 512..][..512];
                        prop_assert!(bytes.iter().all(|byte| *byte == bytes[0]), "sector {} is torn", sector);
                        prop_assert!(values.contains(&bytes[0]), "sector {}: {} not of {:?}", sector, bytes[0], values);
                        *values = vec![bytes[0]];
                    }
                    flushed = files_of(&top);
                }
            }
            prop_assert!(files_of(&top).1 == flushed.1, "the map is written at a flush only");
            let all = read(&disk, 0, usize::try_from(SIZE).unwrap());
            for (sector, values) in model.iter().enumerate() {
                let now = *values.last().unwrap();
                prop_assert!(all[sector * 512..][..512].iter().all(|byte| *byte == now), "{:?}: sector {}", step, sector);
            }
        }
    }
}

#[test]
fn growth_that_did_not_come_to_its_end_is_forgotten() {
    let dir = test_dir();
    let stem = dir.path().join("0");
    drop(LayerFiles::create(&stem, SIZE).unwrap());
    let disk = open_chain(std::slice::from_ref(&stem), SIZE, false, HostCache::Used);
    write(&disk, SIZE - 512, &[5; 512]).unwrap();
    disk.flush().unwrap();
    drop(disk);
    let data = File::options().write(true).open(stem.with_extension("data")).unwrap();
    data.write_all_at(&[7; 4096], SIZE + 4096).unwrap();
    assert!(!when_free(|| check(&stem)).unwrap().sealed);
    let disk = open_chain(std::slice::from_ref(&stem), SIZE, false, HostCache::Used);
    disk.grow(2 * SIZE).unwrap();
    assert_eq!(read(&disk, SIZE, usize::try_from(SIZE).unwrap()), vec![0; usize::try_from(SIZE).unwrap()]);
    write(&disk, SIZE, &[1; 512]).unwrap();
    drop(disk);
    // The size was durable at once.
    let disk = open_chain(&[stem], 2 * SIZE, false, HostCache::Used);
    assert_eq!(read(&disk, SIZE - 512, 512), [5; 512]);
}
