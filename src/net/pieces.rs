//! Frames into and out of pieces of guest memory.

use vm_memory::{Bytes, VolatileSlice};

use super::HEADER_SIZE;

/// Copies at most `max` bytes of what is in `pieces` to `to`, in place of what was there, and gives how many bytes the pieces have.
pub(super) fn gather(pieces: &[VolatileSlice<'_>], max: usize, to: &mut Vec<u8>) -> usize {
    to.clear();
    let mut total: usize = 0;
    for piece in pieces {
        total = total.saturating_add(piece.len());
        let (have, take) = (to.len(), piece.len().min(max.saturating_sub(to.len())));
        to.resize(have.saturating_add(take), 0);
        if let Some(place) = to.get_mut(have..) {
            piece.copy_to(place);
        }
    }
    total
}

/// Copies a header of zeroes and `frame` to `pieces`, and gives the bytes of both; nothing where they do not fit, though some
/// may have been copied by then.
pub(super) fn scatter(frame: &[u8], pieces: &[VolatileSlice<'_>]) -> Option<usize> {
    let mut parts = [&[0; HEADER_SIZE][..], frame].into_iter();
    let mut part = parts.next().unwrap_or_default();
    for piece in pieces {
        let mut at = 0;
        while at < piece.len() {
            if part.is_empty() {
                match parts.next() {
                    Some(next) => part = next,
                    None => return HEADER_SIZE.checked_add(frame.len()),
                }
            }
            let (now, rest) = part.split_at_checked(piece.len() - at).unwrap_or((part, &[]));
            piece.write_slice(now, at).ok()?;
            at += now.len();
            part = rest;
        }
    }
    (part.is_empty() && parts.next().is_none_or(<[u8]>::is_empty)).then(|| HEADER_SIZE.saturating_add(frame.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_the_pieces_all_bytes_come_in_their_order(
            frame in proptest::collection::vec(any::<u8>(), 0..200),
            sizes in proptest::collection::vec(0usize..40, 0..20),
        ) {
            let room: usize = sizes.iter().sum();
            let mut memory: Vec<Vec<u8>> = sizes.iter().map(|size| vec![0xaa; *size]).collect();
            let pieces: Vec<_> = memory.iter_mut().map(|m| VolatileSlice::from(&mut m[..])).collect();
            let need = HEADER_SIZE + frame.len();
            prop_assert_eq!(scatter(&frame, &pieces), (need <= room).then_some(need));
            if need <= room {
                let mut back = Vec::new();
                prop_assert_eq!(gather(&pieces, need, &mut back), room);
                prop_assert_eq!(&back[..HEADER_SIZE], &[0; HEADER_SIZE][..]);
                prop_assert_eq!(&back[HEADER_SIZE..], &frame[..]);
            }
        }
    }

    #[test]
    fn no_more_is_gathered_than_asked_for() {
        let mut memory = [1u8, 2, 3, 4, 5];
        let (a, b) = memory.split_at_mut(2);
        let pieces = [VolatileSlice::from(a), VolatileSlice::from(b)];
        let mut got = vec![9; 9];
        assert_eq!(gather(&pieces, 3, &mut got), 5);
        assert_eq!(got, [1, 2, 3]);
        assert_eq!(gather(&[], 3, &mut got), 0);
        assert!(got.is_empty());
    }
}
