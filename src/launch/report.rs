//! The report of a boot: what happened when, and the memory it took, as JSON.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::plan::Booted;
use super::session::{Ended, Outcome};
use crate::disk::Engine;
use crate::host::files;
use crate::vmm::config::MachineConfig;
use crate::vmm::memory::Resident;
use crate::vmm::timeline::{Mark, Timeline};

/// The report could not be written.
#[derive(Debug, thiserror::Error)]
#[error("--boot-report {}: {cause}", path.display())]
pub struct ReportError {
    path: PathBuf,
    cause: io::Error,
}

/// A report. Its fields' names are stable.
#[derive(Debug, Serialize)]
pub struct BootReport {
    amiboot: &'static str,
    image: PathBuf,
    mode: &'static str,
    machine: MachineConfig,
    kernel: Option<Booted>,
    /// The file of an HVM guest's firmware.
    firmware: Option<PathBuf>,
    outcome: &'static str,
    exit_code: u8,
    starts: u32,
    /// Where the times count from.
    clock: &'static str,
    events: Vec<Event>,
    /// How requests of the disks are done.
    disk_io: Engine,
    memory: Option<Resident>,
}

#[derive(Debug, Serialize)]
struct Event {
    name: Mark,
    /// What the guest wrote to the boot-timer port.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<u8>,
    what: &'static str,
    wall_ms: f64,
    cpu_ms: f64,
}

const CLOCK: &str = "milliseconds of monotonic time (wall_ms) and of the process's processor time, guest execution \
                     included (cpu_ms), from the start of the amiboot process; of each event, and of each value of the boot \
                     timer, the first occurrence";

impl BootReport {
    /// Refuses a path that could not be written, before anything is done.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn check_path(path: &Path) -> Result<(), ReportError> {
        files::check_path(path).map_err(|cause| ReportError { path: path.into(), cause })
    }

    /// Puts a report together.
    #[must_use]
    pub fn new(
        image: &Path,
        machine: MachineConfig,
        kernel: Option<&Booted>,
        ended: &Ended,
        exit_code: u8,
        timeline: &Timeline,
    ) -> Self {
        let events = timeline.instants().into_iter().map(|instant| Event {
            name: instant.name,
            value: instant.value,
            what: describe(instant.name),
            wall_ms: millis(instant.wall_ns),
            cpu_ms: millis(instant.cpu_ns),
        });
        Self {
            amiboot: env!("CARGO_PKG_VERSION"),
            image: image.into(),
            // Only a paravirtual machine has a kernel that the monitor knows of.
            mode: if kernel.is_some() { "pv" } else { "hvm" },
            machine,
            kernel: kernel.cloned(),
            firmware: None,
            outcome: name(&ended.outcome),
            exit_code,
            starts: ended.starts,
            clock: CLOCK,
            events: events.collect(),
            disk_io: Engine::of_host(),
            memory: ended.resident,
        }
    }

    /// Adds the file of the firmware.
    #[must_use]
    pub fn with_firmware(mut self, file: Option<PathBuf>) -> Self {
        self.firmware = file;
        self
    }

    /// Writes it: a file appears whole or not at all.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn write(&self, path: &Path) -> Result<(), ReportError> {
        let fail = |cause| ReportError { path: path.into(), cause };
        let mut json = serde_json::to_vec_pretty(self).map_err(|e| fail(e.into()))?;
        json.push(b'\n');
        files::replace(path, &json).map_err(fail)
    }
}

#[allow(clippy::cast_precision_loss, reason = "a run would have to last for months before a microsecond is lost")]
fn millis(nanos: u64) -> f64 {
    (nanos / 1000) as f64 / 1000.0
}

fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::PoweredOff => "powered-off",
        Outcome::Restarted => "restarted",
        Outcome::UntilMatched => "until-matched",
        Outcome::UntilMissed => "until-missed",
        Outcome::TimedOut => "timed-out",
        Outcome::Crashed(_) => "crashed",
        Outcome::Quit => "quit",
        Outcome::Interrupted => "interrupted",
    }
}

fn describe(mark: Mark) -> &'static str {
    match mark {
        Mark::ConfigurationRead => "command line read, KVM and volumes open",
        Mark::ImageInspected => "disk looked through, boot entry chosen",
        Mark::KernelReady => "kernel and initrd unpacked in the cache and open",
        Mark::VmCreated => "virtual machine made by KVM",
        Mark::MemoryReady => "guest memory holds kernel, initrd and tables",
        Mark::DevicesReady => "devices and processors made",
        Mark::FirstInstruction => "first processor enters the guest",
        Mark::FirmwareStarted => "firmware's first line on the debug console",
        Mark::BootLoaderStarted => "firmware enters the boot loader",
        Mark::FirstConsoleByte => "guest's first byte on the console",
        Mark::KernelStarted => "kernel's first sign of life",
        Mark::KernelBanner => "kernel's banner (Linux version) on the console",
        Mark::InitStarted => "first process of the system or of its initrd on the console",
        Mark::SystemStarted => "first process of the system, not of its initrd, on the console",
        Mark::BootTimer => "guest wrote a value to the boot-timer port",
        Mark::UntilMatched => "console matched --until, or the boot timer ended the run",
        Mark::PowerOff => "guest switched itself off",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn report() -> BootReport {
        let ended = Ended { outcome: Outcome::PoweredOff, last_lines: Vec::new(), resident: None, starts: 1 };
        let timeline = Timeline::from_process_start();
        timeline.mark(Mark::PowerOff);
        let machine = MachineConfig { memory: 16 << 20, cpus: 1 };
        BootReport::new(Path::new("disk.raw"), machine, None, &ended, 0, &timeline)
    }

    #[test]
    fn a_report_replaces_its_file_and_writes_through_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("report.json"), dir.path().join("other"));
        fs::write(&path, "older and longer than nothing").unwrap();
        fs::write(&other, "not mine").unwrap();
        // Another user of a shared directory can guess the name.
        let trap = dir.path().join(format!(".amiboot-report-{}", std::process::id()));
        std::os::unix::fs::symlink(&other, &trap).unwrap();
        report().write(&path).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!((&json["outcome"], &json["events"][0]["name"]), (&"powered-off".into(), &"power_off".into()));
        assert_eq!(fs::read_to_string(&other).unwrap(), "not mine");
        assert!(fs::symlink_metadata(&trap).is_err());
    }
}
