//! Kernels for tests: small, but with every field that the parsers look at.

#![allow(clippy::cast_possible_truncation, reason = "test data of known size")]

use std::io::Write;

/// An ELF file with two loadable segments of recognisable bytes and, if wanted, the PVH note.
pub(crate) fn elf(wide: bool, pvh: bool) -> Vec<u8> {
    const BASE: u64 = 0x100_0000;
    let (header, entry) = if wide { (64, 56) } else { (52, 32) };
    let count = 3_u16;
    let mut out = vec![0; 0x3000];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    let word = |value: u64| if wide { value.to_le_bytes().to_vec() } else { (value as u32).to_le_bytes().to_vec() };
    put(0, &[0x7f, b'E', b'L', b'F', if wide { 2 } else { 1 }, 1, 1]);
    put(16, &2_u16.to_le_bytes());
    put(18, &if wide { 62_u16 } else { 3 }.to_le_bytes());
    put(20, &1_u32.to_le_bytes());
    put(24, &word(BASE));
    put(if wide { 32 } else { 28 }, &word(header));
    put(if wide { 54 } else { 42 }, &(entry as u16).to_le_bytes());
    put(if wide { 56 } else { 44 }, &count.to_le_bytes());
    let mut segment = |index: u64, kind: u32, offset: u64, physical: u64, file: u64, memory: u64| {
        let at = (header + index * entry) as usize;
        put(at, &kind.to_le_bytes());
        let fields = if wide { [8, 16, 24, 32, 40, 48] } else { [4, 8, 12, 16, 20, 28] };
        for (field, value) in fields.iter().zip([offset, physical, physical, file, memory, 4]) {
            put(at + field, &word(value));
        }
    };
    segment(0, 1, 0x1000, BASE, 0x1000, 0x1000);
    segment(1, 1, 0x2000, BASE + 0x1000, 0x800, 0x4000);
    segment(2, 4, 0x2800, BASE, 0x18, 0x18);
    for (i, byte) in out[0x1000..0x2800].iter_mut().enumerate() {
        *byte = (i % 251) as u8;
    }
    if pvh {
        let note = [4_u32, 4, 18, u32::from_le_bytes(*b"Xen\0"), BASE as u32 + 0x10];
        for (i, field) in note.iter().enumerate() {
            out[0x2800 + 4 * i..][..4].copy_from_slice(&field.to_le_bytes());
        }
    }
    out
}

/// A gzip stream; its own last four bytes are the size.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// A stream packed by a program, with the size appended as the kernel's build does.
pub(crate) fn packed(package: &str, program: &str, arguments: &[&str], bytes: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in");
    std::fs::write(&input, bytes).unwrap();
    let child = std::process::Command::new(program)
        .args(arguments)
        .stdin(std::fs::File::open(&input).unwrap())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}: apt-get install {package}"));
    assert!(child.status.success(), "{program}: {}", String::from_utf8_lossy(&child.stderr));
    let mut out = child.stdout;
    out.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
    out
}

/// A 64-bit bzImage of boot protocol 2.15 around a payload.
pub(crate) fn bzimage(payload: &[u8], version: &str) -> Vec<u8> {
    const SETUP_SECTS: usize = 7;
    const OFFSET: usize = 0x2d4;
    let setup = (SETUP_SECTS + 1) * 512;
    let mut out = vec![0; setup + OFFSET];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x1f1, &[SETUP_SECTS as u8]);
    put(0x1fe, &[0x55, 0xaa]);
    put(0x202, b"HdrS");
    put(0x206, &0x020f_u16.to_le_bytes());
    put(0x20e, &0x600_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x234, &[1]);
    put(0x236, &0x7f_u16.to_le_bytes());
    put(0x238, &2047_u32.to_le_bytes());
    put(0x248, &(OFFSET as u32).to_le_bytes());
    put(0x24c, &u32::try_from(payload.len()).unwrap().to_le_bytes());
    put(0x258, &0x100_0000_u64.to_le_bytes());
    put(0x260, &0x200_0000_u32.to_le_bytes());
    put(0x800, version.as_bytes());
    out.extend(payload);
    out.resize(out.len().next_multiple_of(16) + 64, 0);
    out
}
