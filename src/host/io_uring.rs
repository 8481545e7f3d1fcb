//! Whether this process has io_uring(7): kernels before 5.6 do not, and administrators and containers often refuse it.

use std::sync::OnceLock;

use io_uring::{IoUring, Probe, opcode};

/// With the value `off` in the environment, io_uring is not used.
const SWITCH: &str = "AMIBOOT_IO_URING";

/// Why io_uring cannot be used, if so; looked at once.
#[must_use]
pub fn refusal() -> Option<&'static str> {
    static REFUSAL: OnceLock<Option<String>> = OnceLock::new();
    REFUSAL.get_or_init(|| probe().err()).as_deref()
}

fn probe() -> Result<(), String> {
    if std::env::var_os(SWITCH).is_some_and(|value| value == "off") {
        return Err(format!("{SWITCH}=off"));
    }
    let ring = IoUring::new(1).map_err(|error| format!("io_uring_setup: {error}"))?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|error| format!("io_uring_register: {error}"))?;
    let needed = [
        ("read", opcode::Read::CODE),
        ("readv", opcode::Readv::CODE),
        ("write", opcode::Write::CODE),
        ("writev", opcode::Writev::CODE),
        ("fsync", opcode::Fsync::CODE),
    ];
    match needed.iter().find(|(_, code)| !probe.is_supported(*code)) {
        Some((name, _)) => Err(format!("this kernel's io_uring has no {name}")),
        None => Ok(()),
    }
}
