//! What images can be looked for by: EC2's filters of DescribeImages that have a meaning here.

use std::borrow::Cow;

use super::Image;
use crate::cloud::Id;
use crate::cloud::filter::Filtered;
use crate::cloud::filter::values::{optional, truth};
use crate::cloud::mapping::Ebs;
use crate::cloud::tag::Tags;

impl Filtered for Image {
    const FILTERS: &'static [&'static str] = &[
        "architecture",
        "block-device-mapping.delete-on-termination",
        "block-device-mapping.device-name",
        "block-device-mapping.encrypted",
        "block-device-mapping.snapshot-id",
        "block-device-mapping.volume-size",
        "block-device-mapping.volume-type",
        "boot-mode",
        "creation-date",
        "description",
        "ena-support",
        "hypervisor",
        "image-id",
        "image-type",
        "imds-support",
        "is-public",
        "kernel-id",
        "manifest-location",
        "name",
        "owner-alias",
        "owner-id",
        "platform",
        "platform-details",
        "product-code",
        "product-code.type",
        "ramdisk-id",
        "root-device-name",
        "root-device-type",
        "source-image-id",
        "source-image-region",
        "source-instance-id",
        "state",
        "state-reason-code",
        "state-reason-message",
        "usage-operation",
        "virtualization-type",
    ];

    fn values(&self, filter: &str) -> Vec<Cow<'_, str>> {
        let one = |value: &'static str| vec![Cow::from(value)];
        match filter {
            "architecture" => one(self.architecture.as_str()),
            "block-device-mapping.delete-on-termination" => {
                self.of_volumes(|ebs| Some(truth(ebs.delete_on_termination.unwrap_or_default())))
            }
            "block-device-mapping.device-name" => {
                self.block_device_mappings.iter().map(|entry| Cow::from(&entry.device_name)).collect()
            }
            "block-device-mapping.encrypted" => self.of_volumes(|_| Some(truth(false))),
            "block-device-mapping.snapshot-id" => self.of_volumes(|ebs| ebs.snapshot_id.as_deref().map(Cow::from)),
            "block-device-mapping.volume-size" => {
                self.of_volumes(|ebs| ebs.volume_size.map(|size| size.to_string().into()))
            }
            "block-device-mapping.volume-type" => self.of_volumes(|ebs| ebs.volume_type.as_deref().map(Cow::from)),
            "boot-mode" => self.boot_mode.map_or_else(Vec::new, |mode| one(mode.as_str())),
            "creation-date" => vec![Cow::from(&self.creation_date)],
            "description" => vec![Cow::from(&self.description)],
            "ena-support" => vec![truth(self.ena_support)],
            "hypervisor" => one(self.hypervisor),
            "image-id" => vec![Cow::from(self.image_id.as_str())],
            "image-type" => one(self.image_type.as_str()),
            "imds-support" => optional(self.imds_support.as_deref()),
            "is-public" => vec![truth(self.is_public)],
            "kernel-id" => optional(self.kernel_id.as_ref().map(Id::as_str)),
            "manifest-location" => vec![Cow::from(&self.image_location)],
            "name" => vec![Cow::from(&self.name)],
            "owner-alias" => optional(self.image_owner_alias.as_deref()),
            "owner-id" => vec![Cow::from(&self.owner_id)],
            "platform" => self.platform.map_or_else(Vec::new, |platform| one(platform.as_str())),
            "platform-details" => vec![Cow::from(&self.platform_details)],
            "product-code" => self.product_codes.iter().map(|code| Cow::from(&code.product_code_id)).collect(),
            "product-code.type" => {
                self.product_codes.iter().map(|code| Cow::from(code.product_code_type.as_str())).collect()
            }
            "ramdisk-id" => optional(self.ramdisk_id.as_ref().map(Id::as_str)),
            "root-device-name" => optional(self.root_device_name.as_deref()),
            "root-device-type" => one(self.root_device_type.as_str()),
            "source-image-id" => optional(self.source_image_id.as_deref()),
            "source-image-region" => optional(self.source_image_region.as_deref()),
            "source-instance-id" => optional(self.source_instance_id.as_deref()),
            "state" => one(self.state.as_str()),
            "state-reason-code" => optional(self.state_reason.as_ref().map(|reason| reason.code.as_str())),
            "state-reason-message" => optional(self.state_reason.as_ref().map(|reason| reason.message.as_str())),
            "usage-operation" => one(self.usage_operation),
            "virtualization-type" => one(self.virtualization_type.as_str()),
            _ => Vec::new(),
        }
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }
}

impl Image {
    fn of_volumes<'a>(&'a self, value: impl Fn(&'a Ebs) -> Option<Cow<'a, str>>) -> Vec<Cow<'a, str>> {
        self.block_device_mappings.iter().filter_map(|entry| value(entry.ebs()?)).collect()
    }
}
