//! MSI-X (PCI 3.0, section 6.8.2): a table of messages in a BAR, each of which can be masked, and what is pending behind
//! the masks.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::vmm::bus::BusDevice;

/// Capability ID.
pub const CAPABILITY_ID: u8 = 0x11;
/// The most vectors of a function.
pub const MAX_VECTORS: u16 = 2048;
/// `Message Control`: MSI-X is in use, INTx# is not.
pub const CONTROL_ENABLE: u16 = 1 << 15;
/// `Message Control`: all vectors are masked.
pub const CONTROL_FUNCTION_MASK: u16 = 1 << 14;
/// Bytes of a table entry.
pub const ENTRY_SIZE: u64 = 16;
/// `Vector Control`: the vector is masked.
const VECTOR_MASK: u32 = 1;

/// A message-signalled interrupt: a write of `data` to `address`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsiMessage {
    /// Where to.
    pub address: u64,
    /// What.
    pub data: u32,
}

/// The machine's end of a function's vectors.
pub trait MsiRoute: Send + Sync {
    /// From now on vector `vector` sends `message`.
    ///
    /// # Errors
    /// Where the machine cannot deliver such a message; then it keeps the one before.
    fn program(&self, vector: u16, message: MsiMessage) -> io::Result<()>;

    /// Sends what the vector was programmed with.
    fn send(&self, vector: u16);
}

/// Gives functions their vectors; the machine implements it.
pub trait MsiController {
    /// Vectors 0 to `vectors` - 1 of one function.
    ///
    /// # Errors
    /// What the host says; or that there are no more.
    fn allocate(&self, vectors: u16) -> io::Result<Arc<dyn MsiRoute>>;
}

#[derive(Clone, Copy)]
struct Entry {
    message: MsiMessage,
    control: u32,
    pending: bool,
    /// What the route sends now.
    programmed: Option<MsiMessage>,
}

impl Entry {
    const fn new(programmed: Option<MsiMessage>) -> Self {
        Self { message: MsiMessage { address: 0, data: 0 }, control: VECTOR_MASK, pending: false, programmed }
    }
}

struct State {
    enabled: bool,
    masked: bool,
    entries: Vec<Entry>,
}

/// The vectors of one function.
pub struct Msix {
    state: Mutex<State>,
    route: Arc<dyn MsiRoute>,
    vectors: u16,
}

impl Msix {
    /// `vectors` is 1 to [`MAX_VECTORS`], which `route` has to have; more are cut off.
    #[must_use]
    pub fn new(vectors: u16, route: Arc<dyn MsiRoute>) -> Arc<Self> {
        let vectors = vectors.clamp(1, MAX_VECTORS);
        let entries = vec![Entry::new(None); vectors.into()];
        Arc::new(Self { state: Mutex::new(State { enabled: false, masked: false, entries }), route, vectors })
    }

    /// How many.
    #[must_use]
    pub fn vectors(&self) -> u16 {
        self.vectors
    }

    /// Whether the driver uses MSI-X; otherwise the function has INTx#.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.lock().enabled
    }

    /// Interrupts by a vector. Behind a mask it becomes pending; while MSI-X is off, or where the vector does not exist,
    /// nothing happens.
    pub fn trigger(&self, vector: u16) {
        let mut state = self.lock();
        if !state.enabled {
            return;
        }
        if let Some(entry) = state.entries.get_mut(usize::from(vector)) {
            entry.pending = true;
        }
        self.settle(&mut state, vector);
    }

    /// Takes over `Message Control`.
    pub fn set_control(&self, control: u16) {
        let mut state = self.lock();
        let (enabled, masked) = (control & CONTROL_ENABLE != 0, control & CONTROL_FUNCTION_MASK != 0);
        if (enabled, masked) == (state.enabled, state.masked) {
            return;
        }
        (state.enabled, state.masked) = (enabled, masked);
        for vector in 0..self.vectors {
            self.settle(&mut state, vector);
        }
    }

    /// Back to the state after power-on: off, every vector masked, nothing pending.
    pub fn reset(&self) {
        let mut state = self.lock();
        (state.enabled, state.masked) = (false, false);
        state.entries.iter_mut().for_each(|entry| *entry = Entry::new(entry.programmed));
    }

    /// Bytes of the table.
    #[must_use]
    pub fn table_len(&self) -> u64 {
        ENTRY_SIZE * u64::from(self.vectors)
    }

    /// Bytes of the pending bit array: whole qwords.
    #[must_use]
    pub fn pba_len(&self) -> u64 {
        u64::from(self.vectors.div_ceil(64)) * 8
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where nothing masks a vector: sees that its message is the one programmed, and sends it if it is pending.
    ///
    /// Only then, because a driver writes an entry in several steps, behind its mask, and each change is costly.
    fn settle(&self, state: &mut State, vector: u16) {
        if !state.enabled || state.masked {
            return;
        }
        let Some(entry) = state.entries.get_mut(usize::from(vector)) else { return };
        if entry.control & VECTOR_MASK != 0 {
            return;
        }
        if entry.programmed != Some(entry.message) && self.route.program(vector, entry.message).is_ok() {
            entry.programmed = Some(entry.message);
        }
        if std::mem::take(&mut entry.pending) && entry.programmed == Some(entry.message) {
            self.route.send(vector);
        }
    }

    fn read_dword(&self, offset: u64) -> u32 {
        let state = self.lock();
        let Some((entry, field)) = locate(offset).and_then(|(at, field)| Some((state.entries.get(at)?, field))) else {
            return 0;
        };
        match field {
            0 => low(entry.message.address),
            4 => high(entry.message.address),
            8 => entry.message.data,
            _ => entry.control,
        }
    }

    fn write_dword(&self, offset: u64, value: u32) {
        let mut state = self.lock();
        let Some((at, field)) = locate(offset) else { return };
        let Some(entry) = state.entries.get_mut(at) else { return };
        let address = &mut entry.message.address;
        match field {
            // Messages are whole dwords: the lowest two bits are always zero.
            0 => *address = *address & !u64::from(u32::MAX) | u64::from(value & !3),
            4 => *address = *address & u64::from(u32::MAX) | u64::from(value) << 32,
            8 => entry.message.data = value,
            _ => entry.control = value & VECTOR_MASK,
        }
        if let Ok(vector) = u16::try_from(at) {
            self.settle(&mut state, vector);
        }
    }

    fn read_pending(&self, qword: u64) -> u64 {
        let state = self.lock();
        let Some(first) = usize::try_from(qword).ok().and_then(|qword| qword.checked_mul(64)) else { return 0 };
        let entries = state.entries.iter().skip(first).take(64);
        entries.enumerate().fold(0, |bits, (bit, entry)| bits | u64::from(entry.pending) << bit)
    }
}

/// Which entry, and which byte of it.
fn locate(offset: u64) -> Option<(usize, u64)> {
    Some((usize::try_from(offset / ENTRY_SIZE).ok()?, offset % ENTRY_SIZE))
}

fn low(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default()
}

fn high(value: u64) -> u32 {
    low(value >> 32)
}

/// The table, as a part of a BAR. It takes aligned dwords and qwords; what else there is reads as zero.
pub struct MsixTable(pub Arc<Msix>);

impl BusDevice for MsixTable {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if whole(offset, data.len()) {
            for (at, dword) in (0..).step_by(4).zip(data.chunks_exact_mut(4)) {
                dword.copy_from_slice(&self.0.read_dword(offset + at).to_le_bytes());
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if whole(offset, data.len()) {
            for (at, dword) in (0..).step_by(4).zip(data.as_chunks().0) {
                self.0.write_dword(offset + at, u32::from_le_bytes(*dword));
            }
        }
    }
}

/// The pending bit array, as a part of a BAR. It takes aligned reads of dwords and qwords.
pub struct MsixPba(pub Arc<Msix>);

impl BusDevice for MsixPba {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if whole(offset, data.len()) {
            let bits = self.0.read_pending(offset / 8) >> (8 * (offset % 8));
            data.iter_mut().zip(bits.to_le_bytes()).for_each(|(to, from)| *to = from);
        }
    }

    fn write(&self, _offset: u64, _data: &[u8]) {}
}

fn whole(offset: u64, len: usize) -> bool {
    matches!(len, 4 | 8) && offset.is_multiple_of(len as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::FakeRoute;
    use super::*;

    const ON: u16 = CONTROL_ENABLE;
    const ON_MASKED: u16 = CONTROL_ENABLE | CONTROL_FUNCTION_MASK;

    fn msix(vectors: u16) -> (Arc<Msix>, Arc<FakeRoute>) {
        let route = Arc::new(FakeRoute::default());
        (Msix::new(vectors, route.clone()), route)
    }

    fn write(msix: &Arc<Msix>, offset: u64, value: u32) {
        MsixTable(msix.clone()).write(offset, &value.to_le_bytes());
    }

    fn read(msix: &Arc<Msix>, offset: u64) -> u32 {
        let mut data = [0xaa; 4];
        MsixTable(msix.clone()).read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn pending(msix: &Arc<Msix>, offset: u64) -> u64 {
        let mut data = [0xaa; 8];
        MsixPba(msix.clone()).read(offset, &mut data);
        u64::from_le_bytes(data)
    }

    fn fill(msix: &Arc<Msix>, vector: u64, data: u32) {
        write(msix, 16 * vector, 0xfee0_0000);
        write(msix, 16 * vector + 4, 0);
        write(msix, 16 * vector + 8, data);
        write(msix, 16 * vector + 12, 0);
    }

    fn sent(route: &FakeRoute) -> Vec<u16> {
        std::mem::take(&mut route.sent.lock().unwrap())
    }

    #[test]
    fn nothing_is_sent_or_pending_while_it_is_off() {
        let (msix, route) = msix(2);
        fill(&msix, 0, 0x31);
        msix.trigger(0);
        assert_eq!((sent(&route), pending(&msix, 0)), (vec![], 0));
        msix.set_control(ON);
        assert!(sent(&route).is_empty());
        msix.trigger(0);
        assert_eq!((sent(&route), pending(&msix, 0)), (vec![0], 0));
    }

    #[test]
    fn behind_either_mask_it_becomes_pending_once_and_is_sent_when_both_are_gone() {
        let (msix, route) = msix(3);
        fill(&msix, 1, 0x31);
        msix.set_control(ON_MASKED);
        msix.trigger(1);
        msix.trigger(1);
        msix.trigger(2);
        assert_eq!((sent(&route), pending(&msix, 0)), (vec![], 0b110));
        msix.set_control(ON);
        // Vector 2 is masked on its own since power-on.
        assert_eq!((sent(&route), pending(&msix, 0)), (vec![1], 0b100));
        fill(&msix, 2, 0x32);
        assert_eq!((sent(&route), pending(&msix, 0)), (vec![2], 0));
        write(&msix, 16 + 12, 1);
        msix.trigger(1);
        msix.set_control(ON_MASKED);
        write(&msix, 16 + 12, 0);
        assert_eq!((sent(&route), pending(&msix, 0)), (vec![], 0b10));
        msix.set_control(ON);
        assert_eq!((sent(&route), pending(&msix, 0)), (vec![1], 0));
    }

    #[test]
    fn a_message_is_programmed_when_it_counts_and_when_it_changed() {
        let (msix, route) = msix(2);
        let programmed = || std::mem::take(&mut *route.programmed.lock().unwrap());
        fill(&msix, 0, 0x31);
        assert_eq!(programmed(), []);
        msix.set_control(ON);
        let message = |data| MsiMessage { address: 0xfee0_0000, data };
        assert_eq!(programmed(), [(0, message(0x31))]);
        // Masked, rewritten as it was, unmasked: nothing to do.
        write(&msix, 12, 1);
        fill(&msix, 0, 0x31);
        assert_eq!(programmed(), []);
        // Changed in place.
        write(&msix, 8, 0x41);
        assert_eq!(programmed(), [(0, message(0x41))]);
        // After a reset the route still sends what it did, and nothing does it.
        msix.reset();
        fill(&msix, 0, 0x41);
        msix.set_control(ON);
        assert_eq!(programmed(), []);
    }

    #[test]
    fn a_message_that_cannot_be_delivered_is_lost_until_it_is_replaced() {
        let route = Arc::new(FakeRoute { refuse: Some(0xfee0_0ff0), ..FakeRoute::default() });
        let msix = Msix::new(1, route.clone());
        msix.set_control(ON);
        fill(&msix, 0, 0x31);
        write(&msix, 0, 0xfee0_0ff0);
        msix.trigger(0);
        assert_eq!((sent(&route), pending(&msix, 0)), (vec![], 0));
        write(&msix, 0, 0xfee0_1000);
        msix.trigger(0);
        assert_eq!(sent(&route), [0]);
    }

    #[test]
    fn the_table_keeps_what_it_is_for_and_takes_dwords_and_qwords() {
        let (msix, _) = msix(2);
        assert_eq!((read(&msix, 12), read(&msix, 28)), (1, 1));
        let table = MsixTable(msix.clone());
        table.write(0, &0x1234_5678_fee0_0fff_u64.to_le_bytes());
        table.write(8, &u64::MAX.to_le_bytes());
        assert_eq!([0, 4, 8, 12].map(|at| read(&msix, at)), [0xfee0_0ffc, 0x1234_5678, u32::MAX, 1]);
        for (offset, len) in [(0, 1), (0, 2), (2, 4), (4, 8), (16, 3)] {
            let mut data = vec![0xaa; len];
            table.read(offset, &mut data);
            assert_eq!(data, vec![0; len]);
            table.write(offset, &vec![0; len]);
            assert_eq!(read(&msix, 4), 0x1234_5678);
        }
        MsixPba(msix.clone()).write(0, &[0xff; 8]);
        assert_eq!(pending(&msix, 0), 0);
    }

    #[test]
    fn vectors_that_do_not_exist_do_nothing() {
        let (msix, route) = msix(2);
        msix.set_control(ON_MASKED);
        msix.trigger(2);
        msix.trigger(u16::MAX);
        write(&msix, 32, 1);
        write(&msix, u64::MAX - 3, 1);
        assert_eq!((read(&msix, 32), read(&msix, u64::MAX - 3), pending(&msix, 0)), (0, 0, 0));
        assert_eq!((pending(&msix, 8), pending(&msix, !7), sent(&route)), (0, 0, vec![]));
    }

    #[test]
    fn pending_bits_are_found_in_every_word() {
        let (msix, _) = msix(130);
        assert_eq!((msix.table_len(), msix.pba_len()), (130 * 16, 24));
        msix.set_control(ON);
        for vector in [0, 63, 64, 97, 129] {
            msix.trigger(vector);
        }
        assert_eq!([0, 8, 16, 24].map(|at| pending(&msix, at)), [1 | 1 << 63, 1 | 1 << 33, 2, 0]);
        let mut dword = [0; 4];
        MsixPba(msix).read(12, &mut dword);
        assert_eq!(u32::from_le_bytes(dword), 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// However masks and interrupts fall, each vector is sent as often as a simple model says.
        #[test]
        fn nothing_is_lost_and_nothing_is_sent_behind_a_mask(
            steps in prop::collection::vec((0_u8..4, 0_u16..3, any::<bool>(), any::<bool>()), 0..80),
        ) {
            let (msix, route) = msix(3);
            let (mut on, mut function_mask) = (false, false);
            let mut model = [(true, false); 3];
            for (what, vector, a, b) in steps {
                let at = usize::from(vector);
                let mut expected = Vec::new();
                match what {
                    0 => {
                        (on, function_mask) = (a, b);
                        let bits = |set, bit| if set { bit } else { 0 };
                        msix.set_control(bits(a, CONTROL_ENABLE) | bits(b, CONTROL_FUNCTION_MASK));
                    }
                    1 => {
                        model[at].0 = a;
                        write(&msix, 16 * u64::from(vector) + 12, a.into());
                    }
                    _ => {
                        model[at].1 |= on;
                        msix.trigger(vector);
                    }
                }
                if on && !function_mask {
                    for (vector, (masked, pending)) in (0..).zip(&mut model) {
                        if *pending && !*masked {
                            *pending = false;
                            expected.push(vector);
                        }
                    }
                }
                prop_assert_eq!(sent(&route), expected);
                let bits = model.iter().enumerate().fold(0, |bits, (at, (_, pending))| bits | u64::from(*pending) << at);
                prop_assert_eq!(pending(&msix, 0), bits);
            }
        }
    }
}
