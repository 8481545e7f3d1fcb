//! What is asked of an instance, and answered, over its control socket.
//!
//! A request is one line of JSON, such as `{"request":"stop","grace_ms":5000}`; its answer is one line, `{"ok":...}` or
//! `{"error":{"kind":...,"message":...}}`. A connection may make any number of requests, one after the other. Open files
//! that a request is about come with its bytes (`SCM_RIGHTS`), in the order in which it names them. After the answer to
//! `attach-console` the connection is the console: what the guest writes comes, what is sent is typed.
//!
//! A connection's end tells of the process's: every one is closed once all is written that is to be.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::config::VolumeConfig;
use crate::imds::Document;
use crate::launch::plan::Booted;
use crate::vmm::memory::Resident;

/// The longest request, in bytes.
pub const REQUEST_MAX: usize = 1 << 20;
/// The most open files that come with one.
pub const FILES_MAX: usize = 64;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How it is: [`Status`].
    Status {},
    /// Presses the power button; what the guest does is its own affair.
    PowerButton {},
    /// Ends the machine and starts another, as a reset button does. Answered once that runs.
    Reset {},
    /// Presses the power button, and ends the machine after the grace where it has not ended by then.
    Stop {
        /// How long the guest has, in milliseconds; what the configuration says where nothing is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grace_ms: Option<u64>,
        /// Does not ask the guest.
        #[serde(default)]
        force: bool,
    },
    /// Ends the machine at once.
    Quit {},
    /// Makes the connection the console.
    AttachConsole {
        /// How many bytes of what was written before come first, at most 256 KiB.
        #[serde(default)]
        replay: u64,
    },
    /// Seals the newest layers of volumes, all at one instant, and puts new ones on them. The two open files of each
    /// new layer, data and map, come with the request, in the order of the volumes.
    Snapshot {
        /// The volumes' ids.
        volumes: Vec<String>,
        /// Has the guest's agent, where there is one, freeze the file systems meanwhile. The snapshot is taken either way; the
        /// answer is [`FileSystems`].
        #[serde(default)]
        freeze: bool,
    },
    /// Adds a volume.
    Plug {
        /// The volume.
        volume: VolumeConfig,
    },
    /// Takes a volume away.
    Unplug {
        /// Its id.
        volume: String,
        /// Does not ask the guest.
        #[serde(default)]
        force: bool,
    },
    /// Makes a volume larger.
    Resize {
        /// Its id.
        volume: String,
        /// The bytes that it is to have.
        size: u64,
    },
    /// Tells the guest something else of itself from now on.
    Metadata {
        /// All that it is told.
        document: Box<Document>,
    },
    /// Connects the socket that comes with the request to a TCP port of the guest. It is closed where the guest does not take
    /// the connection, and when that ends.
    Dial {
        /// The port.
        port: u16,
    },
}

impl Request {
    /// How many open files come with it.
    #[must_use]
    pub fn files(&self) -> usize {
        match self {
            Self::Snapshot { volumes, .. } => volumes.len().saturating_mul(2),
            Self::Dial { .. } => 1,
            _ => 0,
        }
    }
}

/// What the guest's file systems were while a snapshot was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "file_systems", rename_all = "kebab-case")]
pub enum FileSystems {
    /// In use: nobody asked for anything else, or the guest has no agent that listens.
    #[default]
    InUse,
    /// Frozen, from before until after: each is whole.
    Frozen {
        /// How many.
        count: u64,
        /// Whether the guest has said that it has thawed them. It is asked until it has.
        thawed: bool,
    },
    /// The guest has an agent, but they were not, or not throughout.
    NotFrozen {
        /// Why.
        why: String,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is done.
    Ok(serde_json::Value),
    /// It is not.
    Error(Failure),
}

impl Answer {
    /// Done, and nothing to tell.
    #[must_use]
    pub fn done() -> Self {
        Self::Ok(serde_json::Value::Null)
    }

    /// Not done.
    #[must_use]
    pub fn failed(kind: FailureKind, message: impl Into<String>) -> Self {
        Self::Error(Failure { kind, message: message.into() })
    }
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// What is wrong, and the mend.
    pub message: String,
}

/// Kinds of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// It is no request.
    BadRequest,
    /// This machine cannot do it.
    Unsupported,
    /// There is no such volume.
    NotFound,
    /// It cannot be done now.
    State,
    /// The machine has ended, or is about to.
    Ended,
    /// The host refused.
    Host,
}

/// What an instance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The first machine is being made.
    Starting,
    /// A machine runs.
    Running,
    /// One machine has ended, and the next is being made.
    Restarting,
    /// The guest was asked to switch itself off.
    Stopping,
    /// The last machine has ended.
    Ended,
}

/// How an instance is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The instance.
    pub id: String,
    /// What it does.
    pub state: State,
    /// Its process.
    pub pid: u32,
    /// The version of the program.
    pub program: String,
    /// When the process began, in milliseconds of Unix time.
    pub began_ms: u64,
    /// When the machine that runs was started.
    pub started_ms: Option<u64>,
    /// How often a machine was started after the first.
    pub restarts: u32,
    /// Whether the guest's kernel has panicked.
    pub panicked: bool,
    /// Memory in bytes.
    pub memory: u64,
    /// Number of processors.
    pub cpus: u32,
    /// What a PV guest was booted with.
    pub kernel: Option<Booted>,
    /// The file of an HVM guest's firmware.
    pub firmware: Option<PathBuf>,
    /// The volumes, in the order in which the guest sees them.
    pub volumes: Vec<VolumeStatus>,
    /// The console.
    pub console: ConsoleStatus,
    /// What is resident, while a machine runs.
    pub resident: Option<Resident>,
    /// Ports of the host that lead to the guest, as they were taken.
    #[serde(default)]
    pub forwards: Vec<String>,
}

impl Status {
    /// How often a machine was started.
    #[must_use]
    pub fn starts(&self) -> u32 {
        if self.started_ms.is_some() { self.restarts.saturating_add(1) } else { 0 }
    }
}

/// A volume of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// Its id.
    pub id: String,
    /// Its device's name in the mapping.
    pub device: String,
    /// Bytes that it has.
    pub size: u64,
    /// Whether the guest cannot write to it.
    pub read_only: bool,
    /// The number of the instance store volume that it is, if it is one.
    pub ephemeral: Option<u8>,
}

/// The console of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleStatus {
    /// Bytes written to it.
    pub written: u64,
    /// Bytes that could not be kept in the log since it was last written to, and why.
    pub not_kept: Option<(u64, String)>,
    /// How many are attached.
    pub attached: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_as_they_are_documented() {
        let parse = serde_json::from_str::<Request>;
        assert_eq!(parse(r#"{"request":"status"}"#).unwrap(), Request::Status {});
        let stop = Request::Stop { grace_ms: Some(5000), force: false };
        assert_eq!(parse(r#"{"request":"stop","grace_ms":5000}"#).unwrap(), stop);
        assert_eq!(parse(r#"{"request":"attach-console"}"#).unwrap(), Request::AttachConsole { replay: 0 });
        for wrong in [
            r#"{"request":"fly"}"#,
            r#"{"request":"status","now":true}"#,
            r#"{"request":"stop","grace_ms":-1}"#,
            r#"{"request":"resize","volume":"vol-1"}"#,
            r#""status""#,
            "[]",
            "",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let json = serde_json::to_string(&Answer::failed(FailureKind::BadRequest, "why")).unwrap();
        assert_eq!(json, r#"{"error":{"kind":"bad-request","message":"why"}}"#);
        assert_eq!(serde_json::to_string(&Answer::done()).unwrap(), r#"{"ok":null}"#);
        assert_eq!(serde_json::from_str::<Answer>(r#"{"ok":null}"#).unwrap(), Answer::done());
    }
}
