//! Signals that ask for the end of the run, or stop and continue it, as something to poll.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::SigId;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGXFSZ};

/// SIGINT, SIGTERM, SIGHUP and SIGQUIT, caught as long as this lives. Afterwards they end the process, as they do one that
/// never caught them.
pub struct EndSignals {
    receiver: UnixStream,
    ids: Vec<SigId>,
    over: Arc<AtomicBool>,
}

impl EndSignals {
    /// Catches them.
    ///
    /// # Errors
    /// What the host says.
    pub fn catch() -> io::Result<Self> {
        let (receiver, sender) = UnixStream::pair()?;
        receiver.set_nonblocking(true)?;
        let mut ids = Vec::new();
        let over = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
            // Stays: a signal that is caught no more would be passed over otherwise.
            signal_hook::flag::register_conditional_default(signal, over.clone())?;
            ids.push(signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?);
        }
        Ok(Self { receiver, ids, over })
    }

    /// How many came since the last call.
    pub fn taken(&mut self) -> usize {
        let mut bytes = [0; 64];
        self.receiver.read(&mut bytes).unwrap_or(0)
    }
}

impl AsFd for EndSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

impl Drop for EndSignals {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        for id in self.ids.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}

/// Makes a write over the limit of file sizes (`ulimit -f`) fail with `EFBIG`, as any other failing write, instead of
/// ending the process.
pub fn outlive_file_size_limit() {
    // Caught is as good as ignored, and it fails only for signals that cannot be caught.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
}

/// SIGTSTP and SIGCONT, caught as long as this lives: a process that is stopped leaves the terminal as it was.
pub struct JobSignals {
    receiver: UnixStream,
    stop: Arc<AtomicBool>,
    ids: Vec<SigId>,
}

impl JobSignals {
    /// Catches them.
    ///
    /// # Errors
    /// What the host says.
    pub fn catch() -> io::Result<Self> {
        let (receiver, sender) = UnixStream::pair()?;
        receiver.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        // The flag first: who is woken finds it set.
        let mut ids = vec![signal_hook::flag::register(SIGTSTP, stop.clone())?];
        for signal in [SIGTSTP, SIGCONT] {
            ids.push(signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?);
        }
        Ok(Self { receiver, stop, ids })
    }

    /// Whether this process is to stop; where not, it goes on after it was stopped.
    pub fn taken(&mut self) -> bool {
        // Nothing to read is nothing new.
        let _ = self.receiver.read(&mut [0; 64]);
        self.stop.swap(false, Ordering::SeqCst)
    }
}

impl AsFd for JobSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

impl Drop for JobSignals {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}
