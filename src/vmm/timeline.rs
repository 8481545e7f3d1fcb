//! When what happened: the instants of a boot, on one monotonic clock.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// An instant of a boot. Each is recorded at its first occurrence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// The words of the call were understood and the volumes resolved.
    ConfigurationRead,
    /// The disk was looked through and a boot entry chosen.
    ImageInspected,
    /// Kernel and initrd lie in the cache, unpacked and open.
    KernelReady,
    /// KVM has made the virtual machine.
    VmCreated,
    /// Guest memory holds the kernel, the initrd and all tables.
    MemoryReady,
    /// All devices stand, and the processors.
    DevicesReady,
    /// The first processor enters the guest.
    FirstInstruction,
    /// The firmware of an HVM guest wrote its first line to the debug console.
    FirmwareStarted,
    /// Firmware entered a boot loader, as one of them said.
    BootLoaderStarted,
    /// The guest wrote its first byte to the console.
    FirstConsoleByte,
    /// The kernel showed for the first time that it runs: it took KVM's clock, or wrote to the console.
    KernelStarted,
    /// The kernel's banner (`Linux version`) was on the console.
    KernelBanner,
    /// The console showed that the first process of the system runs.
    InitStarted,
    /// The console showed that the system's own first process runs, and not that of its initrd.
    SystemStarted,
    /// The guest wrote a value to the boot-timer port.
    BootTimer,
    /// The console matched `--until`.
    UntilMatched,
    /// The guest switched itself off.
    PowerOff,
}

/// One recorded instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Instant {
    /// What happened.
    pub name: Mark,
    /// What the guest wrote to the boot-timer port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<u8>,
    /// Nanoseconds of monotonic time from process start.
    pub wall_ns: u64,
    /// Nanoseconds of processor time that the monitor (guest execution included) had used by then.
    pub cpu_ns: u64,
}

/// Records instants; shared by all that see one.
#[derive(Debug)]
pub struct Timeline {
    start: Duration,
    instants: Mutex<Vec<Instant>>,
}

fn clock(id: ClockId) -> Duration {
    let t = clock_gettime(id);
    Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0))
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

impl Timeline {
    /// Begins at the start of this process. That is the first line of `main`, where this is called, less the processor
    /// time used by then (the dynamic linker's and the runtime's; the kernel tells a process's start only in hundredths
    /// of a second).
    #[must_use]
    pub fn from_process_start() -> Self {
        let start = clock(ClockId::Monotonic).saturating_sub(clock(ClockId::ProcessCPUTime));
        Self { start, instants: Mutex::new(Vec::new()) }
    }

    /// Records an instant, unless it was before.
    pub fn mark(&self, name: Mark) {
        self.record(name, None);
    }

    /// Records that the guest wrote a value to the boot-timer port, unless it wrote that one before: there are no more
    /// instants than there are values of a byte.
    pub fn boot_timer(&self, value: u8) {
        self.record(Mark::BootTimer, Some(value));
    }

    fn record(&self, name: Mark, value: Option<u8>) {
        let wall_ns = nanos(clock(ClockId::Monotonic).saturating_sub(self.start));
        let cpu_ns = nanos(clock(ClockId::ProcessCPUTime));
        let mut instants = self.instants.lock().unwrap_or_else(PoisonError::into_inner);
        if !instants.iter().any(|i| i.name == name && i.value == value) {
            instants.push(Instant { name, value, wall_ns, cpu_ns });
        }
    }

    /// What was recorded, in order of time.
    #[must_use]
    pub fn instants(&self) -> Vec<Instant> {
        let mut instants = self.instants.lock().unwrap_or_else(PoisonError::into_inner).clone();
        instants.sort_by_key(|i| i.wall_ns);
        instants
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_occurrence_counts_and_time_does_not_run_back() {
        let timeline = Timeline::from_process_start();
        timeline.mark(Mark::VmCreated);
        timeline.mark(Mark::FirstInstruction);
        let first = timeline.instants();
        timeline.mark(Mark::VmCreated);
        assert_eq!(timeline.instants(), first);
        assert!(first[0].wall_ns <= first[1].wall_ns && first[0].cpu_ns <= first[1].cpu_ns);
    }

    #[test]
    fn each_value_of_the_boot_timer_is_kept_once() {
        let timeline = Timeline::from_process_start();
        for value in (0..=255).cycle().take(1000) {
            timeline.boot_timer(value);
        }
        let values: Vec<_> = timeline.instants().iter().filter_map(|i| i.value).collect();
        assert_eq!(values, (0..=255).collect::<Vec<u8>>());
    }
}
