//! Files of the Boot Loader Specification, type #1 (UAPI Group, "Boot Loader Specification"), with the variables of
//! GRUB's environment that Fedora and its kin put into them.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{Draft, EntryKind, Files, MAX_CONFIG, MAX_INITRDS, Source, too_many_initrds, version};
use crate::image::inspection::FileRef;

/// Files that are read at most.
const MAX_FILES: usize = 256;
/// The largest of these files, in bytes.
const MAX_FILE: u64 = 256 << 10;
/// The longest command line after variables are replaced, in bytes.
const MAX_CMDLINE: usize = 64 << 10;

/// One file's fields.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    title: Option<String>,
    version: String,
    machine_id: String,
    sort_key: String,
    linux: Option<(String, u32)>,
    initrds: Vec<String>,
    options: Vec<String>,
    architecture: Option<String>,
}

fn parse(text: &str) -> Entry {
    let mut entry = Entry::default();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        let (key, value) = line.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((line, ""));
        let value = value.trim().to_owned();
        match key {
            "title" => entry.title = Some(value),
            "version" => entry.version = value,
            "machine-id" => entry.machine_id = value,
            "sort-key" => entry.sort_key = value,
            "linux" => entry.linux = Some((value, number)),
            "initrd" => {
                // One more than an entry may have, so that it shows that there are too many.
                let room = (MAX_INITRDS + 1).saturating_sub(entry.initrds.len());
                entry.initrds.extend(value.split_ascii_whitespace().take(room).map(str::to_owned));
            }
            "options" => entry.options.push(value),
            "architecture" => entry.architecture = Some(value),
            _ => {}
        }
    }
    entry
}

/// The entries in a directory of a partition, the newest first. Variables in them are replaced from `variables`.
pub(super) fn entries(
    files: &mut dyn Files,
    partition: u32,
    directory: &str,
    variables: &BTreeMap<String, String>,
) -> Vec<Draft> {
    let names = files.list(partition, directory);
    let mut found = Vec::new();
    for name in names.iter().filter(|n| n.ends_with(".conf")).take(MAX_FILES) {
        let path = format!("{}/{name}", directory.trim_end_matches('/'));
        let Some(text) = files.read(partition, &path, MAX_FILE) else { continue };
        let entry = parse(&String::from_utf8_lossy(&text));
        let stem = name.strip_suffix(".conf").unwrap_or(name);
        // "+3-1" at the end of the name counts attempts to boot it.
        let id = stem.rsplit_once('+').map_or(stem, |(id, _)| id);
        if let Some(draft) = draft(files, partition, &path, id, &entry, variables) {
            found.push((entry, draft));
        }
    }
    found.sort_by(|(a, x), (b, y)| order(a, b).then_with(|| newest_id(x, y)));
    found.into_iter().map(|(_, draft)| draft).collect()
}

fn newest_id(a: &Draft, b: &Draft) -> Ordering {
    version::compare(b.id.as_deref().unwrap_or_default(), a.id.as_deref().unwrap_or_default())
}

/// "Sorting" of the specification: those with a sort key come first, by key and machine, the newest version first.
fn order(a: &Entry, b: &Entry) -> Ordering {
    match (a.sort_key.is_empty(), b.sort_key.is_empty()) {
        (false, true) => Ordering::Less,
        (true, false) => Ordering::Greater,
        (true, true) => Ordering::Equal,
        (false, false) => (a.sort_key.cmp(&b.sort_key))
            .then_with(|| a.machine_id.cmp(&b.machine_id))
            .then_with(|| version::compare(&b.version, &a.version)),
    }
}

fn draft(
    files: &mut dyn Files,
    partition: u32,
    path: &str,
    id: &str,
    entry: &Entry,
    variables: &BTreeMap<String, String>,
) -> Option<Draft> {
    let (linux, line) = entry.linux.as_ref()?;
    let mut locate = |path: &str| locate(files, partition, path);
    let mut initrds = Vec::new();
    for initrd in &entry.initrds {
        // `$tuned_initrd` is usually empty; it may as well be many files.
        let room = (MAX_INITRDS + 1).saturating_sub(initrds.len());
        initrds.extend(expand(initrd, variables).split_ascii_whitespace().take(room).map(&mut locate));
    }
    let too_many = too_many_initrds(initrds.len());
    initrds.truncate(MAX_INITRDS);
    let mut cmdline = String::new();
    for option in &entry.options {
        if cmdline.len() > MAX_CMDLINE {
            break;
        }
        cmdline.extend([expand(option, variables).trim(), " "]);
    }
    let too_long = (cmdline.len() > MAX_CMDLINE).then(|| format!("its options have more than {MAX_CMDLINE} bytes"));
    let foreign = entry.architecture.as_deref().filter(|a| !matches!(a.to_ascii_lowercase().as_str(), "x64" | "ia32"));
    let foreign = foreign.map(|a| format!("the entry is for the architecture {a}"));
    Some(Draft {
        title: entry.title.clone().unwrap_or_else(|| id.to_owned()),
        id: Some(id.to_owned()),
        kind: EntryKind::Bls,
        source: Source { partition, path: path.to_owned(), line: *line },
        kernel: locate(&expand(linux, variables)),
        initrds,
        cmdline: cmdline.trim().to_owned(),
        problem: foreign.or(too_many).or(too_long),
        retry: None,
    })
}

/// Paths count from the partition's root; where `/boot` is a directory of it, some installers leave that out.
fn locate(files: &mut dyn Files, partition: u32, path: &str) -> FileRef {
    let path = format!("/{}", path.trim_start_matches('/'));
    let file = FileRef { partition, path };
    if files.kind(&file).is_some() {
        return file;
    }
    let below = FileRef { partition, path: format!("/boot{}", file.path) };
    if files.kind(&below).is_some() { below } else { file }
}

/// Replaces `$name` and `${name}`; an unknown variable is empty, as in GRUB.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (name, tail) = match after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            Some(found) => found,
            None => {
                let len = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                after.split_at(len)
            }
        };
        if name.is_empty() {
            out.push('$');
        }
        out.push_str(variables.get(name).map_or("", String::as_str));
        rest = tail;
        if out.len() > MAX_CMDLINE {
            return out;
        }
    }
    out.push_str(rest);
    out
}

/// The default among the entries of a directory that no GRUB menu shows: `saved_entry` of GRUB's environment, the
/// pattern in systemd-boot's `loader.conf` beside the directory, else the first.
pub(super) fn default(
    files: &mut dyn Files,
    partition: u32,
    directory: &str,
    drafts: &[Draft],
    saved: Option<&str>,
) -> Option<usize> {
    let by_id = |wanted: &str| {
        let matches = |id: &str| match wanted.strip_suffix('*') {
            Some(start) => id.starts_with(start),
            None => id == wanted.strip_suffix(".conf").unwrap_or(wanted),
        };
        drafts.iter().position(|d| d.id.as_deref().is_some_and(matches))
    };
    if let Some(found) = saved.filter(|s| !s.is_empty()).and_then(by_id) {
        return Some(found);
    }
    let conf = directory.strip_suffix("/entries").map(|parent| format!("{parent}/loader.conf"));
    let conf = conf.and_then(|path| files.read(partition, &path, MAX_CONFIG)).unwrap_or_default();
    let conf = String::from_utf8_lossy(&conf);
    let wanted = conf.lines().find_map(|l| l.trim().strip_prefix("default")?.split_ascii_whitespace().next());
    wanted.and_then(by_id).or_else(|| (!drafts.is_empty()).then_some(0))
}

#[cfg(test)]
mod tests;
