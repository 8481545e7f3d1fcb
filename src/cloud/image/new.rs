//! Images that come into being: by registration, copy, import, or from an instance.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{Architecture, BootMode, ImageState, ImageType, Platform, ProductCode, RootDeviceType, VirtualizationType};
use crate::cloud::error::CloudError;
use crate::cloud::mapping::BlockDevice;
use crate::cloud::operation::Operation;
use crate::cloud::scope::Scope;
use crate::cloud::tag::{self, Tags};
use crate::cloud::{Id, time};

/// Characters of a name, least and most.
const NAME_LENGTH: std::ops::RangeInclusive<usize> = 3..=128;
/// What a name may have beside letters, digits and spaces.
const NAME_SIGNS: &str = "()[]./-'@_";
/// Most characters of a description.
const MAX_DESCRIPTION: usize = 255;

/// An image that is about to be.
#[derive(Clone, Debug)]
pub(in crate::cloud) struct NewImage {
    pub name: String,
    pub description: String,
    pub image_type: ImageType,
    pub architecture: Architecture,
    pub virtualization_type: VirtualizationType,
    pub boot_mode: Option<BootMode>,
    pub platform: Option<Platform>,
    pub root_device_type: RootDeviceType,
    pub root_device_name: Option<String>,
    pub mapping: Vec<BlockDevice>,
    pub kernel: Option<Id>,
    pub ramdisk: Option<Id>,
    /// The top layer of an instance-store image's root, or of a kernel or ramdisk.
    pub template: Option<String>,
    /// The manifest of an instance-store image.
    pub location: Option<String>,
    pub ena_support: bool,
    pub imds_support: Option<String>,
    /// Who logs in to its instances.
    pub login_user: Option<String>,
    pub source_instance: Option<Id>,
    pub source_image: Option<Id>,
    pub source_region: Option<String>,
    pub product_codes: Vec<ProductCode>,
    pub tags: Tags,
}

impl NewImage {
    /// One with what all have to say; the rest is as EC2 has it where nothing is said.
    pub fn new(
        name: impl Into<String>,
        architecture: Architecture,
        virtualization_type: VirtualizationType,
        root_device_type: RootDeviceType,
    ) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            image_type: ImageType::Machine,
            architecture,
            virtualization_type,
            boot_mode: None,
            platform: None,
            root_device_type,
            root_device_name: None,
            mapping: Vec::new(),
            kernel: None,
            ramdisk: None,
            template: None,
            location: None,
            ena_support: false,
            imds_support: None,
            login_user: None,
            source_instance: None,
            source_image: None,
            source_region: None,
            product_codes: Vec::new(),
            tags: Tags::new(),
        }
    }

    /// Writes the image down as the caller's: `pending` in an operation, else `available`.
    ///
    /// # Errors
    /// `InvalidAMIName.Malformed`, `InvalidAMIName.Duplicate`; `InvalidParameterValue` for a description or tags that are none.
    pub fn insert(&self, tx: &Transaction<'_>, scope: &Scope, operation: Option<&Operation>) -> Result<Id, CloudError> {
        check_name(&self.name)?;
        check_description(&self.description)?;
        check_name_is_free(tx, scope, &self.name)?;
        let id = Id::new(self.image_type.kind()).map_err(CloudError::host("/dev/urandom", "cannot make an id"))?;
        let state = if operation.is_some() { ImageState::Pending } else { ImageState::Available };
        let location = self.location.clone().unwrap_or_else(|| format!("{}/{}", scope.account, self.name));
        tx.execute(
            "INSERT INTO images (id, region, owner, name, description, image_type, state, architecture,
                 virtualization_type, boot_mode, platform, platform_details, root_device_type, root_device_name, kernel,
                 ramdisk, template, location, mapping, created, source_instance, source_image, source_region,
                 ena_support, imds_support, operation, login_user)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
                 ?22, ?23, ?24, ?25, ?26, ?27)",
            params![
                id,
                scope.region,
                scope.account.as_str(),
                self.name,
                self.description,
                self.image_type,
                state,
                self.architecture,
                self.virtualization_type,
                self.boot_mode,
                self.platform,
                Platform::details(self.platform),
                self.root_device_type,
                self.root_device_name,
                self.kernel,
                self.ramdisk,
                self.template,
                location,
                mapping_text(&self.mapping)?,
                time::now(),
                self.source_instance,
                self.source_image,
                self.source_region,
                self.ena_support,
                self.imds_support,
                operation.map(Operation::id),
                self.login_user,
            ],
        )?;
        for code in &self.product_codes {
            let insert = "INSERT INTO product_codes (image, code, kind) VALUES (?1, ?2, ?3)";
            tx.execute(insert, params![id, code.product_code_id, code.product_code_type])?;
        }
        tag::add(tx, &id, &self.tags)?;
        Ok(id)
    }
}

/// A mapping as the catalogue keeps it.
fn mapping_text(mapping: &[BlockDevice]) -> Result<String, CloudError> {
    serde_json::to_string(mapping).map_err(|error| CloudError::Mapping(format!("it cannot be kept: {error}")))
}

/// Says what an image's devices are made of.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn set_mapping(tx: &Transaction<'_>, id: &Id, mapping: &[BlockDevice]) -> Result<(), CloudError> {
    tx.execute("UPDATE images SET mapping = ?2 WHERE id = ?1", params![id, mapping_text(mapping)?])?;
    Ok(())
}

/// Says that a pending image is whole, and what its volumes are made of.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(in crate::cloud) fn complete(
    tx: &Transaction<'_>,
    id: &Id,
    mapping: &[BlockDevice],
    template: Option<&str>,
) -> Result<(), CloudError> {
    let update = "UPDATE images SET state = ?2, mapping = ?3, template = ?4, operation = NULL
         WHERE id = ?1 AND state = 'pending'";
    tx.execute(update, params![id, ImageState::Available, mapping_text(mapping)?, template])?;
    Ok(())
}

/// Says that a pending image could not be made, and why: EC2's code in front of it, as in `Client.ImportError: ...`. It keeps
/// no name and nothing that it would have been made of.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(in crate::cloud) fn fail(tx: &Transaction<'_>, id: &Id, reason: &str) -> Result<(), CloudError> {
    let update = "UPDATE images SET state = ?2, state_reason = ?3, mapping = '[]', template = NULL, operation = NULL
         WHERE id = ?1 AND state = 'pending'";
    tx.execute(update, params![id, ImageState::Failed, reason])?;
    Ok(())
}

/// Refuses what is no name of an image.
///
/// # Errors
/// `InvalidAMIName.Malformed`.
pub(in crate::cloud) fn check_name(name: &str) -> Result<(), CloudError> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == ' ' || NAME_SIGNS.contains(c);
    if NAME_LENGTH.contains(&name.chars().count()) && name.chars().all(is_of_name) {
        return Ok(());
    }
    Err(CloudError::NameMalformed { name: name.to_owned() })
}

/// Refuses the name of another image of the caller's. An image that was deregistered, or failed, has its name no more.
///
/// # Errors
/// `InvalidAMIName.Duplicate`.
pub(in crate::cloud) fn check_name_is_free(db: &Connection, scope: &Scope, name: &str) -> Result<(), CloudError> {
    let query = "SELECT id FROM images WHERE region = ?1 AND owner = ?2 AND name = ?3
         AND state <> 'deregistered' AND state <> 'failed'";
    let taken = db.query_row(query, [&scope.region, scope.account.as_str(), name], |row| row.get(0)).optional()?;
    match taken {
        None => Ok(()),
        Some(image) => Err(CloudError::NameInUse { name: name.to_owned(), image }),
    }
}

/// Refuses a description that is too long.
///
/// # Errors
/// `InvalidParameterValue`.
pub(super) fn check_description(description: &str) -> Result<(), CloudError> {
    let length = description.chars().count();
    if length <= MAX_DESCRIPTION {
        return Ok(());
    }
    Err(CloudError::value(format!("a description has at most {MAX_DESCRIPTION} characters; this one has {length}")))
}
