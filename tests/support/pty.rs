//! A terminal of a test's own, for a program that is to think that a person sits there.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::ptr;

use rustix::termios::{LocalModes, Termios, tcgetattr};

use super::Running;

/// A pseudo-terminal; `master` is the person's side.
pub struct Pty {
    pub master: File,
    slave: Option<OwnedFd>,
}

impl Pty {
    pub fn open() -> Self {
        let (mut master, mut slave) = (-1, -1);
        // SAFETY: both are valid for writes; name, settings and size may be null (openpty(3)).
        let failed = unsafe { libc::openpty(&mut master, &mut slave, ptr::null_mut(), ptr::null(), ptr::null()) };
        assert_eq!(failed, 0, "{}", io::Error::last_os_error());
        for fd in [master, slave] {
            // SAFETY: it only sets a flag of a descriptor that is open.
            assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }, 0);
        }
        // SAFETY: openpty() has just opened both, and nothing else owns them.
        unsafe { Self { master: File::from_raw_fd(master), slave: Some(OwnedFd::from_raw_fd(slave)) } }
    }

    /// Starts a program whose standard streams and controlling terminal this is; its output is followed.
    pub fn start(&mut self, command: &mut Command) -> Running {
        let mut running = self.start_unfollowed(command);
        running.follow(self.master.try_clone().unwrap(), self.slave.take().unwrap());
        running
    }

    /// The same, and who wants to see the output reads `master`.
    pub fn start_unfollowed(&self, command: &mut Command) -> Running {
        let stream = || Stdio::from(self.slave.as_ref().unwrap().try_clone().unwrap());
        command.stdin(stream()).stdout(stream()).stderr(stream());
        // SAFETY: setsid() and ioctl() may be called between fork and exec (signal-safety(7)).
        unsafe { command.pre_exec(take_terminal) };
        let running = Running::start_as_it_is(command);
        // The command keeps what it was given, and would keep the terminal open.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        running
    }

    /// Makes it so many characters wide and high.
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.master, size).unwrap();
    }

    /// The terminal's settings, which both sides see.
    pub fn settings(&self) -> Termios {
        tcgetattr(&self.master).unwrap()
    }

    /// Whether keys reach the program one by one, Ctrl-C included, and are not shown.
    pub fn is_raw(&self) -> bool {
        let modes = self.settings().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    pub fn write(&self, bytes: &[u8]) {
        (&self.master).write_all(bytes).unwrap();
    }
}

fn take_terminal() -> io::Result<()> {
    // SAFETY: it has no arguments, and the caller is no group leader.
    let session = unsafe { libc::setsid() };
    // SAFETY: descriptor 0 is the terminal; the argument is a number.
    if session < 0 || unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What of the settings a program could have changed, in a form to compare.
pub fn modes(settings: &Termios) -> String {
    format!(
        "{:?} {:?} {:?} {:?}",
        settings.input_modes, settings.output_modes, settings.control_modes, settings.local_modes
    )
}
