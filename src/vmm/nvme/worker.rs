//! The thread that serves an enabled controller.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use super::Shared;
use super::engine::Engine;

/// A running worker. Dropping it stops the thread and waits for it: a command that is being done is finished, those
/// behind it stay in their queues, and guest memory is not touched afterwards.
pub struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the host said when it could not make a thread.
    pub fn start(shared: Arc<Shared>, mut engine: Engine) -> io::Result<Self> {
        shared.stop.store(false, Ordering::SeqCst);
        let thread = thread::Builder::new().name("nvme".into()).spawn(move || run(&mut engine))?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.kick();
        if let Some(thread) = self.thread.take() {
            // A panic was already told by the hook, and there is nothing left to save.
            let _ = thread.join();
        }
    }
}

fn run(engine: &mut Engine) {
    while !engine.shared.stopping() {
        match engine.poll() {
            Ok(true) => {}
            Ok(false) => {
                if let Err(error) = sleep(engine) {
                    return engine.shared.fatal(&format!("its notification cannot be read: {error}"));
                }
            }
            Err(error) => return engine.shared.fatal(&format!("a queue is not memory: {error}")),
        }
    }
}

/// Waits for news. Whoever has some after `idle` was set kicks; what came before is seen by the last look.
fn sleep(engine: &Engine) -> io::Result<()> {
    let shared = &engine.shared;
    shared.idle.store(true, Ordering::SeqCst);
    if !engine.has_work() && !shared.stopping() {
        while let Err(error) = shared.kick.read() {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
    shared.idle.store(false, Ordering::SeqCst);
    Ok(())
}
