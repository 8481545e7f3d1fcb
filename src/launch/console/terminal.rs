//! The terminal in raw mode while a machine runs, and always restored: at the end, upon a panic, upon a signal that ends
//! the run.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, Once, PoisonError};

use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// How the terminal was, while it is raw; for the panic hook, which has no access to the guard.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal in raw mode; dropped, it is as it was.
#[derive(Debug)]
pub struct RawTerminal(());

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
        restore_on_panic();
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
        tcsetattr(&stdin, OptionalActions::Flush, &raw)?;
        Ok(Some(Self(())))
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

fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            previous(info);
        }));
    });
}
