//! One connection: its conversation, and the answer that is on its way.

use std::sync::Arc;
use std::time::Instant;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::Socket;

use crate::net::{Conversation, StreamService};

/// The time to live where a conversation says nothing of it.
const HOP_LIMIT: u8 = 64;

/// One connection.
pub(super) struct Connection {
    /// Its socket.
    pub socket: SocketHandle,
    /// When it last moved on.
    pub moved: Instant,
    service: Arc<dyn StreamService>,
    /// Begun when the handshake is at its end.
    conversation: Option<Box<dyn Conversation>>,
    answer: Vec<u8>,
    /// How much of the answer has been given to the socket.
    given: usize,
    /// The time to live of this answer.
    hop_limit: u8,
    close: bool,
    /// How much the peer had not acknowledged when it was last looked at.
    unacknowledged: usize,
}

impl Connection {
    pub(super) fn new(socket: SocketHandle, service: Arc<dyn StreamService>, now: Instant) -> Self {
        Self {
            socket,
            moved: now,
            service,
            conversation: None,
            answer: Vec::new(),
            given: 0,
            hop_limit: HOP_LIMIT,
            close: false,
            unacknowledged: 0,
        }
    }

    /// Carries on as far as can be done now; tells whether the connection was established just now.
    pub(super) fn serve(&mut self, socket: &mut Socket<'_>, now: Instant) -> bool {
        let is_established = socket.may_send() || socket.can_recv();
        let is_new = is_established && self.conversation.is_none();
        if is_new {
            self.moved = now;
        }
        while is_established && self.give(socket) && self.hear(socket, now) {}
        // What the peer has acknowledged shows that it lives.
        let unacknowledged = socket.send_queue();
        if unacknowledged < self.unacknowledged {
            self.moved = now;
        }
        self.unacknowledged = unacknowledged;
        is_new
    }

    /// Gives what is left of the answer to the socket; tells whether all of it was given.
    fn give(&mut self, socket: &mut Socket<'_>) -> bool {
        let left = self.answer.get(self.given..).unwrap_or_default();
        if !left.is_empty() {
            if socket.hop_limit() != Some(self.hop_limit) {
                // What was sent before must not be sent again with another time to live.
                if socket.send_queue() > 0 {
                    return false;
                }
                // Zero is not one that a socket can have.
                socket.set_hop_limit(Some(self.hop_limit.max(1)));
            }
            match socket.send_slice(left) {
                Ok(count) if count < left.len() => {
                    self.given += count;
                    return false;
                }
                Ok(_) => {}
                Err(_) => socket.abort(),
            }
        }
        (self.answer, self.given) = (Vec::new(), 0);
        if self.close {
            socket.close();
        }
        !self.close
    }

    /// Gives what has come to the conversation; tells whether something had.
    fn hear(&mut self, socket: &mut Socket<'_>, now: Instant) -> bool {
        let conversation = self.conversation.get_or_insert_with(|| self.service.connect());
        let answer = &mut self.answer;
        let heard = socket.can_recv().then(|| socket.recv(|bytes| (bytes.len(), conversation.receive(bytes, answer))));
        match heard {
            Some(Ok(next)) => {
                self.moved = now;
                self.close = next.close;
                self.hop_limit = next.hop_limit.unwrap_or(HOP_LIMIT).max(1);
                true
            }
            _ => {
                // The peer has said all it wanted to.
                if !socket.may_recv() {
                    socket.close();
                }
                false
            }
        }
    }

    /// Bytes of the answer that is on its way.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.answer.capacity()
    }
}
