//! The thread that runs an engine and its companions.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Companion, Engine};
use crate::net::queue::{FrameQueue, Sign};

/// How many frames the services may have before them, and how many bytes.
const IN_MAX: (usize, usize) = (512, 1 << 20);
/// The same of their answers.
const OUT_MAX: (usize, usize) = (1024, 2 << 20);
/// How many connections to the guest may wait to be begun.
const DIALS_MAX: usize = 32;
/// How many frames are taken before companions are looked after again.
const BATCH: usize = 64;

/// What others share with the thread.
pub(in crate::net) struct Desk {
    /// Frames of the guest.
    pub to_services: FrameQueue,
    /// Frames to the guest.
    pub to_guest: FrameQueue,
    /// What the companions wait for has changed.
    pub changed: Sign,
    /// Connections to the guest that are to be begun: its port, and the host's end.
    dials: Mutex<Vec<(u16, UnixStream)>>,
    stop: AtomicBool,
    anew: AtomicBool,
}

impl Desk {
    pub(in crate::net) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            to_services: FrameQueue::new(IN_MAX.0, IN_MAX.1)?,
            to_guest: FrameQueue::new(OUT_MAX.0, OUT_MAX.1)?,
            changed: Sign::new()?,
            dials: Mutex::new(Vec::new()),
            stop: AtomicBool::new(false),
            anew: AtomicBool::new(false),
        }))
    }

    /// Has a connection to a TCP port of the guest begun, whose other end is `stream`.
    ///
    /// # Errors
    /// Where too many wait for that.
    pub(in crate::net) fn dial(&self, port: u16, stream: UnixStream) -> io::Result<()> {
        let mut dials = self.dials.lock().unwrap_or_else(PoisonError::into_inner);
        if dials.len() >= DIALS_MAX {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "too many connections are begun at once"));
        }
        dials.push((port, stream));
        self.changed.give();
        Ok(())
    }

    /// Another guest begins, or the same one anew: what was under way is forgotten before anything of it is taken.
    pub(in crate::net) fn begin_anew(&self) {
        self.to_services.clear();
        self.anew.store(true, Ordering::Release);
        self.changed.give();
        self.to_guest.clear();
    }
}

/// The running thread; it ends when this goes.
pub(in crate::net) struct Attendant {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

impl Attendant {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the host said.
    pub(in crate::net) fn start(
        mut engine: Engine,
        mut companions: Vec<Box<dyn Companion>>,
        desk: Arc<Desk>,
    ) -> io::Result<Self> {
        let theirs = desk.clone();
        let run = move || {
            while !theirs.stop.load(Ordering::Acquire) {
                // Only if the host has no memory left for it; then it is tried again.
                if wait(&mut engine, &companions, &theirs).is_err() {
                    std::thread::yield_now();
                }
                theirs.changed.take();
                work(&mut engine, &mut companions, &theirs);
            }
        };
        let thread = std::thread::Builder::new().name("net-services".into()).spawn(run)?;
        Ok(Self { desk, thread: Some(thread) })
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        self.desk.stop.store(true, Ordering::Release);
        self.desk.changed.give();
        if let Some(thread) = self.thread.take() {
            // A panic of it was told when it happened.
            let _ = thread.join();
        }
    }
}

/// Waits until there is something to do.
fn wait(engine: &mut Engine, companions: &[Box<dyn Companion>], desk: &Desk) -> io::Result<()> {
    let now = Instant::now();
    let due = companions.iter().filter_map(|one| one.deadline()).chain(engine.deadline(now)).min();
    let timeout = due.and_then(|due| Timespec::try_from(due.saturating_duration_since(now)).ok());
    let mut fds = vec![
        PollFd::new(&desk.to_services, PollFlags::IN),
        PollFd::from_borrowed_fd(desk.changed.as_fd(), PollFlags::IN),
    ];
    engine.wait_for(&mut fds);
    for companion in companions {
        companion.wait_for(&mut fds);
    }
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn work(engine: &mut Engine, companions: &mut [Box<dyn Companion>], desk: &Desk) {
    for _ in 0..BATCH {
        let frame = desk.to_services.pop();
        if desk.anew.swap(false, Ordering::AcqRel) {
            engine.forget();
        }
        let Some(frame) = frame else { break };
        engine.take(&frame, companions, Instant::now(), &desk.to_guest);
    }
    let now = Instant::now();
    let dials = std::mem::take(&mut *desk.dials.lock().unwrap_or_else(PoisonError::into_inner));
    for (port, stream) in dials {
        engine.dial(port, stream, now, &desk.to_guest);
    }
    engine.attend(now, &desk.to_guest);
    for companion in companions {
        companion.attend(now, &desk.to_guest);
    }
}
