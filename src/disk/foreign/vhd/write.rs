//! A dynamic VHD.

use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use super::structures::*;
use crate::disk::foreign::export::{ExportError, Units, is_zero};
use crate::disk::foreign::fields::put;
use crate::disk::output::Output;
use crate::disk::random_bytes;

/// The largest VHD, in bytes: 2040 GiB.
pub(in crate::disk::foreign) const MAX_SIZE: u64 = 2040 << 30;

/// Bytes of a block, as all others have it too.
const BLOCK: u32 = 2 << 20;
/// Bytes of a block that are a hole in the file where they are zero.
const PIECE: usize = 64 * 1024;

/// Seconds from 1970 to 2000, when the time of these files begins.
const YEAR_2000: Duration = Duration::from_secs(946_684_800);

/// Writes the disk; gives the bytes of it that are in the file.
///
/// # Errors
/// See [`ExportError`].
pub(in crate::disk::foreign) fn write(source: &mut Units<'_>, output: &Output) -> Result<u64, ExportError> {
    let failed = |error| output.failed("write to it", error);
    let put_at = |bytes: &[u8], at: u64| output.file().write_all_at(bytes, at).map_err(failed);
    let block = u64::from(BLOCK);
    let count = source.size().div_ceil(block);
    // Checked before: at most 2040 * 512 blocks.
    let entries = u32::try_from(count).map_err(|error| failed(std::io::Error::other(error)))?;
    let table_at = (FOOTER + HEADER) as u64;
    let mut table = vec![0xff; usize::try_from((count * 4).next_multiple_of(512)).unwrap_or_default()];
    let bitmap = vec![0xff; usize::try_from(bitmap_len(block)).unwrap_or_default()];
    let mut end = table_at + table.len() as u64;
    let (mut buf, mut data) = (Vec::new(), 0);
    while let Some(start) = source.next(block, &mut buf)? {
        let sector = u32::try_from(end / 512).map_err(|error| failed(std::io::Error::other(error)))?;
        put(&mut table, usize::try_from(start / block * 4).unwrap_or(usize::MAX), &sector.to_be_bytes());
        put_at(&bitmap, end)?;
        end += bitmap.len() as u64;
        for (piece, at) in buf.chunks(PIECE).zip((end..).step_by(PIECE)).filter(|(piece, _)| !is_zero(piece)) {
            put_at(piece, at)?;
        }
        // The last block is whole in the file, however much of it the disk has.
        end += block;
        data += buf.len() as u64;
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + YEAR_2000).unwrap_or_default();
    let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
    let footer = footer(source.size(), seconds, &random_bytes().map_err(failed)?);
    put_at(&footer, 0)?;
    put_at(&header(table_at, entries, BLOCK), FOOTER as u64)?;
    put_at(&table, table_at)?;
    put_at(&footer, end)?;
    Ok(data)
}
