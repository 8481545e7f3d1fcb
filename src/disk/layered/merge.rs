//! Many layers made one.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use vm_memory::VolatileSlice;

use super::care::remove;
use super::chain::{Chain, Run, Sealed};
use super::fill::Progress;
use super::layer::Layer;
use super::stack::{check_chain, pieces};
use super::top::Top;
use super::{LayerAccess, LayerError, LayerFiles, LayerInfo};
use crate::disk::{HostCache, file_io};

/// Bytes that are copied between two words of progress.
const STEP: u64 = 64 << 20;

/// Makes one sealed layer of several that lie on each other, bottom first: `into` is a new layer that has what they have
/// together, and can lie where they lie. They stay as they are. Where the file system can share blocks between files,
/// nothing is copied; holes stay holes. Durable when it returns.
///
/// # Errors
/// What is wrong with one of the layers, which must be sealed; [`LayerError::Exists`]; [`LayerError::BrokenOff`]; or what the
/// host said. Of `into` nothing is then left.
pub fn merge<P: AsRef<Path>>(stems: &[P], into: &Path, progress: &mut Progress<'_>) -> Result<LayerInfo, LayerError> {
    let open = |stem: &P| LayerFiles::open(stem.as_ref(), LayerAccess::Sealed);
    let layers = stems.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let size = layers.last().map(LayerFiles::header).transpose()?.map_or(0, |header| header.size);
    check_chain(&layers, size)?;
    let sealed = Sealed::open(layers, HostCache::Used)?;
    let chain = Chain { size, top: None, frozen: None, sealed };
    let files = LayerFiles::create(into, size)?;
    let merged = copy_all(&chain, files.try_clone()?, progress).and_then(|()| files.info());
    if merged.is_err() {
        // The error is why.
        let _ = remove(into);
    }
    merged
}

fn copy_all(chain: &Chain, into: LayerFiles, progress: &mut Progress<'_>) -> Result<(), LayerError> {
    let path = into.data_path();
    let host = |error| LayerError::host(&path, "cannot copy into it")(error);
    let top = Top::open(into, HostCache::Used)?;
    for Run { layer, range } in chain.runs(0..chain.size, false) {
        let Some(layer) = layer else { continue };
        for piece in pieces(range) {
            let range = piece.offset..piece.offset + piece.len;
            let mut broken_off = false;
            let mut goes_on = |at| {
                broken_off = progress(at, chain.size).is_break();
                !broken_off
            };
            let copied = top.bring(&piece.units(), |_| copy_data(layer, &top.layer, range, &mut goes_on));
            if broken_off {
                return Err(LayerError::BrokenOff);
            }
            copied.map_err(host)?;
        }
    }
    top.seal().map_err(host)?;
    let _ = progress(chain.size, chain.size);
    Ok(())
}

/// Copies what is no hole in a range, as long as `goes_on`, which is told how far it is.
fn copy_data(from: &Layer, to: &Layer, range: Range<u64>, goes_on: &mut dyn FnMut(u64) -> bool) -> io::Result<()> {
    let mut at = range.start;
    while let Some(data) = from.next_data(&(at..range.end))? {
        at = data.end.min(data.start + STEP);
        copy(from.file(), to.file(), data.start..at)?;
        if !goes_on(at) {
            break;
        }
    }
    Ok(())
}

/// Copies bytes between two files, to the same place.
fn copy(from: &File, to: &File, range: Range<u64>) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let len = usize::try_from(range.end - at).unwrap_or(usize::MAX);
        let (mut source, mut target) = (at, at);
        match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), len) {
            // What file systems answer that cannot, and zero where one cannot without saying so.
            Ok(0)
            | Err(
                rustix::io::Errno::XDEV
                | rustix::io::Errno::INVAL
                | rustix::io::Errno::OPNOTSUPP
                | rustix::io::Errno::NOSYS
                | rustix::io::Errno::PERM
                | rustix::io::Errno::TXTBSY,
            ) => return copy_by_hand(from, to, at..range.end),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(count) => at += count as u64,
        }
    }
    Ok(())
}

fn copy_by_hand(from: &File, to: &File, range: Range<u64>) -> io::Result<()> {
    let mut buf = vec![0; 256 * 1024];
    let mut at = range.start;
    while at < range.end {
        let len = (range.end - at).min(buf.len() as u64);
        let bufs = file_io::window(&[VolatileSlice::from(&mut buf[..])], 0, len);
        file_io::read_exact(from, at, &bufs)?;
        file_io::write_all(to, at, &bufs)?;
        at += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn either_way_copies_the_same() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let bytes: Vec<u8> = (0..251).cycle().take(700_000).collect();
        from.write_all_at(&bytes, 1000).unwrap();
        copy(&from, &to, 1000..300_000).unwrap();
        copy_by_hand(&from, &to, 300_000..701_000).unwrap();
        let mut back = vec![0; bytes.len()];
        to.read_exact_at(&mut back, 1000).unwrap();
        assert!(back == bytes);
        assert_eq!(copy(&from, &to, 600_000..701_001).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
