//! Archives against tar.

use std::fs::File;
use std::io::Seek;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use super::*;

fn tar(arguments: &[&str], dir: &Path) -> Vec<u8> {
    let output = Command::new("tar").args(arguments).current_dir(dir).output().expect("tests need tar");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn unpack(archive: &[u8], size: u64) -> Result<Vec<u8>, String> {
    let mut image = vec![0; usize::try_from(size).unwrap()];
    let read = read(&mut &*archive, size, |at, bytes| {
        let at = usize::try_from(at).unwrap();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    });
    match read {
        Ok(()) => Ok(image),
        Err(Failure::Damage(damage)) => Err(damage.to_string()),
        Err(Failure::Read(error) | Failure::Sink(error)) => Err(error.to_string()),
    }
}

/// A file with this many pieces between holes.
fn sparse_file(dir: &Path, name: &str, pieces: u64) -> Vec<u8> {
    let file = File::create(dir.join(name)).unwrap();
    file.set_len(pieces * 200_000 + 12_345).unwrap();
    for piece in 0..pieces {
        file.write_all_at(&[7; 5000], piece * 200_000 + 100_000).unwrap();
    }
    std::fs::read(dir.join(name)).unwrap()
}

#[test]
fn what_tar_has_packed_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let long = "n".repeat(150);
    for (name, pieces) in [("disk.img", 2), ("many.img", 60), (&*long, 1), ("empty.img", 0)] {
        let bytes = sparse_file(dir.path(), name, pieces);
        for options in [
            &["--format=gnu"][..],
            &["--format=gnu", "--sparse"],
            &["--format=ustar"],
            &["--format=posix"],
            &["--format=v7"],
            &["--format=gnu", "--sparse", "--owner=0", "--group=0", "-h"],
        ] {
            if name.len() > 100 && options.iter().any(|option| option.contains("ustar") || option.contains("v7")) {
                continue;
            }
            let archive = tar(&[options, &["-c", name]].concat(), dir.path());
            assert!(unpack(&archive, bytes.len() as u64).unwrap() == bytes, "{name} {options:?}");
            // Without the records at the end.
            let error = unpack(&archive, bytes.len() as u64 + 1).unwrap_err();
            assert!(error.contains("the manifest says"), "{error}");
        }
        let archive = tar(&["--format=posix", "--sparse", "-c", name], dir.path());
        if pieces > 0 {
            let error = unpack(&archive, bytes.len() as u64).unwrap_err();
            assert!(error.contains("--format=gnu"), "{error}");
        }
    }
}

#[test]
fn what_is_packed_is_read_by_tar() {
    let dir = tempfile::tempdir().unwrap();
    for size in [0, 1, 511, 512, 513, 9000, 10_240] {
        let content: Vec<u8> = (0..size).map(|at| u8::try_from(at % 250).unwrap()).collect();
        let mut archive = header("disk.img", size).to_vec();
        archive.extend_from_slice(&content);
        finish(&mut archive, size).unwrap();
        assert_eq!(archive.len() % 10_240, 0);
        std::fs::write(dir.path().join("a.tar"), &archive).unwrap();
        assert_eq!(tar(&["-xOf", "a.tar", "disk.img"], dir.path()), content);
        assert_eq!(unpack(&archive, size).unwrap(), content);
    }
    // More than eleven octal digits.
    let large = header("disk.img", 10 << 30);
    assert_eq!(number(&large, SIZE).ok(), Some(10 << 30));
    let mut file = File::create(dir.path().join("large.tar")).unwrap();
    file.write_all(&large).unwrap();
    file.seek(std::io::SeekFrom::Start((10 << 30) + 511)).unwrap();
    finish(&mut file, 10 << 30).unwrap();
    let listed = String::from_utf8(tar(&["-tvf", "large.tar"], dir.path())).unwrap();
    assert!(listed.contains("10737418240") && listed.contains("disk.img"), "{listed}");
}

#[test]
fn what_is_no_archive_of_one_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = sparse_file(dir.path(), "a", 1);
    sparse_file(dir.path(), "b", 1);
    std::fs::create_dir(dir.path().join("d")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("l")).unwrap();
    for (names, words) in [(&["a", "b"][..], "more than one"), (&["d"], "no file"), (&["l"], "no file")] {
        let archive = tar(&[&["-c"], names].concat(), dir.path());
        let error = unpack(&archive, bytes.len() as u64).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    assert!(unpack(&[0; 1024], 5).is_err() && unpack(b"short", 5).is_err());
}

#[test]
fn changed_archives_end_in_bytes_or_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = sparse_file(dir.path(), "a", 30);
    let good = tar(&["--format=gnu", "--sparse", "-c", "a"], dir.path());
    let posix = tar(&["--format=posix", "--pax-option=comment=hello", "-c", "a"], dir.path());
    let mut random = 1u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % below
    };
    let mut right = 0;
    for round in 0..2000 {
        let mut archive = if round % 2 == 0 { good.clone() } else { posix.clone() };
        for _ in 0..=next(3) {
            archive[next(2048)] = [0, 0xff, 0x80, b'7', b'x', b' '][next(6)];
        }
        // So that not all is found by it.
        if let Some(header) = archive.first_chunk::<RECORD>() {
            let noted = header.get(CHECKSUM).unwrap();
            let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
            let sum = format!("{:06o}\0 ", sum(header) - sum(noted) + 256);
            archive[CHECKSUM].copy_from_slice(sum.as_bytes());
        }
        archive.truncate(archive.len() - next(2) * next(2000));
        right += usize::from(unpack(&archive, bytes.len() as u64).is_ok_and(|unpacked| unpacked == bytes));
    }
    assert!(right > 100 && right < 1900, "{right}");
}
