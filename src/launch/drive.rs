//! One machine from its start to its end: the loop that waits for whatever comes first.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::eventfd::EventFd;

use super::console::escape::{HELP, Typed};
use super::console::pump::{Pump, borrow};
use super::console::say;
use super::console::terminal::RawTerminal;
use super::console::transcript::Sight;
use super::signals::{EndSignals, JobSignals};
use super::stdin::Stdin;
use crate::vmm::console::ConsoleBuffer;
use crate::vmm::running::Machine;

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
    /// The person quit.
    Quit,
    /// Signals, and the guest did not switch itself off in time (or a second signal came).
    Interrupted,
}

/// All that is watched while machines run.
pub struct Driver<'a> {
    /// The console's output.
    pub pump: &'a Pump,
    /// The buffer it comes out of.
    pub console: &'a ConsoleBuffer,
    /// The console's input.
    pub stdin: Stdin,
    /// Signals.
    pub signals: EndSignals,
    /// When the time is up.
    pub deadline: Option<Instant>,
    /// How long the guest has to switch itself off after a signal.
    pub grace: Duration,
    /// The terminal that is raw, whose lines want a carriage return.
    pub terminal: Option<&'a RawTerminal>,
    /// What stops and continues this process; caught where a terminal is raw.
    pub jobs: Option<JobSignals>,
    /// Readable once a thread of the monitor has panicked.
    pub panics: &'a EventFd,
    /// Set once the guest was asked to switch itself off.
    pub is_interrupted: bool,
    /// When patience with such a guest ends.
    pub grace_end: Option<Instant>,
    /// Set once a panic was seen: when no more of it is waited for.
    pub panic_end: Option<Instant>,
}

/// What one wait has brought.
#[derive(Default)]
struct Ready {
    stdin: bool,
    signal: bool,
    input_taken: bool,
    job: bool,
    panic: bool,
}

impl Driver<'_> {
    /// Runs until the first end.
    ///
    /// # Errors
    /// What waiting says.
    pub fn drive(&mut self, machine: &Machine) -> io::Result<End> {
        loop {
            let ready = self.wait(machine)?;
            if ready.panic {
                return Err(io::Error::other("a thread of the monitor panicked"));
            }
            if ready.job {
                self.stop_or_continue();
            }
            if let Some(end) = self.look_at_console() {
                return Ok(end);
            }
            if machine.stopper().is_stopped() {
                self.console.release(true);
                // What the guest said last may tell a panic from a reset: everything is looked at first.
                if self.console.is_drained() {
                    return Ok(self.look_at_console().unwrap_or(End::Stopped));
                }
            }
            if ready.input_taken {
                let _ = machine.input_taken().read();
            }
            if ready.stdin && self.typed() {
                return Ok(End::Quit);
            }
            self.stdin.give(machine);
            if ready.signal && self.signalled(machine)? {
                return Ok(End::Interrupted);
            }
            if let Some(end) = self.time_is_up() {
                return Ok(end);
            }
        }
    }

    fn wait(&mut self, machine: &Machine) -> io::Result<Ready> {
        let mut fds = vec![
            PollFd::from_borrowed_fd(borrow(self.pump.event()), PollFlags::IN),
            PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(borrow(self.panics), PollFlags::IN),
        ];
        // A machine that has stopped stays readable: it is not waited for twice.
        if !machine.stopper().is_stopped() {
            fds.push(PollFd::from_borrowed_fd(borrow(machine.stopper().event()), PollFlags::IN));
        }
        let input_taken = self.stdin.has_pending().then(|| {
            fds.push(PollFd::from_borrowed_fd(borrow(machine.input_taken()), PollFlags::IN));
            fds.len() - 1
        });
        let job = self.jobs.as_ref().map(|jobs| {
            fds.push(PollFd::from_borrowed_fd(jobs.as_fd(), PollFlags::IN));
            fds.len() - 1
        });
        let stdin = self.stdin.wanted().map(|fd| {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            fds.len() - 1
        });
        let next = [self.deadline, self.grace_end, self.panic_end].into_iter().flatten().min();
        let timeout = next.map(|at| Timespec::try_from(at.saturating_duration_since(Instant::now())));
        let timeout = timeout.transpose().map_err(io::Error::other)?;
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
            Err(e) => return Err(e.into()),
        }
        let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Ready {
            signal: ready(1),
            panic: ready(2),
            input_taken: input_taken.is_some_and(ready),
            job: job.is_some_and(ready),
            stdin: stdin.is_some_and(ready),
        })
    }

    fn look_at_console(&mut self) -> Option<End> {
        let sights = self.pump.sights();
        if sights.contains(&Sight::Until) {
            return Some(End::Until);
        }
        if sights.contains(&Sight::Panic) && self.panic_end.is_none() {
            self.panic_end = Some(Instant::now() + PANIC_GRACE);
        }
        sights.contains(&Sight::PanicEnd).then_some(End::Panicked)
    }

    /// Stops this process, its terminal as it was before, or goes on after a stop.
    fn stop_or_continue(&mut self) {
        let (Some(terminal), Some(jobs)) = (self.terminal, &mut self.jobs) else { return };
        if jobs.taken() {
            terminal.leave();
            // Comes back when the process is continued. It cannot fail: the process may send itself signals.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
        }
        terminal.enter_again();
    }

    /// Takes what was typed; true where the person quits.
    fn typed(&mut self) -> bool {
        self.stdin.read().into_iter().any(|key| match key {
            Typed::Quit => true,
            Typed::Help => {
                self.say(HELP);
                false
            }
            Typed::Input(_) => false,
        })
    }

    /// Presses the power button at the first signal; true at the second.
    fn signalled(&mut self, machine: &Machine) -> io::Result<bool> {
        let count = self.signals.taken();
        if count == 0 {
            return Ok(false);
        }
        if count > 1 || self.is_interrupted {
            return Ok(true);
        }
        self.is_interrupted = true;
        self.grace_end = Instant::now().checked_add(self.grace);
        machine.press_power_button()?;
        let seconds = self.grace.as_secs_f32();
        self.say(&format!("amiboot: power button pressed; the guest has {seconds} s, a second signal ends it at once"));
        Ok(false)
    }

    fn time_is_up(&self) -> Option<End> {
        let now = Instant::now();
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if passed(self.panic_end) {
            Some(End::Panicked)
        } else if passed(self.deadline) {
            Some(End::TimedOut)
        } else if passed(self.grace_end) {
            Some(End::Interrupted)
        } else {
            None
        }
    }

    fn say(&self, text: &str) {
        say(text, self.terminal.is_some());
    }
}
