//! Which format a disk file has, and what is no disk file at all.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::str::FromStr;

use super::{Error, SECTOR_SIZE};

/// The format of a disk file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The bytes of the disk, in order.
    Raw,
    /// QEMU's copy-on-write format, versions 2 and 3.
    Qcow2,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        })
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "raw" => Ok(Self::Raw),
            "qcow2" => Ok(Self::Qcow2),
            other => Err(format!("format {other:?} is not known; known are raw and qcow2")),
        }
    }
}

/// Bytes at the start of a file that are looked at.
const HEAD: usize = 4096;

/// A kind of file that is no disk as it is: its name, where its magic number stands, that number, and the mend, in which
/// `FILE` stands for the file.
type Kind = (&'static str, usize, &'static [u8], &'static str);

const CONVERT: &str = "make a raw disk of it: qemu-img convert -O raw FILE disk.raw";

const KINDS: &[Kind] = &[
    ("a VMDK disk", 0, b"KDMV", CONVERT),
    ("a VMDK disk", 0, b"COWD", CONVERT),
    ("a VMDK descriptor", 0, b"# Disk DescriptorFile", CONVERT),
    ("a VHDX disk", 0, b"vhdxfile", CONVERT),
    ("a VHD disk", 0, b"conectix", "make a raw disk of it: qemu-img convert -f vpc -O raw FILE disk.raw"),
    ("a VDI disk", 64, &[0x7f, 0x10, 0xda, 0xbe], CONVERT),
    ("a qcow disk of version 1", 0, b"QFI\xfb\0\0\0\x01", CONVERT),
    ("a QED disk", 0, b"QED\0", CONVERT),
    ("a Parallels disk", 0, b"WithoutFreeSpace", CONVERT),
    ("a Parallels disk", 0, b"WithouFreSpacExt", CONVERT),
    ("a LUKS container", 0, b"LUKS\xba\xbe", "decrypt it first: cryptsetup open FILE NAME, then use /dev/mapper/NAME"),
    ("gzip-compressed", 0, &[0x1f, 0x8b], "unpack it: gunzip --keep FILE"),
    ("xz-compressed", 0, &[0xfd, b'7', b'z', b'X', b'Z', 0], "unpack it: unxz --keep FILE"),
    ("zstd-compressed", 0, &[0x28, 0xb5, 0x2f, 0xfd], "unpack it: unzstd FILE"),
    ("bzip2-compressed", 0, b"BZh", "unpack it: bunzip2 --keep FILE"),
    ("LZ4-compressed", 0, &[0x04, 0x22, 0x4d, 0x18], "unpack it: unlz4 FILE"),
    ("a zip archive", 0, b"PK\x03\x04", "unpack it: unzip FILE"),
    ("a 7-Zip archive", 0, b"7z\xbc\xaf\x27\x1c", "unpack it: 7z x FILE"),
    ("a tar archive", 257, b"ustar", "unpack it: tar -xf FILE"),
    ("an ELF program or kernel", 0, b"\x7fELF", "give the disk image; a kernel goes to --kernel"),
];

/// Magic of the footer that fixed VHD disks, which start like raw ones, have in their last sector.
const VHD_FOOTER: &[u8] = b"conectix";

/// Opens a file that may be a disk, after a look at what it is.
pub(super) fn open_file(path: &Path, write: bool) -> Result<File, Error> {
    let file = open_any(path, write)?;
    check_long_enough(&file, path)?;
    Ok(file)
}

/// Refuses a file that is shorter than any disk.
pub(super) fn check_long_enough(file: &File, path: &Path) -> Result<(), Error> {
    let len = file_len(file).map_err(|error| at(path, CANNOT_TELL_SIZE, error))?;
    if len < SECTOR_SIZE { Err(Error::TooShort { path: path.into(), len }) } else { Ok(()) }
}

const CANNOT_TELL_SIZE: &str = "cannot tell its size";

/// The same for a file that may also be shorter than a disk.
pub(super) fn open_any(path: &Path, write: bool) -> Result<File, Error> {
    let host = |operation| move |source: io::Error| at(path, operation, source);
    // Looked at before it is opened: opening a FIFO would wait for its other end.
    let meta = std::fs::metadata(path).map_err(host("cannot look at it"))?;
    let kind = meta.file_type();
    let what = if kind.is_dir() {
        Some("a directory")
    } else if kind.is_char_device() {
        Some("a character device")
    } else if kind.is_fifo() {
        Some("a named pipe")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        None
    };
    if let Some(what) = what {
        return Err(Error::NotADisk { path: path.into(), what });
    }
    let mut options = File::options();
    options.read(true).write(write);
    let mut operation = if write { "cannot open it for writing" } else { "cannot open it for reading" };
    if write && kind.is_block_device() {
        // For a block device: not while it is mounted or part of something (open(2)).
        options.custom_flags(libc::O_EXCL);
        operation = "cannot open the device for writing (is it mounted, or used by another?)";
    }
    let file = options.open(path).map_err(host(operation))?;
    match file_len(&file).map_err(host(CANNOT_TELL_SIZE))? {
        0 => Err(Error::Empty { path: path.into() }),
        _ => Ok(file),
    }
}

/// Bytes that a file or block device has.
pub(super) fn file_len(file: &File) -> io::Result<u64> {
    Ok(rustix::fs::seek(file, rustix::fs::SeekFrom::End(0))?)
}

/// The error of a failed operation on `path`.
pub(super) fn at(path: &Path, operation: &'static str, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path: path.into() },
        _ => Error::Host { path: path.into(), operation, source },
    }
}

/// Tells the format of a disk file by its content.
///
/// Only for a file whose format the person did not say. Whoever can write to a raw disk, so every guest with `--persist`, can
/// make it look like any other format the next time; so a format once known belongs to the disk. What a guest gains by it
/// here is little: of a qcow2 that names any other file nothing is opened ([`HeaderError`](super::HeaderError)).
///
/// # Errors
/// If there is no such file, or it does not look like a disk; the message says what it is instead, and the mend.
pub fn detect(path: &Path) -> Result<Format, Error> {
    detect_open(&open_file(path, false)?, path)
}

/// The same for a file that is open already.
pub(super) fn detect_open(file: &File, path: &Path) -> Result<Format, Error> {
    let unreadable = |source| at(path, "cannot read it", source);
    let mut head = vec![0; HEAD];
    let mut have = 0;
    while have < HEAD {
        match file.read_at(head.get_mut(have..).unwrap_or_default(), have as u64) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    head.truncate(have);
    if head.starts_with(b"QFI\xfb") && !head.starts_with(b"QFI\xfb\0\0\0\x01") {
        return Ok(Format::Qcow2);
    }
    let foreign = |what, mend: &str| {
        let mend = mend.replace("FILE", &path.display().to_string());
        Error::Foreign { path: path.into(), what, mend }
    };
    for (what, offset, magic, mend) in KINDS {
        if head.get(*offset..).is_some_and(|rest| rest.starts_with(magic)) {
            return Err(foreign(what, mend));
        }
    }
    let len = file_len(file).map_err(unreadable)?;
    // A volume may hold nothing but text, so what has the length of one is one.
    if let Some(start) = text(&head).filter(|_| len < SMALLEST_VOLUME || !len.is_multiple_of(SECTOR_SIZE)) {
        return Err(Error::Text { path: path.into(), start });
    }
    let mut footer = [0; VHD_FOOTER.len()];
    file.read_exact_at(&mut footer, len.saturating_sub(SECTOR_SIZE)).map_err(unreadable)?;
    if footer == VHD_FOOTER {
        return Err(foreign("a VHD disk", "make a raw disk of it: qemu-img convert -f vpc -O raw FILE disk.raw"));
    }
    Ok(Format::Raw)
}

/// Text that is longer than this and made of whole sectors is taken for a disk with text on it.
const SMALLEST_VOLUME: u64 = 1 << 20;

/// The first characters of `head` if all of it is text.
fn text(head: &[u8]) -> Option<String> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // A character that is cut at the end of what was read.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(head.get(..error.valid_up_to())?).ok()?,
        Err(_) => return None,
    };
    let printable = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t' | '\x0c');
    (!text.is_empty() && text.chars().all(printable)).then(|| text.chars().take(32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Result<Format, Error> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        detect(file.path()).inspect_err(|error| {
            assert!(error.to_string().contains(&file.path().display().to_string()), "{error}");
        })
    }

    fn with_magic(offset: usize, magic: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 8192];
        bytes[offset..offset + magic.len()].copy_from_slice(magic);
        bytes
    }

    #[test]
    fn raw_and_qcow2_are_told_apart() {
        assert_eq!(of(&[0; 512]).unwrap(), Format::Raw);
        assert_eq!(of(&with_magic(510, &[0x55, 0xaa])).unwrap(), Format::Raw);
        assert_eq!(of(&with_magic(0, b"QFI\xfb\0\0\0\x03")).unwrap(), Format::Qcow2);
    }

    #[test]
    fn what_is_no_disk_is_named_with_its_mend() {
        for (what, offset, magic, mend) in KINDS {
            let error = of(&with_magic(*offset, magic)).unwrap_err().to_string();
            let word = mend.split("FILE").next().unwrap();
            assert!(error.contains(what) && error.contains(word), "{error}");
        }
        let error = of(&with_magic(8192 - 512, VHD_FOOTER)).unwrap_err().to_string();
        assert!(error.contains("VHD") && error.contains("-f vpc"), "{error}");
    }

    #[test]
    fn empty_short_and_text_files_are_refused() {
        assert!(matches!(of(&[]), Err(Error::Empty { .. })));
        assert!(matches!(of(&[1; 511]), Err(Error::TooShort { len: 511, .. })));
        let xml = "<?xml version=\"1.0\"?>\n<domain type='kvm'/>\u{e4}\n".repeat(200);
        let error = of(xml.as_bytes()).unwrap_err();
        assert!(
            error.to_string().contains("text (\"<?xml version") && error.to_string().contains("--format raw"),
            "{error}"
        );
        // A volume may hold nothing but text.
        assert_eq!(of(&b"text\n".repeat(512 << 10)).unwrap(), Format::Raw);
        // A boot sector is not text only because some of it is.
        assert_eq!(of(&[b"GRUB loading. Welcome to GRUB!".repeat(20), vec![0; 100]].concat()).unwrap(), Format::Raw);
    }

    #[test]
    fn other_kinds_of_files_are_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(detect(&dir.path().join("none")), Err(Error::NotFound { .. })));
        assert!(matches!(detect(dir.path()), Err(Error::NotADisk { what: "a directory", .. })));
        assert!(matches!(detect(Path::new("/dev/null")), Err(Error::NotADisk { what: "a character device", .. })));
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(matches!(detect(&fifo), Err(Error::NotADisk { what: "a named pipe", .. })));
    }
}
