//! Connections of the host's to ports of the guest: a socket of the host at one end, TCP to the guest at the other.
//!
//! They come from the metadata service's address, which the guest reaches whatever else its network is like, and nothing on the
//! host listens for them: whoever may ask the instance's process has them.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags};
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Duration;

use crate::net::address::METADATA;

/// The most of them at a time.
pub(super) const DIALED_MAX: usize = 32;
/// Bytes of each buffer.
const BUFFER: usize = 64 << 10;
/// How long the guest may leave bytes, or the beginning, unacknowledged.
const UNANSWERED: Duration = Duration::from_secs(20);
/// How often it is looked whether a silent guest is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The first of the ports that they come from.
const FIRST_PORT: u16 = 49_152;

/// One connection.
pub(super) struct Dialed {
    socket: SocketHandle,
    stream: UnixStream,
    /// The host's side has said all it wanted to.
    has_ended: bool,
    /// The guest's side has, and the host knows.
    guest_has_ended: bool,
    /// What has come from the guest waits for the host's side.
    is_behind: bool,
    /// What has come from the host waits for the guest's side.
    has_room: bool,
}

/// All of them.
pub(super) struct DialedSet {
    all: Vec<Dialed>,
    next_port: u16,
    buffer: Vec<u8>,
}

impl DialedSet {
    pub(super) fn new() -> Self {
        Self { all: Vec::new(), next_port: FIRST_PORT, buffer: vec![0; BUFFER] }
    }

    /// Begins a connection to a port of the guest; one that there is no room for is closed at once.
    pub(super) fn dial(
        &mut self,
        (guest, port): (Ipv4Addr, u16),
        stream: UnixStream,
        interface: &mut Interface,
        sockets: &mut SocketSet<'static>,
    ) {
        if self.all.len() >= DIALED_MAX || stream.set_nonblocking(true).is_err() {
            return;
        }
        let mut socket = Socket::new(SocketBuffer::new(vec![0; BUFFER]), SocketBuffer::new(vec![0; BUFFER]));
        socket.set_nagle_enabled(false);
        socket.set_timeout(Some(UNANSWERED));
        socket.set_keep_alive(Some(KEEP_ALIVE));
        let from = (METADATA, self.next_port);
        self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
        if socket.connect(interface.context(), (guest, port), from).is_ok() {
            let socket = sockets.add(socket);
            let (has_ended, guest_has_ended, is_behind, has_room) = (false, false, false, false);
            self.all.push(Dialed { socket, stream, has_ended, guest_has_ended, is_behind, has_room });
        }
    }

    /// Forgets all: the guest has.
    pub(super) fn forget(&mut self, sockets: &mut SocketSet<'static>) {
        for one in self.all.drain(..) {
            sockets.remove(one.socket);
        }
    }

    /// Carries on what can be carried on, and forgets those that are over.
    pub(super) fn serve(&mut self, sockets: &mut SocketSet<'static>) {
        let buffer = &mut self.buffer;
        self.all.retain_mut(|one| {
            let socket = sockets.get_mut::<Socket>(one.socket);
            if one.serve(socket, buffer).is_err() {
                // Whoever was at the host's side is gone.
                socket.abort();
                one.has_ended = true;
                while socket.can_recv() && socket.recv(|bytes| (bytes.len(), ())).is_ok() {}
            }
            if socket.state() == State::Closed && !socket.can_recv() && !has_to_say(socket) {
                sockets.remove(one.socket);
                return false;
            }
            // One that waits for the last of its packets to be lost needs nobody on the host's side.
            true
        });
    }

    /// Adds what they wait for.
    pub(super) fn wait_for<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        for one in &self.all {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, one.has_room && !one.has_ended);
            flags.set(PollFlags::OUT, one.is_behind);
            // Without either it is not looked at: an end of the other side would wake for ever what cannot deal with it yet.
            if !flags.is_empty() {
                fds.push(PollFd::from_borrowed_fd(one.stream.as_fd(), flags));
            }
        }
    }
}

/// Whether a socket that was aborted has not said so yet.
fn has_to_say(socket: &Socket<'_>) -> bool {
    socket.state() == State::Closed && socket.remote_endpoint().is_some()
}

impl Dialed {
    /// # Errors
    /// Where the host's side is gone.
    fn serve(&mut self, socket: &mut Socket<'_>, buffer: &mut [u8]) -> io::Result<()> {
        self.give_host(socket)?;
        self.give_guest(socket, buffer)?;
        self.has_room = socket.can_send();
        Ok(())
    }

    fn give_host(&mut self, socket: &mut Socket<'_>) -> io::Result<()> {
        self.is_behind = false;
        while socket.can_recv() && !self.is_behind {
            let mut failed = None;
            let (stream, is_behind) = (&mut self.stream, &mut self.is_behind);
            let taken = socket.recv(|bytes| match stream.write(bytes) {
                Ok(count) => (count, ()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    *is_behind = true;
                    (0, ())
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => (0, ()),
                Err(e) => {
                    failed = Some(e);
                    (0, ())
                }
            });
            if let Some(e) = failed {
                return Err(e);
            }
            if taken.is_err() {
                break;
            }
        }
        let is_over = !socket.may_recv() && !socket.can_recv() && socket.state() != State::SynSent;
        if is_over && !self.guest_has_ended {
            self.guest_has_ended = true;
            // It may be gone already.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        Ok(())
    }

    fn give_guest(&mut self, socket: &mut Socket<'_>, buffer: &mut [u8]) -> io::Result<()> {
        while socket.can_send() && !self.has_ended {
            let room = socket.send_capacity().saturating_sub(socket.send_queue()).min(buffer.len());
            let piece = buffer.get_mut(..room).unwrap_or_default();
            match self.stream.read(piece) {
                Ok(0) => {
                    self.has_ended = true;
                    socket.close();
                }
                // There is room for all of it.
                Ok(count) => drop(socket.send_slice(piece.get(..count).unwrap_or_default())),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
