use std::io::Write;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::vmm::machine::pv;
use crate::vmm::memory;

const MEMORY: u64 = 32 << 20;

fn guest_memory() -> GuestMemory {
    memory::allocate(&pv::memory_ranges(MEMORY)).unwrap()
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn source(kernel: File, image: KernelImage) -> BootSource {
    BootSource { kernel, image, initrd: None, cmdline: "ro".into(), cmdline_limit: 2047, takes_mmio_devices: false }
}

fn elf(segments: Vec<Segment>) -> KernelImage {
    KernelImage::Elf { is_64_bit: true, segments, entry: pv::HIGH_MEMORY, pvh_entry: Some(0x10_0000) }
}

fn segment(addr: u64, file_size: u64, memory_size: u64) -> Segment {
    Segment { file_offset: 0, file_size, addr, memory_size }
}

fn boot(source: &BootSource) -> Result<Entry, BootError> {
    load(&guest_memory(), MEMORY, source, pv::ACPI_TABLES)
}

#[test]
fn segments_that_cannot_be_are_refused() {
    let refused = |segments| boot(&source(file_of(&[1; 8192]), elf(segments))).unwrap_err();
    assert!(matches!(refused(vec![]), BootError::BadKernel(_)));
    assert!(matches!(refused(vec![segment(0x20_0000, 9000, 8192)]), BootError::BadKernel(_)));
    assert!(matches!(refused(vec![segment(u64::MAX - 5, 0, 8192)]), BootError::BadKernel(_)));
    let low = refused(vec![segment(0xff000, 4096, 8192)]);
    assert!(low.to_string().contains("0xff000") && low.to_string().contains("--protocol bzimage"), "{low}");
    assert!(matches!(refused(vec![segment(MEMORY - 4096, 4096, 4097)]), BootError::KernelTooLarge { .. }));
    assert!(matches!(refused(vec![segment(u64::MAX / 2, 0, 1)]), BootError::KernelTooLarge { .. }));
    // A file that is shorter than its plan says.
    assert!(matches!(refused(vec![segment(0x20_0000, 12288, 12288)]), BootError::Memory(_)));
    assert!(matches!(refused(vec![segment(0x20_0001, 8193, 8193)]), BootError::Read { .. }));
}

#[test]
fn an_initrd_lies_above_the_kernel_or_not_at_all() {
    let mut with_initrd = source(file_of(&[1; 4096]), elf(vec![segment(0x10_0000, 4096, MEMORY - 0x10_0000 - 8192)]));
    with_initrd.initrd = Some(file_of(&[2; 8192]));
    let memory = guest_memory();
    load(&memory, MEMORY, &with_initrd, pv::ACPI_TABLES).unwrap();
    assert_eq!(memory.read_obj::<u8>(GuestAddress(MEMORY - 8192)).unwrap(), 2);
    assert_eq!(memory.read_obj::<u8>(GuestAddress(MEMORY - 8193)).unwrap(), 0);
    with_initrd.initrd = Some(file_of(&[2; 8193]));
    assert!(matches!(boot(&with_initrd), Err(BootError::InitrdTooLarge { size: 8193, room: 8192 })));
}

#[test]
fn a_command_line_is_held_to_the_kernels_limit() {
    let with = |cmdline: String, cmdline_limit| {
        let kernel = source(file_of(&[1; 4096]), elf(vec![segment(0x10_0000, 4096, 4096)]));
        boot(&BootSource { cmdline, cmdline_limit, ..kernel })
    };
    assert!(with("x".repeat(255), 255).is_ok());
    assert!(matches!(with("x".repeat(256), 255), Err(BootError::CommandLineTooLong { len: 256, limit: 255 })));
    assert!(with("x".repeat(0xffff), u32::MAX).is_ok());
    assert!(matches!(with("x".repeat(0x10000), u32::MAX), Err(BootError::CommandLineTooLong { limit: 0xffff, .. })));
    assert!(matches!(with("a\nb".into(), 255), Err(BootError::BadCommandLine(_))));
    assert!(with("\u{7f}\t\u{e9}\u{1b}[31m".into(), 255).is_ok());
}

/// A bzImage of the given protocol version, with the fields of 2.10 holding what they are given.
fn bzimage(version: u16, pref_address: u64, init_size: u32, alignment: u32) -> File {
    let mut bytes = vec![0; 0x4000];
    bytes[0x1f1] = 1;
    bytes[0x1fe..0x200].copy_from_slice(&0xaa55_u16.to_le_bytes());
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x206..0x208].copy_from_slice(&version.to_le_bytes());
    bytes[0x211] = 1;
    bytes[0x214..0x218].copy_from_slice(&0x10_0000_u32.to_le_bytes());
    bytes[0x218..0x220].fill(0xdd);
    bytes[0x230..0x234].copy_from_slice(&alignment.to_le_bytes());
    bytes[0x250..0x258].fill(0xee);
    bytes[0x258..0x260].copy_from_slice(&pref_address.to_le_bytes());
    bytes[0x260..0x264].copy_from_slice(&init_size.to_le_bytes());
    file_of(&bytes)
}

const BZIMAGE: KernelImage = KernelImage::BzImage { is_64_bit: true };

#[test]
fn a_bzimage_says_what_room_it_needs_since_protocol_2_10() {
    let with =
        |version, preferred, size, alignment| boot(&source(bzimage(version, preferred, size, alignment), BZIMAGE));
    assert!(matches!(with(0x20f, 16 << 20, 16 << 20, 2 << 20), Ok(Entry::Linux64 { entry: 0x10_0200 })));
    assert!(matches!(with(0x20f, 16 << 20, (16 << 20) + 1, 1), Err(BootError::KernelTooLarge { .. })));
    assert!(matches!(with(0x20f, 0, 16 << 20, 17 << 20), Err(BootError::KernelTooLarge { .. })));
    assert!(with(0x20f, u64::MAX, u32::MAX, 1).is_err());
    // Before, what stands there is code.
    assert!(with(0x209, u64::MAX, u32::MAX, 1).is_ok());
    assert!(with(0x204, u64::MAX, u32::MAX, u32::MAX).is_ok());
}

#[test]
fn what_a_boot_loader_owns_is_not_taken_from_the_file() {
    let memory = guest_memory();
    let kernel = source(bzimage(0x20f, 1 << 20, 1 << 20, 1), BZIMAGE);
    load(&memory, MEMORY, &kernel, pv::ACPI_TABLES).unwrap();
    let field = |offset| memory.read_obj::<u64>(GuestAddress(pv::ZERO_PAGE + offset)).unwrap();
    // ramdisk_image and ramdisk_size; setup_data.
    assert_eq!((field(0x218), field(0x250)), (0, 0));
    assert_eq!(memory.read_obj::<u8>(GuestAddress(pv::ZERO_PAGE + 0x210)).unwrap(), 0xff);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_header_makes_the_loader_fail_otherwise_than_with_an_error(
        header in prop::collection::vec(any::<u8>(), 0x80),
        len in 0_usize..0x4000,
        is_64_bit: bool,
    ) {
        let mut bytes = vec![0; 0x4000];
        bytes[0x1f1..0x271].copy_from_slice(&header);
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x207] = 2;
        bytes.truncate(len);
        let mut source = source(file_of(&bytes), KernelImage::BzImage { is_64_bit });
        source.initrd = Some(file_of(&[1; 5000]));
        let _ = boot(&source);
    }

    #[test]
    fn no_segments_make_the_loader_write_below_the_first_megabyte_or_fail_otherwise_than_with_an_error(
        segments in prop::collection::vec(
            (any::<u64>(), 0_u64..0x4000, 0_u64..(40 << 20), 0_u64..(40 << 20)),
            0..4,
        ),
        wild: bool,
    ) {
        let segments = segments
            .into_iter()
            .map(|(file_offset, file_size, addr, memory_size)| Segment {
                file_offset: if wild { file_offset } else { file_offset % 0x3000 },
                file_size,
                addr: if wild { addr.rotate_right(8) } else { addr },
                memory_size,
            })
            .collect();
        let memory = guest_memory();
        let kernel = source(file_of(&[0xcc; 0x4000]), elf(segments));
        let _ = load(&memory, MEMORY, &kernel, pv::ACPI_TABLES);
        let mut low = vec![0; 0xf_0000];
        memory.read_slice(&mut low, GuestAddress(0x1_0000)).unwrap();
        prop_assert!(!low.contains(&0xcc));
    }
}
