//! Disks and file systems for tests, made with the usual tools and without mounting anything.

#![allow(clippy::cast_possible_truncation, reason = "test data of known size")]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;
use vm_memory::VolatileSlice;

use super::kernel::testing as kernels;
use crate::disk::Disk;

/// A read-only disk in memory, or in a (sparse) file with some bytes changed.
pub(crate) struct TestDisk {
    size: u64,
    bytes: Vec<u8>,
    file: Option<File>,
    changes: BTreeMap<u64, u8>,
}

impl TestDisk {
    pub fn memory(mut bytes: Vec<u8>) -> Self {
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        Self { size: bytes.len() as u64, bytes, file: None, changes: BTreeMap::new() }
    }

    pub fn file(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let size = file.metadata().unwrap().len();
        Self { size, bytes: Vec::new(), file: Some(file), changes: BTreeMap::new() }
    }

    pub fn change(&mut self, at: u64, byte: u8) {
        self.changes.insert(at, byte);
    }

    pub fn shared(self) -> Arc<dyn Disk> {
        Arc::new(self)
    }
}

impl Disk for TestDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn read_at(&self, mut offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        for buf in bufs {
            let end = offset.checked_add(buf.len() as u64).filter(|&e| e <= self.size);
            let end = end.ok_or(io::Error::from(io::ErrorKind::InvalidInput))?;
            let mut plain = vec![0; buf.len()];
            match &self.file {
                Some(file) => file.read_exact_at(&mut plain, offset)?,
                None => plain.copy_from_slice(&self.bytes[offset as usize..end as usize]),
            }
            for (&at, &byte) in self.changes.range(offset..end) {
                plain[(at - offset) as usize] = byte;
            }
            buf.copy_from(&plain);
            offset = end;
        }
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
        Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem))
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem))
    }

    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem))
    }
}

/// Runs a tool of a Debian package, which has to be installed.
pub(crate) fn run(package: &str, program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    command.env("PATH", &path).args(arguments);
    // `Command` looks a program up in the parent's PATH, which may lack sbin.
    let found = path.split(':').map(|dir| Path::new(dir).join(program)).find(|p| p.exists());
    let found = found.unwrap_or_else(|| panic!("{program} is missing: apt-get install {package}"));
    let out = Command::new(found).args(arguments).output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    assert!(out.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&said));
}

/// The ext4 UUID of fixtures.
pub(crate) const ROOT_UUID: &str = "0b6c5b3e-4a5f-4c5e-9c43-0d7f4f3f8a11";
/// The UUID of a separate `/boot`.
pub(crate) const BOOT_UUID: &str = "7d1f0f9a-2f0e-4f0a-8a9e-5d1c2b3a4f55";

/// A directory tree from which file systems are made.
pub(crate) struct Fixture {
    pub dir: TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        for part in ["root", "boot", "esp"] {
            fs::create_dir(dir.path().join(part)).unwrap();
        }
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn add(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    pub fn link(&self, path: &str, target: &str) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    /// A root as Debian has it, without `/boot`.
    pub fn debian(&self) -> &Self {
        self.add(
            "root/usr/lib/os-release",
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n",
        )
        .link("root/etc/os-release", "../usr/lib/os-release")
        .link("root/sbin", "usr/sbin")
        .link("root/lib", "usr/lib")
        .link("root/usr/sbin/init", "/lib/systemd/systemd")
        .add("root/usr/lib/systemd/systemd", kernels::elf(true, true))
        .add("root/etc/fstab", format!("UUID={ROOT_UUID} / ext4 defaults 0 1\n"))
    }

    /// A kernel and an initrd in the directory `boot` of the fixture.
    pub fn kernel(&self, boot: &str, version: &str) -> &Self {
        let kernel = kernels::bzimage(&kernels::gzip(&kernels::elf(true, true)), version);
        self.add(&format!("{boot}/vmlinuz-{version}"), kernel)
            .add(&format!("{boot}/initrd.img-{version}"), format!("initrd of {version}"))
    }

    pub fn ext4(&self, tree: &str, image: &str, uuid: &str, options: &[&str]) -> PathBuf {
        let (tree, path) = (self.path(tree), self.path(image));
        let mut arguments = vec!["-q", "-F", "-U", uuid, "-L", "cloudimg", "-d", tree.to_str().unwrap()];
        arguments.extend(options);
        if !options.contains(&"-t") {
            arguments.extend(["-t", "ext4"]);
        }
        arguments.extend([path.to_str().unwrap(), "8M"]);
        run("e2fsprogs", "mke2fs", &arguments);
        path
    }

    pub fn xfs(&self, tree: &str, image: &str) -> PathBuf {
        let (tree, path, proto) = (self.path(tree), self.path(image), self.path("proto"));
        fs::write(&proto, format!("/\n0 0\nd--755 0 0\n{}$\n", proto_lines(&tree))).unwrap();
        // mkfs.xfs makes nothing smaller; the file is sparse.
        File::create(&path).unwrap().set_len(320 << 20).unwrap();
        let uuid = format!("uuid={ROOT_UUID}");
        let arguments = ["-q", "-L", "xroot", "-m", &uuid, "-p", proto.to_str().unwrap(), path.to_str().unwrap()];
        run("xfsprogs", "mkfs.xfs", &arguments);
        path
    }

    pub fn btrfs(&self, tree: &str, image: &str) -> PathBuf {
        let (tree, path) = (self.path(tree), self.path(image));
        File::create(&path).unwrap().set_len(160 << 20).unwrap();
        let arguments = ["-q", "-L", "broot", "-U", ROOT_UUID, "-r", tree.to_str().unwrap(), path.to_str().unwrap()];
        run("btrfs-progs", "mkfs.btrfs", &arguments);
        path
    }

    pub fn vfat(&self, tree: &str, image: &str, bits: &str, size: u64) -> PathBuf {
        let (tree, path) = (self.path(tree), self.path(image));
        File::create(&path).unwrap().set_len(size).unwrap();
        let image = path.to_str().unwrap();
        run("dosfstools", "mkfs.vfat", &["-F", bits, "-i", "1234abcd", "-n", "UEFI", image]);
        for entry in fs::read_dir(&tree).unwrap() {
            let entry = entry.unwrap().path();
            run("mtools", "mcopy", &["-s", "-i", image, entry.to_str().unwrap(), "::/"]);
        }
        path
    }

    /// A GPT disk of the given partitions: number, sgdisk's type code, and the image of its file system.
    pub fn gpt(&self, name: &str, partitions: &[(u32, &str, Option<&Path>)]) -> PathBuf {
        let path = self.path(name);
        let mut arguments = vec!["-a".to_owned(), "1".to_owned()];
        let mut at = 2048;
        let mut copies = Vec::new();
        for (number, kind, image) in partitions {
            let sectors = image.map_or(2048, |i| i.metadata().unwrap().len() / 512);
            arguments.push(format!("--new={number}:{at}:{}", at + sectors - 1));
            arguments.push(format!("--typecode={number}:{kind}"));
            arguments.push(format!("--change-name={number}:part{number}"));
            copies.extend(image.map(|i| (at * 512, i)));
            at += sectors;
        }
        File::create(&path).unwrap().set_len((at + 2048) * 512).unwrap();
        // Boot code, as a boot loader leaves it.
        OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"\xeb\x63\x90", 0).unwrap();
        arguments.push(path.to_str().unwrap().to_owned());
        run("gdisk", "sgdisk", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        for (at, image) in copies {
            copy_sparse(image, &path, at);
        }
        path
    }
}

/// Copies the blocks that are not all zeros.
pub(crate) fn copy_sparse(from: &Path, to: &Path, mut at: u64) {
    let mut from = File::open(from).unwrap();
    let to = OpenOptions::new().write(true).open(to).unwrap();
    let mut block = vec![0; 1 << 20];
    loop {
        let got = from.read(&mut block).unwrap();
        if got == 0 {
            return;
        }
        if block[..got].iter().any(|&b| b != 0) {
            to.write_all_at(&block[..got], at).unwrap();
        }
        at += got as u64;
    }
}

fn proto_lines(dir: &Path) -> String {
    let mut out = String::new();
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_str().unwrap();
        let meta = path.symlink_metadata().unwrap();
        if meta.is_symlink() {
            out += &format!("{name} l--777 0 0 {}\n", fs::read_link(&path).unwrap().display());
        } else if meta.is_dir() {
            out += &format!("{name} d--755 0 0\n{}$\n", proto_lines(&path));
        } else {
            out += &format!("{name} ---755 0 0 {}\n", path.display());
        }
    }
    out
}

/// A small generator of repeatable pseudo-random numbers (Marsaglia, "Xorshift RNGs").
pub(crate) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }
}
