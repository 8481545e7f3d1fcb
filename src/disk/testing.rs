//! Disks that tests hold back.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use vm_memory::VolatileSlice;

use super::{Disk, Engine, Place, Raw, Transfer};
use crate::host::io_uring;

/// Bytes at the start of a [`Gated`] disk whose reads wait.
pub const GATED: u64 = 1 << 20;

/// A disk of which the first [`GATED`] bytes lie in a pipe: a read there, if it is begun, ends when so many bytes were let
/// through. The rest, as much again, is a file whose bytes tell where they are.
pub struct Gated {
    file: Raw,
    outlet: Arc<File>,
    inlet: Mutex<Option<File>>,
}

impl Gated {
    /// A closed gate. Nothing where this host has no io_uring: then nothing is ever begun.
    pub fn new() -> Option<Self> {
        if Engine::of_host() == Engine::Synchronous {
            eprintln!("left out: {}", io_uring::refusal().unwrap_or_default());
            return None;
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&pattern(0, 2 * GATED)).unwrap();
        let (outlet, inlet) = rustix::pipe::pipe().unwrap();
        let as_file = |end: OwnedFd| File::from(end);
        let inlet = Mutex::new(Some(as_file(inlet)));
        Some(Self { file: Raw::new(file, false).unwrap(), outlet: Arc::new(as_file(outlet)), inlet })
    }

    /// Lets bytes through.
    pub fn let_through(&self, bytes: &[u8]) {
        self.inlet.lock().unwrap().as_ref().unwrap().write_all(bytes).unwrap();
    }

    /// Bytes that were let through and that nobody has taken.
    pub fn left(&self) -> u64 {
        rustix::io::ioctl_fionread(&self.outlet).unwrap()
    }

    /// Nothing will come any more.
    pub fn shut(&self) {
        *self.inlet.lock().unwrap() = None;
    }
}

/// Bytes that tell where they are.
pub fn pattern(from: u64, len: u64) -> Vec<u8> {
    (from..from + len).map(|at| u8::try_from((at / 512 + at) % 251).unwrap()).collect()
}

impl Disk for Gated {
    fn size(&self) -> u64 {
        self.file.size()
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn read_at(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.file.read_at(offset, bufs)
    }
    fn write_at(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.file.write_at(offset, bufs)
    }
    fn flush(&self) -> io::Result<()> {
        self.file.flush()
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.discard(offset, len)
    }
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.file.write_zeroes(offset, len, unmap)
    }
    fn place(&self, transfer: Transfer, offset: u64, len: u64) -> Option<Place> {
        if transfer == Transfer::Read && offset < GATED {
            return Some(Place { file: self.outlet.clone(), direct: None, offset, hold: None });
        }
        self.file.place(transfer, offset, len)
    }
    fn durable_file(&self) -> Option<Arc<File>> {
        self.file.durable_file()
    }
}
