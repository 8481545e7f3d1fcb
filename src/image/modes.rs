//! Which ways of booting a disk offers.

use super::fs::Tree;
use super::inspection::{BootEntry, BootMode, BootModes};
use super::partition::{TYPE_BIOS_BOOT, Table, TableKind};
use super::volumes::Volumes;

/// The ways of booting by the disk's own boot loader, and nothing else of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirmwareModes {
    /// Under a PC BIOS.
    pub bios: BootMode,
    /// Under UEFI.
    pub uefi: BootMode,
}

/// Judges the three ways by what was found.
pub(super) fn judge(table: &Table, volumes: &mut Volumes, esp: Option<u32>, entries: &[BootEntry]) -> BootModes {
    let FirmwareModes { bios, uefi } = by_firmware(table, volumes, esp);
    BootModes { pv: pv(entries), hvm_bios: bios, hvm_uefi: uefi }
}

/// Judges the ways of booting that need firmware.
pub(super) fn by_firmware(table: &Table, volumes: &mut Volumes, esp: Option<u32>) -> FirmwareModes {
    FirmwareModes { bios: hvm_bios(table, volumes), uefi: hvm_uefi(volumes, esp) }
}

fn yes(reason: impl Into<String>) -> BootMode {
    BootMode { possible: true, reason: reason.into() }
}

fn no(reason: impl Into<String>) -> BootMode {
    BootMode { possible: false, reason: reason.into() }
}

fn pv(entries: &[BootEntry]) -> BootMode {
    let bootable = |e: &&BootEntry| e.problem.is_none() && e.kernel_info.is_some();
    let chosen = entries.iter().find(|e| e.default && bootable(e)).or_else(|| entries.iter().find(bootable));
    match (chosen, entries.iter().find(|e| e.default).or(entries.first())) {
        (Some(entry), _) => {
            let arch = entry.kernel_info.as_ref().map_or_else(String::new, |k| k.arch.to_string());
            yes(format!("entry \"{}\" has the {arch} kernel {}", entry.title, entry.kernel.path))
        }
        (None, Some(entry)) => {
            let why = entry.problem.as_deref().unwrap_or("its kernel could not be read");
            no(format!(
                "none of the {} boot entries can be booted; the first, \"{}\": {why}",
                entries.len(),
                entry.title
            ))
        }
        (None, None) => {
            no("no boot entry was found: neither grub.cfg, menu.lst nor loader/entries names a Linux kernel")
        }
    }
}

fn hvm_bios(table: &Table, volumes: &Volumes) -> BootMode {
    let only_fat = table.kind == TableKind::None
        && volumes.all.iter().any(|v| v.identity.as_ref().is_some_and(|i| i.kind == "vfat"));
    if !table.boot_code || only_fat {
        return no("the first sector holds no boot code");
    }
    let bios_boot = table.partitions.iter().find(|p| p.type_id.as_deref() == Some(TYPE_BIOS_BOOT));
    match (table.kind, bios_boot) {
        (TableKind::Gpt, Some(p)) => {
            yes(format!("boot code in the first sector, and partition {} for its second stage (BIOS boot)", p.number))
        }
        (TableKind::Gpt, None) => yes("boot code in the first sector (there is no BIOS boot partition)"),
        (TableKind::Mbr | TableKind::None, _) => yes("boot code in the first sector"),
    }
}

fn hvm_uefi(volumes: &mut Volumes, esp: Option<u32>) -> BootMode {
    let Some(esp) = esp else { return no("there is no EFI system partition") };
    let tree = match volumes.tree(esp) {
        Ok(tree) => tree,
        Err(e) => return no(e.to_string()),
    };
    let directories = names(tree, "/EFI");
    for directory in &directories {
        if directory.eq_ignore_ascii_case("BOOT") {
            let files = names(tree, &format!("/EFI/{directory}"));
            if let Some(file) = files.iter().find(|f| f.eq_ignore_ascii_case("BOOTX64.EFI")) {
                return yes(format!("/EFI/{directory}/{file} on partition {esp}"));
            }
        }
    }
    for directory in &directories {
        let files = names(tree, &format!("/EFI/{directory}"));
        let loader = files.iter().find(|f| {
            let name = f.to_ascii_lowercase();
            name.ends_with("x64.efi")
        });
        if let Some(file) = loader {
            return yes(format!(
                "/EFI/{directory}/{file} on partition {esp}; without EFI/BOOT/BOOTX64.EFI the firmware needs a boot variable"
            ));
        }
    }
    no(format!("the EFI system partition {esp} has neither EFI/BOOT/BOOTX64.EFI nor another x86-64 loader"))
}

fn names(tree: &mut Tree, directory: &str) -> Vec<String> {
    tree.list(directory).unwrap_or_default()
}
