//! What an owner changes of an image: whether it can be launched, until when others find it, what is said of it.

use rusqlite::{Transaction, params};

use super::row::set_state;
use super::{Image, ImageState, access, new, permission};
use crate::cloud::error::CloudError;
use crate::cloud::{Cloud, time};

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;
/// As far from now as a deprecation date can be: ten years.
const FARTHEST: i64 = 10 * 366 * 24 * 60 * MINUTE;

impl Cloud {
    /// Allows no launches of an image of the caller's. Nobody else sees it from then on: its launch permissions are taken
    /// away, and do not come back when it is enabled.
    ///
    /// # Errors
    /// What [`Cloud::image`] says, `UnauthorizedOperation`; `IncorrectState` for one that is not whole.
    pub fn disable_image(&mut self, id: &str) -> Result<Image, CloudError> {
        self.change_image(id, |tx, image| {
            permission::remove_all(tx, &image.image_id)?;
            set_state(tx, &image.image_id, ImageState::Disabled)
        })
    }

    /// Allows launches again.
    ///
    /// # Errors
    /// As [`Cloud::disable_image`].
    pub fn enable_image(&mut self, id: &str) -> Result<Image, CloudError> {
        self.change_image(id, |tx, image| set_state(tx, &image.image_id, ImageState::Available))
    }

    /// Hides an image of the caller's from others' listings from an instant on (milliseconds since 1970-01-01 UTC, rounded to
    /// the minute); whoever may launch it still can. Nothing: it is not hidden.
    ///
    /// # Errors
    /// As [`Cloud::disable_image`]; `InvalidParameterValue` for an instant that has passed, or is more than ten years away.
    pub fn deprecate_image(&mut self, id: &str, at: Option<i64>) -> Result<Image, CloudError> {
        let at = at.map(|at| at.saturating_add(MINUTE / 2).div_euclid(MINUTE).saturating_mul(MINUTE));
        let now = time::now();
        if let Some(wrong) = at.filter(|at| !(now..=now.saturating_add(FARTHEST)).contains(at)) {
            let message = format!(
                "Invalid value '{}' for deprecateAt: it has to be in the future, and no more than ten years away",
                time::format(wrong)
            );
            return Err(CloudError::value(message));
        }
        self.change_image(id, |tx, image| {
            tx.execute("UPDATE images SET deprecated = ?2 WHERE id = ?1", params![image.image_id, at])?;
            Ok(())
        })
    }

    /// Protects an image of the caller's from deregistration, or no longer.
    ///
    /// # Errors
    /// As [`Cloud::disable_image`].
    pub fn protect_image(&mut self, id: &str, on: bool) -> Result<Image, CloudError> {
        self.set_protection(id, i64::from(on))
    }

    /// Protects an image of the caller's from deregistration, so that it is protected for another day after that was taken
    /// away.
    ///
    /// # Errors
    /// As [`Cloud::disable_image`].
    pub fn protect_image_with_cooldown(&mut self, id: &str) -> Result<Image, CloudError> {
        self.set_protection(id, 2)
    }

    fn set_protection(&mut self, id: &str, protection: i64) -> Result<Image, CloudError> {
        self.change_image(id, |tx, image| {
            // The day begins when the protection is taken away, and no other request ends it.
            tx.execute(
                "UPDATE images SET deregistration_protection = ?2, protected_until =
                     CASE WHEN deregistration_protection = 2 AND ?2 <> 2 THEN ?3 ELSE protected_until END WHERE id = ?1",
                params![image.image_id, protection, time::now().saturating_add(DAY)],
            )?;
            Ok(())
        })
    }

    /// Says something else of an image of the caller's.
    ///
    /// # Errors
    /// As [`Cloud::disable_image`]; `InvalidParameterValue` for a description that is too long.
    pub fn describe_image(&mut self, id: &str, description: &str) -> Result<Image, CloudError> {
        new::check_description(description)?;
        self.change_image(id, |tx, image| {
            tx.execute("UPDATE images SET description = ?2 WHERE id = ?1", params![image.image_id, description])?;
            Ok(())
        })
    }

    /// Changes an image of the caller's that is whole, and says how it is then.
    pub(super) fn change_image(
        &mut self,
        id: &str,
        change: impl FnOnce(&Transaction<'_>, &Image) -> Result<(), CloudError>,
    ) -> Result<Image, CloudError> {
        let scope = self.scope.clone();
        self.catalogue.write(|tx| {
            let image = access::own_whole(tx, &scope, id)?;
            change(tx, &image)?;
            access::own(tx, &scope, id)
        })
    }
}
