//! How things are printed.

use std::error::Error;
use std::io::{self, BufWriter, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// How good news looks.
pub const GOOD: Style = AnsiColor::Green.on_default().bold();
/// How bad news looks.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// How something to look at looks.
pub const WARN: Style = AnsiColor::Yellow.on_default().bold();
/// How a heading looks.
pub const HEADING: Style = Style::new().bold();
/// How what is said by the way looks.
pub const DIM: Style = Style::new().dimmed();

/// Prints an error and what caused it on standard error.
pub fn error(error: &(dyn Error + Send + Sync)) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some messages hold their cause's already.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    // Standard error may be closed.
    let _ = writeln!(anstream::stderr(), "{BAD}error:{BAD:#} {}", clean(&text));
}

/// Prints a line by the way on standard error.
pub fn note(text: &str) {
    let _ = writeln!(anstream::stderr(), "{DIM}amiboot:{DIM:#} {}", clean(text));
}

/// Text that may come out of an image, with nothing in it that a terminal would act on.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Prints on standard output. A reader that has gone away is no error: it has seen what it wanted.
///
/// # Errors
/// What the host says, but for a closed pipe.
pub fn print(text: &str) -> io::Result<()> {
    written(anstream::stdout().write_all(text.as_bytes()))
}

/// Prints a thing as JSON on standard output, as it is made: of a long listing there is never all of the text.
///
/// # Errors
/// As [`print`].
pub fn print_json<T: Serialize + ?Sized>(thing: &T) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let done = serde_json::to_writer_pretty(&mut out, thing).map_err(io::Error::from);
    written(done.and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()))
}

fn written(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| io::Error::new(e.kind(), format!("cannot write to standard output: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_says_cannot_drive_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
