//! The PVH boot protocol (Xen, "x86/HVM direct boot ABI"): 32-bit entry with a start-info structure.

use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::GuestAddress;

use super::{BootError, InitrdRange};
use crate::vmm::machine::pv;
use crate::vmm::memory::GuestMemory;
use crate::vmm::vcpu::registers::Entry;

const START_MAGIC: u32 = 0x336e_c578;

pub(super) fn set_up(
    memory: &GuestMemory,
    memory_size: u64,
    entry: u32,
    initrd: Option<InitrdRange>,
    rsdp: u64,
) -> Result<Entry, BootError> {
    let map: Vec<hvm_memmap_table_entry> = pv::memory_map(memory_size)
        .iter()
        .map(|e| hvm_memmap_table_entry { addr: e.addr, size: e.len, type_: e.kind as u32, reserved: 0 })
        .collect();
    let mut info = hvm_start_info {
        magic: START_MAGIC,
        version: 1,
        cmdline_paddr: pv::COMMAND_LINE,
        memmap_paddr: pv::PVH_MEMORY_MAP,
        memmap_entries: u32::try_from(map.len()).unwrap_or(0),
        rsdp_paddr: rsdp,
        ..Default::default()
    };
    if initrd.is_some() {
        info.nr_modules = 1;
        info.modlist_paddr = pv::PVH_MODULES;
    }
    let mut params = BootParams::new(&info, GuestAddress(pv::PVH_START_INFO));
    params.set_sections(&map, GuestAddress(pv::PVH_MEMORY_MAP));
    if let Some(initrd) = initrd {
        let module = hvm_modlist_entry { paddr: initrd.addr, size: initrd.len, ..Default::default() };
        params.set_modules(&[module], GuestAddress(pv::PVH_MODULES));
    }
    PvhBootConfigurator::write_bootparams(&params, memory).map_err(|e| BootError::BadKernel(e.to_string()))?;
    super::linux::write_gdt(memory, super::linux::CODE_32)?;
    Ok(Entry::Pvh { entry: u64::from(entry), start_info: pv::PVH_START_INFO })
}
