//! How the thread of a device waits.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use vmm_sys_util::eventfd::EventFd;

/// Waits until `kick` was written to, which is then taken, or until `ended` is readable, if there is one.
///
/// # Errors
/// What the host says.
pub fn wait(kick: &EventFd, ended: Option<BorrowedFd<'_>>) -> io::Result<()> {
    if let Some(ended) = ended
        && !either(kick, ended)?
    {
        return Ok(());
    }
    // Reading waits by itself.
    loop {
        match kick.read() {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits for either, and tells whether it was the kick.
fn either(kick: &EventFd, ended: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the descriptor is open as long as `kick` is borrowed.
    let kick = unsafe { BorrowedFd::borrow_raw(kick.as_raw_fd()) };
    let mut fds = [PollFd::from_borrowed_fd(kick, PollFlags::IN), PollFd::from_borrowed_fd(ended, PollFlags::IN)];
    loop {
        match poll(&mut fds, None) {
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let [kicked, _] = &fds;
    Ok(!kicked.revents().is_empty())
}
