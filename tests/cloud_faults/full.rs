//! A store whose file system is full: it is said clearly, nothing is damaged or left, and it goes on after there is room.
//!
//! The file systems are small ones in memory, which only the thread of the test and its commands see. To mount them takes
//! root's rights; without, these tests are left out, and say so.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use amiboot::disk::Disk;
use tempfile::TempDir;

use crate::support::cloud::{CloudWorld, hash, path, text, write};
use crate::support::disks::{patch, tool};
use crate::support::{Ended, finish};

/// A catalogue in a file system of its own.
struct Small {
    // Dropped in this order.
    cloud: CloudWorld,
    _mount: Mount,
    _dir: TempDir,
}

struct Mount(CString);

impl Drop for Mount {
    fn drop(&mut self) {
        // SAFETY: a string that ends with zero, which the call only reads. A failure leaves it to the end of the thread.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}

impl Small {
    /// One of so many bytes; nothing without the right to mount.
    fn new(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let place = CString::new(dir.path().as_os_str().as_bytes()).unwrap();
        let options = CString::new(format!("size={bytes},mode=700")).unwrap();
        // SAFETY: what the calls are given are strings that end with zero and flags; they change what this thread sees of
        // mounts, and nothing else of the process.
        let done = unsafe {
            libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(
                    c"none".as_ptr(),
                    c"/".as_ptr(),
                    std::ptr::null(),
                    libc::MS_REC | libc::MS_PRIVATE,
                    std::ptr::null(),
                ) == 0
                && libc::mount(c"tmpfs".as_ptr(), place.as_ptr(), c"tmpfs".as_ptr(), 0, options.as_ptr().cast()) == 0
        };
        if !done {
            eprintln!("left out: {}: root mounts small file systems", std::io::Error::last_os_error());
            return None;
        }
        Some(Self { cloud: CloudWorld::at(dir.path()), _mount: Mount(place), _dir: dir })
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.cloud.home()).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Takes all room but so many bytes.
    fn leave(&self, bytes: u64) {
        let ballast = File::options().append(true).create(true).open(self.ballast()).unwrap();
        // What ends just now may give some back meanwhile.
        while self.free() > bytes {
            let held = ballast.metadata().unwrap().len();
            rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), held, self.free() - bytes).unwrap();
        }
    }

    fn ballast(&self) -> PathBuf {
        self.cloud.home().join("ballast")
    }

    /// Gives it back, once nobody is in the middle of finding none.
    fn make_room(&self) {
        self.cloud.quiesce();
        // A thread of another test that is about to become a command may have the file open for a moment.
        File::options().write(true).open(self.ballast()).unwrap().set_len(0).unwrap();
        fs::remove_file(self.ballast()).unwrap();
    }

    /// Does a command for which there is no room.
    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> Ended {
        let ended = finish(&mut self.cloud.amiboot(arguments)).code(1);
        let said = ["No space left on device", "disk is full", "bytes are needed"];
        assert!(said.iter().any(|words| ended.stderr.contains(words)), "{ended:#?}");
        ended
    }
}

const MIB: u64 = 1 << 20;

#[test]
fn imports() {
    let Some(small) = Small::new(40 * MIB) else { return };
    let cloud = &small.cloud;
    let disk = cloud.disk("echo", "first");
    // Bytes that are no zeroes: what a layer holds.
    let filler: Vec<u8> = (0..3 * MIB).map(|at| u8::try_from(at % 251).unwrap() + 1).collect();
    patch(&disk, 5 * MIB, &filler);
    // All that is data in the file gets into the layer.
    let dense = disk;
    let disk = cloud.world.path("sparse.raw");
    tool("coreutils", "cp", &["--sparse=always", path(&dense), path(&disk)]);
    let first = cloud.import(&disk, "first");
    let wanted = cloud.contents(&cloud.root_snapshot(&first));
    let import = ["image", "import", path(&disk), "--name", "second", "--architecture", "x86_64"];
    // What is needed is looked at before anything is done.
    small.leave(MIB);
    small.fails(&import).says(&["InsufficientVolumeCapacity", path(cloud.home())]);
    small.make_room();
    let used = fs::metadata(&disk).unwrap().blocks() * 512;
    // It is taken by others while it is done: at the beginning, in the middle, at the end.
    let mut in_the_middle = 0;
    for more in [0, 32 << 10, 36 << 10, 48 << 10, 64 << 10, 96 << 10, 128 << 10, 200 << 10] {
        // The reserve comes back.
        cloud.done(&["instance", "ls"]);
        small.leave(used + more);
        let ended = finish(&mut cloud.amiboot(&import));
        if ended.code != Some(0) {
            let is_in_the_middle = ended.stderr.contains("No space left") || ended.stderr.contains("disk is full");
            assert!(is_in_the_middle || ended.stderr.contains("bytes are needed"), "{more}: {ended:#?}");
            in_the_middle += u32::from(is_in_the_middle);
        }
        small.make_room();
        cloud.check();
        if ended.code != Some(0) {
            assert_eq!(cloud.json(&["image", "ls"]).as_array().unwrap().len(), 1);
            cloud.done(&import);
        }
        assert_eq!(cloud.contents(&cloud.root_snapshot("second")), wanted);
        cloud.done(&["image", "deregister", "second", "--delete-snapshots"]);
    }
    assert!(in_the_middle >= 2, "{in_the_middle}");
    assert_eq!(cloud.contents(&cloud.root_snapshot(&first)), wanted);
    let instance = cloud.launch(&first, &[]);
    cloud.type_on(&instance, b"abc", "ABC");
}

#[test]
fn launches_snapshots_and_images() {
    let Some(small) = Small::new(40 * MIB) else { return };
    let cloud = &small.cloud;
    let image = cloud.image("echo", "first");
    let instance = cloud.launch(&image, &[]);
    let volume = cloud.volume_at(&instance, "/dev/sda1");
    let wanted = cloud.contents(&cloud.root_snapshot(&image));
    let mut failed = [0; 4];
    for left in [0, 4 << 10, 16 << 10, 32 << 10, 48 << 10, 64 << 10, 96 << 10, 160 << 10] {
        let commands: [&[&str]; 4] = [
            &["instance", "run", &image, "--type", "t3.nano"],
            &["snapshot", "create", &volume],
            &["image", "create", &instance, "--name", "second", "--no-reboot"],
            &["image", "create", &instance, "--name", "third", "--grace", "0s"],
        ];
        for (command, failed) in commands.into_iter().zip(&mut failed) {
            // The reserve is given up when the command begins.
            cloud.done(&["instance", "ls"]);
            small.leave(0);
            let _ = fs::remove_file(cloud.home().join("reserve"));
            small.leave(left);
            let ended = finish(&mut cloud.amiboot(command));
            if ended.code != Some(0) {
                *failed += 1;
                let said = ["No space left", "full", "bytes are needed"];
                assert!(said.iter().any(|words| ended.stderr.contains(words)), "{left}: {ended:#?}");
            }
            small.make_room();
            cloud.check();
            assert_eq!(cloud.state(&instance), "running", "{left} {command:?}");
            for more in cloud.query(&format!("SELECT id FROM instances WHERE state = 'running' AND id <> '{instance}'"))
            {
                cloud.done(&["instance", "terminate", "--force", &more]);
            }
            for snapshot in cloud.query("SELECT id FROM snapshots") {
                assert_eq!(cloud.contents(&snapshot), wanted);
            }
            for image in cloud.query("SELECT id FROM images WHERE name <> 'first' AND state = 'available'") {
                cloud.done(&["image", "deregister", &image, "--delete-snapshots"]);
            }
            for snapshot in cloud.query(&format!("SELECT id FROM snapshots WHERE volume = '{volume}'")) {
                cloud.done(&["snapshot", "delete", &snapshot]);
            }
        }
    }
    assert!(failed.iter().all(|count| *count > 0), "{failed:?}");
    cloud.type_on(&instance, b"abc", "ABC");
    cloud.check();
}

#[test]
fn what_a_machine_writes() {
    let Some(small) = Small::new(24 * MIB) else { return };
    let cloud = &small.cloud;
    let image = cloud.image("echo", "first");
    let volume = text(&cloud.json(&["volume", "create", "--size", "1"])["volume_id"]);
    // As a machine has it: the guest's write fails, what it had written before stays, and the same write succeeds later.
    let disk = cloud.volume_disk(&volume);
    let piece = |number: u64| vec![u8::try_from(number + 1).unwrap(); 64 << 10];
    let mut written = 0;
    small.leave(MIB);
    let failed = loop {
        let mut bytes = piece(written);
        let at = written * (128 << 10);
        match disk.write_at(at, &[vm_memory::VolatileSlice::from(&mut bytes[..])]) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100, "there is always room");
    };
    assert!(written > 4 && failed.kind() == std::io::ErrorKind::StorageFull, "{written}: {failed}");
    disk.flush().unwrap();
    // A snapshot, for which there is no room, harms neither.
    drop(disk);
    cloud.wait_until_free(&volume);
    let _ = finish(&mut cloud.amiboot(&["snapshot", "create", &volume]));
    small.make_room();
    cloud.check();
    let disk = cloud.volume_disk(&volume);
    write(&disk, written * (128 << 10), &piece(written));
    disk.flush().unwrap();
    for number in 0..=written {
        let mut back = vec![0; 64 << 10];
        disk.read_exact_at(number * (128 << 10), &mut back).unwrap();
        assert!(back == piece(number), "{number}");
    }
    let contents = hash(&disk);
    drop(disk);
    cloud.wait_until_free(&volume);
    let snapshot = text(&cloud.json(&["snapshot", "create", &volume])[0]["snapshot_id"]);
    assert_eq!(cloud.contents(&snapshot), contents);
    let instance = cloud.launch(&image, &[]);
    cloud.type_on(&instance, b"abc", "ABC");
    cloud.check();
}

#[test]
fn deletions_make_room() {
    let Some(small) = Small::new(48 * MIB) else { return };
    let cloud = &small.cloud;
    let disk = cloud.disk("echo", "first");
    let first = cloud.import(&disk, "first");
    let second = cloud.import(&disk, "second");
    let instance = cloud.launch(&first, &[]);
    let volume = text(&cloud.json(&["volume", "create", "--size", "1"])["volume_id"]);
    let snapshots: Vec<String> =
        (0..2).map(|_| text(&cloud.json(&["snapshot", "create", &volume])[0]["snapshot_id"])).collect();
    small.leave(0);
    // Others are told so, and what there is can be seen.
    small.fails(&["image", "import", path(&disk), "--name", "third", "--architecture", "x86_64"]);
    assert_eq!(cloud.json(&["image", "ls"]).as_array().unwrap().len(), 2);
    cloud.done(&["snapshot", "delete", &snapshots[0]]);
    cloud.done(&["instance", "terminate", "--force", &instance]);
    cloud.done(&["volume", "delete", &volume]);
    cloud.done(&["image", "deregister", &first, "--delete-snapshots"]);
    small.make_room();
    cloud.check();
    let instance = cloud.launch(&second, &[]);
    cloud.type_on(&instance, b"abc", "ABC");
}
