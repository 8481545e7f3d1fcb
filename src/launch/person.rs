//! The person who attends a run: at a terminal, or by what is piped in, and by signals.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::console::escape::{HELP, Typed};
use super::console::pump::borrow;
use super::console::say;
use super::console::terminal::RawTerminal;
use super::drive::{Attendant, End};
use super::signals::{EndSignals, JobSignals};
use super::stdin::Stdin;
use crate::vmm::running::Machine;

/// All that a person does to a run.
pub struct Person<'a> {
    /// The console's input.
    pub stdin: Stdin,
    /// Signals.
    pub signals: EndSignals,
    /// How long the guest has to switch itself off after a signal.
    pub grace: Duration,
    /// The terminal that is raw, whose lines want a carriage return.
    pub terminal: Option<&'a RawTerminal>,
    /// What stops and continues this process; caught where a terminal is raw.
    pub jobs: Option<JobSignals>,
    /// Set once the guest was asked to switch itself off.
    pub is_interrupted: bool,
    /// When patience with such a guest ends.
    pub grace_end: Option<Instant>,
}

impl Attendant for Person<'_> {
    fn wait_for<'a>(&'a self, machine: &'a Machine, fds: &mut Vec<PollFd<'a>>) {
        fds.push(PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN));
        fds.extend(self.stdin.wanted().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        fds.extend(self.jobs.as_ref().map(|jobs| PollFd::from_borrowed_fd(jobs.as_fd(), PollFlags::IN)));
        if self.stdin.has_pending() {
            fds.push(PollFd::from_borrowed_fd(borrow(machine.input_taken()), PollFlags::IN));
        }
    }

    fn attend(&mut self, machine: &Machine, ready: &[bool]) -> io::Result<Option<End>> {
        let mut ready = ready.iter().copied();
        let mut next = |is_watched: bool| is_watched && ready.next().unwrap_or(false);
        let signal = next(true);
        let stdin = next(self.stdin.wanted().is_some());
        let job = next(self.jobs.is_some());
        let input_taken = next(self.stdin.has_pending());
        if job {
            self.stop_or_continue();
        }
        if input_taken {
            let _ = machine.input_taken().read();
        }
        if stdin && self.typed() {
            return Ok(Some(End::Quit));
        }
        self.stdin.give(machine);
        Ok((signal && self.signalled(machine)?).then_some(End::Interrupted))
    }

    fn has_asked_to_end(&self) -> bool {
        self.is_interrupted
    }

    fn grace_end(&self) -> Option<Instant> {
        self.grace_end
    }

    fn has_started(&mut self, _machine: &Machine) {}

    fn restarts(&mut self) {
        self.stdin.clear();
    }
}

impl Person<'_> {
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

    fn say(&self, text: &str) {
        say(text, self.terminal.is_some());
    }
}
