//! One process from its start to its end, with signals to this one in between.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::launch::signals::EndSignals;

/// What is kept of what it says, in bytes.
const SAID_MAX: usize = 16 << 10;
/// How long it may take to end when asked to.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// How it ended.
#[derive(Debug)]
pub struct Done {
    /// Its exit code; nothing where a signal ended it.
    pub code: Option<i32>,
    /// The end of what it said on standard error.
    pub said: String,
    /// A signal to this process ended it.
    pub interrupted: bool,
    /// It did not end in time.
    pub hung: bool,
}

/// Runs a command to its end, with nothing on its standard input and its standard output thrown away. A signal to this
/// process ends it, and so does the time.
///
/// # Errors
/// What the host says.
pub fn run(command: &mut Command, signals: &mut EndSignals, limit: Duration) -> io::Result<Done> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let running = Running::new(child)?;
    let deadline = Instant::now().checked_add(limit);
    let (mut interrupted, mut hung) = (false, false);
    while !running.wait(Some(signals), deadline)? {
        interrupted = signals.taken() > 0;
        hung = !interrupted && deadline.is_some_and(|at| at <= Instant::now());
        if interrupted || hung {
            running.end()?;
            break;
        }
    }
    let (code, said) = running.finish()?;
    // A terminal sends its signal to both, and the other may have been quicker.
    interrupted |= signals.taken() > 0;
    Ok(Done { code, said, interrupted, hung })
}

/// The process; killed when dropped.
struct Running {
    child: Child,
    handle: OwnedFd,
    said: Option<JoinHandle<VecDeque<u8>>>,
}

impl Running {
    fn new(mut child: Child) -> io::Result<Self> {
        let said = child.stderr.take().map(|pipe| std::thread::spawn(move || last_bytes(pipe)));
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(handle) => Ok(Self { child, handle, said }),
            Err(e) => {
                // Nobody would wait for it.
                let _ = child.kill();
                let _ = child.wait();
                Err(e.into())
            }
        }
    }

    /// Waits for its end (true), for a signal or for the time.
    fn wait(&self, signals: Option<&EndSignals>, deadline: Option<Instant>) -> io::Result<bool> {
        let handle = PollFd::new(&self.handle, PollFlags::IN);
        let mut fds: Vec<PollFd<'_>> = vec![handle];
        fds.extend(signals.map(|signals| PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)));
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = left.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => Ok(fds.first().is_some_and(|fd| !fd.revents().is_empty())),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Asks it to end, and where it does not, ends it.
    fn end(&self) -> io::Result<()> {
        // It may have ended by itself.
        let _ = pidfd_send_signal(&self.handle, Signal::TERM);
        let patience = Instant::now() + END_PATIENCE;
        while !self.wait(None, Some(patience))? {
            if patience <= Instant::now() {
                let _ = pidfd_send_signal(&self.handle, Signal::KILL);
                break;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<(Option<i32>, String)> {
        let status = self.child.wait()?;
        let said = self.said.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        Ok((status.code(), String::from_utf8_lossy(&Vec::from(said)).into_owned()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `finish` there is nothing left of it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn last_bytes(mut pipe: impl Read) -> VecDeque<u8> {
    let mut kept = VecDeque::new();
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = pipe.read(&mut buffer) {
        kept.extend(buffer.get(..len).unwrap_or_default());
        let excess = kept.len().saturating_sub(SAID_MAX);
        kept.drain(..excess);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn ends_and_last_words_are_told() {
        let mut signals = EndSignals::catch().unwrap();
        let mut run = |script, limit| run(&mut shell(script), &mut signals, limit).unwrap();
        let minute = Duration::from_secs(60);
        let done = run("echo shown; echo said >&2; exit 7", minute);
        assert_eq!((done.code, done.said.as_str(), done.hung), (Some(7), "said\n", false));
        let done = run("head -c 1000000 /dev/zero >&2; echo end >&2", minute);
        assert!(done.said.len() <= SAID_MAX && done.said.ends_with("end\n"));
        let done = run("exec sleep 1000", Duration::from_millis(20));
        assert!(done.hung && done.code.is_none());
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let mut signals = EndSignals::catch().unwrap();
        assert!(run(&mut Command::new("/nonexistent"), &mut signals, Duration::ZERO).is_err());
    }
}
