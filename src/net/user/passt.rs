//! The world outside, by `passt`: a program that makes of a guest's packets the host's own sockets, without privileges.
//!
//! It is a child process at the other end of a stream of frames, each with its length before it in four big-endian bytes (the
//! protocol of QEMU's stream sockets). It is told to map nothing to the host's loopback, and what only services answer (ARP,
//! DHCP, resolvers) never gets to it. It ends when the stream does, so however this process ends; it is not told to die with
//! its parent, because that would be the thread that started it.

mod mend;
mod stream;

use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags};

pub(super) use self::mend::mend_reset;
pub(super) use self::stream::{Next, Reader, Stream};
use super::forward::{Forward, ForwardError, try_tcp};
use crate::net::Mac;
use crate::net::cidr::Cidr;
use crate::net::queue::FrameQueue;
use crate::net::services::Companion;
use crate::net::services::attend::Desk;
use crate::net::wire::arp::Arp;
use crate::net::wire::{ARP, BROADCAST, Ethernet};

/// How long the program may take to be ready, in seconds.
const READY_WITHIN: i64 = 20;
/// How much of what the program says is kept, in bytes.
const SAID_MAX: u64 = 4096;

/// The world outside.
#[derive(Debug, Clone)]
pub struct Outside {
    /// The program; `passt` is looked for where programs are.
    pub program: PathBuf,
    /// Ports of the host that lead to the guest.
    pub forwards: Vec<Forward>,
}

impl Default for Outside {
    fn default() -> Self {
        Self { program: "passt".into(), forwards: Vec::new() }
    }
}

/// Why there is no way outside.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    /// The program is missing.
    #[error(
        "{}, which connects guests to the world outside, is not there: install it (apt install passt), or choose a network \
         without that (--net isolated)", program.display()
    )]
    Missing {
        /// The program.
        program: PathBuf,
    },
    /// A port of the host cannot be had.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// It ended before it was ready.
    #[error("{}, which connects guests to the world outside, ended at once ({status}): {said}", program.display())]
    Ended {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        said: String,
    },
    /// It is not ready, though it was given time.
    #[error("{} does not answer, {READY_WITHIN} seconds after it was started", program.display())]
    Silent {
        /// The program.
        program: PathBuf,
    },
    /// The host refuses.
    #[error("{}: {cause}", program.display())]
    Host {
        /// The program.
        program: PathBuf,
        /// What the host said.
        cause: io::Error,
    },
}

/// Whom the program serves, and as whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guest {
    /// The guest's card.
    pub mac: Mac,
    /// The guest's address.
    pub address: Ipv4Addr,
    /// The guest's subnet.
    pub subnet: Cidr,
    /// The gateway, as which the program speaks.
    pub gateway: Ipv4Addr,
    /// The gateway's Ethernet address.
    pub gateway_mac: Mac,
    /// The longest IP packet of the link, in bytes.
    pub mtu: u16,
}

/// The program, ready.
pub(super) struct Started {
    /// Frames to it.
    pub stream: Arc<Stream>,
    /// Frames from it.
    pub reader: Reader,
    /// Looks after it.
    pub keeper: Keeper,
    /// The TCP ports as they were taken.
    pub forwards: Vec<Forward>,
}

/// Starts the program and waits until it is ready.
///
/// # Errors
/// [`OutsideError`]; the program does not run then.
pub(super) fn start(
    outside: &Outside,
    guest: &Guest,
    desk: Arc<Desk>,
    notice: super::Notice,
) -> Result<Started, OutsideError> {
    let host = |cause: io::Error| OutsideError::Host { program: outside.program.clone(), cause };
    let tcp = outside.forwards.iter().filter(|forward| !forward.udp);
    let forwards = tcp.map(|forward| try_tcp(*forward)).collect::<Result<Vec<_>, _>>()?;
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(|error| host(error.into()))?;
    for socket in [&ours, &theirs] {
        // More than the default, where the host allows it.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(socket, 1 << 20);
    }
    let (said, their_said) = pipe_that_never_blocks().map_err(host)?;
    let child = spawn(outside, guest, &forwards, theirs, their_said)?;
    let mut process = Process { child, said };
    let mut reader = Reader::new();
    match knock(guest, &ours, &mut reader) {
        Ok(true) => {}
        Ok(false) => {
            process.end();
            return Err(OutsideError::Silent { program: outside.program.clone() });
        }
        Err(_) => {
            // One that goes on all the same ends with its stream.
            drop(ours);
            return Err(process.why_it_ended(outside, &forwards));
        }
    }
    let number = i32::try_from(process.child.id()).ok().and_then(Pid::from_raw);
    let number = number.ok_or_else(|| host(io::ErrorKind::InvalidData.into()))?;
    let watch = rustix::process::pidfd_open(number, PidfdFlags::empty()).map_err(|error| host(error.into()))?;
    let stream = Arc::new(Stream::new(ours, desk));
    let keeper = Keeper { process, watch: Some(watch), stream: stream.clone(), notice };
    Ok(Started { stream, reader, keeper, forwards })
}

fn spawn(
    outside: &Outside,
    guest: &Guest,
    forwards: &[Forward],
    theirs: OwnedFd,
    said: OwnedFd,
) -> Result<Child, OutsideError> {
    let mut command = Command::new(&outside.program);
    command.args(["--foreground", "--quiet", "--stderr", "--ipv4-only", "--no-map-gw"]);
    command.args(["--no-dhcp", "--no-dhcpv6", "--no-ndp", "--no-ra", "--dns", "none", "--search", "none"]);
    command.arg("--address").arg(guest.address.to_string());
    command.arg("--netmask").arg(guest.subnet.mask().to_string());
    command.arg("--gateway").arg(guest.gateway.to_string());
    command.arg("--mac-addr").arg(guest.gateway_mac.to_string());
    command.arg("--mtu").arg(guest.mtu.to_string());
    command.arg("--fd").arg(theirs.as_raw_fd().to_string());
    for forward in forwards {
        command.arg("--tcp-ports").arg(in_its_words(*forward));
    }
    // A signal from a terminal is for the guest first, which needs its network to end well.
    command.process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).current_dir("/");
    // SAFETY: after the fork only one system call is made, which allocates nothing and takes no lock; the descriptor is
    // open in the child, because the closure owns it.
    unsafe {
        command.pre_exec(move || Ok(rustix::io::fcntl_setfd(&theirs, FdFlags::empty())?));
    }
    command.spawn().map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => OutsideError::Missing { program: outside.program.clone() },
        _ => OutsideError::Host { program: outside.program.clone(), cause },
    })
}

fn in_its_words(forward: Forward) -> String {
    format!("{}/{}:{}", forward.host.ip(), forward.host.port(), forward.guest)
}

/// A pipe that takes what has room in it and loses the rest, so that who writes to it never waits, nor needs memory.
fn pipe_that_never_blocks() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    for end in [&read, &write] {
        rustix::fs::fcntl_setfl(end, OFlags::NONBLOCK)?;
    }
    Ok((read, write))
}

/// Asks for the gateway, as the guest would, and waits for the answer; tells whether it came in time. It also learns so where the
/// guest is.
///
/// # Errors
/// The program has ended, or what the host said.
fn knock(guest: &Guest, socket: &OwnedFd, reader: &mut Reader) -> io::Result<bool> {
    let asked = Arp { request: true, sender: (guest.mac, guest.address), target: (Mac([0; 6]), guest.gateway) }
        .build(BROADCAST);
    stream::write_first(socket, &asked)?;
    let until = Instant::now() + std::time::Duration::from_secs(READY_WITHIN.unsigned_abs());
    loop {
        match reader.next(socket) {
            Next::Frame(range) => {
                let frame = reader.frame(range);
                if Ethernet::parse(frame).is_some_and(|ethernet| ethernet.kind == ARP) {
                    return Ok(true);
                }
            }
            Next::Ended => return Err(io::ErrorKind::UnexpectedEof.into()),
            Next::Nothing => {
                let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).ok();
                match poll(&mut [PollFd::new(socket, PollFlags::IN)], left.as_ref()) {
                    Ok(0) => return Ok(false),
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

/// The process and what it says.
struct Process {
    child: Child,
    said: OwnedFd,
}

impl Process {
    /// Ends it, if it runs, and waits until it has.
    fn end(&mut self) -> Option<ExitStatus> {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        self.child.wait().ok()
    }

    /// What it has said, without what it says of its log.
    fn said(&self) -> String {
        let mut bytes = Vec::new();
        if let Ok(said) = self.said.try_clone() {
            // It ends with the process, or with what would have to be waited for.
            let _ = std::fs::File::from(said).take(SAID_MAX).read_to_end(&mut bytes);
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.ends_with("to syslog"));
        let lines: Vec<_> = lines.filter(|line| !line.starts_with("Don't run as root")).collect();
        if lines.is_empty() { "it did not say why".into() } else { lines.join("; ") }
    }

    fn why_it_ended(mut self, outside: &Outside, forwards: &[Forward]) -> OutsideError {
        let program = outside.program.clone();
        let status = match self.child.wait() {
            Ok(status) => status,
            Err(cause) => return OutsideError::Host { program, cause },
        };
        let said = self.said();
        // Another was quicker to take it.
        if let Some(forward) = forwards.iter().find(|forward| said.contains(&in_its_words(**forward))) {
            let cause = io::Error::new(io::ErrorKind::AddrInUse, said);
            return ForwardError { forward: *forward, cause }.into();
        }
        OutsideError::Ended { program, status, said }
    }
}

/// Looks after the process: sends what had no room, tells once if it ends, and ends it when the link goes.
pub(super) struct Keeper {
    process: Process,
    /// Readable when it has ended; nothing once that is known.
    watch: Option<OwnedFd>,
    stream: Arc<Stream>,
    notice: super::Notice,
}

impl Companion for Keeper {
    fn wait_for<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        let Some(watch) = &self.watch else { return };
        fds.push(PollFd::new(watch, PollFlags::IN));
        if self.stream.has_left() {
            fds.push(PollFd::from_borrowed_fd(self.stream.as_fd(), PollFlags::OUT));
        }
    }

    fn attend(&mut self, _now: Instant, _to_guest: &FrameQueue) {
        self.stream.send_left();
        if self.watch.is_none() {
            return;
        }
        let status = match self.process.child.try_wait() {
            Ok(None) => return,
            Ok(Some(status)) => status.to_string(),
            // Who ignores the ends of children is not told how they ended.
            Err(error) => error.to_string(),
        };
        self.watch = None;
        self.stream.close();
        (self.notice)(&format!(
            "passt has ended ({status}): {}; the guest does not reach the world outside any more",
            self.process.said()
        ));
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if self.watch.is_some() {
            self.process.end();
        }
    }
}
