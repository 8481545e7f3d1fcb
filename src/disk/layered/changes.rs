//! Where two chains differ.

use std::ops::Range;

use super::chain::owners;
use super::owners::Owners;
use super::{LayerError, LayerFiles, UNIT};

/// The bytes at which two chains may differ; see [`changes`].
#[derive(Debug)]
pub struct Changes {
    older: Side,
    newer: Side,
    /// The unit to look at next.
    at: u64,
    size: u64,
}

#[derive(Debug)]
struct Side {
    owners: Owners,
    ids: Vec<[u8; 16]>,
    size: u64,
}

impl Side {
    fn new(chain: &[LayerFiles]) -> Result<Self, LayerError> {
        let headers = chain.iter().map(LayerFiles::header).collect::<Result<Vec<_>, _>>()?;
        let size = headers.last().map_or(0, |header| header.size);
        Ok(Self { owners: owners(chain)?, ids: headers.iter().map(|header| header.id).collect(), size })
    }

    fn run(&self, unit: u64, limit: u64) -> (Option<&[u8; 16]>, u64) {
        let (owner, end) = self.owners.run(unit, limit);
        (self.ids.get(usize::from(owner)), end)
    }
}

/// The ranges in which the disk of chain `newer` may be another than that of `older`, in order and not touching each other,
/// each of whole units of 4096 bytes but for the end of the disk. Both are given bottom first. Units that are of the same layer in both do
/// not differ; of others nothing but that is looked at, so that some may be the same all the same. Against an empty chain
/// it is all that the newer one has.
///
/// # Errors
/// What is wrong with one of the layers.
pub fn changes(older: &[LayerFiles], newer: &[LayerFiles]) -> Result<Changes, LayerError> {
    let (older, newer) = (Side::new(older)?, Side::new(newer)?);
    let size = older.size.max(newer.size);
    Ok(Changes { older, newer, at: 0, size })
}

impl Iterator for Changes {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        let units = self.size.div_ceil(UNIT);
        let mut start = None;
        while self.at < units {
            let (before, end) = self.older.run(self.at, units);
            let (after, end) = self.newer.run(self.at, end);
            match (before != after, start) {
                (true, None) => start = Some(self.at),
                (false, Some(_)) => break,
                _ => {}
            }
            self.at = end;
        }
        start.map(|start| start * UNIT..(self.at * UNIT).min(self.size))
    }
}
