//! One machine from its start to its end: the loop that waits for whatever comes first.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::eventfd::EventFd;

use super::console::pump::{Pump, borrow};
use super::console::transcript::Sight;
use crate::vmm::console::ConsoleBuffer;
use crate::vmm::running::Machine;
use crate::vmm::volumes::Ejected;

/// How long a kernel may take to print the rest of its panic.
const PANIC_GRACE: Duration = Duration::from_secs(5);

/// What came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The machine stopped by itself.
    Stopped,
    /// The console showed what was waited for.
    Until,
    /// The time is up.
    TimedOut,
    /// The guest's kernel panicked and stands still.
    Panicked,
    /// The attendant wants another machine in the place of this one.
    Reset,
    /// The attendant quit.
    Quit,
    /// The attendant asked the guest to switch itself off, and has no more patience with it.
    Interrupted,
}

/// Who is with a run: a person at a terminal, or those who ask an instance something.
pub trait Attendant {
    /// Adds what is to be waited for beside the machine and its console.
    fn wait_for<'a>(&'a self, machine: &'a Machine, fds: &mut Vec<PollFd<'a>>);

    /// Deals with what came. `ready` says which of the descriptors that [`Self::wait_for`] added it was; the call may
    /// also come for other reasons.
    ///
    /// # Errors
    /// Where the run cannot go on.
    fn attend(&mut self, machine: &Machine, ready: &[bool]) -> io::Result<Option<End>>;

    /// Whether the guest was asked to switch itself off: one that restarts instead is not started again.
    fn has_asked_to_end(&self) -> bool;

    /// When patience with such a guest ends.
    fn grace_end(&self) -> Option<Instant>;

    /// A machine runs: the first, or one after a restart.
    fn has_started(&mut self, machine: &Machine);

    /// A machine has ended, whatever comes then; `ejected` are volumes that its guest had let go and that the attendant has
    /// not looked at.
    fn has_ended(&mut self, _ejected: &[Ejected]) {}

    /// A machine has ended, and another is made ready.
    fn restarts(&mut self);

    /// A kernel panic was seen: the run ends with it.
    fn has_seen_panic(&mut self) {}
}

/// All that is watched while machines run.
pub struct Driver<'a> {
    /// The console's output.
    pub pump: &'a Pump,
    /// The buffer it comes out of.
    pub console: &'a ConsoleBuffer,
    /// When the time is up.
    pub deadline: Option<Instant>,
    /// Readable once a thread of the monitor has panicked.
    pub panics: &'a EventFd,
    /// Set once a panic was seen: when no more of it is waited for.
    pub panic_end: Option<Instant>,
}

/// What one wait has brought.
#[derive(Default)]
struct Ready {
    panic: bool,
    /// The attendant's, in its order.
    attendant: Vec<bool>,
}

impl Driver<'_> {
    /// Runs until the first end.
    ///
    /// # Errors
    /// What waiting says.
    pub fn drive(&mut self, machine: &Machine, attendant: &mut dyn Attendant) -> io::Result<End> {
        loop {
            let ready = self.wait(machine, attendant)?;
            if ready.panic {
                return Err(io::Error::other("a thread of the monitor panicked"));
            }
            if let Some(end) = self.look_at_console(attendant) {
                return Ok(end);
            }
            if machine.stopper().is_stopped() {
                self.console.release(true);
                // What the guest said last may tell a panic from a reset: everything is looked at first.
                if self.console.is_drained() {
                    return Ok(self.look_at_console(attendant).unwrap_or(End::Stopped));
                }
            }
            if let Some(end) = attendant.attend(machine, &ready.attendant)? {
                return Ok(end);
            }
            if let Some(end) = self.time_is_up(attendant) {
                return Ok(end);
            }
        }
    }

    fn wait(&self, machine: &Machine, attendant: &dyn Attendant) -> io::Result<Ready> {
        let mut fds = vec![
            PollFd::from_borrowed_fd(borrow(self.pump.event()), PollFlags::IN),
            PollFd::from_borrowed_fd(borrow(self.panics), PollFlags::IN),
        ];
        // A machine that has stopped stays readable: it is not waited for twice.
        if !machine.stopper().is_stopped() {
            fds.push(PollFd::from_borrowed_fd(borrow(machine.stopper().event()), PollFlags::IN));
        }
        let own = fds.len();
        attendant.wait_for(machine, &mut fds);
        let next = [self.deadline, attendant.grace_end(), self.panic_end].into_iter().flatten().min();
        let timeout = next.map(|at| Timespec::try_from(at.saturating_duration_since(Instant::now())));
        let timeout = timeout.transpose().map_err(io::Error::other)?;
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
            Err(e) => return Err(e.into()),
        }
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        Ok(Ready {
            panic: fds.get(1).is_some_and(ready),
            attendant: fds.get(own..).unwrap_or_default().iter().map(ready).collect(),
        })
    }

    fn look_at_console(&mut self, attendant: &mut dyn Attendant) -> Option<End> {
        let sights = self.pump.sights();
        if sights.contains(&Sight::Until) {
            return Some(End::Until);
        }
        if sights.contains(&Sight::Panic) && self.panic_end.is_none() {
            self.panic_end = Some(Instant::now() + PANIC_GRACE);
            attendant.has_seen_panic();
        }
        sights.contains(&Sight::PanicEnd).then_some(End::Panicked)
    }

    fn time_is_up(&self, attendant: &dyn Attendant) -> Option<End> {
        let now = Instant::now();
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if passed(self.panic_end) {
            Some(End::Panicked)
        } else if passed(self.deadline) {
            Some(End::TimedOut)
        } else if passed(attendant.grace_end()) {
            Some(End::Interrupted)
        } else {
            None
        }
    }
}
