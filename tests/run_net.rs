//! A network card under tiny guests, with this machine's KVM: frames go out and come in, and the guest sees its link.

mod support;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use amiboot::disk::{self, HostCache};
use amiboot::launch::firmware::{self, FirmwareChoice, FirmwareOptions};
use amiboot::net::{Link, Offloads, Port, Receiver, Sender};
use amiboot::vmm::boot::{BootSource, KernelImage, Segment};
use amiboot::vmm::builder::{self, Boot, DiskConfig, DiskInterface, NetworkConfig, Parts};
use amiboot::vmm::config::MachineConfig;
use amiboot::vmm::console::ConsoleBuffer;
use amiboot::vmm::running::Machine;
use amiboot::vmm::smbios::Identity;
use amiboot::vmm::stop::StopReason;
use amiboot::vmm::timeline::Timeline;
use rustix::event::{EventfdFlags, eventfd};
use support::{PATIENCE, World};
use vm_memory::VolatileSlice;

/// A link that sends every frame back.
struct Echo;

struct Loop {
    frames: Mutex<VecDeque<Vec<u8>>>,
    event: OwnedFd,
}

struct End(Arc<Loop>);

impl Link for Echo {
    fn queue_pairs(&self) -> u16 {
        1
    }
    fn takes(&self) -> Offloads {
        Offloads::default()
    }
    fn gives(&self) -> Offloads {
        Offloads::default()
    }
    fn agree(&self, _: Offloads) -> io::Result<()> {
        Ok(())
    }
    fn open(&self, _: u16) -> io::Result<Vec<Port>> {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let ends = Arc::new(Loop { frames: Mutex::default(), event });
        Ok(vec![Port { sender: Box::new(End(ends.clone())), receiver: Box::new(End(ends)) }])
    }
}

impl Sender for End {
    fn send(&mut self, frame: &[VolatileSlice<'_>]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for piece in frame {
            let at = bytes.len();
            bytes.resize(at + piece.len(), 0);
            piece.copy_to(&mut bytes[at..]);
        }
        self.0.frames.lock().unwrap().push_back(bytes);
        rustix::io::write(&self.0.event, &1_u64.to_ne_bytes())?;
        Ok(())
    }
}

impl Receiver for End {
    fn receive(&mut self, frame: &[VolatileSlice<'_>]) -> io::Result<Option<usize>> {
        let mut frames = self.0.frames.lock().unwrap();
        let Some(bytes) = frames.pop_front() else {
            let _ = rustix::io::read(&self.0.event, &mut [0; 8]);
            return Ok(None);
        };
        let mut rest = &bytes[..];
        for piece in frame {
            let (now, later) = rest.split_at(rest.len().min(piece.len()));
            piece.copy_from(now);
            rest = later;
        }
        Ok(Some(bytes.len() - rest.len()))
    }

    fn readable(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

/// A tiny guest's ELF, of 32 bits.
fn boot_source(path: &Path) -> BootSource {
    let bytes = fs::read(path).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let half = |at: usize| usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()));
    let headers = (0..half(44)).map(|index| usize::try_from(word(28)).unwrap() + index * half(42));
    let segment = |at: usize| Segment {
        file_offset: word(at + 4).into(),
        file_size: word(at + 16).into(),
        addr: word(at + 12).into(),
        memory_size: word(at + 20).into(),
    };
    let segments = headers.filter(|&at| word(at) == 1).map(segment).collect();
    let entry = word(24);
    BootSource {
        kernel: File::open(path).unwrap(),
        image: KernelImage::Elf { is_64_bit: false, segments, entry: entry.into(), pvh_entry: Some(entry) },
        initrd: None,
        cmdline: String::new(),
        cmdline_limit: 2047,
        takes_mmio_devices: false,
    }
}

/// A machine with a card, and what it has shown.
struct Bench {
    machine: Machine,
    shown: Arc<Mutex<String>>,
    began: Instant,
}

impl Bench {
    fn start(boot: Boot) -> Self {
        let timeline = Arc::new(Timeline::from_process_start());
        let console = Arc::new(ConsoleBuffer::new(timeline.clone()));
        let shown = Arc::new(Mutex::new(String::new()));
        let (from, to) = (console.clone(), shown.clone());
        thread::spawn(move || {
            let mut bytes = Vec::new();
            while from.take(&mut bytes, || {}) {
                to.lock().unwrap().push_str(&String::from_utf8_lossy(&std::mem::take(&mut bytes)));
            }
        });
        let kvm = kvm_ioctls::Kvm::new().expect("these tests need /dev/kvm");
        let disk = disk::blank(1 << 20, &std::env::temp_dir(), HostCache::Used).unwrap();
        let disks = vec![DiskConfig { disk, serial: "vol-0".into(), device: "/dev/sda1".into(), ephemeral: None }];
        let mac = "0a:00:00:00:00:01".parse().unwrap();
        let network = Some(NetworkConfig { mac, link: Arc::new(Echo), mtu: 1500 });
        let parts =
            Parts { kvm: &kvm, boot, disks, network, agent: None, console, timeline, log: Arc::new(|_: &str| {}) };
        let machine = builder::build(MachineConfig { memory: 32 << 20, cpus: 1 }, parts).unwrap();
        Self { machine, shown, began: Instant::now() }
    }

    #[track_caller]
    fn wait(&self, is: impl Fn() -> bool) {
        while !is() {
            assert!(self.began.elapsed() < PATIENCE, "it has shown {:?}", self.shown.lock().unwrap());
            thread::yield_now();
        }
    }

    #[track_caller]
    fn shows(&self, wanted: &str) {
        self.wait(|| self.shown.lock().unwrap().contains(wanted));
    }

    /// Waits until the guest switches itself off.
    #[track_caller]
    fn end(self) {
        self.wait(|| self.machine.stopper().reason().is_some());
        assert_eq!(self.machine.end().reason, StopReason::PowerOff);
    }
}

#[test]
fn a_guest_gets_its_frame_back_and_sees_its_link_go_down() {
    let world = World::new();
    let source = boot_source(&world.guest("net"));
    let bench = Bench::start(Boot::Kernel { source, identity: Identity::random("t3.micro").unwrap() });
    bench.shows("a frame there and back again\r\n");
    let card = bench.machine.network().unwrap();
    assert!(card.is_up());
    let counters = card.counters();
    bench.wait(|| counters.sent_frames.load(Ordering::SeqCst) == 1);
    bench.wait(|| counters.received_bytes.load(Ordering::SeqCst) == 60);
    card.set_link(false);
    bench.shows("down\r\n");
    bench.end();
}

#[test]
fn a_guest_with_firmware_has_a_card_that_nobody_boots_by() {
    let world = World::new();
    let rom = world.firmware("rom/net", "net.rom");
    let identity = Identity::random("t3.micro").unwrap();
    let options = FirmwareOptions { interface: DiskInterface::Virtio, variables: None, log: None, identity };
    let firmware = firmware::open(&FirmwareChoice::File(rom), &options).unwrap().firmware;
    let bench = Bench::start(Boot::Firmware(firmware));
    bench.shows("id=10411af4\r\nclass=02000001\r\nrom=00000000\r\n");
    let card = bench.machine.network().unwrap();
    for up in [false, false, true] {
        card.set_link(up);
        assert_eq!(card.is_up(), up);
    }
    bench.end();
}
