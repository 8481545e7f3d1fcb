//! A chain of layers at one moment.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use vm_memory::VolatileSlice;

use super::layer::Layer;
use super::owners::{self, NOBODY, Owner, Owners};
use super::top::Top;
use super::{LayerAccess, LayerError, LayerFiles, UNIT, bitmap};
use crate::disk::{HostCache, file_io};

/// The most layers of a chain.
pub(super) const MAX_LAYERS: usize = NOBODY as usize - 1;

/// Layers that are not written to, bottom first, and who has which unit.
#[derive(Clone, Debug, Default)]
pub(super) struct Sealed {
    pub(super) layers: Vec<Arc<Layer>>,
    pub(super) owners: Owners,
}

impl Sealed {
    /// Reads their maps, and checks them. The map files are closed afterwards.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub(super) fn open(chain: Vec<LayerFiles>, cache: HostCache) -> Result<Self, LayerError> {
        let owners = owners(&chain)?;
        let layers = chain.into_iter().map(|files| {
            let size = files.header()?.size;
            let LayerFiles { data, stem, access, .. } = files;
            Ok(Arc::new(Layer::new(data, &stem, size, access == LayerAccess::Writable, cache)?))
        });
        Ok(Self { layers: layers.collect::<Result<_, LayerError>>()?, owners })
    }

    /// The same with another layer above, to which nobody writes any more.
    pub(super) fn with(&self, top: &Top) -> Self {
        let mut sealed = self.clone();
        // The number of layers was checked before they were opened.
        let owner = Owner::try_from(sealed.layers.len()).unwrap_or(NOBODY);
        sealed.layers.push(top.layer.clone());
        for (number, region) in top.regions() {
            if let Some(words) = region.words() {
                sealed.owners.change(number, |dense| owners::give(dense, &words, owner));
            }
        }
        sealed
    }
}

/// Who of a chain has which unit. Checks the maps.
///
/// # Errors
/// What is wrong with one of them.
pub(super) fn owners(chain: &[LayerFiles]) -> Result<Owners, LayerError> {
    // Who has something in a region, bottom first.
    let mut regions: BTreeMap<u32, Vec<Owner>> = BTreeMap::new();
    for (owner, files) in (0..NOBODY).zip(chain) {
        for region in bitmap::scan(&files.map, &files.header()?, &files.map_path(), |_, _| {})?.regions {
            regions.entry(region).or_default().push(owner);
        }
    }
    let mut all = Owners::default();
    for (region, owners) in regions {
        // They were just read, and are in the page cache.
        let mut pages = Vec::with_capacity(owners.len());
        for owner in owners {
            let Some(files) = chain.get(usize::from(owner)) else { continue };
            let words = bitmap::read_page(&files.map, region);
            pages.push((owner, words.map_err(LayerError::host(&files.map_path(), "cannot read its bitmap"))?));
        }
        all.change(region, |dense| {
            for (owner, words) in &pages {
                owners::give(dense, words, *owner);
            }
        });
    }
    Ok(all)
}

/// A chain at one moment: what it is made of does not change, but for what enters the top.
#[derive(Debug)]
pub(super) struct Chain {
    /// Bytes of the disk.
    pub(super) size: u64,
    /// The layer that is written to.
    pub(super) top: Option<Arc<Top>>,
    /// The one that was the top until a moment ago and is not among `sealed` yet.
    pub(super) frozen: Option<Arc<Top>>,
    pub(super) sealed: Sealed,
}

/// Bytes that are one layer's; or nobody's, and zero.
pub(super) struct Run<'a> {
    pub(super) layer: Option<&'a Arc<Layer>>,
    pub(super) range: Range<u64>,
}

impl Chain {
    pub(super) fn layers(&self) -> usize {
        self.sealed.layers.len() + usize::from(self.top.is_some()) + usize::from(self.frozen.is_some())
    }

    /// Who has a unit, and the end of the run of units that are its.
    fn run(&self, below_top: bool, unit: u64, limit: u64) -> (Option<&Arc<Layer>>, u64) {
        let mut limit = limit;
        let top = self.top.iter().filter(|_| !below_top);
        for top in top.chain(&self.frozen) {
            let (has, end) = top.run(unit, limit);
            if has {
                return (Some(&top.layer), end);
            }
            limit = end;
        }
        let (owner, end) = self.sealed.owners.run(unit, limit);
        (self.sealed.layers.get(usize::from(owner)), end)
    }

    /// Cuts a range, which lies inside the disk, where other layers have the bytes. With `below_top` as if the top were
    /// empty.
    pub(super) fn runs(&self, range: Range<u64>, below_top: bool) -> impl Iterator<Item = Run<'_>> {
        let (mut at, end) = (range.start, range.end);
        let limit = end.div_ceil(UNIT);
        let mut next = None;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let (layer, mut until) = next.take().unwrap_or_else(|| self.run(below_top, at / UNIT, limit));
            // Where regions meet, runs go on.
            while until < limit {
                let (other, further) = self.run(below_top, until, limit);
                if other.map(Arc::as_ptr) != layer.map(Arc::as_ptr) {
                    next = Some((other, further));
                    break;
                }
                until = further;
            }
            let start = at;
            at = (until * UNIT).min(end);
            Some(Run { layer, range: start..at })
        })
    }

    /// Fills `bufs`, of `len` bytes, from the bytes at `offset`, which lie inside the disk. With `below_top` as if the top
    /// were empty.
    ///
    /// # Errors
    /// What the host said.
    pub(super) fn read(&self, offset: u64, bufs: &[VolatileSlice<'_>], len: u64, below_top: bool) -> io::Result<()> {
        for Run { layer, range } in self.runs(offset..offset + len, below_top) {
            let count = range.end - range.start;
            let part = if count == len { bufs } else { &file_io::window(bufs, range.start - offset, count) };
            match layer {
                Some(layer) => layer.read(range.start, part, count)?,
                None => file_io::fill_zero(part)?,
            }
        }
        Ok(())
    }
}
