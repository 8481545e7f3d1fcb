//! Snapshots read by block: which blocks hold something, which are others than those of another snapshot, and their bytes.
//!
//! What is in a block is known from the maps of the snapshot's layers: a block that none of them has reads as zero.

use std::iter::Peekable;
use std::ops::Range;
use std::sync::Arc;

use super::{Snapshot, any, resolve, visible};
use crate::cloud::error::CloudError;
use crate::cloud::mapping::GIB;
use crate::cloud::{Cloud, layer};
use crate::disk::Disk;
use crate::disk::layered::{LayerFiles, changes};

/// Bytes of a block.
pub const BLOCK: u64 = 512 << 10;

/// Some of a snapshot's blocks, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockPage<T> {
    /// GiB of the snapshot; of two, of the second.
    pub volume_size: u64,
    /// Blocks.
    pub blocks: Vec<T>,
    /// The block at which the next page begins, where there are more.
    pub next: Option<u32>,
}

/// A block that may be another in two snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangedBlock {
    /// Its number, from the start of the disk.
    pub index: u32,
    /// Whether the first snapshot has something there.
    pub in_first: bool,
    /// Whether the second has.
    pub in_second: bool,
}

impl Cloud {
    /// The blocks of a snapshot that hold something, from block `start` on, at most `max`. Some of them may be zero all the
    /// same.
    ///
    /// # Errors
    /// `InvalidSnapshot.NotFound`, `IncorrectState` for one that is not completed; what is wrong with its layers.
    pub fn snapshot_blocks(&mut self, id: &str, start: u32, max: usize) -> Result<BlockPage<u32>, CloudError> {
        let (snapshot, files) = self.layers_of(id)?;
        let (blocks, next) = page(blocks(changes(&[], &files)?, start), max, |block| *block);
        Ok(BlockPage { volume_size: snapshot.volume_size, blocks, next })
    }

    /// The blocks of two snapshots that may be others, from block `start` on, at most `max`. Those that lie in layers which
    /// both have are the same; where they have none in common, it is all that one of them has.
    ///
    /// # Errors
    /// As [`Cloud::snapshot_blocks`], of each.
    pub fn changed_blocks(
        &mut self,
        first: &str,
        second: &str,
        start: u32,
        max: usize,
    ) -> Result<BlockPage<ChangedBlock>, CloudError> {
        let ((_, older), (snapshot, newer)) = (self.layers_of(first)?, self.layers_of(second)?);
        let mut in_first = Finder::new(blocks(changes(&[], &older)?, start));
        let mut in_second = Finder::new(blocks(changes(&[], &newer)?, start));
        let changed = blocks(changes(&older, &newer)?, start).map(|index| ChangedBlock {
            index,
            in_first: in_first.has(index),
            in_second: in_second.has(index),
        });
        let (blocks, next) = page(changed, max, |block| block.index);
        Ok(BlockPage { volume_size: snapshot.volume_size, blocks, next })
    }

    /// The bytes of a block of a snapshot: zeroes where it has none.
    ///
    /// # Errors
    /// As [`Cloud::snapshot_blocks`]; `InvalidParameterValue` for a block beyond its end.
    pub fn snapshot_block(&mut self, id: &str, index: u32) -> Result<Vec<u8>, CloudError> {
        let (snapshot, disk) = self.snapshot_disk(id)?;
        let range = range(&snapshot, index)?;
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or_default()];
        let failed = |cause| CloudError::host(snapshot.snapshot_id.as_str(), "cannot read it")(cause);
        disk.read_exact_at(range.start, &mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    /// A snapshot of an image that the caller may use: runs of its blocks that hold something, and its disk, to be read.
    ///
    /// # Errors
    /// As [`Cloud::snapshot_blocks`].
    pub(in crate::cloud) fn runs_of(&mut self, id: &str) -> Result<Runs, CloudError> {
        let _hold = self.store().hold_shared()?;
        let (snapshot, chain) = self.catalogue.read(|tx| {
            let snapshot = any(tx, id)?;
            let chain = layer::chain(tx, top_of(&snapshot)?)?;
            Ok((snapshot, chain))
        })?;
        let mut runs: Vec<Range<u32>> = Vec::new();
        for block in blocks(changes(&[], &self.store().files(&chain)?)?, 0) {
            match runs.last_mut().filter(|run| run.end == block) {
                Some(run) => run.end = block.saturating_add(1),
                None => runs.push(block..block.saturating_add(1)),
            }
        }
        let disk = self.store().open(&chain, snapshot.volume_size.saturating_mul(GIB))?;
        Ok((snapshot, runs, disk))
    }

    /// A snapshot that is completed, with the files of its layers.
    fn layers_of(&mut self, id: &str) -> Result<(Snapshot, Vec<LayerFiles>), CloudError> {
        let scope = self.scope.clone();
        let _hold = self.store().hold_shared()?;
        let (snapshot, chain) = self.catalogue.read(|tx| {
            let snapshot = visible(tx, &scope, &resolve(tx, &scope, id)?)?;
            let chain = layer::chain(tx, top_of(&snapshot)?)?;
            Ok((snapshot, chain))
        })?;
        let files = self.store().files(&chain)?;
        Ok((snapshot, files))
    }
}

/// A snapshot, runs of its blocks, and its disk.
type Runs = (Snapshot, Vec<Range<u32>>, Arc<dyn Disk>);

/// The top layer of a snapshot.
///
/// # Errors
/// `IncorrectState` for one that is not completed.
fn top_of(snapshot: &Snapshot) -> Result<&str, CloudError> {
    let why = format!("it is {}, not completed", snapshot.state);
    let pending = CloudError::State { what: snapshot.snapshot_id.to_string(), why };
    snapshot.layer.as_deref().ok_or(pending)
}

/// The bytes of a block.
///
/// # Errors
/// `InvalidParameterValue` for a block beyond the end of the snapshot.
pub(super) fn range(snapshot: &Snapshot, index: u32) -> Result<Range<u64>, CloudError> {
    let start = u64::from(index).saturating_mul(BLOCK);
    let count = snapshot.volume_size.saturating_mul(GIB / BLOCK);
    if u64::from(index) < count {
        return Ok(start..start.saturating_add(BLOCK));
    }
    Err(CloudError::value(format!(
        "Value ({index}) for parameter blockIndex is invalid: {} has the blocks 0 to {}",
        snapshot.snapshot_id,
        count.saturating_sub(1)
    )))
}

/// The blocks, from `start` on, that touch ranges of bytes, which are in order.
fn blocks(ranges: impl Iterator<Item = Range<u64>>, start: u32) -> impl Iterator<Item = u32> {
    let mut next = u64::from(start);
    ranges
        .flat_map(move |range| {
            let from = (range.start / BLOCK).max(next);
            let end = range.end.div_ceil(BLOCK);
            next = next.max(end);
            from..end
        })
        // The largest disk has 2^27.
        .map_while(|block| u32::try_from(block).ok())
}

/// At most `max`, and where the next page begins.
fn page<T>(all: impl Iterator<Item = T>, max: usize, index: impl Fn(&T) -> u32) -> (Vec<T>, Option<u32>) {
    let mut all = all;
    let some: Vec<T> = all.by_ref().take(max).collect();
    (some, all.next().as_ref().map(index))
}

/// Blocks that are asked for in their order.
struct Finder<I: Iterator<Item = u32>>(Peekable<I>);

impl<I: Iterator<Item = u32>> Finder<I> {
    fn new(blocks: I) -> Self {
        Self(blocks.peekable())
    }

    fn has(&mut self, block: u32) -> bool {
        while self.0.next_if(|found| *found < block).is_some() {}
        self.0.peek() == Some(&block)
    }
}
