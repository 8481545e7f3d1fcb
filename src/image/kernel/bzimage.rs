//! The Linux/x86 boot protocol's set-up header (Linux, Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header").

use super::{KernelError, byte_at, u16_at, u32_at};

const BOOT_FLAG: usize = 0x1fe;
const HEADER_MAGIC: usize = 0x202;
/// The end of the header's fields that are read here (`init_size`).
const HEADER_END: usize = 0x264;
/// `loadflags` bit 0: the protected-mode code is loaded at 1 MiB.
const LOADED_HIGH: u8 = 1;
/// `xloadflags` bit 0: the kernel has the 64-bit entry point at 0x200.
const XLF_KERNEL_64: u16 = 1;
const SECTOR: u64 = 512;

/// The compressed kernel inside a bzImage: a range of the file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadRange {
    /// First byte.
    pub start: u64,
    /// Length.
    pub len: u64,
}

impl PayloadRange {
    /// The byte after the last; `None` where that is beyond 64 bits.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        self.start.checked_add(self.len)
    }
}

/// The checked fields of a bzImage's set-up header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupHeader {
    /// `version`: the boot protocol, 0x020f for 2.15.
    pub protocol: u16,
    /// Where the protected-mode code starts in the file: `(setup_sects + 1) * 512`.
    pub setup_len: u64,
    /// Whether the 64-bit entry point exists; `None` before protocol 2.12, which cannot say.
    pub long_mode: Option<bool>,
    /// Whether the kernel may be loaded elsewhere than at `pref_address` (2.05 and later).
    pub relocatable: bool,
    /// `cmdline_size` (2.06 and later); before that the limit is 255.
    pub cmdline_size: Option<u32>,
    /// `init_size` (2.10 and later).
    pub init_size: Option<u32>,
    /// `payload_offset` and `payload_length` (2.08 and later), made absolute.
    pub payload: Option<PayloadRange>,
    /// The text that `kernel_version` points to.
    pub version: Option<String>,
}

impl SetupHeader {
    /// Reads the header from the start of a file of `file_size` bytes, and checks it against that size.
    ///
    /// # Errors
    /// `NotAKernel`, `Truncated` or `BadHeader`.
    pub fn parse(head: &[u8], file_size: u64) -> Result<Self, KernelError> {
        if head.get(HEADER_MAGIC..HEADER_MAGIC + 4) != Some(b"HdrS") {
            return Err(KernelError::NotAKernel(describe(head)));
        }
        if head.len() < HEADER_END {
            let need = u64::try_from(HEADER_END).unwrap_or(u64::MAX);
            return Err(KernelError::Truncated { what: "the setup header", need, have: file_size });
        }
        let boot_flag = u16_at(head, BOOT_FLAG);
        if boot_flag != 0xaa55 {
            return Err(bad("boot_flag", u64::from(boot_flag), "it must be 0xaa55"));
        }
        let protocol = u16_at(head, 0x206);
        if !(0x0200..0x0300).contains(&protocol) {
            return Err(bad("version", u64::from(protocol), "the boot protocol must be 2.x"));
        }
        let loadflags = byte_at(head, 0x211);
        if loadflags & LOADED_HIGH == 0 {
            return Err(bad(
                "loadflags",
                u64::from(loadflags),
                "a zImage that loads low cannot be started, only a bzImage",
            ));
        }
        // "For backwards compatibility, if the setup_sects field contains 0, the real value is 4."
        let setup_sects = match byte_at(head, 0x1f1) {
            0 => 4,
            n => u64::from(n),
        };
        let setup_len = (setup_sects + 1) * SECTOR;
        if setup_len >= file_size {
            return Err(KernelError::Truncated { what: "the setup code", need: setup_len, have: file_size });
        }
        let since = |version: u16| protocol >= version;
        let header = Self {
            protocol,
            setup_len,
            long_mode: since(0x020c).then(|| u16_at(head, 0x236) & XLF_KERNEL_64 != 0),
            relocatable: since(0x0205) && byte_at(head, 0x234) != 0,
            cmdline_size: since(0x0206).then(|| u32_at(head, 0x238)),
            init_size: since(0x020a).then(|| u32_at(head, 0x260)),
            payload: payload_range(head, protocol, setup_len, file_size)?,
            version: version_text(head, setup_len),
        };
        header.check_memory()?;
        Ok(header)
    }

    /// A kernel that wants more than 2 GiB to start in lies: the 32-bit protocol could not even address it.
    fn check_memory(&self) -> Result<(), KernelError> {
        match self.init_size {
            Some(size) if size > 1 << 31 => {
                Err(bad("init_size", u64::from(size), "no kernel needs more than 2 GiB to unpack itself"))
            }
            _ => Ok(()),
        }
    }
}

fn payload_range(
    head: &[u8],
    protocol: u16,
    setup_len: u64,
    file_size: u64,
) -> Result<Option<PayloadRange>, KernelError> {
    if protocol < 0x0208 {
        return Ok(None);
    }
    let offset = u32_at(head, 0x248);
    let len = u64::from(u32_at(head, 0x24c));
    if len == 0 {
        return Err(bad("payload_length", 0, "there is no kernel in the file"));
    }
    let range = PayloadRange { start: setup_len + u64::from(offset), len };
    let need = setup_len + u64::from(offset) + len;
    if need > file_size {
        return Err(KernelError::Truncated { what: "the compressed payload", need, have: file_size });
    }
    Ok(Some(range))
}

/// "kernel_version: if set to a nonzero value, contains a pointer to a NUL-terminated human-readable kernel version
/// number string, less 0x200. This value must be less than 0x200*setup_sects."
fn version_text(head: &[u8], setup_len: u64) -> Option<String> {
    let pointer = u16_at(head, 0x20e);
    if pointer == 0 || u64::from(pointer) + SECTOR >= setup_len {
        return None;
    }
    let text = head.get(usize::from(pointer) + 0x200..)?;
    let end = text.iter().take(512).position(|&b| b == 0)?;
    let text = String::from_utf8_lossy(text.get(..end)?);
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    (!clean.trim().is_empty()).then(|| clean.trim().to_owned())
}

/// What a file that is no kernel looks like, for the error message.
fn describe(head: &[u8]) -> String {
    let known: [(&[u8], &str); 7] = [
        (b"\x1f\x8b", "it is a gzip file"),
        (b"\x28\xb5\x2f\xfd", "it is a zstd file"),
        (b"\xfd7zXZ\0", "it is an xz file"),
        (b"070701", "it is a cpio archive (an initrd?)"),
        (b"070702", "it is a cpio archive (an initrd?)"),
        (b"#!", "it is a script"),
        (b"MZ", "it is an EFI program without a Linux boot header"),
    ];
    if let Some((_, what)) = known.iter().find(|(magic, _)| head.starts_with(magic)) {
        return format!("{what}; neither the ELF magic nor the boot protocol's \"HdrS\" is there");
    }
    if head.len() < HEADER_MAGIC + 4 {
        return format!("the file has only {} bytes, less than a kernel's header", head.len());
    }
    if head.iter().take(512).all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) {
        return "it is text".to_owned();
    }
    "neither the ELF magic nor the boot protocol's \"HdrS\" at byte 0x202 is there".to_owned()
}

fn bad(field: &'static str, value: u64, why: &'static str) -> KernelError {
    KernelError::BadHeader { field, value, why }
}
