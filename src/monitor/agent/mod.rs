//! The guest's agent (QEMU's, as distributions have it), which freezes the guest's file systems for a snapshot.
//!
//! It listens on the port `org.qemu.guest_agent.0`. Nobody relies on it: a guest without one, or whose agent does not answer, has
//! its snapshot taken all the same.
//!
//! * [`lines`], [`talk`]: what is said and heard;
//! * [`thread`]: freezing and thawing, with all the waiting;
//! * [`Freezes`]: the snapshots that wait for that, and who waits for them.

mod lines;
mod talk;
mod thread;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{Builder, JoinHandle};

pub use self::thread::Limits;
use self::thread::{Step, Work};
use super::desk::ConnectionId;
use super::protocol::{Answer, FailureKind, FileSystems};
use crate::vmm::virtio::console::channel::Channel;

/// A snapshot that is to be taken while the guest's file systems are frozen.
#[derive(Debug)]
pub struct Wanted {
    /// Who waits for it.
    pub from: ConnectionId,
    /// The volumes.
    pub volumes: Vec<String>,
    /// Their new layers' files.
    pub files: Vec<OwnedFd>,
}

/// How a snapshot is taken.
pub type Take<'a> = &'a mut dyn FnMut(&[String], Vec<OwnedFd>) -> Answer;

/// Snapshots that wait for the guest: one at a time.
pub struct Freezes {
    channel: Arc<Channel>,
    limits: Limits,
    wake: Arc<dyn Fn() + Send + Sync>,
    now: Option<Freeze>,
    waiting: VecDeque<Wanted>,
}

/// A guest that freezes or thaws.
struct Freeze {
    thread: JoinHandle<()>,
    steps: Receiver<Step>,
    taken: Sender<()>,
    phase: Phase,
}

enum Phase {
    /// The snapshot is to be taken.
    Freezing(Wanted),
    /// It was taken, or could not be.
    Taken(ConnectionId, Answer),
    /// Everybody was answered, and the guest has yet to thaw.
    Thawing,
}

impl Freezes {
    /// By the agent at the other end of `channel`. `wake` is called, by another thread, when it is time for
    /// [`Self::go_on`].
    pub fn new(channel: Arc<Channel>, limits: Limits, wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { channel, limits, wake, now: None, waiting: VecDeque::new() }
    }

    /// Has a snapshot taken. Gives the answer where it could be taken at once: who waits for it is answered by
    /// [`Self::go_on`] else.
    pub fn begin(&mut self, wanted: Wanted, take: Take<'_>) -> Option<Answer> {
        if !self.channel.is_open() && self.now.is_none() {
            return Some(with(FileSystems::InUse, take(&wanted.volumes, wanted.files)));
        }
        // It may have said in the meantime that it has thawed them; then there is nobody to answer.
        while self.is_thawing() && self.step(take, &mut Vec::new()) {}
        match &self.now {
            Some(Freeze { phase: Phase::Thawing, .. }) => {
                let why = "they were frozen for an earlier snapshot, and the guest has not thawed them yet";
                Some(with(not_frozen(why), take(&wanted.volumes, wanted.files)))
            }
            Some(_) => {
                self.waiting.push_back(wanted);
                None
            }
            None => self.start(wanted, take),
        }
    }

    fn start(&mut self, wanted: Wanted, take: Take<'_>) -> Option<Answer> {
        let ((steps_in, steps), (taken, taken_out)) = (mpsc::channel(), mpsc::channel());
        let work = Work {
            channel: self.channel.clone(),
            limits: self.limits,
            steps: steps_in,
            wake: self.wake.clone(),
            taken: taken_out,
        };
        match Builder::new().name("agent".into()).stack_size(512 << 10).spawn(move || work.run()) {
            Ok(thread) => {
                self.now = Some(Freeze { thread, steps, taken, phase: Phase::Freezing(wanted) });
                None
            }
            Err(e) => {
                let why = format!("the host has no thread to ask the guest by: {e}");
                Some(with(not_frozen(&why), take(&wanted.volumes, wanted.files)))
            }
        }
    }

    /// Deals with what the guest has done meanwhile; gives who is to be answered, and how.
    pub fn go_on(&mut self, take: Take<'_>) -> Vec<(ConnectionId, Answer)> {
        let mut answers = Vec::new();
        while self.step(take, &mut answers) || self.begin_next(take, &mut answers) {}
        answers
    }

    /// Deals with what the thread has told; false where it has told nothing.
    fn step(&mut self, take: Take<'_>, answers: &mut Vec<(ConnectionId, Answer)>) -> bool {
        let Some(mut freeze) = self.now.take() else { return false };
        match freeze.steps.try_recv() {
            Ok(Step::Ready) => {
                freeze.take(take);
                // Where it has waited for too long it says so.
                let _ = freeze.taken.send(());
                self.now = Some(freeze);
            }
            Ok(Step::Ended { file_systems, owes_thaw }) => {
                answers.extend(freeze.end(file_systems, take));
                if owes_thaw {
                    self.now = Some(freeze);
                } else {
                    freeze.join();
                }
            }
            Ok(Step::Thawed) => freeze.join(),
            // Only a thread that has failed leaves without a word.
            Err(TryRecvError::Disconnected) => {
                answers.extend(freeze.end(not_frozen("the instance's process has failed"), take));
                freeze.join();
            }
            Err(TryRecvError::Empty) => {
                self.now = Some(freeze);
                return false;
            }
        }
        true
    }

    /// Begins the next that waits, if it need not wait any longer.
    fn begin_next(&mut self, take: Take<'_>, answers: &mut Vec<(ConnectionId, Answer)>) -> bool {
        if self.now.is_some() && !self.is_thawing() {
            return false;
        }
        let Some(next) = self.waiting.pop_front() else { return false };
        let to = next.from;
        answers.extend(self.begin(next, take).map(|answer| (to, answer)));
        true
    }

    fn is_thawing(&self) -> bool {
        matches!(&self.now, Some(Freeze { phase: Phase::Thawing, .. }))
    }

    /// The last machine has ended; gives what is answered to those who wait still.
    pub fn end(mut self) -> Vec<(ConnectionId, Answer)> {
        self.channel.hang_up();
        let too_late = || Answer::failed(FailureKind::Ended, "the machine ended before the snapshot was taken");
        let mut left: Vec<_> = self.waiting.drain(..).map(|wanted| (wanted.from, too_late())).collect();
        if let Some(Freeze { thread, taken, phase, .. }) = self.now.take() {
            drop(taken);
            // Its panic was told by others.
            let _ = thread.join();
            match phase {
                Phase::Freezing(Wanted { from, .. }) => left.push((from, too_late())),
                // It was taken, whatever else.
                Phase::Taken(from, answer) => {
                    let were = not_frozen("the machine ended before its guest said that it had thawed them");
                    left.push((from, with(were, answer)));
                }
                Phase::Thawing => {}
            }
        }
        left
    }
}

impl Freeze {
    /// Takes the snapshot, unless that was done.
    fn take(&mut self, take: Take<'_>) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Thawing) {
            Phase::Freezing(Wanted { from, volumes, files }) => Phase::Taken(from, take(&volumes, files)),
            other => other,
        };
    }

    /// It is known what the file systems were.
    fn end(&mut self, file_systems: FileSystems, take: Take<'_>) -> Option<(ConnectionId, Answer)> {
        self.take(take);
        match std::mem::replace(&mut self.phase, Phase::Thawing) {
            Phase::Taken(from, answer) => Some((from, with(file_systems, answer))),
            Phase::Freezing(_) | Phase::Thawing => None,
        }
    }

    /// Waits for a thread that has nothing left to do.
    fn join(self) {
        // Its panic was told by others.
        let _ = self.thread.join();
    }
}

fn not_frozen(why: &(impl ToString + ?Sized)) -> FileSystems {
    FileSystems::NotFrozen { why: why.to_string() }
}

/// The answer to a snapshot.
pub fn with(file_systems: FileSystems, answer: Answer) -> Answer {
    match answer {
        Answer::Ok(_) => serde_json::to_value(file_systems)
            .map_or_else(|e| Answer::failed(FailureKind::Host, e.to_string()), Answer::Ok),
        failed @ Answer::Error(_) => failed,
    }
}
