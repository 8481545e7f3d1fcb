//! Copies of images, within a region and into another.
//!
//! A copy has snapshots of its own, which refer to the same layers: it takes no room and no time, and nothing done to the
//! original, nor its deregistration, is seen in it.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, Transaction, params};

use super::new::NewImage;
use super::{Image, access, new};
use crate::cloud::error::CloudError;
use crate::cloud::mapping::{BlockDevice, Ebs, Target};
use crate::cloud::scope::Scope;
use crate::cloud::tag::{self, Tags};
use crate::cloud::token::Token;
use crate::cloud::{Cloud, Id, snapshot, zone};

/// What to copy ("CopyImage"). The copy is made in the region of the scope.
#[derive(Clone, Debug, Default)]
pub struct CopyRequest {
    /// The image.
    pub source_image_id: String,
    /// Where it is; the scope's region where not said.
    pub source_region: Option<String>,
    /// The copy's name.
    pub name: String,
    /// What is to be said of the copy.
    pub description: Option<String>,
    /// Whether the copy gets the image's tags, if the caller owns it.
    pub copy_image_tags: bool,
    /// More tags of the copy.
    pub tags: Tags,
    /// Tags of the copies of its snapshots.
    pub snapshot_tags: Tags,
    /// Another request with this token and the same content makes nothing more.
    pub client_token: Option<String>,
}

impl Cloud {
    /// Copies an image that the caller may launch. The copy and its snapshots are the caller's; launch permissions are not
    /// copied, and tags where that is asked for.
    ///
    /// # Errors
    /// Of the original what [`Cloud::launchable_image`] says; `InvalidAMIName.Malformed`, `.Duplicate`;
    /// `InvalidParameterValue` for a region that there is not; `InvalidRequest` for another's image with product codes;
    /// `IdempotentParameterMismatch`.
    pub fn copy_image(&mut self, request: &CopyRequest) -> Result<Image, CloudError> {
        let scope = self.scope.clone();
        let token = Token::new("CopyImage", request.client_token.as_deref(), request)?;
        self.catalogue.write(|tx| {
            if let Some(before) = token.made_one(tx, &scope)? {
                return access::own(tx, &scope, &before);
            }
            let id = copy(tx, &scope, request)?;
            token.keep(tx, &scope, &[&id], None)?;
            access::own(tx, &scope, id.as_str())
        })
    }
}

fn copy(tx: &Transaction<'_>, scope: &Scope, request: &CopyRequest) -> Result<Id, CloudError> {
    let region = request.source_region.as_ref().filter(|region| !region.is_empty()).unwrap_or(&scope.region);
    zone::check_region(tx, region)?;
    let from = Scope { region: region.clone(), account: scope.account.clone() };
    let original = access::may_use(tx, &from, &request.source_image_id)?;
    let is_own = original.owner_id == scope.account.as_str();
    if !is_own && !original.product_codes.is_empty() {
        return Err(CloudError::Parameter {
            code: "InvalidRequest",
            message:
                "Image cannot be copied to another account: it has product codes; launch an instance of it instead"
                    .into(),
        });
    }
    // Looked at first: what is wrong with the request is told before anything is made.
    new::check_name(&request.name)?;
    new::check_name_is_free(tx, scope, &request.name)?;
    let mut tags = if request.copy_image_tags { original.tags.clone() } else { Tags::new() };
    tags.extend(request.tags.clone());
    let copy = NewImage {
        description: request.description.clone().unwrap_or_default(),
        image_type: original.image_type,
        boot_mode: original.boot_mode,
        platform: original.platform,
        root_device_name: original.root_device_name.clone(),
        kernel: part_for(tx, scope, &from, original.kernel_id.as_ref())?,
        ramdisk: part_for(tx, scope, &from, original.ramdisk_id.as_ref())?,
        template: original.template.clone(),
        // Of an instance-store image, its manifest; else it says owner and name, which are others.
        location: original.template.is_some().then(|| original.image_location.clone()),
        ena_support: original.ena_support,
        imds_support: original.imds_support.clone(),
        login_user: original.login_user.clone(),
        source_image: Some(original.image_id.clone()),
        source_region: Some(region.clone()),
        product_codes: original.product_codes.clone(),
        tags,
        ..NewImage::new(&request.name, original.architecture, original.virtualization_type, original.root_device_type)
    };
    let id = copy.insert(tx, scope, None)?;
    let mapping = copy_mapping(tx, scope, &original, &id, &request.snapshot_tags)?;
    new::set_mapping(tx, &id, &mapping)?;
    Ok(id)
}

/// The original's mapping with copies of its snapshots, one of each.
fn copy_mapping(
    tx: &Transaction<'_>,
    scope: &Scope,
    original: &Image,
    id: &Id,
    tags: &Tags,
) -> Result<Vec<BlockDevice>, CloudError> {
    let mut copies = BTreeMap::new();
    for source in original.snapshots() {
        let part = snapshot::any(tx, source)?;
        let description =
            format!("Copied for DestinationAmi {id} from SourceAmi {} for SourceSnapshot {source}.", original.image_id);
        let copy = snapshot::copy(tx, scope, &part, &description)?;
        tag::add(tx, &copy, tags)?;
        copies.insert(source.to_owned(), copy);
    }
    let copied = |ebs: &Ebs| -> Ebs {
        let snapshot = ebs.snapshot_id.as_ref().and_then(|snapshot| copies.get(snapshot));
        Ebs { snapshot_id: snapshot.map(ToString::to_string), ..ebs.clone() }
    };
    let entries = original.block_device_mappings.iter().map(|entry| {
        let target = match &entry.target {
            Target::Ebs(ebs) => Target::Ebs(copied(ebs)),
            other => other.clone(),
        };
        BlockDevice { device_name: entry.device_name.clone(), target }
    });
    Ok(entries.collect())
}

/// The kernel or ramdisk that does for `source` in the region of `scope`: the same, one made of the same layers, or a copy.
fn part_for(tx: &Transaction<'_>, scope: &Scope, from: &Scope, source: Option<&Id>) -> Result<Option<Id>, CloudError> {
    let Some(source) = source else { return Ok(None) };
    if scope.region == from.region {
        return Ok(Some(source.clone()));
    }
    let original = access::may_use(tx, from, source.as_str())?;
    let same = "SELECT id FROM images WHERE region = ?1 AND template = ?2 AND image_type = ?3 AND state = 'available'
         AND (owner = ?4 OR is_public) ORDER BY owner <> ?4, created LIMIT 1";
    let values = params![scope.region, original.template, original.image_type, scope.account.as_str()];
    if let Some(found) = tx.query_row(same, values, |row| row.get(0)).optional()? {
        return Ok(Some(found));
    }
    let is_free = new::check_name_is_free(tx, scope, &original.name).is_ok();
    let copy = NewImage {
        description: original.description.clone(),
        image_type: original.image_type,
        template: original.template.clone(),
        location: Some(original.image_location.clone()),
        source_image: Some(original.image_id.clone()),
        source_region: Some(from.region.clone()),
        product_codes: original.product_codes.clone(),
        ..NewImage::new(
            if is_free { original.name.clone() } else { original.image_id.to_string() },
            original.architecture,
            original.virtualization_type,
            original.root_device_type,
        )
    };
    copy.insert(tx, scope, None).map(Some)
}

impl Cloud {
    /// Gives an image of the caller's tags; a key that it has gets the new value.
    ///
    /// # Errors
    /// What [`Cloud::image`] says, `UnauthorizedOperation`, `InvalidParameterValue`, `TagLimitExceeded`.
    pub fn tag_image(&mut self, id: &str, add: &Tags, remove: &[String]) -> Result<Image, CloudError> {
        let scope = self.scope.clone();
        self.catalogue.write(|tx| {
            let image = access::own(tx, &scope, id)?;
            remove.iter().try_for_each(|key| tag::remove(tx, &image.image_id, key, None))?;
            tag::add(tx, &image.image_id, add)?;
            access::own(tx, &scope, id)
        })
    }
}
