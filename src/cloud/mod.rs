//! EC2's domain on this host: images, snapshots, volumes and instances, their states and rules, kept in a catalogue.
//!
//! [`Cloud`] is the way in: a person's (or an API's) catalogue in one region and for one account. It speaks of EC2's things by
//! EC2's words, and its errors carry EC2's codes ([`CloudError::code`]); it prints nothing. Whatever it acknowledges was
//! committed, and whatever a killed process left half done is undone by the next [`Cloud::open`].

pub mod access_key;
mod bundle;
pub mod catalogue;
pub mod error;
pub mod filter;
pub mod home;
pub mod id;
pub mod image;
mod image_from_instance;
mod import;
mod instance;
pub mod instance_type;
pub mod key_pair;
mod layer;
mod lookup;
pub mod mapping;
pub mod metadata;
pub mod network;
mod operation;
pub mod parameter;
pub mod scope;
mod snapshot;
mod store;
mod sweep;
pub mod tag;
mod tagging;
mod task;
#[cfg(test)]
mod testing;
pub mod time;
mod token;
mod volume;
mod words;
pub mod zone;

use rusqlite::Transaction;

pub use crate::monitor::protocol::FileSystems;
pub use bundle::{BundleKeys, is_manifest};
use catalogue::Catalogue;
pub use error::CloudError;
use home::Home;
pub use id::{Id, Kind};
pub use image_from_instance::CreateImageRequest;
pub use import::ImportRequest;
pub use instance::{
    Backend, Instance, InstanceChange, Launched, MachineOptions, RunRequest, StateChange, StateReason, StopRequest,
};
pub use metadata::MetadataChange;
use operation::Operation;
pub use scope::{Account, Scope};
pub use snapshot::blocks::{BLOCK, BlockPage, ChangedBlock};
pub use snapshot::take::Taken;
pub use snapshot::written::StartRequest;
pub use snapshot::{Snapshot, SnapshotQuery, VolumePermissions};
use store::Store;
pub use tagging::TagDescription;
pub use task::{ExportRequest, ExportTo, RestoreRequest, Task, TaskKind, TaskState, local_path};
pub use volume::{Attachment, Volume, VolumeChange, VolumeModification, VolumeRequest};

/// Is told what was written down of long work, as soon as that is committed: whoever is to be answered at once is answered
/// with it, while the work goes on.
pub type Begun<'a, T> = dyn FnMut(&T) + 'a;

/// A catalogue, as one account sees it in one region.
pub struct Cloud {
    home: Home,
    catalogue: Catalogue,
    scope: Scope,
    backend: Backend,
}

impl Cloud {
    /// Opens the catalogue in `home`, and undoes what dead processes left half done.
    ///
    /// # Errors
    /// `InvalidParameterValue` for a region that there is not; what the catalogue or the host says.
    pub fn open(home: Home, scope: Scope) -> Result<Self, CloudError> {
        home.check()?;
        home.keep_reserve()?;
        let mut cloud =
            Self { catalogue: Catalogue::open(&home.catalogue())?, home, scope, backend: Backend::Machines };
        let region = cloud.scope.region.clone();
        cloud.catalogue.read(|tx| zone::check_region(tx, &region))?;
        cloud.sweep()?;
        Ok(cloud)
    }

    /// The same, whose launches are on another back end. What was launched before stays on what it was launched on.
    #[must_use]
    pub fn with_backend(self, backend: Backend) -> Self {
        Self { backend, ..self }
    }

    /// Does what [`Cloud::open`] does beside opening, for one that is open for long: undoes what dead processes left half done,
    /// brings instances to the truth, gives up what was abandoned.
    ///
    /// # Errors
    /// What the catalogue or the host says.
    pub fn refresh(&mut self) -> Result<(), CloudError> {
        self.home.keep_reserve()?;
        self.sweep()
    }

    /// A number that the catalogue has until somebody else commits something: it is never the same before and after. What is
    /// committed by way of this `Cloud` itself does not change it.
    ///
    /// # Errors
    /// What the catalogue says.
    pub fn others_version(&self) -> Result<i64, CloudError> {
        Ok(self.catalogue.connection().query_row("PRAGMA data_version", [], |row| row.get(0))?)
    }

    /// Who asks, and where.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Where things are kept.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Looks through the catalogue and the files of all layers for damage; gives a line for each that is found.
    ///
    /// # Errors
    /// What the catalogue says where it cannot even be read.
    pub fn check(&mut self) -> Result<Vec<String>, CloudError> {
        let mut found: Vec<String> = self.catalogue.check().err().iter().map(ToString::to_string).collect();
        let layers = self.catalogue.read(|tx| layer::whole(tx))?;
        for id in layers {
            let Err(error) = self.store().check(&id) else { continue };
            // One that was deleted meanwhile is not damaged.
            if self.catalogue.read(|tx| layer::whole(tx))?.contains(&id) {
                found.push(error.to_string());
            }
        }
        Ok(found)
    }

    /// Where layers are kept.
    fn store(&self) -> Store<'_> {
        Store::new(&self.home)
    }

    /// Does long work: `first` checks and writes down what is about to be made, in one transaction; `work` makes it, and
    /// finishes the operation in its last. Where it fails, what its rows say is undone at once.
    fn operation<P, T>(
        &mut self,
        what: &str,
        first: impl FnOnce(&Transaction<'_>, &Operation) -> Result<P, CloudError>,
        work: impl FnOnce(&mut Self, &Operation, P) -> Result<T, CloudError>,
    ) -> Result<T, CloudError> {
        let operation = Operation::begin(&self.home)?;
        let done = self
            .catalogue
            .write(|tx| {
                operation.record(tx, what)?;
                first(tx, &operation)
            })
            .and_then(|plan| work(self, &operation, plan));
        drop(operation);
        if done.is_err() {
            // What it says is not what is to be told.
            let _ = self.sweep();
        }
        done
    }
}
