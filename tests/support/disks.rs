//! Disks and kernels made by the test, whole and broken.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::World;

/// Runs a program that is in a Debian package.
#[track_caller]
pub fn tool(package: &str, program: &str, arguments: &[&str]) {
    // Debian keeps most of them where only root looks.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let done = Command::new(program).args(arguments).env("PATH", path).output();
    let done = done.unwrap_or_else(|e| panic!("{program}: {e}: apt-get install {package}"));
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl World {
    /// A folder of files for a file system, and what is in it: paths and bytes.
    pub fn tree(&self, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let root = self.path(name);
        fs::create_dir(&root).unwrap();
        for (path, bytes) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        root
    }

    /// An ext file system of 8 MiB on a disk without partitions; `options` are `mke2fs`'s.
    pub fn ext(&self, name: &str, options: &[&str], files: &[(&str, &[u8])]) -> PathBuf {
        let tree = self.tree(&format!("{name}.tree"), files);
        let path = self.path(name);
        let arguments = [options, &["-q", "-d", text(&tree), text(&path), "8M"]].concat();
        tool("e2fsprogs", "mke2fs", &arguments);
        fs::remove_dir_all(tree).unwrap();
        path
    }

    /// A disk as PV images were: a bare file system, a `menu.lst`, and a tiny guest as the kernel.
    pub fn pv_image(&self, name: &str) -> PathBuf {
        let kernel = fs::read(self.guest("cmdline")).unwrap();
        let menu = menu("/boot/vmlinuz root=/dev/sda1 ro", None);
        let os = b"ID=tiny\nVERSION_ID=\"7\"\nPRETTY_NAME=\"Tiny System 7\"\n";
        let files: [(&str, &[u8]); 3] =
            [("boot/vmlinuz", &kernel), ("boot/grub/menu.lst", menu.as_bytes()), ("etc/os-release", os)];
        self.ext(name, &["-t", "ext4", "-L", "tiny-root", "-U", "11111111-2222-3333-4444-555555555555"], &files)
    }

    /// The same disk in another format.
    pub fn qcow2_of(&self, disk: &Path, name: &str) -> PathBuf {
        let path = self.path(name);
        tool("qemu-utils", "qemu-img", &["convert", "-O", "qcow2", text(disk), text(&path)]);
        path
    }

    /// A disk with partitions: `sgdisk`'s options, and what goes where, by the first sector.
    pub fn partitioned(&self, name: &str, options: &[&str], contents: &[(u64, &Path)]) -> PathBuf {
        let path = self.path(name);
        File::create(&path).unwrap().set_len(32 << 20).unwrap();
        tool("gdisk", "sgdisk", &[options, &[text(&path)]].concat());
        for (sector, content) in contents {
            put_file(&path, sector * 512, content);
        }
        path
    }

    /// A disk with an EFI system partition of 16 MiB with these files, and nothing else.
    pub fn efi_disk(&self, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let esp = self.path(&format!("{name}.esp"));
        File::create(&esp).unwrap().set_len(16 << 20).unwrap();
        tool("dosfstools", "mkfs.fat", &[text(&esp)]);
        let tree = self.tree(&format!("{name}.tree"), files);
        for entry in fs::read_dir(&tree).unwrap() {
            tool("mtools", "mcopy", &["-s", "-i", text(&esp), text(&entry.unwrap().path()), "::"]);
        }
        let disk = self.partitioned(name, &["-n1:2048:0", "-t1:ef00"], &[(2048, &esp)]);
        fs::remove_file(esp).unwrap();
        fs::remove_dir_all(tree).unwrap();
        disk
    }

    /// The first bytes of a file, in a new one.
    pub fn cut(&self, path: &Path, name: &str, len: usize) -> PathBuf {
        let bytes = fs::read(path).unwrap();
        self.file(name, &bytes[..len])
    }
}

/// An empty store of UEFI variables, as the header of its firmware volume tells it from other files.
pub fn uefi_variables(len: usize) -> Vec<u8> {
    let mut bytes = vec![0xff; len];
    bytes[..16].fill(0);
    // EFI_SYSTEM_NV_DATA_FV_GUID and the signature (UEFI Platform Initialization 1.7, volume 3, section 3.2.1).
    bytes[16..32].copy_from_slice(&[
        0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c, 0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50,
    ]);
    bytes[40..44].copy_from_slice(b"_FVH");
    bytes
}

/// Copies a file to a place in another.
pub fn put_file(path: &Path, offset: u64, content: &Path) {
    patch(path, offset, &fs::read(content).unwrap());
}

/// Writes bytes to a place in a file.
pub fn patch(path: &Path, offset: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    File::options().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

/// A `menu.lst` with one entry.
pub fn menu(kernel: &str, initrd: Option<&str>) -> String {
    let initrd = initrd.map(|path| format!("initrd {path}\n")).unwrap_or_default();
    format!("default 0\ntimeout 3\n\ntitle Tiny\nroot (hd0)\nkernel {kernel}\n{initrd}")
}

/// Fields of a bzImage's header that can lie (Linux, Documentation/arch/x86/boot.rst).
pub struct BzImage<'a> {
    pub payload: &'a [u8],
    pub setup_sects: u8,
    pub payload_offset: u32,
    pub payload_length: u32,
    pub init_size: u32,
}

impl<'a> BzImage<'a> {
    /// The real-mode part's sectors, less one.
    const SETUP: usize = 7;
    /// Where the payload is in the protected-mode part.
    const OFFSET: usize = 0x2d4;

    pub fn of(payload: &'a [u8]) -> Self {
        Self {
            payload,
            setup_sects: u8::try_from(Self::SETUP).unwrap(),
            payload_offset: u32::try_from(Self::OFFSET).unwrap(),
            payload_length: u32::try_from(payload.len()).unwrap(),
            init_size: 16 << 20,
        }
    }

    /// The file: boot protocol 2.15, 64-bit.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = vec![0; (Self::SETUP + 1) * 512 + Self::OFFSET];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"MZ");
        put(0x1f1, &[self.setup_sects]);
        put(0x1fe, &[0x55, 0xaa]);
        put(0x202, b"HdrS");
        put(0x206, &0x020f_u16.to_le_bytes());
        put(0x211, &[1]);
        put(0x234, &[1]);
        put(0x236, &0x7f_u16.to_le_bytes());
        put(0x238, &2047_u32.to_le_bytes());
        put(0x248, &self.payload_offset.to_le_bytes());
        put(0x24c, &self.payload_length.to_le_bytes());
        put(0x258, &0x100_0000_u64.to_le_bytes());
        put(0x260, &self.init_size.to_le_bytes());
        out.extend(self.payload);
        out.resize(out.len() + 64, 0);
        out
    }
}

/// A gzip stream with its size after it, as in a kernel.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes).unwrap();
    let mut out = out.finish().unwrap();
    out.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
    out
}

/// The offset of a field of the first segment that is loaded by a 32-bit ELF file.
pub fn elf32_segment(elf: &[u8], field: usize) -> usize {
    let word = |at: usize| usize::try_from(u32::from_le_bytes(elf[at..at + 4].try_into().unwrap())).unwrap();
    let headers = word(28);
    (0..).map(|i| headers + 32 * i).find(|at| word(*at) == 1).unwrap() + field
}
