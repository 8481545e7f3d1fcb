//! A disk in a qcow2 file, by the imago crate; what that crate does not look at is looked at here.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use imago::file::File as Storage;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, Mapping};
use vm_memory::VolatileSlice;

use super::qcow2_header::{self, HeaderError};
use super::{Disk, check_range, check_writable, file_io, format};

/// Clusters that are discarded under one lock.
const CLUSTERS_AT_ONCE: u64 = 16 * 1024;

/// Bytes of zeroes written at once where a cluster is zeroed in part.
const ZEROES: usize = 64 * 1024;

/// A qcow2 disk, version 2 or 3, with zlib-compressed clusters and internal snapshots (of which only the present state is
/// seen, and which make it read-only), but without backing file, encryption, external data file, zstd compression and
/// extended second-level tables.
///
/// Reads and writes go on side by side; a discard waits for them, since it moves what they look up. What it frees is
/// also freed in the file. Memory: the first-level table, and up to 128 second-level tables of one cluster each.
///
/// A file that becomes shorter reads as zero where its clusters were: the format allows a last cluster that is cut.
pub struct Qcow2 {
    image: RwLock<FormatAccess<Storage>>,
    /// The same open file, to free clusters in.
    file: File,
    header: qcow2_header::Header,
    read_only: bool,
}

/// Why a file is not opened as qcow2.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its header is not supported.
    #[error(transparent)]
    Header(HeaderError),
    /// It cannot be read, or its tables are damaged.
    #[error(transparent)]
    Host(io::Error),
}

impl Qcow2 {
    /// The disk that `file` holds. A file that is to be written must be open for reading and writing.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing is written then.
    pub fn new(file: File, read_only: bool) -> Result<Self, OpenError> {
        let len = format::file_len(&file).map_err(OpenError::Host)?;
        let header = qcow2_header::check(&file, len, !read_only).map_err(OpenError::Header)?;
        let (image, file) = Self::open_image(file, read_only).map_err(OpenError::Host)?;
        if image.size() != header.size {
            return Err(OpenError::Host(io::Error::other("the file was changed while it was opened")));
        }
        Ok(Self { image: RwLock::new(image), file, header, read_only })
    }

    fn open_image(file: File, read_only: bool) -> io::Result<(FormatAccess<Storage>, File)> {
        let storage = Storage::try_from(file.try_clone()?)?;
        let builder = imago::qcow2::Qcow2::<Storage>::builder(storage).write(!read_only);
        let image = builder.backing(None).data_file(None).open(DenyImplicitOpenGate::default())?;
        Ok((FormatAccess::new(image), file))
    }

    fn image(&self) -> RwLockReadGuard<'_, FormatAccess<Storage>> {
        // A panic inside leaves what the image's own locks guard; the image can be used further.
        self.image.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes zeroes over what does not read as zero already; for ranges that are no whole clusters.
    fn zero_part(&self, image: &FormatAccess<Storage>, mut offset: u64, end: u64) -> io::Result<()> {
        let zeroes = [0; ZEROES];
        while offset < end {
            let (mapping, len) = image.get_mapping(offset, end - offset)?;
            let len = match mapping {
                Mapping::Zero { .. } => len,
                _ => {
                    let piece = len.min(ZEROES as u64);
                    let zeroes = usize::try_from(piece).ok().and_then(|piece| zeroes.get(..piece)).unwrap_or_default();
                    image.write(zeroes, offset)?;
                    piece
                }
            };
            if len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            offset += len;
        }
        Ok(())
    }

    /// Takes whole clusters out of the image and frees their room in the file.
    fn discard_clusters(&self, offset: u64, end: u64) -> io::Result<()> {
        let mut image = self.image.write().unwrap_or_else(PoisonError::into_inner);
        let mut freed: Vec<(u64, u64)> = Vec::new();
        let mut at = offset;
        while at < end {
            let (mapping, len) = image.get_mapping(at, end - at)?;
            if len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // What is not writable in place is also used by something else.
            if let Mapping::Raw { offset, writable: true, .. } = mapping {
                freed.push((offset, len));
            }
            at += len;
        }
        // There is no backing file, so what is taken out reads as zero, in version 2 too.
        image.discard_to_backing(offset, end - offset)?;
        // Under the same lock: nothing can have been put there since.
        for (offset, len) in freed {
            let inside = format::file_len(&self.file)?.saturating_sub(offset).min(len);
            file_io::zero_range(&self.file, offset, inside, true)?;
        }
        Ok(())
    }
}

/// Calls `step` with at most as many segments as the kernel takes, and where they go.
fn batches<'a, 'b>(
    offset: u64,
    bufs: &'a [VolatileSlice<'b>],
    mut step: impl FnMut(&'a [VolatileSlice<'b>], u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = offset;
    for batch in bufs.chunks(file_io::MAX_SEGMENTS) {
        step(batch, at)?;
        at += file_io::total_len(batch)?;
    }
    Ok(())
}

impl Disk for Qcow2 {
    fn size(&self) -> u64 {
        self.header.size
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        check_range(self.header.size, offset, file_io::total_len(bufs)?)?;
        let image = self.image();
        batches(offset, bufs, |batch, at| {
            let (vector, _guard) = IoVectorMut::from_volatile_slice(batch);
            image.readv(vector, at)
        })
    }

    fn write_at(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        check_writable(self.read_only)?;
        check_range(self.header.size, offset, file_io::total_len(bufs)?)?;
        let image = self.image();
        batches(offset, bufs, |batch, at| {
            let (vector, _guard) = IoVector::from_volatile_slice(batch);
            image.writev(vector, at)
        })
    }

    fn flush(&self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        let image = self.image();
        image.flush()?;
        image.sync()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let image = self.image();
        let (mut at, size) = (offset, self.header.size);
        while at < size {
            let (mapping, len) = image.get_mapping(at, size - at)?;
            match mapping {
                Mapping::Zero { .. } if len > 0 => at += len,
                Mapping::Eof { .. } | Mapping::Zero { .. } => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => return Ok(Some(at..at + len.max(1))),
            }
        }
        Ok(None)
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_zeroes(offset, len, true)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        check_writable(self.read_only)?;
        check_range(self.header.size, offset, len)?;
        if !unmap && self.header.version > 2 {
            return self.image().write_zeroes(offset, len);
        }
        let (end, cluster) = (offset + len, self.header.cluster_size);
        let first = offset.next_multiple_of(cluster);
        // The last cluster of the disk may be cut: then its end is whole enough.
        let last = if end == self.header.size { end } else { end - end % cluster };
        if !unmap || first >= last {
            return self.zero_part(&self.image(), offset, end);
        }
        self.zero_part(&self.image(), offset, first)?;
        let mut at = first;
        while at < last {
            let next = last.min(at + CLUSTERS_AT_ONCE * cluster);
            self.discard_clusters(at, next)?;
            at = next;
        }
        self.zero_part(&self.image(), last, end)
    }
}
