//! Who may see an image, change it, and launch it.

use rusqlite::Connection;

use super::{Image, ImageState, ImageType, row};
use crate::cloud::error::CloudError;
use crate::cloud::scope::Scope;
use crate::cloud::{Cloud, Id, Kind};

/// The condition that the account `?1` may see an image that is in the catalogue: everybody sees what everybody may launch.
pub(super) const VISIBLE: &str =
    "state <> 'deregistered' AND (owner = ?1 OR state = 'available' AND (is_public OR EXISTS
    (SELECT 1 FROM launch_permissions WHERE image = images.id AND account = ?1)))";

/// An image's id; the prefix says what it is of.
///
/// # Errors
/// `InvalidAMIID.Malformed`.
pub(super) fn parse_id(text: &str) -> Result<Id, CloudError> {
    let kinds = [Kind::KernelImage, Kind::RamdiskImage];
    let kind = kinds.into_iter().find(|kind| text.starts_with(kind.prefix())).unwrap_or(Kind::Image);
    Id::parse(kind, text)
}

/// Whether the caller may launch an image as far as its owner is concerned.
pub(super) fn is_permitted(db: &Connection, scope: &Scope, image: &Image) -> Result<bool, CloudError> {
    if image.is_public || image.owner_id == scope.account.as_str() {
        return Ok(true);
    }
    let query = "SELECT EXISTS (SELECT 1 FROM launch_permissions WHERE image = ?1 AND account = ?2)";
    let mut query = db.prepare_cached(query)?;
    Ok(query.query_row((&image.image_id, scope.account.as_str()), |row| row.get(0))?)
}

/// An image that the caller may see.
///
/// # Errors
/// `InvalidAMIID.Malformed`, `.NotFound`; `.Unavailable` for one that it could see while it was registered.
pub(in crate::cloud) fn visible(db: &Connection, scope: &Scope, id: &str) -> Result<Image, CloudError> {
    let id = parse_id(id)?;
    let hidden = || CloudError::NotFound { kind: Kind::Image, id: id.to_string() };
    let image = row::get(db, scope, &id)?.ok_or_else(hidden)?;
    let is_own = image.owner_id == scope.account.as_str();
    match image.state {
        _ if !is_permitted(db, scope, &image)? => Err(hidden()),
        ImageState::Deregistered => Err(unavailable(&image)),
        ImageState::Available => Ok(image),
        _ if is_own => Ok(image),
        _ => Err(hidden()),
    }
}

/// An image of the caller's own, which it wants to change.
///
/// # Errors
/// As [`visible`], and `UnauthorizedOperation`.
pub(super) fn own(db: &Connection, scope: &Scope, id: &str) -> Result<Image, CloudError> {
    let image = visible(db, scope, id)?;
    if image.owner_id == scope.account.as_str() {
        return Ok(image);
    }
    Err(CloudError::NotOwner(format!("image {}: it is account {}'s", image.image_id, image.owner_id)))
}

/// An image of the caller's own that is whole, and that no operation works on.
///
/// # Errors
/// As [`own`], and `IncorrectState`.
pub(super) fn own_whole(db: &Connection, scope: &Scope, id: &str) -> Result<Image, CloudError> {
    let image = own(db, scope, id)?;
    if matches!(image.state, ImageState::Available | ImageState::Disabled) {
        return Ok(image);
    }
    Err(wrong_state(&image, "available"))
}

/// An image that the caller may launch.
///
/// # Errors
/// `InvalidAMIID.Malformed`, `.NotFound`; `AuthFailure` without launch permission; `InvalidAMIID.Unavailable` in any state but
/// `available`; `OptInRequired` without a subscription to a product that it is part of; `InvalidParameterValue` for a kernel
/// or ramdisk. The first three also for the kernel and ramdisk that it names.
pub(in crate::cloud) fn may_launch(db: &Connection, scope: &Scope, id: &str) -> Result<Image, CloudError> {
    let image = may_use(db, scope, id)?;
    if image.image_type != ImageType::Machine {
        let message =
            format!("{} is a {}: instances are launched from machine images", image.image_id, image.image_type);
        return Err(CloudError::value(message));
    }
    for part in [&image.kernel_id, &image.ramdisk_id].into_iter().flatten() {
        may_use(db, scope, part.as_str())?;
    }
    Ok(image)
}

/// An image of any type that the caller may make something of.
///
/// # Errors
/// As [`may_launch`].
pub(in crate::cloud) fn may_use(db: &Connection, scope: &Scope, id: &str) -> Result<Image, CloudError> {
    let id = parse_id(id)?;
    let Some(image) = row::get(db, scope, &id)? else {
        return Err(CloudError::NotFound { kind: Kind::Image, id: id.to_string() });
    };
    if !is_permitted(db, scope, &image)? {
        return Err(CloudError::NotAuthorizedForImage { id });
    }
    if image.state != ImageState::Available {
        return Err(unavailable(&image));
    }
    check_subscriptions(db, scope, &image)?;
    Ok(image)
}

/// Refuses who has not subscribed to all that an image is part of. Who sells a product needs no subscription.
fn check_subscriptions(db: &Connection, scope: &Scope, image: &Image) -> Result<(), CloudError> {
    let mut query = db.prepare_cached(
        "SELECT product_codes.code, seller FROM product_codes JOIN products ON products.code = product_codes.code
         WHERE image = ?1 AND seller <> ?2 AND NOT EXISTS
             (SELECT 1 FROM subscriptions WHERE account = ?2 AND subscriptions.code = product_codes.code)",
    )?;
    let mut missing = query.query((&image.image_id, scope.account.as_str()))?;
    match missing.next()? {
        None => Ok(()),
        Some(row) => Err(CloudError::OptInRequired { product_code: row.get(0)?, owner: row.get(1)? }),
    }
}

/// Any image, whoever asks and whatever became of it.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(in crate::cloud) fn any(db: &Connection, scope: &Scope, id: &Id) -> Result<Option<Image>, CloudError> {
    row::get(db, scope, id)
}

/// `InvalidAMIID.Unavailable`.
pub(super) fn unavailable(image: &Image) -> CloudError {
    let why = match image.state {
        ImageState::Deregistered => "it was deregistered".to_owned(),
        state => format!("it is {state}"),
    };
    CloudError::ImageUnavailable { id: image.image_id.clone(), why }
}

/// `IncorrectState`.
pub(super) fn wrong_state(image: &Image, needed: &str) -> CloudError {
    let why = format!("it is {}, and has to be {needed} for that", image.state);
    CloudError::State { what: image.image_id.to_string(), why }
}

impl Cloud {
    /// An image that the caller may see.
    ///
    /// # Errors
    /// `InvalidAMIID.Malformed`, `.NotFound`; `.Unavailable` for one that it could see while it was registered.
    pub fn image(&mut self, id: &str) -> Result<Image, CloudError> {
        let scope = self.scope.clone();
        self.catalogue.read(|tx| visible(tx, &scope, id))
    }

    /// An image that the caller may launch an instance from.
    ///
    /// # Errors
    /// `InvalidAMIID.Malformed`, `.NotFound`, `.Unavailable`; `AuthFailure` without launch permission; `OptInRequired` without
    /// a subscription to a product that it is part of.
    pub fn launchable_image(&mut self, id: &str) -> Result<Image, CloudError> {
        let scope = self.scope.clone();
        self.catalogue.read(|tx| may_launch(tx, &scope, id))
    }
}
