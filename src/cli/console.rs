//! A person at the console of an instance that runs in the background.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};

use super::CliError;
use super::output::note;
use crate::launch::console::escape::{EscapeFilter, Typed};
use crate::launch::console::say;
use crate::launch::console::terminal::RawTerminal;
use crate::monitor::client::Console;

/// How much of what was written before is shown at first, in bytes.
pub const REPLAY: u64 = 16 << 10;

const HELP: &str = "\r\n\
    Ctrl-a x       leave the console; the instance goes on\r\n\
    Ctrl-a h       show this\r\n\
    Ctrl-a Ctrl-a  send Ctrl-a to the guest\r\n";

/// What one piece of input comes to.
enum Input {
    /// There is more to come.
    More,
    /// There will be no more.
    End,
    /// The person leaves.
    Leave,
}

/// Shows the console and types what the person types, until they leave or the instance ends.
///
/// # Errors
/// What the host says.
pub fn attend(mut console: Console, instance: &str) -> Result<u8, CliError> {
    let terminal = RawTerminal::enter()?;
    let raw = terminal.is_some();
    if raw {
        say(&format!("amiboot: console of {instance}; Ctrl-a x leaves it, Ctrl-a h shows the keys"), true);
    }
    let mut filter = raw.then(EscapeFilter::default);
    let mut at_end = false;
    let left = loop {
        // What came with the first answer is read before anything is waited for.
        let mut fds = vec![PollFd::new(console.stream(), PollFlags::IN)];
        let stdin = io::stdin();
        if !at_end {
            fds.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
        }
        let waited = if console.has_first() { Ok(0) } else { poll(&mut fds, None).map(|_| 0) };
        match waited {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(io::Error::from(error).into()),
            Ok(_) => {}
        }
        let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        let (output, typed) = (console.has_first() || ready(0), ready(1));
        drop(fds);
        if output && !show(&mut console)? {
            break false;
        }
        if typed {
            match take(&mut console, filter.as_mut())? {
                Input::More => {}
                Input::End => at_end = true,
                Input::Leave => break true,
            }
        }
    };
    drop(terminal);
    note(if left { "left the console; the instance goes on" } else { "the instance has ended" });
    Ok(0)
}

/// Types lines, each with its end as a keyboard has it.
///
/// # Errors
/// What the host says.
pub fn send_lines(mut console: Console, lines: &[String]) -> Result<(), CliError> {
    lines.iter().try_for_each(|line| send(&mut console, format!("{line}\r").as_bytes()))?;
    // Whoever closes at once may not be heard: the other side is told that this was all, and ends it.
    console.stream().shutdown(std::net::Shutdown::Write)?;
    Ok(())
}

/// Shows what the guest has written; tells whether there can be more.
fn show(console: &mut Console) -> Result<bool, CliError> {
    let mut buffer = [0; 16 << 10];
    let len = match console.read(&mut buffer) {
        Ok(len) => len,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
        Err(error) => return Err(error.into()),
    };
    let mut stdout = io::stdout().lock();
    stdout.write_all(buffer.get(..len).unwrap_or_default())?;
    stdout.flush()?;
    Ok(len > 0)
}

/// Types what the person has typed.
fn take(console: &mut Console, filter: Option<&mut EscapeFilter>) -> Result<Input, CliError> {
    let mut buffer = [0; 1024];
    let len = match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
        Ok(0) | Err(rustix::io::Errno::IO) => return Ok(Input::End),
        Ok(len) => len,
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Ok(Input::More),
        Err(error) => return Err(io::Error::from(error).into()),
    };
    let bytes = buffer.get(..len).unwrap_or_default();
    let Some(filter) = filter else {
        return send(console, bytes).map(|()| Input::More);
    };
    for typed in filter.feed(bytes) {
        match typed {
            Typed::Input(bytes) => send(console, &bytes)?,
            Typed::Help => say(HELP, true),
            Typed::Quit => return Ok(Input::Leave),
        }
    }
    Ok(Input::More)
}

/// An instance that has just ended takes nothing any more: what is read next says so.
fn send(console: &mut Console, bytes: &[u8]) -> Result<(), CliError> {
    match console.write_all(bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Shows a console's output as it was written.
///
/// # Errors
/// What the host says.
pub fn print_log(output: &[u8]) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(output).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
