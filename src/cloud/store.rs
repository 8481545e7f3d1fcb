//! Where layers are kept: the one place that knows they are files beside the catalogue.
//!
//! A reader of layers takes a shared hold of the store while it opens them by their names; to put a merged layer in the place
//! of two others takes an exclusive one. Who has a layer open goes on reading it whatever becomes of its name.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::error::CloudError;
use super::home::Home;
use super::layer::Layer;
use crate::disk::layered::{self, LayerAccess, LayerError, LayerFiles, Layered};
use crate::disk::{Disk, HostCache};

pub use crate::disk::layered::Progress;

/// How often, and how many times at the most, it is looked whether a layer is free whose turn it is.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
const LOOKS: u32 = 5000;

/// The store of a catalogue.
pub struct Store<'a> {
    home: &'a Home,
}

/// While it is held, no layer's name goes away.
pub struct Hold {
    _file: File,
}

/// While it is held, nobody else has a turn at writing to the layer.
pub struct Turn {
    _file: File,
}

impl<'a> Store<'a> {
    pub(super) fn new(home: &'a Home) -> Self {
        Self { home }
    }

    /// The files of a layer, without their endings.
    pub fn stem(&self, id: &str) -> PathBuf {
        self.home.layer(id)
    }

    /// The files of layers, the lowest first.
    pub fn stems(&self, chain: &[Layer]) -> Vec<PathBuf> {
        chain.iter().map(|layer| self.stem(&layer.id)).collect()
    }

    /// Makes an empty layer, durably.
    ///
    /// # Errors
    /// What the host says.
    pub fn create(&self, id: &str, size: u64) -> Result<LayerFiles, CloudError> {
        LayerFiles::create(&self.stem(id), size).map_err(damaged)
    }

    /// Makes a layer of all that a disk holds, sealed and durable.
    ///
    /// # Errors
    /// What the disk or the host says.
    pub fn fill(&self, id: &str, size: u64, disk: &dyn Disk, progress: &mut Progress<'_>) -> Result<(), CloudError> {
        let files = self.create(id, size)?;
        let filled = layered::fill(&files, disk, progress);
        if filled.is_err() {
            // At once: where there was no room, what follows needs some.
            let _ = self.remove(id);
        }
        filled.map_err(damaged)
    }

    /// Seals a layer that nobody writes to any more; one that is sealed stays so.
    ///
    /// # Errors
    /// What the host says.
    pub fn seal(&self, id: &str) -> Result<(), CloudError> {
        layered::seal(&self.stem(id)).map(|_| ()).map_err(damaged)
    }

    /// Whether a layer is sealed; one whose files are damaged, or not there, is not.
    ///
    /// # Errors
    /// What the host says.
    pub fn is_sealed(&self, id: &str) -> Result<bool, CloudError> {
        let files = LayerFiles::open(&self.stem(id), LayerAccess::Inspect);
        match files.and_then(|files| files.info()) {
            Ok(info) => Ok(info.sealed),
            Err(error @ LayerError::Host { .. }) => Err(error.into()),
            Err(_) => Ok(false),
        }
    }

    /// Whether somebody has an open layer to write to it; nobody has one whose files are half made.
    ///
    /// # Errors
    /// What the host says.
    pub fn is_in_use(&self, id: &str) -> Result<bool, CloudError> {
        match LayerFiles::open(&self.stem(id), LayerAccess::Writable) {
            Err(LayerError::Locked { .. }) => Ok(true),
            Err(error @ LayerError::Host { .. }) => Err(error.into()),
            _ => Ok(false),
        }
    }

    /// A disk of layers, the lowest first, to be read only. The caller has a hold since before it looked at the chain.
    ///
    /// # Errors
    /// What is wrong with their files.
    pub fn open(&self, chain: &[Layer], size: u64) -> Result<Arc<dyn Disk>, CloudError> {
        let disk = Layered::open(self.files(chain)?, size, true, HostCache::Used).map_err(damaged)?;
        Ok(Arc::new(disk))
    }

    /// The files of layers, the lowest first, to be read only. The caller has a hold since before it looked at the chain.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn files(&self, chain: &[Layer]) -> Result<Vec<LayerFiles>, CloudError> {
        let open = |layer: &Layer| layered::open_sealed(&self.stem(&layer.id));
        chain.iter().map(open).collect::<Result<_, _>>().map_err(damaged)
    }

    /// Waits for a turn at writing to an open layer that nobody has open for long.
    ///
    /// # Errors
    /// What the host says; also where the layer's files are gone.
    pub fn turn(&self, id: &str) -> Result<Turn, CloudError> {
        let path = layered::map_path(&self.stem(id));
        let file = File::open(&path).map_err(CloudError::host(&path, "cannot open it"))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|e| CloudError::host(&path, "cannot lock it")(e.into()))?;
        Ok(Turn { _file: file })
    }

    /// Opens a layer, of `size` bytes, to write whole units to it in one's turn; what lies below it is not seen.
    ///
    /// # Errors
    /// What is wrong with its files.
    pub fn open_alone(&self, _turn: &Turn, id: &str, size: u64) -> Result<Layered, CloudError> {
        let files = when_free(|| LayerFiles::open(&self.stem(id), LayerAccess::Writable)).map_err(damaged)?;
        Layered::open(vec![files], size, false, HostCache::Used).map_err(damaged)
    }

    /// Seals a layer in one's turn; one that is sealed stays so.
    ///
    /// # Errors
    /// What the host says.
    pub fn seal_alone(&self, _turn: &Turn, id: &str) -> Result<(), CloudError> {
        when_free(|| layered::seal(&self.stem(id))).map(|_| ()).map_err(damaged)
    }

    /// Puts layers together in a new one, which is sealed and durable.
    ///
    /// # Errors
    /// What is wrong with their files, or what the host says.
    pub fn merge(&self, chain: &[Layer], into: &str) -> Result<(), CloudError> {
        // They were about to be sealed, perhaps, when whoever did it was killed.
        chain.iter().try_for_each(|layer| self.seal(&layer.id))?;
        let merged = layered::merge(&self.stems(chain), &self.stem(into), &mut |_, _| ControlFlow::Continue(()));
        merged.map(|_| ()).map_err(damaged)
    }

    /// Removes the files of a layer, what is there of them.
    ///
    /// # Errors
    /// What the host says.
    pub fn remove(&self, id: &str) -> Result<(), CloudError> {
        layered::remove(&self.stem(id)).map_err(damaged)
    }

    /// Looks through the files of a layer for damage.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self, id: &str) -> Result<(), CloudError> {
        layered::check(&self.stem(id)).map(|_| ()).map_err(damaged)
    }

    /// A hold for whoever opens layers by their names.
    ///
    /// # Errors
    /// What the host says.
    pub fn hold_shared(&self) -> Result<Hold, CloudError> {
        self.hold(FlockOperation::LockShared)
    }

    /// A hold for whoever takes layers' names away.
    ///
    /// # Errors
    /// What the host says.
    pub fn hold_exclusive(&self) -> Result<Hold, CloudError> {
        self.hold(FlockOperation::LockExclusive)
    }

    fn hold(&self, how: FlockOperation) -> Result<Hold, CloudError> {
        let path = self.home.root().join("layers.lock");
        let failed = CloudError::host(&path, "cannot lock the store");
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = match file {
            Ok(file) => file,
            Err(cause) => return Err(failed(cause)),
        };
        flock(&file, how).map_err(|e| failed(e.into()))?;
        Ok(Hold { _file: file })
    }
}

/// Tries what only the one in whose turn it is tries. Whoever had the last turn has closed the layer, but a process that was
/// started meanwhile has all that was open until it is another program.
fn when_free<T>(mut attempt: impl FnMut() -> Result<T, LayerError>) -> Result<T, LayerError> {
    for _ in 0..LOOKS {
        match attempt() {
            Err(LayerError::Locked { .. }) => std::thread::sleep(LOOK_AGAIN),
            other => return other,
        }
    }
    attempt()
}

fn damaged(error: layered::LayerError) -> CloudError {
    CloudError::Layer(error)
}
