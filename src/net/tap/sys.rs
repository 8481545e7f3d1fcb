//! The system calls of taps and bridges; the only `unsafe` of this room besides what starts processes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use vm_memory::VolatileSlice;

use crate::net::{HEADER_SIZE, Offloads};

/// Most segments handed to the kernel in one call (`IOV_MAX` of Linux).
const MAX_SEGMENTS: usize = 1024;

/// `SIOCBRADDIF` of linux/sockios.h.
const ADD_TO_BRIDGE: libc::Ioctl = 0x89a2;

/// The longest name of an interface, in bytes.
pub(in crate::net) const NAME_MAX: usize = libc::IFNAMSIZ - 1;

/// Whether an interface can have that name.
pub(crate) fn is_name(name: &str) -> bool {
    let is_odd = |byte: u8| byte == b'/' || byte == b':' || byte == b'%' || !byte.is_ascii_graphic();
    (1..=NAME_MAX).contains(&name.len()) && !name.bytes().any(is_odd) && name != "." && name != ".."
}

/// A request about the interface of that name, of which the kernel may make one.
fn request(name: &str) -> libc::ifreq {
    // SAFETY: all its fields are numbers, arrays of numbers and a pointer, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    for (place, byte) in request.ifr_name.iter_mut().take(NAME_MAX).zip(name.bytes()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    request
}

fn check(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens the device that taps are had from.
///
/// # Errors
/// What the kernel said.
pub(super) fn open_device() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")
}

/// Makes of an open device a queue of the tap of that name, and gives the tap's name: a `%d` in it is replaced by a number.
///
/// # Errors
/// What the kernel said.
pub(super) fn attach(device: &File, name: &str, several: bool) -> io::Result<String> {
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if several {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and `request` is a whole `struct ifreq` that this ioctl reads and writes.
    check(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    let name = request.ifr_name.iter().map(|byte| byte.to_ne_bytes()[0]).take_while(|byte| *byte != 0).collect();
    String::from_utf8(name).map_err(io::Error::other)
}

/// Says how long the header before each frame is.
///
/// # Errors
/// What the kernel said.
pub(super) fn set_header_size(queue: &File) -> io::Result<()> {
    let size = libc::c_int::try_from(HEADER_SIZE).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and this ioctl reads an int.
    check(unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size) })
}

/// Says what frames from the tap may leave out.
///
/// # Errors
/// What the kernel said.
pub(super) fn set_offloads(queue: &File, offloads: Offloads) -> io::Result<()> {
    let Offloads { checksum, tso4, tso6, ecn } = offloads;
    // The kernel takes segmentation only with checksums.
    let wanted = [
        (checksum, libc::TUN_F_CSUM),
        (checksum && tso4, libc::TUN_F_TSO4),
        (checksum && tso6, libc::TUN_F_TSO6),
        (checksum && ecn && (tso4 || tso6), libc::TUN_F_TSO_ECN),
    ];
    let flags = wanted.iter().filter(|(is, _)| *is).fold(0, |flags, (_, flag)| flags | *flag);
    // SAFETY: the descriptor is open, and this ioctl takes a number.
    check(unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) })
}

/// Takes a queue of a tap with several into use, or out of it.
///
/// # Errors
/// What the kernel said.
pub(super) fn use_queue(queue: &File, is_used: bool) -> io::Result<()> {
    let flags = if is_used { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
    let mut request = request("");
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and `request` is a whole `struct ifreq` that this ioctl reads.
    check(unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETQUEUE, &raw const request) })
}

/// A socket to ask about interfaces by.
///
/// # Errors
/// What the kernel said.
pub(in crate::net) fn control() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

/// The number of an interface.
///
/// # Errors
/// What the kernel said: `ENODEV` where there is none.
pub(in crate::net) fn index_of(control: &OwnedFd, name: &str) -> io::Result<u32> {
    Ok(rustix::net::netdevice::name_to_index(control, name)?)
}

/// Sets an interface up, if it is not; tells whether it is now.
///
/// # Errors
/// What the kernel said when asked for its state.
pub(in crate::net) fn set_up(control: &OwnedFd, name: &str) -> io::Result<bool> {
    let up = libc::c_short::try_from(libc::IFF_UP).map_err(io::Error::other)?;
    let mut request = request(name);
    // SAFETY: the descriptor is open, and `request` is a whole `struct ifreq` that this ioctl reads and writes.
    check(unsafe { libc::ioctl(control.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) })?;
    // SAFETY: the kernel has written the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    if flags & up != 0 {
        return Ok(true);
    }
    request.ifr_ifru.ifru_flags = flags | up;
    // SAFETY: as above; this ioctl only reads it.
    Ok(unsafe { libc::ioctl(control.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } == 0)
}

/// Makes an interface a port of a bridge.
///
/// # Errors
/// What the kernel said.
pub(in crate::net) fn add_to_bridge(control: &OwnedFd, bridge: &str, interface: u32) -> io::Result<()> {
    let mut request = request(bridge);
    request.ifr_ifru.ifru_ifindex = libc::c_int::try_from(interface).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and `request` is a whole `struct ifreq` that this ioctl reads.
    check(unsafe { libc::ioctl(control.as_raw_fd(), ADD_TO_BRIDGE, &raw const request) })
}

/// Writes a frame, in one piece.
///
/// # Errors
/// What the kernel said; `InvalidInput` for more pieces than it takes.
pub(super) fn write(queue: &File, pieces: &[VolatileSlice<'_>]) -> io::Result<usize> {
    if pieces.len() > MAX_SEGMENTS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let guards: Vec<_> = pieces.iter().map(VolatileSlice::ptr_guard).collect();
    let iovecs: Vec<_> = guards
        .iter()
        .map(|guard| libc::iovec { iov_base: guard.as_ptr().cast_mut().cast(), iov_len: guard.len() })
        .collect();
    let count = libc::c_int::try_from(iovecs.len()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open; each iovec is memory that its guard keeps mapped until after the call, which only
    // reads it; nothing in Rust holds a reference to it (it is volatile memory).
    let answer = unsafe { libc::writev(queue.as_raw_fd(), iovecs.as_ptr(), count) };
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

/// Reads a frame, and gives its length; nothing where it did not fit, and is lost.
///
/// # Errors
/// What the kernel said: `WouldBlock` where none waits.
pub(super) fn read(queue: &File, pieces: &[VolatileSlice<'_>]) -> io::Result<Option<usize>> {
    // As many as the kernel takes beside the one below. A frame must be taken away, whatever pieces there are for it: it would be
    // read again and again.
    let pieces = pieces.get(..MAX_SEGMENTS - 1).unwrap_or(pieces);
    let guards: Vec<_> = pieces.iter().map(VolatileSlice::ptr_guard_mut).collect();
    let mut iovecs: Vec<_> =
        guards.iter().map(|guard| libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: guard.len() }).collect();
    // The kernel does not say that it cut a frame short; but then it fills a byte more than there are.
    let mut more = 0u8;
    iovecs.push(libc::iovec { iov_base: (&raw mut more).cast(), iov_len: 1 });
    let count = libc::c_int::try_from(iovecs.len()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open; each iovec is memory that its guard keeps mapped and writable until after the call,
    // and the last is the byte above; nothing in Rust holds a reference to any of it (guest memory is volatile).
    let answer = unsafe { libc::readv(queue.as_raw_fd(), iovecs.as_ptr(), count) };
    let len = usize::try_from(answer).map_err(|_| io::Error::last_os_error())?;
    let room = pieces.iter().map(VolatileSlice::len).fold(0usize, usize::saturating_add);
    Ok(Some(len).filter(|len| *len <= room))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_frame_is_taken_away_whatever_pieces_there_are_for_it() {
        let (from, to) = rustix::pipe::pipe().unwrap();
        let (from, mut to) = (File::from(from), File::from(to));
        let mut bytes = vec![0u8; 5000];
        for count in [1, 1022, 1023, 1024, 1025, 5000] {
            to.write_all(&[7; 20]).unwrap();
            let pieces: Vec<_> = bytes.chunks_mut(1).take(count).map(VolatileSlice::from).collect();
            let read = read(&from, &pieces).unwrap();
            assert_eq!(read, (count >= 20).then_some(20), "{count}");
            // Of what did not fit a pipe keeps the rest.
            rustix::io::ioctl_fionbio(&from, true).unwrap();
            let mut rest = [0; 64];
            while rustix::io::read(&from, &mut rest).is_ok_and(|read| read > 0) {}
            rustix::io::ioctl_fionbio(&from, false).unwrap();
        }
    }
}
