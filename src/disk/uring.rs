//! What is asked of a disk and under way while the thread that asked does something else, by io_uring(7).
//!
//! The kernel writes to guest memory whenever it gets round to it, whatever this program does meanwhile. So a [`Uring`]
//! owns what that needs until the kernel is done with it: a handle to the memory, handles to the files, the lists of
//! buffers. A buffer that is not in that memory is not taken, and dropping a [`Uring`] waits for all that is
//! under way.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use io_uring::{IoUring, opcode, squeue, types};
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, VolatileSlice};

use super::file_io::{MAX_SEGMENTS, is_aligned, total_len};
use super::{Disk, Hold, Place, Transfer};

/// What was given to an operation when it was begun, and how it ended.
pub type Ended<T> = (T, io::Result<()>);

/// The most that is under way at once. As many entries has the submission queue, and twice as many the completion
/// queue, so that neither is ever full.
pub(super) const DEPTH: u16 = 128;

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Transfer(Transfer),
    Flush,
}

/// An operation under way.
struct Slot<T> {
    ticket: T,
    kind: Kind,
    file: Arc<File>,
    /// The same file through the page cache, if `file` is past it.
    cached: Option<Arc<File>>,
    /// What the disk keeps for it.
    hold: Option<Hold>,
    /// Where in the file the rest begins.
    offset: u64,
    /// Buffers of the rest. The kernel reads the list when the operation is submitted.
    buffers: Vec<libc::iovec>,
    /// Bytes of the rest.
    left: u64,
}

// SAFETY: the pointers in `buffers` are into memory that any thread may access (volatile guest memory), and no thread of
// this program follows them.
unsafe impl<T: Send> Send for Slot<T> {}

impl<T> Slot<T> {
    /// What the kernel is to do next. `patiently`: in a thread of the kernel's own, which may sleep.
    fn entry(&self, key: u64, patiently: bool) -> squeue::Entry {
        let (file, at) = (types::Fd(self.file.as_raw_fd()), self.offset);
        // A longer one than the kernel takes at once is done in part, and goes on from there.
        let len = |one: &libc::iovec| u32::try_from(one.iov_len).unwrap_or(1 << 30);
        let count = u32::try_from(self.buffers.len()).unwrap_or(0);
        let entry = match (self.kind, self.buffers.as_slice()) {
            (Kind::Flush, _) => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
            (Kind::Transfer(Transfer::Read), [one]) => {
                opcode::Read::new(file, one.iov_base.cast(), len(one)).offset(at).build()
            }
            (Kind::Transfer(Transfer::Read), all) => opcode::Readv::new(file, all.as_ptr(), count).offset(at).build(),
            (Kind::Transfer(Transfer::Write), [one]) => {
                opcode::Write::new(file, one.iov_base.cast(), len(one)).offset(at).build()
            }
            (Kind::Transfer(Transfer::Write), all) => opcode::Writev::new(file, all.as_ptr(), count).offset(at).build(),
        };
        let flags = if patiently { squeue::Flags::ASYNC } else { squeue::Flags::empty() };
        entry.flags(flags).user_data(key)
    }

    /// Takes off what was transferred.
    fn advance(&mut self, count: u64) {
        self.offset = self.offset.saturating_add(count);
        self.left = self.left.saturating_sub(count);
        let mut done = usize::try_from(count).unwrap_or(usize::MAX);
        let whole = self.buffers.iter().take_while(|buffer| {
            let covered = buffer.iov_len <= done;
            done -= if covered { buffer.iov_len } else { 0 };
            covered
        });
        let whole = whole.count();
        self.buffers.drain(..whole);
        if let Some(first) = self.buffers.first_mut() {
            first.iov_base = first.iov_base.wrapping_byte_add(done);
            first.iov_len -= done;
        }
    }
}

/// What the kernel's answer means.
enum Answer {
    Ended(io::Result<()>),
    /// Part of it was done; the rest is to be asked for.
    Partly(u64),
    /// It could not be done without waiting, or was interrupted.
    Again,
    /// Not past the page cache: the disk has larger sectors, or the rest of something is no whole sector.
    Cached(Arc<File>),
}

fn interpret<T>(slot: &Slot<T>, result: i32) -> Answer {
    let Ok(count) = u64::try_from(result) else {
        let error = io::Error::from_raw_os_error(result.saturating_neg());
        return match (error.raw_os_error(), &slot.cached) {
            (Some(libc::EINTR | libc::EAGAIN), _) => Answer::Again,
            (Some(libc::EINVAL), Some(cached)) => Answer::Cached(cached.clone()),
            _ => Answer::Ended(Err(error)),
        };
    };
    match (slot.kind, count) {
        (Kind::Transfer(Transfer::Read), 0) => Answer::Ended(Err(io::ErrorKind::UnexpectedEof.into())),
        (Kind::Transfer(Transfer::Write), 0) => Answer::Ended(Err(io::ErrorKind::WriteZero.into())),
        (Kind::Transfer(_), count) if count < slot.left => Answer::Partly(count),
        _ => Answer::Ended(Ok(())),
    }
}

/// The operations of one thread.
pub(super) struct Uring<T> {
    ring: IoUring,
    slots: Vec<Option<Slot<T>>>,
    /// Places in `slots` that hold nothing.
    free: Vec<u16>,
    /// Those under way that have a [`Hold`].
    holding: usize,
    memory: GuestMemoryMmap<()>,
    disk: Arc<dyn Disk>,
}

impl<T> Uring<T> {
    /// For transfers between `disk` and `memory`.
    ///
    /// # Errors
    /// What the host says.
    pub(super) fn new(disk: Arc<dyn Disk>, memory: GuestMemoryMmap<()>) -> io::Result<Self> {
        let ring = IoUring::new(DEPTH.into())?;
        let slots = (0..DEPTH).map(|_| None).collect();
        Ok(Self { ring, slots, free: (0..DEPTH).rev().collect(), holding: 0, memory, disk })
    }

    /// How many are under way, or about to be.
    pub(super) fn in_flight(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    /// A hold of a change under way, if there is one that has any.
    pub(super) fn hold(&self) -> Option<Hold> {
        if self.holding == 0 { None } else { self.slots.iter().flatten().find_map(|slot| slot.hold.clone()) }
    }

    /// Waits for all changes under way that have a hold, and adds what has ended meanwhile to `ended`.
    ///
    /// # Errors
    /// As [`Uring::submit`].
    pub(super) fn settle_holds(&mut self, ended: &mut Vec<Ended<T>>) -> io::Result<()> {
        while self.holding > 0 {
            self.wait()?;
            self.reap(ended)?;
        }
        Ok(())
    }

    /// Whether another one can be begun.
    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Readable once something has ended.
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// Begins to read or write the bytes of the disk at `offset`, to end as `ticket` after the next [`Uring::submit`].
    ///
    /// # Errors
    /// The ticket, where it cannot: the bytes do not lie together in a file, or the buffers not in guest memory. Or where
    /// it should not: writes to the page cache.
    pub(super) fn transfer(
        &mut self,
        ticket: T,
        transfer: Transfer,
        offset: u64,
        bufs: &[VolatileSlice<'_>],
    ) -> Result<(), T> {
        let Some(left) = total_len(bufs).ok().filter(|&len| len > 0) else { return Err(ticket) };
        if bufs.len() > MAX_SEGMENTS || !bufs.iter().all(|buf| self.is_in_memory(buf)) {
            return Err(ticket);
        }
        let Some(place) = self.disk.place(transfer, offset, left) else { return Err(ticket) };
        let Place { file, direct, offset, hold } = place;
        let (file, cached) = match direct.filter(|_| is_aligned(offset, bufs)) {
            Some(direct) => (direct, Some(file)),
            None if transfer == Transfer::Write => return Err(ticket),
            None => (file, None),
        };
        let buffers = bufs.iter().map(|buf| libc::iovec {
            // The handle in `self` keeps it mapped; in volatile memory guards only do the same.
            iov_base: buf.ptr_guard_mut().as_ptr().cast(),
            iov_len: buf.len(),
        });
        let buffers = buffers.collect();
        self.begin(Slot { ticket, kind: Kind::Transfer(transfer), file, cached, hold, offset, buffers, left })
    }

    /// Begins to make `file`, which is one of the disk's, durable; else as [`Uring::transfer`].
    ///
    /// # Errors
    /// The ticket, where it cannot.
    pub(super) fn flush(&mut self, ticket: T, file: Arc<File>) -> Result<(), T> {
        let (kind, buffers) = (Kind::Flush, Vec::new());
        self.begin(Slot { ticket, kind, file, cached: None, hold: None, offset: 0, buffers, left: 0 })
    }

    fn is_in_memory(&self, buf: &VolatileSlice<'_>) -> bool {
        let start = buf.ptr_guard().as_ptr().addr();
        self.memory.iter().any(|region| {
            let (base, len) = (region.as_ptr().addr(), usize::try_from(region.len()).unwrap_or(0));
            start.checked_sub(base).and_then(|skip| skip.checked_add(buf.len())).is_some_and(|end| end <= len)
        })
    }

    fn begin(&mut self, slot: Slot<T>) -> Result<(), T> {
        let Some(key) = self.free.pop() else { return Err(slot.ticket) };
        let begun = self.push(&slot, key, false);
        match self.slots.get_mut(usize::from(key)) {
            Some(place) if begun => {
                self.holding += usize::from(slot.hold.is_some());
                *place = Some(slot);
                Ok(())
            }
            _ => {
                self.free.push(key);
                Err(slot.ticket)
            }
        }
    }

    fn push(&mut self, slot: &Slot<T>, key: u16, patiently: bool) -> bool {
        let entry = slot.entry(key.into(), patiently);
        // SAFETY: buffers lie in the memory that `self` has a handle to (`is_in_memory`), the slot has one to the file, and
        // the list of buffers is in the slot too, whose vector is neither changed nor dropped before the kernel has
        // answered. `drop` waits for the answer to everything.
        unsafe { self.ring.submission().push(&entry) }.is_ok()
    }

    /// Hands all that was begun to the kernel. What needs no waiting, as for bytes in the page cache, has ended by the
    /// time this returns.
    ///
    /// # Errors
    /// What the host says; never that it is short of something for a while.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        while !self.ring.submission().is_empty() {
            retry(|| self.ring.submit())?;
        }
        Ok(())
    }

    /// Takes what has ended, in whatever order it did.
    ///
    /// # Errors
    /// As [`Uring::submit`].
    pub(super) fn reap(&mut self, ended: &mut Vec<Ended<T>>) -> io::Result<()> {
        loop {
            let answers: Vec<(u64, i32)> =
                self.ring.completion().map(|entry| (entry.user_data(), entry.result())).collect();
            if answers.is_empty() {
                return Ok(());
            }
            for (key, result) in answers {
                ended.extend(self.answered(key, result));
            }
            // What was short goes on.
            self.submit()?;
        }
    }

    fn answered(&mut self, key: u64, result: i32) -> Option<Ended<T>> {
        let key = u16::try_from(key).ok()?;
        let mut slot = self.slots.get_mut(usize::from(key))?.take()?;
        let (outcome, patiently) = match interpret(&slot, result) {
            Answer::Ended(outcome) => (Some(outcome), false),
            Answer::Again => (None, true),
            Answer::Cached(file) => {
                (slot.file, slot.cached) = (file, None);
                (None, false)
            }
            Answer::Partly(count) => {
                slot.advance(count);
                (None, false)
            }
        };
        let outcome = match outcome {
            Some(outcome) => outcome,
            None if self.push(&slot, key, patiently) => {
                // The list stays where it is: only its handle moves.
                *self.slots.get_mut(usize::from(key))? = Some(slot);
                return None;
            }
            // Cannot be: the submission queue has an entry for each slot.
            None => Err(io::ErrorKind::OutOfMemory.into()),
        };
        self.free.push(key);
        self.holding -= usize::from(slot.hold.is_some());
        Some((slot.ticket, outcome))
    }

    /// Waits until something has ended.
    ///
    /// # Errors
    /// As [`Uring::submit`].
    pub(super) fn wait(&mut self) -> io::Result<()> {
        retry(|| self.ring.submit_and_wait(1)).map(|_| ())
    }
}

/// Repeats a call while it is interrupted or the kernel is short of memory for it.
fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR)) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) => std::thread::yield_now(),
            done => return done,
        }
    }
}

impl<T> Drop for Uring<T> {
    fn drop(&mut self) {
        let mut ended = Vec::new();
        while self.in_flight() > 0 {
            if self.wait().and_then(|()| self.reap(&mut ended)).is_err() {
                // The kernel may still write: the memory stays for ever rather than to become someone else's.
                std::mem::forget((self.memory.clone(), std::mem::take(&mut self.slots)));
                return;
            }
        }
    }
}
