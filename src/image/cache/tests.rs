#![allow(clippy::cast_possible_truncation, reason = "test data of known size")]

use std::os::unix::fs::PermissionsExt;
use std::sync::Barrier;
use std::time::Duration;

use super::*;

fn temp() -> (tempfile::TempDir, Cache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(&dir.path().join("a/b")).unwrap();
    (dir, cache)
}

fn content(blob: &mut Blob) -> Vec<u8> {
    let mut out = Vec::new();
    blob.file.read_to_end(&mut out).unwrap();
    out
}

fn put(cache: &Cache, bytes: &[u8]) -> Blob {
    cache.insert_content::<Box<dyn std::error::Error>>(|w| Ok(w.write_all(bytes)?)).unwrap()
}

impl From<Error> for String {
    fn from(e: Error) -> Self {
        e.to_string()
    }
}

fn names(cache: &Cache, part: &str) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(cache.path(part)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A file whose last change is long enough ago.
fn settled_file(dir: &Path) -> (PathBuf, FileIdentity) {
    let path = dir.join("disk");
    std::fs::write(&path, b"disk").unwrap();
    let mut identity = FileIdentity::of(&File::open(&path).unwrap()).unwrap();
    identity.mtime_ns -= 3_000_000_000;
    identity.ctime_ns -= 3_000_000_000;
    (path, identity)
}

#[test]
fn a_blob_is_made_once() {
    let (_dir, cache) = temp();
    let key = sha256(b"the compressed kernel");
    for round in 0..2 {
        let mut blob = cache
            .get_or_insert::<Box<dyn std::error::Error>>(BlobKind::Elf, &key, |w| {
                assert_eq!(round, 0, "filled twice");
                Ok(w.write_all(b"unpacked")?)
            })
            .unwrap();
        assert_eq!((content(&mut blob).as_slice(), blob.len), (&b"unpacked"[..], 8));
        assert_eq!(blob.file.metadata().unwrap().permissions().mode() & 0o777, 0o444);
        assert!(blob.id.as_str().starts_with("elf-") && blob.id.as_str().ends_with("-8"));
    }
    let a = put(&cache, b"initrd");
    assert_eq!(put(&cache, b"initrd").id, a.id);
    assert_ne!(put(&cache, b"initrx").id, a.id);
    assert_eq!((names(&cache, "blobs").len(), names(&cache, "tmp").len()), (3, 0));
    let reopened = Cache::open(&cache.root).unwrap();
    assert_eq!(content(&mut reopened.blob(&a.id).unwrap()), b"initrd");
}

#[test]
fn a_failed_blob_leaves_nothing() {
    let (_dir, cache) = temp();
    let failed = cache.get_or_insert::<String>(BlobKind::Elf, &[0; 32], |w| {
        w.write_all(&[1; 100_000]).unwrap();
        Err("damaged".to_owned())
    });
    assert_eq!(failed.unwrap_err(), "damaged");
    assert_eq!((names(&cache, "blobs").len(), names(&cache, "tmp").len()), (0, 0));
}

#[test]
fn a_full_disk_is_a_clean_error() {
    let (dir, cache) = temp();
    // Any file may have at most 1 MiB: a write beyond that fails as one on a full disk does.
    let script = "ulimit -f 1024; trap '' XFSZ; exec \"$0\" --exact image::cache::tests::full_disk_child --ignored";
    let child = std::process::Command::new("bash")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("AMIBOOT_TEST_CACHE", cache.root.as_os_str())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    assert!(dir.path().join("a/b/ran").exists());
    assert_eq!((names(&cache, "blobs").len(), names(&cache, "tmp").len()), (0, 0));
}

#[test]
#[ignore = "run by a_full_disk_is_a_clean_error with a limit on the size of files"]
fn full_disk_child() {
    let Some(root) = std::env::var_os("AMIBOOT_TEST_CACHE").map(PathBuf::from) else { return };
    let cache = Cache::open(&root).unwrap();
    let failed = cache.insert_content::<String>(|w| w.write_all(&vec![1; 8 << 20]).map_err(|e| e.to_string()));
    let error = failed.unwrap_err();
    assert!(error.contains("cannot write to the cache") && error.contains("too large"), "{error}");
    assert_eq!(names(&cache, "tmp").len(), 0);
    std::fs::write(root.join("ran"), "").unwrap();
}

#[test]
fn leftovers_of_the_dead_go_and_those_of_the_living_stay() {
    let (_dir, cache) = temp();
    let mut living = store::Temporary::create(&cache.path("tmp")).unwrap();
    living.write_all(b"half").unwrap();
    std::fs::write(cache.path("tmp").join("999999-0"), b"leftover").unwrap();
    assert_eq!(names(&cache, "tmp").len(), 2);
    Cache::open(&cache.root).unwrap();
    assert_eq!(names(&cache, "tmp").len(), 1);
    living.write_all(b" and half").unwrap();
    living.publish(&cache.path("blobs").join("x"), 0o444).unwrap();
    assert_eq!(std::fs::read(cache.path("blobs").join("x")).unwrap(), b"half and half");
}

#[test]
fn a_writer_killed_in_the_middle_leaves_nothing() {
    let (_dir, cache) = temp();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "image::cache::tests::killed_child", "--ignored", "--nocapture"])
        .env("AMIBOOT_TEST_CACHE", cache.root.as_os_str())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("half written") {
        line.clear();
        assert_ne!(io::BufRead::read_line(&mut said, &mut line).unwrap(), 0, "the child ended early");
    }
    Cache::open(&cache.root).unwrap();
    assert_eq!(names(&cache, "tmp").len(), 1, "what a living process writes stays");
    child.kill().unwrap();
    child.wait().unwrap();
    Cache::open(&cache.root).unwrap();
    assert_eq!((names(&cache, "blobs").len(), names(&cache, "tmp").len()), (0, 0));
}

#[test]
#[ignore = "run and killed by a_writer_killed_in_the_middle_leaves_nothing"]
fn killed_child() {
    let Some(root) = std::env::var_os("AMIBOOT_TEST_CACHE").map(PathBuf::from) else { return };
    let cache = Cache::open(&root).unwrap();
    let _ = cache.insert_content::<String>(|w| {
        w.write_all(&[1; 100_000]).unwrap();
        println!("half written");
        // Until it is killed, or its parent is gone.
        while std::os::unix::process::parent_id() != 1 {
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("orphaned".to_owned())
    });
}

#[test]
fn a_damaged_blob_is_made_again() {
    let (_dir, cache) = temp();
    let key = [7; 32];
    let fill = |w: &mut dyn Write| -> Result<(), Box<dyn std::error::Error>> { Ok(w.write_all(b"12345678")?) };
    let id = cache.get_or_insert(BlobKind::Elf, &key, fill).unwrap().id;
    let path = cache.path("blobs").join(id.as_str());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&path, b"123").unwrap();
    assert!(cache.blob(&id).is_none());
    let mut again = cache.get_or_insert(BlobKind::Elf, &key, fill).unwrap();
    assert_eq!(content(&mut again), b"12345678");
    assert!(cache.blob(&id).is_some());
}

#[test]
fn names_from_outside_stay_inside() {
    let (_dir, cache) = temp();
    for name in ["../../etc/passwd", "elf-x-1", "", "raw-/../-4", "elf--"] {
        assert!(cache.blob(&BlobId(name.to_owned())).is_none());
    }
}

#[test]
fn the_oldest_give_way_but_open_ones_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open_with_limit(dir.path(), 250).unwrap();
    let mut first = put(&cache, &[1; 100]);
    let second = put(&cache, &[2; 100]);
    let old = |blob: &Blob, age| {
        let path = cache.path("blobs").join(blob.id.as_str());
        File::open(path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
    };
    old(&first, 200);
    old(&second, 100);
    // Using the first makes the second the oldest.
    cache.blob(&first.id).unwrap();
    let third = put(&cache, &[3; 100]);
    assert!(cache.blob(&second.id).is_none());
    assert!(cache.blob(&first.id).is_some() && cache.blob(&third.id).is_some());
    old(&first, 50);
    let giant = put(&cache, &[4; 1000]);
    assert!(cache.blob(&first.id).is_none() && cache.blob(&giant.id).is_some());
    assert_eq!(content(&mut first), [1; 100]);
}

#[test]
fn plans_belong_to_an_unchanged_file() {
    let (dir, cache) = temp();
    let (_path, identity) = settled_file(dir.path());
    assert_eq!(cache.plan::<String>(&identity, "auto"), None);
    assert!(cache.store_plan(&identity, "auto", &"plan").unwrap());
    assert_eq!(cache.plan(&identity, "auto"), Some("plan".to_owned()));
    assert_eq!(cache.plan::<String>(&identity, "other"), None);
    let changes: [fn(&mut FileIdentity); 5] =
        [|i| i.size += 1, |i| i.mtime_ns += 1, |i| i.ctime_ns -= 1, |i| i.ino += 1, |i| i.dev += 1];
    for change in changes {
        let mut other = identity;
        change(&mut other);
        assert_eq!(cache.plan::<String>(&other, "auto"), None);
    }
    // Of another shape, and damaged.
    assert_eq!(cache.plan::<u64>(&identity, "auto"), None);
    let path = cache.path("index").join(&names(&cache, "index")[0]);
    let text = std::fs::read_to_string(&path).unwrap();
    for damaged in ["", "{", &text[..text.len() / 2], &text.replace("\"version\": 1", "\"version\": 2")] {
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(cache.plan::<String>(&identity, "auto"), None);
    }
    assert!(cache.store_plan(&identity, "auto", &"new").unwrap());
    assert_eq!(cache.plan(&identity, "auto"), Some("new".to_owned()));
    cache.forget_plan(&identity, "auto");
    assert_eq!(cache.plan::<String>(&identity, "auto"), None);
}

#[test]
fn a_file_changed_just_now_gets_no_plan() {
    let (dir, cache) = temp();
    let (path, settled) = settled_file(dir.path());
    let now = FileIdentity::of(&File::open(path).unwrap()).unwrap();
    assert!(!cache.store_plan(&now, "", &1).unwrap());
    assert_eq!(names(&cache, "index").len(), 0);
    // The content's time can be set back; the inode's cannot.
    let racy = FileIdentity { mtime_ns: settled.mtime_ns, ..now };
    assert!(!cache.store_plan(&racy, "", &1).unwrap());
    let future = FileIdentity { mtime_ns: now.mtime_ns + 1_000_000_000_000, ..settled };
    assert!(!cache.store_plan(&future, "", &1).unwrap());
}

#[test]
fn many_at_once() {
    let (_dir, cache) = temp();
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for n in 0..8_u8 {
            let (cache, barrier) = (&cache, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for round in 0..10_u8 {
                    Cache::open(&cache.root).unwrap();
                    let mut shared = put(cache, &[round; 5000]);
                    assert_eq!(content(&mut shared), [round; 5000]);
                    let mut own = put(cache, &[n, round]);
                    assert_eq!(content(&mut own), [n, round]);
                }
            });
        }
    });
    assert_eq!((names(&cache, "blobs").len(), names(&cache, "tmp").len()), (90, 0));
}

#[test]
fn a_cache_that_others_can_write_to_is_told() {
    use std::fs;
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("cache");
    let cache = Cache::open(&root).unwrap();
    cache.require_own().unwrap();
    for (path, mode) in [(root.clone(), 0o777), (root.join("blobs"), 0o720)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = cache.require_own().unwrap_err();
        assert_eq!((error.path.as_path(), error.source.kind()), (path.as_path(), io::ErrorKind::PermissionDenied));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    }
    cache.require_own().unwrap();
    let link = dir.path().join("link");
    symlink(&root, &link).unwrap();
    assert!(Cache::open(&link).unwrap().require_own().is_err());
}
