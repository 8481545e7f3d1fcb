//! Putting a kernel into guest memory, and saying how its first processor starts.

mod layout;
mod linux;
mod pvh;
#[cfg(test)]
mod tests;
mod zero_page;

use std::fs::File;

pub use layout::{KernelImage, Segment};

use super::memory::{GuestMemory, MemoryError};
use super::vcpu::registers::Entry;

/// What to boot: open files, so that nothing is looked up once the machine is being built.
#[derive(Debug)]
pub struct BootSource {
    /// The kernel's file: an ELF or a bzImage, as [`KernelImage`] says.
    pub kernel: File,
    /// What is in it.
    pub image: KernelImage,
    /// The initial RAM disk.
    pub initrd: Option<File>,
    /// The kernel command line.
    pub cmdline: String,
    /// The longest command line the kernel takes, in bytes without the final NUL.
    pub cmdline_limit: u32,
    /// Whether the kernel takes `virtio_mmio.device=` on its command line.
    pub takes_mmio_devices: bool,
}

/// Why a kernel could not be put into memory.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel wants memory the guest does not have.
    #[error(
        "the kernel needs memory from {start:#x} to {end:#x}, and the guest's ends at {memory_end:#x}; give it more with --memory"
    )]
    KernelTooLarge {
        /// First address.
        start: u64,
        /// End address.
        end: u64,
        /// End of low memory.
        memory_end: u64,
    },
    /// The kernel wants memory that tables and firmware have on a PC.
    #[error(
        "the kernel is built to be loaded at {start:#x}; below {:#x} there is no room for one. As a bzImage it may place \
         itself (--protocol bzimage)",
        crate::vmm::machine::pv::HIGH_MEMORY
    )]
    KernelTooLow {
        /// First address.
        start: u64,
    },
    /// The kernel's file says something that cannot be.
    #[error("the kernel file is damaged: {0}")]
    BadKernel(String),
    /// No room for the initrd.
    #[error(
        "the initrd has {size} bytes, and {room} bytes of guest memory are free for it above the kernel; give the guest more with --memory"
    )]
    InitrdTooLarge {
        /// Its size in bytes.
        size: u64,
        /// Free bytes.
        room: u64,
    },
    /// The command line is over the kernel's limit.
    #[error("the kernel command line has {len} bytes, and this kernel takes at most {limit}")]
    CommandLineTooLong {
        /// Its length in bytes.
        len: usize,
        /// The kernel's limit in bytes.
        limit: u32,
    },
    /// The command line holds what it cannot.
    #[error("the kernel command line cannot be used: {0}")]
    BadCommandLine(String),
    /// The ACPI tables do not fit.
    #[error("the ACPI tables need {0} bytes")]
    TablesTooLarge(usize),
    /// Reading a file.
    #[error("cannot read the {what}: {cause}")]
    Read {
        /// Which file.
        what: &'static str,
        /// What the host said.
        cause: std::io::Error,
    },
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl From<vm_memory::GuestMemoryError> for BootError {
    fn from(e: vm_memory::GuestMemoryError) -> Self {
        Self::Memory(e.into())
    }
}

/// Where the initrd was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InitrdRange {
    pub(crate) addr: u64,
    pub(crate) len: u64,
}

/// Loads everything into guest memory: kernel, initrd, command line, and the tables of its boot protocol.
///
/// `memory_size` is the guest's memory in bytes; `rsdp` the address of its ACPI tables.
///
/// # Errors
/// [`BootError`]; guest memory may then be partly written.
pub fn load(memory: &GuestMemory, memory_size: u64, source: &BootSource, rsdp: u64) -> Result<Entry, BootError> {
    let kernel = layout::load_kernel(memory, memory_size, &source.kernel, &source.image)?;
    let initrd = source
        .initrd
        .as_ref()
        .map(|file| layout::load_initrd(memory, memory_size, file, kernel.end, kernel.initrd_max))
        .transpose()?;
    layout::write_cmdline(memory, &source.cmdline, source.cmdline_limit)?;
    match kernel.entry {
        layout::LoadedEntry::Pvh(entry) => pvh::set_up(memory, memory_size, entry, initrd, rsdp),
        layout::LoadedEntry::Linux64(entry) => {
            linux::set_up_64(memory)?;
            zero_page::write(memory, memory_size, kernel.setup_header, initrd, rsdp, source.cmdline.len())?;
            Ok(Entry::Linux64 { entry })
        }
        layout::LoadedEntry::Linux32(entry) => {
            linux::set_up_32(memory)?;
            zero_page::write(memory, memory_size, kernel.setup_header, initrd, rsdp, source.cmdline.len())?;
            Ok(Entry::Linux32 { entry })
        }
    }
}
