//! A disk that exists only as a list of files, for the tests of configurations.

#![allow(clippy::cast_possible_truncation, reason = "test data of known size")]

use std::collections::BTreeMap;

use super::{Draft, Files};
use crate::image::fs::Kind;
use crate::image::inspection::FileRef;

#[derive(Default)]
pub(super) struct FakeFiles {
    pub files: BTreeMap<(u32, String), Vec<u8>>,
    pub uuids: Vec<(String, u32)>,
    pub labels: Vec<(String, u32)>,
    pub partitions: Vec<u32>,
}

impl FakeFiles {
    pub fn new(partitions: &[u32]) -> Self {
        Self { partitions: partitions.to_vec(), ..Self::default() }
    }

    pub fn add(mut self, partition: u32, path: &str, text: &str) -> Self {
        self.files.insert((partition, path.to_owned()), text.as_bytes().to_vec());
        self
    }

    pub fn uuid(mut self, uuid: &str, partition: u32) -> Self {
        self.uuids.push((uuid.to_owned(), partition));
        self
    }
}

impl Files for FakeFiles {
    fn read(&mut self, partition: u32, path: &str, _: u64) -> Option<Vec<u8>> {
        self.files.get(&(partition, path.to_owned())).cloned()
    }

    fn list(&mut self, partition: u32, path: &str) -> Vec<String> {
        let start = format!("{path}/");
        let names = self.files.keys().filter(|(p, _)| *p == partition).filter_map(|(_, f)| f.strip_prefix(&start));
        names.filter(|n| !n.contains('/')).map(str::to_owned).collect()
    }

    fn kind(&mut self, file: &FileRef) -> Option<Kind> {
        self.files.contains_key(&(file.partition, file.path.clone())).then_some(Kind::File)
    }

    fn size(&mut self, file: &FileRef) -> Option<u64> {
        self.files.get(&(file.partition, file.path.clone())).map(|f| f.len() as u64)
    }

    fn by_uuid(&mut self, uuid: &str) -> Option<u32> {
        self.uuids.iter().find(|(u, _)| u == uuid).map(|&(_, p)| p)
    }

    fn by_label(&mut self, label: &str) -> Option<u32> {
        self.labels.iter().find(|(l, _)| l == label).map(|&(_, p)| p)
    }

    fn by_file(&mut self, path: &str) -> Option<u32> {
        self.files.keys().find(|(_, p)| p == path).map(|&(n, _)| n)
    }

    fn partition(&mut self, number: u32) -> Option<u32> {
        self.partitions.contains(&number).then_some(number)
    }
}

/// A draft in few words: title, kernel, initrds and command line.
pub(super) fn brief(draft: &Draft) -> String {
    let initrds: Vec<String> = draft.initrds.iter().map(|f| format!("{}:{}", f.partition, f.path)).collect();
    let kernel = format!("{}:{}", draft.kernel.partition, draft.kernel.path);
    format!("{} | {kernel} | {} | {}", draft.title, initrds.join(" "), draft.cmdline)
}

pub(super) fn briefs(drafts: &[Draft]) -> Vec<String> {
    drafts.iter().map(brief).collect()
}
