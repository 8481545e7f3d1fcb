//! Linux kernels for x86 as files: what they are, whether they are whole, and the ELF inside them.
//!
//! A distribution ships its kernel as a *bzImage*: real-mode set-up code with a header (`bzimage`), then a small
//! protected-mode decompressor that carries the real kernel, an ELF file, as its compressed *payload* (`payload`).
//! Unpacking that ELF (`elf`) beforehand spares the guest the decompression, and shows whether it has a PVH entry.
//!
//! Everything here works on bytes that a disk image brought along: lengths are checked before use and output is bounded.

mod bzimage;
mod elf;
mod payload;
#[cfg(test)]
pub(crate) mod testing;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use bzimage::SetupHeader;
pub use elf::ElfInfo;
pub use payload::{Compression, MAX_UNPACKED};

/// The largest kernel file that is read, in bytes.
pub const MAX_KERNEL_FILE: u64 = 256 << 20;

/// How much of the start of a kernel file `probe` wants to see, in bytes.
pub const PROBE_LEN: usize = 64 << 10;

/// The instruction set that a kernel or a program was built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Architecture {
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 32-bit x86.
    #[serde(rename = "i386")]
    I386,
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86_64",
            Self::I386 => "i386",
        })
    }
}

/// The container a kernel comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// A compressed kernel with the Linux/x86 boot protocol's header.
    #[serde(rename = "bzImage")]
    BzImage,
    /// The plain `vmlinux` ELF file.
    #[serde(rename = "ELF")]
    Elf,
}

/// What a kernel file says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelInfo {
    /// Container.
    pub format: Format,
    /// Instruction set.
    pub arch: Architecture,
    /// The release and build text, for example `6.1.0-25-amd64 (...) #1 SMP ...`; a bzImage only.
    pub version: Option<String>,
    /// How the payload of a bzImage is packed.
    pub compression: Option<Compression>,
    /// Boot protocol version of a bzImage, for example `2.15`.
    pub protocol: Option<String>,
    /// Longest command line in bytes without the terminating NUL; a bzImage of protocol 2.06 or later.
    pub cmdline_limit: Option<u32>,
    /// Memory in bytes that the kernel needs from its load address on before it reads its memory map; 2.10 or later.
    pub init_size: Option<u32>,
    /// The 32-bit PVH entry point; known for an ELF only (for a bzImage: after [`extract_elf`]).
    pub pvh_entry: Option<u64>,
}

/// Why a file cannot be used as a kernel.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KernelError {
    /// Nothing in it.
    #[error("the kernel file is empty (0 bytes)")]
    Empty,
    /// Neither a bzImage nor an ELF file.
    #[error("not a Linux kernel for x86: {0}")]
    NotAKernel(String),
    /// A kernel, but for another processor.
    #[error("the kernel is built for {0}; only x86_64 and i386 kernels can run here")]
    OtherArchitecture(String),
    /// The file ends before what its header promises.
    #[error("the kernel is truncated: {what} ends at byte {need}, the file has {have} bytes")]
    Truncated {
        /// The part that is cut off.
        what: &'static str,
        /// Where that part ends.
        need: u64,
        /// Size of the file.
        have: u64,
    },
    /// A header field holds what cannot be.
    #[error("the kernel's header is wrong: {field} is {value:#x}: {why}")]
    BadHeader {
        /// The field, as the specification names it.
        field: &'static str,
        /// What it holds.
        value: u64,
        /// What is wrong with that.
        why: &'static str,
    },
    /// The payload is packed in a way that cannot be unpacked here; the bzImage itself can still be entered.
    #[error("unsupported kernel compression {0}; the bzImage can only be started through its own decompressor")]
    UnsupportedCompression(String),
    /// The payload cannot be unpacked.
    #[error("the kernel's {compression} payload is damaged: {why}")]
    BadPayload {
        /// How it is packed.
        compression: Compression,
        /// What the decoder said.
        why: String,
    },
}

/// Reads what a whole kernel file says about itself.
///
/// # Errors
/// Any [`KernelError`] but `BadPayload` and `UnsupportedCompression`: the payload is not unpacked.
pub fn parse(bytes: &[u8]) -> Result<KernelInfo, KernelError> {
    probe(bytes, u64::try_from(bytes.len()).unwrap_or(u64::MAX))
}

/// As [`parse`], from the first [`PROBE_LEN`] bytes of a file of `file_size` bytes. An ELF kernel wants the whole file.
///
/// # Errors
/// As [`parse`].
pub fn probe(head: &[u8], file_size: u64) -> Result<KernelInfo, KernelError> {
    if head.is_empty() {
        return Err(KernelError::Empty);
    }
    if elf::is_elf(head) {
        let info = elf::parse(head)?;
        return Ok(KernelInfo {
            format: Format::Elf,
            arch: info.arch,
            version: None,
            compression: None,
            protocol: None,
            cmdline_limit: None,
            init_size: None,
            pvh_entry: info.pvh_entry,
        });
    }
    if let Some(arch) = foreign(head) {
        return Err(KernelError::OtherArchitecture(arch.to_owned()));
    }
    let header = SetupHeader::parse(head, file_size)?;
    let compression = header.payload.as_ref().and_then(|p| {
        let start = usize::try_from(p.start).ok()?;
        payload::detect(head.get(start..)?)
    });
    let arch = match header.long_mode {
        Some(true) => Architecture::X86_64,
        Some(false) => Architecture::I386,
        // Protocols before 2.12 do not say: the payload's first bytes do.
        None => header
            .payload
            .as_ref()
            .and_then(|p| head.get(usize::try_from(p.start).ok()?..))
            .and_then(payload::peek)
            .and_then(|start| elf::architecture(&start).ok())
            .unwrap_or(Architecture::I386),
    };
    Ok(KernelInfo {
        format: Format::BzImage,
        arch,
        version: header.version,
        compression,
        protocol: Some(format!("{}.{}", header.protocol >> 8, header.protocol & 0xff)),
        cmdline_limit: header.cmdline_size,
        init_size: header.init_size,
        pvh_entry: None,
    })
}

/// The ELF file in a kernel: the bytes themselves for an ELF, the unpacked payload for a bzImage. It has been checked
/// with [`ElfInfo`]'s rules: loading its segments stays within the bytes and they do not overlap.
///
/// # Errors
/// Any [`KernelError`]; `UnsupportedCompression` says that the bzImage should be entered as it is.
pub fn extract_elf(bytes: &[u8]) -> Result<Cow<'_, [u8]>, KernelError> {
    if elf::is_elf(bytes) {
        elf::parse(bytes)?;
        return Ok(Cow::Borrowed(bytes));
    }
    parse(bytes)?;
    let header = SetupHeader::parse(bytes, u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
    let packed = header
        .payload
        .as_ref()
        .and_then(|p| bytes.get(usize::try_from(p.start).ok()?..usize::try_from(p.end()?).ok()?))
        .ok_or_else(|| {
            KernelError::UnsupportedCompression("of a boot protocol before 2.08 (no payload field)".to_owned())
        })?;
    let unpacked = payload::unpack(packed)?;
    elf::parse(&unpacked)?;
    Ok(Cow::Owned(unpacked))
}

/// Reads an ELF kernel's header and program headers.
///
/// # Errors
/// As [`parse`].
pub fn elf_info(bytes: &[u8]) -> Result<ElfInfo, KernelError> {
    elf::parse(bytes)
}

/// The architecture of a program (not only of a kernel) by its ELF header.
///
/// # Errors
/// `NotAKernel` where it is no ELF file, `OtherArchitecture` where it is not for x86.
pub fn program_architecture(head: &[u8]) -> Result<Architecture, KernelError> {
    elf::architecture(head)
}

/// Kernels of other architectures that can be told by their magic, and files often taken for a kernel.
fn foreign(head: &[u8]) -> Option<&'static str> {
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|s| s.starts_with(magic));
    if at(0x38, b"ARM\x64") {
        return Some("aarch64 (an arm64 Image)");
    }
    if at(0x38, b"RSC\x05") {
        return Some("riscv (an Image)");
    }
    if at(0x24, &0x016f_2818_u32.to_le_bytes()) {
        return Some("arm (a zImage)");
    }
    if at(0, &0x2705_1956_u32.to_be_bytes()) {
        return Some("another boot loader (a U-Boot uImage)");
    }
    // An EFI program: the COFF header's machine field tells. Kernels for x86 have 0x8664 or 0x14c.
    if at(0, b"MZ") && !at(0x202, b"HdrS") {
        let pe = u32::from_le_bytes(head.get(0x3c..0x40)?.try_into().ok()?);
        let coff = head.get(usize::try_from(pe).ok()?..)?;
        let machine = coff.strip_prefix(b"PE\0\0")?.get(..2)?;
        return match u16::from_le_bytes(machine.try_into().ok()?) {
            0xaa64 => Some("aarch64 (an EFI program)"),
            0x01c0 | 0x01c2 | 0x01c4 => Some("arm (an EFI program)"),
            0x5064 => Some("riscv64 (an EFI program)"),
            0x6264 => Some("loongarch64 (an EFI program)"),
            _ => None,
        };
    }
    None
}

/// A byte of a header; beyond the end of the file it reads as zero, as do the numbers below.
fn byte_at(bytes: &[u8], offset: usize) -> u8 {
    bytes.get(offset).copied().unwrap_or(0)
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([byte_at(bytes, offset), byte_at(bytes, offset + 1)])
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from(u16_at(bytes, offset)) | u32::from(u16_at(bytes, offset + 2)) << 16
}

#[cfg(test)]
mod tests;
