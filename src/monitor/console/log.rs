//! The console log: bounded on disk, the newest kept.
//!
//! It is two files. Output is added to `PATH` until that has as many bytes as are to be kept; then `PATH` becomes
//! `PATH.1`, in the place of the one before, and a new one begins. So what is kept is at least the newest bytes asked for
//! and at most twice as many, both files are plain text at all times, and a reader needs no lock: one that has a
//! file open goes on reading it.
//!
//! What cannot be written (a full disk) is counted, and told in the log as soon as something can be written again.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The least that may be asked to be kept, in bytes: what EC2 gives as console output.
pub const KEEP_MIN: u64 = 64 << 10;
/// The most, in bytes.
pub const KEEP_MAX: u64 = 64 << 20;

/// The log, written to.
#[derive(Debug)]
pub struct ConsoleLog {
    path: PathBuf,
    keep: u64,
    file: File,
    len: u64,
    lost: u64,
    cause: Option<io::Error>,
}

impl ConsoleLog {
    /// Opens the log to add to it.
    ///
    /// # Errors
    /// What the host says.
    pub fn open(path: &Path, keep: u64) -> io::Result<Self> {
        let file = open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        Ok(Self { path: path.into(), keep: keep.max(1), file, len: meta.len(), lost: 0, cause: None })
    }

    /// Adds output. What cannot be written is lost; see [`Self::lost`].
    pub fn write(&mut self, bytes: &[u8]) {
        if self.lost > 0 {
            let cause = self.cause.as_ref().map(ToString::to_string).unwrap_or_default();
            let notice = format!("\r\n[amiboot: {} bytes of console output could not be kept: {cause}]\r\n", self.lost);
            if self.add(notice.as_bytes()) > 0 {
                self.lost = self.lost.saturating_add(bytes.len() as u64);
                return;
            }
            self.lost = 0;
        }
        self.lost = self.add(bytes);
    }

    /// Output that could not be written, in bytes, and why, where that is so now.
    #[must_use]
    pub fn lost(&self) -> Option<(u64, &io::Error)> {
        self.cause.as_ref().filter(|_| self.lost > 0).map(|cause| (self.lost, cause))
    }

    /// Gives how many bytes were not written.
    fn add(&mut self, mut bytes: &[u8]) -> u64 {
        while !bytes.is_empty() {
            match self.step(bytes) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.cause = Some(e);
                    return bytes.len() as u64;
                }
            }
        }
        0
    }

    /// Writes a part of it.
    fn step(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.len >= self.keep {
            self.turn()?;
        }
        let room = usize::try_from(self.keep.saturating_sub(self.len)).unwrap_or(usize::MAX);
        let written = self.file.write(bytes.get(..room).unwrap_or(bytes))?;
        self.len = self.len.saturating_add(written as u64);
        if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
    }

    /// Begins a new file. Where there can be none, the one that is there is emptied: it stays bounded.
    fn turn(&mut self) -> io::Result<()> {
        match fs::rename(&self.path, older(&self.path)).and_then(|()| open(&self.path)) {
            Ok(file) => self.file = file,
            Err(_) => self.file.set_len(0)?,
        }
        self.len = 0;
        Ok(())
    }
}

/// The file before the newest.
fn older(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".1");
    name.into()
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(libc::O_NONBLOCK).open(path)
}

/// The newest `max` bytes of a log at the most; nothing where there is none. May be called while it is written to.
///
/// # Errors
/// What the host says.
pub fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let existing = |path: &Path| match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    };
    // The newest first: where it becomes the older one meanwhile, that is seen, and nothing is missed.
    let mut new = existing(path)?;
    let old = existing(&older(path))?;
    if let (Some(a), Some(b)) = (&new, &old)
        && (a.metadata()?.dev(), a.metadata()?.ino()) == (b.metadata()?.dev(), b.metadata()?.ino())
    {
        new = existing(path)?;
    }
    let tail = |file: Option<File>, max: u64| -> io::Result<Vec<u8>> {
        let Some(mut file) = file else { return Ok(Vec::new()) };
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(max)))?;
        let mut bytes = Vec::new();
        file.take(max).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let newest = tail(new, max)?;
    let mut all = tail(old, max.saturating_sub(newest.len() as u64))?;
    all.extend(newest);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn on_disk(path: &Path) -> u64 {
        [path.to_owned(), older(path)].iter().filter_map(|p| p.metadata().ok()).map(|m| m.len()).sum()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn the_newest_is_kept_and_the_disk_bounded(
            keep in 1u64..200,
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..12),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            let mut all = Vec::new();
            for (at, part) in parts.iter().enumerate() {
                // Every other part by another process.
                let mut log = ConsoleLog::open(&path, keep).unwrap();
                log.write(part);
                if at % 2 == 0 {
                    log.write(part);
                    all.extend(part);
                }
                all.extend(part);
                prop_assert!(on_disk(&path) <= 2 * keep);
                let kept = read(&path, u64::MAX).unwrap();
                prop_assert!(all.ends_with(&kept));
                prop_assert!(kept.len() as u64 >= keep.min(all.len() as u64));
                prop_assert_eq!(read(&path, 5).unwrap(), &kept[kept.len().saturating_sub(5)..]);
            }
        }
    }

    #[test]
    fn what_could_not_be_kept_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = ConsoleLog::open(&path, 1 << 20).unwrap();
        log.write(b"before");
        let good = std::mem::replace(&mut log.file, OpenOptions::new().write(true).open("/dev/full").unwrap());
        log.write(b"lost");
        log.write(b"lost too");
        assert_eq!(log.lost().map(|(bytes, _)| bytes), Some(12));
        log.file = good;
        log.write(b"after");
        assert!(log.lost().is_none());
        let text = String::from_utf8(read(&path, 1 << 20).unwrap()).unwrap();
        assert!(
            text.starts_with("before\r\n[amiboot: 12 bytes of console output could not be kept: No space"),
            "{text}"
        );
        assert!(text.ends_with("]\r\nafter"), "{text}");
    }

    #[test]
    fn no_log_is_empty_and_no_file_is_no_log() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(&dir.path().join("none"), 100).unwrap(), b"");
        assert!(ConsoleLog::open(dir.path(), 100).is_err());
        assert!(ConsoleLog::open(Path::new("/dev/null"), 100).is_err());
    }
}
