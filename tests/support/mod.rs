//! What the tests with guests share: a folder of their own, tiny guests, and the program itself.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod api;
pub mod cloud;
pub mod disks;
pub mod instance;
pub mod pty;
#[cfg(feature = "whole-guest")]
pub mod testbed;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Longer than anything here takes on the slowest machine; what takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder for one test: its files, and the program's cache and scratch directories.
pub struct World {
    dir: TempDir,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for part in ["files", "cache", "scratch"] {
            fs::create_dir(dir.path().join(part)).unwrap();
        }
        Self { dir }
    }

    /// The path of a file of the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("files").join(name)
    }

    /// Makes a file of the test.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A disk with nothing on it, for guests that need none.
    pub fn blank_disk(&self) -> PathBuf {
        let path = self.path("blank.raw");
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        path
    }

    /// Builds the tiny guest `tests/guests/NAME.S`: a 32-bit ELF kernel with a PVH entry.
    pub fn guest(&self, name: &str) -> PathBuf {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests");
        let out = self.path(name);
        let status = Command::new("cc")
            .args([
                "-m32",
                "-nostdlib",
                "-static",
                "-no-pie",
                "-Wl,--build-id=none",
                "-Wl,-Ttext-segment=0x100000",
                "-Wl,-N",
                "-Wl,--no-warn-rwx-segments",
            ])
            .arg(format!("-Wa,-I{}", sources.display()))
            .arg(sources.join(name).with_extension("S"))
            .arg("-o")
            .arg(&out)
            .status()
            .expect("cc (Debian package gcc) assembles the tiny guests");
        assert!(status.success(), "assembling {name}.S");
        out
    }

    /// Builds the tiny firmware `tests/guests/SOURCE.S`: 128 KiB that end at 4 GiB.
    pub fn firmware(&self, source: &str, name: &str) -> PathBuf {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests");
        let source = sources.join(source).with_extension("S");
        let out = self.path(name);
        let status = Command::new("cc")
            .args(["-m32", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-Ttext=0xfffe0000"])
            .arg("-Wl,--oformat=binary")
            .arg(format!("-Wa,-I{}", source.parent().unwrap().display()))
            .arg(&source)
            .arg("-o")
            .arg(&out)
            .status()
            .expect("cc (Debian package gcc) assembles the tiny firmware");
        assert!(status.success(), "assembling {}", source.display());
        assert_eq!(fs::metadata(&out).unwrap().len(), 128 << 10);
        out
    }

    /// Builds the firmware `tests/guests/rom.S`.
    pub fn rom(&self) -> PathBuf {
        let out = self.path("rom");
        let status = Command::new("cc")
            .args(["-m32", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none"])
            .args(["-Wl,-Ttext=0", "-Wl,--oformat=binary"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/rom.S"))
            .arg("-o")
            .arg(&out)
            .status()
            .expect("cc (Debian package gcc) assembles the firmware");
        assert!(status.success(), "assembling rom.S");
        // No ROM is smaller than 128 KiB; the last 64 KiB are where the processor begins.
        let mut rom = vec![0; 64 << 10];
        rom.extend(fs::read(&out).unwrap());
        fs::write(&out, rom).unwrap();
        out
    }

    /// The program, with the test's own cache and scratch directories and nothing on standard input.
    pub fn amiboot(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amiboot"));
        command
            .env("AMIBOOT_CACHE", self.cache())
            .env("TMPDIR", self.scratch())
            .env("AMIBOOT_ACCEPT_INTERPRETING_KVM", "1")
            .env("NO_COLOR", "1")
            .env("AMIBOOT_NET", "none")
            .stdin(Stdio::null());
        command
    }

    /// A shell with the same surroundings.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        let amiboot = self.amiboot();
        command.envs(amiboot.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.args(["-c", script]);
        command
    }

    /// `amiboot run` of a disk with a tiny guest as its kernel.
    pub fn run(&self, guest: &str) -> Command {
        require_kvm();
        let mut command = self.amiboot();
        command.arg("run").arg(self.blank_disk()).arg("--kernel").arg(self.guest(guest));
        command
    }

    /// `amiboot run` of an HVM guest with a tiny firmware, `tests/guests/rom/NAME.S`, that restarts nowhere.
    pub fn run_rom(&self, name: &str) -> Command {
        require_kvm();
        let mut command = self.amiboot();
        let rom = self.firmware(&format!("rom/{name}"), &format!("{name}.rom"));
        command.arg("run").arg(self.blank_disk()).args(["--mode", "hvm", "--no-reboot", "--firmware"]).arg(rom);
        command
    }

    pub fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    pub fn scratch(&self) -> PathBuf {
        self.dir.path().join("scratch")
    }

    /// Files that the program should not have left: anything in its scratch directory, half-written files of the cache.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        [self.scratch(), self.cache().join("tmp")].iter().flat_map(|dir| names_in(dir)).collect()
    }

    /// What the test's own files hold: their length, time of change, and a hash of those that are not large.
    pub fn contents(&self) -> Vec<(PathBuf, u64, SystemTime, Option<[u8; 32]>)> {
        let mut all = Vec::new();
        for path in names_in(&self.dir.path().join("files")).into_iter().filter(|path| path.is_file()) {
            let meta = fs::metadata(&path).unwrap();
            let small = meta.len() <= 64 << 20;
            let hash = small.then(|| Sha256::digest(fs::read(&path).unwrap()).into());
            all.push((path, meta.len(), meta.modified().unwrap(), hash));
        }
        all.sort();
        all
    }
}

/// The paths in a directory; none where it is not there.
pub fn names_in(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

/// Guests need KVM: without it the tests fail, and say why.
pub fn require_kvm() {
    if let Err(e) = File::options().read(true).write(true).open("/dev/kvm") {
        panic!("/dev/kvm: {e}: these tests run guests; `amiboot doctor` says how to get KVM, tools/testbed has one");
    }
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Checks the exit code; shows everything where it is another.
    #[track_caller]
    pub fn code(self, expected: i32) -> Self {
        assert_eq!(self.code, Some(expected), "{self:#?}");
        assert!(!self.stderr.contains("panicked at"), "{self:#?}");
        self
    }

    /// Checks that standard error holds all of `texts`.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "{text:?} is not said: {self:#?}");
        }
        self
    }

    /// Checks that standard output holds `text`.
    #[track_caller]
    pub fn shows(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "{text:?} is not shown: {self:#?}");
        self
    }
}

/// The words of a command for a shell.
pub fn quoted(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| format!("'{}' ", word.to_str().unwrap())).collect()
}

/// Runs a program to its end.
#[track_caller]
pub fn finish(command: &mut Command) -> Ended {
    Running::start(command).end()
}

/// Bytes that arrive from a program, and their end.
#[derive(Default)]
struct Stream {
    state: Mutex<(Vec<u8>, bool)>,
    more: Condvar,
}

impl Stream {
    fn follow(mut source: impl Read + Send + 'static) -> Arc<Self> {
        let stream = Arc::new(Self::default());
        let sink = stream.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The other side of a terminal that is closed is an error (EIO).
            while let Ok(len @ 1..) = source.read(&mut buffer) {
                sink.state.lock().unwrap().0.extend_from_slice(&buffer[..len]);
                sink.more.notify_all();
            }
            sink.state.lock().unwrap().1 = true;
            sink.more.notify_all();
        });
        stream
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.state.lock().unwrap().0).into_owned()
    }

    /// Waits until the text so far is as wanted, or the stream has ended; false where it took too long.
    fn wait(&self, wanted: impl Fn(&[u8]) -> bool) -> bool {
        let state = self.state.lock().unwrap();
        let waits = |(bytes, ended): &mut (Vec<u8>, bool)| !*ended && !wanted(bytes);
        !self.more.wait_timeout_while(state, PATIENCE, waits).unwrap().1.timed_out()
    }
}

/// A program that runs; killed when dropped.
pub struct Running {
    child: Child,
    stdout: Option<Arc<Stream>>,
    stderr: Option<Arc<Stream>>,
    terminal: Option<OwnedFd>,
}

impl Running {
    /// Starts it, standard output and error followed.
    pub fn start(command: &mut Command) -> Self {
        Self::start_as_it_is(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    /// Starts it with the standard streams that the command has.
    pub fn start_as_it_is(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().map(Stream::follow);
        let stderr = child.stderr.take().map(Stream::follow);
        Self { child, stdout, stderr, terminal: None }
    }

    /// Follows a terminal as its output; `other_side` is closed after the program's end, so that the output has one.
    pub fn follow(&mut self, terminal: File, other_side: OwnedFd) {
        self.stdout = Some(Stream::follow(terminal));
        self.terminal = Some(other_side);
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Types; the input stays open.
    pub fn write(&mut self, bytes: &[u8]) {
        self.child.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Ends its input.
    pub fn close_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits until standard output holds `text`.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        self.wait_until(text, |shown| shown.contains(text));
    }

    /// Waits until standard output is as `wanted`.
    #[track_caller]
    pub fn wait_until(&self, what: &str, wanted: impl Fn(&str) -> bool) {
        let stdout = self.stdout.as_ref().unwrap();
        stdout.wait(|bytes| wanted(&String::from_utf8_lossy(bytes)));
        assert!(wanted(&stdout.text()), "{what:?} was not shown: {:?}, {:?}", stdout.text(), self.said());
    }

    /// Waits until standard output has that many bytes.
    #[track_caller]
    pub fn wait_for_bytes(&self, count: usize) {
        let stdout = self.stdout.as_ref().unwrap();
        assert!(stdout.wait(|bytes| bytes.len() >= count), "{count} bytes did not come");
    }

    /// Waits until standard error holds `text`.
    #[track_caller]
    pub fn wait_for_said(&self, text: &str) {
        let stderr = self.stderr.as_ref().unwrap();
        stderr.wait(|bytes| String::from_utf8_lossy(bytes).contains(text));
        assert!(stderr.text().contains(text), "{text:?} was not said: {:?}", stderr.text());
    }

    /// Standard error so far.
    pub fn said(&self) -> String {
        self.stderr.as_ref().map(|stream| stream.text()).unwrap_or_default()
    }

    /// Memory that it has resident, in bytes.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> Ended {
        drop(self.child.stdin.take());
        let status = self.wait_for_exit();
        drop(self.terminal.take());
        for stream in [&self.stdout, &self.stderr].into_iter().flatten() {
            assert!(stream.wait(|_| false), "something keeps the program's output open");
        }
        Ended {
            code: status.code(),
            stdout: self.stdout.as_ref().map(|stream| stream.text()).unwrap_or_default(),
            stderr: self.said(),
        }
    }

    #[track_caller]
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end: {:?}", self.said());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, in a test that succeeds.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a condition.
#[track_caller]
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: it does not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}
