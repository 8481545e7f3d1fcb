//! Entries as they stand on a command line: `DEV=SOURCE[,OPTION...]`.

use super::rules::{check, ephemeral};
use super::{BdmEntry, BdmError, BdmSource, DeviceName, json};
use crate::disk::size::parse_size;

const SYNTAX: &str = "write DEV=SOURCE[,OPTION...], as in /dev/sdf=10G or /dev/sdg=data.raw,read-only";

/// Reads one `--bdm`: an entry, JSON (`[{"DeviceName":...}]`), or `@FILE` with JSON in it.
///
/// A source is `snap-...`, a size (an empty volume), `ephemeralN`, `none`, or else a disk file; a file whose name looks like one
/// of these is written as `./NAME`, a comma in its name twice. Options are `size=`, `delete-on-termination=true|false`,
/// `read-only`, `persist` and `format=raw|qcow2`. Sizes are as [`parse_size`] reads them, those in JSON whole GiB.
///
/// # Errors
/// If it is not of that form, or says what cannot be.
pub fn parse(text: &str) -> Result<Vec<BdmEntry>, BdmError> {
    match text.chars().next() {
        Some('[' | '{') => json::parse(text, "JSON"),
        Some('@') => json::read(text.get(1..).unwrap_or_default().as_ref()),
        _ => Ok(vec![parse_entry(text)?]),
    }
}

fn parse_entry(text: &str) -> Result<BdmEntry, BdmError> {
    let syntax = |why: &str| BdmError::Syntax { entry: text.to_owned(), why: why.to_owned() };
    let (device, rest) = text.split_once('=').ok_or_else(|| syntax(SYNTAX))?;
    let device: DeviceName = device.parse()?;
    let mut parts = split_commas(rest).into_iter();
    let source = parts.next().unwrap_or_default();
    if source.is_empty() {
        return Err(syntax(&format!("there is no source after {device}=; {SYNTAX}")));
    }
    let (source, size) = parse_source(&device, &source)?;
    let mut entry =
        BdmEntry { device, source, size, delete_on_termination: None, read_only: false, persist: false, format: None };
    let mut seen: Vec<String> = Vec::new();
    for option in parts {
        let name = option.split('=').next().unwrap_or_default().to_owned();
        if seen.contains(&name) {
            return Err(syntax(&format!("option {name} is there twice")));
        }
        parse_option(&mut entry, &option).map_err(|why| syntax(&why))?;
        seen.push(name);
    }
    check(&entry)?;
    Ok(entry)
}

/// Splits at commas; two together are one that is meant.
fn split_commas(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == ',' && chars.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

fn parse_source(device: &DeviceName, text: &str) -> Result<(BdmSource, Option<u64>), BdmError> {
    if text == "none" {
        return Ok((BdmSource::Nothing, None));
    }
    if let Some(number) = text.strip_prefix("ephemeral").filter(|rest| rest.bytes().all(|b| b.is_ascii_digit())) {
        return Ok((BdmSource::Ephemeral(ephemeral(device, "VirtualName", number)?), None));
    }
    if text.starts_with("snap-") {
        return Ok((BdmSource::Snapshot(text.to_owned()), None));
    }
    if looks_like_size(text) {
        return match parse_size(text) {
            Ok(size) => Ok((BdmSource::Blank, Some(size))),
            Err(error) => Err(BdmError::Field {
                device: device.clone(),
                field: "size",
                why: format!("{error}; for a file of that name write ./{text}"),
            }),
        };
    }
    Ok((BdmSource::File(text.into()), None))
}

/// Digits, dots, then a few letters at most: a size, or meant as one.
fn looks_like_size(text: &str) -> bool {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    text.starts_with(|c: char| c.is_ascii_digit()) && unit.len() <= 3 && unit.bytes().all(|b| b.is_ascii_alphabetic())
}

fn parse_option(entry: &mut BdmEntry, option: &str) -> Result<(), String> {
    let boolean = |value: &str| match value {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(format!("{other:?} is neither true nor false")),
    };
    match option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value))) {
        ("size", Some(value)) if entry.size.is_none() => {
            entry.size = Some(parse_size(value).map_err(|error| format!("size: {error}"))?);
        }
        ("size", Some(_)) => return Err("the size is there twice, as the source and as an option".to_owned()),
        ("delete-on-termination", Some(value)) => {
            entry.delete_on_termination = Some(boolean(value).map_err(|why| format!("delete-on-termination: {why}"))?);
        }
        ("format", Some(value)) => entry.format = Some(value.parse()?),
        ("read-only", None) => entry.read_only = true,
        ("read-only", Some(value)) => entry.read_only = boolean(value).map_err(|why| format!("read-only: {why}"))?,
        ("persist", None) => entry.persist = true,
        ("persist", Some(value)) => entry.persist = boolean(value).map_err(|why| format!("persist: {why}"))?,
        (name @ ("size" | "delete-on-termination" | "format"), None) => {
            return Err(format!("option {name} needs a value: {name}=..."));
        }
        (name, _) => {
            return Err(format!(
                "option {name:?} is not known; known are size=, delete-on-termination=true|false, read-only, persist and \
                 format=raw|qcow2; a comma in a file name is written twice"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::Format;

    fn entry(device: &str, source: BdmSource) -> BdmEntry {
        BdmEntry {
            device: device.parse().unwrap(),
            source,
            size: None,
            delete_on_termination: None,
            read_only: false,
            persist: false,
            format: None,
        }
    }

    #[test]
    fn what_can_be_written() {
        let file = |name: &str| entry("sdf", BdmSource::File(name.into()));
        let blank = |size| BdmEntry { size: Some(size), ..entry("sdf", BdmSource::Blank) };
        for (text, wanted) in [
            ("/dev/sdf=10G", blank(10 << 30)),
            ("sdf=512M,delete-on-termination=true", BdmEntry { delete_on_termination: Some(true), ..blank(512 << 20) }),
            ("sdf=data.raw", file("data.raw")),
            ("sdf=/a/b=c.raw", file("/a/b=c.raw")),
            ("sdf=./10G", file("./10G")),
            ("sdf=2024-disk.raw", file("2024-disk.raw")),
            ("sdf=ephemeral.raw", file("ephemeral.raw")),
            ("sdf=a,,b.raw,read-only", BdmEntry { read_only: true, ..file("a,b.raw") }),
            ("sdf=d.raw,size=20G", BdmEntry { size: Some(20 << 30), ..file("d.raw") }),
            (
                "sdf=d,persist,format=qcow2,delete-on-termination=false",
                BdmEntry {
                    persist: true,
                    format: Some(Format::Qcow2),
                    delete_on_termination: Some(false),
                    ..file("d")
                },
            ),
            ("sdf=d,persist=false,read-only=true", BdmEntry { read_only: true, ..file("d") }),
            ("sdf=ephemeral0", entry("sdf", BdmSource::Ephemeral(0))),
            ("sdf=ephemeral23,size=2G", BdmEntry { size: Some(2 << 30), ..entry("sdf", BdmSource::Ephemeral(23)) }),
            ("sdf=none", entry("sdf", BdmSource::Nothing)),
            (
                "sdf=snap-0123456789abcdef0,size=20G,delete-on-termination=false",
                BdmEntry {
                    size: Some(20 << 30),
                    delete_on_termination: Some(false),
                    ..entry("sdf", BdmSource::Snapshot("snap-0123456789abcdef0".into()))
                },
            ),
        ] {
            assert_eq!(parse(text).unwrap(), [wanted], "{text}");
        }
    }

    #[test]
    fn what_is_refused_and_why() {
        for (text, words) in [
            ("", "DEV=SOURCE"),
            ("/dev/sdf", "DEV=SOURCE"),
            ("=10G", "device name"),
            ("/dev/vdb=10G", "device name"),
            ("sdf=", "no source"),
            ("sdf=,read-only", "no source"),
            ("sdf=10", "say the unit"),
            ("sdf=10GB", "unit must be"),
            ("sdf=1.img", "./1.img"),
            ("sdf=0G", "at least 512"),
            ("sdf=100B", "multiple of 512"),
            ("sdf=65T", "at most 64T"),
            ("sdf=10G,size=20G", "twice"),
            ("sdf=d,size=1G,size=1G", "twice"),
            ("sdf=d,read-only,read-only", "twice"),
            ("sdf=d,size", "needs a value"),
            ("sdf=d,size=", "start with a number"),
            ("sdf=d,", "option \"\" is not known"),
            ("sdf=d,readonly", "\"readonly\" is not known"),
            ("sdf=d,iops=100", "\"iops\" is not known"),
            ("sdf=d,format=vmdk", "raw and qcow2"),
            ("sdf=d,delete-on-termination=yes", "neither true nor false"),
            ("sdf=d,delete-on-termination=false", "persist"),
            ("sdf=d,persist,delete-on-termination=true", "never deleted"),
            ("sdf=d,persist,read-only", "leave out one"),
            ("sdf=1G,persist", "give a file"),
            ("sdf=snap-0123456789abcdef0,persist", "give a file"),
            ("sdf=1G,format=raw", "only files"),
            ("sdf=1G,read-only", "of no use"),
            ("sdf=ephemeral", "ephemeral23"),
            ("sdf=ephemeral24", "ephemeral23"),
            ("sdf=ephemeral01", "ephemeral23"),
            ("sdf=ephemeral0,delete-on-termination=true", "leave it out"),
            ("sdf=ephemeral0,persist", "give a file"),
            ("sdf=none,size=1G", "leave them out"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(
            text in ".*",
            almost in "(/dev/)?(sd|xvd)[a-z][0-9]{0,2}=(snap-|ephemeral|none|[0-9.]{0,5}[KMGTB]?|[a-z./]{0,9})(,[a-z-]{0,6}(=[a-z0-9]{0,5})?){0,3}",
        ) {
            let _ = (parse(&text), parse(&almost));
        }

        #[test]
        fn every_file_name_can_be_given(name in "[a-zA-Z0-9,=@ ._-]{1,20}") {
            let parsed = parse(&format!("sdf=./{}", name.replace(',', ",,"))).unwrap();
            prop_assert_eq!(&parsed[0].source, &BdmSource::File(format!("./{name}").into()));
        }
    }
}
