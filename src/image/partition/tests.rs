#![allow(clippy::cast_possible_truncation, reason = "test data of known size")]

use super::*;
use crate::image::testing::{Fixture, Random, TestDisk};

fn entry(kind: u8, start: u32, sectors: u32) -> [u8; 16] {
    let mut out = [0; 16];
    out[4] = kind;
    out[8..12].copy_from_slice(&start.to_le_bytes());
    out[12..].copy_from_slice(&sectors.to_le_bytes());
    out
}

/// A disk of 4096 sectors with the given boot records.
fn mbr(records: &[(usize, &[[u8; 16]])]) -> Vec<u8> {
    let mut out = vec![0; 4096 * 512];
    for (sector, entries) in records {
        let at = sector * 512;
        for (i, entry) in entries.iter().enumerate() {
            out[at + 446 + 16 * i..][..16].copy_from_slice(entry);
        }
        out[at + 510..at + 512].copy_from_slice(&[0x55, 0xaa]);
    }
    out
}

fn table(bytes: Vec<u8>) -> Table {
    read(&TestDisk::memory(bytes).shared()).unwrap()
}

fn places(table: &Table) -> Vec<(u32, u64, u64)> {
    table.partitions.iter().map(|p| (p.number, p.start / 512, p.size / 512)).collect()
}

fn gpt_bytes() -> Vec<u8> {
    let f = Fixture::new();
    let disk = f.gpt("disk", &[(1, "8304", None), (14, "ef02", None), (128, "8300", None)]);
    std::fs::read(disk).unwrap()
}

#[test]
fn mbr_with_logical_partitions() {
    let mut bytes = mbr(&[
        (0, &[entry(0x83, 64, 100), entry(0, 0, 0), entry(0x82, 200, 50), entry(0x0f, 1000, 3000)]),
        (1000, &[entry(0x83, 63, 10), entry(0x05, 500, 200)]),
        (1500, &[entry(0x8e, 63, 20)]),
    ]);
    bytes[0] = 0xeb;
    bytes[440..444].copy_from_slice(&0x1234_abcd_u32.to_le_bytes());
    bytes[446] = 0x80;
    let table = table(bytes);
    assert_eq!((table.kind, table.id.as_deref(), table.boot_code), (TableKind::Mbr, Some("1234abcd"), true));
    assert_eq!(places(&table), [(1, 64, 100), (3, 200, 50), (5, 1063, 10), (6, 1563, 20)]);
    let [first, _, fifth, sixth] = table.partitions.as_slice() else { panic!() };
    assert!(first.active && !fifth.active);
    assert_eq!(fifth.partuuid.as_deref(), Some("1234abcd-05"));
    assert_eq!((sixth.type_id.as_deref(), sixth.type_name.as_deref()), (Some("0x8e"), Some("Linux LVM")));
    assert_eq!(table.notes, Vec::<String>::new());
}

#[test]
fn a_chain_in_a_circle_ends() {
    let table = table(mbr(&[(0, &[entry(0x05, 100, 1000)]), (100, &[entry(0x83, 1, 1), entry(0x05, 0, 10)])]));
    assert_eq!(table.partitions.len(), 128);
    assert!(table.notes[0].contains("does not end"));
    let table = super::tests::table(mbr(&[(0, &[entry(0x83, 8, 8), entry(0x05, 100, 1000)])]));
    assert_eq!(places(&table), [(1, 8, 8)]);
    assert!(table.notes[0].contains("extended boot record at sector 100"));
}

#[test]
fn a_truncated_disk_is_noted() {
    let table = table(mbr(&[(0, &[entry(0x83, 4000, 1000), entry(0x83, 9000, 5)])]));
    assert_eq!(places(&table), [(1, 4000, 96)]);
    assert!(table.notes.iter().all(|n| n.contains("truncated")) && table.notes.len() == 2);
}

#[test]
fn no_table_is_one_volume() {
    let mut boot_sector = vec![0x90; 4096];
    boot_sector[510..512].copy_from_slice(&[0x55, 0xaa]);
    for bytes in [vec![0; 4096], vec![b'x'; 512], boot_sector, mbr(&[(0, &[])])] {
        let sectors = bytes.len() as u64 / 512;
        let table = table(bytes);
        assert_eq!((table.kind, places(&table)), (TableKind::None, vec![(0, 0, sectors)]));
    }
}

#[test]
fn gpt() {
    let table = table(gpt_bytes());
    assert_eq!((table.kind, table.boot_code, table.notes.len()), (TableKind::Gpt, true, 0));
    assert_eq!(places(&table), [(1, 2048, 2048), (14, 4096, 2048), (128, 6144, 2048)]);
    let [root, bios, last] = table.partitions.as_slice() else { panic!() };
    assert_eq!(root.type_id.as_deref(), Some(TYPE_ROOT_X86_64));
    assert_eq!(bios.type_id.as_deref(), Some(TYPE_BIOS_BOOT));
    assert_eq!((last.label.as_deref(), last.type_name.as_deref()), (Some("part128"), Some("Linux filesystem")));
    assert_eq!(root.partuuid.as_ref().map(String::len), Some(36));
}

#[test]
fn the_backup_gpt_stands_in() {
    let intact = gpt_bytes();
    let expected = table(intact.clone());
    for at in [512, 512 + 40, 512 + 84, 2 * 512 + 32] {
        let mut bytes = intact.clone();
        bytes[at] ^= 0xff;
        let table = table(bytes);
        assert_eq!(table.partitions, expected.partitions, "byte {at}");
        assert!(table.notes.last().unwrap().contains("backup GPT is used"), "{:?}", table.notes);
    }
    let mut bytes = intact.clone();
    let end = bytes.len();
    bytes[end - 512] = 0;
    let backup_gone = table(bytes.clone());
    assert_eq!(backup_gone.partitions, expected.partitions);
    assert!(backup_gone.notes[0].contains("backup GPT header is missing"));
    bytes[512] = 0;
    let none = table(bytes);
    assert!(none.notes[0].contains("neither of the two GPT headers"), "{:?}", none.notes);
    assert_eq!(none.partitions, []);
}

/// Writes the checksum of a header so that a lie in it is believed.
fn sign(bytes: &mut [u8], header: usize) {
    bytes[header + 16..header + 20].fill(0);
    let mut sum = flate2::Crc::new();
    sum.update(&bytes[header..header + 92]);
    bytes[header + 16..header + 20].copy_from_slice(&sum.sum().to_le_bytes());
}

#[test]
fn signed_lies_in_a_gpt() {
    let intact = gpt_bytes();
    let backup = intact.len() - 512;
    let fields: [(usize, &[u8]); 6] = [
        (84, &[0, 0, 0, 0]),
        (84, &[0, 1, 0, 0]),
        (80, &[0xff; 4]),
        (72, &[0xff; 8]),
        (72, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0]),
        (80, &[0, 4, 0, 0]),
    ];
    for (at, value) in fields {
        let mut bytes = intact.clone();
        for header in [512, backup] {
            bytes[header + at..header + at + value.len()].copy_from_slice(value);
            sign(&mut bytes, header);
        }
        assert_ne!(table(bytes).kind, TableKind::Gpt);
    }
}

#[test]
fn mutated_tables_never_panic() {
    let seeds = [
        gpt_bytes(),
        mbr(&[
            (0, &[entry(0x83, 64, 100), entry(0x0f, 1000, 3000)]),
            (1000, &[entry(0x83, 63, 10), entry(0x05, 500, 200)]),
            (1500, &[entry(0x8e, 63, 20)]),
        ]),
    ];
    let mut random = Random(3);
    for round in 0..300 {
        let mut bytes = seeds[round % 2].clone();
        let backup = bytes.len() - 512;
        for _ in 0..=random.below(4) {
            let at = match random.below(4) {
                0 => 440 + random.below(72),
                1 => 512 + random.below(92),
                2 => 1024 + random.below(256),
                _ => [0, 1000 * 512, 1500 * 512][random.below(3)] + 440 + random.below(72),
            };
            bytes[at] = [0, 0xff, 0x7f, random.next() as u8][random.below(4)];
        }
        if round % 2 == 0 && random.below(2) == 0 {
            let mut sum = flate2::Crc::new();
            sum.update(&bytes[1024..1024 + 128 * 128]);
            bytes[512 + 88..512 + 92].copy_from_slice(&sum.sum().to_le_bytes());
            sign(&mut bytes, 512);
            sign(&mut bytes, backup);
        }
        let size = bytes.len() as u64;
        let table = table(bytes);
        for p in &table.partitions {
            assert!(p.start.checked_add(p.size).is_some_and(|end| end <= size));
        }
    }
}
