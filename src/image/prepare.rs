//! From the files of a boot entry to blobs of the cache that a machine can map or read.

use std::io::Write;

use super::cache::{Blob, BlobKind, Cache, sha256};
use super::kernel::{self, Format, KernelError, KernelInfo};
use super::{Error, FileRef, Image};

/// A kernel in the cache.
#[derive(Debug)]
pub struct CachedKernel {
    /// The ELF file or, where `format` says so, the bzImage as it was.
    pub blob: Blob,
    /// What the blob holds: a bzImage only where its payload cannot be unpacked here, so that it has to be entered itself.
    pub format: Format,
    /// What the kernel file in the image says of itself.
    pub info: KernelInfo,
}

/// Why a kernel cannot be put into the cache.
#[derive(Debug, thiserror::Error)]
pub enum KernelCacheError {
    /// It is none, or damaged.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] super::cache::Error),
    /// The cache cannot be written.
    #[error(transparent)]
    Write(#[from] std::io::Error),
}

/// The unpacked ELF of a kernel file, from the cache where it has been unpacked before: the same kernel from another
/// image counts, too.
///
/// # Errors
/// See [`KernelCacheError`].
pub fn cached_kernel(cache: &Cache, bytes: &[u8]) -> Result<CachedKernel, KernelCacheError> {
    let info = kernel::parse(bytes)?;
    let elf = cache.get_or_insert(BlobKind::Elf, &sha256(bytes), |out| -> Result<(), KernelCacheError> {
        Ok(out.write_all(&kernel::extract_elf(bytes)?)?)
    });
    match elf {
        Ok(blob) => Ok(CachedKernel { blob, format: Format::Elf, info }),
        Err(KernelCacheError::Kernel(KernelError::UnsupportedCompression(_))) => {
            let blob = cache.insert_content(|out| -> Result<(), KernelCacheError> { Ok(out.write_all(bytes)?) })?;
            Ok(CachedKernel { blob, format: Format::BzImage, info })
        }
        Err(e) => Err(e),
    }
}

impl Image {
    /// As [`cached_kernel`], for a file of the image.
    ///
    /// # Errors
    /// As [`Image::read_kernel`], and `Cache` or `Output` where the cache cannot be used.
    pub fn cached_kernel(&self, file: &FileRef, cache: &Cache) -> Result<CachedKernel, Error> {
        let bytes = self.read_file(file, kernel::MAX_KERNEL_FILE)?;
        cached_kernel(cache, &bytes).map_err(|e| match e {
            KernelCacheError::Kernel(source) => Error::Kernel { file: file.clone(), source },
            KernelCacheError::Cache(source) => Error::Cache(source),
            KernelCacheError::Write(source) => Error::Output { file: file.clone(), source },
        })
    }

    /// The initial RAM disks of an entry as one blob, joined as [`Image::copy_initrds`] does; `None` where there are none.
    ///
    /// # Errors
    /// As [`Image::copy_initrds`], and `Cache` where the cache cannot be used.
    pub fn cached_initrds(&self, files: &[FileRef], cache: &Cache) -> Result<Option<Blob>, Error> {
        if files.is_empty() {
            return Ok(None);
        }
        let blob = cache.insert_content(|out: &mut dyn Write| self.copy_initrds(files, out).map(|_| ()))?;
        Ok(Some(blob))
    }
}
