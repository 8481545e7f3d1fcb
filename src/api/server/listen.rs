//! Where connections come from: an address, or a socket that systemd listens at (sd_listen_fds(3)).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};

use tokio::net::{TcpListener, TcpStream};

/// The first descriptor that systemd passes.
const FIRST: i32 = 3;

/// A socket that listens.
pub struct Listening(TcpListener);

impl Listening {
    /// The next connection.
    ///
    /// # Errors
    /// What the host said.
    pub async fn accept(&self) -> io::Result<TcpStream> {
        self.0.accept().await.map(|(stream, _)| stream)
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the host said.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Listens: at the socket that systemd has passed, where it has, and else at `address`.
///
/// # Errors
/// What the host said.
pub async fn listen(address: SocketAddr) -> io::Result<Listening> {
    match passed()? {
        Some(listener) => Ok(Listening(TcpListener::from_std(listener)?)),
        None => Ok(Listening(TcpListener::bind(address).await?)),
    }
}

fn passed() -> io::Result<Option<std::net::TcpListener>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) || number("LISTEN_FDS") != Some(1) {
        return Ok(None);
    }
    // SAFETY: systemd says by LISTEN_PID and LISTEN_FDS that this process was given descriptor 3 for itself, and nobody
    // else in it takes it: this is called once, by the command that serves.
    let socket = unsafe { OwnedFd::from_raw_fd(FIRST) };
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    if rustix::net::sockopt::socket_type(&socket)? != rustix::net::SocketType::STREAM {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket of LISTEN_FDS is not one of streams"));
    }
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}
