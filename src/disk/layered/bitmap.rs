//! The bitmap of a map file, page by page. Pages that are holes or zero are passed over.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::header::Header;
use super::{LayerError, PAGE, PAGE_LEN, UNIT, UNITS_PER_REGION, crc32c, map_len};
use crate::disk::file_io;

/// Words of a page.
pub(super) const WORDS: usize = PAGE_LEN / 8;

/// The bits of one region: unit U of it is bit U % 64 of word U / 64.
pub(super) type Words = [u64; WORDS];

/// The checksum of a bitmap, from the checksums of its pages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Digest(u32);

impl Digest {
    /// Adds the page of a region, of those with a bit in it and in their order.
    pub(super) fn add(&mut self, region: u32, page: u32) {
        self.0 = crc32c::extend(crc32c::extend(self.0, &region.to_le_bytes()), &page.to_le_bytes());
    }

    pub(super) fn value(self) -> u32 {
        self.0
    }
}

/// What a bitmap has.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// The regions with a unit in them, in order.
    pub regions: Vec<u32>,
    /// Units.
    pub units: u64,
    digest: Digest,
}

/// Looks through the bitmap of the map file `path`, and hands each page with a bit in it to `each`.
///
/// # Errors
/// [`LayerError::BeyondEnd`], [`LayerError::Checksum`] for a sealed layer, or what the host said.
pub(super) fn scan<F>(map: &File, header: &Header, path: &Path, mut each: F) -> Result<Summary, LayerError>
where
    F: FnMut(u32, &[u8; PAGE_LEN]),
{
    /// Pages that are read at once.
    const BATCH: u64 = 16 * PAGE;
    let len = map_len(header.size);
    let units = header.size.div_ceil(UNIT);
    let mut summary = Summary::default();
    let mut buf = vec![0; 16 * PAGE_LEN];
    let mut at = PAGE;
    let host = || LayerError::host(path, "cannot read its bitmap");
    while let Some(data) = file_io::next_data(map, at, len).map_err(|error| host()(error))? {
        // Where the file system knows data in smaller pieces than pages.
        let start = data.start - data.start % PAGE;
        let end = data.end.next_multiple_of(PAGE).min(len).min(start + BATCH);
        let Some(batch) = usize::try_from(end - start).ok().and_then(|count| buf.get_mut(..count)) else { break };
        map.read_exact_at(batch, start).map_err(|error| host()(error))?;
        let first = start / PAGE - 1;
        for (region, page) in (first..).zip(batch.as_chunks::<PAGE_LEN>().0) {
            if is_zero(page) {
                continue;
            }
            let bits = page.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
            let beyond =
                (units.saturating_sub(region * UNITS_PER_REGION)..UNITS_PER_REGION).find(|&unit| bit(page, unit));
            if let Some(unit) = beyond {
                let unit = region * UNITS_PER_REGION + unit;
                return Err(LayerError::BeyondEnd { path: path.to_owned(), unit, units });
            }
            // 64 TiB have 512 Ki regions.
            let region = u32::try_from(region).unwrap_or(u32::MAX);
            summary.regions.push(region);
            summary.units += bits;
            summary.digest.add(region, crc32c::sum(page));
            each(region, page);
        }
        at = end;
    }
    let found = summary.digest.value();
    match header.sealed {
        Some(wanted) if wanted != found => {
            Err(LayerError::Checksum { path: path.to_owned(), part: "bitmap", found, wanted })
        }
        _ => Ok(summary),
    }
}

pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

fn bit(page: &[u8; PAGE_LEN], unit: u64) -> bool {
    let byte = usize::try_from(unit / 8).ok().and_then(|at| page.get(at));
    byte.is_some_and(|byte| byte & (1 << (unit % 8)) != 0)
}

/// Where the page of a region is in the file.
pub(super) fn page_offset(region: u32) -> u64 {
    PAGE + u64::from(region) * PAGE
}

/// The bits of one region.
///
/// # Errors
/// What the host said.
pub(super) fn read_page(map: &File, region: u32) -> io::Result<Words> {
    let mut page = [0; PAGE_LEN];
    map.read_exact_at(&mut page, page_offset(region))?;
    Ok(words(&page))
}

pub(super) fn words(page: &[u8; PAGE_LEN]) -> Words {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(page.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

pub(super) fn bytes(words: &Words) -> [u8; PAGE_LEN] {
    let mut page = [0; PAGE_LEN];
    for (bytes, word) in page.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    page
}
