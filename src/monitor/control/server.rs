//! The thread that talks to all who are connected.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::connection::{Connection, Next};
use super::socket;
use crate::launch::console::pump::borrow;
use crate::monitor::desk::Desk;
use crate::monitor::protocol::{State, Status};

/// How many may be connected. Of more, those that have asked nothing for the longest time are closed.
const CONNECTIONS_MAX: usize = 64;
/// How long somebody who takes nothing is waited for once all is over.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long nobody is let in, or nothing done, where the host gives no descriptor or no memory for it.
const PAUSE: Duration = Duration::from_millis(100);

/// Why nobody can talk to the instance.
#[derive(Debug, thiserror::Error)]
#[error("control socket {}: {cause}", path.display())]
pub struct ServerError {
    path: PathBuf,
    cause: io::Error,
}

/// The thread, running.
pub struct Server {
    path: PathBuf,
    desk: Arc<Desk>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at `path`, and starts the thread.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn start(path: &Path, desk: Arc<Desk>) -> Result<Self, ServerError> {
        let fail = |cause| ServerError { path: path.into(), cause };
        let listener = socket::listen(path).map_err(fail)?;
        let over = Arc::new(AtomicBool::new(false));
        let talk = Talk {
            listener: Some(listener),
            connections: Vec::new(),
            desk: desk.clone(),
            over: over.clone(),
            next_id: 0,
            used: 0,
            pause_end: None,
        };
        let builder = std::thread::Builder::new().name("control".into()).stack_size(512 << 10);
        let thread = builder.spawn(move || talk.run()).map_err(fail)?;
        Ok(Self { path: path.into(), desk, over, thread: Some(thread) })
    }

    /// Removes the socket, and follows no order any more: nobody connects. Who is connected stays. Gives how the instance
    /// is.
    pub fn close_desk(&self) -> Status {
        self.unlist();
        self.desk.note(|status| status.state = State::Ended);
        self.desk.close();
        self.desk.status()
    }

    fn unlist(&self) {
        // Another may have removed it.
        let _ = std::fs::remove_file(&self.path);
    }

    /// Ends all connections, once what they are to get is gone or nobody takes it.
    pub fn end(mut self) {
        self.wind_up();
    }

    fn wind_up(&mut self) {
        self.over.store(true, Ordering::Release);
        // An eventfd that is full is readable already.
        let _ = self.desk.for_server.write(1);
        if let Some(thread) = self.thread.take() {
            // Its panic has been told by others.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.unlist();
        }
        self.wind_up();
    }
}

struct Talk {
    listener: Option<UnixListener>,
    connections: Vec<Connection>,
    desk: Arc<Desk>,
    over: Arc<AtomicBool>,
    next_id: u64,
    used: u64,
    /// Until when nobody is let in.
    pause_end: Option<Instant>,
}

impl Talk {
    fn run(mut self) {
        let mut last = None;
        loop {
            if self.over.load(Ordering::Acquire) {
                self.listener = None;
                let until = *last.get_or_insert_with(|| Instant::now() + LAST_WORDS);
                self.hand_out();
                if !self.connections.iter().any(|c| c.is_behind(&self.desk)) || until <= Instant::now() {
                    return;
                }
            }
            if self.wait(last).is_err() {
                // The host is out of memory, say: it need not stay so.
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Waits once, and deals with what has come.
    fn wait(&mut self, until: Option<Instant>) -> io::Result<()> {
        let now = Instant::now();
        self.pause_end = self.pause_end.filter(|end| *end > now);
        let (bell, ready) = {
            let mut fds = vec![PollFd::from_borrowed_fd(borrow(&self.desk.for_server), PollFlags::IN)];
            fds.extend(self.connections.iter().map(|c| PollFd::from_borrowed_fd(c.fd(), c.wanted(&self.desk))));
            let listener = self.listener.as_ref().filter(|_| self.pause_end.is_none());
            fds.extend(listener.map(|listener| PollFd::new(listener, PollFlags::IN)));
            let next = [until, self.pause_end].into_iter().flatten().min();
            let timeout = next.map(|at| Timespec::try_from(at.saturating_duration_since(now)));
            match poll(&mut fds, timeout.transpose().map_err(io::Error::other)?.as_ref()) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
            let bell = fds.first().is_some_and(|fd| !fd.revents().is_empty());
            (bell, fds.iter().skip(1).map(PollFd::revents).collect::<Vec<_>>())
        };
        if bell {
            // Emptied before it is looked at what there is: what comes in between makes it readable again.
            let _ = self.desk.for_server.read();
        }
        self.hand_out();
        self.connections.iter_mut().for_each(|connection| connection.type_in(&self.desk));
        let (own, listener) = ready.split_at(self.connections.len().min(ready.len()));
        let mut flags = own.iter();
        self.connections.retain_mut(|connection| {
            let flags = flags.next().copied().unwrap_or(PollFlags::empty());
            if flags.is_empty() {
                return true;
            }
            self.used += 1;
            connection.used = self.used;
            connection.ready(flags, &self.desk) == Next::Stay
        });
        let attached = self.connections.iter().filter(|c| c.is_console()).count();
        self.desk.note(|status| status.console.attached = attached);
        if listener.iter().any(|flags| !flags.is_empty()) {
            self.let_in();
        }
        Ok(())
    }

    /// Gives answers to those who wait for them.
    fn hand_out(&mut self) {
        for (to, answer) in self.desk.answers() {
            // One that went away has nobody to tell.
            if let Some(connection) = self.connections.iter_mut().find(|c| c.id() == to) {
                connection.answer(&answer, &self.desk);
            }
        }
    }

    fn let_in(&mut self) {
        let Some(listener) = &self.listener else { return };
        match listener.accept() {
            Ok((stream, _)) if socket::is_trusted(&stream) => {
                if self.connections.len() >= CONNECTIONS_MAX {
                    self.make_room();
                }
                self.next_id += 1;
                if self.connections.len() < CONNECTIONS_MAX
                    && let Ok(mut connection) = Connection::new(self.next_id, stream)
                {
                    self.used += 1;
                    connection.used = self.used;
                    self.connections.push(connection);
                }
            }
            Ok(_) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)) => {
                self.make_room();
                self.pause_end = Some(Instant::now() + PAUSE);
            }
            // It went away before it was let in.
            Err(_) => {}
        }
    }

    /// Closes the connection that has asked nothing for the longest time.
    fn make_room(&mut self) {
        let idle = self.connections.iter().enumerate().filter(|(_, c)| c.is_idle());
        if let Some((at, _)) = idle.min_by_key(|(_, c)| c.used) {
            self.connections.swap_remove(at);
        }
    }
}
