//! The stream of frames to and from the program.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use crate::net::LARGE_FRAME_MAX;
use crate::net::services::attend::Desk;
use crate::net::wire::{ETHERNET_HEADER, bytes_at};

/// Bytes of a frame's length.
const LENGTH: usize = 4;
/// Bytes that are read ahead; the longest frame is one of the shortest part of it.
const AHEAD: usize = 256 << 10;

/// Frames to the program. They are written whole: what had no room is kept and goes first, and while something is kept, frames
/// are lost.
pub(in crate::net::user) struct Stream {
    socket: OwnedFd,
    /// The rest of the frame that was begun.
    left: Mutex<Vec<u8>>,
    open: AtomicBool,
    desk: Arc<Desk>,
}

impl Stream {
    pub(super) fn new(socket: OwnedFd, desk: Arc<Desk>) -> Self {
        Self { socket, left: Mutex::default(), open: AtomicBool::new(true), desk }
    }

    /// Whether the program is there.
    pub(in crate::net::user) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// The program is gone.
    pub(in crate::net::user) fn close(&self) {
        self.open.store(false, Ordering::Release);
        // Frees a reader, and ends a program that is not gone after all.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }

    /// Sends a frame; tells whether there was room.
    pub(in crate::net::user) fn send(&self, frame: &[u8]) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        self.flush(&mut left);
        let Ok(length) = u32::try_from(frame.len()) else { return false };
        if !left.is_empty() || !self.is_open() {
            return false;
        }
        let length = length.to_be_bytes();
        let Some(sent) = self.write(&[&length, frame]) else { return false };
        let whole = LENGTH + frame.len();
        if sent < whole {
            left.extend(length.iter().chain(frame).skip(sent));
            // So that someone waits for room.
            self.desk.changed.give();
        }
        true
    }

    /// Whether something is kept.
    pub(super) fn has_left(&self) -> bool {
        self.is_open() && !self.left.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Sends what is kept, as far as there is room.
    pub(super) fn send_left(&self) {
        self.flush(&mut self.left.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn flush(&self, left: &mut Vec<u8>) {
        while !left.is_empty() {
            match self.write(&[left]) {
                Some(sent) => drop(left.drain(..sent.min(left.len()))),
                None => return,
            }
        }
    }

    /// Writes without waiting, and gives how much was written; nothing where there is no room or no program.
    fn write(&self, parts: &[&[u8]]) -> Option<usize> {
        let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            match rustix::net::sendmsg(&self.socket, &slices, &mut SendAncillaryBuffer::default(), flags) {
                Ok(sent) => return Some(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => return None,
                Err(_) => {
                    self.close();
                    return None;
                }
            }
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Writes the first frame of a stream, for which there is room.
///
/// # Errors
/// What the host said.
pub(super) fn write_first(socket: &OwnedFd, frame: &[u8]) -> io::Result<()> {
    let mut bytes = u32::try_from(frame.len()).map_err(io::Error::other)?.to_be_bytes().to_vec();
    bytes.extend(frame);
    rustix::net::send(socket, &bytes, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// What a stream has to give.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::net::user) enum Next {
    /// A frame, at this place ([`Reader::frame`]).
    Frame(Range<usize>),
    /// None yet.
    Nothing,
    /// None any more: it has ended, or what came is no stream of frames.
    Ended,
}

/// Frames from the program. It keeps what was read ahead, and with it the place in the stream.
pub(in crate::net::user) struct Reader {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; AHEAD], start: 0, end: 0 }
    }

    /// The frame that was found there, until the next is asked for.
    pub(in crate::net::user) fn frame(&mut self, range: Range<usize>) -> &mut [u8] {
        self.buffer.get_mut(range).unwrap_or_default()
    }

    /// Whether a frame waits that was read already.
    pub(in crate::net::user) fn has_frame(&self) -> bool {
        matches!(self.parse(), Ok(Some(_)))
    }

    /// The next frame, without waiting.
    pub(in crate::net::user) fn next(&mut self, socket: impl AsFd) -> Next {
        loop {
            match self.parse() {
                Ok(Some(range)) => {
                    self.start = range.end;
                    return Next::Frame(range);
                }
                Ok(None) => {}
                Err(()) => return Next::Ended,
            }
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            match rustix::net::recv(&socket, room, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Next::Ended,
                Ok((count, _)) => self.end = (self.end + count).min(self.buffer.len()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Next::Nothing,
                Err(_) => return Next::Ended,
            }
        }
    }

    /// The place of the whole frame that comes first, if it is there.
    ///
    /// # Errors
    /// Its length is none of a frame.
    fn parse(&self) -> Result<Option<Range<usize>>, ()> {
        let waiting = self.buffer.get(self.start..self.end).unwrap_or_default();
        let Some(length) = bytes_at(waiting, 0).map(u32::from_be_bytes) else { return Ok(None) };
        let length = usize::try_from(length).map_err(|_| ())?;
        if !(ETHERNET_HEADER..=LARGE_FRAME_MAX).contains(&length) {
            return Err(());
        }
        let start = self.start + LENGTH;
        Ok((waiting.len() >= LENGTH + length).then(|| start..start + length))
    }
}

#[cfg(test)]
mod tests;
