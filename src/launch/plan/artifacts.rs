//! Kernels and initrds, out of an image or from the host, unpacked into the cache.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use memchr::memmem;

use super::{PlanError, Protocol};
use crate::image::cache::{self, Blob, BlobKind, Cache};
use crate::image::kernel::{self, Architecture, ElfInfo, KernelError, KernelInfo};
use crate::image::{BootEntry, Image, MAX_INITRD};
use crate::vmm::boot::{KernelImage, Segment};

/// `COMMAND_LINE_SIZE` of x86 kernels less the final NUL, for kernels that do not say.
const CMDLINE_LIMIT: u32 = 2047;

/// The same for bzImages of boot protocols before 2.06, which cannot say.
const OLD_CMDLINE_LIMIT: u32 = 255;

/// How a kernel that has virtio-mmio built in, command line and all, names the parameter.
const MMIO_PARAMETER: &[u8] = b"virtio_mmio.device";

/// A kernel in the cache.
pub(super) struct Kernel {
    pub(super) blob: Blob,
    pub(super) image: KernelImage,
    pub(super) name: String,
    pub(super) version: Option<String>,
    pub(super) cmdline_limit: u32,
    pub(super) takes_mmio_devices: bool,
}

pub(super) fn kernel_of_host(cache: &Cache, path: &Path, protocol: Protocol) -> Result<Kernel, PlanError> {
    let bytes = read_host_file("--kernel", path, kernel::MAX_KERNEL_FILE)?;
    let what = format!("--kernel {}", path.display());
    let info = kernel::parse(&bytes).map_err(|source| PlanError::Kernel { what: what.clone(), source })?;
    take(cache, &bytes, info, path.display().to_string(), protocol).map_err(|e| e.into_plan_error(what))
}

pub(super) fn kernel_of_image(
    cache: &Cache,
    image: &Image,
    entry: &BootEntry,
    disk: &Path,
    protocol: Protocol,
) -> Result<Kernel, PlanError> {
    let (bytes, info) =
        image.read_kernel(&entry.kernel).map_err(|source| PlanError::Image { path: disk.into(), source })?;
    let what = format!("{}: {}", disk.display(), entry.kernel);
    take(cache, &bytes, info, entry.kernel.to_string(), protocol).map_err(|e| e.into_plan_error(what))
}

enum UnpackError {
    Kernel(KernelError),
    Protocol(&'static str, &'static str),
    Cache(cache::Error),
}

impl From<cache::Error> for UnpackError {
    fn from(e: cache::Error) -> Self {
        Self::Cache(e)
    }
}

impl UnpackError {
    fn into_plan_error(self, what: String) -> PlanError {
        match self {
            Self::Kernel(source) => PlanError::Kernel { what, source },
            Self::Protocol(wanted, why) => PlanError::Protocol { what, wanted, why },
            Self::Cache(e) => PlanError::Cache(e),
        }
    }
}

/// Brings a kernel file into the cache in the form in which it is to be entered.
fn take(
    cache: &Cache,
    bytes: &[u8],
    info: KernelInfo,
    name: String,
    protocol: Protocol,
) -> Result<Kernel, UnpackError> {
    let is_64_bit = info.arch == Architecture::X86_64;
    let is_bzimage = info.format == kernel::Format::BzImage;
    let cmdline_limit = info.cmdline_limit.unwrap_or(if is_bzimage { OLD_CMDLINE_LIMIT } else { CMDLINE_LIMIT });
    let done = |blob, image, takes_mmio_devices| Kernel {
        blob,
        image,
        name,
        version: info.version,
        cmdline_limit,
        takes_mmio_devices,
    };
    let as_it_is = |cache: &Cache| cache.insert_content(|out| write(out, bytes));
    if protocol == Protocol::BzImage {
        if !is_bzimage {
            return Err(UnpackError::Protocol("bzimage", "is no bzImage"));
        }
        return Ok(done(as_it_is(cache)?, KernelImage::BzImage { is_64_bit }, false));
    }
    match unpack(cache, bytes) {
        Ok((blob, elf)) => {
            let info = kernel::elf_info(&elf).map_err(UnpackError::Kernel)?;
            let takes_mmio_devices = memmem::find(&elf, MMIO_PARAMETER).is_some();
            Ok(done(blob, elf_image(&info, protocol)?, takes_mmio_devices))
        }
        // Packed in a way that is not known here: it unpacks itself.
        Err(UnpackError::Kernel(KernelError::UnsupportedCompression(_))) if protocol == Protocol::Auto => {
            Ok(done(as_it_is(cache)?, KernelImage::BzImage { is_64_bit }, false))
        }
        Err(e) => Err(e),
    }
}

/// The ELF out of a kernel file, and its place in the cache.
fn unpack<'b>(cache: &Cache, bytes: &'b [u8]) -> Result<(Blob, Cow<'b, [u8]>), UnpackError> {
    let mut unpacked = None;
    let blob = cache.get_or_insert(BlobKind::Elf, &cache::sha256(bytes), |out| {
        let elf = kernel::extract_elf(bytes).map_err(UnpackError::Kernel)?;
        write(out, &elf)?;
        unpacked = Some(elf);
        Ok::<_, UnpackError>(())
    })?;
    let elf = match unpacked {
        Some(elf) => elf,
        None => Cow::Owned(read_blob(&blob)?),
    };
    Ok((blob, elf))
}

fn write(out: &mut dyn Write, bytes: &[u8]) -> Result<(), UnpackError> {
    out.write_all(bytes).map_err(|source| cache_error("write a kernel to", source).into())
}

fn read_blob(blob: &Blob) -> Result<Vec<u8>, UnpackError> {
    let mut bytes = Vec::new();
    let limit = blob.len.saturating_add(1);
    (&blob.file).take(limit).read_to_end(&mut bytes).map_err(|source| cache_error("read a kernel of", source))?;
    Ok(bytes)
}

fn cache_error(operation: &'static str, source: io::Error) -> cache::Error {
    cache::Error { operation, path: super::cache_dir(), source }
}

fn elf_image(info: &ElfInfo, protocol: Protocol) -> Result<KernelImage, UnpackError> {
    let segments = info.segments.iter().map(|s| Segment {
        file_offset: s.file_offset,
        file_size: s.file_size,
        addr: s.address,
        memory_size: s.memory_size,
    });
    let pvh_entry = info.pvh_entry.and_then(|entry| u32::try_from(entry).ok());
    if protocol == Protocol::Pvh && pvh_entry.is_none() {
        return Err(UnpackError::Protocol("pvh", "has no PVH entry"));
    }
    Ok(KernelImage::Elf {
        is_64_bit: info.arch == Architecture::X86_64,
        segments: segments.collect(),
        entry: info.entry,
        pvh_entry: pvh_entry.filter(|_| protocol != Protocol::Linux),
    })
}

/// In a few words, for reports.
pub(super) fn how_entered(image: &KernelImage) -> &'static str {
    match image {
        KernelImage::Elf { pvh_entry: Some(_), .. } => "ELF, PVH",
        KernelImage::Elf { is_64_bit: true, .. } => "ELF, 64-bit Linux boot protocol",
        KernelImage::Elf { .. } => "ELF, 32-bit Linux boot protocol",
        KernelImage::BzImage { is_64_bit: true } => "bzImage, 64-bit Linux boot protocol",
        KernelImage::BzImage { .. } => "bzImage, 32-bit Linux boot protocol",
    }
}

/// Initrds are kept by content, so that the second boot maps them out of the page cache.
pub(super) fn initrd_of_image(cache: &Cache, image: &Image, entry: &BootEntry, disk: &Path) -> Result<Blob, PlanError> {
    cache.insert_content(|out| match image.copy_initrds(&entry.initrds, out) {
        Ok(_) => Ok(()),
        Err(source) => Err(PlanError::Image { path: disk.into(), source }),
    })
}

pub(super) fn initrd_of_host(cache: &Cache, path: &Path) -> Result<Blob, PlanError> {
    let fail = |cause| PlanError::HostFile { option: "--initrd", path: path.into(), cause };
    let mut file = open_host_file("--initrd", path, MAX_INITRD)?;
    cache.insert_content(|out| match io::copy(&mut file, out) {
        Ok(0) => Err(fail(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"))),
        Ok(_) => Ok(()),
        Err(cause) => Err(fail(cause)),
    })
}

fn open_host_file(option: &'static str, path: &Path, limit: u64) -> Result<io::Take<File>, PlanError> {
    let fail = |cause| PlanError::HostFile { option, path: path.into(), cause };
    let file = super::open_at_once(path).map_err(fail)?;
    let meta = file.metadata().map_err(fail)?;
    if !meta.is_file() {
        let what = if meta.is_dir() { "it is a directory" } else { "it is a device or a pipe" };
        return Err(fail(io::Error::new(io::ErrorKind::InvalidInput, format!("{what}; give a regular file"))));
    }
    if meta.len() > limit {
        let why = format!("it has {} bytes; the limit is {limit}", meta.len());
        return Err(fail(io::Error::new(io::ErrorKind::FileTooLarge, why)));
    }
    Ok(file.take(limit))
}

fn read_host_file(option: &'static str, path: &Path, limit: u64) -> Result<Vec<u8>, PlanError> {
    let mut bytes = Vec::new();
    let read = open_host_file(option, path, limit)?.read_to_end(&mut bytes);
    read.map_err(|cause| PlanError::HostFile { option, path: path.into(), cause })?;
    Ok(bytes)
}
