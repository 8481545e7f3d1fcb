//! The file of a stored image: a tar archive (POSIX ustar), so that other programs can look into it.
//!
//! Its members, in this order:
//!
//! - `manifest.json`: a [`Manifest`], which says what the image is, and of each snapshot its size and its blocks;
//! - for each snapshot of the manifest, in its order, `SNAPSHOT.blocks`: the blocks of 512 KiB that the manifest names, one
//!   after the other, and `SNAPSHOT.sha256`: the SHA-256 of that, as 64 hexadecimal digits and a line feed.
//!
//! Blocks that are not named are zero. Members of 8 GiB and more have their size in binary, as GNU tar writes and reads it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cloud::BLOCK;
use crate::cloud::error::CloudError;
use crate::cloud::mapping::{BlockDevice, GIB};
use crate::cloud::tag::Tags;
use crate::image::bundle::tar_header;

/// Bytes of a record of the archive.
const RECORD: u64 = 512;
/// The version of the manifest.
pub(super) const VERSION: u32 = 1;
/// The name of the manifest.
pub(super) const MANIFEST: &str = "manifest.json";
/// Most bytes of a manifest.
const MAX_MANIFEST: u64 = 64 << 20;
/// Most snapshots of an image.
const MAX_SNAPSHOTS: usize = 64;
/// GiB that a snapshot can have.
const SIZES: std::ops::RangeInclusive<u64> = 1..=64 << 10;

/// What is said of a stored image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// 1.
    pub version: u32,
    /// The image.
    pub image: StoredImage,
    /// What its volumes are made of.
    pub snapshots: Vec<StoredSnapshot>,
}

/// An image, in EC2's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredImage {
    pub image_id: String,
    pub name: String,
    pub description: String,
    pub architecture: String,
    pub virtualization_type: String,
    #[serde(default)]
    pub boot_mode: Option<String>,
    #[serde(default)]
    pub platform: Option<String>,
    pub root_device_name: String,
    pub ena_support: bool,
    #[serde(default)]
    pub imds_support: Option<String>,
    #[serde(default)]
    pub login_user: Option<String>,
    pub block_device_mappings: Vec<BlockDevice>,
    pub tags: Tags,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredSnapshot {
    pub snapshot_id: String,
    /// GiB.
    pub volume_size: u64,
    pub description: String,
    pub tags: Tags,
    /// Runs of blocks that are in the archive: the first, and how many.
    pub blocks: Vec<(u32, u32)>,
}

impl StoredSnapshot {
    /// How many blocks are in the archive.
    pub fn count(&self) -> u64 {
        self.blocks.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// The numbers of its blocks that are in the archive.
    pub fn indexes(&self) -> impl Iterator<Item = u32> + '_ {
        self.blocks.iter().flat_map(|(first, count)| *first..first.saturating_add(*count))
    }

    /// The member with its blocks.
    pub fn data_name(&self) -> String {
        format!("{}.blocks", self.snapshot_id)
    }

    /// The member with the checksum of these.
    pub fn sum_name(&self) -> String {
        format!("{}.sha256", self.snapshot_id)
    }
}

impl Manifest {
    /// What cannot be of a manifest that was read; what an image can be is not looked at.
    fn flaw(&self) -> Option<String> {
        if self.version != VERSION {
            return Some(format!("it is of version {}, and {VERSION} is known", self.version));
        }
        if self.snapshots.len() > MAX_SNAPSHOTS {
            return Some(format!("it has {} snapshots, and {MAX_SNAPSHOTS} are the most", self.snapshots.len()));
        }
        self.snapshots.iter().find_map(|snapshot| {
            let id = &snapshot.snapshot_id;
            if !SIZES.contains(&snapshot.volume_size) {
                return Some(format!("{id:?} has {} GiB, and 1 to 65536 can be", snapshot.volume_size));
            }
            let end = snapshot.volume_size * (GIB / BLOCK);
            let mut next = 0;
            for (first, count) in &snapshot.blocks {
                let (from, to) = (u64::from(*first), u64::from(*first) + u64::from(*count));
                if from < next || to > end {
                    return Some(format!("the blocks of {id:?} are not in order, or beyond its end"));
                }
                next = to;
            }
            None
        })
    }
}

/// Writes members to a file, from its beginning.
pub(super) struct Writer<'a> {
    file: &'a File,
    at: u64,
}

impl<'a> Writer<'a> {
    pub fn new(file: &'a File) -> Self {
        Self { file, at: 0 }
    }

    /// Begins a member of `size` bytes, which [`Writer::put`] then has to be given.
    pub fn begin(&mut self, name: &str, size: u64) -> io::Result<()> {
        self.at = self.at.next_multiple_of(RECORD);
        self.put(&tar_header(name, size))
    }

    pub fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Ends the archive: by two records of zeroes.
    pub fn end(self) -> io::Result<()> {
        self.file.set_len(self.at.next_multiple_of(RECORD) + 2 * RECORD)
    }
}

/// Reads members from a file, in their order.
pub(super) struct Reader {
    file: File,
    path: PathBuf,
    at: u64,
    /// Where the member ends.
    end: u64,
}

impl Reader {
    pub fn open(path: &Path) -> Result<Self, CloudError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let message = format!("{}: there is no such object", path.display());
                return Err(CloudError::Parameter { code: "InvalidParameterValue", message });
            }
            other => other.map_err(CloudError::host(path, "cannot open it"))?,
        };
        Ok(Self { file, path: path.to_owned(), at: 0, end: 0 })
    }

    /// The error of what the file says.
    pub fn flaw(&self, why: impl std::fmt::Display) -> CloudError {
        CloudError::value(format!("{}: this is no stored image, or it is damaged: {why}", self.path.display()))
    }

    /// Begins the next member, which has to have this name; gives its size.
    pub fn begin(&mut self, name: &str) -> Result<u64, CloudError> {
        let (at, mut record) = (self.end.next_multiple_of(RECORD), [0; 512]);
        (self.at, self.end) = (at, at.saturating_add(RECORD));
        self.read(&mut record)?;
        let size = size_of(&record).ok_or_else(|| self.flaw(format!("there is no header at byte {at}")))?;
        // All but the size and the checksum follows from the name.
        if record != tar_header(name, size) {
            return Err(self.flaw(format!("{name} should begin at byte {at}")));
        }
        self.end = self.at.saturating_add(size);
        Ok(size)
    }

    /// The next bytes of the member.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<(), CloudError> {
        let end = self.at.saturating_add(buf.len() as u64);
        if end > self.end {
            return Err(self.flaw("a member is shorter than it should be"));
        }
        match self.file.read_exact_at(buf, self.at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(self.flaw("it was cut off")),
            other => other.map_err(CloudError::host(&self.path, "cannot read it"))?,
        }
        self.at = end;
        Ok(())
    }

    /// The first member.
    pub fn manifest(&mut self) -> Result<Manifest, CloudError> {
        let size = self.begin(MANIFEST)?;
        if size > MAX_MANIFEST {
            return Err(self.flaw(format!("its manifest has {size} bytes, and {MAX_MANIFEST} are the most")));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        self.read(&mut bytes)?;
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|error| self.flaw(format!("its manifest: {error}")))?;
        match manifest.flaw() {
            None => Ok(manifest),
            Some(why) => Err(self.flaw(why)),
        }
    }
}

/// What a header says of the size: eleven octal digits, or the number itself.
fn size_of(record: &[u8; 512]) -> Option<u64> {
    let field = record.get(124..136)?;
    if field.first() == Some(&0x80) {
        return Some(u64::from_be_bytes(field.get(4..)?.try_into().ok()?));
    }
    u64::from_str_radix(std::str::from_utf8(field.get(..11)?).ok()?, 8).ok()
}
