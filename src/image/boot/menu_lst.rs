//! GRUB legacy's `menu.lst` (`grub.conf`), which PV-GRUB reads from a classic paravirtual AMI.

use super::{Draft, EntryKind, Files, MAX_CONFIG, MAX_INITRDS, Source, too_many_initrds};
use crate::image::inspection::FileRef;

/// Entries that are read at most.
const MAX_TITLES: usize = 512;

/// One `title` and what follows it.
struct Title {
    title: String,
    line: u32,
    root: Option<u32>,
    kernel: Option<(FileRef, String)>,
    initrds: Vec<FileRef>,
    problem: Option<String>,
}

/// The entries of the file at `path`, and the index of the default one; `None` where there is no such file.
pub(super) fn menu(files: &mut dyn Files, partition: u32, path: &str) -> Option<(Vec<Draft>, Option<usize>)> {
    let text = files.read(partition, path, MAX_CONFIG)?;
    let text = String::from_utf8_lossy(&text);
    let mut reader = Reader { files, partition, default: None, fallback: None, titles: Vec::new(), root: None };
    for (number, line) in (1..).zip(text.lines()) {
        reader.line(number, line.trim());
    }
    let default = match reader.default.as_deref() {
        Some("saved") => reader.saved(path),
        Some(number) => number.parse().unwrap_or(0),
        None => 0,
    };
    let fallback = reader.fallback;
    let mut drafts = Vec::new();
    let mut position = Vec::new();
    for title in reader.titles {
        // The line of an entry that boots something else than Linux counts for the default's number.
        position.push(title.kernel.is_some().then_some(drafts.len()));
        let Some((kernel, cmdline)) = title.kernel else { continue };
        drafts.push(Draft {
            title: title.title,
            id: None,
            kind: EntryKind::MenuLst,
            source: Source { partition, path: path.to_owned(), line: title.line },
            kernel,
            initrds: title.initrds,
            cmdline,
            problem: title.problem,
            retry: None,
        });
    }
    let at = |number: usize| position.get(number).copied().flatten();
    let fallback = fallback.and_then(at);
    let default = at(default).or(fallback).or_else(|| (!drafts.is_empty()).then_some(0));
    if let Some(draft) = default.and_then(|i| drafts.get_mut(i)) {
        draft.retry = fallback.filter(|&i| Some(i) != default);
    }
    Some((drafts, default))
}

struct Reader<'a> {
    files: &'a mut dyn Files,
    partition: u32,
    default: Option<String>,
    fallback: Option<usize>,
    titles: Vec<Title>,
    /// `root` before the first title.
    root: Option<u32>,
}

impl Reader<'_> {
    fn line(&mut self, number: u32, line: &str) {
        if line.is_empty() || line.starts_with('#') || self.titles.len() > MAX_TITLES {
            return;
        }
        let split = line.find(|c: char| c.is_ascii_whitespace() || c == '=').unwrap_or(line.len());
        let (command, rest) = line.split_at(split);
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '=').trim_end();
        match command {
            "default" => self.default = Some(rest.to_owned()),
            "fallback" => self.fallback = rest.split_ascii_whitespace().next().and_then(|n| n.parse().ok()),
            "title" => self.titles.push(Title {
                title: rest.to_owned(),
                line: number,
                root: self.root,
                kernel: None,
                initrds: Vec::new(),
                problem: None,
            }),
            "root" | "rootnoverify" => {
                let device = rest.strip_prefix('(').and_then(|r| r.split_once(')'));
                let root = device.and_then(|(device, _)| self.device(device));
                self.set_root(root);
            }
            "uuid" => {
                let root = self.files.by_uuid(rest);
                self.set_root(root);
            }
            "kernel" => self.kernel(rest),
            "initrd" => {
                let names = rest.split_ascii_whitespace();
                // One more than an entry may have, so that it shows that there are too many.
                let files: Vec<_> = names.take(MAX_INITRDS + 1).filter_map(|path| self.locate(path)).collect();
                if let Some(title) = self.titles.last_mut() {
                    title.initrds.extend(files);
                    title.problem = too_many_initrds(title.initrds.len()).or(title.problem.take());
                    title.initrds.truncate(MAX_INITRDS);
                }
            }
            "module" | "modulenounzip" => {
                if let Some(title) = self.titles.last_mut() {
                    title.problem = Some("it starts the Xen hypervisor (module), not a Linux kernel".to_owned());
                }
            }
            _ => {}
        }
    }

    fn set_root(&mut self, root: Option<u32>) {
        match self.titles.last_mut() {
            Some(title) => title.root = root,
            None => self.root = root,
        }
    }

    /// `hd0` is the whole disk and `hd0,0` its first partition; PV-GRUB's images write either for what is the one volume
    /// of an unpartitioned disk.
    fn device(&mut self, name: &str) -> Option<u32> {
        let number = match name.split_once(',') {
            Some((_, part)) => part.trim().parse::<u32>().ok()?.checked_add(1)?,
            None => 0,
        };
        self.files.partition(number).or_else(|| self.files.partition(0))
    }

    /// The file that a path means. Where the entry names no root, it is the partition of the menu itself.
    fn locate(&mut self, path: &str) -> Option<FileRef> {
        let (partition, path) = match path.strip_prefix('(') {
            Some(rest) => {
                let (device, path) = rest.split_once(')')?;
                (self.device(device)?, path)
            }
            None => (self.titles.last().and_then(|t| t.root).unwrap_or(self.partition), path),
        };
        path.starts_with('/').then(|| FileRef { partition, path: path.to_owned() })
    }

    fn kernel(&mut self, rest: &str) {
        // Options such as `--no-mem-option` come first.
        let mut rest = rest;
        while rest.starts_with("--") {
            rest = rest.split_once(|c: char| c.is_ascii_whitespace()).map_or("", |(_, tail)| tail.trim_start());
        }
        let (path, cmdline) = rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, ""));
        let file = self.locate(path);
        if let (Some(file), Some(title)) = (file, self.titles.last_mut()) {
            title.kernel = Some((file, cmdline.trim().to_owned()));
        }
    }

    /// The number that `savedefault` has kept in the file `default` beside the menu.
    fn saved(&mut self, path: &str) -> usize {
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let text = self.files.read(self.partition, &format!("{directory}/default"), MAX_CONFIG).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines().next().and_then(|l| l.trim().parse().ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
