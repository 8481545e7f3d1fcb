//! The table loader script (QEMU, `hw/acpi/bios-linker-loader.c`): firmware puts
//! tables where it has room for them, and the script says what then depends on where they are.

/// The file that holds the script.
pub const SCRIPT_FILE: &str = "etc/table-loader";

/// Every command has this length, in bytes.
pub const COMMAND_SIZE: usize = 128;
/// A file's name and its final NUL.
const NAME_SIZE: usize = 56;

const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;

/// Where a file is to be put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Zone {
    /// High memory.
    High = 1,
    /// The last 64 KiB of the first megabyte, where the RSDP is looked for.
    FSegment = 2,
}

/// A script in the making.
#[derive(Debug, Default)]
pub struct Script(Vec<u8>);

impl Script {
    fn command(&mut self, kind: u32, fields: &[&[u8]]) {
        let end = self.0.len() + COMMAND_SIZE;
        self.0.extend(kind.to_le_bytes());
        for field in fields {
            self.0.extend(*field);
        }
        self.0.resize(end, 0);
    }

    /// Puts a file into memory at a multiple of `align`, a power of two.
    pub fn allocate(&mut self, file: &str, align: u32, zone: Zone) {
        self.command(ALLOCATE, &[&name(file), &align.to_le_bytes(), &[zone as u8]]);
    }

    /// Adds the address of `target` to the `size`-byte number at `offset` in `file`. Both were allocated before.
    pub fn add_pointer(&mut self, file: &str, target: &str, offset: u32, size: u8) {
        self.command(ADD_POINTER, &[&name(file), &name(target), &offset.to_le_bytes(), &[size]]);
    }

    /// Sets the byte at `offset` in `file`, which must be zero, so that `len` bytes from `start` on sum to zero.
    pub fn add_checksum(&mut self, file: &str, offset: u32, start: u32, len: u32) {
        let numbers = [offset, start, len].map(u32::to_le_bytes).concat();
        self.command(ADD_CHECKSUM, &[&name(file), &numbers]);
    }

    /// The script's file.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

fn name(file: &str) -> [u8; NAME_SIZE] {
    debug_assert!(file.len() < NAME_SIZE);
    let mut field = [0; NAME_SIZE];
    for (to, from) in field.iter_mut().zip(file.bytes().take(NAME_SIZE - 1)) {
        *to = from;
    }
    field
}

/// A small model of what firmware does with a script.
#[cfg(test)]
pub(crate) mod model {
    use std::collections::BTreeMap;

    use super::*;

    /// Files in memory: contents and address.
    pub(crate) type Placed = BTreeMap<String, (Vec<u8>, u64)>;

    fn text(field: &[u8]) -> String {
        let end = field.iter().position(|b| *b == 0).expect("a final NUL");
        String::from_utf8(field[..end].to_vec()).unwrap()
    }

    fn number(field: &[u8]) -> usize {
        u32::from_le_bytes(field.try_into().unwrap()) as usize
    }

    /// Runs a script over files by name, as SeaBIOS does; panics at whatever SeaBIOS would stop at.
    pub(crate) fn run(script: &[u8], files: &BTreeMap<String, Vec<u8>>) -> Placed {
        assert_eq!(script.len() % COMMAND_SIZE, 0);
        let mut placed = Placed::new();
        let (mut high, mut f_segment) = (0x1ffe_0123u64, 0xf_6001u64);
        for command in script.chunks(COMMAND_SIZE) {
            let fields = &command[4..];
            match u32::from_le_bytes(command[..4].try_into().unwrap()) {
                ALLOCATE => {
                    let (file, align) = (text(&fields[..56]), number(&fields[56..60]) as u64);
                    assert!(align.is_power_of_two());
                    let free = if fields[60] == Zone::FSegment as u8 { &mut f_segment } else { &mut high };
                    let addr = free.next_multiple_of(align);
                    let bytes = files[&file].clone();
                    *free = addr + bytes.len() as u64;
                    assert!(placed.insert(file, (bytes, addr)).is_none(), "allocated twice");
                }
                ADD_POINTER => {
                    let (file, target) = (text(&fields[..56]), text(&fields[56..112]));
                    let (at, size) = (number(&fields[112..116]), usize::from(fields[116]));
                    let (len, addr) = (placed[&target].0.len() as u64, placed[&target].1);
                    let bytes = &mut placed.get_mut(&file).unwrap().0[at..at + size];
                    let mut value = [0; 8];
                    value[..size].copy_from_slice(bytes);
                    let offset = u64::from_le_bytes(value);
                    assert!(offset < len, "points behind the end of {target}");
                    let value = (offset + addr).to_le_bytes();
                    assert!(value[size..].iter().all(|b| *b == 0));
                    bytes.copy_from_slice(&value[..size]);
                }
                ADD_CHECKSUM => {
                    let bytes = &mut placed.get_mut(&text(&fields[..56])).unwrap().0;
                    let (at, start, len) = (number(&fields[56..60]), number(&fields[60..64]), number(&fields[64..68]));
                    assert!((start..start + len).contains(&at));
                    assert_eq!(bytes[at], 0);
                    let sum = bytes[start..start + len].iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
                    bytes[at] = sum.wrapping_neg();
                }
                kind => panic!("no such command: {kind}"),
            }
        }
        placed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_script_places_files_and_mends_pointers_and_sums() {
        let mut script = Script::default();
        script.allocate("a", 64, Zone::High);
        script.allocate("b", 16, Zone::FSegment);
        script.add_pointer("b", "a", 1, 4);
        script.add_checksum("b", 0, 0, 5);
        let files = BTreeMap::from([("a".to_owned(), vec![1; 40]), ("b".to_owned(), vec![0, 7, 0, 0, 0])]);
        let placed = model::run(&script.into_bytes(), &files);
        let (a, b) = (&placed["a"], &placed["b"]);
        assert!(a.1.is_multiple_of(64) && (0xf_0000..0x10_0000).contains(&b.1));
        assert_eq!(u32::from_le_bytes(b.0[1..5].try_into().unwrap()), u32::try_from(a.1).unwrap() + 7);
        assert_eq!(b.0.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    }
}
