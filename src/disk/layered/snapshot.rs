//! Changes of what a chain is made of while the disk is in use.

use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::chain::{Chain, MAX_LAYERS};
use super::header;
use super::top::Top;
use super::{LayerFiles, Layered};
use crate::disk::Disk;

/// One disk on its way to a new top.
struct Step<'a> {
    disk: &'a Layered,
    _remaking: MutexGuard<'a, ()>,
    chain: Arc<Chain>,
    old: Arc<Top>,
    next: Arc<Top>,
}

/// Does to several disks what [`Layered::snapshot`] does to one, all at one instant: what was answered by any of them before
/// is in the old tops, what is asked of any afterwards is in the new ones. No disk is to be there twice.
///
/// # Errors
/// As for one. Where the host fails when some have been sealed, these go on in their new tops all the same; the others, as
/// if nothing had been.
pub fn snapshot_together(disks: Vec<(&Layered, LayerFiles)>) -> io::Result<()> {
    let mut steps = Vec::with_capacity(disks.len());
    for (disk, next) in disks {
        let remaking = disk.remaking.lock().unwrap_or_else(PoisonError::into_inner);
        let chain = disk.chain();
        let old = chain.top.clone().ok_or(io::ErrorKind::ReadOnlyFilesystem)?;
        let next = Arc::new(disk.check_next(next, &chain)?);
        steps.push(Step { disk, _remaking: remaking, chain, old, next });
    }
    // What takes long, while changes go on.
    steps.iter().try_for_each(|step| step.old.flush())?;
    let closed: Vec<_> = steps.iter().map(|step| step.disk.gate.close()).collect();
    let mut done = Ok(());
    let mut sealed = 0;
    for step in &steps {
        done = step.old.seal();
        if done.is_err() {
            break;
        }
        let (size, below) = (step.chain.size, step.chain.sealed.clone());
        let (top, frozen) = (Some(step.next.clone()), Some(step.old.clone()));
        step.disk.replace(Chain { size, top, frozen, sealed: below });
        sealed += 1;
    }
    drop(closed);
    for step in steps.iter().take(sealed) {
        // The rest changes only how things are looked up.
        let below = step.chain.sealed.with(&step.old);
        step.disk.replace(Chain { size: step.chain.size, top: Some(step.next.clone()), frozen: None, sealed: below });
        // If it could not be, others find the layer in use until this disk is closed.
        let _ = step.old.share();
    }
    done
}

impl Layered {
    /// Leaves the top behind as a snapshot and goes on in `next`, a new and empty layer.
    ///
    /// All that was answered before this call is then in the old top, which is sealed, durable and never changes again;
    /// what is asked for after it returned is in `next`; of what was asked for meanwhile, each is in one of them, as a
    /// whole. Others may open the old top from then on.
    ///
    /// Reads go on meanwhile. Changes are kept waiting while those that were begun end and what is not durable by then is
    /// written out: a few requests to the host's disk, since most was made durable before.
    ///
    /// `next` may be of fewer bytes than the disk, and is then made larger.
    ///
    /// # Errors
    /// `InvalidInput` for a layer that cannot be the next; `ReadOnlyFilesystem`; else what the host said. The disk then goes
    /// on in its old top as if nothing had been.
    pub fn snapshot(&self, next: LayerFiles) -> io::Result<()> {
        snapshot_together(vec![(self, next)])
    }

    /// Makes the disk larger: `size` bytes. What is new reads as zero. Durable when it returns.
    ///
    /// # Errors
    /// `InvalidInput` for a size that is smaller or that no disk has; `ReadOnlyFilesystem`; else what the host said, and the
    /// disk has the size that it had.
    pub fn grow(&self, size: u64) -> io::Result<()> {
        let _remaking = self.remaking.lock().unwrap_or_else(PoisonError::into_inner);
        let chain = self.chain();
        let top = chain.top.clone().ok_or(io::ErrorKind::ReadOnlyFilesystem)?;
        if size < chain.size || !header::is_size(size) {
            let why = format!("a disk of {} bytes cannot have {size}: only more, of whole sectors", chain.size);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        if size > chain.size {
            top.grow(size)?;
            self.replace(Chain { size, top: Some(top), frozen: None, sealed: chain.sealed.clone() });
        }
        Ok(())
    }

    /// The layer, if it can be the top of this chain.
    fn check_next(&self, next: LayerFiles, chain: &Chain) -> io::Result<Top> {
        let refuse = |why: String| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        let next = Top::open(next, self.cache)?;
        let stem = next.stem().display();
        if chain.layers() >= MAX_LAYERS {
            return refuse(format!("{stem}: a chain has at most {MAX_LAYERS} layers"));
        }
        if !next.is_empty() {
            return refuse(format!("{stem}: the layer is not empty"));
        }
        if next.size() > self.size() {
            return refuse(format!("{stem}: the layer is of {} bytes, more than the disk has", next.size()));
        }
        if next.size() < self.size() {
            next.grow(self.size())?;
        }
        Ok(next)
    }
}
