use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;

/// 2026-11-23 17:08:09 UTC, a Monday.
const NOW: u64 = 1_795_453_689;

struct Bench {
    cmos: Cmos,
    /// Nanoseconds since 1970.
    now: Arc<AtomicU64>,
}

fn bench() -> Bench {
    let now = Arc::new(AtomicU64::new(NOW * 1_000_000_000));
    let clock = now.clone();
    let config = CmosConfig { memory_below_4g: 3 << 30, memory_above_4g: 5 << 30, cpus: 4 };
    let clock: WallClock = Arc::new(move || Duration::from_nanos(clock.load(Ordering::SeqCst)));
    Bench { cmos: Cmos::new(config, clock), now }
}

impl Bench {
    fn get(&self, index: u8) -> u8 {
        self.cmos.write(0, &[index]);
        let mut byte = [0];
        self.cmos.read(1, &mut byte);
        byte[0]
    }
    fn set(&self, index: u8, value: u8) {
        self.cmos.write(0, &[index]);
        self.cmos.write(1, &[value]);
    }
    fn get_all(&self, indexes: &[u8]) -> Vec<u8> {
        indexes.iter().map(|i| self.get(*i)).collect()
    }
    fn pass(&self, nanos: u64) {
        self.now.fetch_add(nanos, Ordering::SeqCst);
    }
}

const TIME: [u8; 8] = [0x32, 9, 8, 7, 6, 4, 2, 0];

#[test]
fn the_time_is_the_hosts_in_every_format() {
    let b = bench();
    assert_eq!(b.get_all(&TIME), [0x20, 0x26, 0x11, 0x23, 2, 0x17, 0x08, 0x09]);
    b.set(0x0b, B_24_HOURS | B_BINARY);
    assert_eq!(b.get_all(&TIME), [20, 26, 11, 23, 2, 17, 8, 9]);
    b.set(0x0b, 0);
    assert_eq!(b.get(4), 0x05 | PM);
    b.pass(7 * 3600 * 1_000_000_000);
    assert_eq!(b.get(4), 0x12);
}

#[test]
fn the_guest_sets_the_clock_at_once_or_byte_by_byte() {
    let b = bench();
    b.set(0x0b, B_24_HOURS | B_SET);
    for (index, value) in TIME.into_iter().zip([0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x58]) {
        b.set(index, value);
    }
    b.pass(1_000_000_000);
    assert_eq!(b.get(0), 0x58, "stands still");
    b.set(0x0b, B_24_HOURS);
    b.pass(2_000_000_000);
    assert_eq!(b.get_all(&TIME), [0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x00, 0x00]);
    b.set(4, 0x15);
    assert_eq!(b.get(4), 0x15);
    b.set(8, 0x99);
    assert_eq!(b.get(8), 0x01, "no such month");
}

#[test]
fn flags_are_sane_without_an_interrupt() {
    let b = bench();
    b.get(0x0c);
    assert_eq!(b.get(0x0c), 0);
    b.pass(999_800_000);
    assert_eq!(b.get(0x0a), A_DEFAULT | A_UPDATING);
    b.pass(200_000);
    assert_eq!(b.get(0x0a), A_DEFAULT);
    assert_eq!(b.get(0x0c), C_UPDATE | C_PERIODIC);
    assert_eq!(b.get(0x0c), 0);
    b.set(0x0b, B_24_HOURS | C_UPDATE);
    b.set(1, 0x12);
    b.set(3, 0xc0);
    b.set(5, 0xff);
    b.pass(1_000_000_000);
    assert_eq!(b.get(0x0c), C_REQUEST | C_UPDATE | C_PERIODIC);
    b.pass(1_000_000_000);
    assert_eq!(b.get(0x0c), C_REQUEST | C_UPDATE | C_PERIODIC | C_ALARM);
    assert_eq!(b.get(0x0d), D_VALID);
}

#[test]
fn memory_sizes_are_where_firmware_looks() {
    let b = bench();
    assert_eq!(b.get_all(&[0x15, 0x16]), [0x80, 0x02]);
    assert_eq!(b.get_all(&[0x17, 0x18, 0x30, 0x31]), [0xff; 4]);
    assert_eq!(b.get_all(&[0x34, 0x35]), [0x00, 0xbf]);
    assert_eq!(b.get_all(&[0x5b, 0x5c, 0x5d]), [0x00, 0x40, 0x01]);
    assert_eq!(b.get(0x5f), 3);
    b.set(0x0f, 0x05);
    assert_eq!(b.get(0x8f), 0x05, "bit 7 of the index is not the index's");
}

proptest! {
    #[test]
    fn no_access_does_harm(
        accesses in prop::collection::vec((any::<bool>(), 0u64..2, any::<u16>(), 0u64..100_000_000_000_000), 0..60),
    ) {
        let b = bench();
        for (is_read, offset, value, pause) in accesses {
            let bytes = value.to_le_bytes();
            let len = if offset == 0 { 2 } else { 1 };
            if is_read {
                b.cmos.read(offset, &mut [0; 2][..len]);
            } else {
                b.cmos.write(offset, &bytes[..len]);
            }
            b.pass(pause);
        }
        b.set(0x0b, B_24_HOURS);
        prop_assert!(b.get(0x00) <= 0x59 && b.get(0x08) <= 0x12 && b.get(0x04) <= 0x23);
    }
}
