use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use proptest::prelude::*;

use super::*;

const LEN: u64 = 4 * BLOCK_SIZE;

/// A chip on a file, and whether it is shown.
struct Chip {
    flash: Flash,
    shown: Arc<AtomicBool>,
    changes: Arc<AtomicU32>,
    said: Arc<Mutex<Vec<String>>>,
    file: File,
}

impl Chip {
    fn new() -> Self {
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..LEN).map(|i| u8::try_from(i % 251).unwrap()).collect();
        file.write_all_at(&bytes, 0).unwrap();
        let contents = Contents::new(&bytes, Some(file.try_clone().unwrap())).unwrap();
        Self::with(contents, file)
    }

    fn with(contents: Contents, file: File) -> Self {
        let (shown, changes) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
        let said = Arc::new(Mutex::new(Vec::new()));
        let (is_shown, count, lines) = (shown.clone(), changes.clone(), said.clone());
        let show: Show = Box::new(move |show| {
            assert_ne!(is_shown.swap(show, Ordering::Relaxed), show);
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        let log: Log = Arc::new(move |line: &str| lines.lock().unwrap().push(line.into()));
        Self { flash: Flash::new(contents, show, log), shown, changes, said, file }
    }

    fn get(&self, offset: u64) -> u8 {
        let mut byte = [0];
        self.flash.read(offset, &mut byte);
        byte[0]
    }

    fn put(&self, offset: u64, bytes: &[u8]) {
        for byte in bytes {
            self.flash.write(offset, &[*byte]);
        }
    }

    /// What the array holds, which is also what the file holds.
    fn array(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(LEN).unwrap()];
        self.file.read_exact_at(&mut bytes, 0).unwrap();
        let memory: Vec<u8> = (0..LEN).map(|i| self.flash.contents.byte(i)).collect();
        assert!(memory == bytes, "the file is not as the memory");
        bytes
    }
}

#[test]
fn what_ovmf_looks_for_is_a_flash_chip() {
    // QemuFlashDetected() of edk2, OvmfPkg/QemuFlashFvbServicesRuntimeDxe/QemuFlash.c.
    let chip = Chip::new();
    let original = chip.get(0x18);
    chip.put(0x18, &[0x50]);
    assert_eq!(chip.get(0x18), original);
    chip.put(0x18, &[0x70]);
    assert_eq!(chip.get(0x18), 0);
    chip.put(0x18, &[0xff]);
    assert_eq!(chip.get(0x18), original);
}

#[test]
fn bytes_are_programmed_and_blocks_erased() {
    let chip = Chip::new();
    let mut expected = chip.array();
    for (offset, value) in [(0x1000, 0xab), (0x1001, 0), (LEN - 1, 0xff)] {
        chip.put(offset, &[0x10, value]);
        assert_eq!(chip.get(offset), 0x80);
        expected[usize::try_from(offset).unwrap()] = value;
    }
    assert_eq!(chip.array(), expected);
    chip.put(0x2fff, &[0x20, 0xd0]);
    expected[0x2000..0x3000].fill(0xff);
    assert_eq!(chip.array(), expected);
    chip.put(0x2fff, &[0xff]);
    assert_eq!(chip.get(0x2000), 0xff);
    assert_eq!(chip.get(0x1000), 0xab);
    // Not confirmed: nothing happens, and the status says so.
    chip.put(0, &[0x20, 0x33]);
    assert_eq!(chip.get(0), 0xb0);
    chip.put(0, &[0x20, 0xff]);
    assert_eq!(chip.array(), expected);
    chip.put(0, &[0x50, 0x70]);
    assert_eq!(chip.get(0), 0);
}

#[test]
fn several_bytes_are_written_at_once_when_they_are_confirmed() {
    let chip = Chip::new();
    let before = chip.array();
    let write = |bytes: &[(u64, u8)], confirm: u8| {
        chip.put(bytes[0].0, &[0xe8, u8::try_from(bytes.len() - 1).unwrap()]);
        for (offset, value) in bytes {
            chip.put(*offset, &[*value]);
        }
        assert_eq!(chip.array(), before, "nothing yet");
        chip.put(bytes[0].0, &[confirm]);
        chip.get(0)
    };
    assert_eq!(write(&[(0x1100, 1), (0x1101, 2)], 0x77), 0xb0);
    assert_eq!(chip.array(), before);
    chip.put(0, &[0x50]);
    // A byte of another block: all of it is void, and what follows are commands.
    chip.put(0x1000, &[0xe8, 1, 9]);
    chip.put(0x2000, &[9]);
    assert_eq!(chip.get(0), 0xb0);
    chip.put(0, &[0x50]);
    assert_eq!(chip.array(), before);
    let bytes: Vec<(u64, u8)> = (0..256).map(|i| (0x1100 + (i * 7) % 256, 0x5a)).collect();
    assert_eq!(write(&bytes, 0xd0), 0x80);
    let mut expected = before.clone();
    expected[0x1100..0x1200].fill(0x5a);
    assert_eq!(chip.array(), expected);
}

#[test]
fn it_tells_what_it_is() {
    let chip = Chip::new();
    chip.put(0, &[0x90]);
    assert_eq!([0, 1, 2, 0x100].map(|at| chip.get(at)), [0x89, 0x18, 0, 0x89]);
    chip.put(0x55, &[0x98]);
    let table: Vec<u8> = (0x10..0x36).map(|at| chip.get(at)).collect();
    assert_eq!(&table[..6], b"QRY\x01\0\x31");
    assert_eq!(&table[0x21..], b"PRI10");
    assert_eq!((table[0x17], table[0x1a]), (14, 8));
    // Four blocks of 16 times 256 bytes.
    assert_eq!(&table[0x1c..0x21], &[1, 3, 0, 16, 0]);
    assert_eq!(chip.get(LEN - 1), 0);
    chip.put(0, &[0x60, 0x01]);
    assert_eq!(chip.get(0), 0x80);
    chip.put(0, &[0x60, 0x33]);
    assert_eq!(chip.get(0), 0xb0);
}

#[test]
fn contents_become_memory_again_when_they_are_read_for_a_while() {
    let chip = Chip::new();
    let shown = || chip.shown.load(Ordering::Relaxed);
    chip.put(0, &[0xff]);
    assert!(!shown());
    for _ in 1..READS_BEFORE_MEMORY {
        chip.get(0);
    }
    chip.put(0, &[0x40, 1, 0xff]);
    for _ in 1..READS_BEFORE_MEMORY {
        chip.get(0);
        assert!(!shown());
    }
    chip.get(0);
    assert!(shown());
    assert_eq!(chip.changes.load(Ordering::Relaxed), 2);
    // Not while they are something else.
    chip.put(0, &[0x70]);
    for _ in 0..READS_BEFORE_MEMORY * 2 {
        chip.get(0);
    }
    assert!(!shown());
}

#[test]
fn what_the_host_does_not_keep_is_not_there_and_the_guest_is_told() {
    let path = tempfile::NamedTempFile::new().unwrap();
    path.as_file().set_len(LEN).unwrap();
    // A file that cannot be written to.
    let file = File::open(path.path()).unwrap();
    let bytes = vec![0; usize::try_from(LEN).unwrap()];
    let contents = Contents::new(&bytes, Some(file.try_clone().unwrap())).unwrap();
    let chip = Chip::with(contents, file);
    chip.put(5, &[0x40, 1]);
    assert_eq!(chip.get(5), 0x90);
    chip.put(5, &[0x40, 1]);
    assert_eq!(chip.said.lock().unwrap().len(), 1);
    chip.put(5, &[0x50]);
    chip.put(5, &[0x20, 0xd0]);
    assert_eq!(chip.get(5), 0xa0);
    assert_eq!(chip.array(), bytes);
    assert_eq!(chip.said.lock().unwrap().len(), 2);
}

#[test]
fn contents_that_cannot_be_shown_or_hidden_are_served_all_the_same() {
    let contents = Contents::new(&[7; 4096], None).unwrap();
    let log: Log = Arc::new(|_: &str| {});
    let refuse: Show = Box::new(|_| Err(std::io::ErrorKind::OutOfMemory.into()));
    let flash = Flash::new(contents, refuse, log);
    let mut byte = [0];
    flash.write(0, &[0x70]);
    flash.read(0, &mut byte);
    assert_eq!(byte, [0x80]);
    flash.write(0, &[0xff]);
    for _ in 0..100 {
        flash.read(0, &mut byte);
        assert_eq!(byte, [7]);
    }
}

#[test]
fn contents_outlast_a_chip_and_are_made_durable() {
    let chip = Chip::new();
    chip.put(0x123, &[0x40, 0x77]);
    let contents = chip.flash.contents.clone();
    contents.sync().unwrap();
    contents.sync().unwrap();
    let next = Chip::with(contents, chip.file.try_clone().unwrap());
    assert_eq!(next.get(0x123), 0x77);
    for len in [0, 1, 4095, 4097] {
        assert!(matches!(Contents::new(&vec![0; len], None), Err(ContentsError::Size(_))));
    }
}

/// A chip as its data sheet tells it: by the bytes since the last command was done.
struct Model {
    array: Vec<u8>,
    status: u8,
    reads: char,
    cycles: Vec<(u64, u8)>,
}

impl Model {
    fn write(&mut self, offset: u64, value: u8) {
        self.cycles.push((offset, value));
        let values: Vec<u8> = self.cycles.iter().map(|(_, value)| *value).collect();
        let done = |model: &mut Self, reads: char, status: u8| {
            model.cycles.clear();
            model.reads = reads;
            model.status |= status;
        };
        self.reads = 's';
        match values[..] {
            [0x10 | 0x40 | 0x20 | 0x60] => {}
            [0xe8] => self.status |= 0x80,
            [0x50] => {
                self.status = 0;
                done(self, 'a', 0);
            }
            [0x70] => done(self, 's', 0),
            [0x90] => done(self, 'i', 0),
            [0x98] => done(self, 'q', 0),
            [_] => done(self, 'a', 0),
            [0x10 | 0x40, _] => {
                self.array[usize::try_from(offset).unwrap()] = value;
                done(self, 's', 0x80);
            }
            [0x20, 0xd0] => {
                let block = usize::try_from(offset / 4096 * 4096).unwrap();
                self.array[block..block + 4096].fill(0xff);
                done(self, 's', 0x80);
            }
            [0x60, 0xd0 | 0x01 | 0x2f] => done(self, 's', 0x80),
            [0x20 | 0x60, 0xff] => done(self, 'a', 0),
            [0xe8, _] => {}
            [0xe8, count, .., last] => {
                let count = usize::from(count) + 1;
                let bytes = self.cycles[2..].to_vec();
                let strange = bytes[..count.min(bytes.len())].iter().any(|(at, _)| at / 4096 != bytes[0].0 / 4096);
                if strange || (bytes.len() > count && last != 0xd0) {
                    done(self, 's', 0xb0);
                } else if bytes.len() > count {
                    for (at, value) in &bytes[..count] {
                        self.array[usize::try_from(*at).unwrap()] = *value;
                    }
                    done(self, 's', 0x80);
                }
            }
            _ => done(self, 's', 0xb0),
        }
    }
}

fn operation() -> impl Strategy<Value = (bool, u64, Vec<u8>)> {
    let command = prop_oneof![
        3 => prop::sample::select(vec![0x10u8, 0x40, 0x20, 0xd0, 0x50, 0x60, 0x70, 0x90, 0x98, 0xe8, 0xff, 0xf0, 1, 2]),
        1 => any::<u8>(),
    ];
    // Most accesses close together, so that buffers are filled; some over the end of a block.
    let offset = prop_oneof![4 => 0x1000..0x1040_u64, 1 => 0..LEN, 1 => 0x1ff0..0x2010_u64, 1 => Just(LEN - 8)];
    let width = prop::sample::select(vec![1usize, 1, 1, 1, 2, 4, 8]);
    (prop::bool::weighted(0.7), offset, width, prop::collection::vec(command, 8)).prop_map(
        |(write, offset, width, mut bytes)| {
            bytes.truncate(width);
            (write, offset.min(LEN - width as u64), bytes)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn whatever_a_guest_does_it_is_as_the_model_and_writes_nothing_else(
        operations in prop::collection::vec(operation(), 1..400)
    ) {
        let chip = Chip::new();
        let mut model = Model { array: chip.array(), status: 0x80, reads: 'a', cycles: Vec::new() };
        for (write, offset, bytes) in operations {
            if write {
                chip.flash.write(offset, &bytes);
                for (at, byte) in (offset..).zip(&bytes) {
                    model.write(at, *byte);
                }
            } else {
                let mut got = bytes.clone();
                chip.flash.read(offset, &mut got);
                let expected: Vec<u8> = (offset..).take(bytes.len()).map(|at| match model.reads {
                    'a' => model.array[usize::try_from(at).unwrap()],
                    'i' => query::id(at),
                    'q' => query::table(at, LEN),
                    _ => model.status,
                }).collect();
                prop_assert_eq!(got, expected);
            }
            // What is no array must not be shown as one.
            prop_assert!(model.reads == 'a' || !chip.shown.load(Ordering::Relaxed));
        }
        prop_assert!(chip.array() == model.array);
    }

    #[test]
    fn offsets_that_the_bus_never_gives_do_no_harm(offset in any::<u64>(), commands in prop::collection::vec(any::<u8>(), 1..40)) {
        let chip = Chip::new();
        chip.put(offset, &commands);
        chip.get(offset);
        prop_assert_eq!(chip.file.metadata().unwrap().len(), LEN);
        chip.array();
    }
}
