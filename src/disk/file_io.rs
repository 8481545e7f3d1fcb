//! The system calls that the disks are made of; the only `unsafe` of this room.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use rustix::fs::{FallocateFlags, SeekFrom};
use vm_memory::{Bytes, VolatileSlice};

use super::SECTOR_SIZE;

/// Most segments handed to the kernel in one call (`IOV_MAX` of Linux).
pub(super) const MAX_SEGMENTS: usize = 1024;

/// Zeroes to write where the host cannot zero a range by itself, and to fill buffers from.
static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];

/// The number of bytes in `bufs`.
///
/// # Errors
/// `InvalidInput` if the sum is more than any disk has.
pub(super) fn total_len(bufs: &[VolatileSlice<'_>]) -> io::Result<u64> {
    bufs.iter().try_fold(0u64, |sum, buf| {
        u64::try_from(buf.len()).ok().and_then(|len| sum.checked_add(len)).ok_or(io::ErrorKind::InvalidInput.into())
    })
}

/// The bytes `skip..skip + len` of `bufs`, as slices of the same memory. What `bufs` does not have is left out.
pub(super) fn window<'a>(bufs: &[VolatileSlice<'a>], skip: u64, len: u64) -> Vec<VolatileSlice<'a>> {
    let mut window = Vec::with_capacity(bufs.len());
    let (mut skip, mut left) = (skip, len);
    for buf in bufs {
        let have = buf.len() as u64;
        if skip >= have {
            skip -= have;
            continue;
        }
        let take = left.min(have - skip);
        if take == 0 {
            break;
        }
        // Both lie inside a buffer, so they fit a usize and the slice cannot fail.
        if let (Ok(from), Ok(count)) = (usize::try_from(skip), usize::try_from(take))
            && let Ok(part) = buf.subslice(from, count)
        {
            window.push(part);
        }
        left -= take;
        skip = 0;
    }
    window
}

/// Fills `bufs` with zeroes.
pub(super) fn fill_zero(bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
    for buf in bufs {
        let mut done = 0;
        while done < buf.len() {
            let piece = ZEROES.len().min(buf.len() - done);
            buf.write_slice(ZEROES.get(..piece).unwrap_or_default(), done).map_err(io::Error::other)?;
            done += piece;
        }
    }
    Ok(())
}

/// Fills `bufs` from the bytes of `file` at `offset`.
///
/// # Errors
/// `UnexpectedEof` where the file ends first, else what the kernel said.
pub(super) fn read_exact(file: &File, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
    transfer(offset, bufs, io::ErrorKind::UnexpectedEof, |batch, at| {
        let guards: Vec<_> = batch.iter().map(VolatileSlice::ptr_guard_mut).collect();
        let iovecs: Vec<_> =
            guards.iter().map(|g| libc::iovec { iov_base: g.as_ptr().cast(), iov_len: g.len() }).collect();
        let count = libc::c_int::try_from(iovecs.len()).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open for as long as `file` is borrowed; each iovec is memory that its guard keeps
        // mapped and writable until after the call; nothing in Rust holds a reference to it (it is volatile memory).
        check(unsafe { libc::preadv(file.as_raw_fd(), iovecs.as_ptr(), count, at) })
    })
}

/// Writes `bufs` to the bytes of `file` at `offset`.
///
/// # Errors
/// `WriteZero` if the kernel takes nothing, else what it said.
pub(super) fn write_all(file: &File, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
    transfer(offset, bufs, io::ErrorKind::WriteZero, |batch, at| {
        let guards: Vec<_> = batch.iter().map(VolatileSlice::ptr_guard).collect();
        let iovecs: Vec<_> =
            guards.iter().map(|g| libc::iovec { iov_base: g.as_ptr().cast_mut().cast(), iov_len: g.len() }).collect();
        let count = libc::c_int::try_from(iovecs.len()).map_err(io::Error::other)?;
        // SAFETY: as for preadv above; the kernel only reads from the memory.
        check(unsafe { libc::pwritev(file.as_raw_fd(), iovecs.as_ptr(), count, at) })
    })
}

/// Opens a file once more, past the page cache. Locks stay those of the first opening.
///
/// # Errors
/// `InvalidInput` where its file system has no direct I/O; else what the kernel said.
pub(super) fn reopen_direct(file: &File, write: bool) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    OpenOptions::new().read(true).write(write).custom_flags(libc::O_DIRECT).open(path)
}

/// Whether a transfer is one of whole sectors to and from memory that begins at whole sectors, which direct I/O asks for.
pub(super) fn is_aligned(offset: u64, bufs: &[VolatileSlice<'_>]) -> bool {
    let whole = |value: usize| (value as u64).is_multiple_of(SECTOR_SIZE);
    offset.is_multiple_of(SECTOR_SIZE)
        && bufs.iter().all(|buf| whole(buf.ptr_guard().as_ptr().addr()) && whole(buf.len()))
}

/// Calls `step` with what is left, at most [`MAX_SEGMENTS`] at a time, until all of `bufs` is transferred.
fn transfer<F>(offset: u64, bufs: &[VolatileSlice<'_>], at_end: io::ErrorKind, mut step: F) -> io::Result<()>
where
    F: FnMut(&[VolatileSlice<'_>], libc::off_t) -> io::Result<u64>,
{
    let mut offset = offset;
    for batch in bufs.chunks(MAX_SEGMENTS) {
        let total = total_len(batch)?;
        let mut done = 0;
        let mut rest = Vec::new();
        while done < total {
            let at = offset.checked_add(done).ok_or(io::ErrorKind::InvalidInput)?;
            let at = libc::off_t::try_from(at).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            match step(if done == 0 { batch } else { &rest }, at) {
                Ok(0) => return Err(at_end.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if done < total {
                rest = window(batch, done, total - done);
            }
        }
        offset = offset.checked_add(total).ok_or(io::ErrorKind::InvalidInput)?;
    }
    Ok(())
}

/// The count that a system call answered, or its error.
fn check(answer: libc::ssize_t) -> io::Result<u64> {
    u64::try_from(answer).map_err(|_| io::Error::last_os_error())
}

/// The first run of bytes between `offset` and `len`, the length of the file, that is no hole in it. Where the file system
/// cannot tell, all of it is one.
///
/// # Errors
/// What the kernel said.
pub(super) fn next_data(file: &File, offset: u64, len: u64) -> io::Result<Option<Range<u64>>> {
    if offset >= len {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(start) => start.clamp(offset, len),
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(rustix::io::Errno::INVAL) => return Ok(Some(offset..len)),
        Err(error) => return Err(error.into()),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap_or(len).clamp(start, len);
    Ok((start < end).then_some(start..end))
}

/// Makes a range of `file`, which must lie inside it, read as zero.
///
/// With `free` the blocks are given back, without they stay (or become) allocated. Where the file system can do neither,
/// zeroes are written.
///
/// # Errors
/// What the kernel said.
pub(super) fn zero_range(file: &File, offset: u64, len: u64, free: bool) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    let how = if free { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE } | FallocateFlags::KEEP_SIZE;
    loop {
        match rustix::fs::fallocate(file, how, offset, len).map_err(io::Error::from) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // EINVAL is what block devices answer to a range that is not of whole logical blocks.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL)) => {
                return write_zeroes(file, offset, len);
            }
            done => return done,
        }
    }
}

/// Writes `len` zeroes, in pieces.
fn write_zeroes(file: &File, mut offset: u64, mut len: u64) -> io::Result<()> {
    while len > 0 {
        let piece = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROES.len());
        file.write_all_at(ZEROES.get(..piece).unwrap_or_default(), offset)?;
        offset += piece as u64;
        len -= piece as u64;
    }
    Ok(())
}

/// Takes a shared lock, owned by this open file description, on one byte of `file` (which need not exist in the file).
///
/// # Errors
/// What the kernel said; `WouldBlock` where someone holds that byte exclusively.
pub(super) fn lock_byte(file: &File, byte: i64) -> io::Result<()> {
    let mut lock = byte_lock(libc::F_RDLCK, byte);
    fcntl_lock(file, libc::F_OFD_SETLK, &mut lock)
}

/// Gives up the lock of this open file description on one byte of `file`.
///
/// # Errors
/// What the kernel said.
pub(super) fn unlock_byte(file: &File, byte: i64) -> io::Result<()> {
    let mut lock = byte_lock(libc::F_UNLCK, byte);
    fcntl_lock(file, libc::F_OFD_SETLK, &mut lock)
}

/// Whether another open file description holds any lock on one byte of `file`.
///
/// # Errors
/// What the kernel said.
pub(super) fn byte_is_locked(file: &File, byte: i64) -> io::Result<bool> {
    let mut lock = byte_lock(libc::F_WRLCK, byte);
    fcntl_lock(file, libc::F_OFD_GETLK, &mut lock)?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// The kernel's description of a lock on one byte; `l_pid` must be 0 for open-file-description locks (fcntl(2)).
fn byte_lock(kind: libc::c_int, byte: i64) -> libc::flock {
    let small = |value: libc::c_int| libc::c_short::try_from(value).unwrap_or_default();
    libc::flock { l_type: small(kind), l_whence: small(libc::SEEK_SET), l_start: byte, l_len: 1, l_pid: 0 }
}

/// `fcntl` with one of the commands that take a lock.
fn fcntl_lock(file: &File, command: libc::c_int, lock: &mut libc::flock) -> io::Result<()> {
    loop {
        // SAFETY: the descriptor is open, and `lock` is a whole `struct flock` that these commands read and write.
        if unsafe { libc::fcntl(file.as_raw_fd(), command, std::ptr::from_mut(lock)) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `data` cut into `parts` segments of memory, and the slices over them.
    fn segments(data: &mut [u8], size: usize) -> Vec<VolatileSlice<'_>> {
        data.chunks_mut(size).map(VolatileSlice::from).collect()
    }

    #[test]
    fn more_segments_than_the_kernel_takes_at_once() {
        let file = tempfile::tempfile().unwrap();
        let mut data: Vec<u8> = (0..251).cycle().take(3 * MAX_SEGMENTS + 5).collect();
        let wanted = data.clone();
        write_all(&file, 7, &segments(&mut data, 1)).unwrap();
        let mut back = vec![0; wanted.len()];
        read_exact(&file, 7, &segments(&mut back, 1)).unwrap();
        assert!(back == wanted);
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(100).unwrap();
        let mut buf = [1u8; 101];
        let error = read_exact(&file, 0, &segments(&mut buf, 10)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        read_exact(&file, 0, &segments(&mut buf[..100], 10)).unwrap();
    }

    #[test]
    fn an_offset_beyond_what_files_have_is_refused() {
        let file = tempfile::tempfile().unwrap();
        let mut buf = [1u8; 8];
        for offset in [u64::MAX - 4, u64::MAX / 2 + 1] {
            let error = write_all(&file, offset, &segments(&mut buf, 8)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn windows_are_the_bytes_asked_for() {
        let mut data: Vec<u8> = (0..100).collect();
        let bufs = segments(&mut data, 7);
        for (skip, len) in [(0, 100), (0, 0), (6, 2), (7, 7), (50, 50), (99, 1), (95, 50), (200, 3)] {
            let mut got = Vec::new();
            for part in window(&bufs, skip, len) {
                let mut bytes = vec![0; part.len()];
                part.copy_to(&mut bytes[..]);
                got.extend(bytes);
            }
            let wanted: Vec<u8> = (0..100).filter(|i| (skip..skip + len).contains(&u64::from(*i))).collect();
            assert_eq!(got, wanted, "{skip} {len}");
        }
    }

    #[test]
    fn zeroes_are_written_where_the_host_cannot_zero() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 200_000], 0).unwrap();
        write_zeroes(&file, 5, 150_000).unwrap();
        let mut back = vec![1; 200_000];
        file.read_exact_at(&mut back, 0).unwrap();
        assert!(back[5..150_005].iter().all(|b| *b == 0));
        assert_eq!((&back[..5], back[150_005]), (&[7u8; 5][..], 7));
    }
}
