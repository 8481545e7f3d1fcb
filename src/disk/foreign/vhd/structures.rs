//! The footer and the header of dynamic disks, as they are written.

use crate::disk::foreign::fields::put;

/// Bytes of the footer.
pub(super) const FOOTER: usize = 512;
/// Bytes of the header of a dynamic disk.
pub(super) const HEADER: usize = 1024;
/// What the footer begins with.
pub(super) const FOOTER_MAGIC: &[u8] = b"conectix";
/// What the header of a dynamic disk begins with.
pub(super) const HEADER_MAGIC: &[u8] = b"cxsparse";
/// Where the checksum is in either.
pub(super) const FOOTER_CHECKSUM: usize = 64;
pub(super) const HEADER_CHECKSUM: usize = 36;
/// The entry of a block that lies nowhere.
pub(super) const UNUSED: u32 = u32::MAX;

/// Kinds of disks, as the footer says it.
pub(super) const FIXED: u32 = 2;
pub(super) const DYNAMIC: u32 = 3;
pub(super) const DIFFERENCING: u32 = 4;

const VERSION: u32 = 0x0001_0000;

/// The sum over a structure, without the four bytes at `at` that it is noted in.
pub(in crate::disk::foreign) fn checksum(structure: &[u8], at: usize) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    let noted = structure.get(at..at + 4).unwrap_or_default();
    !sum(structure).wrapping_sub(sum(noted))
}

/// Bytes of the bitmap before a block of `block` bytes: one bit for each sector, in whole sectors.
pub(super) fn bitmap_len(block: u64) -> u64 {
    (block / 512).div_ceil(8).next_multiple_of(512)
}

/// The footer of a dynamic disk of `size` bytes, with its header right behind the footer's copy.
pub(super) fn footer(size: u64, seconds_since_2000: u32, id: &[u8; 16]) -> [u8; FOOTER] {
    let mut footer = [0; FOOTER];
    put(&mut footer, 0, FOOTER_MAGIC);
    // The one bit that must be set.
    put(&mut footer, 8, &2u32.to_be_bytes());
    put(&mut footer, 12, &VERSION.to_be_bytes());
    put(&mut footer, 16, &(FOOTER as u64).to_be_bytes());
    put(&mut footer, 24, &seconds_since_2000.to_be_bytes());
    // Hyper-V's mark. Readers tell by it whether the size is that of the footer or the product of the geometry, which is
    // seldom the same; with this one, all take the former.
    put(&mut footer, 28, b"win ");
    put(&mut footer, 32, &0x000a_0000u32.to_be_bytes());
    put(&mut footer, 36, b"Wi2k");
    put(&mut footer, 40, &size.to_be_bytes());
    put(&mut footer, 48, &size.to_be_bytes());
    put(&mut footer, 56, &geometry(size / 512));
    put(&mut footer, 60, &DYNAMIC.to_be_bytes());
    put(&mut footer, 68, id);
    let sum = checksum(&footer, FOOTER_CHECKSUM);
    put(&mut footer, FOOTER_CHECKSUM, &sum.to_be_bytes());
    footer
}

/// The header of a dynamic disk: its table and its blocks.
pub(super) fn header(table: u64, blocks: u32, block: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    put(&mut header, 0, HEADER_MAGIC);
    put(&mut header, 8, &u64::MAX.to_be_bytes());
    put(&mut header, 16, &table.to_be_bytes());
    put(&mut header, 24, &VERSION.to_be_bytes());
    put(&mut header, 28, &blocks.to_be_bytes());
    put(&mut header, 32, &block.to_be_bytes());
    let sum = checksum(&header, HEADER_CHECKSUM);
    put(&mut header, HEADER_CHECKSUM, &sum.to_be_bytes());
    header
}

/// Cylinders (two bytes), heads and sectors of a track: the largest that fit, by the rules of the specification's
/// appendix "CHS Calculation".
fn geometry(sectors: u64) -> [u8; 4] {
    let sectors = sectors.min(65535 * 16 * 255);
    let (per_track, heads, tracks);
    if sectors >= 65535 * 16 * 63 {
        (per_track, heads, tracks) = (255, 16, sectors / 255);
    } else {
        // The first of these with which neither heads nor cylinders are too many.
        let fits = |per_track: u64, heads: u64| sectors / per_track < heads * 1024 && heads <= 16;
        let small = (sectors / 17).div_ceil(1024).max(4);
        if fits(17, small) {
            (per_track, heads, tracks) = (17, small, sectors / 17);
        } else if fits(31, 16) {
            (per_track, heads, tracks) = (31, 16, sectors / 31);
        } else {
            (per_track, heads, tracks) = (63, 16, sectors / 63);
        }
    }
    let cylinders = u16::try_from(tracks / heads).unwrap_or(u16::MAX).to_be_bytes();
    let byte = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
    [cylinders[0], cylinders[1], byte(heads), byte(per_track)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometries_are_the_largest_that_fit() {
        // From the specification's rules, by hand: sectors, cylinders, heads, sectors of a track.
        for (sectors, expected) in [
            (4 << 11, (120, 4, 17)),
            (64 << 11, (963, 8, 17)),
            (1 << 20, (1040, 16, 63)),
            (1 << 24, (16644, 16, 63)),
            (127 << 21, (65278, 16, 255)),
            (2040 << 21, (65535, 16, 255)),
        ] {
            let [high, low, heads, per_track] = geometry(sectors);
            let cylinders = u16::from_be_bytes([high, low]);
            assert_eq!((cylinders, heads, per_track), expected, "{sectors}");
        }
    }

    #[test]
    fn checksums_leave_their_own_place_out() {
        let footer = footer(1 << 20, 0, &[7; 16]);
        let mut other = footer;
        put(&mut other, FOOTER_CHECKSUM, &[0xff; 4]);
        assert_eq!(checksum(&footer, FOOTER_CHECKSUM), checksum(&other, FOOTER_CHECKSUM));
        other[100] = 1;
        assert_ne!(checksum(&footer, FOOTER_CHECKSUM), checksum(&other, FOOTER_CHECKSUM));
    }
}
