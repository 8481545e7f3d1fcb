//! Files that are damaged or made to harm: whatever is changed in one, it ends in a disk or an error, in bounded time and
//! memory.

use super::*;

/// Reads a disk through, as an import does, but no more than `most` bytes; errors are as good as bytes.
fn look_at(disk: &dyn Disk, most: u64) {
    let mut buf = vec![0; 128 * 1024];
    let (mut at, mut read) = (0, 0);
    for _ in 0..2000 {
        let Ok(Some(data)) = disk.next_data(at) else { break };
        assert!(data.start >= at && data.start < data.end && data.end <= disk.size(), "{data:?} from {at}");
        let len = usize::try_from(data.end - data.start).unwrap_or(usize::MAX).min(buf.len());
        let _ = disk.read_exact_at(data.start, &mut buf[..len]);
        (at, read) = (data.start + len as u64, read + len as u64);
        if read > most {
            break;
        }
    }
    for at in [disk.size() / 2, disk.size() - 512] {
        let _ = disk.read_exact_at(at, &mut buf[..512]);
    }
    assert!(disk.read_exact_at(disk.size() - 511, &mut buf[..512]).is_err());
}

/// Places where the numbers of a file are: the first and last bytes, and those that are not zero in the first MiBs.
fn interesting(bytes: &[u8]) -> Vec<usize> {
    let tables = bytes.iter().take(3 << 20).enumerate().filter(|(_, byte)| **byte != 0).map(|(at, _)| at);
    let mut places: Vec<_> = (0..bytes.len().min(512))
        .chain(tables.take(4096))
        .chain(bytes.len().saturating_sub(1536)..bytes.len())
        .collect();
    places.sort_unstable();
    places.dedup();
    places
}

/// Makes checksums right again, so that changes are not all found by them.
fn mend_checksums(format: ImportFormat, bytes: &mut [u8]) {
    match format {
        ImportFormat::Vhd => {
            let footer = bytes.len() - 512;
            for (at, len, noted) in [(footer, 512, 64), (512, 1024, 36)] {
                let sum = super::super::vhd::checksum(&bytes[at..at + len], noted);
                bytes[at + noted..at + noted + 4].copy_from_slice(&sum.to_be_bytes());
            }
        }
        ImportFormat::Vhdx => {
            for (at, len) in [(64 << 10, 4096), (128 << 10, 4096), (192 << 10, 64 << 10), (256 << 10, 64 << 10)] {
                let sum = super::super::vhdx::checksum(&bytes[at..at + len]);
                bytes[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
            }
        }
        _ => {}
    }
}

fn mutate(name: &str, options: &str, format: ImportFormat, rounds: u64) {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = dir.path().join("disk");
    convert(&sample(dir.path(), 5 * MIB), name, options, &path);
    let good = std::fs::read(&path).unwrap();
    let places = interesting(&good);
    let file = File::options().write(true).open(&path).unwrap();
    let (mut opened, mut refused) = (0, 0);
    for round in 0..rounds {
        let mut numbers = random(round);
        let mut number = || usize::try_from(numbers.next().unwrap()).unwrap();
        let mut bytes = good.clone();
        for _ in 0..1 + number() % 4 {
            let at = places[number() % places.len()];
            let value: &[u8] = match number() % 6 {
                0 => &[0],
                1 => &[0xff; 8],
                2 => &[0x7f, 0xff, 0xff, 0xff],
                3 => &[0; 4],
                4 => &[1],
                _ => &[0x80],
            };
            let end = (at + value.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&value[..end - at]);
            if number() % 2 == 0 {
                bytes[at] = (number() % 256).try_into().unwrap();
            }
        }
        if round % 2 == 0 {
            mend_checksums(format, &mut bytes);
        }
        if round % 16 == 0 {
            bytes.truncate(number() % bytes.len());
        }
        file.set_len(bytes.len() as u64).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        match open(&path, Some(format)) {
            Ok(imported) => {
                opened += 1;
                look_at(&*imported.disk, 16 * MIB);
            }
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains(&path.display().to_string()), "{error}");
            }
        }
        // Detection must not fall either.
        let _ = open(&path, None);
    }
    assert!(opened > 0 && refused > 0, "{opened} were opened, {refused} refused");
}

#[test]
fn changed_vmdks_end_in_a_disk_or_an_error() {
    mutate("vmdk", "subformat=monolithicSparse", ImportFormat::Vmdk, 250);
    mutate("vmdk", "subformat=streamOptimized", ImportFormat::Vmdk, 250);
}

#[test]
fn changed_descriptors_end_in_a_disk_or_an_error() {
    mutate("vmdk", "subformat=monolithicFlat", ImportFormat::Vmdk, 500);
}

#[test]
fn changed_vhds_end_in_a_disk_or_an_error() {
    mutate("vpc", "force_size=on", ImportFormat::Vhd, 250);
}

#[test]
fn changed_vhdxs_end_in_a_disk_or_an_error() {
    mutate("vhdx", "block_size=1M", ImportFormat::Vhdx, 120);
}

#[test]
fn changed_qcow2s_end_in_a_disk_or_an_error() {
    mutate("qcow2", "", ImportFormat::Qcow2, 120);
}

#[test]
fn compressed_grains_that_expand_without_end_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.vmdk");
    export::write(&*raw_disk(&sample(dir.path(), 5 * MIB)), ExportFormat::Vmdk, &path, Overwrite::Refuse, &mut |_| {})
        .unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    // The first grain, behind the header and the descriptor: the marker says its length.
    let bomb = {
        use std::io::Write;
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![0; 16 << 20]).unwrap();
        encoder.finish().unwrap()
    };
    let at = 128 * 512;
    file.write_all_at(&u32::try_from(bomb.len()).unwrap().to_le_bytes(), at + 8).unwrap();
    file.write_all_at(&bomb, at + 12).unwrap();
    let disk = open(&path, None).unwrap().disk;
    let error = disk.read_exact_at(0, &mut [0; 512]).unwrap_err();
    assert!(error.to_string().contains("gives other than 65536 bytes"), "{error}");
    // A grain that is about another part of the disk.
    file.write_all_at(&[9], at).unwrap();
    let error = disk.read_exact_at(0, &mut [0; 512]).unwrap_err();
    assert!(error.to_string().contains("about sector 9"), "{error}");
    // Longer than anything that was compressed.
    file.write_all_at(&[0; 8], at).unwrap();
    file.write_all_at(&u32::MAX.to_le_bytes(), at + 8).unwrap();
    assert!(disk.read_exact_at(0, &mut [0; 512]).unwrap_err().to_string().contains("at most"));
}
