//! What to boot: from the image's boot entries and the person's wishes to open kernel and initrd files.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::cmdline;
use crate::disk::{Disk, Format};
use crate::image::cache::{BlobId, Cache, FileIdentity};
use crate::image::{self, BootEntry, Image, Inspection};
use crate::vmm::boot::{BootSource, KernelImage};
use crate::vmm::memory::release_unused_heap;
use crate::vmm::timeline::{Mark, Timeline};

mod artifacts;
mod error;

pub use error::PlanError;

/// How the kernel is entered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The quickest that the kernel has.
    #[default]
    Auto,
    /// PVH, which the kernel must have.
    Pvh,
    /// The unpacked kernel by the Linux boot protocol.
    Linux,
    /// A bzImage as it is: it unpacks itself, and may place itself at random.
    BzImage,
}

/// Parts of the boot that the person gives instead of the image's.
#[derive(Debug, Clone, Default)]
pub struct BootOverrides {
    /// A kernel file of the host.
    pub kernel: Option<PathBuf>,
    /// An initrd file of the host.
    pub initrd: Option<PathBuf>,
    /// The whole command line.
    pub cmdline: Option<String>,
    /// Words to add at its end.
    pub append: Vec<String>,
    /// The entry's number, id or title.
    pub entry: Option<String>,
    /// How the kernel is entered.
    pub protocol: Protocol,
}

/// What was booted, for people and reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booted {
    /// Title of the boot entry.
    pub title: Option<String>,
    /// Where the entry was read.
    pub origin: Option<String>,
    /// The kernel's file.
    pub kernel: String,
    /// What the kernel says of itself.
    pub version: Option<String>,
    /// How it is entered.
    pub entry: String,
    /// The initrds' files.
    pub initrds: Vec<String>,
    /// The command line as the kernel gets it.
    pub cmdline: String,
}

/// A choice that can be kept: all of it but the open files.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Plan {
    kernel: BlobId,
    image: KernelImage,
    initrd: Option<BlobId>,
    cmdline: String,
    cmdline_limit: u32,
    takes_mmio_devices: bool,
    booted: Booted,
    notes: Vec<String>,
}

/// The disk that is planned for.
pub struct RootDisk {
    /// Its file, for messages.
    pub path: PathBuf,
    /// The disk as the guest sees it.
    pub disk: Arc<dyn Disk>,
    /// The format that the person said it has.
    pub format: Option<Format>,
    /// What tells that the file is as it was, where it is a file that tells.
    pub identity: Option<FileIdentity>,
}

/// Plans one start after the other.
pub struct Planner {
    root: RootDisk,
    overrides: BootOverrides,
    timeline: Arc<Timeline>,
    cache: Cache,
    booted: Option<Booted>,
    say: Box<dyn Fn(&str)>,
}

impl Planner {
    /// `say` tells the person what was changed for them.
    ///
    /// # Errors
    /// [`PlanError::Cache`] where the cache cannot be opened.
    pub fn new(
        root: RootDisk,
        overrides: BootOverrides,
        timeline: Arc<Timeline>,
        say: Box<dyn Fn(&str)>,
    ) -> Result<Self, PlanError> {
        let cache = Cache::open(&cache_dir())?;
        if own_cache_dir().is_none() {
            cache.require_own()?;
        }
        Ok(Self { root, overrides, timeline, cache, booted: None, say })
    }

    /// What was booted last.
    #[must_use]
    pub fn booted(&self) -> Option<&Booted> {
        self.booted.as_ref()
    }

    /// What to boot now. The first start of a disk file that is as it was takes what an earlier run has found; every
    /// later start looks again, since the guest may have changed its kernel.
    ///
    /// # Errors
    /// [`PlanError`], which names the file, the field and the mend.
    pub fn next_start(&mut self) -> Result<BootSource, PlanError> {
        let cache = self.cache.clone();
        let key = self.root.identity.take().and_then(|identity| Some((identity, self.selection()?)));
        let kept = key.as_ref().and_then(|(identity, selection)| cache.plan::<Plan>(identity, selection));
        if let Some(source) = kept.and_then(|plan| self.open_plan(&cache, plan)) {
            return Ok(source);
        }
        let (plan, source) = self.look(&cache)?;
        release_unused_heap();
        if let Some((identity, selection)) = key {
            // Without it the next run looks again.
            let _ = cache.store_plan(&identity, &selection, &plan);
        }
        self.took(&plan);
        Ok(source)
    }

    /// What a kept plan depends on beside the disk file; nothing where a file of the host cannot be told from its
    /// later self.
    fn selection(&self) -> Option<String> {
        let now = SystemTime::now();
        let identity = |path: &PathBuf| {
            let identity = FileIdentity::of(&open_at_once(path).ok()?).ok()?;
            identity.is_settled(now).then_some(identity)
        };
        let kernel = self.overrides.kernel.as_ref().map(|p| identity(p).ok_or(())).transpose().ok()?;
        let initrd = self.overrides.initrd.as_ref().map(|p| identity(p).ok_or(())).transpose().ok()?;
        let o = &self.overrides;
        let program = env!("CARGO_PKG_VERSION");
        let disk = (self.root.format, self.root.disk.size());
        let texts = (&o.kernel, &o.cmdline, &o.append, &o.entry, o.protocol);
        Some(format!("{program} {disk:?} {kernel:?} {initrd:?} {texts:?}"))
    }

    fn took(&mut self, plan: &Plan) {
        self.timeline.mark(Mark::KernelReady);
        plan.notes.iter().for_each(|note| (self.say)(note));
        self.booted = Some(plan.booted.clone());
    }

    fn open_plan(&mut self, cache: &Cache, plan: Plan) -> Option<BootSource> {
        let kernel = cache.blob(&plan.kernel)?.file;
        let initrd = match &plan.initrd {
            Some(id) => Some(cache.blob(id)?.file),
            None => None,
        };
        self.timeline.mark(Mark::ImageInspected);
        self.took(&plan);
        Some(plan.into_source(kernel, initrd))
    }

    fn look(&self, cache: &Cache) -> Result<(Plan, BootSource), PlanError> {
        let image = self.inspect()?;
        let entry = self.choose(image.as_ref())?;
        self.timeline.mark(Mark::ImageInspected);
        let from_image = image.as_ref().zip(entry.as_ref());

        let kernel = match (&self.overrides.kernel, from_image) {
            (Some(path), _) => artifacts::kernel_of_host(cache, path, self.overrides.protocol)?,
            (None, Some((image, entry))) => {
                artifacts::kernel_of_image(cache, image, entry, &self.root.path, self.overrides.protocol)?
            }
            (None, None) => return Err(self.nothing_to_boot(image.as_ref())),
        };
        let initrd = match (&self.overrides.initrd, from_image) {
            (Some(path), _) => Some(artifacts::initrd_of_host(cache, path)?),
            (None, Some((image, entry))) if !entry.initrds.is_empty() => {
                Some(artifacts::initrd_of_image(cache, image, entry, &self.root.path)?)
            }
            _ => None,
        };
        let root_partition = image.as_ref().and_then(|i| i.inspection().root);
        let (cmdline, mut notes) = self.cmdline(entry.as_ref(), root_partition);
        if let (Some((image, entry)), None, None) = (from_image, &self.overrides.entry, &self.overrides.kernel) {
            notes.extend(passed_over(image.inspection(), entry));
        }
        let initrds = match (&self.overrides.initrd, &entry) {
            (Some(path), _) => vec![path.display().to_string()],
            (None, Some(entry)) => entry.initrds.iter().map(ToString::to_string).collect(),
            (None, None) => Vec::new(),
        };
        let booted = Booted {
            title: entry.as_ref().map(|e| e.title.clone()),
            origin: entry.as_ref().map(origin),
            kernel: kernel.name,
            version: kernel.version,
            entry: artifacts::how_entered(&kernel.image).into(),
            initrds,
            cmdline: cmdline.clone(),
        };
        let plan = Plan {
            kernel: kernel.blob.id,
            image: kernel.image,
            initrd: initrd.as_ref().map(|blob| blob.id.clone()),
            cmdline,
            cmdline_limit: kernel.cmdline_limit,
            takes_mmio_devices: kernel.takes_mmio_devices,
            booted,
            notes,
        };
        let source = plan.clone().into_source(kernel.blob.file, initrd.map(|blob| blob.file));
        Ok((plan, source))
    }

    /// Looks through the disk. With a kernel of the host, one that cannot be looked through is no error.
    fn inspect(&self) -> Result<Option<Image>, PlanError> {
        match image::inspect(self.root.disk.clone()) {
            Ok(image) => Ok(Some(image)),
            Err(_) if self.overrides.kernel.is_some() => Ok(None),
            Err(source) => Err(PlanError::Image { path: self.root.path.clone(), source }),
        }
    }

    /// The entry to boot. With a kernel of the host there need be none, and what is wrong with the image's own kernel
    /// does not matter.
    fn choose(&self, image: Option<&Image>) -> Result<Option<BootEntry>, PlanError> {
        let Some(image) = image else { return Ok(None) };
        let entries = &image.inspection().entries;
        let chosen = match &self.overrides.entry {
            Some(wanted) => Some(find_entry(entries, wanted).ok_or_else(|| self.no_such_entry(entries, wanted))?),
            None => image.boot_entry(),
        };
        match chosen {
            None if self.overrides.kernel.is_some() => Ok(None),
            None => Err(self.nothing_to_boot(Some(image))),
            Some(entry) => match &entry.problem {
                Some(_) if self.overrides.kernel.is_some() && self.overrides.initrd.is_some() => {
                    Ok(Some(entry.clone()))
                }
                Some(problem) => Err(PlanError::BadEntry {
                    path: self.root.path.clone(),
                    title: entry.title.clone(),
                    origin: origin(entry),
                    problem: problem.clone(),
                }),
                None => Ok(Some(entry.clone())),
            },
        }
    }

    fn nothing_to_boot(&self, image: Option<&Image>) -> PlanError {
        let reason = image.map_or_else(|| "the disk has no boot entry".into(), |i| why_nothing(i.inspection()));
        PlanError::NothingToBoot { path: self.root.path.clone(), reason }
    }

    fn no_such_entry(&self, entries: &[BootEntry], wanted: &str) -> PlanError {
        let known = entries.iter().enumerate().map(|(i, e)| format!("{i} {:?}", e.title)).collect();
        PlanError::NoSuchEntry { path: self.root.path.clone(), wanted: wanted.into(), known }
    }

    /// The command line, and what to tell the person of it.
    fn cmdline(&self, entry: Option<&BootEntry>, root_partition: Option<u32>) -> (String, Vec<String>) {
        let mut notes = Vec::new();
        let base = match (&self.overrides.cmdline, entry) {
            (Some(own), _) => own.clone(),
            (None, Some(entry)) => {
                let (line, replaced) = cmdline::with_root_here(&entry.cmdline, root_partition);
                notes.extend(
                    replaced.map(|was| format!("{was} names no disk of this machine; using {}", root_word(&line))),
                );
                cmdline::with_console(&line)
            }
            (None, None) => {
                let root =
                    root_partition.map(|n| if n == 0 { "root=/dev/vda".into() } else { format!("root=/dev/vda{n}") });
                cmdline::with_console(&root.map(|root| format!("{root} ro")).unwrap_or_default())
            }
        };
        let line = self.overrides.append.iter().fold(base, |line, more| cmdline::joined(&line, more));
        (line, notes)
    }
}

fn root_word(cmdline: &str) -> &str {
    cmdline.split(' ').find(|w| w.starts_with("root=")).unwrap_or_default()
}

/// Why a disk has no boot entry: what was looked for, and what could not be looked into.
fn why_nothing(inspection: &Inspection) -> String {
    // One reason for each partition of a disk with many of them would be no message any more.
    const MOST: usize = 4;
    let unreadable = inspection.partitions.iter().filter_map(|partition| {
        let fs = partition.filesystem.as_ref().filter(|fs| fs.kind != "swap")?;
        let place = match partition.slot.number {
            0 => "the disk".into(),
            n => format!("partition {n}"),
        };
        Some(format!("{place} ({}) cannot be read: {}", fs.kind, fs.unsupported.as_ref()?))
    });
    let found = unreadable.chain(inspection.notes.iter().cloned()).take(MOST);
    std::iter::once(inspection.boot_modes.pv.reason.clone()).chain(found).collect::<Vec<_>>().join("; ")
}

/// What to tell of a default entry that cannot be booted, where another one is.
fn passed_over(inspection: &Inspection, booted: &BootEntry) -> Option<String> {
    let default = inspection.default_entry.and_then(|i| inspection.entries.get(i))?;
    let problem = default.problem.as_ref()?;
    let (passed, taken) = (&default.title, &booted.title);
    Some(format!("the default boot entry {passed:?} cannot be booted ({problem}); taking {taken:?}"))
}

fn find_entry<'e>(entries: &'e [BootEntry], wanted: &str) -> Option<&'e BootEntry> {
    let by_number = wanted.parse::<usize>().ok().and_then(|i| entries.get(i));
    by_number
        .or_else(|| entries.iter().find(|e| e.id.as_deref() == Some(wanted)))
        .or_else(|| entries.iter().find(|e| e.title == wanted))
}

fn origin(entry: &BootEntry) -> String {
    match entry.source.partition {
        0 => format!("{}:{}", entry.source.path, entry.source.line),
        n => format!("{}:{} on partition {n}", entry.source.path, entry.source.line),
    }
}

impl Plan {
    fn into_source(self, kernel: File, initrd: Option<File>) -> BootSource {
        BootSource {
            kernel,
            image: self.image,
            initrd,
            cmdline: self.cmdline,
            cmdline_limit: self.cmdline_limit,
            takes_mmio_devices: self.takes_mmio_devices,
        }
    }
}

/// Opens a file to read, and does not wait for the other end where it is a pipe.
pub(super) fn open_at_once(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Where unpacked kernels are kept: `$AMIBOOT_CACHE`, else `amiboot` in the user's cache directory, else a directory of
/// this user in `/var/tmp`.
#[must_use]
pub fn cache_dir() -> PathBuf {
    own_cache_dir()
        .unwrap_or_else(|| Path::new("/var/tmp").join(format!("amiboot-cache-{}", rustix::process::geteuid().as_raw())))
}

/// The directory that this user's surroundings name.
fn own_cache_dir() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("AMIBOOT_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").filter(|p| p.is_absolute()).map(|p| p.join("amiboot")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/amiboot")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::disk::{HostCache, blank};

    fn planner(dir: &Path, size: u64, format: Option<Format>, kernel: Option<PathBuf>) -> Planner {
        Planner {
            root: RootDisk {
                path: "disk".into(),
                disk: blank(size, dir, HostCache::Used).unwrap(),
                format,
                identity: None,
            },
            overrides: BootOverrides { kernel, ..BootOverrides::default() },
            timeline: Arc::new(Timeline::from_process_start()),
            cache: Cache::open(dir).unwrap(),
            booted: None,
            say: Box::new(|_| {}),
        }
    }

    #[test]
    fn a_kept_plan_is_for_one_size_and_format_of_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let selection = |size, format| planner(dir.path(), size, format, None).selection().unwrap();
        let first = selection(1 << 20, None);
        assert_eq!(first, selection(1 << 20, None));
        assert_ne!(first, selection(2 << 20, None));
        assert_ne!(first, selection(1 << 20, Some(Format::Raw)));
        assert_ne!(selection(1 << 20, Some(Format::Qcow2)), selection(1 << 20, Some(Format::Raw)));
    }

    #[test]
    fn no_plan_is_kept_for_a_kernel_of_the_host_that_has_just_changed() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = dir.path().join("kernel");
        std::fs::write(&kernel, "x").unwrap();
        assert_eq!(planner(dir.path(), 1 << 20, None, Some(kernel.clone())).selection(), None);
        let identity = FileIdentity::of(&File::open(&kernel).unwrap()).unwrap();
        assert!(identity.is_settled(SystemTime::now() + Duration::from_secs(10)));
        assert_eq!(planner(dir.path(), 1 << 20, None, Some(dir.path().join("none"))).selection(), None);
        assert!(
            planner(dir.path(), 1 << 20, None, Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("rust-toolchain.toml")))
                .selection()
                .is_some()
        );
    }
}
