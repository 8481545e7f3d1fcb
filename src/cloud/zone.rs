//! Regions and their zones, in a table that a person can add to.

mod query;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::Serialize;

use super::Cloud;
use super::error::CloudError;

/// A zone of a region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Zone {
    /// Its name, as in `us-east-1a`.
    pub zone_name: String,
    /// The region.
    pub region_name: String,
    /// Its id, as in `use1-az1`.
    pub zone_id: String,
    /// `availability-zone`, `local-zone`, `wavelength-zone` or `outpost`.
    pub zone_type: String,
    /// The availability zone that another kind of zone belongs to.
    pub parent_zone_name: Option<String>,
}

/// A region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Region {
    /// Its name, as in `us-east-1`.
    pub region_name: String,
    /// How many zones it has.
    pub zones: u32,
}

/// Kinds of zones.
pub const ZONE_TYPES: [&str; 4] = ["availability-zone", "local-zone", "wavelength-zone", "outpost"];

/// Regions that are there at first, with what their zones' ids begin with.
const REGIONS: [(&str, &str, &str); 17] = [
    ("us-east-1", "use1", "abcdef"),
    ("us-east-2", "use2", "abc"),
    ("us-west-1", "usw1", "ab"),
    ("us-west-2", "usw2", "abcd"),
    ("ca-central-1", "cac1", "abd"),
    ("sa-east-1", "sae1", "abc"),
    ("eu-west-1", "euw1", "abc"),
    ("eu-west-2", "euw2", "abc"),
    ("eu-west-3", "euw3", "abc"),
    ("eu-central-1", "euc1", "abc"),
    ("eu-north-1", "eun1", "abc"),
    ("ap-south-1", "aps1", "abc"),
    ("ap-southeast-1", "apse1", "abc"),
    ("ap-southeast-2", "apse2", "abc"),
    ("ap-northeast-1", "apne1", "acd"),
    ("ap-northeast-2", "apne2", "abcd"),
    ("ap-northeast-3", "apne3", "abc"),
];

/// Zones of the other kinds that are there at first: name, region, id, kind, parent.
const OTHER_ZONES: [(&str, &str, &str, &str, &str); 4] = [
    ("us-east-1-bos-1a", "us-east-1", "use1-bos1-az1", "local-zone", "us-east-1a"),
    ("us-west-2-lax-1a", "us-west-2", "usw2-lax1-az1", "local-zone", "us-west-2a"),
    ("us-east-1-wl1-bos-wlz-1", "us-east-1", "use1-wl1-bos-wlz1", "wavelength-zone", "us-east-1a"),
    ("us-east-1-outpost-1", "us-east-1", "use1-op-local1", "outpost", "us-east-1a"),
];

/// Fills the table of a new catalogue.
pub(super) fn seed(tx: &Transaction<'_>) -> Result<(), CloudError> {
    let mut insert = tx.prepare("INSERT INTO zones VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for (region, id, letters) in REGIONS {
        for (number, letter) in (1..).zip(letters.chars()) {
            let (name, id) = (format!("{region}{letter}"), format!("{id}-az{number}"));
            insert.execute(params![name, region, id, ZONE_TYPES[0], None::<String>])?;
        }
    }
    for (name, region, id, kind, parent) in OTHER_ZONES {
        insert.execute(params![name, region, id, kind, parent])?;
    }
    Ok(())
}

/// All zones, of one region where that is given, in the order of their names.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub fn list(db: &Connection, region: Option<&str>) -> Result<Vec<Zone>, CloudError> {
    let mut query = db.prepare(
        "SELECT name, region, zone_id, zone_type, parent FROM zones WHERE ?1 IS NULL OR region = ?1 ORDER BY region, name",
    )?;
    let zones = query.query_map([region], |row| {
        Ok(Zone {
            zone_name: row.get(0)?,
            region_name: row.get(1)?,
            zone_id: row.get(2)?,
            zone_type: row.get(3)?,
            parent_zone_name: row.get(4)?,
        })
    })?;
    Ok(zones.collect::<Result<_, _>>()?)
}

/// The id of a zone, if there is one of that name.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn id(db: &Connection, name: &str) -> Result<Option<String>, CloudError> {
    let mut query = db.prepare_cached("SELECT zone_id FROM zones WHERE name = ?1")?;
    Ok(query.query_row([name], |row| row.get(0)).optional()?)
}

/// Refuses a region that the table does not have.
///
/// # Errors
/// `InvalidParameterValue`.
pub fn check_region(db: &Connection, region: &str) -> Result<(), CloudError> {
    let known: bool =
        db.query_row("SELECT EXISTS (SELECT 1 FROM zones WHERE region = ?1)", [region], |row| row.get(0))?;
    if known {
        return Ok(());
    }
    Err(CloudError::value(format!(
        "there is no region {region:?}; see those there are: amiboot region ls, or add it: amiboot region add-zone ZONE \
         --region {region}"
    )))
}

/// The zone that is asked for, or else the first availability zone of the region.
///
/// # Errors
/// `InvalidParameterValue` for one that is not in the region.
pub fn choose(db: &Connection, region: &str, asked: Option<&str>) -> Result<String, CloudError> {
    check_region(db, region)?;
    let zones = list(db, Some(region))?;
    let found = match asked {
        Some(name) => zones.iter().find(|zone| zone.zone_name == name),
        None => zones.iter().find(|zone| zone.zone_type == ZONE_TYPES[0]).or(zones.first()),
    };
    found.map(|zone| zone.zone_name.clone()).ok_or_else(|| {
        let name = asked.unwrap_or_default();
        CloudError::value(format!("Invalid availability zone: [{name}]: {region} has none of that name"))
    })
}

/// The availability zone that a zone belongs to: none of its own kind, and for the others the one that is named, or the first.
fn parent(tx: &Transaction<'_>, zone: &Zone) -> Result<Option<String>, CloudError> {
    let name = &zone.zone_name;
    if zone.zone_type == ZONE_TYPES[0] {
        return match &zone.parent_zone_name {
            None => Ok(None),
            Some(parent) => Err(CloudError::combination(format!(
                "zone {name}: an availability zone belongs to no other zone; leave {parent} out"
            ))),
        };
    }
    let zones = list(tx, Some(&zone.region_name))?;
    let mut possible = zones.iter().filter(|other| other.zone_type == ZONE_TYPES[0]);
    let found = match &zone.parent_zone_name {
        Some(parent) => possible.find(|other| other.zone_name == *parent),
        None => possible.next(),
    };
    match (found, &zone.parent_zone_name) {
        (Some(found), _) => Ok(Some(found.zone_name.clone())),
        (None, Some(parent)) => {
            Err(CloudError::value(format!("zone {name}: {} has no availability zone {parent}", zone.region_name)))
        }
        (None, None) => Err(CloudError::value(format!(
            "zone {name}: a {} belongs to an availability zone, and {} has none yet; add that first",
            zone.zone_type, zone.region_name
        ))),
    }
}

/// Adds a zone, and with the first one its region. Zones that are no availability zones belong to the region's first where
/// none is named.
///
/// # Errors
/// `InvalidParameterValue` for names that are none or there already.
pub fn add(tx: &Transaction<'_>, zone: &Zone) -> Result<(), CloudError> {
    let is_name = |text: &str| {
        (3..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if !is_name(&zone.zone_name) || !is_name(&zone.region_name) || !is_name(&zone.zone_id) {
        return Err(CloudError::value("names of regions and zones are 3 to 64 lower case letters, digits and dashes"));
    }
    if !ZONE_TYPES.contains(&zone.zone_type.as_str()) {
        return Err(CloudError::value(format!("{:?} is no kind of zone: {}", zone.zone_type, ZONE_TYPES.join(", "))));
    }
    let taken: bool =
        tx.query_row("SELECT EXISTS (SELECT 1 FROM zones WHERE name = ?1)", [&zone.zone_name], |row| row.get(0))?;
    if taken {
        return Err(CloudError::value(format!("there is a zone {} already", zone.zone_name)));
    }
    let parent = parent(tx, zone)?;
    let values = params![zone.zone_name, zone.region_name, zone.zone_id, zone.zone_type, parent];
    tx.execute("INSERT INTO zones VALUES (?1, ?2, ?3, ?4, ?5)", values)?;
    Ok(())
}

impl Cloud {
    /// All regions, in the order of their names.
    ///
    /// # Errors
    /// [`CloudError::Catalogue`].
    pub fn regions(&mut self) -> Result<Vec<Region>, CloudError> {
        self.catalogue.read(|tx| {
            let mut query = tx.prepare("SELECT region, count(*) FROM zones GROUP BY region ORDER BY region")?;
            let regions = query.query_map([], |row| Ok(Region { region_name: row.get(0)?, zones: row.get(1)? }))?;
            Ok(regions.collect::<Result<_, _>>()?)
        })
    }

    /// All zones, or those of a region.
    ///
    /// # Errors
    /// [`CloudError::Catalogue`].
    pub fn zones(&mut self, region: Option<&str>) -> Result<Vec<Zone>, CloudError> {
        self.catalogue.read(|tx| list(tx, region))
    }

    /// Adds a zone, and with the first one its region; says how it is then.
    ///
    /// # Errors
    /// `InvalidParameterValue` for names that are none or there already; `InvalidParameterCombination` for an availability
    /// zone that is to belong to another.
    pub fn add_zone(&mut self, zone: &Zone) -> Result<Zone, CloudError> {
        self.catalogue.write(|tx| {
            add(tx, zone)?;
            let added = list(tx, Some(&zone.region_name))?.into_iter().find(|other| other.zone_name == zone.zone_name);
            added.ok_or_else(|| CloudError::Damaged(format!("zone {} was not kept", zone.zone_name)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::Scope;
    use crate::cloud::home::Home;

    fn zone(name: &str, region: &str, kind: &str, parent: Option<&str>) -> Zone {
        Zone {
            zone_name: name.into(),
            region_name: region.into(),
            zone_id: format!("id-{name}"),
            zone_type: kind.into(),
            parent_zone_name: parent.map(str::to_owned),
        }
    }

    #[test]
    fn a_person_adds_zones_and_regions() {
        let dir = tempfile::tempdir().unwrap();
        let open = |region: &str| {
            Cloud::open(Home::at(dir.path()).unwrap(), Scope { region: region.into(), ..Scope::default() })
        };
        let mut cloud = open("us-east-1").unwrap();
        let [az, local, ..] = ZONE_TYPES;
        assert_eq!(cloud.regions().unwrap().len(), 17);
        assert_eq!(open("lab-1").err().unwrap().code(), "InvalidParameterValue");
        let mut refused = |zone: Zone, code: &str, words: &str| {
            let error = cloud.add_zone(&zone).unwrap_err();
            assert_eq!(error.code(), code);
            assert!(error.to_string().contains(words), "{error}");
        };
        refused(zone("lab-1-x", "lab-1", local, None), "InvalidParameterValue", "first");
        refused(zone("lab-1a", "lab-1", az, Some("us-east-1a")), "InvalidParameterCombination", "leave");
        refused(zone("us-east-1a", "us-east-1", az, None), "InvalidParameterValue", "already");
        refused(zone("lab-1a", "lab-1", "room", None), "InvalidParameterValue", "local-zone");
        refused(zone("LAB", "lab-1", az, None), "InvalidParameterValue", "lower case");
        refused(zone("us-east-1-x", "us-east-1", local, Some("us-west-1a")), "InvalidParameterValue", "us-west-1a");
        refused(zone("us-east-1-x", "us-east-1", local, Some("us-east-1-bos-1a")), "InvalidParameterValue", "bos");

        let first = zone("lab-1a", "lab-1", az, None);
        assert_eq!(cloud.add_zone(&first).unwrap(), first);
        let added = cloud.add_zone(&zone("lab-1-x", "lab-1", local, None)).unwrap();
        assert_eq!(added.parent_zone_name.as_deref(), Some("lab-1a"));
        assert_eq!(open("lab-1").unwrap().zones(Some("lab-1")).unwrap(), [added, first]);
        assert_eq!(cloud.regions().unwrap().len(), 18);
        assert!(cloud.zones(None).unwrap().len() > 50);
    }
}
