//! `boot_params`, the "zero page" of the Linux boot protocols (Linux, `Documentation/arch/x86/zero-page.rst`).

use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::GuestAddress;

use super::{BootError, InitrdRange};
use crate::vmm::machine::pv;
use crate::vmm::memory::GuestMemory;

const HEADER_MAGIC: u32 = 0x5372_6448;
const BOOT_FLAG: u16 = 0xaa55;
/// "No assigned id" of `type_of_loader`.
const LOADER_UNDEFINED: u8 = 0xff;
/// 2.15, whose fields are the ones written here.
const PROTOCOL_VERSION: u16 = 0x020f;

/// Writes the zero page. `header` is the kernel's own setup header, where it has one (a bzImage does, an ELF does not).
pub(super) fn write(
    memory: &GuestMemory,
    memory_size: u64,
    header: Option<setup_header>,
    initrd: Option<InitrdRange>,
    rsdp: u64,
    cmdline_len: usize,
) -> Result<(), BootError> {
    let too_large = |what: &str| BootError::BadKernel(format!("{what} does not fit the zero page"));
    let mut params = boot_params { hdr: header.unwrap_or_default(), ..Default::default() };
    if header.is_none() {
        params.hdr.boot_flag = BOOT_FLAG;
        params.hdr.header = HEADER_MAGIC;
        params.hdr.version = PROTOCOL_VERSION;
        params.hdr.kernel_alignment = 0x20_0000;
        // Loaded high.
        params.hdr.loadflags = 1;
    }
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.cmd_line_ptr = u32::try_from(pv::COMMAND_LINE).map_err(|_| too_large("the command line"))?;
    if header.is_none() {
        params.hdr.cmdline_size = u32::try_from(cmdline_len + 1).map_err(|_| too_large("the command line"))?;
    }
    if let Some(initrd) = initrd {
        params.hdr.ramdisk_image = u32::try_from(initrd.addr).map_err(|_| too_large("the initrd"))?;
        params.hdr.ramdisk_size = u32::try_from(initrd.len).map_err(|_| too_large("the initrd"))?;
    }
    params.acpi_rsdp_addr = rsdp;
    let map = pv::memory_map(memory_size);
    for (slot, entry) in params.e820_table.iter_mut().zip(&map) {
        *slot = boot_e820_entry { addr: entry.addr, size: entry.len, r#type: entry.kind as u32 };
    }
    params.e820_entries = u8::try_from(map.len()).map_err(|_| too_large("the memory map"))?;
    LinuxBootConfigurator::write_bootparams(&BootParams::new(&params, GuestAddress(pv::ZERO_PAGE)), memory)
        .map_err(|e| BootError::BadKernel(e.to_string()))
}
