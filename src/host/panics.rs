//! Panics of the monitor's own threads: which of them are faults of this program, and how the others come to know.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::{Once, OnceLock};

use vmm_sys_util::eventfd::EventFd;

static EVENT: OnceLock<EventFd> = OnceLock::new();
static BEFORE_MESSAGE: OnceLock<fn()> = OnceLock::new();

thread_local! {
    /// Whether a panic of this thread is caught and told otherwise.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Calls something that may panic over bad input; nothing where it did. Such a panic prints nothing and is not told to
/// those who [`watch`].
pub fn catch<T>(operation: impl FnOnce() -> T) -> Option<T> {
    install();
    let outer = CAUGHT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(operation));
    CAUGHT.set(outer);
    result.ok()
}

/// An event that is readable once a thread of this process has panicked, from now on. A thread that others wait for
/// must not just go away.
///
/// # Errors
/// Where the host has no event for it.
pub fn watch() -> io::Result<&'static EventFd> {
    install();
    match EVENT.get() {
        Some(event) => Ok(event),
        None => {
            let event = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
            Ok(EVENT.get_or_init(|| event))
        }
    }
}

/// Calls `prepare` before a panic's message is printed, for the rest of this process; only the first of them counts.
pub fn before_message(prepare: fn()) {
    install();
    BEFORE_MESSAGE.get_or_init(|| prepare);
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info| {
            // A thread that is nearly gone has no cell any more, and nobody to catch its panic either.
            if CAUGHT.try_with(Cell::get).unwrap_or(false) {
                return;
            }
            if let Some(prepare) = BEFORE_MESSAGE.get() {
                prepare();
            }
            previous(info);
            if let Some(event) = EVENT.get() {
                // An eventfd that is full is readable already.
                let _ = event.write(1);
            }
        }));
    });
}
