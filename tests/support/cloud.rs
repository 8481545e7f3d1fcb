//! A catalogue of a test's own, with tiny guests as instances, and what has to be true of it at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use amiboot::cloud::{Account, Cloud, Scope, home::Home};
use amiboot::disk::layered::{LayerAccess, LayerFiles, Layered};
use amiboot::disk::{Disk, HostCache};
use amiboot::monitor::client::{Client, read_log};
use rusqlite::{Connection, OpenFlags};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sha2::{Digest, Sha256};
use vm_memory::VolatileSlice;

use super::disks::menu;
use super::{Ended, World, finish, names_in, require_kvm, wait_until};

/// The region of everything here that is not said to be elsewhere.
pub const REGION: &str = "us-east-1";
/// The account of everything here that is not said to be another's.
pub const OWNER: &str = "123456789012";

/// A directory with a catalogue. Whatever runs in its name is killed when this is dropped.
pub struct CloudWorld {
    pub world: World,
    home: PathBuf,
}

impl CloudWorld {
    pub fn new() -> Self {
        require_kvm();
        let world = World::new();
        let home = world.path("home");
        Self { world, home }
    }

    /// One whose catalogue is in a directory that the test has made.
    pub fn at(home: &Path) -> Self {
        require_kvm();
        Self { world: World::new(), home: home.into() }
    }

    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The program, with this catalogue.
    pub fn amiboot(&self, arguments: &[&str]) -> Command {
        let mut command = self.world.amiboot();
        command.env("AMIBOOT_HOME", &self.home).env_remove("AWS_REGION").env_remove("AMIBOOT_OWNER").args(arguments);
        command
    }

    /// What a command that succeeds answers with `--json`.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let ended = finish(self.amiboot(arguments).arg("--json")).code(0);
        serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {ended:#?}"))
    }

    /// Does a command that succeeds and answers nothing as JSON.
    #[track_caller]
    pub fn done(&self, arguments: &[&str]) -> Ended {
        finish(&mut self.amiboot(arguments)).code(0)
    }

    /// Does a command that fails with EC2's error `code`; gives what it says.
    #[track_caller]
    pub fn refused(&self, code: &str, arguments: &[&str]) -> String {
        let ended = finish(&mut self.amiboot(arguments));
        assert!(matches!(ended.code, Some(1 | 2)), "{arguments:?}: {ended:#?}");
        assert!(!ended.stderr.contains("panicked at"), "{ended:#?}");
        assert!(ended.stderr.starts_with(&format!("error: {code}: ")), "{arguments:?} is not {code}: {ended:#?}");
        assert_eq!(ended.stdout, "", "{arguments:?}");
        ended.stderr
    }

    /// A disk as PV images have it, with a tiny guest as its kernel, and bytes of its own in a file.
    pub fn disk(&self, guest: &str, marker: &str) -> PathBuf {
        let kernel = fs::read(self.world.guest(guest)).unwrap();
        let menu = menu("/boot/vmlinuz root=/dev/sda1 ro", None);
        let files: [(&str, &[u8]); 3] =
            [("boot/vmlinuz", &kernel), ("boot/grub/menu.lst", menu.as_bytes()), ("marker", marker.as_bytes())];
        self.world.ext(&format!("{marker}.raw"), &["-t", "ext4"], &files)
    }

    /// Imports a disk with a tiny guest as an image of this name; gives its id.
    #[track_caller]
    pub fn image(&self, guest: &str, name: &str) -> String {
        let disk = self.disk(guest, name);
        self.import(&disk, name)
    }

    /// Imports a disk.
    #[track_caller]
    pub fn import(&self, disk: &Path, name: &str) -> String {
        text(&self.json(&["image", "import", path(disk), "--name", name, "--architecture", "x86_64"])["image_id"])
    }

    /// Launches one instance; gives its id.
    #[track_caller]
    pub fn launch(&self, image: &str, more: &[&str]) -> String {
        let launched = self.json(&[&["instance", "run", image, "--type", "t3.nano"], more].concat());
        text(&launched[0]["instance_id"])
    }

    #[track_caller]
    pub fn instance(&self, id: &str) -> Value {
        self.json(&["instance", "show", id])
    }

    /// An instance's state.
    #[track_caller]
    pub fn state(&self, id: &str) -> String {
        text(&self.instance(id)["state"])
    }

    /// Its state, and the code of the reason.
    #[track_caller]
    pub fn state_and_reason(&self, id: &str) -> (String, String) {
        let instance = self.instance(id);
        (text(&instance["state"]), instance["state_reason"]["code"].as_str().unwrap_or_default().into())
    }

    /// The volume that an instance has at a device.
    #[track_caller]
    pub fn volume_at(&self, id: &str, device: &str) -> String {
        let instance = self.instance(id);
        let all = instance["block_device_mappings"].as_array().unwrap();
        let found = all.iter().find(|at| at["device"] == device);
        text(&found.unwrap_or_else(|| panic!("nothing at {device}: {instance:#}"))["volume_id"])
    }

    /// The snapshot of an image's root.
    #[track_caller]
    pub fn root_snapshot(&self, image: &str) -> String {
        text(&self.json(&["image", "show", image])["block_device_mappings"][0]["ebs"]["snapshot_id"])
    }

    /// The catalogue, in this process.
    pub fn cloud(&self) -> Cloud {
        let scope = Scope { region: REGION.into(), account: OWNER.parse::<Account>().unwrap() };
        Cloud::open(Home::at(&self.home).unwrap(), scope).unwrap()
    }

    /// A hash of what a snapshot holds.
    #[track_caller]
    pub fn contents(&self, snapshot: &str) -> [u8; 32] {
        hash(self.cloud().snapshot_disk(snapshot).unwrap().1.as_ref())
    }

    /// A volume that nobody uses, to be looked at or written to.
    #[track_caller]
    pub fn volume_disk(&self, volume: &str) -> Layered {
        let chain = self.chain(volume);
        let size = self.query(&format!("SELECT CAST(size_gib AS TEXT) FROM volumes WHERE id = '{volume}'"));
        let top = chain.len() - 1;
        let open = |(at, stem): (usize, &PathBuf)| {
            let access = if at == top { LayerAccess::Writable } else { LayerAccess::Sealed };
            LayerFiles::open(stem, access).unwrap()
        };
        let files = chain.iter().enumerate().map(open).collect();
        Layered::open(files, size[0].parse::<u64>().unwrap() << 30, false, HostCache::Used).unwrap()
    }

    /// The layers of a volume, the lowest first.
    #[track_caller]
    pub fn chain(&self, volume: &str) -> Vec<PathBuf> {
        let chain = self.query(&format!(
            "WITH RECURSIVE below (id, parent, depth) AS (
                 SELECT layers.id, parent, 0 FROM layers JOIN volumes ON layer = layers.id WHERE volumes.id = '{volume}'
                 UNION ALL SELECT layers.id, layers.parent, depth + 1 FROM layers JOIN below ON layers.id = below.parent)
             SELECT id FROM below ORDER BY depth DESC"
        ));
        chain.iter().map(|id| self.home.join("layers").join(id)).collect()
    }

    /// Writes to a volume that nobody uses, and has it durable.
    #[track_caller]
    pub fn write(&self, volume: &str, pieces: &[(u64, &[u8])]) {
        let disk = self.volume_disk(volume);
        pieces.iter().for_each(|(at, bytes)| write(&disk, *at, bytes));
        disk.flush().unwrap();
        drop(disk);
        self.wait_until_free(volume);
    }

    /// Waits until nobody has a volume. A thread of this test that is about to become a command has all files of all others
    /// open for a moment.
    #[track_caller]
    pub fn wait_until_free(&self, volume: &str) {
        let top = self.chain(volume).pop().unwrap().with_extension("data");
        let meta = fs::metadata(&top).unwrap();
        let inode = format!(" {:02x}:{:02x}:{} ", libc::major(meta.dev()), libc::minor(meta.dev()), meta.ino());
        wait_until("nobody has the volume", || !fs::read_to_string("/proc/locks").unwrap().contains(&inode));
    }

    pub fn file_of(&self, instance: &str, name: &str) -> PathBuf {
        self.home.join("instances").join(instance).join(name)
    }

    pub fn client(&self, instance: &str) -> Client {
        Client::connect(&self.file_of(instance, "control.sock")).unwrap()
    }

    /// Waits until an instance's console has shown `text`.
    #[track_caller]
    pub fn wait_for_console(&self, instance: &str, text: &str) {
        let log = self.file_of(instance, "console.log");
        wait_until(text, || read_log(&log, u64::MAX).is_ok_and(|shown| String::from_utf8_lossy(&shown).contains(text)));
    }

    /// Types on an instance's console, and waits until it answers so.
    #[track_caller]
    pub fn type_on(&self, instance: &str, keys: &[u8], answer: &str) {
        let mut console = self.client(instance).attach(0).unwrap();
        console.write_all(keys).unwrap();
        let (mut seen, mut buffer) = (Vec::new(), [0; 256]);
        while !String::from_utf8_lossy(&seen).contains(answer) {
            let len = console.read(&mut buffer).unwrap();
            assert!(len > 0, "{answer:?} did not come: {:?}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..len]);
        }
    }

    /// Has an echo guest switch itself off, and waits until its process has ended.
    pub fn switch_off(&self, instance: &str) {
        let mut console = self.client(instance).attach(0).unwrap();
        console.write_all(b"q").unwrap();
        // It ends when the process does.
        while matches!(console.read(&mut [0; 256]), Ok(1..)) {}
    }

    /// The process of an instance's machine.
    pub fn pid(&self, instance: &str) -> Pid {
        let pid = self.client(instance).status().unwrap().pid;
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
    }

    /// Kills the process of an instance's machine with SIGKILL, and waits until it is gone.
    pub fn kill_machine(&self, instance: &str) {
        let pid = self.pid(instance);
        kill_process(pid, Signal::KILL).unwrap();
        // Its memory goes first, then its files, and their locks with them: it is over when it can be waited for, or was. The
        // first of its threads may be so far while others still have its files.
        let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
        wait_until("the machine's end", || {
            let is_zombie = fs::read_to_string(process.join("status")).map_or(true, |now| now.contains("State:\tZ"));
            is_zombie && fs::read_dir(process.join("task")).map_or(0, Iterator::count) <= 1
        });
    }

    /// Processes that run in the name of this catalogue, with their arguments.
    pub fn processes(&self) -> BTreeMap<i32, Vec<String>> {
        let wanted = [b"AMIBOOT_HOME=", self.home.as_os_str().as_bytes()].concat();
        let mut found = BTreeMap::new();
        for process in names_in(Path::new("/proc")) {
            let pid = process.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<i32>().ok());
            // One that has ended meanwhile has nothing to read.
            let (Some(pid), Ok(surroundings)) = (pid, fs::read(process.join("environ"))) else { continue };
            if surroundings.split(|byte| *byte == 0).any(|entry| entry == wanted) {
                let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
                let arguments = arguments.split(|byte| *byte == 0).filter(|word| !word.is_empty());
                found.insert(pid, arguments.map(|word| String::from_utf8_lossy(word).into_owned()).collect());
            }
        }
        // Not the test itself, nor threads of it that are about to become a command.
        found.remove(&i32::try_from(std::process::id()).unwrap());
        found
    }

    /// Waits until no process works on the catalogue, machines excepted.
    #[track_caller]
    pub fn quiesce(&self) {
        wait_until("all but the machines end", || self.processes().values().all(|words| is_machine(words)));
    }

    /// The catalogue's file, read only.
    pub fn catalogue(&self) -> Connection {
        Connection::open_with_flags(self.home.join("catalogue.sqlite"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
    }

    /// Texts that a query for one column finds.
    #[track_caller]
    pub fn query(&self, query: &str) -> Vec<String> {
        let db = self.catalogue();
        db.busy_timeout(Duration::from_secs(10)).unwrap();
        let mut query = db.prepare(query).unwrap();
        query.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// Checks what is true of every catalogue that nobody works on: the file is whole, nothing is half made, every layer is
    /// needed and has its files, every file belongs to something, and just the machines of running instances run.
    #[track_caller]
    pub fn check(&self) {
        self.done(&["instance", "ls"]);
        // A machine that was asked to end has some time for that; its end goes on with what it was asked for.
        wait_until("nothing is under way", || self.query("SELECT id FROM operations").is_empty());
        self.quiesce();
        // What ended meanwhile is seen by the next command.
        self.done(&["instance", "ls"]);
        self.quiesce();
        let none = Vec::<String>::new();
        assert_eq!(self.query("PRAGMA integrity_check"), ["ok"]);
        assert_eq!(self.query("SELECT \"table\" FROM pragma_foreign_key_check"), none);
        for half_made in [
            "SELECT id || ' ' || what FROM operations",
            "SELECT id FROM images WHERE state = 'pending' OR operation IS NOT NULL",
            "SELECT id FROM snapshots WHERE state <> 'completed' OR operation IS NOT NULL OR layer IS NULL",
            "SELECT id FROM volumes WHERE state NOT IN ('available', 'in-use') OR operation IS NOT NULL OR layer IS NULL",
            "SELECT volume FROM attachments WHERE state <> 'attached'",
            "SELECT id || ' ' || state FROM instances WHERE operation IS NOT NULL OR state NOT IN ('running', 'stopped', 'terminated')",
            "SELECT id || ' ' || state FROM layers WHERE operation IS NOT NULL OR state NOT IN ('open', 'sealed')",
            "SELECT id FROM layers WHERE NOT EXISTS (SELECT 1 FROM snapshots WHERE layer = layers.id)
                 AND NOT EXISTS (SELECT 1 FROM volumes WHERE layer = layers.id)
                 AND NOT EXISTS (SELECT 1 FROM images WHERE template = layers.id)
                 AND NOT EXISTS (SELECT 1 FROM instance_store WHERE layer = layers.id)
                 AND NOT EXISTS (SELECT 1 FROM layers AS child WHERE child.parent = layers.id)",
            "SELECT id FROM volumes WHERE (state = 'in-use') <> EXISTS (SELECT 1 FROM attachments WHERE volume = volumes.id)",
            "SELECT volume FROM attachments JOIN instances ON id = instance WHERE instances.state = 'terminated'",
            "SELECT resource FROM tags WHERE resource NOT IN (SELECT id FROM images UNION SELECT id FROM snapshots
                 UNION SELECT id FROM volumes UNION SELECT id FROM instances UNION SELECT id FROM key_pairs
                 UNION SELECT id FROM vpcs UNION SELECT id FROM subnets UNION SELECT id FROM security_groups
                 UNION SELECT id FROM security_group_rules UNION SELECT id FROM interfaces)",
            "SELECT images.id || ' ' || json_extract(entry.value, '$.ebs.snapshot_id')
                 FROM images, json_each(images.mapping) AS entry WHERE images.state = 'available'
                 AND json_extract(entry.value, '$.ebs.snapshot_id') NOT IN (SELECT id FROM snapshots)",
        ] {
            assert_eq!(self.query(half_made), none, "{half_made}");
        }
        assert_eq!(names_in(&self.home.join("ops")), Vec::<PathBuf>::new());
        let files = |dir: &str| -> BTreeSet<String> {
            let names = names_in(&self.home.join(dir)).into_iter();
            names.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
        };
        let layers = self.query("SELECT id FROM layers");
        let wanted = layers.iter().flat_map(|id| [format!("{id}.data"), format!("{id}.map")]).collect();
        assert_eq!(files("layers"), wanted);
        let instances: BTreeSet<String> = self.query("SELECT id FROM instances").into_iter().collect();
        assert!(files("instances").is_subset(&instances), "{:?} {instances:?}", files("instances"));
        self.check_machines();
    }

    /// Checks that each running instance has its machine, and no other has one.
    #[track_caller]
    pub fn check_machines(&self) {
        let running: Vec<String> = self.query("SELECT id FROM instances WHERE state = 'running' ORDER BY id");
        let processes = self.processes();
        let mut with_machine: Vec<String> = Vec::new();
        for words in processes.values() {
            let config = words.iter().find(|word| word.ends_with("config.json"));
            let config = config.unwrap_or_else(|| panic!("a strange process: {words:?}"));
            with_machine.push(Path::new(config).parent().unwrap().file_name().unwrap().to_str().unwrap().into());
        }
        with_machine.sort();
        assert_eq!(running, with_machine, "{processes:#?}");
    }
}

impl Drop for CloudWorld {
    fn drop(&mut self) {
        // What is started while one kills is killed in the next turn.
        for _ in 0..100 {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            for pid in left.into_keys().filter_map(Pid::from_raw) {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Whether these are the arguments of a machine's own process.
fn is_machine(words: &[String]) -> bool {
    words.iter().any(|word| word == "vmm") && words.iter().any(|word| word == "--reporting")
}

/// A text of JSON.
#[track_caller]
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("this is no text: {value}")).into()
}

/// A path as an argument.
pub fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A hash of what a disk holds, and where; holes are as zeroes.
pub fn hash(disk: &dyn Disk) -> [u8; 32] {
    const PIECE: usize = 64 << 10;
    let mut hash = Sha256::new();
    let mut at = 0;
    while let Some(data) = disk.next_data(at).unwrap() {
        let mut from = data.start / PIECE as u64 * PIECE as u64;
        while from < data.end {
            let mut piece = vec![0; PIECE.min(usize::try_from(disk.size() - from).unwrap())];
            disk.read_exact_at(from, &mut piece).unwrap();
            if piece.iter().any(|byte| *byte != 0) {
                hash.update(from.to_le_bytes());
                hash.update(&piece);
            }
            from += PIECE as u64;
        }
        at = from.min(disk.size());
    }
    hash.finalize().into()
}

/// Writes to a disk.
#[track_caller]
pub fn write(disk: &dyn Disk, at: u64, bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    disk.write_at(at, &[VolatileSlice::from(&mut bytes[..])]).unwrap();
}
