//! One connection: its request as it comes, its answer as it goes, or the console.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::PollFlags;

use super::socket;
use crate::monitor::desk::{ConnectionId, Desk, Order};
use crate::monitor::protocol::{Answer, FILES_MAX, FailureKind, REQUEST_MAX, Request};

/// How much of the console is sent at once.
const PIECE: usize = 16 << 10;
/// How many may be attached to the console: there is room for others beside them.
const CONSOLES_MAX: usize = 16;

/// What a connection is for.
#[derive(Debug, PartialEq, Eq)]
enum Role {
    /// A request comes.
    Asking,
    /// One is being followed.
    Waiting,
    /// It is the console: where to read on in its output.
    Console { at: u64 },
    /// It ends once the answer is gone.
    Leaving,
}

/// A connection.
pub struct Connection {
    id: ConnectionId,
    stream: UnixStream,
    role: Role,
    inbox: Vec<u8>,
    files: Vec<OwnedFd>,
    outbox: Vec<u8>,
    /// The other side sends no more.
    at_end: bool,
    /// When it last did something: larger is later.
    pub used: u64,
}

/// Whether a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It does.
    Stay,
    /// It is to be closed.
    Close,
}

impl Connection {
    /// A new one.
    ///
    /// # Errors
    /// What the host says.
    pub fn new(id: ConnectionId, stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let (inbox, files, outbox) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { id, stream, role: Role::Asking, inbox, files, outbox, at_end: false, used: 0 })
    }

    /// Which it is.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether it may be closed for another: nobody waits for anything on it.
    pub fn is_idle(&self) -> bool {
        matches!(self.role, Role::Asking | Role::Leaving)
    }

    /// Whether it is the console.
    pub fn is_console(&self) -> bool {
        matches!(self.role, Role::Console { .. })
    }

    /// Whether it still has something to get.
    pub fn is_behind(&self, desk: &Desk) -> bool {
        !self.outbox.is_empty() || matches!(self.role, Role::Console { at } if at < desk.backlog().end())
    }

    /// What is to be waited for.
    pub fn wanted(&self, desk: &Desk) -> PollFlags {
        let reads = match self.role {
            // One request at a time: the next is read when the answer is gone.
            Role::Asking => self.outbox.is_empty() && !self.at_end,
            Role::Console { .. } => !self.at_end && self.inbox.is_empty() && desk.input_room() > 0,
            Role::Waiting | Role::Leaving => false,
        };
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, reads);
        flags.set(PollFlags::OUT, self.is_behind(desk));
        flags
    }

    /// Deals with what the wait has brought.
    pub fn ready(&mut self, flags: PollFlags, desk: &Desk) -> Next {
        // Both sides have ended it: nobody reads an answer.
        if flags.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return Next::Close;
        }
        if flags.contains(PollFlags::IN)
            && let Err(e) = self.read(desk)
            && e.kind() != io::ErrorKind::WouldBlock
        {
            return Next::Close;
        }
        self.go_on(desk)
    }

    fn read(&mut self, desk: &Desk) -> io::Result<()> {
        let mut buffer = [0; 4096];
        // What is read of the console's input has room.
        let room = if self.is_console() { desk.input_room().min(buffer.len()) } else { buffer.len() };
        if room == 0 {
            return Ok(());
        }
        let got = socket::receive(&self.stream, buffer.get_mut(..room).unwrap_or_default())?;
        let bytes = buffer.get(..got.bytes).unwrap_or_default();
        self.at_end |= got.bytes == 0;
        if self.is_console() {
            // Files that come with what is typed are closed.
            desk.type_in(bytes);
            return Ok(());
        }
        self.files.extend(got.files);
        self.inbox.extend_from_slice(bytes);
        if got.is_cut || self.files.len() > FILES_MAX {
            self.refuse(&format!("at most {FILES_MAX} open files come with a request"));
        }
        Ok(())
    }

    /// Takes the next request out of what has come, if it has come whole. What there is to answer at once is not sent yet.
    fn take_request(&mut self, desk: &Desk) {
        let Some(end) = self.inbox.iter().position(|byte| *byte == b'\n') else {
            if self.inbox.len() > REQUEST_MAX {
                self.refuse(&format!("a request has at most {REQUEST_MAX} bytes"));
            } else if self.at_end {
                // The rest of a request will not come.
                self.role = Role::Leaving;
            }
            return;
        };
        let line: Vec<u8> = self.inbox.drain(..=end).collect();
        let files = std::mem::take(&mut self.files);
        if line.len() > REQUEST_MAX {
            return self.refuse(&format!("a request has at most {REQUEST_MAX} bytes"));
        }
        match serde_json::from_slice::<Request>(&line) {
            Err(e) => self.put(&Answer::failed(FailureKind::BadRequest, format!("it is no request: {e}"))),
            Ok(request) if request.files() != files.len() => {
                let (wanted, come) = (request.files(), files.len());
                let why = format!("{wanted} open files are to come with this request, and {come} have");
                self.put(&Answer::failed(FailureKind::BadRequest, why));
            }
            Ok(request) => self.follow(request, files, desk),
        }
    }

    fn follow(&mut self, request: Request, files: Vec<OwnedFd>, desk: &Desk) {
        match request {
            Request::Status {} => {
                let answer = serde_json::to_value(desk.status())
                    .map_or_else(|e| Answer::failed(FailureKind::Host, e.to_string()), Answer::Ok);
                self.put(&answer);
            }
            Request::AttachConsole { .. } if desk.attached() >= CONSOLES_MAX => {
                let why = format!("{CONSOLES_MAX} are attached to this console; close one of them first");
                self.put(&Answer::failed(FailureKind::State, why));
            }
            Request::AttachConsole { replay } => {
                // First: from now on output wakes the thread that this runs on.
                desk.note(|status| status.console.attached += 1);
                let at = desk.backlog().before_end(replay);
                self.put(&Answer::done());
                self.role = Role::Console { at };
                // What was sent on the heels of the request is typed already.
                self.type_in(desk);
            }
            request => match desk.order(Order { from: self.id, request, files }) {
                Some(answer) => self.put(&answer),
                None => self.role = Role::Waiting,
            },
        }
    }

    /// Of the console: types what has come, as far as there is room.
    pub fn type_in(&mut self, desk: &Desk) {
        if self.is_console() && !self.inbox.is_empty() {
            let count = desk.input_room().min(self.inbox.len());
            desk.type_in(self.inbox.get(..count).unwrap_or_default());
            self.inbox.drain(..count);
        }
    }

    /// Answers what is no request, and ends.
    fn refuse(&mut self, why: &str) {
        self.put(&Answer::failed(FailureKind::BadRequest, why));
        self.role = Role::Leaving;
        self.inbox.clear();
        self.files.clear();
    }

    /// Answers the request that was waited for.
    pub fn answer(&mut self, answer: &Answer, desk: &Desk) {
        self.put(answer);
        if self.role == Role::Waiting {
            self.role = Role::Asking;
        }
        // It may be gone at once, and the next request there already.
        let _ = self.go_on(desk);
    }

    fn put(&mut self, answer: &Answer) {
        // An answer can always be written down: its keys are texts.
        self.outbox.extend(serde_json::to_vec(answer).unwrap_or_default());
        self.outbox.push(b'\n');
    }

    /// Sends what there is, and follows the requests that have come already, one after the other, until something has to be
    /// waited for. However many have come at once, they are dealt with in this loop: nothing below it comes back to it.
    fn go_on(&mut self, desk: &Desk) -> Next {
        loop {
            match self.send(desk) {
                Ok(true) => {}
                Ok(false) => return Next::Stay,
                Err(_) => return Next::Close,
            }
            match self.role {
                Role::Leaving => return Next::Close,
                Role::Asking if !self.inbox.is_empty() || self.at_end => self.take_request(desk),
                _ => return Next::Stay,
            }
            if self.role == Role::Asking && self.outbox.is_empty() {
                // The rest of a request has yet to come.
                return Next::Stay;
            }
        }
    }

    /// Sends what there is; false where the other side does not take all of it.
    fn send(&mut self, desk: &Desk) -> io::Result<bool> {
        loop {
            self.fetch_output(desk);
            if self.outbox.is_empty() {
                return Ok(true);
            }
            match self.stream.write(&self.outbox) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.outbox.drain(..written)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Takes the next piece of the console's output, where it is the console and all before is gone.
    fn fetch_output(&mut self, desk: &Desk) {
        let Role::Console { at } = &mut self.role else { return };
        if !self.outbox.is_empty() {
            return;
        }
        let piece = desk.backlog().read(*at, PIECE);
        *at = piece.next;
        if piece.lost > 0 {
            let notice = format!("\r\n[amiboot: {} bytes of output were not read in time]\r\n", piece.lost);
            self.outbox.extend(notice.bytes());
        }
        self.outbox.extend(piece.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::Shutdown;
    use std::thread;

    use rustix::event::{PollFd, poll};

    use super::*;
    use crate::monitor::desk::tests::desk;

    /// Talks to one connection until that ends, as the thread of the control socket does, with a small stack.
    fn talk(stream: UnixStream) -> thread::JoinHandle<()> {
        let talk = move || {
            let desk = desk();
            let mut connection = Connection::new(1, stream).unwrap();
            loop {
                let mut fds = [PollFd::from_borrowed_fd(connection.fd(), connection.wanted(&desk))];
                poll(&mut fds, None).unwrap();
                let flags = fds[0].revents();
                if connection.ready(flags, &desk) == Next::Close {
                    return;
                }
            }
        };
        thread::Builder::new().stack_size(128 << 10).spawn(talk).unwrap()
    }

    #[test]
    fn thousands_of_requests_at_once_take_no_more_stack_than_one() {
        for (request, count, answer) in
            [("\n", 50_000, "{\"error\":"), ("{\"request\":\"status\"}\n", 5_000, "{\"ok\":")]
        {
            let (near, far) = UnixStream::pair().unwrap();
            let talking = talk(near);
            let sender = far.try_clone().unwrap();
            let sending = thread::spawn(move || {
                (&sender).write_all(request.repeat(count).as_bytes()).unwrap();
                sender.shutdown(Shutdown::Write).unwrap();
            });
            let answers: Vec<_> = BufReader::new(far).lines().map(Result::unwrap).collect();
            assert_eq!(answers.len(), count, "{request:?}");
            assert!(answers.iter().all(|line| line.starts_with(answer)), "{request:?}");
            sending.join().unwrap();
            talking.join().unwrap();
        }
    }
}
