//! What killed processes left half done is undone, and what nobody needs any more goes.

use rusqlite::Transaction;

use super::error::CloudError;
use super::home::Home;
use super::{Cloud, layer, operation};

impl Cloud {
    /// Undoes operations whose process is gone, and removes the files of layers that nobody needs.
    ///
    /// # Errors
    /// What the catalogue or the host says.
    pub(super) fn sweep(&mut self) -> Result<(), CloudError> {
        let home = self.home.clone();
        let under_way = self.catalogue.read(|tx| operation::dead(&home, tx))?;
        if !under_way.is_empty() {
            self.catalogue.write(|tx| {
                // Looked at once more under the lock: another may have undone them.
                for (id, _) in operation::dead(&home, tx)? {
                    undo(tx, &id)?;
                }
                layer::mark_dead(tx)
            })?;
        }
        self.catalogue.read(|tx| operation::remove_leftovers(&home, tx))?;
        self.remove_dead_layers()
    }

    /// Removes the files of dead layers, then their rows.
    pub(super) fn remove_dead_layers(&mut self) -> Result<(), CloudError> {
        let dead = self.catalogue.read(|tx| layer::dead(tx))?;
        for id in &dead {
            let stem = self.home.layer(id);
            for ending in ["data", "map"] {
                Home::remove_file(&stem.with_extension(ending))?;
            }
        }
        if !dead.is_empty() {
            self.catalogue.write(|tx| dead.iter().try_for_each(|id| layer::forget(tx, id)))?;
        }
        Ok(())
    }
}

/// Takes back what an operation wrote down.
fn undo(tx: &Transaction<'_>, operation: &str) -> Result<(), CloudError> {
    for change in [
        "DELETE FROM tags WHERE resource IN (SELECT id FROM images WHERE operation = ?1 AND state = 'pending'
             UNION SELECT id FROM snapshots WHERE operation = ?1 AND state = 'pending'
             UNION SELECT id FROM volumes WHERE operation = ?1 AND state = 'creating')",
        "DELETE FROM images WHERE operation = ?1 AND state = 'pending'",
        "DELETE FROM snapshots WHERE operation = ?1 AND state = 'pending'",
        "DELETE FROM volumes WHERE operation = ?1 AND state = 'creating'",
        "UPDATE images SET operation = NULL WHERE operation = ?1",
        "UPDATE snapshots SET operation = NULL WHERE operation = ?1",
        "UPDATE volumes SET operation = NULL WHERE operation = ?1",
        "UPDATE instances SET operation = NULL WHERE operation = ?1",
        "UPDATE layers SET operation = NULL WHERE operation = ?1",
        "DELETE FROM operations WHERE id = ?1",
    ] {
        tx.execute(change, [operation])?;
    }
    Ok(())
}
