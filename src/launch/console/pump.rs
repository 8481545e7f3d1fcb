//! Moves the console's output from the machine to where it is shown, and looks at it on the way.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::eventfd::EventFd;

use super::transcript::{Sight, Transcript};
use crate::vmm::console::ConsoleBuffer;
use crate::vmm::timeline::{Mark, Timeline};

/// What a pipe that says it is ready takes at once (`PIPE_BUF`), so that a write does not wait.
const CHUNK: usize = 4096;
/// A guest writes byte by byte. The first is shown at once; what comes in this time after it is dealt with together, so
/// that not every byte costs a wake-up, a look and a write.
const GATHER: Duration = Duration::from_micros(500);
/// How long an output that takes nothing is waited for once the machine has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where a console's output goes.
pub trait Output: Send + 'static {
    /// Takes all of it. The guest is held for as long as this waits, once a buffer is full.
    fn show(&mut self, bytes: &[u8]);

    /// The run has ended inside a line.
    fn end_line(&mut self) {}

    /// What is to be made readable once the run ends, where [`Self::show`] waits for somebody.
    fn ending(&self) -> Option<Arc<EventFd>> {
        None
    }
}

/// Output that is shown. One that goes away, or was never there, swallows the rest.
pub struct Sink {
    fd: Option<OwnedFd>,
    is_terminal: bool,
    /// Readable once the run ends: an output that is stuck is not waited for any longer.
    ending: Arc<EventFd>,
}

impl Sink {
    /// Shows output on standard output.
    ///
    /// # Errors
    /// Where the host has no event for it.
    pub fn stdout() -> io::Result<Self> {
        Self::of(io::stdout().as_fd().try_clone_to_owned().ok())
    }

    /// Shows output on a descriptor.
    ///
    /// # Errors
    /// Where the host has no event for it.
    pub fn to(fd: OwnedFd) -> io::Result<Self> {
        Self::of(Some(fd))
    }

    fn of(fd: Option<OwnedFd>) -> io::Result<Self> {
        let ending = Arc::new(EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?);
        let is_terminal = fd.as_ref().is_some_and(rustix::termios::isatty);
        Ok(Self { fd: fd.map(|fd| without_waiting(&fd).unwrap_or(fd)), is_terminal, ending })
    }

    /// Writes all of it, waiting for a slow reader until the run ends.
    fn write_all(&mut self, mut bytes: &[u8]) {
        let mut patience = Patience { ending: self.ending.clone(), until: None };
        while let (Some(fd), false) = (&self.fd, bytes.is_empty()) {
            if !patience.wait_for_room(fd).unwrap_or(false) {
                self.fd = None;
                return;
            }
            match rustix::io::write(fd, bytes.get(..CHUNK).unwrap_or(bytes)) {
                Ok(written) => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    patience.until = None;
                }
                Err(rustix::io::Errno::INTR) => {}
                // It has room, but not enough for a line's end.
                Err(rustix::io::Errno::AGAIN) if patience.pause() => {}
                Err(e) => {
                    self.fd = None;
                    tell_loss(e);
                }
            }
        }
    }
}

impl Output for Sink {
    fn show(&mut self, bytes: &[u8]) {
        self.write_all(bytes);
    }

    /// Ends the last line on a terminal, where the shell's prompt, or what the monitor says, comes next.
    fn end_line(&mut self) {
        if self.is_terminal {
            self.write_all(b"\r\n");
        }
    }

    fn ending(&self) -> Option<Arc<EventFd>> {
        Some(self.ending.clone())
    }
}

/// A full disk, say. A reader or terminal that went away has nobody to tell.
fn tell_loss(cause: rustix::io::Errno) {
    if !matches!(cause, rustix::io::Errno::PIPE | rustix::io::Errno::IO) {
        // Standard error may be closed.
        let _ = writeln!(io::stderr(), "amiboot: standard output: {cause}; the rest of the console is not shown");
    }
}

/// A terminal that says it has room may still make a large write wait for its reader, and nothing would end that. Opened
/// anew, it can be written to without waiting, and whoever else has it open is not concerned. Nothing for pipes and
/// files, and for terminals that this user may not open.
fn without_waiting(fd: &OwnedFd) -> Option<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::termios::isatty(fd).then(|| open(format!("/proc/self/fd/{}", fd.as_raw_fd()), flags, Mode::empty()).ok())?
}

/// How long an output that takes nothing is waited for: as long as the run lasts, and [`LAST_WORDS`] after its end.
struct Patience {
    ending: Arc<EventFd>,
    until: Option<Instant>,
}

impl Patience {
    /// Waits until something can be written. False where the run has ended and still nothing can.
    fn wait_for_room(&mut self, fd: &OwnedFd) -> io::Result<bool> {
        loop {
            let ending = borrow(&self.ending);
            let mut fds = [PollFd::new(fd, PollFlags::OUT), PollFd::from_borrowed_fd(ending, PollFlags::IN)];
            // Once the end is known only the output is waited for, and not for long.
            let watched = if self.until.is_some() { &mut fds[..1] } else { &mut fds[..] };
            let timeout = self.until.map(|until| Timespec::try_from(until.saturating_duration_since(Instant::now())));
            let timeout = timeout.transpose().map_err(io::Error::other)?;
            match poll(watched, timeout.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) if watched[0].revents().intersects(PollFlags::OUT) => return Ok(true),
                Ok(_) if watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) => {
                    return Ok(false);
                }
                Ok(_) => self.until = Some(Instant::now() + LAST_WORDS),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Waits a little. False where that was long enough.
    fn pause(&mut self) -> bool {
        const A_LITTLE: Duration = Duration::from_millis(10);
        std::thread::sleep(A_LITTLE);
        let mut ending = [PollFd::from_borrowed_fd(borrow(&self.ending), PollFlags::IN)];
        if self.until.is_none() && poll(&mut ending, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
            self.until = Some(Instant::now() + LAST_WORDS);
        }
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

/// An event's descriptor, for as long as the event lives.
pub fn borrow(event: &EventFd) -> std::os::fd::BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as `event`, whose lifetime the result has.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

struct Shared {
    sights: Mutex<Vec<Sight>>,
    event: EventFd,
}

/// The thread that moves the output.
pub struct Pump {
    console: Arc<ConsoleBuffer>,
    shared: Arc<Shared>,
    ending: Option<Arc<EventFd>>,
    thread: JoinHandle<Transcript>,
}

impl Pump {
    /// Starts moving output from `console`.
    ///
    /// # Errors
    /// Where the host has no thread or event for it.
    pub fn start(
        console: Arc<ConsoleBuffer>,
        mut transcript: Transcript,
        mut output: impl Output,
        timeline: Arc<Timeline>,
    ) -> io::Result<Self> {
        let event = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        let shared = Arc::new(Shared { sights: Mutex::new(Vec::new()), event });
        let ending = output.ending();
        let (source, told) = (console.clone(), shared.clone());
        let thread = std::thread::Builder::new().name("console".into()).stack_size(256 << 10).spawn(move || {
            let mut batch = Vec::new();
            let on_drained = || told.wake();
            let (mut panic_told, mut done_told) = (false, false);
            while source.take(&mut batch, on_drained) {
                let mut sights = transcript.feed(&batch);
                if !panic_told && source.has_guest_panicked() {
                    panic_told = true;
                    sights.push(Sight::Panic);
                }
                if !done_told && source.is_boot_done() {
                    done_told = true;
                    sights.extend(transcript.boot_done());
                }
                mark(&timeline, &sights);
                // Shown before it is told, so that what ends the run has been shown.
                output.show(&batch);
                batch.clear();
                told.tell(&sights);
                std::thread::sleep(GATHER);
            }
            if transcript.is_inside_line() {
                output.end_line();
            }
            transcript
        })?;
        Ok(Self { console, shared, ending, thread })
    }

    /// Readable when something came in sight, and when the output of a machine that has stopped is all dealt with.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.shared.event
    }

    /// What came in sight since the last call.
    #[must_use]
    pub fn sights(&self) -> Vec<Sight> {
        // Emptied before the list is taken: what is added in between makes it readable again.
        let _ = self.shared.event.read();
        std::mem::take(&mut *self.shared.sights.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shows what is left, waiting for a reader only while it takes something. Gives the transcript, and what came in
    /// sight last.
    ///
    /// # Errors
    /// Where the thread panicked.
    pub fn finish(self) -> io::Result<(Transcript, Vec<Sight>)> {
        self.console.close();
        if let Some(ending) = &self.ending {
            // An eventfd that is full is readable already.
            let _ = ending.write(1);
        }
        let transcript = self.thread.join().map_err(|_| io::Error::other("the console's thread panicked"))?;
        let sights = std::mem::take(&mut *self.shared.sights.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((transcript, sights))
    }
}

impl Shared {
    fn tell(&self, sights: &[Sight]) {
        if !sights.is_empty() {
            self.sights.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(sights);
            self.wake();
        }
    }

    fn wake(&self) {
        // An eventfd that is full is readable already.
        let _ = self.event.write(1);
    }
}

fn mark(timeline: &Timeline, sights: &[Sight]) {
    for sight in sights {
        match sight {
            Sight::Until => timeline.mark(Mark::UntilMatched),
            Sight::BootLoader => timeline.mark(Mark::BootLoaderStarted),
            Sight::Kernel => timeline.mark(Mark::KernelStarted),
            Sight::KernelBanner => timeline.mark(Mark::KernelBanner),
            Sight::InitStarted => timeline.mark(Mark::InitStarted),
            Sight::SystemStarted => timeline.mark(Mark::SystemStarted),
            Sight::Panic | Sight::PanicEnd => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use regex::bytes::Regex;

    use super::*;

    fn start(sink: Sink) -> (Arc<ConsoleBuffer>, Pump) {
        let timeline = Arc::new(Timeline::from_process_start());
        let console = Arc::new(ConsoleBuffer::new(timeline.clone()));
        let transcript = Transcript::new(Some(Regex::new("login:").unwrap()));
        (console.clone(), Pump::start(console, transcript, sink, timeline).unwrap())
    }

    #[test]
    fn output_arrives_and_the_pattern_is_told() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (console, pump) = start(Sink::to(writer.into()).unwrap());
        console.push(b"debian login:");
        let (_, sights) = pump.finish().unwrap();
        assert_eq!(sights, vec![Sight::Until]);
        let mut shown = String::new();
        reader.read_to_string(&mut shown).unwrap();
        assert_eq!(shown, "debian login:");
    }

    #[test]
    fn a_reader_that_went_away_does_not_end_the_run() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let (console, pump) = start(Sink::to(writer.into()).unwrap());
        console.push(&[b'x'; 10_000]);
        console.wait_for_room();
        console.push(b"login:");
        assert_eq!(pump.finish().unwrap().1, vec![Sight::Until]);
    }

    #[test]
    fn a_reader_that_takes_nothing_cannot_hang_the_end() {
        let (_reader, writer) = io::pipe().unwrap();
        let (console, pump) = start(Sink::to(writer.into()).unwrap());
        // More than a pipe holds: the pump is stuck in the middle of it.
        console.push(&vec![b'x'; 200 << 10]);
        assert!(pump.finish().is_ok());
    }

    /// A terminal's two ends: who shows, and who writes.
    fn terminal() -> (OwnedFd, OwnedFd) {
        use std::os::fd::FromRawFd;
        let (mut reader, mut writer) = (-1, -1);
        // SAFETY: both pointers are to integers that outlive the call, and null is allowed for the rest.
        let made = unsafe {
            libc::openpty(&raw mut reader, &raw mut writer, std::ptr::null_mut(), std::ptr::null(), std::ptr::null())
        };
        assert_eq!(made, 0);
        // SAFETY: openpty has just made both, and nothing else owns them.
        unsafe { (OwnedFd::from_raw_fd(reader), OwnedFd::from_raw_fd(writer)) }
    }

    #[test]
    fn a_terminal_that_takes_nothing_cannot_hang_the_end() {
        let (_reader, writer) = terminal();
        let (console, pump) = start(Sink::to(writer).unwrap());
        console.push(&vec![b'x'; 300 << 10]);
        let (told, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(pump.finish().is_ok()));
        assert!(ended.recv_timeout(Duration::from_secs(20)).expect("the end hangs"));
    }

    #[test]
    fn a_panic_told_without_text_is_seen() {
        let (console, pump) = start(Sink::to(io::pipe().unwrap().1.into()).unwrap());
        console.guest_panicked();
        let mut sights = Vec::new();
        while sights.is_empty() {
            let mut fds = [PollFd::from_borrowed_fd(borrow(pump.event()), PollFlags::IN)];
            poll(&mut fds, None).unwrap();
            sights = pump.sights();
        }
        assert_eq!(sights, vec![Sight::Panic]);
    }
}
