//! Talking to an instance's process: for those who start, ask and stop it.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::alive;
pub use super::alive::Life;
use super::config::VolumeConfig;
use super::control::socket;
use super::detach::Report;
pub use super::exit::{Exit, ExitFileError, Reason};
use super::protocol::{Answer, Failure, FileSystems, Request, Status};
use crate::imds::Document;

/// The longest answer, in bytes.
const ANSWER_MAX: u64 = 4 << 20;

/// Why something could not be asked, or was not done.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The instance has no process.
    #[error("{}: the instance does not run", path.display())]
    NotRunning {
        /// Its control socket.
        path: PathBuf,
    },
    /// Its process ended before it answered.
    #[error("the instance's process ended before it answered")]
    Ended,
    /// It has not answered in time.
    #[error("{}: the instance's process does not answer", path.display())]
    Silent {
        /// Its control socket.
        path: PathBuf,
    },
    /// It refused.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// It answered what cannot be understood: it is of another version, say.
    #[error("the instance's process gave an answer that this program does not understand: {0}")]
    Answer(String),
    /// The host refused.
    #[error("{}: {cause}", path.display())]
    Host {
        /// The control socket.
        path: PathBuf,
        /// What the host said.
        cause: io::Error,
    },
}

/// A connection to an instance's process. Calls wait for as long as it takes to do what they ask for, unless
/// [`Client::with_patience`] says how long.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the control socket at `path`.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] where nobody listens there, or what the host says.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        match socket::connect(path) {
            Ok(stream) => Ok(Self { path: path.into(), stream: BufReader::new(stream) }),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Err(ClientError::NotRunning { path: path.into() })
            }
            Err(cause) => Err(ClientError::Host { path: path.into(), cause }),
        }
    }

    /// Lets calls wait for no longer than that; one that fails with [`ClientError::Silent`] may have its answer come later,
    /// so the connection is of no use then.
    ///
    /// # Errors
    /// [`ClientError::Host`], also where the time is zero.
    pub fn with_patience(self, patience: Duration) -> Result<Self, ClientError> {
        let stream = self.stream.get_ref();
        let set = stream.set_read_timeout(Some(patience)).and_then(|()| stream.set_write_timeout(Some(patience)));
        match set {
            Ok(()) => Ok(self),
            Err(cause) => Err(ClientError::Host { path: self.path, cause }),
        }
    }

    /// How the instance is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn status(&mut self) -> Result<Status, ClientError> {
        let answer = self.ask(&Request::Status {}, &[])?;
        serde_json::from_value(answer).map_err(|e| ClientError::Answer(e.to_string()))
    }

    /// Presses the power button.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn press_power_button(&mut self) -> Result<(), ClientError> {
        self.ask(&Request::PowerButton {}, &[]).map(drop)
    }

    /// Ends the machine and starts another, which runs when this returns.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn reset(&mut self) -> Result<(), ClientError> {
        self.ask(&Request::Reset {}, &[]).map(drop)
    }

    /// Asks the guest to switch itself off; it is ended after the grace (where none is given, that of the
    /// configuration). Does not wait for its end: [`Self::wait_for_end`] does.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn stop(&mut self, grace: Option<Duration>) -> Result<(), ClientError> {
        let grace_ms = grace.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
        self.ask(&Request::Stop { grace_ms, force: false }, &[]).map(drop)
    }

    /// Ends the machine at once. Does not wait for the process's end.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn force_stop(&mut self) -> Result<(), ClientError> {
        self.ask(&Request::Stop { grace_ms: None, force: true }, &[]).map(drop)
    }

    /// Ends the process at once, and the machine with it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn quit(&mut self) -> Result<(), ClientError> {
        self.ask(&Request::Quit {}, &[]).map(drop)
    }

    /// Seals the newest layers of volumes, all at one instant, and puts new ones on them: for each volume its id, and the
    /// new layer's data and map. With `freeze` the guest's agent, where there is one, freezes the file systems meanwhile, which
    /// may take some ten seconds; tells what they were.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn snapshot(
        &mut self,
        volumes: &[(&str, [BorrowedFd<'_>; 2])],
        freeze: bool,
    ) -> Result<FileSystems, ClientError> {
        let ids = volumes.iter().map(|(id, _)| (*id).to_owned()).collect();
        let files: Vec<_> = volumes.iter().flat_map(|(_, files)| *files).collect();
        let answer = self.ask(&Request::Snapshot { volumes: ids, freeze }, &files)?;
        serde_json::from_value(answer).map_err(|e| ClientError::Answer(e.to_string()))
    }

    /// Adds a volume.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn plug(&mut self, volume: VolumeConfig) -> Result<(), ClientError> {
        self.ask(&Request::Plug { volume }, &[]).map(drop)
    }

    /// Takes a volume away, with `force` without asking the guest.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn unplug(&mut self, volume: &str, force: bool) -> Result<(), ClientError> {
        self.ask(&Request::Unplug { volume: volume.into(), force }, &[]).map(drop)
    }

    /// Makes a volume larger.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn resize(&mut self, volume: &str, size: u64) -> Result<(), ClientError> {
        self.ask(&Request::Resize { volume: volume.into(), size }, &[]).map(drop)
    }

    /// Tells the guest something else of itself from now on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn tell_metadata(&mut self, document: Document) -> Result<(), ClientError> {
        self.ask(&Request::Metadata { document: Box::new(document) }, &[]).map(drop)
    }

    /// A connection to a TCP port of the guest. It is closed where the guest does not take it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn dial(&mut self, port: u16) -> Result<UnixStream, ClientError> {
        let pair = UnixStream::pair();
        let (near, far) = pair.map_err(|cause| ClientError::Host { path: self.path.clone(), cause })?;
        self.ask(&Request::Dial { port }, &[far.as_fd()])?;
        Ok(near)
    }

    /// Makes the connection the console: what is read is output, at first up to `replay` bytes of what was written before;
    /// what is written is typed. It ends when the process does.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn attach(mut self, replay: u64) -> Result<Console, ClientError> {
        self.ask(&Request::AttachConsole { replay }, &[])?;
        self.wait_without_limit()?;
        let first = self.stream.buffer().to_vec();
        Ok(Console { first: io::Cursor::new(first), stream: self.stream.into_inner() })
    }

    /// Waits for the process's end. The exit file is written then and the lock free, unless it was killed.
    ///
    /// # Errors
    /// [`ClientError::Host`].
    pub fn wait_for_end(mut self) -> Result<(), ClientError> {
        self.wait_without_limit()?;
        match io::copy(&mut self.stream, &mut io::sink()) {
            Ok(_) => Ok(()),
            Err(e) if is_end(&e) => Ok(()),
            Err(cause) => Err(ClientError::Host { path: self.path, cause }),
        }
    }

    fn wait_without_limit(&self) -> Result<(), ClientError> {
        let stream = self.stream.get_ref();
        let set = stream.set_read_timeout(None).and_then(|()| stream.set_write_timeout(None));
        set.map_err(|cause| ClientError::Host { path: self.path.clone(), cause })
    }

    fn ask(&mut self, request: &Request, files: &[BorrowedFd<'_>]) -> Result<serde_json::Value, ClientError> {
        let path = self.path.clone();
        let fail = |cause: io::Error| match cause.kind() {
            // What a socket says whose time is over.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Silent { path: path.clone() },
            _ if is_end(&cause) => ClientError::Ended,
            _ => ClientError::Host { path: path.clone(), cause },
        };
        let mut line = serde_json::to_vec(request).map_err(|e| fail(e.into()))?;
        line.push(b'\n');
        socket::send(self.stream.get_ref(), &line, files).map_err(fail)?;
        let mut answer = Vec::new();
        (&mut self.stream).take(ANSWER_MAX).read_until(b'\n', &mut answer).map_err(fail)?;
        if answer.is_empty() {
            return Err(ClientError::Ended);
        }
        match serde_json::from_slice(&answer) {
            Ok(Answer::Ok(value)) => Ok(value),
            Ok(Answer::Error(failure)) => Err(failure.into()),
            Err(e) => Err(ClientError::Answer(e.to_string())),
        }
    }
}

/// The other side has gone away.
fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof)
}

/// An instance's console.
#[derive(Debug)]
pub struct Console {
    first: io::Cursor<Vec<u8>>,
    stream: UnixStream,
}

impl Console {
    /// The socket, to wait on and to write to; what came with the answer has been read from it already, and is what
    /// [`Read`] gives first.
    #[must_use]
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether there is something to read without waiting for the socket.
    #[must_use]
    pub fn has_first(&self) -> bool {
        self.first.position() < self.first.get_ref().len() as u64
    }
}

impl Read for Console {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.first.read(buffer)? {
            0 => self.stream.read(buffer),
            len => Ok(len),
        }
    }
}

impl io::Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A process that was started: its machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Its id.
    pub pid: u32,
}

/// Why an instance could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The host could not start the program.
    #[error("{}: cannot start it: {cause}", program.display())]
    Host {
        /// The program.
        program: PathBuf,
        /// What the host said.
        cause: io::Error,
    },
    /// The program told why not.
    #[error("{message}")]
    Failed {
        /// Its exit code; none where a signal ended it.
        code: Option<i32>,
        /// Why.
        message: String,
    },
}

/// Starts the process of the instance with the configuration in the file `config` by the program `exe`, which is this
/// one, and waits until its machine runs. What the process says of its work goes to `log`. It is no child of this process.
///
/// # Errors
/// [`StartError`]: the instance does not run then.
pub fn start(config: &Path, exe: &Path, log: Option<&Path>) -> Result<Started, StartError> {
    let mut command = Command::new(exe);
    command.args(["vmm", "--detach", "--config"]).arg(config);
    if let Some(log) = log {
        command.arg("--log").arg(log);
    }
    let output = command.stdin(Stdio::null()).env("NO_COLOR", "1").output();
    let output = output.map_err(|cause| StartError::Host { program: exe.into(), cause })?;
    match serde_json::from_slice(&output.stdout) {
        Ok(Report::Started { pid }) if output.status.success() => Ok(Started { pid }),
        _ => {
            let text = String::from_utf8_lossy(&output.stderr);
            let message = text.trim().trim_start_matches("error: ").to_owned();
            Err(StartError::Failed { code: output.status.code(), message })
        }
    }
}

/// Whether an instance's process lives, by its lock.
///
/// # Errors
/// What the host says.
pub fn is_alive(lock: &Path) -> io::Result<Life> {
    alive::look(lock)
}

/// Takes the start of an instance back: a process that was started with the configuration in the file `config`, and does
/// not live yet by its lock, will not. Tells whether one lives; then everything stays as it is.
///
/// # Errors
/// What the host says.
pub fn withdraw(lock: &Path, config: &Path) -> io::Result<Life> {
    alive::withdraw(lock, config)
}

/// How an instance ended; `None` where it lives, or ended without being able to tell.
///
/// # Errors
/// [`ExitFileError`].
pub fn read_exit(path: &Path) -> Result<Option<Exit>, ExitFileError> {
    Exit::read(path)
}

/// The newest `max` bytes of a console log at the most, whether the instance lives or not.
///
/// # Errors
/// What the host says.
pub fn read_log(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    super::console::log::read(path, max)
}
