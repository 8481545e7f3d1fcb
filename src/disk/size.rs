//! Sizes as people write them: `512M`, `1.5G`.

/// Why a text is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a size: {why}")]
pub struct SizeError {
    /// What was given.
    pub text: String,
    /// What is wrong with it, and what would be right.
    pub why: &'static str,
}

/// Units by their letter: each is 1024 of the one before.
const UNITS: [(&str, u32); 5] = [("B", 0), ("K", 10), ("M", 20), ("G", 30), ("T", 40)];

/// Reads a size in bytes: a number, which may have decimal places, and a unit.
///
/// The units are `B`, `K`, `M`, `G`, `T`, in powers of 1024 and in either case; `KiB`, `MiB`, `GiB` and `TiB` say the same.
/// `KB` and its like are refused, since to some they are powers of 1000, and so is a number without a unit, since to EC2
/// that would be GiB and to other tools bytes.
///
/// # Errors
/// If it is not of that form, is no whole number of bytes, or is 2^64 bytes or more.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let fail = |why| SizeError { text: text.to_owned(), why };
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    if number.is_empty() {
        return Err(fail("it must start with a number, as in 512M or 10G"));
    }
    if unit.is_empty() {
        return Err(fail("say the unit too, as in 512M or 10G (B for bytes)"));
    }
    let letter = unit.to_ascii_uppercase();
    let letter = letter.strip_suffix("IB").unwrap_or(&letter);
    let shift = UNITS
        .iter()
        .find(|(name, shift)| *name == letter && (*shift > 0 || unit.len() == 1))
        .map(|(_, shift)| *shift)
        .ok_or_else(|| fail("the unit must be one of B, K, M, G, T (powers of 1024), as in 512M or 10G"))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || (number.ends_with('.')) {
        return Err(fail("its number is malformed; write it as in 512M or 1.5G"));
    }
    if fraction.len() > 18 {
        return Err(fail("it has more than 18 decimal places"));
    }
    let too_large = || fail("it is too large");
    let whole: u128 = whole.parse().map_err(|_| too_large())?;
    // At most 10^18 * 2^40: far below 2^128.
    let scale = 10u128.pow(u32::try_from(fraction.len()).unwrap_or_default());
    let part = if fraction.is_empty() { 0 } else { fraction.parse::<u128>().map_err(|_| too_large())? << shift };
    if part % scale != 0 {
        return Err(fail("it is not a whole number of bytes"));
    }
    let bytes =
        whole.checked_mul(1 << shift).and_then(|whole| whole.checked_add(part / scale)).ok_or_else(too_large)?;
    u64::try_from(bytes).map_err(|_| too_large())
}

/// Writes a size with the largest unit that leaves a whole number; [`parse_size`] reads it back.
pub fn format_size(bytes: u64) -> String {
    let fits = |&&(_, shift): &&(&str, u32)| bytes != 0 && bytes.trailing_zeros() >= shift;
    let (name, shift) = UNITS.iter().rev().find(fits).copied().unwrap_or(("B", 0));
    format!("{}{name}", bytes >> shift)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_people_write() {
        for (text, bytes) in [
            ("0B", 0),
            ("4096B", 4096),
            ("1k", 1024),
            ("512M", 512 << 20),
            ("512MiB", 512 << 20),
            ("1.5G", 3 << 29),
            ("0.5K", 512),
            ("2g", 2 << 30),
            ("10GiB", 10 << 30),
            ("64T", 64 << 40),
            ("16777215.9375T", u64::MAX - (1 << 36) + 1),
            ("18446744073709551615B", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_refused_and_why() {
        for (text, why) in [
            ("", "start with a number"),
            ("G", "start with a number"),
            ("-1G", "start with a number"),
            (" 1G", "start with a number"),
            ("10", "say the unit"),
            ("1.5", "say the unit"),
            ("10X", "unit must be"),
            ("10GB", "unit must be"),
            ("10iB", "unit must be"),
            ("10BiB", "unit must be"),
            ("1 G", "unit must be"),
            ("1G ", "unit must be"),
            (".5G", "malformed"),
            ("1.G", "malformed"),
            ("1.2.3G", "malformed"),
            ("0.5B", "whole number of bytes"),
            ("0.1K", "whole number of bytes"),
            ("0.0000000000000000001G", "decimal places"),
            ("16777216T", "too large"),
            ("99999999999999999999999999999999999999999999T", "too large"),
        ] {
            let error = parse_size(text).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(&format!("{text:?}")), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn written_sizes_read_back(bytes: u64, shift in 0u32..64) {
            let bytes = (bytes >> shift) << shift;
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_is_answered(text in "[0-9.]{0,40}[a-zA-Z \u{e4}]{0,4}", other in ".*") {
            let _ = (parse_size(&text), parse_size(&other));
        }
    }
}
