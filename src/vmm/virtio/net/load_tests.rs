//! Drivers that start again, and change their pairs, while frames keep coming.

use std::sync::atomic::AtomicBool;
use std::thread;

use super::super::mmio::MmioTransport;
use super::super::testing::*;
use super::testing::*;
use super::*;

/// Where what the driver has taken back is.
const TAKEN_BACK: u64 = SEAM + 0x8_0000;

/// Ends what goes on meanwhile, also where an assertion fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Offers room, and frames to send, on the first pair.
fn offer_all(driver: &mut CardDriver<MmioTransport>) {
    driver.on.put(DATA, &[0; 100]);
    for head in 0..32 {
        driver.offer(0, head, &[(DATA + 0x1000 + 0x800 * u64::from(head), 0x800, true)]);
        driver.offer(1, head, &[(DATA, 72, false)]);
    }
    driver.kick(0);
    driver.kick(1);
}

#[test]
fn a_driver_that_starts_again_under_load_has_its_memory_for_itself() {
    let wire = Wire::new(2, ALL);
    let card = card(&wire);
    let counters = card.counters();
    let features = MULTIQUEUE | MERGES | EVENT_IDX;
    let mut driver = CardDriver::<MmioTransport>::started(card, features, 5, 32);
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::SeqCst) {
                if wire.lanes.lock().unwrap()[0].to_guest.len() < 64 {
                    wire.give(0, &[7; 700]);
                }
                thread::yield_now();
            }
        });
        let _ends = Ends(&ended);
        for round in 0..30_u16 {
            offer_all(&mut driver);
            // At any moment of it, or after a change of pairs.
            if round % 3 == 0 {
                assert_eq!(driver.command(4, &pairs(2 - round % 2)), 0);
            }
            let seen = (0..round).take_while(|_| driver.used_idx(0) < 32).count();
            driver.on.set_status(0);
            let (frames, received) = (wire.lanes.lock().unwrap()[0].from_guest.len(), driver.used_idx(0));
            assert!(received <= 32 && seen <= usize::from(round));
            let room = driver.on.take(DATA, 0x2_0000);
            driver.on.put(TAKEN_BACK, &room);
            for _ in 0..100 {
                thread::yield_now();
            }
            assert!(driver.on.take(DATA, 0x2_0000) == driver.on.take(TAKEN_BACK, 0x2_0000), "memory was written to");
            assert_eq!(driver.used_idx(0), received);
            assert_eq!(wire.lanes.lock().unwrap()[0].from_guest.len(), frames);
            driver.start(features, 5, 32);
        }
    });
    drop(driver);
    assert_eq!((*wire.open.lock().unwrap(), counters.malformed.load(Ordering::SeqCst)), (0, 0));
}
