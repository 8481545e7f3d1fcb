//! Starting an instance's process so that it outlives who starts it, and knowing that its machine runs.
//!
//! The process is given a pipe as its standard output. It writes one line there: that the machine runs, or why not; then
//! the pipe is closed. Who starts it waits for that line, or the pipe's end, and for no time.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// The longest line, in bytes.
const LINE_MAX: u64 = 64 << 10;

/// What a process that was started tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// The machine runs.
    Started {
        /// The process.
        pid: u32,
    },
    /// It does not.
    Failed {
        /// The process's exit code.
        code: u8,
        /// Why.
        error: String,
    },
}

/// Why an instance's process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// The host could not start it.
    #[error("{}: cannot start it: {cause}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the host said.
        cause: io::Error,
    },
    /// Its log cannot be written.
    #[error("{}: {cause}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What the host said.
        cause: io::Error,
    },
    /// It told why it could not begin.
    #[error("{error}")]
    Failed {
        /// Its exit code.
        code: u8,
        /// Why.
        error: String,
    },
    /// It ended without a word.
    #[error("the instance's process ended before its machine ran{how}")]
    Died {
        /// How, where that is known.
        how: String,
    },
}

/// Starts the process of the instance with this configuration; gives its id once the machine runs.
///
/// # Errors
/// [`DetachError`]; the process has ended then, or ends.
pub fn detach(program: &Path, config: &Path, log: Option<&Path>) -> Result<u32, DetachError> {
    let stderr = match log {
        None => Stdio::null(),
        Some(path) => {
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
            file.map_err(|cause| DetachError::Log { path: path.into(), cause })?.into()
        }
    };
    let mut child = Command::new(program)
        .args(["vmm", "--reporting", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .map_err(|cause| DetachError::Spawn { program: program.into(), cause })?;
    let mut line = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        // A pipe that cannot be read has told nothing.
        let _ = BufReader::new(pipe.take(LINE_MAX)).read_until(b'\n', &mut line);
    }
    match serde_json::from_slice(&line) {
        Ok(Report::Started { pid }) => Ok(pid),
        Ok(Report::Failed { code, error }) => {
            // It has nothing more to do.
            let _ = child.wait();
            Err(DetachError::Failed { code, error })
        }
        Err(_) => {
            let status = child.wait().ok();
            let how = status.map(|status| match (status.signal(), status.code()) {
                (Some(signal), _) => format!(": signal {signal}"),
                (None, Some(code)) => format!(": exit code {code}"),
                (None, None) => String::new(),
            });
            Err(DetachError::Died { how: how.unwrap_or_default() })
        }
    }
}

/// Makes this process the leader of a session of its own, which no terminal's end concerns.
pub fn leave_session() {
    // It fails only for one that is a leader already.
    let _ = rustix::process::setsid();
}

/// Tells who started this process, and closes the pipe.
pub fn report(report: &Report) {
    let mut line = serde_json::to_vec(report).unwrap_or_default();
    line.push(b'\n');
    // Who started it may have gone away meanwhile: the instance lives all the same.
    let _ = io::stdout().write_all(&line).and_then(|()| io::stdout().flush());
    close_stdout();
}

fn close_stdout() {
    if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
        // Only a descriptor that is none could not be replaced.
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}
