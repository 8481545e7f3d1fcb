//! Layers that nobody uses: sealed, looked at, removed.

use std::io;
use std::path::Path;

use super::files::{data_path, map_path, sync_directory};
use super::top::Top;
use super::{LayerAccess, LayerError, LayerFiles, LayerInfo};
use crate::disk::HostCache;

/// Seals the layer at `stem`, durably. One that is sealed already stays as it is.
///
/// # Errors
/// What is wrong with it, [`LayerError::Locked`] while it is in use, or what the host said; it is then open as before.
pub fn seal(stem: &Path) -> Result<LayerInfo, LayerError> {
    match LayerFiles::open(stem, LayerAccess::Writable) {
        Ok(files) => seal_files(files, stem)?,
        Err(LayerError::Sealed { .. }) => {}
        Err(error) => return Err(error),
    }
    LayerFiles::open(stem, LayerAccess::Inspect)?.info()
}

/// Opens a layer that never changes again. One that is open and that nobody writes to is sealed first: it was about to be,
/// when whoever did it was killed.
///
/// # Errors
/// What is wrong with it, [`LayerError::Locked`] where somebody writes to it, or what the host said.
pub fn open_sealed(stem: &Path) -> Result<LayerFiles, LayerError> {
    match LayerFiles::open(stem, LayerAccess::Sealed) {
        Err(LayerError::NotSealed { .. }) => {
            seal(stem)?;
            LayerFiles::open(stem, LayerAccess::Sealed)
        }
        opened => opened,
    }
}

fn seal_files(files: LayerFiles, stem: &Path) -> Result<(), LayerError> {
    Top::open(files, HostCache::Used)?.seal().map_err(LayerError::host(stem, "cannot seal the layer"))
}

/// Looks whether the layer at `stem` is whole: that both files are there, of the right length, and that header and bitmap
/// are as they were written. (An open layer's bitmap has no checksum. The data have none in either.) Takes no lock: of a
/// layer that is written to meanwhile, what is seen may not fit together.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check(stem: &Path) -> Result<LayerInfo, LayerError> {
    LayerFiles::open(stem, LayerAccess::Inspect)?.check()
}

/// Removes the files of the layer at `stem`, durably; what is there of them. Who has them open goes on using them.
///
/// # Errors
/// What the host said.
pub fn remove(stem: &Path) -> Result<(), LayerError> {
    // The map first: data without one are of no layer.
    for path in [map_path(stem), data_path(stem)] {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LayerError::host(&path, "cannot remove it")(error));
            }
            _ => {}
        }
    }
    sync_directory(stem)
}
