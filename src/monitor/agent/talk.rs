//! What is said to the agent, and heard: one command at a time, a line of JSON each way.
//!
//! What an agent has yet to say to commands of before is told from the new by `guest-sync-delimited` with a number that nobody
//! can guess. After it commands are answered in turn. All that comes is a guest's word: lines are bounded, time is, and what is
//! passed on to people is cut and has no control characters.

use std::sync::Arc;
use std::time::Instant;

use rustix::rand::{GetRandomFlags, getrandom};
use serde::Deserialize;
use serde_json::Value;

use super::lines::{Line, Lines, MARK};
use crate::vmm::virtio::console::channel::{Channel, ChannelError, Conversation};

/// The most characters of an agent's own words that are passed on.
const WORDS_MAX: usize = 200;

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TalkError {
    /// Nothing comes or goes.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The agent says that it cannot.
    #[error("the guest's agent refuses: {0}")]
    Refused(String),
    /// It is no answer.
    #[error("the guest's agent answers what cannot be understood")]
    Nonsense,
    /// The host has no random number.
    #[error("the host has no random numbers")]
    Random,
}

/// An answer.
#[derive(Deserialize)]
enum Said {
    #[serde(rename = "return")]
    Done(Value),
    #[serde(rename = "error")]
    Failed { desc: String },
}

/// An agent that listens.
pub struct Talk {
    conversation: Conversation,
    lines: Lines,
}

impl Talk {
    /// Begins to talk with the agent, which has to say by `deadline` that it listens.
    ///
    /// # Errors
    /// [`TalkError`].
    pub fn begin(channel: &Arc<Channel>, deadline: Instant) -> Result<Self, TalkError> {
        let mut talk = Self { conversation: channel.converse()?, lines: Lines::default() };
        let mut random = [0; 8];
        match getrandom(&mut random[..], GetRandomFlags::empty()) {
            Ok(8) => {}
            _ => return Err(TalkError::Random),
        }
        // As many bits as every reader of JSON keeps.
        let number = u64::from_le_bytes(random) >> 11;
        let ask = format!(r#"{{"execute":"guest-sync-delimited","arguments":{{"id":{number}}}}}"#);
        // The mark has the agent forget a line that somebody has left half said.
        talk.conversation.send(&[&[MARK], ask.as_bytes(), b"\n"].concat())?;
        loop {
            let line = talk.line(deadline)?;
            let is_it =
                || matches!(serde_json::from_slice(&line.bytes), Ok(Said::Done(n)) if n.as_u64() == Some(number));
            if line.is_marked && is_it() {
                return Ok(talk);
            }
        }
    }

    /// Which of the port's openings this is.
    #[must_use]
    pub fn opening(&self) -> u64 {
        self.conversation.opening()
    }

    /// Whether file systems are frozen, as far as the agent knows.
    ///
    /// # Errors
    /// [`TalkError`].
    pub fn is_frozen(&mut self, deadline: Instant) -> Result<bool, TalkError> {
        match self.execute("guest-fsfreeze-status", deadline)?.as_str() {
            Some("frozen") => Ok(true),
            Some("thawed") => Ok(false),
            _ => Err(TalkError::Nonsense),
        }
    }

    /// Freezes all file systems that can be; how many.
    ///
    /// # Errors
    /// [`TalkError`]. Where it is not [`TalkError::Refused`] they may be frozen yet.
    pub fn freeze(&mut self, deadline: Instant) -> Result<u64, TalkError> {
        self.execute("guest-fsfreeze-freeze", deadline)?.as_u64().ok_or(TalkError::Nonsense)
    }

    /// Thaws what is frozen; how many.
    ///
    /// # Errors
    /// [`TalkError`].
    pub fn thaw(&mut self, deadline: Instant) -> Result<u64, TalkError> {
        self.execute("guest-fsfreeze-thaw", deadline)?.as_u64().ok_or(TalkError::Nonsense)
    }

    fn execute(&mut self, command: &str, deadline: Instant) -> Result<Value, TalkError> {
        self.conversation.send(format!("{{\"execute\":\"{command}\"}}\n").as_bytes())?;
        let line = self.line(deadline)?;
        match serde_json::from_slice(&line.bytes) {
            Ok(Said::Done(value)) => Ok(value),
            Ok(Said::Failed { desc }) => Err(TalkError::Refused(words(&desc))),
            Err(_) => Err(TalkError::Nonsense),
        }
    }

    fn line(&mut self, deadline: Instant) -> Result<Line, TalkError> {
        loop {
            if let Some(line) = self.lines.next() {
                return Ok(line);
            }
            let bytes = self.conversation.receive(deadline)?;
            self.lines.put(bytes);
        }
    }
}

/// What a guest says, for people.
fn words(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS_MAX).collect()
}
