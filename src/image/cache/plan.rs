//! Plans: what an inspection led to, kept for as long as the disk file stays the same.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Cache, Error, hex, read_bounded, sha256, store};

/// The layout of the index files; another number is another program's.
const VERSION: u32 = 1;
/// The largest plan, in bytes.
const MAX_PLAN: u64 = 1 << 20;
/// The plans that are kept, in bytes all together.
const MAX_INDEX: u64 = 16 << 20;
/// A file changed this recently may change again without its times showing it: clocks of file systems are coarse.
const SETTLED: Duration = Duration::from_secs(2);

/// What tells a file from another, and from itself before a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    /// Device number of its file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Last change of the content, in nanoseconds since 1970.
    pub mtime_ns: i128,
    /// Last change of the content or the inode, in nanoseconds since 1970.
    pub ctime_ns: i128,
}

impl FileIdentity {
    /// The identity of an open file. Take it *before* reading what a plan is made from.
    ///
    /// # Errors
    /// What the host says.
    pub fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        let ns = |seconds: i64, nanoseconds: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        Ok(Self {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.size(),
            mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
        })
    }

    /// Whether the file was last changed long enough before `now` for its times to tell the next change.
    #[must_use]
    pub fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let latest = now.saturating_sub(SETTLED).as_nanos();
        let before = |time: i128| u128::try_from(time).is_ok_and(|t| t < latest) || time < 0;
        before(self.mtime_ns) && before(self.ctime_ns)
    }
}

#[derive(Serialize, Deserialize)]
struct Entry<P> {
    version: u32,
    identity: FileIdentity,
    selection: String,
    plan: P,
}

impl Cache {
    /// The plan kept for a disk file and a selection, if there is one and the file cannot have changed since. Whether its
    /// blobs are still there is for [`Cache::blob`] to say.
    ///
    /// The selection is whatever else the plan depends on, in the caller's words: which entry, overriding options, the
    /// identities of further files.
    #[must_use]
    pub fn plan<P: DeserializeOwned>(&self, identity: &FileIdentity, selection: &str) -> Option<P> {
        if !identity.is_settled(SystemTime::now()) {
            return None;
        }
        let bytes = read_bounded(&self.plan_path(identity, selection), MAX_PLAN).ok()?;
        let entry: Entry<P> = serde_json::from_slice(&bytes).ok()?;
        let same = entry.version == VERSION && entry.identity == *identity && entry.selection == selection;
        same.then_some(entry.plan)
    }

    /// Keeps a plan. Returns whether it did: not for a file that was changed in the last two seconds, because a further
    /// change might not show in its times.
    ///
    /// # Errors
    /// Where the plan cannot be written; nothing is left behind.
    pub fn store_plan<P: Serialize>(&self, identity: &FileIdentity, selection: &str, plan: &P) -> Result<bool, Error> {
        if !identity.is_settled(SystemTime::now()) {
            return Ok(false);
        }
        let path = self.plan_path(identity, selection);
        let entry = Entry { version: VERSION, identity: *identity, selection: selection.to_owned(), plan };
        let bytes = serde_json::to_vec_pretty(&entry).map_err(|e| Error::new("write", &path)(e.into()))?;
        if u64::try_from(bytes.len()).is_ok_and(|len| len > MAX_PLAN) {
            return Ok(false);
        }
        let mut temporary = store::Temporary::create(&self.path("tmp"))?;
        temporary.write_all(&bytes).map_err(Error::new("write", &path))?;
        temporary.publish(&path, 0o600)?;
        store::shrink(&self.path("index"), MAX_INDEX, path.file_name().unwrap_or(OsStr::new("")));
        Ok(true)
    }

    /// Forgets the plan for a disk file and a selection, for example because a blob of it is gone.
    pub fn forget_plan(&self, identity: &FileIdentity, selection: &str) {
        // One that is not there is forgotten already; one that cannot be removed is replaced by the next.
        let _ = fs::remove_file(self.plan_path(identity, selection));
    }

    /// One file per disk file and selection: its next version replaces it.
    fn plan_path(&self, identity: &FileIdentity, selection: &str) -> std::path::PathBuf {
        let key = format!("{}:{}:{selection}", identity.dev, identity.ino);
        self.path("index").join(format!("{}.json", hex(&sha256(key.as_bytes()))))
    }
}
