//! Sockets at paths of any length, and messages with open files.

use std::fs::{self, File};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// More open files than the kernel lets come with one message (`SCM_MAX_FD`), so that none is cut off.
const FILES_PER_MESSAGE: usize = 254;

/// Calls `at` with a short name of `path`: what a socket's address has room for is less than a path may have.
fn by_short_name<T>(path: &Path, at: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    // sun_path, and its end (unix(7)).
    const ROOM: usize = 107;
    if path.as_os_str().len() <= ROOM {
        return at(path);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no path of a file"));
    };
    let directory = File::options().read(true).custom_flags(libc::O_DIRECTORY).open(parent)?;
    at(&PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name))
}

/// Connects to the socket at `path`.
///
/// # Errors
/// What the host says.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    by_short_name(path, |name| UnixStream::connect(name))
}

/// Listens at `path`, in the place of a socket that an ended process has left. Only this user may connect.
///
/// # Errors
/// What the host says, and where others may enter the directory.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let meta = fs::metadata(parent)?;
    let own = rustix::process::geteuid().as_raw();
    if meta.uid() != own || meta.mode() & 0o077 != 0 {
        let why = format!("others may enter its directory; mend: chmod 700 {}", parent.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something else that is no socket")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let listener = by_short_name(path, |name| UnixListener::bind(name))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Whether the other side may talk to this process: the same user, or root.
pub fn is_trusted(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid == rustix::process::geteuid() || peer.uid.is_root())
}

/// What has come.
#[derive(Debug)]
pub struct Received {
    /// How many bytes; none at the end.
    pub bytes: usize,
    /// Open files.
    pub files: Vec<OwnedFd>,
    /// Whether something that came with the bytes was cut off.
    pub is_cut: bool,
}

/// Receives into `buffer`.
///
/// # Errors
/// What the host says; `WouldBlock` where nothing has come.
pub fn receive(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_PER_MESSAGE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(stream, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            files.extend(rights);
        }
    }
    Ok(Received { bytes: got.bytes, files, is_cut: got.flags.contains(ReturnFlags::CTRUNC) })
}

/// Sends all bytes, and `files` with the first of them.
///
/// # Errors
/// What the host says.
pub fn send(stream: &UnixStream, mut bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut files = Some(files).filter(|files| !files.is_empty());
    while !bytes.is_empty() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_PER_MESSAGE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if let Some(files) = files
            && !control.push(SendAncillaryMessage::ScmRights(files))
        {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more open files than one message takes"));
        }
        match sendmsg(stream.as_fd(), &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) => {
                bytes = bytes.get(sent..).unwrap_or_default();
                files = None;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    fn private() -> tempfile::TempDir {
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap()
    }

    #[test]
    fn open_files_arrive_in_order() {
        let (a, b) = UnixStream::pair().unwrap();
        let files: Vec<File> = (0..3u8)
            .map(|i| {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(&[i]).unwrap();
                file.rewind().unwrap();
                file
            })
            .collect();
        let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        send(&a, b"hello\n", &fds).unwrap();
        let mut buffer = [0; 100];
        let got = receive(&b, &mut buffer).unwrap();
        assert_eq!((&buffer[..got.bytes], got.files.len(), got.is_cut), (&b"hello\n"[..], 3, false));
        for (i, fd) in (0u8..).zip(got.files) {
            assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
            let mut byte = [9];
            File::from(fd).read_exact(&mut byte).unwrap();
            assert_eq!(byte, [i]);
        }
        drop(a);
        assert_eq!(receive(&b, &mut buffer).unwrap().bytes, 0);
    }

    #[test]
    fn a_socket_may_have_any_path_and_takes_the_place_of_a_left_one() {
        let dir = private();
        let deep = dir.path().join("x".repeat(120));
        fs::create_dir(&deep).unwrap();
        fs::set_permissions(&deep, fs::Permissions::from_mode(0o700)).unwrap();
        for path in [dir.path().join("s"), deep.join("control.sock")] {
            assert!(connect(&path).is_err());
            drop(listen(&path).unwrap());
            assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            let listener = listen(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
            let stream = connect(&path).unwrap();
            assert!(is_trusted(&stream) && is_trusted(&listener.accept().unwrap().0));
        }
    }

    #[test]
    fn an_open_directory_and_other_files_are_refused() {
        let dir = private();
        fs::write(dir.path().join("file"), "kept").unwrap();
        assert_eq!(listen(&dir.path().join("file")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"kept");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
        let error = listen(&dir.path().join("s")).unwrap_err().to_string();
        assert!(error.contains("chmod 700"), "{error}");
    }
}
