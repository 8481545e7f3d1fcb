//! A run: machines one after the other, for as long as the guest restarts, and how it ended.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use regex::bytes::Regex;

use super::console::pump::{Pump, Sink};
use super::console::terminal::RawTerminal;
use super::console::transcript::{Sight, Transcript};
use super::drive::{Driver, End};
use super::signals::EndSignals;
use super::stdin::Stdin;
use crate::disk::Disk;
use crate::host::kvm::HostKvm;
use crate::vmm::builder::{self, Boot, BuildError, DiskConfig, Parts};
use crate::vmm::config::MachineConfig;
use crate::vmm::console::ConsoleBuffer;
use crate::vmm::memory::Resident;
use crate::vmm::stop::StopReason;
use crate::vmm::timeline::Timeline;
use crate::vmm::virtio::Log;

/// What ends a run, and when.
#[derive(Debug, Clone)]
pub struct Limits {
    /// End well as soon as the console shows this.
    pub until: Option<Regex>,
    /// End badly after this time.
    pub timeout: Option<Duration>,
    /// A guest that restarts ends the run.
    pub no_reboot: bool,
    /// How long a guest has to switch itself off after a signal.
    pub grace: Duration,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The guest switched itself off.
    PoweredOff,
    /// The guest restarted, and was not to.
    Restarted,
    /// The console showed what was waited for.
    UntilMatched,
    /// The guest went away before the console showed what was waited for.
    UntilMissed,
    /// The time is up.
    TimedOut,
    /// The guest crashed: what was seen of it.
    Crashed(String),
    /// The person quit.
    Quit,
    /// A signal ended it, and the guest did not switch itself off.
    Interrupted,
}

/// A run that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// The console's last lines.
    pub last_lines: Vec<String>,
    /// What was resident just before the last machine ended.
    pub resident: Option<Resident>,
    /// How often a machine was started.
    pub starts: u32,
}

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The machine could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// There is nothing to boot.
    #[error(transparent)]
    Plan(Box<dyn std::error::Error + Send + Sync>),
    /// KVM or the monitor could not go on.
    #[error("the machine stopped: {0}")]
    Machine(String),
    /// The disk's last writes could not be kept.
    #[error("the last writes to a disk could not be made durable: {0}")]
    Flush(io::Error),
    /// Terminal, console or signals.
    #[error("{what}: {cause}")]
    Host {
        /// What was being done.
        what: &'static str,
        /// What the host said.
        cause: io::Error,
    },
}

fn host(what: &'static str) -> impl Fn(io::Error) -> SessionError {
    move |cause| SessionError::Host { what, cause }
}

/// Gives what is to be booted; asked again at every start, since a guest may change its own kernel.
pub type BootProvider<'a> = dyn FnMut() -> Result<Boot, Box<dyn std::error::Error + Send + Sync>> + 'a;

/// Runs machines until the run has ended.
///
/// # Errors
/// [`SessionError`] where it could not begin or go on; how a guest ends is not an error but an [`Outcome`].
pub fn run(
    kvm: &HostKvm,
    machine: MachineConfig,
    disks: &[DiskConfig],
    limits: &Limits,
    boot: &mut BootProvider<'_>,
    timeline: &Arc<Timeline>,
) -> Result<Ended, SessionError> {
    // A time that the clock cannot count to never comes.
    let deadline = limits.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    // A first look before the terminal is touched: most errors are here, and are best read on a terminal as it was.
    let mut next = Some(boot().map_err(SessionError::Plan)?);
    let signals = EndSignals::catch().map_err(host("catching signals"))?;
    let terminal = RawTerminal::enter().map_err(host("making the terminal raw"))?;
    let console = Arc::new(ConsoleBuffer::new(timeline.clone()));
    let sink = Sink::stdout().map_err(host("the console's output"))?;
    let transcript = Transcript::new(limits.until.clone());
    let pump = Pump::start(console.clone(), transcript, sink, timeline.clone()).map_err(host("the console"))?;
    let mut driver = Driver {
        pump: &pump,
        console: &console,
        stdin: Stdin::new(terminal.is_some()),
        signals,
        deadline,
        grace: limits.grace,
        raw: terminal.is_some(),
        is_interrupted: false,
        grace_end: None,
        panic_end: None,
    };
    let log = logger(terminal.is_some());

    let mut starts = 0;
    let ran = loop {
        let source = match next.take().map_or_else(&mut *boot, Ok) {
            Ok(source) => source,
            Err(e) => break Err(SessionError::Plan(e)),
        };
        let parts = Parts {
            kvm: &kvm.kvm,
            boot: source,
            disks: disks.to_vec(),
            console: console.clone(),
            timeline: timeline.clone(),
            log: log.clone(),
        };
        let machine = match builder::build(machine, parts) {
            Ok(machine) => machine,
            Err(e) => break Err(e.into()),
        };
        starts += 1;
        let end = driver.drive(&machine);
        // A dead /proc only costs the figure.
        let resident = machine.resident().ok();
        let reason = machine.end();
        match end {
            Err(cause) => break Err(SessionError::Host { what: "waiting for the machine", cause }),
            Ok(End::Stopped) if restarts(&reason, limits, &driver) => driver.stdin.clear(),
            Ok(end) => break Ok((end, reason, resident)),
        }
    };
    let seen = Seen { panicked: driver.panic_end.is_some(), interrupted: driver.is_interrupted };
    drop(driver);
    let (transcript, late) = pump.finish().map_err(host("the console"))?;
    drop(terminal);
    let flushed = flush(disks);
    let (end, reason, resident) = ran?;
    let outcome = judge(end, reason, seen, &late, limits)?;
    flushed?;
    Ok(Ended { outcome, last_lines: transcript.last_lines(), resident, starts })
}

fn restarts(reason: &StopReason, limits: &Limits, driver: &Driver<'_>) -> bool {
    // A guest that was asked to switch itself off and restarts instead is not started again.
    *reason == StopReason::Reset && !limits.no_reboot && driver.panic_end.is_none() && !driver.is_interrupted
}

/// What was seen of a run before its end.
#[derive(Debug, Clone, Copy)]
struct Seen {
    panicked: bool,
    interrupted: bool,
}

fn judge(end: End, reason: StopReason, seen: Seen, late: &[Sight], limits: &Limits) -> Result<Outcome, SessionError> {
    let matched = end == End::Until || late.contains(&Sight::Until);
    let panicked = seen.panicked || end == End::Panicked || late.contains(&Sight::Panic);
    Ok(match (end, reason) {
        _ if matched => Outcome::UntilMatched,
        (End::TimedOut, _) => Outcome::TimedOut,
        (End::Quit, _) => Outcome::Quit,
        _ if panicked => Outcome::Crashed("its kernel panicked".into()),
        (End::Interrupted, _) => Outcome::Interrupted,
        (_, StopReason::TripleFault) => Outcome::Crashed("triple fault".into()),
        (_, StopReason::Panic(how)) => Outcome::Crashed(how),
        (_, StopReason::Internal(why)) => return Err(SessionError::Machine(why)),
        _ if limits.until.is_some() => Outcome::UntilMissed,
        (_, StopReason::Reset) if seen.interrupted && !limits.no_reboot => Outcome::Interrupted,
        (_, StopReason::Reset) => Outcome::Restarted,
        _ => Outcome::PoweredOff,
    })
}

/// A guest need not have flushed what it wrote; a disk file that was written to is to hold it all the same.
fn flush(disks: &[DiskConfig]) -> Result<(), SessionError> {
    let writable = |disk: &&DiskConfig| !disk.disk.is_read_only();
    let results: Vec<_> = disks.iter().filter(writable).map(|disk| Disk::flush(disk.disk.as_ref())).collect();
    results.into_iter().collect::<io::Result<()>>().map_err(SessionError::Flush)
}

/// Where devices tell of trouble with the host.
fn logger(raw: bool) -> Log {
    Arc::new(move |line: &str| {
        use std::io::Write;
        // Standard error may be closed.
        let _ = write!(io::stderr(), "amiboot: {line}{}", if raw { "\r\n" } else { "\n" });
    })
}
