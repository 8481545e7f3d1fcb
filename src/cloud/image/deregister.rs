//! Deregistration: an image is no image any more.
//!
//! Instances that were launched from it go on, and so do copies. Its row stays, to say what became of it to those who ask
//! for it by its id.

use rusqlite::{Transaction, params};
use serde::Serialize;

use super::{Image, ImageState, access};
use crate::cloud::error::CloudError;
use crate::cloud::scope::Scope;
use crate::cloud::words::words;
use crate::cloud::{Cloud, Id, layer, snapshot, tag, time};

words! {
    /// What became of a snapshot.
    pub enum DeleteReturnCode as "return code" {
        /// It was deleted.
        Success = "success",
        /// Another image is made of it.
        Skipped = "skipped",
        /// It is another account's.
        MissingPermissions = "missing-permissions",
    }
}

/// What became of a snapshot of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeleteSnapshotResult {
    /// The snapshot.
    pub snapshot_id: String,
    /// What became of it.
    pub return_code: DeleteReturnCode,
}

/// What a deregistration did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Deregistered {
    /// The image.
    pub image_id: Id,
    /// Its snapshots, where they were to be deleted.
    pub delete_snapshot_results: Vec<DeleteSnapshotResult>,
}

impl Cloud {
    /// Deregisters an image of the caller's. Its snapshots stay unless `delete_snapshots` says otherwise, and then go where no
    /// other image is made of them. Instances are not affected.
    ///
    /// # Errors
    /// What [`Cloud::image`] says, `UnauthorizedOperation`; `IncorrectState` while it is being made; `OperationNotPermitted`
    /// where it is protected.
    pub fn deregister_image(&mut self, id: &str, delete_snapshots: bool) -> Result<Deregistered, CloudError> {
        let scope = self.scope.clone();
        let done = self.catalogue.write(|tx| deregister(tx, &scope, id, delete_snapshots))?;
        self.tidy()?;
        Ok(done)
    }
}

/// All of it but the files of layers that nobody needs any more.
pub(super) fn deregister(
    tx: &Transaction<'_>,
    scope: &Scope,
    id: &str,
    delete_snapshots: bool,
) -> Result<Deregistered, CloudError> {
    let image = access::own(tx, scope, id)?;
    if image.state == ImageState::Pending || image.operation.is_some() {
        return Err(access::wrong_state(&image, "available"));
    }
    if image.deregistration_protection != "disabled" {
        return Err(CloudError::ImageProtected { id: image.image_id });
    }
    if let Some(until) = image.protected_until.filter(|until| *until > time::now()) {
        return Err(CloudError::NotPermitted(format!(
            "The image '{}' may not be deregistered before {}: its deregistration protection had a cooldown period.",
            image.image_id,
            time::format(until)
        )));
    }
    // Instances that run on a machine's template have their own layer over it, which keeps it. A kernel is read anew at each
    // start: it stays until none needs it.
    tx.execute(
        "UPDATE images SET state = ?2, deregistered = ?3,
             template = CASE image_type WHEN 'machine' THEN NULL ELSE template END WHERE id = ?1",
        params![image.image_id, ImageState::Deregistered, time::now()],
    )?;
    tag::remove_all(tx, &image.image_id)?;
    let results = if delete_snapshots { delete_all(tx, scope, &image)? } else { Vec::new() };
    layer::mark_dead(tx)?;
    Ok(Deregistered { image_id: image.image_id, delete_snapshot_results: results })
}

fn delete_all(tx: &Transaction<'_>, scope: &Scope, image: &Image) -> Result<Vec<DeleteSnapshotResult>, CloudError> {
    let mut results = Vec::new();
    for id in image.snapshots() {
        let snapshot = snapshot::any(tx, id)?;
        let return_code = if snapshot.owner_id != scope.account.as_str() {
            DeleteReturnCode::MissingPermissions
        } else {
            match snapshot::delete(tx, &snapshot) {
                Err(CloudError::SnapshotInUse { .. }) => DeleteReturnCode::Skipped,
                other => other.map(|()| DeleteReturnCode::Success)?,
            }
        };
        results.push(DeleteSnapshotResult { snapshot_id: id.to_owned(), return_code });
    }
    Ok(results)
}
