//! The thread that freezes and thaws: it waits for the guest, so that nobody else has to.
//!
//! ```text
//!   asks ──► frozen ──► Step::Ready ──► the snapshot is taken, or the time for it is over ──► thaws ──► Step::Ended
//!     └────► not frozen ──────────────────────────────────────────────────────────────────────────────► Step::Ended
//! ```
//!
//! Whatever happens once it was asked to freeze, the guest is asked to thaw, again and again, until it says that it has: an answer
//! to the first may come late. Only the machine's end is an end to that.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use super::not_frozen;
use super::talk::{Talk, TalkError};
use crate::monitor::protocol::FileSystems;
use crate::vmm::virtio::console::channel::{Channel, ChannelError};

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Until the agent says that it listens, and what is frozen.
    pub answer: Duration,
    /// From then on, until it has frozen all.
    pub freeze: Duration,
    /// That it stays so for the snapshot.
    pub hold: Duration,
    /// Until it has thawed all.
    pub thaw: Duration,
    /// Between one time that it is asked to thaw and the next.
    pub again: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(3),
            freeze: Duration::from_secs(10),
            hold: Duration::from_secs(10),
            thaw: Duration::from_secs(10),
            again: Duration::from_secs(1),
        }
    }
}

/// What the thread tells.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The file systems are frozen: the snapshot is to be taken now.
    Ready,
    /// What has become of them. Where this comes without [`Step::Ready`], the snapshot is still to be taken.
    Ended {
        /// This.
        file_systems: FileSystems,
        /// Whether the guest has yet to say that it has thawed them: then [`Step::Thawed`] follows.
        owes_thaw: bool,
    },
    /// The guest has thawed them at last.
    Thawed,
}

/// What the thread works with.
pub struct Work {
    /// The agent's port.
    pub channel: Arc<Channel>,
    /// How long things may take.
    pub limits: Limits,
    /// Where steps go.
    pub steps: Sender<Step>,
    /// Calls who waits for them.
    pub wake: Arc<dyn Fn() + Send + Sync>,
    /// Says that the snapshot was taken.
    pub taken: Receiver<()>,
}

impl Work {
    /// Does all of it. Returns once nothing is frozen any more, or the machine has ended.
    pub fn run(self) {
        let listens = Instant::now() + self.limits.answer;
        let asked = Talk::begin(&self.channel, listens).and_then(|mut talk| Ok((talk.is_frozen(listens)?, talk)));
        let mut talk = match asked {
            Ok((false, talk)) => talk,
            Ok((true, talk)) => {
                drop(talk);
                return self.end(not_frozen("somebody else has frozen them"), false);
            }
            Err(error) => return self.end(not_frozen(&error), false),
        };
        let opening = talk.opening();
        // From here on they are thawed, come what may.
        let frozen = talk.freeze(Instant::now() + self.limits.freeze);
        // Else its answer may come yet, and would be taken for the answer to what is asked next.
        let is_answered = matches!(frozen, Ok(_) | Err(TalkError::Refused(_)));
        let (said, is_taken) = match frozen {
            Ok(0) => (not_frozen("the guest has none that can be frozen"), false),
            Ok(count) => {
                let is_taken = self.hold();
                (FileSystems::Frozen { count, thawed: false }, is_taken)
            }
            Err(error) => (not_frozen(&error), false),
        };
        let thaw_by = Instant::now() + self.limits.thaw;
        let thawed = if is_answered {
            let thawed = talk.thaw(thaw_by);
            drop(talk);
            thawed
        } else {
            // The port has one listener.
            drop(talk);
            Talk::begin(&self.channel, thaw_by).and_then(|mut talk| talk.thaw(thaw_by))
        };
        let said = match (said, &thawed) {
            (FileSystems::Frozen { .. }, _) if !is_taken => not_frozen("the snapshot was not taken in time"),
            (FileSystems::Frozen { .. }, Ok(0)) => not_frozen("the guest has thawed them before its time"),
            (FileSystems::Frozen { count, .. }, thawed) => FileSystems::Frozen { count, thawed: thawed.is_ok() },
            (said, _) => said,
        };
        self.end(said, thawed.is_err());
        if let Err(error) = thawed {
            self.thaw(opening, error);
        }
    }

    /// Waits for the snapshot; false where it was not taken in time.
    fn hold(&self) -> bool {
        self.send(Step::Ready);
        self.taken.recv_timeout(self.limits.hold).is_ok()
    }

    /// Asks until it is done.
    fn thaw(&self, mut opening: u64, mut error: TalkError) {
        loop {
            let waited = match error {
                // The same agent, or another one in its place, which knows what is frozen.
                TalkError::Channel(ChannelError::Closed) => self.channel.wait_for_opening(opening),
                _ => self.channel.pause(Instant::now() + self.limits.again),
            };
            if waited.is_err() {
                return;
            }
            let asked = Talk::begin(&self.channel, Instant::now() + self.limits.thaw).and_then(|mut talk| {
                opening = talk.opening();
                talk.thaw(Instant::now() + self.limits.thaw)
            });
            match asked {
                Ok(_) => return self.send(Step::Thawed),
                Err(why) => error = why,
            }
        }
    }

    fn end(&self, file_systems: FileSystems, owes_thaw: bool) {
        self.send(Step::Ended { file_systems, owes_thaw });
    }

    fn send(&self, step: Step) {
        // Where nobody waits any more, there is nobody to tell.
        let _ = self.steps.send(step);
        (self.wake)();
    }
}
