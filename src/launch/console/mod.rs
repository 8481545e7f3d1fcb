//! The person's side of the console: what is shown, typed, looked for.

pub mod escape;
pub mod pump;
pub mod terminal;
pub mod transcript;

use std::io::{self, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Says a line on standard error while a machine runs; on a terminal that is raw, with the line's end that it wants.
/// Nothing is said where that would wait for a reader: the machine and its end do not depend on one.
pub fn say(line: &str, raw: bool) {
    let stderr = io::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    let ready = poll(&mut fds, Some(&Timespec::default())).is_ok() && fds[0].revents().contains(PollFlags::OUT);
    if ready {
        // Standard error may be closed.
        let _ = write!(&stderr, "{line}{}", if raw { "\r\n" } else { "\n" });
    }
}
