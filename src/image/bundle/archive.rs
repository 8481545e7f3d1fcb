//! A tar archive of one file (POSIX ustar, and what GNU tar makes of it): long names and sparse files are read.

use std::io::{self, Read, Write};

use super::Damage;

/// Bytes of a record.
const RECORD: usize = 512;
/// Archives end on a multiple of this, as tar writes them.
const BLOCKING: u64 = 20 * RECORD as u64;
/// Bytes of headers before the file, as names and attributes, at most.
const MAX_EXTRA: u64 = 1 << 20;
/// Pieces of a sparse file at most.
const MAX_PIECES: usize = 1 << 20;

/// Where the fields of a header are.
const SIZE: std::ops::Range<usize> = 124..136;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const TYPE: usize = 156;
const MAGIC: usize = 257;
/// In GNU's header of a sparse file: four pieces, whether there are more, and the size of the file.
const PIECES: usize = 386;
const MORE: usize = 482;
const REAL_SIZE: std::ops::Range<usize> = 483..495;
/// Bytes of a piece: where it is, and how long, 12 digits each.
const PIECE: usize = 24;
/// Pieces in a record of more, and whether there are still more.
const PIECES_OF_MORE: usize = 21;
const MORE_OF_MORE: usize = 504;

/// The header of a file of `size` bytes.
pub(crate) fn header(name: &str, size: u64) -> [u8; RECORD] {
    let mut header = [0; RECORD];
    let mut put = |at: usize, bytes: &[u8]| {
        header.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
    };
    let short = name.char_indices().take_while(|(at, c)| at + c.len_utf8() <= 100).map(|(_, c)| c);
    put(0, short.collect::<String>().as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size < 1 << 33 {
        put(SIZE.start, format!("{size:011o}\0").as_bytes());
    } else {
        // More than eleven octal digits: the number itself, marked by the highest bit.
        put(SIZE.start, &[0x80, 0, 0, 0]);
        put(SIZE.start + 4, &size.to_be_bytes());
    }
    put(136, b"00000000000\0");
    put(CHECKSUM.start, b"        ");
    put(TYPE, b"0");
    put(MAGIC, b"ustar  \0");
    put(265, b"root");
    put(297, b"root");
    let sum = header.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    header.iter_mut().skip(CHECKSUM.start).zip(format!("{sum:06o}\0 ").bytes()).for_each(|(to, from)| *to = from);
    header
}

/// Writes what comes after a file of `size` bytes.
///
/// # Errors
/// What `to` said.
pub(super) fn finish(to: &mut impl Write, size: u64) -> io::Result<()> {
    let file = RECORD as u64 + size;
    let end = (file.next_multiple_of(RECORD as u64) + 2 * RECORD as u64).next_multiple_of(BLOCKING);
    let zeroes = [0; RECORD];
    let mut left = usize::try_from(end - file).map_err(io::Error::other)?;
    while left > 0 {
        let piece = left.min(RECORD);
        to.write_all(zeroes.get(..piece).unwrap_or_default())?;
        left -= piece;
    }
    Ok(())
}

/// Why an archive is not read.
pub(super) enum Failure {
    /// It is damaged.
    Damage(Damage),
    /// Reading it, or what it is written to, failed.
    Read(io::Error),
    Sink(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

fn damaged(what: impl Into<String>) -> Failure {
    Failure::Damage(Damage::Archive(what.into()))
}

/// Reads the one file of an archive, which must have `size` bytes; `put` is given its pieces in order, each with where it
/// is. What is between them is zero.
///
/// # Errors
/// See [`Failure`].
pub(super) fn read(
    from: &mut impl Read,
    size: u64,
    mut put: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<(), Failure> {
    let found = find(from)?;
    if found.real != size {
        return Err(Failure::Damage(Damage::Size { len: found.real, expected: size }));
    }
    let mut buf = vec![0; 256 * 1024];
    for (start, len) in &found.pieces {
        let (mut at, mut left) = (*start, *len);
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
            let piece = buf.get_mut(..count).unwrap_or_default();
            from.read_exact(piece)?;
            put(at, piece).map_err(Failure::Sink)?;
            (at, left) = (at + count as u64, left - count as u64);
        }
    }
    skip(from, found.stored.next_multiple_of(RECORD as u64) - found.stored)?;
    // Another file, or the end: a record of zeroes, or nothing at all.
    let mut record = [0; RECORD];
    match from.read(&mut record)? {
        0 => Ok(()),
        first => {
            from.read_exact(record.get_mut(first..).unwrap_or_default())?;
            if record == [0; RECORD] { Ok(()) } else { Err(damaged("there is more than one file in it")) }
        }
    }
}

/// The file of an archive.
struct Found {
    /// Bytes that it has, and of it in the archive.
    real: u64,
    stored: u64,
    /// Where they belong.
    pieces: Vec<(u64, u64)>,
}

/// Reads up to the content of the first file.
fn find(from: &mut impl Read) -> Result<Found, Failure> {
    let mut extra = 0;
    let mut attributes = Vec::new();
    loop {
        let mut header = [0; RECORD];
        from.read_exact(&mut header)?;
        check(&header)?;
        let stored = number(&header, SIZE)?;
        let kind = header.get(TYPE).copied().unwrap_or_default();
        match kind {
            0 | b'0' | b'7' => {
                let stored = attribute(&attributes, "size")?.unwrap_or(stored);
                let sparse = attributes.iter().any(|(key, _)| key.starts_with("GNU.sparse."));
                if sparse {
                    return Err(damaged(
                        "the file in it is sparse in a way that is not supported; pack it with tar --format=gnu",
                    ));
                }
                return Ok(Found { real: stored, stored, pieces: vec![(0, stored)] });
            }
            b'S' => return sparse(from, &header, stored),
            // Names that are too long for the header, and attributes.
            b'L' | b'K' | b'g' | b'x' => {
                let padded = stored.checked_next_multiple_of(RECORD as u64).unwrap_or(u64::MAX);
                extra = padded.saturating_add(extra);
                if extra > MAX_EXTRA {
                    return Err(damaged("there is more before the file than names and attributes take"));
                }
                if kind == b'x' {
                    let mut text = vec![0; usize::try_from(stored).unwrap_or_default()];
                    from.read_exact(&mut text)?;
                    attributes = parse_attributes(&text)?;
                    skip(from, padded - stored)?;
                } else {
                    skip(from, padded)?;
                }
            }
            other => {
                return Err(damaged(format!("the first entry in it is no file (its type is {:?})", char::from(other))));
            }
        }
    }
}

/// Refuses a record that is no header.
fn check(header: &[u8; RECORD]) -> Result<(), Failure> {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    let noted = header.get(CHECKSUM).unwrap_or_default();
    let expected = sum(header) - sum(noted) + 8 * u64::from(b' ');
    if number(header, CHECKSUM)? == expected { Ok(()) } else { Err(damaged("the checksum of its header is wrong")) }
}

/// A number in octal digits, or as it is, marked by the highest bit.
fn number(bytes: &[u8], at: std::ops::Range<usize>) -> Result<u64, Failure> {
    let field = bytes.get(at).unwrap_or_default();
    let bad = || damaged("a number in its header cannot be read");
    if let Some((0x80, rest)) = field.split_first() {
        let (high, low) = rest.split_last_chunk::<8>().ok_or_else(bad)?;
        return if high.iter().all(|byte| *byte == 0) { Ok(u64::from_be_bytes(*low)) } else { Err(bad()) };
    }
    let text = std::str::from_utf8(field).map_err(|_| bad())?;
    let digits = text.trim_matches(['\0', ' ']);
    if digits.is_empty() {
        return Ok(0);
    }
    u64::from_str_radix(digits, 8).map_err(|_| bad())
}

/// The pieces of a sparse file, behind whose header there may be more of them.
fn sparse(from: &mut impl Read, header: &[u8; RECORD], stored: u64) -> Result<Found, Failure> {
    let real = number(header, REAL_SIZE)?;
    let mut pieces: Vec<(u64, u64)> = Vec::new();
    let mut add = |record: &[u8], start: usize, count: usize| {
        for at in (start..).step_by(PIECE).take(count) {
            let (offset, len) = (number(record, at..at + 12)?, number(record, at + 12..at + PIECE)?);
            let before = pieces.last().map_or(0, |(at, len)| at + len);
            // Unused places are empty.
            if len == 0 {
                continue;
            }
            if offset < before || offset.checked_add(len).is_none_or(|end| end > real) {
                return Err(damaged("the pieces of the sparse file in it do not fit together"));
            }
            pieces.push((offset, len));
        }
        Ok(())
    };
    add(header, PIECES, 4)?;
    let mut more = header.get(MORE).is_some_and(|byte| *byte != 0);
    let mut records = 0;
    while more {
        records += 1;
        if records > MAX_PIECES / PIECES_OF_MORE {
            return Err(damaged("the sparse file in it has too many pieces"));
        }
        let mut record = [0; RECORD];
        from.read_exact(&mut record)?;
        add(&record, 0, PIECES_OF_MORE)?;
        more = record.get(MORE_OF_MORE).is_some_and(|byte| *byte != 0);
    }
    if pieces.iter().map(|(_, len)| len).sum::<u64>() != stored {
        return Err(damaged("the pieces of the sparse file in it do not fit together"));
    }
    Ok(Found { real, stored, pieces })
}

/// Attributes: lines of a length, a key and a value, as `25 size=10737418240`.
fn parse_attributes(text: &[u8]) -> Result<Vec<(String, String)>, Failure> {
    let bad = || damaged("its attributes cannot be read");
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() && rest.first() != Some(&0) {
        let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
        let digits = rest.get(..space).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(bad)?;
        let len: usize = digits.parse().map_err(|_| bad())?;
        let (line, next) = rest.split_at_checked(len).ok_or_else(bad)?;
        let line = String::from_utf8_lossy(line.get(space + 1..).ok_or_else(bad)?);
        let (key, value) = line.trim_end_matches('\n').split_once('=').ok_or_else(bad)?;
        found.push((key.to_owned(), value.to_owned()));
        rest = next;
    }
    Ok(found)
}

fn attribute(attributes: &[(String, String)], name: &str) -> Result<Option<u64>, Failure> {
    let value = attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    value.map(|value| value.parse().map_err(|_| damaged("its attributes cannot be read"))).transpose()
}

fn skip(from: &mut impl Read, len: u64) -> Result<(), Failure> {
    let skipped = io::copy(&mut from.take(len), &mut io::sink())?;
    if skipped == len { Ok(()) } else { Err(Failure::Read(io::ErrorKind::UnexpectedEof.into())) }
}

#[cfg(test)]
mod tests;
