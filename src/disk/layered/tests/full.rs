//! Hosts that have no room, or refuse to write.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{open_chain, open_layer, test_dir};
use crate::disk::layered::{LayerAccess, LayerFiles, Layered, REGION, fill, seal};
use crate::disk::tests::{Memory, read, write};
use crate::disk::{Disk, HostCache};

/// Names the directory to the child.
const DIR: &str = "AMIBOOT_TEST_FULL";

/// Runs one test of this module again, in a shell that has prepared something for it.
fn again(test: &str, wrapper: &[&str], script: &str, dir: &Path) -> std::process::Output {
    let (program, arguments) = wrapper.split_first().unwrap();
    let run = OsString::from(format!("{script} exec \"$0\" \"$@\""));
    Command::new(program)
        .args(arguments)
        .args(["sh".as_ref(), "-c".as_ref(), run.as_os_str()])
        .arg(std::env::current_exe().unwrap())
        .args([&format!("disk::layered::tests::full::{test}"), "--exact", "--nocapture"])
        .env(DIR, dir)
        .output()
        .unwrap()
}

const SIZE: u64 = 16 << 20;

#[test]
fn a_full_file_system_is_an_error_of_that_write_and_it_goes_on_afterwards() {
    let test = "a_full_file_system_is_an_error_of_that_write_and_it_goes_on_afterwards";
    if let Some(dir) = std::env::var_os(DIR) {
        return on_a_small_file_system(Path::new(&dir));
    }
    let dir = test_dir();
    fs::create_dir(dir.path().join("small")).unwrap();
    let mount = "mount -t tmpfs -o size=2m tmpfs \"$AMIBOOT_TEST_FULL/small\" || exit 77;";
    // As the user that one is, else as root of one's own.
    for wrapper in [&["unshare", "--mount"][..], &["unshare", "--user", "--map-root-user", "--mount"]] {
        let output = again(test, wrapper, mount, dir.path());
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return;
        }
        let prepared = output.status.code() != Some(77) && !said.contains("unshare failed");
        assert!(!prepared, "{said}\n{}", String::from_utf8_lossy(&output.stdout));
    }
    eprintln!("left out: this host lets nobody mount a small file system");
}

/// What enters a layer as zeroes takes no room for data, but for the page of the map that it is the first of.
fn where_only_maps_take_room(dir: &Path) {
    let stems = [dir.join("wide"), dir.join("small/narrow")];
    let size = 64 * REGION;
    drop([&stems[0], &stems[1]].map(|stem| LayerFiles::create(stem, size).unwrap()));
    let base = open_chain(&stems[..1], size, false, HostCache::Used);
    (0..64).for_each(|region| write(&base, region * REGION, &[9; 4096]).unwrap());
    base.flush().unwrap();
    drop(base);
    seal(&stems[0]).unwrap();
    let disk = open_chain(&stems, size, false, HostCache::Used);
    let balloon = dir.join("small/balloon");
    let filled = fs::write(&balloon, vec![1; 4 << 20]);
    assert_eq!(filled.unwrap_err().kind(), ErrorKind::StorageFull);
    let len = fs::metadata(&balloon).unwrap().len();
    fs::File::options().write(true).open(&balloon).unwrap().set_len(len - 8 * 4096).unwrap();
    let discard = |region: u64| disk.discard(region * REGION, 4096);
    let refused: Vec<u64> = (0..64).filter(|&region| discard(region).is_err()).collect();
    assert!((40..60).contains(&refused.len()), "{refused:?}");
    assert_eq!(discard(refused[0]).unwrap_err().kind(), ErrorKind::StorageFull);
    // What has entered has room to be written.
    disk.flush().unwrap();
    fs::remove_file(&balloon).unwrap();
    discard(refused[0]).unwrap();
    disk.flush().unwrap();
    drop(disk);
    let disk = open_chain(&stems, size, false, HostCache::Used);
    for region in 0..64 {
        let wanted = if refused[1..].contains(&region) { 9 } else { 0 };
        assert_eq!(read(&disk, region * REGION, 4096), [wanted; 4096], "{region}");
    }
    drop(disk);
    crate::disk::layered::remove(&stems[1]).unwrap();
}

fn on_a_small_file_system(dir: &Path) {
    where_only_maps_take_room(dir);
    let stems = [dir.join("base"), dir.join("small/top")];
    let files = LayerFiles::create(&stems[0], SIZE).unwrap();
    fill(&files, &Memory::filled(SIZE, 9), &mut |_, _| std::ops::ControlFlow::Continue(())).unwrap();
    drop((files, LayerFiles::create(&stems[1], SIZE).unwrap()));
    let balloon = dir.join("small/balloon");
    fs::write(&balloon, vec![1; 1 << 20]).unwrap();
    let disk = open_chain(&stems, SIZE, false, HostCache::Used);
    let mut model = vec![9; usize::try_from(SIZE).unwrap()];
    let (mut full, mut random) = (0, 1u64);
    for round in 0..600 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (at, len) = ((random >> 33) % (SIZE - 40_000), (random >> 20) % 20_000 + 1);
        let (start, end) = (usize::try_from(at).unwrap(), usize::try_from(at + len).unwrap());
        let byte = u8::try_from(round % 250).unwrap();
        match write(&disk, at, &vec![byte; end - start]) {
            Ok(()) => model[start..end].fill(byte),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
                full += 1;
                // Of what was to be written anything may be there; nothing else may be touched.
                for (now, then) in read(&disk, at, end - start).iter().zip(&mut model[start..end]) {
                    assert!([*then, byte].contains(now));
                    *then = *now;
                }
            }
        }
        if round % 50 == 20 {
            disk.flush().unwrap();
        }
        match round {
            // If there is room for a layer at all, it is used.
            300 => {
                assert!(full > 20, "{full}");
                if let Ok(next) = LayerFiles::create(&dir.join("small/next"), SIZE) {
                    let _ = disk.snapshot(next);
                }
            }
            400 => fs::remove_file(&balloon).unwrap(),
            _ => {}
        }
    }
    assert!(read(&disk, 0, model.len()) == model);
    disk.flush().unwrap();
    let layers = disk.layers();
    drop(disk);
    let all = [&stems[..], &[dir.join("small/next")]].concat();
    let disk = open_chain(&all[..layers], SIZE, false, HostCache::Used);
    assert!(read(&disk, 0, model.len()) == model);
    drop(disk);
    seal(&all[layers - 1]).unwrap();
    let disk = open_chain(&all[..layers], SIZE, true, HostCache::Used);
    assert!(read(&disk, 0, model.len()) == model);
}

#[test]
fn a_snapshot_that_cannot_be_sealed_leaves_the_disk_as_it_was() {
    if let Some(dir) = std::env::var_os(DIR) {
        return where_nothing_can_be_written(Path::new(&dir));
    }
    let dir = test_dir();
    let test = "a_snapshot_that_cannot_be_sealed_leaves_the_disk_as_it_was";
    // What is beyond the limit is then an error, not the end.
    let output = again(test, &["env"], "trap '' XFSZ;", dir.path());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?} {said}", output.status.signal());
}

/// With a limit of zero every write to a file fails, and nothing else.
fn limit(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).unwrap();
}

fn where_nothing_can_be_written(dir: &Path) {
    let stems = ["a", "b", "c"].map(|name| dir.join(name));
    let size = 1 << 20;
    let disk = Layered::open(vec![LayerFiles::create(&stems[0], size).unwrap()], size, false, HostCache::Used).unwrap();
    let next = [&stems[1], &stems[2]].map(|stem| LayerFiles::create(stem, size).unwrap());
    let [second, third] = next;
    write(&disk, 0, &[1; 8192]).unwrap();
    limit(Some(0));
    disk.flush().unwrap_err();
    limit(None);
    disk.flush().unwrap();
    // Nothing is left to be written but that it is sealed.
    limit(Some(0));
    disk.snapshot(second).unwrap_err();
    limit(None);
    assert_eq!(disk.layers(), 1);
    assert!(!disk.keeps_waiting());
    write(&disk, 4096, &[2; 512]).unwrap();
    disk.flush().unwrap();
    assert!(!LayerFiles::open(&stems[0], LayerAccess::Inspect).unwrap().info().unwrap().sealed);
    limit(Some(0));
    disk.grow(2 * size).unwrap_err();
    limit(None);
    assert_eq!(disk.size(), size);
    disk.snapshot(third).unwrap();
    write(&disk, 0, &[3; 512]).unwrap();
    disk.flush().unwrap();
    drop(disk);
    let then = open_chain(&stems[..1], size, true, HostCache::Used);
    assert_eq!(read(&then, 0, 8192), [&[1; 4096][..], &[2; 512], &[1; 3584]].concat());
    drop(then);
    let chain = vec![open_layer(&stems[0], LayerAccess::Sealed), open_layer(&stems[2], LayerAccess::Writable)];
    let disk = Layered::open(chain, size, false, HostCache::Used).unwrap();
    assert_eq!(read(&disk, 0, 1024), [[3; 512], [1; 512]].concat());
}
