//! Who attends an instance's machines: follows the orders of others, passes on what they type, and heeds signals.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::agent::{self, Freezes, Wanted};
use super::changes::{Changes, Unplugged};
use super::desk::{ConnectionId, Desk, Order};
use super::protocol::{Answer, FailureKind, FileSystems, Request, State};
use super::unix_ms;
use crate::launch::console::pump::borrow;
use crate::launch::drive::{Attendant, End};
use crate::launch::network::Network;
use crate::launch::signals::EndSignals;
use crate::vmm::running::Machine;
use crate::vmm::volumes::Ejected;

/// What is said where a network is needed.
const NO_CARD: &str = "this machine has no network card";

/// The attendant of an instance.
pub struct Caretaker {
    desk: Arc<Desk>,
    signals: EndSignals,
    /// How long the guest has to switch itself off, where nobody says.
    grace: Duration,
    changes: Changes,
    network: Option<Arc<Network>>,
    /// By the guest's agent, where the machine has a port for it.
    freezes: Option<Freezes>,
    /// Called once the first machine runs.
    started: Option<Box<dyn FnOnce()>>,
    /// Who waits for the next machine.
    resets: Vec<ConnectionId>,
    has_asked_to_end: bool,
    has_seen_panic: bool,
    grace_end: Option<Instant>,
    /// Set where the machine was ended by force.
    is_forced: bool,
}

impl Caretaker {
    /// `started` is called once the first machine runs.
    pub fn new(
        desk: Arc<Desk>,
        signals: EndSignals,
        grace: Duration,
        changes: Changes,
        network: Option<Arc<Network>>,
        freezes: Option<Freezes>,
        started: Box<dyn FnOnce()>,
    ) -> Self {
        Self {
            desk,
            signals,
            grace,
            changes,
            network,
            freezes,
            started: Some(started),
            resets: Vec::new(),
            has_asked_to_end: false,
            has_seen_panic: false,
            grace_end: None,
            is_forced: false,
        }
    }

    /// The last machine has ended: nobody waits for another.
    pub fn end(self) -> WasForced {
        self.desk.note(|status| status.state = State::Ended);
        for to in self.resets {
            self.desk.answer(to, Answer::failed(FailureKind::Ended, "the machine ended and no other could be started"));
        }
        for (to, answer) in self.freezes.into_iter().flat_map(Freezes::end) {
            self.desk.answer(to, answer);
        }
        for to in self.changes.end() {
            self.desk
                .answer(to, Answer::failed(FailureKind::Ended, "the machine ended before its guest let the volume go"));
        }
        self.desk.close();
        WasForced(self.is_forced || self.grace_end.is_some_and(|end| end <= Instant::now()))
    }

    /// Follows orders until one ends the machine.
    fn follow(&mut self, machine: &Machine) -> Option<End> {
        while let Some(order) = self.desk.next_order() {
            let from = order.from;
            match self.obey(order, machine) {
                Followed::Answered(answer) => self.desk.answer(from, answer),
                Followed::AnsweredLater => {}
                Followed::Ends(end, answer) => {
                    if let Some(answer) = answer {
                        self.desk.answer(from, answer);
                    }
                    return Some(end);
                }
            }
        }
        None
    }

    fn obey(&mut self, order: Order, machine: &Machine) -> Followed {
        match order.request {
            Request::PowerButton {} => Followed::Answered(match machine.press_power_button() {
                Ok(()) => Answer::done(),
                Err(e) => Answer::failed(FailureKind::Host, format!("pressing the power button: {e}")),
            }),
            Request::Reset {} if self.has_asked_to_end => Followed::refused("the guest was asked to switch itself off"),
            Request::Reset {} if self.has_seen_panic => {
                Followed::refused("the guest's kernel has panicked, and the machine ends with it")
            }
            Request::Reset {} => {
                self.resets.push(order.from);
                Followed::Ends(End::Reset, None)
            }
            Request::Stop { force: true, .. } | Request::Quit {} => {
                self.is_forced = true;
                Followed::Ends(End::Quit, Some(Answer::done()))
            }
            Request::Stop { grace_ms, force: false } => {
                let grace = grace_ms.map_or(self.grace, Duration::from_millis);
                Followed::Answered(match self.ask_to_end(grace, machine) {
                    Ok(()) => Answer::done(),
                    Err(e) => Answer::failed(FailureKind::Host, format!("pressing the power button: {e}")),
                })
            }
            Request::Snapshot { volumes, freeze } => self.snapshot(order.from, volumes, order.files, freeze),
            Request::Plug { volume } => {
                let answer = self.changes.plug(machine, volume);
                self.note_volumes(machine);
                Followed::Answered(answer)
            }
            Request::Unplug { volume, force } => match self.changes.unplug(machine, order.from, &volume, force) {
                Unplugged::Asked => Followed::AnsweredLater,
                Unplugged::Done(answer) => {
                    self.note_volumes(machine);
                    Followed::Answered(answer)
                }
            },
            Request::Resize { volume, size } => {
                let answer = self.changes.resize(machine, &volume, size);
                self.note_volumes(machine);
                Followed::Answered(answer)
            }
            Request::Metadata { document } => Followed::Answered(match &self.network {
                Some(network) => {
                    network.tell(&document);
                    Answer::done()
                }
                None => Answer::failed(FailureKind::Unsupported, NO_CARD),
            }),
            Request::Dial { port } => Followed::Answered(match (&self.network, order.files.into_iter().next()) {
                (None, _) => Answer::failed(FailureKind::Unsupported, NO_CARD),
                (Some(network), Some(socket)) => match network.dial(port, socket.into()) {
                    Ok(()) => Answer::done(),
                    Err(e) => Answer::failed(FailureKind::Host, format!("connecting to the guest: {e}")),
                },
                (Some(_), None) => Answer::failed(FailureKind::BadRequest, "no socket has come"),
            }),
            Request::Status {} | Request::AttachConsole { .. } => Followed::refused("it is answered elsewhere"),
        }
    }

    fn snapshot(&mut self, from: ConnectionId, volumes: Vec<String>, files: Vec<OwnedFd>, freeze: bool) -> Followed {
        // Before anything is frozen for nothing.
        if let Err(refused) = self.changes.check_snapshot(&volumes) {
            return Followed::Answered(refused);
        }
        let changes = &self.changes;
        let mut take = |volumes: &[String], files| changes.snapshot(volumes, files);
        let answer = match self.freezes.as_mut().filter(|_| freeze) {
            Some(freezes) => freezes.begin(Wanted { from, volumes, files }, &mut take),
            None => Some(agent::with(FileSystems::InUse, take(&volumes, files))),
        };
        answer.map_or(Followed::AnsweredLater, Followed::Answered)
    }

    /// Deals with what the guest's agent has done.
    fn look_at_freezes(&mut self) {
        let changes = &self.changes;
        let mut take = |volumes: &[String], files| changes.snapshot(volumes, files);
        let answers = self.freezes.as_mut().map(|freezes| freezes.go_on(&mut take)).unwrap_or_default();
        self.answer(answers);
    }

    /// Answers those who waited for the guest to let go of volumes.
    fn look_at_ejections(&mut self, machine: &Machine) {
        let answers = self.changes.ejected(&machine.ejections().take());
        self.note_volumes(machine);
        self.answer(answers);
    }

    fn answer(&self, answers: Vec<(ConnectionId, Answer)>) {
        answers.into_iter().for_each(|(to, answer)| self.desk.answer(to, answer));
    }

    fn note_volumes(&self, machine: &Machine) {
        let volumes = self.changes.status(machine);
        self.desk.note(|status| status.volumes = volumes);
    }

    /// Presses the power button; the machine is ended after the grace, or after one that was given before and is over
    /// earlier.
    fn ask_to_end(&mut self, grace: Duration, machine: &Machine) -> io::Result<()> {
        machine.press_power_button()?;
        self.has_asked_to_end = true;
        // A time that the clock cannot count to never comes.
        let end = Instant::now().checked_add(grace);
        self.grace_end = [self.grace_end, end].into_iter().flatten().min();
        self.desk.note(|status| status.state = State::Stopping);
        Ok(())
    }

    /// The first signal asks the guest to switch itself off; true at the second.
    fn signalled(&mut self, machine: &Machine) -> io::Result<bool> {
        match self.signals.taken() {
            0 => Ok(false),
            1 if !self.has_asked_to_end => self.ask_to_end(self.grace, machine).map(|()| false),
            _ => Ok(true),
        }
    }
}

/// Whether machines were ended by force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WasForced(pub bool);

enum Followed {
    Answered(Answer),
    /// When the guest has done something.
    AnsweredLater,
    /// Also where the answer comes later.
    Ends(End, Option<Answer>),
}

impl Followed {
    fn refused(why: &str) -> Self {
        Self::Answered(Answer::failed(FailureKind::State, why))
    }
}

impl Attendant for Caretaker {
    fn wait_for<'a>(&'a self, machine: &'a Machine, fds: &mut Vec<PollFd<'a>>) {
        fds.push(PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN));
        fds.push(PollFd::from_borrowed_fd(borrow(&self.desk.for_driver), PollFlags::IN));
        fds.push(PollFd::from_borrowed_fd(borrow(machine.ejections().event()), PollFlags::IN));
        if self.desk.has_input() {
            fds.push(PollFd::from_borrowed_fd(borrow(machine.input_taken()), PollFlags::IN));
        }
    }

    fn attend(&mut self, machine: &Machine, ready: &[bool]) -> io::Result<Option<End>> {
        let is_ready = |at: usize| ready.get(at).copied().unwrap_or(false);
        if is_ready(1) {
            // Emptied before it is looked at what there is: what comes in between makes it readable again.
            let _ = self.desk.for_driver.read();
        }
        if is_ready(2) {
            self.look_at_ejections(machine);
        }
        if is_ready(3) {
            let _ = machine.input_taken().read();
        }
        self.desk.give_input(|bytes| machine.input(bytes));
        self.look_at_freezes();
        if let Some(end) = self.follow(machine) {
            return Ok(Some(end));
        }
        if is_ready(0) && self.signalled(machine)? {
            self.is_forced = true;
            return Ok(Some(End::Interrupted));
        }
        Ok(None)
    }

    fn has_asked_to_end(&self) -> bool {
        self.has_asked_to_end
    }

    fn grace_end(&self) -> Option<Instant> {
        self.grace_end
    }

    fn has_started(&mut self, machine: &Machine) {
        self.desk.note_memory(Some(machine.memory()));
        let is_first = self.started.is_some();
        self.desk.note(|status| {
            status.state = State::Running;
            status.started_ms = Some(unix_ms());
            if !is_first {
                status.restarts = status.restarts.saturating_add(1);
            }
        });
        if let Some(started) = self.started.take() {
            started();
        }
        self.changes.ask_again(machine);
        for to in self.resets.drain(..) {
            self.desk.answer(to, Answer::done());
        }
    }

    fn has_ended(&mut self, ejected: &[Ejected]) {
        let answers = self.changes.ejected(ejected);
        self.desk.note(|status| status.volumes.retain(|volume| self.changes.has(&volume.id)));
        self.answer(answers);
    }

    fn restarts(&mut self) {
        self.desk.note_memory(None);
        self.desk.note(|status| status.state = State::Restarting);
        self.desk.clear_input();
    }

    fn has_seen_panic(&mut self) {
        self.has_seen_panic = true;
        self.desk.note(|status| status.panicked = true);
    }
}
