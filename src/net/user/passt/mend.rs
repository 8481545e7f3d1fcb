//! A fault of the program that guests would suffer from.
//!
//! passt (as of Debian 12) refuses a connection by a reset that acknowledges the guest's segment but lacks the flag that says so.
//! Who has just begun to connect must ignore such a one (RFC 9293, section 3.10.7.3), and so would wait for minutes where it
//! was refused.

use crate::net::wire::ipv4::Ipv4;
use crate::net::wire::{Ethernet, IPV4, TCP, bytes_at, put_u16, u16_at};

const RST: u16 = 0x04;
const ACK: u16 = 0x10;

/// Sets the missing flag in a frame with such a reset; leaves all others as they are.
pub(in crate::net::user) fn mend_reset(frame: &mut [u8]) {
    let Some(segment) = lacks_flag(frame) else { return };
    let (Some(word), Some(sum)) = (u16_at(frame, segment + 12), u16_at(frame, segment + 16)) else { return };
    put_u16(frame, segment + 12, word | ACK);
    // One bit more in what is summed up (RFC 1624).
    let more = u32::from(!sum) + u32::from(ACK);
    let folded = u16::try_from((more & 0xffff) + (more >> 16)).unwrap_or(0);
    put_u16(frame, segment + 16, !folded);
}

/// Where the segment of such a reset begins.
fn lacks_flag(frame: &[u8]) -> Option<usize> {
    let ethernet = Ethernet::parse(frame).filter(|ethernet| ethernet.kind == IPV4)?;
    let packet = Ipv4::parse(ethernet.payload).filter(|packet| packet.protocol == TCP && !packet.fragment)?;
    let flags = u16_at(packet.payload, 12)?;
    let acknowledges = bytes_at::<4>(packet.payload, 8)? != [0; 4];
    let start =
        frame.len().checked_sub(ethernet.payload.len())? + packet.whole.len().checked_sub(packet.payload.len())?;
    (flags & RST != 0 && flags & ACK == 0 && acknowledges).then_some(start)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::net::Mac;
    use crate::net::wire::checksum;
    use crate::net::wire::ipv4::pseudo_header;
    use proptest::prelude::*;

    const ENDS: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(10, 0, 0, 1));

    fn frame(acknowledged: u32, flags: u8, sequence: u32) -> Vec<u8> {
        let mut segment = vec![0, 80, 0x9c, 0x40];
        segment.extend(sequence.to_be_bytes());
        segment.extend(acknowledged.to_be_bytes());
        segment.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
        let sum = checksum(&[&pseudo_header(ENDS.0, ENDS.1, TCP, 20), &segment]);
        put_u16(&mut segment, 16, sum);
        let (source, destination) = ENDS;
        let packet =
            Ipv4 { source, destination, protocol: TCP, ttl: 64, fragment: false, payload: &segment, whole: &[] };
        let packet = packet.build().unwrap();
        Ethernet { destination: Mac([2; 6]), source: Mac([4; 6]), kind: IPV4, payload: &packet }.build()
    }

    proptest! {
        #[test]
        fn a_mended_reset_has_the_right_checksum(acknowledged in 1u32.., sequence: u32) {
            let mut reset = frame(acknowledged, 0x04, sequence);
            mend_reset(&mut reset);
            prop_assert_eq!(reset[47], 0x14);
            prop_assert_eq!(checksum(&[&pseudo_header(ENDS.0, ENDS.1, TCP, 20), &reset[34..]]), 0);
        }

        #[test]
        fn whatever_comes_is_taken(mut bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            mend_reset(&mut bytes);
        }
    }

    #[test]
    fn all_others_stay_as_they_are() {
        for other in [frame(0, 0x04, 5), frame(9, 0x14, 5), frame(9, 0x10, 5), frame(9, 0x12, 5)] {
            let mut same = other.clone();
            mend_reset(&mut same);
            assert_eq!(same, other);
        }
    }
}
