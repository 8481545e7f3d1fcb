//! The volumes of a disk: its partitions with what is on them, opened when first needed.

use std::io::{self, Write};
use std::sync::Arc;

use super::boot::Files;
use super::fs::{self, FsError, Identity, Kind, Stat, Tree};
use super::inspection::FileRef;
use super::partition::{Slot, Table};
use super::window::{Budget, Window};
use super::{Error, volume_name};
use crate::disk::Disk;

pub(super) struct Volumes {
    pub all: Vec<Volume>,
    /// What could not be opened or read, for the inspection's notes.
    pub notes: Vec<String>,
}

pub(super) struct Volume {
    pub slot: Slot,
    pub identity: Option<Identity>,
    window: Window,
    tree: Option<Result<Tree, FsError>>,
}

impl Volumes {
    /// Looks at the beginning of every partition. `budget`: the bytes that may be read, these included.
    pub fn new(disk: &Arc<dyn Disk>, table: &Table, budget: u64) -> io::Result<Self> {
        let mut all = Vec::new();
        let budget = Budget::of(budget);
        for slot in &table.partitions {
            let window = Window::new(Arc::clone(disk), slot.start, slot.size).sharing(&budget);
            let identity = fs::identify(&window)?;
            all.push(Volume { slot: slot.clone(), identity, window, tree: None });
        }
        Ok(Self { all, notes: Vec::new() })
    }

    /// The partition's file system.
    pub fn tree(&mut self, partition: u32) -> Result<&mut Tree, Error> {
        let volume = self.all.iter_mut().find(|v| v.slot.number == partition);
        let volume = volume.ok_or(Error::NoPartition { partition })?;
        let wrap = |source| Error::FileSystem { partition, source };
        let Some(identity) = &mut volume.identity else {
            return Err(wrap(FsError::Unsupported("no known file system is on it".to_owned())));
        };
        let opened = volume.tree.get_or_insert_with(|| {
            let opened = fs::open(&volume.window, identity);
            if let (Err(e), None) = (&opened, &identity.unsupported) {
                self.notes.push(format!("{} ({}): {e}", volume_name(partition), identity.kind));
                identity.unsupported = Some(e.to_string());
            }
            opened
        });
        match opened {
            Ok(tree) => Ok(tree),
            // The reason has been kept in words.
            Err(e) => Err(wrap(FsError::Unsupported(match e {
                FsError::Unsupported(why) => why.clone(),
                other => other.to_string(),
            }))),
        }
    }

    /// Copies a file, if it is no larger than `limit` bytes, and returns its size.
    pub fn copy(&mut self, file: &FileRef, limit: u64, out: &mut dyn Write) -> Result<u64, Error> {
        let wrap = |source| match source {
            FsError::Output { source, .. } => Error::Output { file: file.clone(), source },
            source => Error::File { file: file.clone(), source },
        };
        self.tree(file.partition)?.copy(&file.path, limit, out).map_err(wrap)
    }

    /// What a path names; `None` where it is not there.
    pub fn stat(&mut self, file: &FileRef) -> Result<Option<Stat>, Error> {
        let wrap = |source| Error::File { file: file.clone(), source };
        self.tree(file.partition)?.stat(&file.path).map_err(wrap)
    }

    /// The readable file systems' partitions.
    pub fn numbers(&self) -> Vec<u32> {
        self.all.iter().filter(|v| v.identity.is_some()).map(|v| v.slot.number).collect()
    }

    fn by(&self, matches: impl Fn(&Identity) -> bool) -> Option<u32> {
        self.all.iter().find(|v| v.identity.as_ref().is_some_and(&matches)).map(|v| v.slot.number)
    }
}

impl Files for Volumes {
    fn read(&mut self, partition: u32, path: &str, limit: u64) -> Option<Vec<u8>> {
        match self.tree(partition).ok()?.read(path, limit) {
            Ok(bytes) => Some(bytes),
            Err(e) if e.is_absent() => None,
            Err(e) => {
                if self.notes.len() < 100 {
                    self.notes.push(format!("{}: cannot read {path}: {e}", volume_name(partition)));
                }
                None
            }
        }
    }

    fn list(&mut self, partition: u32, path: &str) -> Vec<String> {
        self.tree(partition).ok().and_then(|tree| tree.list(path).ok()).unwrap_or_default()
    }

    fn kind(&mut self, file: &FileRef) -> Option<Kind> {
        self.stat(file).ok().flatten().map(|stat| stat.kind)
    }

    fn size(&mut self, file: &FileRef) -> Option<u64> {
        self.stat(file).ok().flatten().map(|stat| stat.size)
    }

    fn by_uuid(&mut self, uuid: &str) -> Option<u32> {
        self.by(|i| i.uuid.as_ref().is_some_and(|u| u.eq_ignore_ascii_case(uuid)))
    }

    fn by_label(&mut self, label: &str) -> Option<u32> {
        self.by(|i| i.label.as_deref() == Some(label))
    }

    fn by_file(&mut self, path: &str) -> Option<u32> {
        let numbers = self.numbers();
        numbers.into_iter().find(|&n| self.tree(n).is_ok_and(|tree| tree.exists(path)))
    }

    fn partition(&mut self, number: u32) -> Option<u32> {
        self.all.iter().any(|v| v.slot.number == number).then_some(number)
    }
}
