//! A run: machines one after the other, for as long as the guest restarts, and how it ended.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use regex::bytes::Regex;
use vmm_sys_util::eventfd::EventFd;

use super::console::pump::{Pump, Sink};
use super::console::say;
use super::console::terminal::RawTerminal;
use super::console::transcript::{Sight, Transcript};
use super::drive::{Attendant, Driver, End};
use super::person::Person;
use super::signals::{EndSignals, JobSignals};
use super::stdin::Stdin;
use crate::disk::Disk;
use crate::host::kvm::HostKvm;
use crate::host::panics;
use crate::vmm::builder::{self, Boot, BuildError, DiskConfig, NetworkConfig, Parts};
use crate::vmm::config::MachineConfig;
use crate::vmm::console::ConsoleBuffer;
use crate::vmm::memory::Resident;
use crate::vmm::running;
use crate::vmm::stop::StopReason;
use crate::vmm::timeline::Timeline;
use crate::vmm::virtio::Log;
use crate::vmm::virtio::console::channel::Channel;

/// What ends a run, and when.
#[derive(Debug, Clone)]
pub struct Limits {
    /// End well as soon as the console shows this.
    pub until: Option<Regex>,
    /// End well as soon as the guest writes to the boot timer that its boot is done.
    pub until_timer: bool,
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
    /// What was waited for came: on the console, or from the boot timer.
    UntilMatched,
    /// The guest went away before what was waited for came.
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
    (disks, network): (Vec<DiskConfig>, Option<NetworkConfig>),
    limits: &Limits,
    boot: &mut BootProvider<'_>,
    timeline: &Arc<Timeline>,
) -> Result<Ended, SessionError> {
    // A time that the clock cannot count to never comes.
    let deadline = limits.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    // A first look before the terminal is touched: most errors are here, and are best read on a terminal as it was.
    let first = boot().map_err(SessionError::Plan)?;
    let signals = EndSignals::catch().map_err(host("catching signals"))?;
    let panics = panics::watch().map_err(host("watching for panics"))?;
    let terminal = RawTerminal::enter().map_err(host("making the terminal raw"))?;
    let jobs = terminal.is_some().then(JobSignals::catch).transpose().map_err(host("catching signals"))?;
    let console = Arc::new(ConsoleBuffer::new(timeline.clone()));
    let sink = Sink::stdout().map_err(host("the console's output"))?;
    let transcript = Transcript::new(limits.until.clone()).until_timer(limits.until_timer);
    let pump = Pump::start(console.clone(), transcript, sink, timeline.clone()).map_err(host("the console"))?;
    let log = logger(terminal.is_some());
    let machines = Machines {
        kvm,
        size: machine,
        disks,
        network,
        agent: None,
        limits,
        timeline,
        console: &console,
        pump: &pump,
        panics,
        deadline,
        log,
    };
    let mut person = Person {
        stdin: Stdin::new(terminal.is_some()),
        signals,
        grace: limits.grace,
        terminal: terminal.as_ref(),
        jobs,
        is_interrupted: false,
        grace_end: None,
    };
    let played = machines.play(first, boot, &mut person);
    drop(person);
    let shown = pump.finish().map_err(host("the console"))?;
    drop(terminal);
    played.conclude(shown, limits)
}

/// All that machines which run one after the other have in common.
pub struct Machines<'a> {
    /// KVM.
    pub kvm: &'a HostKvm,
    /// Each one's size.
    pub size: MachineConfig,
    /// The first one's disks; each later one has those that the one before had last.
    pub disks: Vec<DiskConfig>,
    /// Each one's network card, if they have any; its link is opened anew by each.
    pub network: Option<NetworkConfig>,
    /// The host's end of the port that the guest's agent has, if they have one.
    pub agent: Option<Arc<Channel>>,
    /// What ends them.
    pub limits: &'a Limits,
    /// Where instants are recorded.
    pub timeline: &'a Arc<Timeline>,
    /// Where they write.
    pub console: &'a Arc<ConsoleBuffer>,
    /// What moves that on.
    pub pump: &'a Pump,
    /// Readable once a thread of the monitor has panicked.
    pub panics: &'a EventFd,
    /// When the time is up.
    pub deadline: Option<Instant>,
    /// Where devices tell of trouble with the host.
    pub log: Log,
}

impl Machines<'_> {
    /// Runs them: the first begins with `first`, each later one with what `boot` says. None runs when it returns, and
    /// what they have written is durable.
    pub fn play(mut self, first: Boot, boot: &mut BootProvider<'_>, attendant: &mut dyn Attendant) -> Played {
        let mut driver = Driver {
            pump: self.pump,
            console: self.console,
            deadline: self.deadline,
            panics: self.panics,
            panic_end: None,
        };
        let mut next = Some(first);
        let mut starts = 0;
        let ran = loop {
            let source = match next.take().map_or_else(&mut *boot, Ok) {
                Ok(source) => source,
                Err(e) => break Err(SessionError::Plan(e)),
            };
            let machine = match builder::build(self.size, self.parts(source)) {
                Ok(machine) => machine,
                Err(e) => break Err(e.into()),
            };
            // The machine has them now, and lets go of those that its guest lets go.
            self.disks.clear();
            starts += 1;
            attendant.has_started(&machine);
            let end = driver.drive(&machine, attendant);
            // A dead /proc only costs the figure.
            let resident = machine.resident().ok();
            let running::Ended { reason, disks, ejected } = machine.end();
            self.disks = disks;
            attendant.has_ended(&ejected);
            match end {
                Err(cause) => break Err(SessionError::Host { what: "waiting for the machine", cause }),
                Ok(end) if self.restarts(end, &reason, &driver, attendant) => attendant.restarts(),
                Ok(end) => break Ok((end, reason, resident)),
            }
        };
        let seen = Seen { panicked: driver.panic_end.is_some(), interrupted: attendant.has_asked_to_end() };
        // Here, whatever becomes of those around it: what a machine has written is durable when it has ended.
        Played { ran, seen, starts, flushed: flush(&self.disks) }
    }

    fn parts(&self, boot: Boot) -> Parts<'_> {
        Parts {
            kvm: &self.kvm.kvm,
            boot,
            disks: self.disks.clone(),
            network: self.network.clone(),
            agent: self.agent.clone(),
            console: self.console.clone(),
            timeline: self.timeline.clone(),
            log: self.log.clone(),
        }
    }

    fn restarts(&self, end: End, reason: &StopReason, driver: &Driver<'_>, attendant: &dyn Attendant) -> bool {
        let is_wanted = match end {
            End::Reset => true,
            // A guest that was asked to switch itself off and restarts instead is not started again.
            End::Stopped => *reason == StopReason::Reset && !self.limits.no_reboot && !attendant.has_asked_to_end(),
            _ => false,
        };
        is_wanted && driver.panic_end.is_none()
    }
}

/// Machines that have ended.
pub struct Played {
    ran: Result<(End, StopReason, Option<Resident>), SessionError>,
    seen: Seen,
    starts: u32,
    /// Whether what they have written is durable.
    flushed: Result<(), SessionError>,
}

impl Played {
    /// Judges how they ended by what the console has shown.
    ///
    /// # Errors
    /// [`SessionError`] where they could not go on, or their writes could not be kept.
    pub fn conclude(
        self,
        (transcript, late): (Transcript, Vec<Sight>),
        limits: &Limits,
    ) -> Result<Ended, SessionError> {
        let (end, reason, resident) = self.ran?;
        let outcome = judge(end, reason, self.seen, &late, limits)?;
        self.flushed?;
        Ok(Ended { outcome, last_lines: transcript.last_lines(), resident, starts: self.starts })
    }
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
        (End::Quit, _) => Outcome::Quit,
        // Also where the time was up while the rest of it was waited for.
        _ if panicked => Outcome::Crashed("its kernel panicked".into()),
        (End::TimedOut, _) => Outcome::TimedOut,
        (End::Interrupted, _) => Outcome::Interrupted,
        (_, StopReason::TripleFault) => Outcome::Crashed("triple fault".into()),
        (_, StopReason::Panic(how)) => Outcome::Crashed(how),
        (_, StopReason::Internal(why)) => return Err(SessionError::Machine(why)),
        _ if limits.until.is_some() || limits.until_timer => Outcome::UntilMissed,
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
    Arc::new(move |line: &str| say(&format!("amiboot: {line}"), raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_outcome() {
        use End::{Interrupted, Panicked, Quit, Stopped, TimedOut, Until};
        use StopReason::{Ended, PowerOff, Reset, TripleFault};
        let crashed = |how: &str| Some(Outcome::Crashed(how.into()));
        let panic = || crashed("its kernel panicked");
        let internal = || StopReason::Internal("why".into());
        // End, reason, whether a panic was seen, whether a signal came, and the outcome: without a pattern to wait for,
        // and with one that was not seen. Nothing is an error of the monitor.
        let table = [
            (Stopped, PowerOff, false, false, Some(Outcome::PoweredOff), Some(Outcome::UntilMissed)),
            (Stopped, PowerOff, false, true, Some(Outcome::PoweredOff), Some(Outcome::UntilMissed)),
            (Stopped, PowerOff, true, false, panic(), panic()),
            (Stopped, Reset, false, true, Some(Outcome::Interrupted), Some(Outcome::UntilMissed)),
            (Stopped, Reset, true, false, panic(), panic()),
            (Stopped, TripleFault, false, false, crashed("triple fault"), crashed("triple fault")),
            (Stopped, TripleFault, true, true, panic(), panic()),
            (Stopped, StopReason::Panic("how".into()), false, false, crashed("how"), crashed("how")),
            (Stopped, internal(), false, false, None, None),
            (Until, Ended, false, false, Some(Outcome::UntilMatched), Some(Outcome::UntilMatched)),
            (Until, internal(), true, true, Some(Outcome::UntilMatched), Some(Outcome::UntilMatched)),
            (TimedOut, Ended, false, false, Some(Outcome::TimedOut), Some(Outcome::TimedOut)),
            (TimedOut, PowerOff, false, true, Some(Outcome::TimedOut), Some(Outcome::TimedOut)),
            (TimedOut, Ended, true, false, panic(), panic()),
            (Panicked, Ended, true, false, panic(), panic()),
            (Panicked, Reset, false, true, panic(), panic()),
            (Quit, Ended, false, false, Some(Outcome::Quit), Some(Outcome::Quit)),
            (Quit, internal(), true, true, Some(Outcome::Quit), Some(Outcome::Quit)),
            (Interrupted, Ended, false, true, Some(Outcome::Interrupted), Some(Outcome::Interrupted)),
            (Interrupted, Ended, true, true, panic(), panic()),
        ];
        let limits = |until: Option<&str>, no_reboot| Limits {
            until: until.map(|pattern| Regex::new(pattern).unwrap()),
            until_timer: false,
            timeout: None,
            no_reboot,
            grace: Duration::ZERO,
        };
        for (end, reason, panicked, interrupted, plain, waiting) in table {
            let seen = Seen { panicked, interrupted };
            for (limits, expected) in [(limits(None, false), &plain), (limits(Some("x"), false), &waiting)] {
                assert_eq!(
                    judge(end, reason.clone(), seen, &[], &limits).ok(),
                    *expected,
                    "{end:?} {reason:?} {seen:?}"
                );
                // Whatever it was: what was waited for came with its last words.
                let late = judge(end, reason.clone(), seen, &[Sight::Panic, Sight::Until], &limits).ok();
                assert_eq!(late, Some(Outcome::UntilMatched), "{end:?} {reason:?}");
            }
        }
        let seen = Seen { panicked: false, interrupted: false };
        let restarted = judge(Stopped, Reset, seen, &[], &limits(None, true)).ok();
        assert_eq!(restarted, Some(Outcome::Restarted));
        assert_eq!(judge(Stopped, Reset, seen, &[Sight::Panic], &limits(None, true)).ok(), panic());
    }
}
