//! Registers, commands and lists that no honest driver would write.

use std::sync::Arc;

use proptest::prelude::*;

use super::testing::*;
use super::*;
use crate::vmm::bus::BusDevice;

const SECTORS: usize = 64;

/// An address that is likely to be trouble. None of them, with anything that a command can ask for, reaches the island.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0_u64..0x20).prop_map(|page| DATA + page * PAGE),
        2 => (0_u64..0x4000).prop_map(|by| DATA + 4 * by),
        1 => DATA..DATA + 0x1_0000,
        1 => (0_u64..4).prop_map(|page| SEAM - 2 * PAGE + page * PAGE),
        1 => (0_u64..4).prop_map(|page| HOLE - 2 * PAGE + page * PAGE),
        1 => (0_u64..3).prop_map(|page| ISLAND - 0x10_0000 - page * PAGE),
        1 => (0_u64..64).prop_map(|by| u64::MAX - by),
        1 => Just(!0xfff),
        // The queues themselves.
        1 => (0_u64..8).prop_map(|page| RINGS + page * PAGE),
        1 => 1_u64 << 32..=u64::MAX,
    ]
}

fn word() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0_u32..16, 2 => 0_u32..0x400, 1 => Just(u32::MAX), 1 => Just(0xffff), 1 => any::<u32>()]
}

/// Two halves that, taken for an address, are not the island's.
fn halves() -> impl Strategy<Value = u32> {
    (word(), word()).prop_map(|(low, high)| low & 0xffff | (high & !0x40) << 16)
}

fn command() -> impl Strategy<Value = Cmd> {
    let opcode = prop_oneof![8 => 0_u8..0x10, 1 => any::<u8>()];
    let flags = prop_oneof![12 => Just(0_u8), 1 => any::<u8>()];
    let nsid = prop_oneof![8 => Just(1), 3 => Just(0), 1 => Just(u32::MAX), 1 => any::<u32>()];
    let cdw = [halves().boxed(), halves().boxed(), word().boxed(), word().boxed(), word().boxed(), word().boxed()];
    (opcode, flags, nsid, address(), address(), cdw).prop_map(|(opcode, flags, nsid, prp1, prp2, mut cdw)| {
        // A starting block with an upper half is hardly ever inside the disk.
        if opcode <= 8 && cdw[1] & 1 == 0 && nsid == 1 {
            cdw[1] = 0;
            cdw[0] &= 0xff;
        }
        Cmd { opcode, flags, nsid, prp1, prp2, cdw }
    })
}

#[derive(Clone, Debug)]
enum Step {
    Command { queue: u16, cmd: Cmd },
    Doorbell { at: u64, value: u32 },
    Write { offset: u64, data: Vec<u8> },
    Read { offset: u64, len: usize },
    Configure(u32),
    Base { register: u64, value: u64 },
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let width = || prop::sample::select(vec![1_usize, 2, 4, 8]);
    let offset = || prop_oneof![4 => 0_u64..0x40, 2 => 0x1000_u64..0x1040, 1 => 0_u64..0x2010];
    let configuration = prop_oneof![
        3 => Just(ENABLED),
        1 => Just(0),
        1 => Just(ENABLED | 1 << 14),
        1 => Just(ENABLED & !1),
        1 => any::<u32>(),
    ];
    prop_oneof![
        12 => (0_u16..4, command()).prop_map(|(queue, cmd)| Step::Command { queue, cmd }),
        4 => (0_u64..12, word()).prop_map(|(at, value)| Step::Doorbell { at: 0x1000 + 4 * at, value }),
        2 => (offset(), prop::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(offset, data)| Step::Write { offset, data }),
        2 => (offset(), width()).prop_map(|(offset, len)| Step::Read { offset, len }),
        1 => configuration.prop_map(Step::Configure),
        1 => (prop::sample::select(vec![ASQ, ACQ]), address()).prop_map(|(register, value)| Step::Base { register, value }),
        1 => Just(Step::Reset),
    ]
}

fn take(bench: &Arc<Bench>, pairs: &mut Vec<Pair>, step: &Step) {
    match step {
        Step::Command { queue, cmd } => {
            let pair = &mut pairs[usize::from(*queue)];
            pair.submit(cmd);
            // Whatever comes or does not come is taken.
            while pair.peek().is_some() {}
            pair.release();
        }
        Step::Doorbell { at, value } => bench.set(*at, *value),
        Step::Write { offset, data } => bench.nvme.write(*offset, data),
        Step::Read { offset, len } => bench.nvme.read(*offset, &mut [0; 8][..*len]),
        Step::Configure(value) => bench.set(CC, *value),
        Step::Base { register, value } => bench.set_long(*register, *value),
        Step::Reset => {
            bench.nvme.reset();
            *pairs = start(bench);
        }
    }
}

/// An enabled controller with I/O queues 1 and 2, and a queue 3 that does not exist.
fn start(bench: &Arc<Bench>) -> Vec<Pair> {
    let mut admin = bench.enable(16);
    let one = admin.create(1, 16, 16);
    let two = admin.create(2, 8, 4);
    let none = Pair::new(bench.clone(), 3, 3, 4, 4, 3);
    vec![admin, one, two, none]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// It neither panics nor hangs, leaves alone what nothing named, and works as new after a reset.
    #[test]
    fn random_drivers_do_no_harm(
        lists in prop::collection::vec(address(), 64..=64),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        // All ones, so that a list or a queue made of disk data names no memory.
        let disk = Arc::new(MemDisk::new(vec![0xff; SECTORS * 512]));
        let bench = Bench::new(disk.clone());
        bench.put(ISLAND, &[0x5a; ISLAND_LEN]);
        // Lists everywhere in the data.
        let list: Vec<u8> = lists.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        bench.put(DATA, &list.repeat(0x2_0000 / list.len()));
        let mut pairs = start(&bench);
        for step in &steps {
            take(&bench, &mut pairs, step);
        }
        let _ = bench.nvme.state();
        bench.nvme.reset();
        prop_assert!(bench.take(ISLAND, ISLAND_LEN).iter().all(|&byte| byte == 0x5a), "the island was written to");
        prop_assert_eq!(disk.data.lock().unwrap().len(), SECTORS * 512);
        let mut pairs = start(&bench);
        prop_assert_eq!(pairs[0].code(&Cmd::new(admin_op::IDENTIFY, 0, DATA, &[1])), 0);
        prop_assert_eq!(pairs[1].code(&Cmd::blocks(io_op::READ, DATA, 0, 8)), 0);
    }
}

/// Rings over each other: completions become commands, and commands completions.
#[test]
fn rings_may_lie_over_each_other() {
    let bench = Bench::new(Arc::new(MemDisk::patterned(SECTORS)));
    let mut admin = bench.enable(16);
    let (submission, completion) = (RINGS + 0x8000, RINGS + 0x8000);
    admin.must(&create_completion(1, 64, completion, 1));
    admin.must(&create_submission(1, 16, submission, 1));
    for round in 0..64 {
        bench.set(Bench::submission_doorbell(1), (round * 7) % 16);
        bench.set(Bench::completion_doorbell(1), (round * 5) % 64);
    }
    admin.must(&Cmd::new(admin_op::IDENTIFY, 0, DATA, &[1]));
    // The admin queues too.
    bench.nvme.reset();
    bench.set(AQA, 0xf_003f);
    bench.set_long(ASQ, RINGS);
    bench.set_long(ACQ, RINGS);
    bench.set(CC, ENABLED);
    for round in 0..64 {
        bench.set(0x1000, (round * 7) % 64);
        bench.set(0x1004, round % 16);
    }
    bench.nvme.reset();
    bench.enable(16).must(&Cmd::new(admin_op::IDENTIFY, 0, DATA, &[1]));
}

/// Doorbells from several processors at once, while another resets the controller.
#[test]
fn doorbells_against_resets() {
    let bench = Bench::new(Arc::new(MemDisk::patterned(SECTORS)));
    let ringers: Vec<_> = (0..2)
        .map(|thread| {
            let bench = bench.clone();
            std::thread::spawn(move || {
                for round in 0..4000_u32 {
                    let queue = u16::try_from((round + thread) % 6).unwrap();
                    bench.set(Bench::submission_doorbell(queue), round % 19);
                    bench.set(Bench::completion_doorbell(queue), round % 17);
                }
            })
        })
        .collect();
    let mut resets = 0;
    while resets < 50 || !ringers.iter().all(std::thread::JoinHandle::is_finished) {
        // Rings in which nothing is a command: all zeroes is to delete queue 0, or a flush of no namespace.
        bench.put(RINGS, &[0; 0x8000]);
        bench.set(AQA, 0xf_000f);
        bench.set_long(ASQ, RINGS);
        bench.set_long(ACQ, RINGS + PAGE);
        bench.set(CC, ENABLED);
        bench.set(CC, ENABLED | 1 << 14);
        bench.set(CC, 0);
        assert_eq!(bench.get(CSTS), 0);
        resets += 1;
    }
    for ringer in ringers {
        ringer.join().unwrap();
    }
    bench.enable(16).must(&Cmd::new(admin_op::IDENTIFY, 0, DATA, &[1]));
}
