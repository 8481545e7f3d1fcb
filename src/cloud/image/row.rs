//! Images as rows of the catalogue.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, ToSql};

use super::{Image, ImageState, Platform, ProductCode, StateReason};
use crate::cloud::error::CloudError;
use crate::cloud::scope::{Account, Scope};
use crate::cloud::tag::Tags;
use crate::cloud::{Id, time};

/// What [`read`] reads.
pub(super) const COLUMNS: &str = "id, image_type, location, name, description, state, state_reason, owner,
    (SELECT min(alias) FROM owner_aliases WHERE account = images.owner), is_public, architecture, virtualization_type,
    boot_mode, platform, platform_details, root_device_type, root_device_name, mapping, kernel, ramdisk, ena_support,
    imds_support, created, deprecated, deregistration_protection, source_instance, source_image, source_region, template,
    operation, login_user, protected_until";

/// More images than these are looked up all at once.
const FEW: usize = 32;

/// An image without what other tables say of it.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Image> {
    let platform: Option<Platform> = row.get(13)?;
    let mapping = row.get_ref(17)?.as_str()?;
    let mapping = serde_json::from_str(mapping)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(17, Type::Text, Box::new(error)))?;
    Ok(Image {
        image_id: row.get(0)?,
        image_type: row.get(1)?,
        image_location: row.get(2)?,
        name: row.get(3)?,
        description: row.get(4)?,
        state: row.get(5)?,
        state_reason: row.get::<_, Option<String>>(6)?.map(StateReason::of),
        owner_id: row.get(7)?,
        image_owner_alias: row.get(8)?,
        is_public: row.get(9)?,
        architecture: row.get(10)?,
        virtualization_type: row.get(11)?,
        hypervisor: "xen",
        boot_mode: row.get(12)?,
        platform,
        platform_details: row.get(14)?,
        usage_operation: if platform == Some(Platform::Windows) { "RunInstances:0002" } else { "RunInstances" },
        root_device_type: row.get(15)?,
        root_device_name: row.get(16)?,
        block_device_mappings: mapping,
        kernel_id: row.get(18)?,
        ramdisk_id: row.get(19)?,
        ena_support: row.get(20)?,
        imds_support: row.get(21)?,
        creation_date: time::format(row.get(22)?),
        deprecation_time: row.get::<_, Option<i64>>(23)?.map(time::format),
        deregistration_protection: match row.get(24)? {
            0 => "disabled",
            2 => "enabled-with-cooldown",
            _ => "enabled-without-cooldown",
        },
        protected_until: row.get(31)?,
        source_instance_id: row.get(25)?,
        source_image_id: row.get(26)?,
        source_image_region: row.get(27)?,
        template: row.get(28)?,
        operation: row.get(29)?,
        login_user: row.get(30)?,
        product_codes: Vec::new(),
        tags: Tags::new(),
        shared_with: 0,
    })
}

/// The image of the scope's region with this id, whoever may see it and whatever became of it.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn get(db: &Connection, scope: &Scope, id: &Id) -> Result<Option<Image>, CloudError> {
    let query = format!("SELECT {COLUMNS} FROM images WHERE id = ?1 AND region = ?2");
    let found = db.prepare_cached(&query)?.query_row((id, &scope.region), read).optional()?;
    found.map(|image| one_whole(db, &scope.account, image)).transpose()
}

/// The images that are `condition`, in the order of their making.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn select(
    db: &Connection,
    account: &Account,
    condition: &str,
    values: &[&dyn ToSql],
) -> Result<Vec<Image>, CloudError> {
    let mut query = db.prepare(&format!("SELECT {COLUMNS} FROM images WHERE {condition} ORDER BY created, id"))?;
    let mut images: Vec<Image> = query.query_map(values, read)?.collect::<Result<_, _>>()?;
    make_whole(db, account, &mut images)?;
    Ok(images)
}

fn one_whole(db: &Connection, account: &Account, image: Image) -> Result<Image, CloudError> {
    let mut images = [image];
    make_whole(db, account, &mut images)?;
    let [image] = images;
    Ok(image)
}

/// Adds what other tables say of images, as `account` may know it.
fn make_whole(db: &Connection, account: &Account, images: &mut [Image]) -> Result<(), CloudError> {
    if images.len() > FEW {
        // All of their ids are between these two.
        return add_between(db, account, images, "a", "b");
    }
    for image in images {
        let id = image.image_id.to_string();
        add_between(db, account, std::slice::from_mut(image), &id, &id)?;
    }
    Ok(())
}

fn add_between(
    db: &Connection,
    account: &Account,
    images: &mut [Image],
    from: &str,
    to: &str,
) -> Result<(), CloudError> {
    // The other tables are in the order of the ids, too, so that one walk along both finds what belongs together.
    let mut in_order: Vec<&mut Image> = images.iter_mut().collect();
    in_order.sort_unstable_by(|a, b| a.image_id.cmp(&b.image_id));
    let mut of_each = |query: &str, add: &mut dyn FnMut(&mut Image, &Row<'_>) -> rusqlite::Result<()>| {
        let mut query = db.prepare_cached(query)?;
        let mut rows = query.query([from, to])?;
        let mut rest = in_order.iter_mut().peekable();
        while let Some(row) = rows.next()? {
            let id = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            while rest.next_if(|image| image.image_id.as_str() < id).is_some() {}
            match rest.peek_mut() {
                Some(image) if image.image_id.as_str() == id => add(image, row)?,
                Some(_) => {}
                None => break,
            }
        }
        Ok::<_, CloudError>(())
    };
    of_each(
        "SELECT resource, key, value FROM tags WHERE resource BETWEEN ?1 AND ?2 ORDER BY resource",
        &mut |image, row| {
            if image.owner_id == account.as_str() {
                image.tags.insert(row.get(1)?, row.get(2)?);
            }
            Ok(())
        },
    )?;
    of_each(
        "SELECT image, code, kind FROM product_codes WHERE image BETWEEN ?1 AND ?2 ORDER BY image, code",
        &mut |image, row| {
            image.product_codes.push(ProductCode { product_code_id: row.get(1)?, product_code_type: row.get(2)? });
            Ok(())
        },
    )?;
    of_each("SELECT image FROM launch_permissions WHERE image BETWEEN ?1 AND ?2 ORDER BY image", &mut |image, _| {
        image.shared_with += usize::from(image.owner_id == account.as_str());
        Ok(())
    })
}

/// Puts an image into another state.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn set_state(db: &Connection, id: &Id, state: ImageState) -> Result<(), CloudError> {
    db.execute("UPDATE images SET state = ?2 WHERE id = ?1", (id, state))?;
    Ok(())
}
