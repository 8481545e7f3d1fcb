//! What killed processes left half done is undone, and what nobody needs any more goes.

use rusqlite::Transaction;

use super::error::CloudError;
use super::home::Home;
use super::id::Id;
use super::instance::Undone;
use super::operation::Operation;
use super::store::Store;
use super::{Cloud, instance, layer, operation, snapshot, tag, task, volume};

impl Cloud {
    /// Undoes operations whose process is gone, brings instances to the truth, and removes the files of layers that nobody
    /// needs.
    ///
    /// # Errors
    /// What the catalogue or the host says.
    pub(super) fn sweep(&mut self) -> Result<(), CloudError> {
        let home = self.home.clone();
        let under_way = self.catalogue.read(|tx| operation::dead(&home, tx))?;
        let mut to_restart = Vec::new();
        if !under_way.is_empty() {
            to_restart = self.catalogue.write(|tx| {
                let mut to_restart = Vec::new();
                // Looked at once more under the lock: another may have undone them.
                for (id, what) in operation::dead(&home, tx)? {
                    for instance in undo(tx, &home, &id, &what)? {
                        // Claimed at once, so that nobody takes it for one that has stopped.
                        let operation = Operation::begin(&home)?;
                        operation.record(tx, "restart-instance")?;
                        instance::claim(tx, &instance, &operation)?;
                        to_restart.push((instance, operation));
                    }
                }
                layer::mark_dead(tx)?;
                Ok(to_restart)
            })?;
        }
        if self.catalogue.read(|tx| snapshot::written::is_abandoned(tx))? {
            self.catalogue.write(snapshot::written::give_up)?;
        }
        self.catalogue.read(|tx| operation::remove_leftovers(&home, tx))?;
        self.remove_dead_layers()?;
        self.restart(to_restart)?;
        self.settle()
    }

    /// Starts machines again that were ended for something which was then cut off; each is an operation's, which was written
    /// down when that was undone.
    fn restart(&mut self, all: Vec<(Id, Operation)>) -> Result<(), CloudError> {
        let mut has_failed = false;
        for (id, operation) in all {
            let started = match self.runs(&id) {
                Ok(true) => Ok(()),
                Ok(false) => self.start_machine(&id, &operation),
                Err(error) => Err(error),
            };
            match started {
                Ok(()) => self.catalogue.write(|tx| {
                    instance::release(tx, &operation)?;
                    operation.finish(tx)
                })?,
                Err(error @ CloudError::Catalogue(_)) => return Err(error),
                // The instance says itself why it does not run; that is no matter of whoever looks here.
                Err(_) => has_failed = true,
            }
        }
        // What is undone now starts nothing again.
        if has_failed { self.sweep() } else { Ok(()) }
    }

    /// Frees what deletions have left: files of layers that nobody needs, and what only a layer above hides.
    ///
    /// # Errors
    /// What the catalogue or the host says.
    pub(super) fn tidy(&mut self) -> Result<(), CloudError> {
        self.remove_dead_layers()?;
        self.merge_layers()
    }

    /// Removes the files of dead layers, then their rows.
    pub(super) fn remove_dead_layers(&mut self) -> Result<(), CloudError> {
        let dead = self.catalogue.read(|tx| layer::dead(tx))?;
        for id in &dead {
            self.store().remove(id)?;
        }
        if !dead.is_empty() {
            self.catalogue.write(|tx| dead.iter().try_for_each(|id| layer::forget(tx, id)))?;
        }
        Ok(())
    }
}

impl Cloud {
    /// Puts layers together of which only the upper one is needed, so that what it hides takes no room. Where that cannot be
    /// done now, the next deletion tries again.
    ///
    /// # Errors
    /// What the catalogue or the host says.
    fn merge_layers(&mut self) -> Result<(), CloudError> {
        while let Some((lower, upper)) = self.catalogue.read(|tx| layer::mergeable(tx))? {
            let new = layer::new_id(&self.home)?;
            let pair = [lower, upper];
            let merged = self.operation(
                "merge-layers",
                |tx, operation| layer::begin_merge(tx, &pair, &new, operation),
                |cloud, operation, is_possible| {
                    if is_possible {
                        cloud.store().merge(&pair, &new)?;
                    }
                    // Nobody is about to open the two by their names.
                    let _hold = cloud.store().hold_exclusive()?;
                    cloud.catalogue.write(|tx| {
                        if is_possible {
                            layer::replace(tx, &pair[0].id, &pair[1].id, &new)?;
                        }
                        operation.finish(tx)
                    })?;
                    cloud.remove_dead_layers()
                },
            );
            match merged {
                // One of them is damaged, or there is no room for the new one: they go on as they are.
                Err(CloudError::Layer(_)) => return Ok(()),
                other => other?,
            }
        }
        Ok(())
    }
}

/// Takes back what an operation wrote down; gives the instances whose machines it had ended for a while.
fn undo(tx: &Transaction<'_>, home: &Home, operation: &str, what: &str) -> Result<Vec<Id>, CloudError> {
    let store = Store::new(home);
    if !snapshot::take::settle(tx, &store, operation)? || !instance::settle_attachments(tx, home, operation)? {
        return Ok(Vec::new());
    }
    let ids = |query: &str| -> Result<Vec<Id>, CloudError> {
        let mut query = tx.prepare(query)?;
        let found = query.query_map([operation], |row| row.get(0))?;
        Ok(found.collect::<Result<_, _>>()?)
    };
    // Before anything is written: that may need the room.
    let mut half_made = tx.prepare("SELECT id FROM layers WHERE operation = ?1 AND state = 'making'")?;
    let half_made = half_made.query_map([operation], |row| row.get::<_, String>(0))?;
    half_made.collect::<Result<Vec<_>, _>>()?.iter().try_for_each(|id| store.remove(id))?;
    volume::settle_modifications(tx, operation)?;
    task::settle(tx, operation)?;
    for volume in ids("SELECT id FROM volumes WHERE operation = ?1 AND state = 'creating'")? {
        volume::delete(tx, &volume)?;
    }
    for resource in ids("SELECT id FROM images WHERE operation = ?1 AND state = 'pending'
         UNION SELECT id FROM snapshots WHERE operation = ?1 AND state = 'pending'")?
    {
        tag::remove_all(tx, &resource)?;
    }
    for change in [
        "DELETE FROM images WHERE operation = ?1 AND state = 'pending'",
        "DELETE FROM snapshots WHERE operation = ?1 AND state = 'pending'",
        "DELETE FROM tokens WHERE operation = ?1",
        "UPDATE images SET operation = NULL WHERE operation = ?1",
        "UPDATE snapshots SET operation = NULL WHERE operation = ?1",
        "UPDATE volumes SET operation = NULL WHERE operation = ?1",
        "UPDATE layers SET operation = NULL WHERE operation = ?1",
    ] {
        tx.execute(change, [operation])?;
    }
    let (mut to_restart, mut is_done) = (Vec::new(), true);
    for id in ids("SELECT id FROM instances WHERE operation = ?1")? {
        let instance = instance::any(tx, id.as_str())?;
        match instance::undo(tx, home, &instance, what)? {
            Undone::Done => {}
            Undone::ToRestart => to_restart.push(id.clone()),
            Undone::Later => {
                is_done = false;
                continue;
            }
        }
        tx.execute("UPDATE instances SET operation = NULL WHERE id = ?1", [&id])?;
    }
    if is_done {
        tx.execute("DELETE FROM operations WHERE id = ?1", [operation])?;
    }
    Ok(to_restart)
}
