//! Images: what instances are launched from, who may, and how they are found.

mod access;
mod attributes;
mod copy;
mod deregister;
mod filters;
mod kinds;
mod new;
mod permission;
mod product;
mod query;
mod register;
mod resolve;
mod row;
#[cfg(test)]
mod tests;

use serde::{Serialize, Serializer};

pub(super) use access::{any, may_launch, may_use, visible};
pub use copy::CopyRequest;
pub use deregister::{DeleteReturnCode, DeleteSnapshotResult, Deregistered};
pub use kinds::{
    Architecture, BootMode, ImageState, ImageType, Platform, ProductCodeType, RootDeviceType, VirtualizationType,
};
pub(super) use new::{NewImage, complete, fail};
pub use permission::{LaunchPermission, LaunchPermissions};
pub(super) use query::owners;
pub use query::{ImagePage, ImageQuery};
pub use register::RegisterRequest;
pub(super) use register::{check_boot_mode, check_mapping, find_kernel};
pub(super) use resolve::resolve;

use super::id::Id;
use super::mapping::{BlockDevice, Ebs, Target};
use super::tag::Tags;

/// An image, as EC2 describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Image {
    /// `ami-...`, `aki-...` or `ari-...`
    pub image_id: Id,
    /// What it is of.
    pub image_type: ImageType,
    /// Its owner and name, or the manifest of an instance-store image.
    pub image_location: String,
    /// Its name, which no other registered image of its owner has in the region.
    pub name: String,
    /// What its owner says of it.
    pub description: String,
    /// Where it is in its life.
    pub state: ImageState,
    /// Why it is there, where that needs saying.
    pub state_reason: Option<StateReason>,
    /// Who owns it.
    pub owner_id: String,
    /// What its owner is known as, such as `amazon`.
    pub image_owner_alias: Option<String>,
    /// Whether everybody may launch it.
    pub is_public: bool,
    /// The processor that it is for.
    pub architecture: Architecture,
    /// How its guests are started.
    pub virtualization_type: VirtualizationType,
    /// What EC2 says of all images.
    pub hypervisor: &'static str,
    /// The firmware, where the image says so.
    pub boot_mode: Option<BootMode>,
    /// The system, where it is Windows.
    pub platform: Option<Platform>,
    /// The system, as bills call it.
    pub platform_details: String,
    /// What a bill would call a launch.
    pub usage_operation: &'static str,
    /// What its instances' root is.
    pub root_device_type: RootDeviceType,
    /// The device of the root.
    pub root_device_name: Option<String>,
    /// What its instances' devices are made of.
    #[serde(serialize_with = "as_ec2")]
    pub block_device_mappings: Vec<BlockDevice>,
    /// The kernel of a PV image, where it is not in the image itself.
    pub kernel_id: Option<Id>,
    /// The ramdisk that goes with that kernel.
    pub ramdisk_id: Option<Id>,
    /// Kept.
    pub ena_support: bool,
    /// `v2.0` where its instances' metadata wants tokens.
    pub imds_support: Option<String>,
    /// When it was made.
    pub creation_date: String,
    /// When it is hidden from others.
    pub deprecation_time: Option<String>,
    /// Whether it cannot be deregistered: `enabled-without-cooldown`, `enabled-with-cooldown` or `disabled`.
    pub deregistration_protection: &'static str,
    /// Until when it cannot be deregistered although its protection was taken away, in milliseconds since 1970-01-01 UTC.
    #[serde(skip)]
    pub(super) protected_until: Option<i64>,
    /// The instance that it was made from.
    pub source_instance_id: Option<String>,
    /// The image that it is a copy of.
    pub source_image_id: Option<String>,
    /// Where that is.
    pub source_image_region: Option<String>,
    /// Products that one has to subscribe to.
    pub product_codes: Vec<ProductCode>,
    /// Its owner's tags, which others do not see.
    pub tags: Tags,
    /// The user whom its instances make for logging in, where its disk says that.
    pub login_user: Option<String>,
    /// How many accounts may launch it by name; others than its owner see 0.
    #[serde(skip)]
    pub shared_with: usize,
    /// What an instance-store image's root, or a kernel, is made of: its top layer.
    #[serde(skip)]
    pub(super) template: Option<String>,
    /// The operation that works on it.
    #[serde(skip)]
    pub(super) operation: Option<String>,
}

impl Image {
    /// The GiB of its root volume, where it has one.
    #[must_use]
    pub fn root_size(&self) -> Option<u64> {
        let root = self.root_device_name.as_ref()?;
        let entry = self.block_device_mappings.iter().find(|entry| entry.device_name == *root)?;
        entry.ebs()?.volume_size
    }

    /// The snapshot that its root volume is made of, where it is.
    #[must_use]
    pub fn root_snapshot(&self) -> Option<&str> {
        let root = self.root_device_name.as_ref()?;
        let entry = self.block_device_mappings.iter().find(|entry| entry.device_name == *root)?;
        entry.ebs()?.snapshot_id.as_deref()
    }

    /// Snapshots that its volumes are made of, each once.
    #[must_use]
    pub fn snapshots(&self) -> Vec<&str> {
        let mut found = Vec::new();
        for id in self.block_device_mappings.iter().filter_map(|entry| entry.ebs()?.snapshot_id.as_deref()) {
            if !found.contains(&id) {
                found.push(id);
            }
        }
        found
    }
}

/// Why an image is in its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StateReason {
    /// As in `Client.ImportError`.
    pub code: String,
    /// The code and what it means here.
    pub message: String,
}

impl StateReason {
    /// The reason that a text with its code in front tells.
    fn of(message: String) -> Self {
        let code = message.split_once(':').map_or("Server.InternalError", |(code, _)| code).to_owned();
        Self { code, message }
    }
}

/// A product that an image is part of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ProductCode {
    /// The code.
    pub product_code_id: String,
    /// Whose codes it is one of.
    pub product_code_type: ProductCodeType,
}

/// A mapping as EC2's answers have it.
fn as_ec2<S: Serializer>(mapping: &[BlockDevice], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Entry<'a> {
        device_name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        ebs: Option<&'a Ebs>,
        #[serde(skip_serializing_if = "Option::is_none")]
        virtual_name: Option<String>,
    }
    serializer.collect_seq(mapping.iter().map(|entry| Entry {
        device_name: &entry.device_name,
        ebs: entry.ebs(),
        virtual_name: match entry.target {
            Target::Ephemeral(number) => Some(format!("ephemeral{number}")),
            _ => None,
        },
    }))
}
