//! Attributes of instances that are read and changed one at a time.

use rusqlite::params;

use super::own;
use crate::cloud::Cloud;
use crate::cloud::error::CloudError;

impl Cloud {
    /// The user data of an instance of the caller's, if it has any.
    ///
    /// # Errors
    /// `InvalidInstanceID.NotFound`.
    pub fn user_data(&mut self, id: &str) -> Result<Option<Vec<u8>>, CloudError> {
        let scope = self.scope.clone();
        self.catalogue.read(|tx| {
            let instance = own(tx, &scope, id)?;
            let select = "SELECT user_data FROM instances WHERE id = ?1";
            let data: Option<Vec<u8>> = tx.query_row(select, [&instance.instance_id], |row| row.get(0))?;
            Ok(data.filter(|data| !data.is_empty()))
        })
    }

    /// Says of volumes at devices of an instance whether they go when it does: all or none.
    ///
    /// # Errors
    /// `InvalidInstanceID.NotFound`, `InvalidInstanceAttributeValue` for a device where there is none.
    pub fn set_delete_on_termination(&mut self, id: &str, devices: &[(String, bool)]) -> Result<(), CloudError> {
        let scope = self.scope.clone();
        self.catalogue.write(|tx| {
            let instance = own(tx, &scope, id)?;
            for (device, delete) in devices {
                let update = "UPDATE attachments SET delete_on_termination = ?3 WHERE instance = ?1 AND device = ?2";
                if tx.execute(update, params![instance.instance_id, device, delete])? == 0 {
                    let code = "InvalidInstanceAttributeValue";
                    let message = format!("No device is currently mapped at {device}");
                    return Err(CloudError::Parameter { code, message });
                }
            }
            Ok(())
        })
    }
}
