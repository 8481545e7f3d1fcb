//! The header before each frame (virtio 1.2, section 5.1.6), as it comes from a driver that may be hostile.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_ECN, VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6,
};

use crate::net::{HEADER_SIZE, Offloads};

/// Offset of `num_buffers`, which has 2 bytes.
pub const NUM_BUFFERS: usize = 10;

/// Why a frame is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// An offload that was not agreed on.
    #[error("it leaves to the host what was not agreed on")]
    NotAgreed,
    /// The checksum would be outside the frame.
    #[error("its checksum is outside the frame")]
    Checksum,
    /// Segments without a size, without a checksum, or with headers longer than the frame.
    #[error("it cannot be cut into segments")]
    Segments,
}

/// Checks the header of a frame of `len` bytes, the header not counted, and gives what of it the link need look at: fields
/// that mean nothing are zero, and so is what a driver has nothing to say about (section 5.1.6.2.1).
///
/// # Errors
/// [`Refused`].
pub fn check(raw: [u8; HEADER_SIZE], len: usize, agreed: Offloads) -> Result<[u8; HEADER_SIZE], Refused> {
    let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, ..] = raw;
    let [hdr_len, csum_start, csum_offset] =
        [[h0, h1], [s0, s1], [o0, o1]].map(|field| usize::from(u16::from_le_bytes(field)));
    let gso_size = u16::from_le_bytes([g0, g1]);
    let mut checked = [0; HEADER_SIZE];
    let mut keep = |range: std::ops::Range<usize>, value: &[u8]| {
        checked.iter_mut().skip(range.start).zip(value).for_each(|(to, from)| *to = *from);
    };

    let needs_checksum = u32::from(flags) & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0;
    if needs_checksum {
        if !agreed.checksum {
            return Err(Refused::NotAgreed);
        }
        // Neither sum can overflow.
        if csum_start + csum_offset + 2 > len {
            return Err(Refused::Checksum);
        }
        keep(0..1, &[1]);
        keep(6..10, &[s0, s1, o0, o1]);
    }
    let (kind, marked) =
        (u32::from(gso_type) & !VIRTIO_NET_HDR_GSO_ECN, u32::from(gso_type) & VIRTIO_NET_HDR_GSO_ECN != 0);
    let is_agreed = match kind {
        VIRTIO_NET_HDR_GSO_NONE => return if marked { Err(Refused::NotAgreed) } else { Ok(checked) },
        VIRTIO_NET_HDR_GSO_TCPV4 => agreed.tso4,
        VIRTIO_NET_HDR_GSO_TCPV6 => agreed.tso6,
        _ => false,
    };
    if !is_agreed || marked && !agreed.ecn {
        return Err(Refused::NotAgreed);
    }
    if !needs_checksum || gso_size == 0 || hdr_len > len {
        return Err(Refused::Segments);
    }
    keep(1..6, &[gso_type, h0, h1, g0, g1]);
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: Offloads = Offloads { checksum: true, tso4: true, tso6: true, ecn: true };
    const NONE: Offloads = Offloads { checksum: false, tso4: false, tso6: false, ecn: false };

    /// A header by its fields.
    fn header(flags: u8, gso_type: u8, [hdr_len, gso_size, csum_start, csum_offset]: [u16; 4]) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        bytes[..2].copy_from_slice(&[flags, gso_type]);
        for (at, field) in [(2, hdr_len), (4, gso_size), (6, csum_start), (8, csum_offset)] {
            bytes[at..at + 2].copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn what_was_agreed_on_goes_through() {
        let segments = header(1, 1, [54, 1448, 34, 16]);
        assert_eq!(check(segments, 9000, ALL), Ok(segments));
        for (gso_type, offloads) in [
            (4, Offloads { tso4: false, ..ALL }),
            (0x81, ALL),
            (0x84, Offloads { tso4: false, ..ALL }),
            (1, Offloads { tso6: false, ecn: false, ..ALL }),
        ] {
            let segments = header(1, gso_type, [54, 1448, 34, 16]);
            assert_eq!(check(segments, 9000, offloads), Ok(segments), "{gso_type:#x}");
        }
        let checksum = header(1, 0, [0, 0, 34, 6]);
        assert_eq!(check(checksum, 60, Offloads { checksum: true, ..NONE }), Ok(checksum));
        assert_eq!(check([0; 12], 60, NONE), Ok([0; 12]));
    }

    #[test]
    fn fields_that_mean_nothing_are_cleared() {
        let mut odd = header(0xfe, 0, [1, 2, 3, 4]);
        odd[10..].fill(0xff);
        assert_eq!(check(odd, 60, NONE), Ok([0; 12]));
        let mut odd = header(0xff, 0, [1, 2, 34, 16]);
        odd[10..].fill(0xff);
        assert_eq!(check(odd, 60, ALL), Ok(header(1, 0, [0, 0, 34, 16])));
    }

    #[test]
    fn what_was_not_agreed_on_is_refused() {
        let good = [54, 1448, 34, 16];
        for (flags, gso_type, offloads) in [
            (1, 0, NONE),
            (1, 1, Offloads { tso4: false, ..ALL }),
            (1, 4, Offloads { tso6: false, ..ALL }),
            (1, 0x81, Offloads { ecn: false, ..ALL }),
            (1, 0x80, ALL),
            (0, 0x80, ALL),
            (1, 2, ALL),
            (1, 3, ALL),
            (1, 5, ALL),
            (1, 0x7f, ALL),
            (1, 0xff, ALL),
        ] {
            assert_eq!(check(header(flags, gso_type, good), 9000, offloads), Err(Refused::NotAgreed), "{gso_type:#x}");
        }
    }

    #[test]
    fn a_checksum_lies_in_the_frame() {
        for (start, offset, fits) in [
            (34, 16, true),
            (58, 0, true),
            (42, 16, true),
            (59, 0, false),
            (34, 25, false),
            (u16::MAX, u16::MAX, false),
        ] {
            assert_eq!(check(header(1, 0, [0, 0, start, offset]), 60, ALL).is_ok(), fits, "{start} {offset}");
        }
    }

    #[test]
    fn segments_have_a_size_a_checksum_and_headers_in_the_frame() {
        for (flags, fields) in [(0, [54, 1448, 34, 16]), (1, [54, 0, 34, 16]), (1, [61, 1448, 34, 16])] {
            assert_eq!(check(header(flags, 1, fields), 60, ALL), Err(Refused::Segments), "{fields:?}");
        }
        assert!(check(header(1, 1, [60, 1, 34, 16]), 60, ALL).is_ok());
    }

    proptest! {
        #[test]
        fn nothing_passes_that_a_link_would_have_to_distrust(
            raw in any::<[u8; 12]>(),
            flags in 0_u8..4,
            gso_type in prop::sample::select(vec![0_u8, 1, 3, 4, 5, 0x81, 0x84]),
            small in any::<bool>(),
            len in 14_usize..65_550,
            [checksum, tso4, tso6, ecn] in any::<[bool; 4]>(),
        ) {
            let mut raw = raw;
            if small {
                // Most random fields are too large to pass.
                raw[..2].copy_from_slice(&[flags, gso_type]);
                for at in [3, 7, 9] {
                    raw[at] = 0;
                }
            }
            let agreed = Offloads { checksum, tso4, tso6, ecn };
            let Ok(checked) = check(raw, len, agreed) else { return Ok(()) };
            let field = |at: usize| usize::from(u16::from_le_bytes([checked[at], checked[at + 1]]));
            prop_assert!(checked[0] <= u8::from(checksum));
            prop_assert!(checked[0] == 0 || field(6) + field(8) + 2 <= len);
            prop_assert_eq!(field(NUM_BUFFERS), 0);
            match checked[1] & 0x7f {
                0 => prop_assert_eq!(&checked[1..6], [0; 5]),
                kind => {
                    prop_assert!((kind == 1 && tso4 || kind == 4 && tso6) && (checked[1] < 0x80 || ecn));
                    prop_assert!(checked[0] == 1 && field(2) <= len && field(4) > 0);
                }
            }
            // What was checked is not refused the second time.
            prop_assert_eq!(check(checked, len, agreed), Ok(checked));
        }
    }
}
