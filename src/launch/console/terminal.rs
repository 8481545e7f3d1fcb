//! The terminal in raw mode while a machine runs, and always restored: at the end, upon a panic, upon a signal that ends
//! the run.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};

use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

use crate::host::panics;

/// How the terminal was, while it is raw; for the panic hook, which has no access to the guard.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal in raw mode; dropped, it is as it was.
#[derive(Debug)]
pub struct RawTerminal {
    raw: Termios,
    saved: Termios,
}

impl RawTerminal {
    /// Makes the terminal on standard input raw. Nothing where that is no terminal, or one that another job has in the
    /// foreground.
    ///
    /// # Errors
    /// What the host says.
    pub fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() || is_anothers() {
            return Ok(None);
        }
        let saved = tcgetattr(&stdin)?;
        let mut raw = saved.clone();
        raw.make_raw();
        panics::before_message(restore);
        let terminal = Self { raw, saved };
        terminal.set(OptionalActions::Flush)?;
        Ok(Some(terminal))
    }

    /// Makes it as it was, for as long as this process is stopped.
    pub fn leave(&self) {
        restore();
    }

    /// Makes it raw again, unless another job has it now: after this process was stopped, whoever ran meanwhile may have
    /// changed it.
    pub fn enter_again(&self) {
        if !is_anothers() {
            // One that has gone away is told by the next read.
            let _ = self.set(OptionalActions::Now);
        }
    }

    fn set(&self, when: OptionalActions) -> io::Result<()> {
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.saved.clone());
        Ok(tcsetattr(io::stdin(), when, &self.raw)?)
    }
}

/// Whether standard input is a terminal that another job has in the foreground: a read would stop this process.
#[must_use]
pub fn is_anothers() -> bool {
    tcgetpgrp(io::stdin()).is_ok_and(|foreground| foreground != getpgrp())
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the terminal, if it is raw.
fn restore() {
    if let Some(saved) = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // A terminal that has gone away needs no restoring.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &saved);
    }
}
