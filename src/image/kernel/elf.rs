//! The ELF file that a kernel is: its header, segments and PVH note (System V ABI, "Object Files"; the x86 PVH boot ABI).

use super::{Architecture, KernelError, u16_at, u32_at};

const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Xen's note type that carries the 32-bit entry point of the PVH boot ABI.
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
/// More program headers than any kernel has.
const MAX_SEGMENTS: u16 = 128;
/// No kernel is loaded above this physical address: entry is in 32-bit mode, or just after it.
const MAX_LOAD_END: u64 = 4 << 30;

/// The facts of an ELF kernel that matter for starting it. Where one exists: every `PT_LOAD` segment lies within the
/// file, its memory size is no less than its file size, ends below 4 GiB, and overlaps no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElfInfo {
    /// 64-bit or 32-bit x86.
    pub arch: Architecture,
    /// `e_entry`: for a kernel a physical address.
    pub entry: u64,
    /// The PVH entry point, a physical address, from the note `XEN_ELFNOTE_PHYS32_ENTRY`.
    pub pvh_entry: Option<u64>,
    /// The lowest physical address that is loaded.
    pub load_start: u64,
    /// The byte after the highest physical address that is loaded or zeroed.
    pub load_end: u64,
    /// What is to be loaded.
    pub segments: Vec<LoadSegment>,
}

/// A `PT_LOAD` segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadSegment {
    /// Where it is in the file, in bytes.
    pub file_offset: u64,
    /// How much of it is in the file, in bytes.
    pub file_size: u64,
    /// Physical address.
    pub address: u64,
    /// Its size in memory, in bytes; what is not in the file is zero.
    pub memory_size: u64,
}

struct Segment {
    kind: u32,
    offset: u64,
    physical: u64,
    file_size: u64,
    memory_size: u64,
    align: u64,
}

/// Whether the bytes begin with the ELF magic.
pub(super) fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// The architecture that the ELF header names.
pub(super) fn architecture(head: &[u8]) -> Result<Architecture, KernelError> {
    if !is_elf(head) {
        return Err(KernelError::NotAKernel("the ELF magic is missing".to_owned()));
    }
    let ident = |i: usize| head.get(i).copied().unwrap_or(0);
    let machine_bytes = head.get(18..20).and_then(|b| b.try_into().ok());
    let Some(machine) = machine_bytes else {
        return Err(truncated("the ELF header", 20, head));
    };
    if ident(5) != 1 {
        return Err(KernelError::OtherArchitecture("a big-endian processor".to_owned()));
    }
    match (u16::from_le_bytes(machine), ident(4)) {
        (EM_X86_64, 2) => Ok(Architecture::X86_64),
        (EM_386, 1) => Ok(Architecture::I386),
        (EM_X86_64 | EM_386, class) => {
            Err(KernelError::BadHeader { field: "EI_CLASS", value: u64::from(class), why: "it contradicts e_machine" })
        }
        (183, _) => Err(KernelError::OtherArchitecture("aarch64".to_owned())),
        (40, _) => Err(KernelError::OtherArchitecture("arm".to_owned())),
        (243, _) => Err(KernelError::OtherArchitecture("riscv".to_owned())),
        (other, _) => Err(KernelError::OtherArchitecture(format!("ELF machine {other}"))),
    }
}

/// Reads and checks the header and the program headers.
pub(super) fn parse(bytes: &[u8]) -> Result<ElfInfo, KernelError> {
    let arch = architecture(bytes)?;
    let wide = arch == Architecture::X86_64;
    let header_len = if wide { 64 } else { 52 };
    if bytes.len() < header_len {
        return Err(truncated("the ELF header", header_len, bytes));
    }
    let kind = u16_at(bytes, 16);
    if kind != ET_EXEC && kind != ET_DYN {
        return Err(bad("e_type", u64::from(kind), "only an executable can be started"));
    }
    let entry = word_at(bytes, 24, wide);
    let table = word_at(bytes, if wide { 32 } else { 28 }, wide);
    let entry_size = u16_at(bytes, if wide { 54 } else { 42 });
    let count = u16_at(bytes, if wide { 56 } else { 44 });
    if u64::from(entry_size) != if wide { 56 } else { 32 } {
        return Err(bad("e_phentsize", u64::from(entry_size), "not the size of a program header"));
    }
    if count == 0 || count > MAX_SEGMENTS {
        return Err(bad("e_phnum", u64::from(count), "a kernel has between 1 and 128 program headers"));
    }
    let mut segments = Vec::with_capacity(usize::from(count));
    for i in 0..u64::from(count) {
        let start = table.checked_add(i * u64::from(entry_size));
        let raw = start.and_then(|s| range(bytes, s, u64::from(entry_size)));
        let raw = raw.ok_or_else(|| {
            let need = table.saturating_add(u64::from(count) * u64::from(entry_size));
            KernelError::Truncated { what: "the program header table", need, have: len(bytes) }
        })?;
        segments.push(segment(raw, wide));
    }
    let (load_start, load_end) = check_loads(bytes, &segments)?;
    let loaded = |address: u64| {
        segments.iter().any(|s| s.kind == PT_LOAD && address >= s.physical && address - s.physical < s.memory_size)
    };
    if !loaded(entry) {
        return Err(bad("e_entry", entry, "the entry point is in no loaded segment"));
    }
    let pvh_entry = segments.iter().filter(|s| s.kind == PT_NOTE).find_map(|s| pvh_note(bytes, s));
    if let Some(address) = pvh_entry.filter(|&a| !loaded(a)) {
        return Err(bad("XEN_ELFNOTE_PHYS32_ENTRY", address, "the PVH entry point is in no loaded segment"));
    }
    let loads = segments.iter().filter(|s| s.kind == PT_LOAD && s.memory_size > 0);
    let segments = loads.map(|s| LoadSegment {
        file_offset: s.offset,
        file_size: s.file_size,
        address: s.physical,
        memory_size: s.memory_size,
    });
    Ok(ElfInfo { arch, entry, pvh_entry, load_start, load_end, segments: segments.collect() })
}

fn segment(raw: &[u8], wide: bool) -> Segment {
    let at = |narrow: usize, broad: usize| word_at(raw, if wide { broad } else { narrow }, wide);
    Segment {
        kind: u32_at(raw, 0),
        offset: at(4, 8),
        physical: at(12, 24),
        file_size: at(16, 32),
        memory_size: at(20, 40),
        align: at(28, 48),
    }
}

fn check_loads(bytes: &[u8], segments: &[Segment]) -> Result<(u64, u64), KernelError> {
    let mut loads = Vec::new();
    for s in segments.iter().filter(|s| s.kind == PT_LOAD && s.memory_size > 0) {
        if range(bytes, s.offset, s.file_size).is_none() {
            let need = s.offset.saturating_add(s.file_size);
            return Err(KernelError::Truncated { what: "a loadable segment", need, have: len(bytes) });
        }
        if s.file_size > s.memory_size {
            return Err(bad("p_filesz", s.file_size, "a segment is larger in the file than in memory"));
        }
        let end = s.physical.checked_add(s.memory_size).filter(|&end| end <= MAX_LOAD_END);
        let end = end.ok_or_else(|| bad("p_paddr", s.physical, "a segment does not end below 4 GiB"))?;
        loads.push((s.physical, end));
    }
    loads.sort_unstable();
    let mut free_from = 0;
    for &(start, end) in &loads {
        if start < free_from {
            return Err(bad("p_paddr", start, "two loadable segments overlap"));
        }
        free_from = end;
    }
    match loads.first() {
        Some(&(start, _)) => Ok((start, free_from)),
        None => Err(bad("e_phnum", len(bytes), "no segment is loadable")),
    }
}

fn pvh_note(bytes: &[u8], segment: &Segment) -> Option<u64> {
    let mut notes = range(bytes, segment.offset, segment.file_size)?;
    // Notes are padded to 4 bytes, save in a segment that says 8.
    let padded = |n: u32| {
        let unit = if segment.align == 8 { 8 } else { 4 };
        usize::try_from(n).ok()?.checked_next_multiple_of(unit)
    };
    while notes.len() >= 12 {
        let (name_size, desc_size, kind) = (u32_at(notes, 0), u32_at(notes, 4), u32_at(notes, 8));
        let body = notes.get(12..)?;
        let desc = body.get(padded(name_size)?..)?;
        let name = body.get(..usize::try_from(name_size).ok()?)?;
        if kind == XEN_ELFNOTE_PHYS32_ENTRY && name == b"Xen\0" {
            return match desc_size {
                4 => desc.get(..4).map(|d| u64::from(u32_at(d, 0))),
                8 => desc.get(..8).map(|d| word_at(d, 0, true)),
                _ => None,
            };
        }
        notes = desc.get(padded(desc_size)?..)?;
    }
    None
}

fn truncated(what: &'static str, need: usize, bytes: &[u8]) -> KernelError {
    KernelError::Truncated { what, need: u64::try_from(need).unwrap_or(u64::MAX), have: len(bytes) }
}

fn bad(field: &'static str, value: u64, why: &'static str) -> KernelError {
    KernelError::BadHeader { field, value, why }
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn range(bytes: &[u8], start: u64, len: u64) -> Option<&[u8]> {
    bytes.get(usize::try_from(start).ok()?..usize::try_from(start.checked_add(len)?).ok()?)
}

fn word_at(bytes: &[u8], offset: usize, wide: bool) -> u64 {
    let low = u64::from(u32_at(bytes, offset));
    if wide { low | u64::from(u32_at(bytes, offset + 4)) << 32 } else { low }
}
