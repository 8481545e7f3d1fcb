//! Room for frames to the guest: chains that the driver has made available, in order, until frames are put into them.

use std::collections::VecDeque;

use vm_memory::{Permissions, VolatileSlice};

use super::super::chain::{Segment, slices};
use super::super::worker::Used;
use super::header::NUM_BUFFERS;
use super::terms::Terms;
use crate::vmm::memory::GuestMemory;

/// The most pieces of memory that a link is given at once: more than the host takes in one call.
pub const PIECES_MAX: usize = 1024;

/// A chain with nothing in it yet, as plain data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its head.
    pub head: u16,
    /// Its buffers, all of them writable.
    pub segments: Vec<Segment>,
}

/// A chain in the pool.
struct Held {
    chain: Chain,
    pieces: usize,
    len: usize,
}

/// Chains, and the memory that they are.
pub struct Pool<'m> {
    memory: &'m GuestMemory,
    terms: Terms,
    /// The most chains: as many as the ring has places.
    chains_max: usize,
    chains: VecDeque<Held>,
    /// The pieces of all chains.
    pieces: Vec<VolatileSlice<'m>>,
    /// Bytes of all chains.
    room: usize,
}

impl<'m> Pool<'m> {
    /// An empty pool.
    pub fn new(memory: &'m GuestMemory, terms: Terms, queue_size: u16) -> Self {
        Self { memory, terms, chains_max: queue_size.into(), chains: VecDeque::new(), pieces: Vec::new(), room: 0 }
    }

    /// Whether a frame may be put into it: the longest fits, or no more chains can be had.
    pub fn is_enough(&self) -> bool {
        if self.terms.merges {
            self.room >= self.terms.receive_room()
                || self.chains.len() >= self.chains_max
                || self.pieces.len() >= PIECES_MAX
        } else {
            !self.chains.is_empty()
        }
    }

    /// Takes a chain in; it comes back where it is too short or not wholly memory.
    ///
    /// # Errors
    /// The chain.
    pub fn add(&mut self, chain: Chain) -> Result<(), Chain> {
        let Some(mut pieces) = slices(self.memory, &chain.segments, Permissions::Write) else { return Err(chain) };
        // More than one call takes is no room.
        pieces.truncate(PIECES_MAX);
        let len = pieces.iter().map(VolatileSlice::len).sum();
        if len < self.terms.chain_min() {
            return Err(chain);
        }
        self.room += len;
        self.chains.push_back(Held { chain, pieces: pieces.len(), len });
        self.pieces.append(&mut pieces);
        Ok(())
    }

    /// Memory for the next frame, at most [`PIECES_MAX`] pieces.
    pub fn pieces(&self) -> &[VolatileSlice<'m>] {
        self.pieces.get(..PIECES_MAX).unwrap_or(&self.pieces)
    }

    /// Bytes of [`Self::pieces`].
    pub fn room(&self) -> usize {
        if self.pieces.len() <= PIECES_MAX {
            return self.room;
        }
        self.pieces().iter().map(VolatileSlice::len).sum()
    }

    /// Takes out the chains that the first `len` bytes lie in, 1 to [`Self::room`], adds them to `used`, and tells the driver
    /// in the frame's header how many they are.
    pub fn take(&mut self, len: usize, used: &mut Vec<Used>) {
        let (mut rest, mut chains, mut pieces) = (len, 0_u16, 0);
        while rest > 0
            && let Some(held) = self.chains.pop_front()
        {
            let part = rest.min(held.len);
            rest -= part;
            chains = chains.saturating_add(1);
            pieces += held.pieces;
            self.room -= held.len;
            // A chain has less than 4 GiB.
            used.push((held.chain.head, u32::try_from(part).unwrap_or(u32::MAX)));
        }
        put(&self.pieces, NUM_BUFFERS, &chains.to_le_bytes());
        self.pieces.drain(..pieces.min(self.pieces.len()));
    }

    /// Gives the chains up, for another pool.
    pub fn into_chains(self) -> Vec<Chain> {
        self.chains.into_iter().map(|held| held.chain).collect()
    }
}

/// Writes bytes at an offset of pieces of memory, as far as they reach.
fn put(pieces: &[VolatileSlice<'_>], mut at: usize, mut bytes: &[u8]) {
    for piece in pieces {
        if at >= piece.len() {
            at -= piece.len();
            continue;
        }
        let Ok(rest) = piece.offset(at) else { return };
        at = 0;
        let (now, later) = bytes.split_at(bytes.len().min(rest.len()));
        rest.copy_from(now);
        bytes = later;
        if bytes.is_empty() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestAddress};

    use super::super::super::testing::{DATA, HOLE, memory};
    use super::*;
    use crate::net::HEADER_SIZE;

    const MERGES: u64 = 1 << 15;
    const LARGE: u64 = 1 << 1 | 1 << 7;

    fn chain(head: u16, parts: &[(u64, u32)]) -> Chain {
        let segments = parts.iter().map(|&(addr, len)| Segment { addr: GuestAddress(addr), len }).collect();
        Chain { head, segments }
    }

    #[test]
    fn without_merging_a_chain_holds_a_whole_frame_or_comes_back() {
        let memory = memory();
        let mut pool = Pool::new(&memory, Terms::new(0, 1500), 8);
        assert!(!pool.is_enough());
        for parts in [vec![(DATA, 1000), (DATA, 525)], vec![(DATA, 1); 2000]] {
            assert_eq!(pool.add(chain(1, &parts)), Err(chain(1, &parts)));
        }
        assert!(pool.add(chain(1, &[(HOLE - 1000, 2000)])).is_err());
        pool.add(chain(1, &[(DATA, 1000), (DATA + 0x1000, 526)])).unwrap();
        assert!(pool.is_enough());
        let mut used = Vec::new();
        pool.take(60, &mut used);
        assert_eq!((used, pool.is_enough(), pool.room()), (vec![(1, 60)], false, 0));
    }

    #[test]
    fn merging_takes_chains_until_the_longest_frame_fits_or_the_ring_is_empty() {
        let memory = memory();
        let mut pool = Pool::new(&memory, Terms::new(MERGES | LARGE, 1500), 8);
        assert!(pool.add(chain(0, &[(DATA, 11)])).is_err());
        for head in 0..8 {
            assert!(!pool.is_enough(), "{head}");
            pool.add(chain(head, &[(DATA, 12)])).unwrap();
        }
        assert!(pool.is_enough());
        let mut pool = Pool::new(&memory, Terms::new(MERGES | LARGE, 1500), 8);
        pool.add(chain(3, &[(DATA, 65_561)])).unwrap();
        assert!(!pool.is_enough());
        pool.add(chain(5, &[(DATA, 12)])).unwrap();
        assert!(pool.is_enough());
    }

    #[test]
    fn more_pieces_than_a_call_takes_are_not_given() {
        let memory = memory();
        let mut pool = Pool::new(&memory, Terms::new(MERGES | LARGE, 1500), 8);
        for head in 0..2 {
            pool.add(chain(head, &vec![(DATA, 1); 700])).unwrap();
        }
        assert!(pool.is_enough());
        assert_eq!((pool.pieces().len(), pool.room()), (PIECES_MAX, PIECES_MAX));
        let mut used = Vec::new();
        pool.take(PIECES_MAX, &mut used);
        assert_eq!((used, pool.room()), (vec![(0, 700), (1, 324)], 0));
    }

    proptest! {
        /// Frames go one after the other into the chains in order, and each says in how many chains it is.
        #[test]
        fn chains_are_filled_in_order(
            lens in prop::collection::vec(prop::collection::vec(1_u32..40, 1..4), 1..20),
            frames in prop::collection::vec(12_usize..60, 1..20),
        ) {
            let memory = memory();
            let mut pool = Pool::new(&memory, Terms::new(MERGES, 1500), 64);
            let mut at = DATA;
            let mut left = VecDeque::new();
            for (head, parts) in (0..).zip(&lens) {
                // Apart, so that pieces are not by chance one run of memory.
                let parts: Vec<_> = parts.iter().map(|&len| { at += 64; (at, len) }).collect();
                let len: u32 = parts.iter().map(|part| part.1).sum();
                let added = pool.add(chain(head, &parts));
                prop_assert_eq!(added.is_ok(), len as usize >= HEADER_SIZE);
                if added.is_ok() {
                    left.push_back((head, len as usize));
                }
            }
            for len in frames {
                let room: usize = left.iter().map(|chain| chain.1).sum();
                prop_assert_eq!(pool.room(), room);
                if len > room {
                    break;
                }
                let first = pool.pieces().to_vec();
                let mut used = Vec::new();
                pool.take(len, &mut used);
                let mut rest = len;
                for &(head, part) in &used {
                    let (expected, holds) = left.pop_front().unwrap();
                    prop_assert_eq!((head, part as usize), (expected, holds.min(rest)));
                    rest -= part as usize;
                }
                prop_assert_eq!(rest, 0);
                let mut header = Vec::new();
                first.iter().for_each(|piece| {
                    let mut bytes = vec![0; piece.len()];
                    piece.copy_to(&mut bytes);
                    header.extend(bytes);
                });
                prop_assert_eq!(usize::from(u16::from_le_bytes([header[10], header[11]])), used.len());
            }
            let heads: Vec<_> = pool.into_chains().into_iter().map(|chain| chain.head).collect();
            prop_assert_eq!(heads, left.into_iter().map(|chain| chain.0).collect::<Vec<_>>());
            let _: u8 = memory.read_obj(GuestAddress(DATA)).unwrap();
        }
    }
}
