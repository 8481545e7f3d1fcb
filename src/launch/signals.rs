//! Signals that ask for the end of the run, as something to poll.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// SIGINT, SIGTERM and SIGHUP, caught as long as this lives.
pub struct EndSignals {
    receiver: UnixStream,
    ids: Vec<SigId>,
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
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            ids.push(signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?);
        }
        Ok(Self { receiver, ids })
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
        for id in self.ids.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}
