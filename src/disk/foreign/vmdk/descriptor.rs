//! The text that says what a disk is made of.

use super::CONVERT;
use crate::disk::SECTOR_SIZE;
use crate::disk::foreign::Flaw;

/// Bytes of a descriptor at most. That of a disk of 64 TiB in extents of 2 GiB has some 2 MiB.
pub(super) const MAX_LEN: usize = 4 << 20;

/// What it begins with.
const TITLE: &[u8] = b"# Disk DescriptorFile";

/// Whether a file that begins like this is a descriptor.
pub(super) fn is_descriptor(head: &[u8]) -> bool {
    head.get(..TITLE.len()).is_some_and(|title| title.eq_ignore_ascii_case(TITLE))
}

/// What a descriptor says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub extents: Vec<Extent>,
}

/// One extent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Bytes of it.
    pub len: u64,
    pub kind: Kind,
}

/// What an extent is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing but zeroes.
    Zero,
    /// Bytes of a file, from `offset` on.
    Flat { name: String, offset: u64 },
    /// A file with grains.
    Sparse { name: String },
}

impl Descriptor {
    /// Reads a text; what is behind a zero byte is filling.
    ///
    /// # Errors
    /// If it is encrypted, a difference from a parent, or has extents that are not read.
    pub fn parse(text: &[u8]) -> Result<Self, Flaw> {
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        // Names in other encodings are refused when they are looked for: no file has them.
        let text = String::from_utf8_lossy(text);
        let mut descriptor = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let first = line.split([' ', '\t']).next().unwrap_or_default();
            if matches!(first, "RW" | "RDONLY" | "NOACCESS") {
                descriptor.extents.push(Extent::parse(line)?);
                continue;
            }
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            check(key.trim(), value.trim().trim_matches('"'))?;
        }
        Ok(descriptor)
    }
}

/// Refuses what a line says.
fn check(key: &str, value: &str) -> Result<(), Flaw> {
    let key = key.to_ascii_lowercase();
    let not_none = |value: &str| u32::from_str_radix(value, 16) != Ok(u32::MAX);
    let unsupported = |what: String, mend| Err(Flaw::Unsupported { what, mend });
    match &*key {
        "parentcid" if not_none(value) => unsupported(
            format!("holds only what differs from a parent disk (parentCID={value})"),
            "consolidate its snapshots, or give the parent",
        ),
        "parentfilenamehint" => unsupported(
            format!("holds only what differs from the parent disk {value:?}"),
            "consolidate its snapshots, or give the parent",
        ),
        key if key.starts_with("encryption.") => {
            unsupported("is encrypted".to_owned(), "decrypt it with the program that made it")
        }
        _ => Ok(()),
    }
}

impl Extent {
    /// Reads a line like `RW 4192256 FLAT "disk-flat.vmdk" 0`.
    fn parse(line: &str) -> Result<Self, Flaw> {
        let bad = || Flaw::Line(line.chars().take(200).collect());
        let (access, rest) = word(line);
        let (sectors, rest) = word(rest);
        let (kind, rest) = word(rest);
        let sectors: u64 = sectors.parse().map_err(|_| bad())?;
        let len = sectors.checked_mul(SECTOR_SIZE).ok_or_else(bad)?;
        if access == "NOACCESS" {
            let what = format!("has an extent that must not be read ({kind})");
            return Err(Flaw::Unsupported { what, mend: CONVERT });
        }
        let named = || {
            let (name, rest) = rest.strip_prefix('"').and_then(|rest| rest.split_once('"')).ok_or_else(bad)?;
            Ok::<_, Flaw>((name.to_owned(), rest.trim()))
        };
        let kind = match kind {
            "ZERO" => Kind::Zero,
            "FLAT" | "VMFS" => {
                let (name, rest) = named()?;
                // The offset of VMFS extents may be left out.
                let offset: u64 = if rest.is_empty() { 0 } else { word(rest).0.parse().map_err(|_| bad())? };
                Kind::Flat { name, offset: offset.checked_mul(SECTOR_SIZE).ok_or_else(bad)? }
            }
            "SPARSE" => Kind::Sparse { name: named()?.0 },
            other => {
                let what = format!("has an extent of the kind {other:?}");
                return Err(Flaw::Unsupported { what, mend: CONVERT });
            }
        };
        Ok(Self { len, kind })
    }
}

/// The first word of a text, and what comes after it.
fn word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    (word, rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(lines: &str) -> Result<Descriptor, String> {
        Descriptor::parse(lines.as_bytes()).map_err(|flaw| flaw.to_string())
    }

    #[test]
    fn extents_are_read_in_order() {
        let text = "# Disk DescriptorFile\r\nversion=1\nparentCID=ffffffff\ncreateType=\"custom\"\n\n\
                    RW 100 FLAT \"a b-flat.vmdk\" 63\r\nRDONLY 8\tSPARSE \"s.vmdk\"\nRW 16 ZERO\nRW 4 VMFS \"v\"\n\0RW x";
        let flat = |name: &str, offset| Kind::Flat { name: name.to_owned(), offset };
        let expected = [
            (51_200, flat("a b-flat.vmdk", 63 * 512)),
            (4096, Kind::Sparse { name: "s.vmdk".to_owned() }),
            (8192, Kind::Zero),
            (2048, flat("v", 0)),
        ];
        let extents: Vec<_> = parsed(text).unwrap().extents.into_iter().map(|e| (e.len, e.kind)).collect();
        assert_eq!(extents, expected);
    }

    #[test]
    fn what_is_not_read_is_named_with_its_mend() {
        for (line, words) in [
            ("parentCID=12345678", "differs from a parent"),
            ("parentFileNameHint=\"/vm/base.vmdk\"", "/vm/base.vmdk"),
            ("encryption.keySafe = \"vmware:key/list\"", "encrypted"),
            ("RW 100 VMFSSPARSE \"x\"", "VMFSSPARSE"),
            ("RW 100 SESPARSE \"x\"", "SESPARSE"),
            ("RW 100 VMFSRDM \"x\"", "VMFSRDM"),
            ("NOACCESS 100 ZERO", "must not be read"),
            ("RW many FLAT \"x\" 0", "line"),
            ("RW 99999999999999999999 FLAT \"x\" 0", "line"),
            ("RW 36028797018963968 FLAT \"x\" 0", "line"),
            ("RW 1 FLAT x 0", "line"),
            ("RW 1 FLAT \"x\" y", "line"),
            ("RW 1 FLAT \"x\" 18446744073709551615", "line"),
            ("RW", "line"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
        }
    }
}
