#![allow(clippy::cast_possible_truncation, reason = "test data of known size")]

use proptest::prelude::*;

use super::testing::{bzimage, elf, gzip, packed};
use super::*;
use crate::image::testing::Random;

/// A kernel-like ELF that is large enough to span several blocks of every format.
fn vmlinux() -> Vec<u8> {
    let mut out = elf(true, true);
    let mut random = Random(7);
    // Appended, as the relocations of a real kernel are.
    out.extend((0..300_000).map(|i| if i % 3 == 0 { random.next() as u8 } else { 0x90 }));
    out
}

#[test]
fn every_compression_gives_the_same_elf() {
    let vmlinux = vmlinux();
    let payloads = [
        (Compression::Gzip, gzip(&vmlinux)),
        (Compression::Lz4, packed("lz4", "lz4", &["-l", "-9", "-c", "-"], &vmlinux)),
        (Compression::Zstd, packed("zstd", "sh", &["-c", "cat | zstd -q -22 --ultra -c"], &vmlinux)),
        (Compression::Xz, packed("xz-utils", "xz", &["--check=crc32", "--x86", "--lzma2=dict=32MiB", "-c"], &vmlinux)),
        (Compression::Lzma, packed("xz-utils", "lzma", &["-9", "-c"], &vmlinux)),
        (Compression::Bzip2, packed("bzip2", "bzip2", &["-9", "-c"], &vmlinux)),
        (Compression::None, vmlinux.clone()),
    ];
    for (compression, payload) in payloads {
        let kernel = bzimage(&payload, "6.1.0-test (me@here) #1 SMP");
        let info = parse(&kernel).unwrap();
        assert_eq!((info.format, info.arch), (Format::BzImage, Architecture::X86_64));
        assert_eq!(info.compression, Some(compression));
        assert_eq!(info.version.as_deref(), Some("6.1.0-test (me@here) #1 SMP"));
        assert_eq!((info.cmdline_limit, info.init_size), (Some(2047), Some(0x200_0000)));
        assert_eq!(info.protocol.as_deref(), Some("2.15"));
        assert!(extract_elf(&kernel).unwrap() == vmlinux, "{compression}");
        assert_eq!(probe(&kernel[..PROBE_LEN.min(kernel.len())], kernel.len() as u64).unwrap(), info);
        // The whole bytes are there, but the size at the end is off by one: a stream that does not fit is refused.
        for change in [1_u32, u32::MAX] {
            let mut lying = payload.clone();
            let (_, size) = lying.split_last_chunk_mut::<4>().unwrap();
            *size = u32::from_le_bytes(*size).wrapping_add(change).to_le_bytes();
            if compression != Compression::None {
                let error = extract_elf(&bzimage(&lying, "")).unwrap_err();
                assert!(matches!(error, KernelError::BadPayload { .. }), "{compression}: {error}");
            }
        }
    }
}

#[test]
fn lzo_and_the_unknown_are_told_apart_from_damage() {
    for payload in [&b"\x89LZO\0\r\n\x1a\n and so on"[..], b"what is this"] {
        let kernel = bzimage(payload, "1");
        assert!(parse(&kernel).is_ok());
        let error = extract_elf(&kernel).unwrap_err();
        assert!(matches!(error, KernelError::UnsupportedCompression(_)), "{error}");
    }
}

#[test]
fn a_bomb_stops_at_the_size_it_promised() {
    let mut bomb = gzip(&vec![0; 64 << 20]);
    let end = bomb.len() - 4;
    bomb[end..].copy_from_slice(&1000_u32.to_le_bytes());
    assert!(matches!(extract_elf(&bzimage(&bomb, "")), Err(KernelError::BadPayload { .. })));
    bomb[end..].copy_from_slice(&(MAX_UNPACKED + 1).to_le_bytes());
    let error = extract_elf(&bzimage(&bomb, "")).unwrap_err();
    assert!(error.to_string().contains("the limit is 536870912"), "{error}");
}

#[test]
fn elf_kernels() {
    for (wide, arch) in [(true, Architecture::X86_64), (false, Architecture::I386)] {
        let info = parse(&elf(wide, true)).unwrap();
        assert_eq!((info.format, info.arch, info.pvh_entry), (Format::Elf, arch, Some(0x100_0010)));
        let info = elf_info(&elf(wide, false)).unwrap();
        assert_eq!((info.entry, info.pvh_entry), (0x100_0000, None));
        assert_eq!((info.load_start, info.load_end), (0x100_0000, 0x100_5000));
        assert!(matches!(extract_elf(&elf(wide, true)).unwrap(), Cow::Borrowed(_)));
    }
}

#[test]
fn lying_elf_headers() {
    let broken = |at: usize, bytes: &[u8]| {
        let mut elf = elf(true, true);
        elf[at..at + bytes.len()].copy_from_slice(bytes);
        parse(&elf).unwrap_err().to_string()
    };
    let cases: [(usize, Vec<u8>, &str); 11] = [
        (4, vec![1], "EI_CLASS"),
        (5, vec![2], "big-endian"),
        (16, vec![1, 0], "e_type"),
        (18, vec![183, 0], "aarch64"),
        (18, vec![40, 0], "built for arm;"),
        (24, vec![0, 0, 0, 0], "e_entry"),
        (54, vec![55], "e_phentsize"),
        (56, vec![0, 0], "e_phnum"),
        // The second segment: its place in the file, in memory (onto the first), and its size there.
        (64 + 56 + 8, 0x2f00_u64.to_le_bytes().to_vec(), "truncated"),
        (64 + 56 + 24, 0x100_0800_u64.to_le_bytes().to_vec(), "overlap"),
        (64 + 56 + 40, u64::MAX.to_le_bytes().to_vec(), "below 4 GiB"),
    ];
    for (at, bytes, expected) in cases {
        let error = broken(at, &bytes);
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let mut note = elf(true, true);
    note[0x2810..0x2814].copy_from_slice(&5_u32.to_le_bytes());
    assert!(parse(&note).unwrap_err().to_string().contains("XEN_ELFNOTE_PHYS32_ENTRY"));
}

#[test]
fn bad_files_say_what_they_are() {
    let kernel = bzimage(&gzip(&vmlinux()), "1");
    let mut low = kernel.clone();
    low[0x211] = 0;
    let mut flag = kernel.clone();
    flag[0x1fe] = 0;
    let mut init_size = kernel.clone();
    init_size[0x263] = 0xff;
    let mut setup_sects = kernel.clone();
    setup_sects[0x1f1] = 255;
    let mut arm64 = vec![0; 4096];
    arm64[0x38..0x3c].copy_from_slice(b"ARM\x64");
    let mut zboot = vec![0; 4096];
    zboot[..8].copy_from_slice(b"MZ\0\0zimg");
    zboot[0x3c] = 0x40;
    zboot[0x40..0x46].copy_from_slice(b"PE\0\0\x64\xaa");
    let cases: [(&[u8], &str); 14] = [
        (b"", "empty"),
        (b"hello, this is text\n", "only 20 bytes"),
        (&[b'x'; 4096], "it is text"),
        (&[0; 4096], "neither the ELF magic"),
        (&gzip(&[0; 100_000]), "it is a gzip file"),
        (&kernel[..0x210], "the setup header"),
        (&kernel[..0x400], "the setup code"),
        (&kernel[..kernel.len() / 2], "the compressed payload"),
        (&low, "loadflags"),
        (&flag, "boot_flag"),
        (&init_size, "init_size"),
        (&setup_sects, "truncated"),
        (&arm64, "aarch64"),
        (&zboot, "aarch64"),
    ];
    for (bytes, expected) in cases {
        let error = parse(bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(extract_elf(bytes).is_err());
    }
}

#[test]
fn old_protocols() {
    // 2.08 has a payload but no xloadflags: the payload's ELF tells the architecture.
    let mut kernel = bzimage(&gzip(&elf(false, false)), "2.6.32");
    kernel[0x206] = 8;
    let info = parse(&kernel).unwrap();
    assert_eq!((info.arch, info.init_size, info.cmdline_limit), (Architecture::I386, None, Some(2047)));
    let mut kernel = bzimage(&gzip(&elf(true, false)), "2.6.32");
    kernel[0x206] = 8;
    assert_eq!(parse(&kernel).unwrap().arch, Architecture::X86_64);
    kernel[0x206] = 2;
    assert!(matches!(extract_elf(&kernel), Err(KernelError::UnsupportedCompression(_))));
}

#[test]
fn mutated_kernels_never_panic() {
    let seeds = [bzimage(&gzip(&elf(true, true)), "6.1"), elf(true, true), elf(false, true)];
    let mut random = Random(42);
    for _ in 0..4000 {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(6) {
            // Mostly in the headers, where it hurts.
            let bound = if random.below(4) == 0 { bytes.len() } else { 0x280 };
            let at = random.below(bound);
            bytes[at] = [0, 0xff, 0x7f, 0x80, random.next() as u8][random.below(5)];
        }
        bytes.truncate(if random.below(4) == 0 { random.below(bytes.len()) } else { bytes.len() });
        let _ = parse(&bytes);
        if let Ok(elf) = extract_elf(&bytes) {
            let info = elf_info(&elf).unwrap();
            assert!(info.load_start < info.load_end && info.load_end <= 4 << 30);
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..2048), kind in 0..3_usize) {
        let magic: &[u8] = [&b""[..], b"\x7fELF\x02\x01", b"MZ"][kind];
        bytes.splice(..magic.len().min(bytes.len()), magic.iter().copied());
        let _ = parse(&bytes);
        let _ = extract_elf(&bytes);
    }

    #[test]
    fn arbitrary_payloads_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 8..512), kind in 0..6_usize) {
        let magics: [&[u8]; 6] =
            [b"\x1f\x8b\x08", b"\x02\x21\x4c\x18", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"\x5d\0\0", b"BZh9"];
        let magic = magics[kind];
        bytes.splice(..magic.len(), magic.iter().copied());
        let end = bytes.len() - 2;
        bytes[end..].fill(0);
        let _ = extract_elf(&bzimage(&bytes, ""));
    }
}
