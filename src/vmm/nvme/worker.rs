//! The thread that serves an enabled controller.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use super::Shared;
use super::engine::Engine;
use crate::vmm::kick;

/// A running worker. Dropping it stops the thread and waits for it: commands that were begun are finished, those behind
/// them stay in their queues, and guest memory is not touched afterwards.
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
            Err(error) => return engine.shared.fatal(&error.to_string()),
        }
    }
    if let Err(error) = engine.settle() {
        engine.shared.fatal(&error.to_string());
    }
}

/// Waits for news, or for the end of what the disk has begun. Whoever has news after `idle` was set kicks; what came before
/// is seen by the last look.
fn sleep(engine: &Engine) -> io::Result<()> {
    let shared = &engine.shared;
    shared.idle.store(true, Ordering::SeqCst);
    if !engine.has_work() && !shared.stopping() {
        kick::wait(&shared.kick, engine.event())?;
    }
    shared.idle.store(false, Ordering::SeqCst);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use vm_memory::{Bytes, GuestAddress};

    use super::super::doorbell::Kind;
    use super::super::engine::Event;
    use super::super::testing::*;
    use super::*;

    /// Whether the completion queue is full before, and what happens then.
    type News = (bool, fn(&Shared));

    /// An engine that has looked at everything and found nothing, with its completion queue full or not.
    fn idle_engine(full: bool) -> Engine {
        let disk = Arc::new(MemDisk::patterned(8));
        let shared = Arc::new(Shared::new(setup(disk, memory(), Arc::default())).unwrap());
        let mut engine = Engine::new(shared, (RINGS, 4), (RINGS + 4096, 2)).unwrap();
        if full {
            // Three commands that nobody knows, of which one is answered.
            engine.shared.memory.write_slice(&[0xff; 192], GuestAddress(RINGS)).unwrap();
            engine.shared.memory.write_slice(&[0; 32], GuestAddress(RINGS + 4096)).unwrap();
            engine.shared.doorbells.ring(Kind::Submission, 0, 3).unwrap();
            assert!(engine.poll().unwrap());
        }
        assert!(!engine.poll().unwrap());
        engine
    }

    /// What comes after the last look, while the worker counts as awake and nobody kicks, is seen before it sleeps.
    #[test]
    fn news_before_the_sleep_is_not_slept_over() {
        let news: [News; 6] = [
            (false, |shared| shared.doorbells.ring(Kind::Submission, 0, 1).unwrap()),
            (true, |shared| shared.doorbells.ring(Kind::Completion, 0, 1).unwrap()),
            (false, |shared| shared.bad_doorbells.store(Event::BAD_VALUE_BIT, Ordering::SeqCst)),
            (false, |shared| shared.resized.store(true, Ordering::SeqCst)),
            (false, |shared| shared.shutdown.store(true, Ordering::SeqCst)),
            (false, |shared| shared.stop.store(true, Ordering::SeqCst)),
        ];
        for (number, (full, tell)) in news.into_iter().enumerate() {
            let engine = idle_engine(full);
            let shared = engine.shared.clone();
            tell(&shared);
            shared.wake();
            let (woken, wait) = mpsc::channel();
            thread::spawn(move || woken.send(sleep(&engine).is_ok()));
            assert_eq!(wait.recv_timeout(PATIENCE), Ok(true), "case {number}");
        }
    }
}
