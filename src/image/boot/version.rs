//! Order of versions (UAPI Group, "Version Format Specification", section "Version Comparison").

use std::cmp::Ordering;

/// Compares two version strings; the newer is the greater.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        // 1. Characters without a meaning are skipped.
        a = skip_separators(a);
        b = skip_separators(b);
        // 2. A tilde is older than anything, even than the end. 3. The end is older than the rest.
        // 4. Hyphen, caret and dot: the string that has one there is the older.
        for mark in *b"~\0-^." {
            let has = |s: &[u8]| if mark == 0 { s.is_empty() } else { s.first() == Some(&mark) };
            match (has(a), has(b)) {
                (true, true) if mark == 0 => return Ordering::Equal,
                (true, true) => {
                    a = a.get(1..).unwrap_or_default();
                    b = b.get(1..).unwrap_or_default();
                    break;
                }
                (true, false) => return Ordering::Less,
                (false, true) => return Ordering::Greater,
                (false, false) => {}
            }
        }
        // 5. Runs of digits compare as numbers, 6. runs of letters as text; a number is newer than a letter.
        let digits = a.first().is_some_and(u8::is_ascii_digit) || b.first().is_some_and(u8::is_ascii_digit);
        let order = if digits {
            let (x, y) = (run(&mut a, u8::is_ascii_digit), run(&mut b, u8::is_ascii_digit));
            let (x, y) = (x.trim_ascii_zeros(), y.trim_ascii_zeros());
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        } else {
            run(&mut a, u8::is_ascii_alphabetic).cmp(run(&mut b, u8::is_ascii_alphabetic))
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

trait TrimZeros {
    fn trim_ascii_zeros(&self) -> &[u8];
}

impl TrimZeros for [u8] {
    fn trim_ascii_zeros(&self) -> &[u8] {
        let zeros = self.iter().take_while(|&&b| b == b'0').count();
        self.get(zeros..).unwrap_or_default()
    }
}

fn skip_separators(s: &[u8]) -> &[u8] {
    let known = |b: &u8| b.is_ascii_alphanumeric() || b"~-^.".contains(b);
    let skip = s.iter().position(known).unwrap_or(s.len());
    s.get(skip..).unwrap_or_default()
}

fn run<'a>(s: &mut &'a [u8], of: fn(&u8) -> bool) -> &'a [u8] {
    let len = s.iter().take_while(|b| of(b)).count();
    let (run, rest) = s.split_at(len);
    *s = rest;
    run
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_specifications_examples() {
        let ascending = [
            "122.1",
            "123~rc1-1",
            "123",
            "123-a",
            "123-a.1",
            "123-1",
            "123-1.1",
            "123^post1",
            "123.a-1",
            "123.1-1",
            "123a-1",
            "124-1",
        ];
        for pair in ascending.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
        assert_eq!(compare("5.14.0-70.el9", "5.14.0-162.el9"), Ordering::Less);
        assert_eq!(compare("0-rescue", "6.5.6-300.fc39.x86_64"), Ordering::Less);
        assert_eq!(compare("01", "1"), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn is_an_order(a in "[-~^.a-c0-2_]{0,8}", b in "[-~^.a-c0-2_]{0,8}", c in "[-~^.a-c0-2_]{0,8}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
            if compare(&a, &b) == Ordering::Less && compare(&b, &c) == Ordering::Less {
                prop_assert_eq!(compare(&a, &c), Ordering::Less);
            }
        }
    }
}
