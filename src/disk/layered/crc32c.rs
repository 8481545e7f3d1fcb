//! CRC-32C (Castagnoli; RFC 3720, appendix B.4), eight bytes at a time.

/// Bits of the polynomial, reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `TABLES[k][b]`: what byte `b` does to the sum when `k` more bytes follow it.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = (sum >> 1) ^ (POLYNOMIAL * (sum & 1));
            bit += 1;
        }
        tables[0][byte] = sum;
        byte += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[k - 1][byte];
            tables[k][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        k += 1;
    }
    tables
}

/// Looks up what a byte does, `follow` bytes before the end of eight.
fn at(follow: usize, byte: u8) -> u32 {
    TABLES[follow & 7][usize::from(byte)]
}

/// The sum of `bytes` after those whose sum is `sum` (0 for none).
#[must_use]
pub(super) fn extend(sum: u32, bytes: &[u8]) -> u32 {
    let (eights, rest) = bytes.as_chunks::<8>();
    let mut sum = !sum;
    for &[b0, b1, b2, b3, b4, b5, b6, b7] in eights {
        let [s0, s1, s2, s3] = sum.to_le_bytes();
        sum = at(7, b0 ^ s0) ^ at(6, b1 ^ s1) ^ at(5, b2 ^ s2) ^ at(4, b3 ^ s3);
        sum ^= at(3, b4) ^ at(2, b5) ^ at(1, b6) ^ at(0, b7);
    }
    for byte in rest {
        let [low, ..] = sum.to_le_bytes();
        sum = (sum >> 8) ^ at(0, low ^ byte);
    }
    !sum
}

/// The sum of `bytes`.
#[must_use]
pub(super) fn sum(bytes: &[u8]) -> u32 {
    extend(0, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc() {
        assert_eq!(sum(b""), 0);
        assert_eq!(sum(b"123456789"), 0xe306_9283);
        assert_eq!(sum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(sum(&[0xff; 32]), 0x62a8_ab43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(sum(&rising), 0x46dd_794e);
    }

    #[test]
    fn cuts_do_not_matter() {
        let bytes: Vec<u8> = (0..100u8).map(|i| i.wrapping_mul(37)).collect();
        for cut in 0..100 {
            assert_eq!(extend(sum(&bytes[..cut]), &bytes[cut..]), sum(&bytes));
        }
    }
}
