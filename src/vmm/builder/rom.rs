//! Firmware in the address map: a ROM that ends at 4 GiB, and below it the flash chip of its variables.

use std::io;
use std::sync::Arc;

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::{BuildError, Firmware, give_memory};
use crate::vmm::bus::Bus;
use crate::vmm::devices::flash::{Contents, Flash, Show};
use crate::vmm::machine::hvm;
use crate::vmm::memory::{self, GuestMemory, MemoryError};
use crate::vmm::virtio::Log;

/// Where firmware and variables begin.
fn bases(firmware: &Firmware) -> Result<(u64, u64), BuildError> {
    let (firmware_len, variables_len) =
        (firmware.image.bytes().len() as u64, firmware.variables.as_ref().map_or(0, Contents::len));
    let out_of_range = MemoryError::OutOfRange { addr: hvm::FOUR_GIB - hvm::ROM_MAX, len: firmware_len };
    Ok(hvm::firmware_bases(firmware_len, variables_len).ok_or(out_of_range)?)
}

/// The ROM below 4 GiB, which cannot be written to, and a copy of its end below 1 MiB, which can.
pub(super) fn place(vm: &VmFd, memory: &GuestMemory, firmware: &Firmware) -> Result<GuestMemory, BuildError> {
    let bytes = firmware.image.bytes();
    let base = GuestAddress(bases(firmware)?.0);
    let rom = memory::allocate(&[(base, bytes.len())])?;
    rom.write_slice(bytes, base).map_err(MemoryError::from)?;
    let low = usize::try_from(hvm::LOW_ROM.end - hvm::LOW_ROM.start).unwrap_or(0);
    let end = bytes.get(bytes.len().saturating_sub(low)..).unwrap_or_default();
    memory.write_slice(end, GuestAddress(hvm::LOW_ROM.start)).map_err(MemoryError::from)?;
    give_memory(vm, &rom, hvm::ROM_SLOT, KVM_MEM_READONLY)?;
    Ok(rom)
}

/// The flash chip, where the firmware has one: its contents are memory that cannot be written to, writes are the chip's.
pub(super) fn add_variables(vm: &Arc<VmFd>, mmio: &mut Bus, firmware: &Firmware, log: Log) -> Result<(), BuildError> {
    let Some(contents) = &firmware.variables else { return Ok(()) };
    let base = bases(firmware)?.1;
    let show = show(vm.clone(), base, contents.clone());
    show(true).map_err(|cause| BuildError::Kvm { what: "take the firmware's variables", cause })?;
    mmio.claim(base, contents.len(), Arc::new(Flash::new(contents.clone(), show, log)))?;
    Ok(())
}

/// What makes the contents memory of the guest at `base`, and takes them away.
fn show(vm: Arc<VmFd>, base: u64, contents: Contents) -> Show {
    Box::new(move |shown| {
        let region = contents.memory().iter().next().ok_or(io::ErrorKind::NotFound)?;
        let region = kvm_userspace_memory_region {
            slot: hvm::VARIABLES_SLOT,
            guest_phys_addr: base,
            // A slot without a size is taken away (KVM_SET_USER_MEMORY_REGION).
            memory_size: if shown { region.len() } else { 0 },
            userspace_addr: region.as_ptr() as u64,
            flags: KVM_MEM_READONLY,
        };
        // SAFETY: the range is a mapping that `contents` owns, of which this closure and the Machine's last act hold a
        // handle; both are let go only after every processor thread has ended, after which nothing of the guest runs. No
        // other slot lies there: firmware_bases() keeps it between the ROM and all else.
        unsafe { vm.set_user_memory_region(region) }.map_err(|e| io::Error::from_raw_os_error(e.errno()))
    })
}

/// What is done with variables once their machine has ended: they are made to outlast the host's end too.
pub(super) fn keeping(contents: Contents, log: Log) -> Box<dyn Fn() + Send> {
    Box::new(move || {
        if let Err(cause) = contents.sync() {
            log(&format!("firmware variables: they could not be made durable: {cause}"));
        }
    })
}
