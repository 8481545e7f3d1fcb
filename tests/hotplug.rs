//! Volumes that come and go under a tiny firmware of our own, with this machine's KVM.

mod support;

use std::fs;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use amiboot::disk::{self, Disk, HostCache};
use amiboot::launch::firmware::{self, FirmwareChoice, FirmwareOptions};
use amiboot::vmm::builder::{self, Boot, DiskConfig, DiskInterface, Firmware, Parts};
use amiboot::vmm::config::MachineConfig;
use amiboot::vmm::console::ConsoleBuffer;
use amiboot::vmm::running::Machine;
use amiboot::vmm::smbios::Identity;
use amiboot::vmm::timeline::Timeline;
use support::{PATIENCE, World};

/// A machine, and what it has shown.
struct Bench {
    machine: Machine,
    shown: Arc<Mutex<String>>,
    at: usize,
}

fn blank() -> Arc<dyn Disk> {
    disk::blank(1 << 20, &std::env::temp_dir(), HostCache::Used).unwrap()
}

fn volume(serial: &str, device: &str, disk: Arc<dyn Disk>) -> DiskConfig {
    DiskConfig { disk, serial: serial.into(), device: device.into(), ephemeral: None }
}

fn firmware(world: &World, interface: DiskInterface) -> Firmware {
    let rom = world.firmware("rom/hotplug", "hotplug.rom");
    let options =
        FirmwareOptions { interface, variables: None, log: None, identity: Identity::random("t3.micro").unwrap() };
    firmware::open(&FirmwareChoice::File(rom), &options).unwrap().firmware
}

fn start(firmware: Firmware, disks: Vec<DiskConfig>) -> Bench {
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
    let parts = Parts {
        kvm: &kvm,
        boot: Boot::Firmware(firmware),
        disks,
        network: None,
        agent: None,
        console,
        timeline,
        log: Arc::new(|_: &str| {}),
    };
    let machine = builder::build(MachineConfig { memory: 32 << 20, cpus: 1 }, parts).unwrap();
    Bench { machine, shown, at: 0 }
}

impl Bench {
    /// Waits for lines, after those that were waited for before.
    #[track_caller]
    fn shows(&mut self, lines: &[&str]) {
        let wanted: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let began = Instant::now();
        loop {
            let shown = self.shown.lock().unwrap();
            if let Some(at) = shown[self.at..].find(&wanted) {
                self.at += at + wanted.len();
                return;
            }
            assert!(began.elapsed() < PATIENCE, "no {wanted:?} in {shown:?}");
            drop(shown);
            thread::yield_now();
        }
    }

    fn serials(&self) -> Vec<String> {
        self.machine.disks().into_iter().map(|disk| disk.serial).collect()
    }
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits until the guest has let go, and tells what.
fn ejected(machine: &Machine) -> (String, bool) {
    let began = Instant::now();
    loop {
        match &machine.ejections().take()[..] {
            [] => assert!(began.elapsed() < PATIENCE, "nothing was ejected"),
            [one] => {
                assert!(one.flushed.is_ok());
                return (one.serial.clone(), one.asked);
            }
            more => panic!("{more:?}"),
        }
        thread::yield_now();
    }
}

/// All in one test, since it counts the descriptors of the process.
#[test]
fn a_slot_is_used_a_hundred_times_and_nothing_of_it_is_left() {
    let world = World::new();
    for (interface, id) in [(DiskInterface::Virtio, "id=10421af4"), (DiskInterface::Nvme, "id=80611d0f")] {
        let firmware = firmware(&world, interface);
        let mut bench = start(firmware.clone(), vec![volume("vol-root", "/dev/sda1", blank())]);
        bench.shows(&["ready"]);
        let mut after_first = 0;
        for round in 0..100 {
            let disk = blank();
            bench.machine.plug(volume("vol-1", "/dev/sdf", disk.clone())).unwrap();
            bench.shows(&["added=00000010", "event=00000002", id]);
            assert_eq!(bench.serials(), ["vol-root", "vol-1"]);
            bench.machine.unplug("/dev/sdf").unwrap();
            bench.shows(&["wanted=00000010", "gone=ffffffff"]);
            assert_eq!(ejected(&bench.machine), ("vol-1".to_owned(), true));
            assert_eq!(Arc::strong_count(&disk), 1, "round {round}");
            drop(disk);
            if round == 0 {
                after_first = descriptors();
            }
        }
        assert_eq!(descriptors(), after_first);

        // Taken away: the guest learns of it afterwards.
        let disk = blank();
        bench.machine.plug(volume("vol-1", "/dev/sdf", disk.clone())).unwrap();
        bench.shows(&["added=00000010", "event=00000002", id]);
        bench.machine.remove("vol-1").unwrap();
        assert_eq!(Arc::strong_count(&disk), 1);
        bench.shows(&["wanted=00000010", "gone=ffffffff"]);
        assert!(bench.machine.ejections().take().is_empty());

        // The machine that goes on in the place of one has its volumes, in the order of their slots.
        for (serial, device) in [("vol-2", "/dev/sdg"), ("vol-3", "/dev/sdh")] {
            bench.machine.plug(volume(serial, device, blank())).unwrap();
        }
        let ended = bench.machine.end();
        let serials: Vec<&str> = ended.disks.iter().map(|disk| disk.serial.as_str()).collect();
        assert_eq!(serials, ["vol-root", "vol-2", "vol-3"]);
        let bench = start(firmware, ended.disks);
        assert_eq!(bench.serials(), ["vol-root", "vol-2", "vol-3"]);
        let disk = blank();
        for number in 3..27 {
            bench.machine.plug(volume(&format!("vol-x{number}"), &format!("/dev/x{number}"), disk.clone())).unwrap();
        }
        let error = bench.machine.plug(volume("vol-4", "/dev/sdi", blank())).unwrap_err().to_string();
        assert!(error.contains("27 volumes already"), "{error}");
        drop(bench.machine);
        assert_eq!(Arc::strong_count(&disk), 1);
    }
}
