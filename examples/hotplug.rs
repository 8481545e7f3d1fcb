//! A machine whose volumes come, grow and go as a script says: what the whole-guest tests of that run in the test machine.
//!
//! `hotplug IMAGE FIRMWARE virtio|nvme <SCRIPT` boots the image with a throw-away layer, shows its console, and follows the
//! script's lines in turn. A guest that restarts goes on in a new machine, which begins with the volumes that there were. It
//! ends when the guest switches itself off behind the last line, and fails where a line cannot be followed.
//!
//! ```text
//! seen TEXT                   waits until the console shows this, after what was seen before
//! type TEXT                   types it, with Enter
//! plug SERIAL DEVICE FILE     attaches a raw file, writes to which go to it
//! unplug NAME                 asks the guest for it and waits until its disk is released, its file's lock free
//! remove NAME                 takes it away
//! grow NAME SIZE              gives it another size, in bytes
//! volumes                     shows the serial numbers
//! ```

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::{env, thread};

use amiboot::disk::{self, Access, Disk, HostCache, Raw, Source};
use amiboot::launch::firmware::{self, FirmwareChoice, FirmwareOptions};
use amiboot::vmm::builder::{self, Boot, DiskConfig, DiskInterface, Firmware, Parts};
use amiboot::vmm::config::MachineConfig;
use amiboot::vmm::console::ConsoleBuffer;
use amiboot::vmm::running::Machine;
use amiboot::vmm::stop::StopReason;
use amiboot::vmm::timeline::Timeline;
use rustix::event::{PollFd, PollFlags, poll};
use vm_memory::VolatileSlice;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [image, rom, interface] = &words[..] else { return Err("hotplug IMAGE FIRMWARE virtio|nvme <SCRIPT".into()) };
    let interface = if interface == "nvme" { DiskInterface::Nvme } else { DiskInterface::Virtio };
    let mut script = String::new();
    io::stdin().read_to_string(&mut script)?;

    let access = Access::Throwaway { dir: env::temp_dir() };
    let source = Source { path: image.into(), format: None, access, size: None, cache: HostCache::Used };
    let root = disk::open(&source)?.disk;
    let options = FirmwareOptions { interface, variables: None, log: None, instance_type: "t3.micro" };
    let opened = firmware::open(&FirmwareChoice::File(rom.into()), &options)?;
    let timeline = Arc::new(Timeline::from_process_start());
    let screen = Screen::new(timeline.clone());
    let mut run = Run { firmware: opened.firmware, timeline, screen, grown: Vec::new() };
    let disks = vec![config("vol-root", "/dev/sda1", root)];
    let result = run.follow(script.lines().map(str::trim).filter(|line| !line.is_empty()), disks);
    println!("\nhotplug: {}", result.as_ref().map_or_else(ToString::to_string, |()| "done".into()));
    // Not to wait for what is still shown.
    std::process::exit(i32::from(result.is_err()));
}

fn config(serial: &str, device: &str, disk: Arc<dyn Disk>) -> DiskConfig {
    DiskConfig { disk, serial: serial.into(), device: device.into(), ephemeral: None }
}

struct Run {
    firmware: Firmware,
    timeline: Arc<Timeline>,
    screen: Screen,
    grown: Vec<(String, Arc<Growing>)>,
}

impl Run {
    fn start(&self, disks: Vec<DiskConfig>) -> Result<Machine, Failure> {
        let kvm = kvm_ioctls::Kvm::new()?;
        let parts = Parts {
            kvm: &kvm,
            boot: Boot::Firmware(self.firmware.clone()),
            disks,
            console: self.screen.console.clone(),
            timeline: self.timeline.clone(),
            log: Arc::new(|line| println!("\nlog: {line}")),
        };
        Ok(builder::build(MachineConfig { memory: 512 << 20, cpus: 1 }, parts)?)
    }

    fn follow<'a>(&mut self, lines: impl Iterator<Item = &'a str>, disks: Vec<DiskConfig>) -> Result<(), Failure> {
        let mut machine = self.start(disks)?;
        self.screen.follow(&machine);
        for line in lines {
            println!("\nhotplug: {line}");
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let parts: Vec<&str> = rest.split(' ').collect();
            match (word, &parts[..]) {
                ("seen", _) => {
                    while !self.screen.wait_for(rest) {
                        machine = self.again(machine)?;
                    }
                }
                ("type", _) => {
                    let text = format!("{rest}\r");
                    let mut bytes = text.as_bytes();
                    while !bytes.is_empty() {
                        bytes = &bytes[machine.input(bytes)..];
                        thread::yield_now();
                    }
                }
                ("plug", [serial, device, file]) => {
                    let growing = Arc::new(Growing::open(Path::new(file))?);
                    machine.plug(config(serial, device, growing.clone()))?;
                    self.grown.retain(|(name, _)| name != serial);
                    self.grown.push(((*serial).into(), growing));
                }
                ("unplug", [name]) => {
                    let path = self.forget(name)?;
                    machine.unplug(name)?;
                    let ejected = wait_for_ejection(&machine)?;
                    println!("\nejected: {ejected:?}");
                    free(&path)?;
                }
                ("remove", [name]) => {
                    let path = self.forget(name)?;
                    machine.remove(name)?;
                    free(&path)?;
                }
                ("grow", [name, size]) => {
                    let growing = self.grown.iter().find(|(serial, _)| serial == name).ok_or("no such volume")?;
                    growing.1.grow(size.parse()?)?;
                    println!("\ngrown: {}", machine.resize(name)?);
                }
                ("volumes", _) => {
                    let serials: Vec<String> = machine.disks().into_iter().map(|disk| disk.serial).collect();
                    println!("\nvolumes: {}", serials.join(" "));
                }
                _ => return Err(format!("no such line: {line}").into()),
            }
        }
        while !machine.stopper().is_stopped() || machine.stopper().reason() == Some(&StopReason::Reset) {
            wait(machine.stopper().event())?;
            if machine.stopper().reason() == Some(&StopReason::Reset) {
                machine = self.again(machine)?;
            }
        }
        match machine.end().reason {
            StopReason::PowerOff => Ok(()),
            reason => Err(format!("the machine stopped: {reason:?}").into()),
        }
    }

    /// A machine that goes on where one has stopped, if its guest restarts.
    fn again(&self, machine: Machine) -> Result<Machine, Failure> {
        let ended = machine.end();
        if ended.reason != StopReason::Reset {
            return Err(format!("the machine stopped: {:?}", ended.reason).into());
        }
        println!("\nhotplug: restarted");
        let machine = self.start(ended.disks)?;
        self.screen.follow(&machine);
        Ok(machine)
    }

    /// Lets go of a volume, and gives its file.
    fn forget(&mut self, name: &str) -> Result<PathBuf, Failure> {
        let at = self.grown.iter().position(|(serial, _)| serial == name).ok_or("no such volume")?;
        Ok(self.grown.swap_remove(at).1.path.clone())
    }
}

fn wait(event: &impl std::os::fd::AsRawFd) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `event` is borrowed.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(event.as_raw_fd()) };
    poll(&mut [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)], None)?;
    Ok(())
}

fn wait_for_ejection(machine: &Machine) -> Result<Vec<String>, Failure> {
    wait(machine.ejections().event())?;
    let ejected = machine.ejections().take();
    Ok(ejected.into_iter().map(|e| format!("{} asked={} flushed={}", e.serial, e.asked, e.flushed.is_ok())).collect())
}

/// Nobody has the file any more.
fn free(path: &Path) -> Result<(), Failure> {
    disk::claim_for_writing(&File::options().read(true).write(true).open(path)?, path)?;
    println!("\nfree: {}", path.display());
    Ok(())
}

/// What the guest has shown.
struct Screen {
    console: Arc<ConsoleBuffer>,
    shown: Arc<(Mutex<Shown>, Condvar)>,
}

#[derive(Default)]
struct Shown {
    text: Vec<u8>,
    seen: usize,
    stopped: bool,
}

impl Screen {
    fn new(timeline: Arc<Timeline>) -> Self {
        let (console, shown) = (Arc::new(ConsoleBuffer::new(timeline)), Arc::<(Mutex<Shown>, Condvar)>::default());
        let (from, to) = (console.clone(), shown.clone());
        thread::spawn(move || {
            let mut bytes = Vec::new();
            while from.take(&mut bytes, || {}) {
                let _ = io::stdout().write_all(&bytes).and_then(|()| io::stdout().flush());
                to.0.lock().unwrap().text.append(&mut bytes);
                to.1.notify_all();
            }
        });
        Self { console, shown }
    }

    /// Begins to watch for the end of a machine.
    fn follow(&self, machine: &Machine) {
        self.shown.0.lock().unwrap().stopped = false;
        let shown = self.shown.clone();
        machine.stopper().on_stop(move || {
            shown.0.lock().unwrap().stopped = true;
            shown.1.notify_all();
        });
    }

    /// Waits for a text; false where the machine stops before it comes.
    fn wait_for(&self, text: &str) -> bool {
        let mut shown = self.shown.0.lock().unwrap();
        loop {
            let rest = &shown.text[shown.seen..];
            if let Some(at) = rest.windows(text.len()).position(|window| window == text.as_bytes()) {
                shown.seen += at + text.len();
                return true;
            }
            if shown.stopped {
                return false;
            }
            shown = self.shown.1.wait(shown).unwrap();
        }
    }
}

/// A raw file that becomes larger.
struct Growing {
    raw: Raw,
    path: PathBuf,
    size: AtomicU64,
}

impl Growing {
    fn open(path: &Path) -> Result<Self, Failure> {
        let file = File::options().read(true).write(true).open(path)?;
        disk::claim_for_writing(&file, path)?;
        let size = AtomicU64::new(file.metadata()?.len());
        // Room for all that it may become; it lies in a hole until then.
        file.set_len(1 << 30)?;
        Ok(Self { raw: Raw::new(file, false)?, path: path.into(), size })
    }

    fn grow(&self, size: u64) -> io::Result<()> {
        if size > self.raw.size() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.size.store(size, Ordering::SeqCst);
        Ok(())
    }
}

impl Disk for Growing {
    fn size(&self) -> u64 {
        self.size.load(Ordering::SeqCst)
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn read_at(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.raw.read_at(offset, bufs)
    }
    fn write_at(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.raw.write_at(offset, bufs)
    }
    fn flush(&self) -> io::Result<()> {
        self.raw.flush()
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.raw.discard(offset, len)
    }
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.raw.write_zeroes(offset, len, unmap)
    }
}
