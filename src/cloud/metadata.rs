//! What instances are told of themselves, and how: the content of their metadata services.

use rusqlite::{Connection, OptionalExtension, params};

use base64ct::{Base64, Encoding};

use super::error::CloudError;
use super::instance::{self, Instance};
use super::network::NetworkInterface;
use super::{Cloud, Id, time};
use crate::imds::{BlockDevice, Document, Interface, Options, Placement, PublicKey, SecurityGroup, Tag, identity};

/// Hops that an answer with a token may make.
const HOPS: std::ops::RangeInclusive<u8> = 1..=64;

/// What of a metadata service's options is to be so; the rest stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetadataChange {
    /// Whether it answers at all.
    pub endpoint: Option<bool>,
    /// Whether every request needs a token.
    pub tokens_required: Option<bool>,
    /// How many hops the answer with a token may make, 1 to 64.
    pub hop_limit: Option<u8>,
    /// Whether it answers at its IPv6 address too.
    pub ipv6: Option<bool>,
    /// Whether it tells the instance's tags.
    pub tags: Option<bool>,
}

impl MetadataChange {
    /// Whether nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The options with the change.
    ///
    /// # Errors
    /// `InvalidParameterValue`.
    pub fn applied_to(&self, options: Options) -> Result<Options, CloudError> {
        let hop_limit = self.hop_limit.unwrap_or(options.hop_limit);
        if !HOPS.contains(&hop_limit) {
            return Err(CloudError::value(format!(
                "Value ({hop_limit}) for parameter HttpPutResponseHopLimit is invalid: 1 to 64"
            )));
        }
        Ok(Options {
            endpoint: self.endpoint.unwrap_or(options.endpoint),
            tokens_required: self.tokens_required.unwrap_or(options.tokens_required),
            hop_limit,
            ipv6: self.ipv6.unwrap_or(options.ipv6),
            tags: self.tags.unwrap_or(options.tags),
        })
    }
}

/// The options of an instance of an image, where the launch says nothing.
#[must_use]
pub(super) fn defaults(imds_support: Option<&str>) -> Options {
    match imds_support {
        Some("v2.0") => Options { tokens_required: true, hop_limit: 2, ..Options::default() },
        _ => Options::default(),
    }
}

/// Refuses tags whose keys are no names of the metadata tree.
///
/// # Errors
/// `InvalidParameterValue`.
pub(super) fn check_tags(options: &Options, tags: &super::tag::Tags) -> Result<(), CloudError> {
    let is_name = |key: &str| {
        !matches!(key, "." | ".." | "_index")
            && key.chars().all(|c| c.is_ascii_alphanumeric() || "+-=._:@,".contains(c))
    };
    match tags.keys().find(|key| options.tags && !is_name(key)) {
        Some(key) => Err(CloudError::value(format!(
            "'{key}' is not a valid tag key. Tag keys must match pattern ([0-9a-zA-Z\\-_+=,.@:]{{1,255}}), and must not be a \
             reserved name ('.', '..', '_index'), where instance metadata has tags"
        ))),
        None => Ok(()),
    }
}

impl Cloud {
    /// Changes how the metadata service of an instance answers, at once if it runs.
    ///
    /// # Errors
    /// `InvalidInstanceID.NotFound`, `IncorrectInstanceState`, `InvalidParameterValue`; what its process says.
    pub fn modify_metadata_options(&mut self, id: &str, change: &MetadataChange) -> Result<Instance, CloudError> {
        let scope = self.scope.clone();
        let changed = self.catalogue.write(|tx| {
            let instance = instance::own(tx, &scope, id)?;
            if matches!(instance.state.as_str(), instance::state::TERMINATED | instance::state::SHUTTING_DOWN) {
                let (id, state, verb) = (instance.instance_id, instance.state, "modified");
                return Err(CloudError::InstanceState { id, state, verb });
            }
            let options = change.applied_to(instance.metadata_options)?;
            check_tags(&options, &instance.tags)?;
            let text = serde_json::to_string(&options).map_err(|e| CloudError::Damaged(e.to_string()))?;
            let update = "UPDATE instances SET metadata_options = ?2 WHERE id = ?1";
            tx.execute(update, params![instance.instance_id, text])?;
            instance::own(tx, &scope, instance.instance_id.as_str())
        })?;
        self.tell_metadata(&changed.instance_id)?;
        Ok(changed)
    }

    /// Tells a running instance's process what its guest is to be told of itself from now on.
    ///
    /// # Errors
    /// What the process says; nothing where none runs, since one that is started is told at its start, and nothing of a machine
    /// without a card.
    pub(super) fn tell_metadata(&mut self, id: &Id) -> Result<(), CloudError> {
        let instance = self.catalogue.read(|tx| instance::any(tx, id.as_str()))?;
        match self.network_config(&instance)?.and_then(|network| network.metadata) {
            Some(document) => self.ask_for_metadata(id, document),
            None => Ok(()),
        }
    }

    /// What an instance is told of itself; nothing for one without a network interface.
    pub(super) fn document(&self, id: &Id) -> Result<Option<Document>, CloudError> {
        let db = self.catalogue.connection();
        let instance = instance::any(db, id.as_str())?;
        let Some(interface) = instance.network_interface.clone() else { return Ok(None) };
        let mut document = assemble(db, &instance, &interface)?;
        let failed = |e: &dyn std::fmt::Display| CloudError::Damaged(format!("the identity document: {e}"));
        let signer = identity::load_or_create(self.home.root()).map_err(|e| failed(&e))?;
        document.identity = Some(signer.sign(&document).map_err(|e| failed(&e))?);
        Ok(Some(document))
    }

    /// The certificate of the key that signs identity documents, in PEM; they are made when they are first needed.
    ///
    /// # Errors
    /// What the host says.
    pub fn identity_certificate(&self) -> Result<String, CloudError> {
        let signer = identity::load_or_create(self.home.root());
        let signer = signer.map_err(|e| CloudError::Damaged(format!("the identity certificate: {e}")))?;
        Ok(signer.certificate().to_owned())
    }
}

fn assemble(db: &Connection, instance: &Instance, interface: &NetworkInterface) -> Result<Document, CloudError> {
    let id = &instance.instance_id;
    let (region, zone_id): (String, Option<String>) = db.query_row(
        "SELECT instances.region, zone_id FROM instances LEFT JOIN zones ON zones.name = zone WHERE id = ?1",
        [id],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let (public_key, user_data): (Option<String>, Option<Vec<u8>>) =
        db.query_row("SELECT public_key, user_data FROM instances WHERE id = ?1", [id], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let key = instance.key_name.clone().zip(public_key);
    let tags = instance.tags.iter().map(|(key, value)| Tag { key: key.clone(), value: value.clone() });
    let launched = time::parse(&instance.launch_time).unwrap_or_default() / 1000 * 1000;
    Ok(Document {
        instance_id: id.to_string(),
        image_id: instance.image_id.clone(),
        launch_index: instance.ami_launch_index,
        instance_type: instance.instance_type.clone(),
        reservation_id: instance.reservation_id.to_string(),
        account_id: instance.owner_id.clone(),
        architecture: instance.architecture.clone(),
        launched: time::format(launched).replace(".000Z", "Z"),
        kernel_id: instance.kernel_id.clone(),
        ramdisk_id: instance.ramdisk_id.clone(),
        ancestor_ami_ids: ancestors(db, &instance.image_id)?,
        product_codes: product_codes(db, &instance.image_id)?,
        placement: Placement {
            region: region.clone(),
            availability_zone: instance.availability_zone.clone(),
            availability_zone_id: zone_id.unwrap_or_default(),
        },
        interface: Interface {
            id: interface.network_interface_id.to_string(),
            mac: interface.mac_address.to_string(),
            private_ipv4: interface.private_ip_address,
            public_ipv4: None,
            subnet_id: interface.subnet_id.to_string(),
            subnet_cidr: interface.subnet_cidr.to_string(),
            vpc_id: interface.vpc_id.to_string(),
            vpc_cidr: interface.vpc_cidr.to_string(),
            security_groups: interface
                .groups
                .iter()
                .map(|group| SecurityGroup { id: group.group_id.to_string(), name: group.group_name.clone() })
                .collect(),
        },
        block_devices: block_devices(db, instance)?,
        public_keys: key.into_iter().map(|(name, openssh)| PublicKey { name, openssh }).collect(),
        user_data: user_data.filter(|data| !data.is_empty()).map(|data| Base64::encode_string(&data)),
        tags: instance.metadata_options.tags.then(|| tags.collect()),
        identity: None,
        options: instance.metadata_options,
    })
}

/// The volumes that the instance was launched with, under EC2's names.
fn block_devices(db: &Connection, instance: &Instance) -> Result<Vec<BlockDevice>, CloudError> {
    let root = &instance.root_device_name;
    let device = |name: &str, device: &str| BlockDevice { name: name.into(), device: device.into() };
    let mut devices = vec![device("ami", root), device("root", root)];
    let mut others: Vec<&str> =
        instance.block_device_mappings.iter().map(|at| at.device.as_str()).filter(|device| device != root).collect();
    others.sort_unstable();
    let short = |name: &str| name.trim_start_matches("/dev/").to_owned();
    devices.extend((1..).zip(others).map(|(number, name)| device(&format!("ebs{number}"), &short(name))));
    let mut query = db.prepare_cached(
        "SELECT ephemeral, device FROM instance_store WHERE instance = ?1 AND ephemeral IS NOT NULL ORDER BY ephemeral",
    )?;
    let own = query.query_map([&instance.instance_id], |row| Ok((row.get::<_, u8>(0)?, row.get::<_, String>(1)?)))?;
    for found in own {
        let (number, name) = found?;
        devices.push(device(&format!("ephemeral{number}"), &short(&name)));
    }
    Ok(devices)
}

fn product_codes(db: &Connection, image: &str) -> Result<Vec<String>, CloudError> {
    let mut query = db.prepare_cached("SELECT code FROM product_codes WHERE image = ?1 ORDER BY code")?;
    let codes = query.query_map([image], |row| row.get(0))?;
    Ok(codes.collect::<Result<_, _>>()?)
}

/// Images that an image comes from: of the instance that it was made of, the image, and so on.
fn ancestors(db: &Connection, image: &str) -> Result<Vec<String>, CloudError> {
    /// Nobody reads more, and what is in the catalogue need not end.
    const MOST: usize = 16;
    let mut query = db.prepare_cached(
        "SELECT instances.image FROM images JOIN instances ON instances.id = source_instance WHERE images.id = ?1",
    )?;
    let mut found = Vec::new();
    let mut image = image.to_owned();
    while found.len() < MOST {
        let Some(parent) = query.query_row([&image], |row| row.get::<_, String>(0)).optional()? else { break };
        found.push(parent.clone());
        image = parent;
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
