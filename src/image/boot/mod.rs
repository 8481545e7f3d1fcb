//! Boot entries: what the boot loaders' configurations on a disk would start.
//!
//! Three kinds are read: GRUB legacy ([`menu_lst`]), which classic paravirtual AMIs have for PV-GRUB; GRUB 2 ([`grub`]);
//! and the files of the Boot Loader Specification ([`bls`]), by themselves or through GRUB's `blscfg`.

mod bls;
mod grub;
mod grubenv;
mod menu_lst;
#[cfg(test)]
mod testing;
mod version;

use std::collections::BTreeMap;

use super::fs::Kind;
use super::inspection::{BootEntry, FileRef};
pub(super) use super::inspection::{EntryKind, Source};

/// The largest configuration file that is read, in bytes.
pub(super) const MAX_CONFIG: u64 = 1 << 20;
/// Entries that are kept at most.
const MAX_BOOT_ENTRIES: usize = 512;
/// Initrds of one entry that are kept at most.
const MAX_INITRDS: usize = 64;

/// What is wrong with an entry of `count` initrds.
fn too_many_initrds(count: usize) -> Option<String> {
    (count > MAX_INITRDS).then(|| format!("it names more than {MAX_INITRDS} initrds"))
}

/// What the readers of configurations ask of a disk.
pub(super) trait Files {
    fn read(&mut self, partition: u32, path: &str, limit: u64) -> Option<Vec<u8>>;
    fn list(&mut self, partition: u32, path: &str) -> Vec<String>;
    fn kind(&mut self, file: &FileRef) -> Option<Kind>;
    fn size(&mut self, file: &FileRef) -> Option<u64>;
    fn by_uuid(&mut self, uuid: &str) -> Option<u32>;
    fn by_label(&mut self, label: &str) -> Option<u32>;
    /// The first partition that has the file.
    fn by_file(&mut self, path: &str) -> Option<u32>;
    /// The partition with that number, if there is one.
    fn partition(&mut self, number: u32) -> Option<u32>;

    /// The partition that a GRUB 2 device name means: `hd0,gpt1`, `hd0,msdos5`, `hd0,1`, `xen/xvda,msdos1` or `hd0`.
    fn device(&mut self, name: &str) -> Option<u32> {
        let (disk, part) = match name.split_once(',') {
            Some((disk, part)) => (disk, part.trim_start_matches(|c: char| !c.is_ascii_digit())),
            None => (name, "0"),
        };
        // Only this disk is known; the first one of whatever bus.
        if disk.is_empty() || disk.strip_prefix("hd").is_some_and(|n| n != "0") {
            return None;
        }
        let number = part.parse().ok()?;
        // Without a partition table there is only the one volume, whatever the configuration was written for.
        self.partition(number).or_else(|| self.partition(0))
    }
}

/// An entry as its configuration describes it; nothing is checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Draft {
    pub title: String,
    pub id: Option<String>,
    pub kind: EntryKind,
    pub source: Source,
    pub kernel: FileRef,
    pub initrds: Vec<FileRef>,
    pub cmdline: String,
    pub problem: Option<String>,
    /// Index, among the drafts of the same file, of the one to try after this one.
    pub retry: Option<usize>,
}

/// The GRUB 2 name of a partition of this disk.
fn device_name(partition: u32) -> String {
    if partition == 0 { "hd0".to_owned() } else { format!("hd0,{partition}") }
}

/// Partitions in the order in which their configuration counts.
pub(super) struct Places {
    /// `/boot`, the root, then the others.
    pub ordered: Vec<u32>,
    /// The EFI system partition.
    pub esp: Option<u32>,
    /// Whether the disk has no partition table, and so is for PV-GRUB, which reads GRUB legacy's file.
    pub whole_disk: bool,
}

/// Every entry on the disk, and the index of the default one.
pub(super) fn discover(files: &mut dyn Files, places: &Places) -> (Vec<BootEntry>, Option<usize>) {
    let mut found = Found::default();
    if places.whole_disk {
        found.legacy(files, places);
        found.grub(files, places);
    } else {
        found.grub(files, places);
        found.legacy(files, places);
    }
    found.bare_bls(files, places);
    let default = found.default;
    if let Some(entry) = default.and_then(|i| found.entries.get_mut(i)) {
        entry.default = true;
    }
    (found.entries, default)
}

#[derive(Default)]
struct Found {
    entries: Vec<BootEntry>,
    default: Option<usize>,
}

const GRUB_CFG: [&str; 4] = ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/grub/grub.cfg", "/grub2/grub.cfg"];
const MENU_LST: [&str; 4] = ["/boot/grub/menu.lst", "/boot/grub/grub.conf", "/grub/menu.lst", "/grub/grub.conf"];
const BLS_DIRS: [&str; 2] = ["/loader/entries", "/boot/loader/entries"];

impl Found {
    /// Adds the entries of one menu; its default is the disk's if no menu before had one.
    fn add(&mut self, drafts: Vec<Draft>, default: Option<usize>) {
        let base = self.entries.len();
        if self.default.is_none() {
            self.default = default.map(|i| base + i).filter(|&i| i < MAX_BOOT_ENTRIES);
        }
        let room = MAX_BOOT_ENTRIES.saturating_sub(base);
        self.entries.extend(drafts.into_iter().take(room).map(|draft| BootEntry {
            title: draft.title,
            id: draft.id,
            kind: draft.kind,
            source: draft.source,
            kernel: draft.kernel,
            initrds: draft.initrds,
            cmdline: draft.cmdline,
            default: false,
            retry_entry: draft.retry.map(|i| base + i).filter(|&i| i < MAX_BOOT_ENTRIES),
            kernel_info: None,
            problem: draft.problem,
        }));
    }

    fn grub(&mut self, files: &mut dyn Files, places: &Places) {
        let before = self.entries.len();
        for &partition in places.ordered.iter().filter(|&&p| Some(p) != places.esp) {
            for path in GRUB_CFG {
                self.grub_file(files, partition, path);
                if self.entries.len() > before {
                    return;
                }
            }
        }
        // What the firmware would start from the EFI system partition; it usually only leads on to the file above.
        let Some(esp) = places.esp else { return };
        let vendors = files.list(esp, "/EFI");
        let in_vendors = vendors.iter().map(|vendor| format!("/EFI/{vendor}/grub.cfg"));
        for path in in_vendors.chain(GRUB_CFG.map(str::to_owned)) {
            self.grub_file(files, esp, &path);
            if self.entries.len() > before {
                return;
            }
        }
    }

    fn grub_file(&mut self, files: &mut dyn Files, partition: u32, path: &str) {
        if let Some(menu) = grub::menu(files, partition, path) {
            self.add(menu.drafts, menu.default);
        }
    }

    fn legacy(&mut self, files: &mut dyn Files, places: &Places) {
        for &partition in &places.ordered {
            for path in MENU_LST {
                let Some((drafts, default)) = menu_lst::menu(files, partition, path) else { continue };
                if !drafts.is_empty() {
                    // The other names are links to the same file.
                    return self.add(drafts, default);
                }
            }
        }
    }

    /// Files of the Boot Loader Specification that no GRUB configuration has led to, as systemd-boot reads them.
    fn bare_bls(&mut self, files: &mut dyn Files, places: &Places) {
        if self.entries.iter().any(|e| e.kind == EntryKind::Bls) {
            return;
        }
        for partition in places.esp.iter().chain(&places.ordered).copied() {
            for directory in BLS_DIRS {
                let variables = environment(files, partition);
                let drafts = bls::entries(files, partition, directory, &variables);
                if !drafts.is_empty() {
                    let saved = variables.get("saved_entry").map(String::as_str);
                    let default = bls::default(files, partition, directory, &drafts, saved);
                    return self.add(drafts, default);
                }
            }
        }
    }
}

/// The variables in a partition's `grubenv`, wherever it keeps it.
fn environment(files: &mut dyn Files, partition: u32) -> BTreeMap<String, String> {
    ["/grub2/grubenv", "/boot/grub2/grubenv", "/grub/grubenv", "/boot/grub/grubenv"]
        .iter()
        .find_map(|path| files.read(partition, path, MAX_CONFIG))
        .map(|text| grubenv::parse(&String::from_utf8_lossy(&text)).into_iter().collect())
        .unwrap_or_default()
}
