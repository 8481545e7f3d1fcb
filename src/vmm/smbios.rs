//! What the machine says of itself to the operating system (SMBIOS 3.0, DSP0134), as instances of EC2 say it.

use uuid::Uuid;

/// The firmware file of the structures.
pub const TABLES_FILE: &str = "etc/smbios/smbios-tables";
/// The firmware file of the entry point.
pub const ANCHOR_FILE: &str = "etc/smbios/smbios-anchor";

/// What EC2 writes as vendor of everything.
const VENDOR: &str = "Amazon EC2";

/// Who the instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// System UUID: EC2's begin with `ec2`, by which a guest knows where it is.
    pub uuid: Uuid,
    /// Instance id, the board's asset tag.
    pub instance_id: String,
    /// Instance type, the product's name.
    pub instance_type: String,
}

impl Identity {
    /// An instance of its own: a random UUID beginning with `ec2`, and an id made of it.
    ///
    /// # Errors
    /// Where the host has no random numbers.
    pub fn random(instance_type: &str) -> std::io::Result<Self> {
        let mut bytes = [0; 16];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        Ok(Self::from_random_bytes(bytes, instance_type))
    }

    fn from_random_bytes(bytes: [u8; 16], instance_type: &str) -> Self {
        let mut bytes = uuid::Builder::from_random_bytes(bytes).into_uuid().into_bytes();
        bytes[0] = 0xec;
        bytes[1] = 0x20 | bytes[1] & 0xf;
        let uuid = Uuid::from_bytes(bytes);
        let digits = uuid.simple().to_string();
        let instance_id = format!("i-0{}", digits.get(16..).unwrap_or_default());
        Self { uuid, instance_id, instance_type: instance_type.into() }
    }
}

/// What there is to describe.
#[derive(Debug, Clone)]
pub struct Hardware {
    /// Number of processors.
    pub cpus: u8,
    /// Ranges of memory: first address and length in bytes.
    pub memory: Vec<(u64, u64)>,
}

/// The structures, one after the other.
#[derive(Debug, Clone)]
pub struct Tables {
    bytes: Vec<u8>,
    count: u16,
    largest: u16,
}

const BIOS: u16 = 0x0000;
const SYSTEM: u16 = 0x0100;
const BOARD: u16 = 0x0200;
const CHASSIS: u16 = 0x0300;
const PROCESSOR: u16 = 0x0400;
const MEMORY_ARRAY: u16 = 0x1000;
const MEMORY_DEVICE: u16 = 0x1100;
const MEMORY_MAPPED: u16 = 0x1300;
const BOOT: u16 = 0x2000;
const END: u16 = 0x7f00;

/// A handle that stands for none.
const NO_HANDLE: u16 = 0xffff;
/// "Error information is not provided."
const NO_ERROR_HANDLE: u16 = 0xfffe;

/// One structure: its formatted area and its strings.
struct Structure {
    handle: u16,
    body: Vec<u8>,
    strings: Vec<u8>,
    count: u8,
}

impl Structure {
    /// `handle` has the type in its high byte.
    fn new(handle: u16) -> Self {
        Self { handle, body: Vec::new(), strings: Vec::new(), count: 0 }
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.body.extend(bytes);
        self
    }

    fn word(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    fn dword(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    fn qword(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A reference to a string, which ends before its first NUL.
    fn string(mut self, text: &str) -> Self {
        let text = text.split('\0').next().unwrap_or_default();
        if text.is_empty() {
            return self.bytes(&[0]);
        }
        self.strings.extend(text.bytes());
        self.strings.push(0);
        self.count += 1;
        let number = self.count;
        self.bytes(&[number])
    }
}

impl Tables {
    /// All structures of a machine.
    #[must_use]
    pub fn new(identity: &Identity, hardware: &Hardware) -> Self {
        let mut tables = Self { bytes: Vec::new(), count: 0, largest: 0 };
        let uuid = identity.uuid.hyphenated().to_string();
        tables.add(bios());
        tables.add(
            Structure::new(SYSTEM)
                .string(VENDOR)
                .string(&identity.instance_type)
                .string("")
                .string(&uuid)
                // Its first three fields are little-endian (section 7.2.1).
                .bytes(&identity.uuid.to_bytes_le())
                // Woken by the power switch.
                .bytes(&[6])
                .string(&identity.instance_type)
                .string(""),
        );
        tables.add(
            Structure::new(BOARD)
                .string(VENDOR)
                .string("")
                .string("")
                .string("")
                .string(&identity.instance_id)
                // A hosting board, nowhere in particular, in the chassis; a motherboard, holding nothing else.
                .bytes(&[1, 0])
                .word(CHASSIS)
                .bytes(&[0x0a, 0]),
        );
        tables.add(
            Structure::new(CHASSIS)
                .string(VENDOR)
                // "Other"
                .bytes(&[1])
                .string("")
                .string(&identity.instance_id)
                .string(VENDOR)
                // Boot-up, power and thermal state: safe; security status: unknown.
                .bytes(&[3, 3, 3, 2])
                .dword(0)
                .bytes(&[0; 4])
                .string(""),
        );
        tables.add(processor(hardware.cpus));
        tables.add_memory(&hardware.memory);
        tables.add(Structure::new(BOOT).bytes(&[0; 7]));
        tables.add(Structure::new(END));
        tables
    }

    fn add(&mut self, structure: Structure) {
        let start = self.bytes.len();
        let [number, kind] = structure.handle.to_le_bytes();
        self.bytes.extend([kind, u8::try_from(structure.body.len() + 4).unwrap_or(u8::MAX)]);
        self.bytes.extend(u16::from_le_bytes([number, kind]).to_le_bytes());
        self.bytes.extend(structure.body);
        if structure.strings.is_empty() {
            self.bytes.push(0);
        }
        self.bytes.extend(structure.strings);
        self.bytes.push(0);
        self.count += 1;
        self.largest = self.largest.max(u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX));
    }

    fn add_memory(&mut self, ranges: &[(u64, u64)]) {
        /// The size field that refers to the extended one, in KiB.
        const CAPACITY_EXTENDED: u64 = 0x8000_0000;
        /// Likewise, in MiB.
        const SIZE_EXTENDED: u64 = 0x7fff;
        let size: u64 = ranges.iter().map(|(_, len)| len).sum();
        let (kib, mib) = (size >> 10, size >> 20);
        let is_large = kib >= CAPACITY_EXTENDED;
        let dword = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        self.add(
            Structure::new(MEMORY_ARRAY)
                // Elsewhere, for the system, without error correction.
                .bytes(&[1, 3, 3])
                .dword(dword(kib.min(CAPACITY_EXTENDED)))
                .word(NO_ERROR_HANDLE)
                .word(1)
                .qword(if is_large { size } else { 0 }),
        );
        self.add(
            Structure::new(MEMORY_DEVICE)
                .word(MEMORY_ARRAY)
                .word(NO_ERROR_HANDLE)
                // Widths are not known.
                .word(0xffff)
                .word(0xffff)
                .word(u16::try_from(mib.min(SIZE_EXTENDED)).unwrap_or(0))
                // A DIMM, of no set.
                .bytes(&[9, 0])
                .string("DIMM 0")
                .string("")
                // RAM of a kind that is "other".
                .bytes(&[7])
                .word(1 << 1)
                .word(0)
                .string(VENDOR)
                .string("")
                .string("")
                .string("")
                .bytes(&[0])
                .dword(if mib >= SIZE_EXTENDED { dword(mib) } else { 0 })
                .bytes(&[0; 8]),
        );
        for (handle, (start, len)) in (MEMORY_MAPPED..).zip(ranges) {
            let last = (start + len).saturating_sub(1);
            let is_high = last >> 10 >= u64::from(u32::MAX);
            let kib = |value: u64| if is_high { u32::MAX } else { dword(value >> 10) };
            let extended = |value: u64| if is_high { value } else { 0 };
            self.add(
                Structure::new(handle)
                    .dword(kib(*start))
                    .dword(kib(last))
                    .word(MEMORY_ARRAY)
                    .bytes(&[1])
                    .qword(extended(*start))
                    .qword(extended(last)),
            );
        }
    }

    /// The structures' bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The 32-bit entry point (section 5.2.1), which every firmware and system knows. `address` is where the structures
    /// are; firmware that places them itself puts it right.
    #[must_use]
    pub fn entry_point_32(&self, address: u32) -> Vec<u8> {
        let mut bytes = b"_SM_\0\x1f\x02\x08".to_vec();
        bytes.extend(self.largest.to_le_bytes());
        bytes.extend([0; 6]);
        bytes.extend(b"_DMI_\0");
        bytes.extend(u16::try_from(self.bytes.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend(address.to_le_bytes());
        bytes.extend(self.count.to_le_bytes());
        bytes.push(0x28);
        bytes[21] = checksum(&bytes[16..]);
        bytes[4] = checksum(&bytes);
        bytes
    }

    /// The 64-bit entry point (section 5.2.2), for memory that no firmware fills.
    #[must_use]
    pub fn entry_point_64(&self, address: u64) -> Vec<u8> {
        let mut bytes = b"_SM3_\0\x18\x03\x00\x00\x01\x00".to_vec();
        bytes.extend(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(address.to_le_bytes());
        bytes[5] = checksum(&bytes);
        bytes
    }
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

fn bios() -> Structure {
    Structure::new(BIOS)
        .string(VENDOR)
        .string("1.0")
        .word(0xe800)
        .string("10/16/2017")
        .bytes(&[0])
        // "Characteristics are not supported"; a virtual machine (section 7.1.2.2).
        .qword(1 << 3)
        .bytes(&[0, 1 << 4])
        // Release 1.0; no embedded controller.
        .bytes(&[1, 0, 0xff, 0xff])
}

fn processor(cpus: u8) -> Structure {
    Structure::new(PROCESSOR)
        .string("CPU 0")
        // A central processor of another family.
        .bytes(&[3, 1])
        .string(VENDOR)
        .qword(0)
        .string("")
        .bytes(&[0])
        .word(0)
        .word(0)
        .word(0)
        // Socket populated, processor enabled; upgrade: other.
        .bytes(&[0x41, 1])
        .word(NO_HANDLE)
        .word(NO_HANDLE)
        .word(NO_HANDLE)
        .string("")
        .string("")
        .string("")
        .bytes(&[cpus; 3])
        // 64-bit capable, several cores.
        .word(1 << 2 | 1 << 3)
        .word(1)
        .word(cpus.into())
        .word(cpus.into())
        .word(cpus.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity::from_random_bytes([0x5a; 16], "t3.micro")
    }

    fn tables(memory: &[(u64, u64)]) -> Tables {
        Tables::new(&identity(), &Hardware { cpus: 4, memory: memory.to_vec() })
    }

    /// Structures as a reader walks them: type, handle, formatted area and strings.
    fn walk(mut bytes: &[u8]) -> Vec<(u8, u16, Vec<u8>, Vec<String>)> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let len = usize::from(bytes[1]);
            let strings_len = bytes[len..].windows(2).position(|w| w == [0, 0]).unwrap();
            let strings = bytes[len..len + strings_len].split(|b| *b == 0).filter(|s| !s.is_empty());
            let strings = strings.map(|s| String::from_utf8(s.to_vec()).unwrap()).collect();
            all.push((bytes[0], u16::from_le_bytes([bytes[2], bytes[3]]), bytes[..len].to_vec(), strings));
            bytes = &bytes[len + strings_len + 2..];
        }
        all
    }

    #[test]
    fn an_instance_says_who_it_is_as_on_ec2() {
        let identity = identity();
        let tables = tables(&[(0, 1 << 30)]);
        let all = walk(tables.bytes());
        let of = |kind: u8| all.iter().find(|s| s.0 == kind).unwrap();
        assert_eq!(of(0).3[0], "Amazon EC2");
        let uuid = identity.uuid.to_string();
        assert!(uuid.starts_with("ec2"));
        assert_eq!(of(1).3, ["Amazon EC2", "t3.micro", &uuid, "t3.micro"]);
        assert_eq!(of(1).2[7], 3, "the serial number is the third string");
        // As Linux prints it: little-endian.
        assert_eq!(of(1).2[8 + 3], 0xec);
        assert_eq!(Uuid::from_bytes_le(of(1).2[8..24].try_into().unwrap()), identity.uuid);
        assert_eq!(of(2).3, ["Amazon EC2", &identity.instance_id]);
        assert_eq!(of(2).2[8], 2, "the asset tag is the second string");
        assert_eq!((identity.instance_id.len(), identity.instance_id.get(..3)), (19, Some("i-0")));
        assert_eq!(all.last().unwrap().0, 127);
    }

    #[test]
    fn formatted_areas_have_the_lengths_of_the_specification() {
        let all = tables(&[(0, 3 << 30), (4 << 30, 4 << 40)]);
        let all = walk(all.bytes());
        let lengths: Vec<_> = all.iter().map(|s| (s.0, s.2.len())).collect();
        let expected = [
            (0, 0x18),
            (1, 0x1b),
            (2, 0x0f),
            (3, 0x16),
            (4, 0x30),
            (16, 0x17),
            (17, 0x28),
            (19, 0x1f),
            (19, 0x1f),
            (32, 0x0b),
            (127, 4),
        ];
        assert_eq!(lengths, expected);
        let mut handles: Vec<_> = all.iter().map(|s| s.1).collect();
        handles.dedup();
        assert_eq!(handles.len(), all.len());
        assert_eq!(all[7].2[8..12], (3u32 << 20).wrapping_sub(1).to_le_bytes());
        assert_eq!(all[8].2[8..12], [0xff; 4], "too far up for 32 bits of KiB");
    }

    #[test]
    fn both_entry_points_sum_to_zero_and_count_right() {
        let tables = tables(&[(0, 1 << 30)]);
        let old = tables.entry_point_32(0xf_5000);
        assert_eq!((old.len(), checksum(&old), checksum(&old[16..])), (31, 0, 0));
        assert_eq!(usize::from(u16::from_le_bytes([old[22], old[23]])), tables.bytes().len());
        assert_eq!(usize::from(u16::from_le_bytes([old[28], old[29]])), walk(tables.bytes()).len());
        let new = tables.entry_point_64(0xf_5000);
        assert_eq!((new.len(), checksum(&new)), (24, 0));
    }

    #[test]
    fn a_random_identity_is_ec2s_and_never_the_same() {
        let (a, b) = (Identity::random("m5.large").unwrap(), Identity::random("m5.large").unwrap());
        assert!(a.uuid.to_string().starts_with("ec2"));
        assert_ne!((a.uuid, a.instance_id), (b.uuid, b.instance_id));
    }
}
