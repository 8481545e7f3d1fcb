//! The machine itself, with tiny guests on this host's KVM, whatever its kind.

mod support;

use std::fs::File;
use std::sync::Arc;

use amiboot::host::kvm;
use amiboot::vmm::boot::{BootSource, KernelImage, Segment};
use amiboot::vmm::builder::{Parts, build_pv};
use amiboot::vmm::config::MachineConfig;
use amiboot::vmm::console::ConsoleBuffer;
use amiboot::vmm::stop::StopReason;
use amiboot::vmm::timeline::{Mark, Timeline};

#[test]
fn a_guest_speaks_and_switches_itself_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = support::tiny_guest(&dir, "hello");
    let kernel = File::open(path).unwrap();
    let boot = BootSource {
        kernel,
        image: KernelImage::Elf {
            is_64_bit: false,
            segments: vec![Segment { file_offset: 0x74, file_size: 0x54, addr: 0x10_0074, memory_size: 0x105c }],
            entry: 0x10_0088,
            pvh_entry: Some(0x10_0088),
        },
        initrd: None,
        cmdline: String::new(),
        cmdline_limit: 2047,
        takes_mmio_devices: false,
    };
    let timeline = Arc::new(Timeline::from_process_start());
    let console = Arc::new(ConsoleBuffer::new(timeline.clone()));
    let host = kvm::open().unwrap();
    let parts = Parts {
        kvm: &host.kvm,
        boot,
        disks: vec![],
        console: console.clone(),
        timeline: timeline.clone(),
        log: Arc::new(|_: &str| {}),
    };
    let machine = build_pv(MachineConfig { memory: 64 << 20, cpus: 2 }, parts).unwrap();
    let mut out = Vec::new();
    while !out.ends_with(b"guest\r\n") {
        assert!(console.take(&mut out, || {}));
    }
    while !machine.stopper().is_stopped() {
        std::thread::yield_now();
    }
    assert_eq!(machine.end(), StopReason::PowerOff);
    eprintln!("{:?}", timeline.instants());
    assert!(timeline.instants().iter().any(|i| i.name == Mark::FirstConsoleByte));
}
