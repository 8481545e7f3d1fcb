//! The report of a boot: what happened when, and the memory it took, as JSON.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::plan::Booted;
use super::session::{Ended, Outcome};
use crate::disk::Engine;
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
    what: &'static str,
    wall_ms: f64,
    cpu_ms: f64,
}

const CLOCK: &str = "milliseconds of monotonic time (wall_ms) and of the process's processor time, guest execution \
                     included (cpu_ms), from the start of the amiboot process; of each event the first occurrence";

impl BootReport {
    /// Refuses a path that could not be written, before anything is done.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn check_path(path: &Path) -> Result<(), ReportError> {
        let fail = |cause| ReportError { path: path.into(), cause };
        if path.is_dir() {
            return Err(fail(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory; name a file in it")));
        }
        let parent = parent(path);
        if !parent.is_dir() {
            let why = format!("there is no directory {}", parent.display());
            return Err(fail(io::Error::new(io::ErrorKind::NotFound, why)));
        }
        Ok(())
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
            outcome: name(&ended.outcome),
            exit_code,
            starts: ended.starts,
            clock: CLOCK,
            events: events.collect(),
            disk_io: Engine::of_host(),
            memory: ended.resident,
        }
    }

    /// Writes it: a file appears whole or not at all.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn write(&self, path: &Path) -> Result<(), ReportError> {
        let fail = |cause| ReportError { path: path.into(), cause };
        let mut json = serde_json::to_vec_pretty(self).map_err(|e| fail(e.into()))?;
        json.push(b'\n');
        // A pipe, a terminal, /dev/stdout: there is nothing to replace.
        let is_plain = fs::symlink_metadata(path).map_or(true, |meta| meta.is_file());
        if !is_plain {
            return fs::OpenOptions::new().append(true).open(path).and_then(|mut f| f.write_all(&json)).map_err(fail);
        }
        let temporary = parent(path).join(format!(".amiboot-report-{}", std::process::id()));
        let write = || {
            // A leftover of another process that had the same id, or something that was put there to be written to.
            match fs::remove_file(&temporary) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?.write_all(&json)?;
            fs::rename(&temporary, path)
        };
        write().map_err(|cause| {
            // It may not even have come into being.
            let _ = fs::remove_file(&temporary);
            fail(cause)
        })
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
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
        Mark::FirstConsoleByte => "guest's first byte on the console",
        Mark::KernelBanner => "kernel's banner (Linux version) on the console",
        Mark::InitStarted => "first process of the system or of its initrd on the console",
        Mark::UntilMatched => "console matched --until",
        Mark::PowerOff => "guest switched itself off",
    }
}

#[cfg(test)]
mod tests {
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
