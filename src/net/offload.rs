//! What a sender left to the receiver, done here.

use super::wire::{checksum, put_u16};
use super::{HEADER_SIZE, wire};

/// The header's flag: the checksum is left out (virtio 1.2, section 5.1.6.2).
const NEEDS_CHECKSUM: u8 = 1;

/// The frame behind its header, with the checksum filled in that the header says is missing; nothing where the header lies.
pub(super) fn complete(buffer: &mut [u8]) -> Option<&mut [u8]> {
    let (header, frame) = buffer.split_at_mut_checked(HEADER_SIZE)?;
    if header.first()? & NEEDS_CHECKSUM != 0 {
        let field = |at| wire::bytes_at(header, at).map(u16::from_le_bytes).map(usize::from);
        let (start, offset) = (field(6)?, field(8)?);
        let covered = frame.get_mut(start..)?;
        covered.get(offset..offset.checked_add(2)?)?;
        // The place of the checksum has the sum of the pseudo header in it.
        let sum = Some(checksum(&[covered])).filter(|sum| *sum != 0).unwrap_or(0xffff);
        put_u16(covered, offset, sum);
    }
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_header_that_lies_changes_nothing_outside_the_frame(mut bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let before = bytes.clone();
            if let Some(frame) = complete(&mut bytes) {
                prop_assert!(frame.iter().zip(&before[HEADER_SIZE..]).filter(|(a, b)| a != b).count() <= 2);
            }
            let kept = HEADER_SIZE.min(before.len());
            prop_assert_eq!(&bytes[..kept], &before[..kept]);
        }
    }

    #[test]
    fn what_was_left_out_is_filled_in() {
        let mut bytes = vec![0; HEADER_SIZE + 30];
        bytes[0] = NEEDS_CHECKSUM;
        bytes[6] = 20;
        bytes[8] = 4;
        bytes[HEADER_SIZE + 20] = 0x12;
        let frame = complete(&mut bytes).unwrap();
        assert_eq!(checksum(&[&frame[20..]]), 0);
    }
}
