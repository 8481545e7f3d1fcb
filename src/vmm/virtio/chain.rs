//! Descriptor chains (virtio 1.2, section 2.7.4): from what a hostile driver laid out to two checked lists of buffers.

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, Permissions, VolatileSlice};

use crate::vmm::memory::GuestMemory;

/// The most descriptors that a chain may have, indirect ones counted.
///
/// The specification allows as many as the queue has entries; Linux puts up to `seg_max + 2` of them into an indirect
/// table even where the queue is smaller. It is a bound for work and memory, not a rule for drivers.
pub const MAX_DESCRIPTORS: usize = 1024;

/// A run of guest memory. Not yet known to be backed by any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest physical address of the first byte.
    pub addr: GuestAddress,
    /// Length in bytes.
    pub len: u32,
}

/// The buffers of a chain, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Buffers {
    /// What the device reads.
    pub readable: Vec<Segment>,
    /// What the device writes; always after what it reads.
    pub writable: Vec<Segment>,
}

/// Why a chain is not one.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChainError {
    /// More than [`MAX_DESCRIPTORS`].
    #[error("a chain of more than {MAX_DESCRIPTORS} descriptors")]
    TooLong,
    /// The chain names a next descriptor that cannot be followed: out of range, a circle, a bad indirect table, or more
    /// than 2^32 bytes in all.
    #[error("a chain that leads nowhere")]
    Truncated,
    /// A readable buffer after a writable one (section 2.7.4.2).
    #[error("a readable buffer after a writable one")]
    OutOfOrder,
    /// Not a single descriptor.
    #[error("an empty chain")]
    Empty,
}

impl Buffers {
    /// Walks a chain. Buffers of no length are left out.
    ///
    /// # Errors
    /// [`ChainError`] where the driver broke the rules of section 2.7.
    pub fn collect(chain: impl Iterator<Item = Descriptor>) -> Result<Self, ChainError> {
        let mut buffers = Self::default();
        let mut last = None;
        let mut writing = false;
        for (count, descriptor) in chain.enumerate() {
            if count == MAX_DESCRIPTORS {
                return Err(ChainError::TooLong);
            }
            last = Some(descriptor);
            let segment = Segment { addr: descriptor.addr(), len: descriptor.len() };
            match (descriptor.is_write_only(), writing) {
                (false, true) => return Err(ChainError::OutOfOrder),
                (write, _) => writing = write,
            }
            if segment.len > 0 {
                let list = if writing { &mut buffers.writable } else { &mut buffers.readable };
                list.push(segment);
            }
        }
        // The iterator ends in the same way where a chain ends and where it cannot be followed.
        match last {
            None => Err(ChainError::Empty),
            Some(descriptor) if descriptor.has_next() => Err(ChainError::Truncated),
            Some(_) => Ok(buffers),
        }
    }
}

/// Sum of the lengths in bytes.
#[must_use]
pub fn total(segments: &[Segment]) -> u64 {
    segments.iter().map(|s| u64::from(s.len)).sum()
}

/// The guest memory behind the segments, in order; `None` where any of them is not wholly memory.
#[must_use]
pub fn slices<'m>(
    memory: &'m GuestMemory,
    segments: &[Segment],
    access: Permissions,
) -> Option<Vec<VolatileSlice<'m>>> {
    let mut slices = Vec::with_capacity(segments.len());
    for segment in segments {
        let len = usize::try_from(segment.len).ok()?;
        let parts = vm_memory::GuestMemory::get_slices(memory, segment.addr, len, access).ok()?;
        for part in parts {
            slices.push(part.ok()?);
        }
    }
    Some(slices)
}

/// Takes the first `buf.len()` bytes of the segments into `buf` and shortens the segments by them.
///
/// `None`, with the segments in no particular state, where there are too few or they are not memory.
#[must_use]
pub fn take_front(memory: &GuestMemory, segments: &mut Vec<Segment>, buf: &mut [u8]) -> Option<()> {
    let mut done = 0;
    let mut used = 0;
    for segment in segments.iter_mut() {
        let rest = buf.get_mut(done..)?;
        if rest.is_empty() {
            break;
        }
        let len = rest.len().min(usize::try_from(segment.len).ok()?);
        memory.read_slice(rest.get_mut(..len)?, segment.addr).ok()?;
        done += len;
        let taken = u32::try_from(len).ok()?;
        segment.len -= taken;
        if segment.len == 0 {
            used += 1;
        } else {
            segment.addr = GuestAddress(segment.addr.0.checked_add(u64::from(taken))?);
        }
    }
    segments.drain(..used);
    (done == buf.len()).then_some(())
}

/// Takes the last byte off the segments and gives its address, if it is one of memory.
#[must_use]
pub fn take_last_byte(memory: &GuestMemory, segments: &mut Vec<Segment>) -> Option<GuestAddress> {
    let last = segments.last_mut()?;
    last.len = last.len.checked_sub(1)?;
    let addr = GuestAddress(last.addr.0.checked_add(u64::from(last.len))?);
    if last.len == 0 {
        segments.pop();
    }
    memory.address_in_range(addr).then_some(addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT: u16 = 1;
    const WRITE: u16 = 2;

    fn memory() -> GuestMemory {
        GuestMemory::from_ranges(&[
            (GuestAddress(0), 0x1000),
            (GuestAddress(0x1000), 0x1000),
            (GuestAddress(0x4000), 0x1000),
        ])
        .unwrap()
    }

    fn segment(addr: u64, len: u32) -> Segment {
        Segment { addr: GuestAddress(addr), len }
    }

    fn collect(descriptors: &[(u64, u32, u16)]) -> Result<Buffers, ChainError> {
        Buffers::collect(descriptors.iter().map(|&(addr, len, flags)| Descriptor::new(addr, len, flags, 0)))
    }

    #[test]
    fn a_chain_splits_into_what_is_read_and_what_is_written() {
        let buffers = collect(&[(0, 16, NEXT), (64, 0, NEXT), (128, 4, NEXT | WRITE), (9, 1, WRITE)]).unwrap();
        assert_eq!(buffers.readable, [segment(0, 16)]);
        assert_eq!(buffers.writable, [segment(128, 4), segment(9, 1)]);
    }

    #[test]
    fn broken_chains_are_told_apart() {
        assert_eq!(collect(&[]), Err(ChainError::Empty));
        assert_eq!(collect(&[(0, 1, NEXT)]), Err(ChainError::Truncated));
        assert_eq!(collect(&[(0, 1, NEXT | WRITE), (0, 1, 0)]), Err(ChainError::OutOfOrder));
        let long = vec![(0, 1, NEXT); MAX_DESCRIPTORS];
        assert_eq!(collect(&[long.clone(), vec![(0, 1, 0)]].concat()), Err(ChainError::TooLong));
        assert!(collect(&[long[1..].to_vec(), vec![(0, 1, 0)]].concat()).is_ok());
    }

    #[test]
    fn slices_cross_regions_but_not_holes() {
        let memory = memory();
        let found = slices(&memory, &[segment(0xff0, 0x20), segment(0x4000, 1)], Permissions::Read).unwrap();
        assert_eq!(found.iter().map(VolatileSlice::len).collect::<Vec<_>>(), [0x10, 0x10, 1]);
        for (addr, len) in [(0x1fff, 2), (0x3fff, 2), (0x4fff, 2), (0x2000, 1), (u64::MAX, 1), (u64::MAX, 2)] {
            assert!(slices(&memory, &[segment(addr, len)], Permissions::Write).is_none(), "{addr:#x}+{len}");
        }
        assert!(slices(&memory, &[segment(0, u32::MAX)], Permissions::Read).is_none());
    }

    #[test]
    fn the_front_is_taken_across_segments() {
        let memory = memory();
        memory.write_slice(&[1, 2, 3, 4, 5, 6], GuestAddress(0x100)).unwrap();
        let mut segments = vec![segment(0x100, 1), segment(0x101, 2), segment(0x103, 3)];
        let mut buf = [0; 4];
        take_front(&memory, &mut segments, &mut buf).unwrap();
        assert_eq!(buf, [1, 2, 3, 4]);
        assert_eq!(segments, [segment(0x104, 2)]);
        assert!(take_front(&memory, &mut segments, &mut buf).is_none());
        assert!(take_front(&memory, &mut vec![segment(0x1ffe, 4)], &mut buf).is_none());
    }

    #[test]
    fn the_last_byte_is_taken_if_it_is_memory() {
        let memory = memory();
        let mut segments = vec![segment(0x10, 1), segment(0x20, 2)];
        assert_eq!(take_last_byte(&memory, &mut segments), Some(GuestAddress(0x21)));
        assert_eq!(take_last_byte(&memory, &mut segments), Some(GuestAddress(0x20)));
        assert_eq!(take_last_byte(&memory, &mut segments), Some(GuestAddress(0x10)));
        assert_eq!(take_last_byte(&memory, &mut segments), None);
        assert_eq!(take_last_byte(&memory, &mut vec![segment(0x1fff, 2)]), None);
        assert_eq!(take_last_byte(&memory, &mut vec![segment(u64::MAX, 2)]), None);
    }
}
