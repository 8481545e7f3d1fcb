//! Why there is nothing to boot, in words that name the file and the mend.

use std::io;
use std::path::PathBuf;

use crate::image::{self, cache};

/// Why there is nothing to boot.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The disk cannot be looked through.
    #[error("{}: {source}", path.display())]
    Image {
        /// The disk file.
        path: PathBuf,
        /// Why.
        source: image::Error,
    },
    /// No boot entry.
    #[error(
        "{}: no kernel to boot: {reason}. `amiboot image inspect` shows what is on the disk; --kernel gives a kernel of \
         your own", path.display()
    )]
    NothingToBoot {
        /// The disk file.
        path: PathBuf,
        /// What was looked for.
        reason: String,
    },
    /// The entry cannot be booted.
    #[error("{}: the boot entry {title:?} ({origin}): {problem}; --entry chooses another, --kernel and --initrd give files", path.display())]
    BadEntry {
        /// The disk file.
        path: PathBuf,
        /// The entry's title.
        title: String,
        /// Where it was read.
        origin: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No such entry.
    #[error("{}: --entry {wanted:?}: there is no such boot entry; there {}", path.display(), listed(known))]
    NoSuchEntry {
        /// The disk file.
        path: PathBuf,
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A file of the host cannot be used.
    #[error("{option} {}: {cause}", path.display())]
    HostFile {
        /// The option that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A kernel that cannot be used.
    #[error("{what}: {source}")]
    Kernel {
        /// Which kernel.
        what: String,
        /// Why.
        source: image::kernel::KernelError,
    },
    /// A kernel that cannot be entered in the way that was asked for.
    #[error("{what}: --protocol {wanted}: this kernel {why}; --protocol auto takes what it has")]
    Protocol {
        /// Which kernel.
        what: String,
        /// What was asked for.
        wanted: &'static str,
        /// What it lacks.
        why: &'static str,
    },
    /// The cache.
    #[error("the kernel cache: {0}; AMIBOOT_CACHE names another directory")]
    Cache(#[from] cache::Error),
}

impl PlanError {
    /// Whether it says something of the disk, so that there may be another way to boot it.
    #[must_use]
    pub fn is_of_image(&self) -> bool {
        match self {
            Self::Image { .. } | Self::NothingToBoot { .. } | Self::BadEntry { .. } | Self::Kernel { .. } => true,
            Self::NoSuchEntry { .. } | Self::HostFile { .. } | Self::Protocol { .. } | Self::Cache(_) => false,
        }
    }
}

fn listed(known: &[String]) -> String {
    if known.is_empty() { "is none on this disk".into() } else { format!("are {}", known.join(", ")) }
}
