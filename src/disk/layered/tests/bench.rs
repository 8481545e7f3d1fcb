//! How fast disks are, compared; not a test: `cargo test --release --lib layered::tests::bench -- --ignored --nocapture`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::open_chain;
use crate::disk::layered::{LayerFiles, Layered};
use crate::disk::tests::write;
use crate::disk::{Disk, DiskQueue, Engine, HostCache, Overlay, Raw};

const SIZE: u64 = 1 << 30;
const DEPTH: u64 = 32;

fn raw(dir: &Path, cache: HostCache) -> Arc<dyn Disk> {
    let path = dir.join("raw");
    let made = path.exists();
    let file = std::fs::File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap();
    file.set_len(SIZE).unwrap();
    let disk = Raw::new(file, false).unwrap().with_cache(cache).unwrap();
    if !made {
        write_all(&disk);
    }
    Arc::new(disk)
}

fn write_all(disk: &dyn Disk) {
    (0..SIZE >> 20).for_each(|mib| write(disk, mib << 20, &vec![7; 1 << 20]).unwrap());
    disk.flush().unwrap();
}

/// A chain of so many layers whose units are spread over all of them; the top is empty.
fn chain(dir: &Path, layers: u64, cache: HostCache) -> Layered {
    let stems: Vec<_> = (0..=layers).map(|number| dir.join(format!("{layers}.{number}"))).collect();
    if !dir.join(format!("{layers}.0.data")).exists() {
        let first = LayerFiles::create(&stems[0], SIZE).unwrap();
        let disk = Layered::open(vec![first], SIZE, false, HostCache::Used).unwrap();
        write_all(&disk);
        for (number, stem) in (1..).zip(&stems[1..]) {
            disk.snapshot(LayerFiles::create(stem, SIZE).unwrap()).unwrap();
            // A few hundred runs of each.
            for at in (0..300u64).map(|i| ((i * 7919 + number * 104_729) % (SIZE >> 14)) << 14) {
                if number < layers {
                    write(&disk, at, &[7; 8192]).unwrap();
                }
            }
        }
        disk.flush().unwrap();
    }
    let start = Instant::now();
    let disk = open_chain(&stems, SIZE, false, cache);
    println!("open {} layers: {:.1?}", disk.layers(), start.elapsed());
    disk
}

/// Requests for a while, in random order; gives how many in a second, and MiB.
fn run(disk: &Arc<dyn Disk>, engine: Engine, write: bool, len: u64) -> (f64, f64) {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), usize::try_from(DEPTH * len).unwrap())]).unwrap();
    let mut queue = DiskQueue::new(disk.clone(), &memory, engine);
    let (mut random, mut done) = (88_172_645_463_325_252u64, 0u64);
    let start = Instant::now();
    let mut free: Vec<u64> = (0..DEPTH).collect();
    let mut ended = Vec::new();
    while start.elapsed() < Duration::from_secs(1) {
        while let Some(slot) = free.pop() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let at = random % (SIZE / len) * len;
            let buf = [memory.get_slice(GuestAddress(slot * len), usize::try_from(len).unwrap()).unwrap()];
            let now = if write { queue.write(slot, at, &buf) } else { queue.read(slot, at, &buf) };
            if let Some((slot, result)) = now {
                result.unwrap();
                free.push(slot);
                done += 1;
                if done.is_multiple_of(32) {
                    break;
                }
            }
        }
        queue.reap(&mut ended).unwrap();
        if ended.is_empty()
            && free.is_empty()
            && let Some(event) = queue.event()
        {
            poll(&mut [PollFd::from_borrowed_fd(event, PollFlags::IN)], None).unwrap();
        }
        for (slot, result) in ended.drain(..) {
            result.unwrap();
            free.push(slot);
            done += 1;
        }
    }
    queue.settle(&mut ended).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    (done as f64 / seconds, (done * len) as f64 / seconds / f64::from(1 << 20))
}

#[test]
#[ignore = "takes minutes; for figures"]
fn layers_against_plain_files() {
    let dir = tempfile::tempdir_in(std::env::var_os("BENCH_DIR").unwrap_or_else(|| "/tmp".into())).unwrap();
    let engine = Engine::of_host();
    for cache in [HostCache::Used, HostCache::Bypassed] {
        type Make<'a> = Box<dyn Fn() -> Arc<dyn Disk> + 'a>;
        let path = dir.path();
        let disks: [(&str, Make<'_>); 4] = [
            ("raw", Box::new(|| raw(path, cache))),
            ("overlay", Box::new(|| Arc::new(Overlay::new(raw(path, cache), SIZE, path, cache).unwrap()))),
            ("layered 1", Box::new(|| Arc::new(chain(path, 1, cache)))),
            ("layered 200", Box::new(|| Arc::new(chain(path, 200, cache)))),
        ];
        for (name, make) in disks {
            let disk = make();
            for (what, write, len) in [("read", false, 4096), ("read", false, 1 << 20)] {
                let (count, mib) = run(&disk, engine, write, len);
                println!("{cache:?} {name}: {what} {len} from below: {count:.0}/s {mib:.0} MiB/s");
            }
            let (count, _) = run(&disk, engine, true, 4096);
            println!("{cache:?} {name}: write 4096, new units first: {count:.0}/s");
            write_all(&*disk);
            for (what, write, len) in
                [("read", false, 4096), ("read", false, 1 << 20), ("write", true, 4096), ("write", true, 1 << 20)]
            {
                let (count, mib) = run(&disk, engine, write, len);
                println!("{cache:?} {name}: {what} {len}: {count:.0}/s {mib:.0} MiB/s");
            }
            let start = Instant::now();
            disk.flush().unwrap();
            println!("{cache:?} {name}: flush {:.1?}", start.elapsed());
            drop(disk);
            if let Some(layers) = name.strip_prefix("layered ") {
                // The next run begins with an empty top again.
                let top = path.join(format!("{layers}.{layers}"));
                crate::disk::layered::remove(&top).unwrap();
                drop(LayerFiles::create(&top, SIZE).unwrap());
            }
        }
    }
}

#[test]
#[ignore = "for figures"]
fn snapshots_under_load() {
    let dir = tempfile::tempdir_in(std::env::var_os("BENCH_DIR").unwrap_or_else(|| "/tmp".into())).unwrap();
    for cache in [HostCache::Used, HostCache::Bypassed] {
        let name = |number: u64| dir.path().join(format!("{cache:?}.{number}"));
        let first = LayerFiles::create(&name(0), SIZE).unwrap();
        let disk = Arc::new(Layered::open(vec![first], SIZE, false, cache).unwrap());
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let (mut buf, mut longest, mut count, mut random) = (vec![7; 4096], Duration::ZERO, 0u64, 1u64);
                while !stop.load(Ordering::SeqCst) {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let start = Instant::now();
                    disk.write_at(((random >> 33) % (SIZE >> 12)) << 12, &[(&mut buf[..]).into()]).unwrap();
                    (longest, count) = (longest.max(start.elapsed()), count + 1);
                    thread::sleep(Duration::from_micros(50));
                }
                (longest, count)
            });
            let took = (1..=20).map(|number| {
                thread::sleep(Duration::from_millis(200));
                let next = LayerFiles::create(&name(number), SIZE).unwrap();
                let start = Instant::now();
                disk.snapshot(next).unwrap();
                start.elapsed()
            });
            let mut took: Vec<Duration> = took.collect();
            took.sort_unstable();
            stop.store(true, Ordering::SeqCst);
            let (longest, count) = writer.join().unwrap();
            println!(
                "{cache:?}: snapshots {:.1?} to {:.1?}; longest of {count} writes {longest:.1?}",
                took[0], took[19]
            );
        });
    }
}
