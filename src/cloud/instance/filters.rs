//! What instances can be looked for by: EC2's filters of DescribeInstances.

use std::borrow::Cow;

use super::{Instance, state};
use crate::cloud::filter::Filtered;
use crate::cloud::filter::values::{one, optional, shown, shown_if, truth};
use crate::cloud::tag::Tags;

/// What filters about the interface begin with; the rest of their names are the interface's own filters.
const OF_INTERFACE: &str = "network-interface.";

impl Filtered for Instance {
    const FILTERS: &'static [&'static str] = &[
        "architecture",
        "availability-zone",
        "availability-zone-id",
        "block-device-mapping.attach-time",
        "block-device-mapping.delete-on-termination",
        "block-device-mapping.device-name",
        "block-device-mapping.status",
        "block-device-mapping.volume-id",
        "boot-mode",
        "client-token",
        "current-instance-boot-mode",
        "ebs-optimized",
        "ena-support",
        "enclave-options.enabled",
        "group-id",
        "group-name",
        "hibernation-options.configured",
        "hypervisor",
        "image-id",
        "instance-id",
        "instance-state-code",
        "instance-state-name",
        "instance-type",
        "instance.group-id",
        "instance.group-name",
        "kernel-id",
        "key-name",
        "launch-index",
        "launch-time",
        "metadata-options.http-endpoint",
        "metadata-options.http-protocol-ipv4",
        "metadata-options.http-protocol-ipv6",
        "metadata-options.http-put-response-hop-limit",
        "metadata-options.http-tokens",
        "metadata-options.instance-metadata-tags",
        "metadata-options.state",
        "monitoring-state",
        "network-interface.addresses.primary",
        "network-interface.addresses.private-dns-name",
        "network-interface.addresses.private-ip-address",
        "network-interface.attachment.attach-time",
        "network-interface.attachment.attachment-id",
        "network-interface.attachment.delete-on-termination",
        "network-interface.attachment.device-index",
        "network-interface.attachment.instance-id",
        "network-interface.attachment.instance-owner-id",
        "network-interface.attachment.network-card-index",
        "network-interface.attachment.status",
        "network-interface.availability-zone",
        "network-interface.description",
        "network-interface.group-id",
        "network-interface.group-name",
        "network-interface.mac-address",
        "network-interface.network-interface-id",
        "network-interface.owner-id",
        "network-interface.private-dns-name",
        "network-interface.private-ip-address",
        "network-interface.requester-managed",
        "network-interface.source-dest-check",
        "network-interface.status",
        "network-interface.subnet-id",
        "network-interface.tag-key",
        "network-interface.tag-value",
        "network-interface.vpc-id",
        "owner-id",
        "platform",
        "platform-details",
        "private-dns-name",
        "private-dns-name-options.enable-resource-name-dns-a-record",
        "private-dns-name-options.enable-resource-name-dns-aaaa-record",
        "private-dns-name-options.hostname-type",
        "private-ip-address",
        "ramdisk-id",
        "reason",
        "reservation-id",
        "root-device-name",
        "root-device-type",
        "source-dest-check",
        "state-reason-code",
        "state-reason-message",
        "subnet-id",
        "tenancy",
        "usage-operation",
        "virtualization-type",
        "vpc-id",
        // Those that no instance has anything for here.
        "affinity",
        "capacity-reservation-id",
        "capacity-reservation-specification.capacity-reservation-preference",
        "capacity-reservation-specification.capacity-reservation-target.capacity-reservation-id",
        "capacity-reservation-specification.capacity-reservation-target.capacity-reservation-resource-group-arn",
        "dns-name",
        "host-id",
        "iam-instance-profile.arn",
        "iam-instance-profile.id",
        "iam-instance-profile.name",
        "instance-lifecycle",
        "ip-address",
        "ipv6-address",
        "maintenance-options.auto-recovery",
        "network-interface.addresses.association.allocation-id",
        "network-interface.addresses.association.association-id",
        "network-interface.addresses.association.carrier-ip",
        "network-interface.addresses.association.customer-owned-ip",
        "network-interface.addresses.association.ip-owner-id",
        "network-interface.addresses.association.public-dns-name",
        "network-interface.addresses.association.public-ip",
        "network-interface.association.allocation-id",
        "network-interface.association.association-id",
        "network-interface.association.carrier-ip",
        "network-interface.association.customer-owned-ip",
        "network-interface.association.ip-owner-id",
        "network-interface.association.public-dns-name",
        "network-interface.association.public-ip",
        "network-interface.deny-all-igw-traffic",
        "network-interface.ipv4-prefixes.ipv4-prefix",
        "network-interface.ipv6-address",
        "network-interface.ipv6-addresses.ipv6-address",
        "network-interface.ipv6-addresses.is-primary-ipv6",
        "network-interface.ipv6-native",
        "network-interface.ipv6-prefixes.ipv6-prefix",
        "network-interface.operator.managed",
        "network-interface.operator.principal",
        "network-interface.outpost-arn",
        "network-interface.public-dns-name",
        "network-interface.requester-id",
        "network-performance-options.bandwidth-weighting",
        "operator.managed",
        "operator.principal",
        "outpost-arn",
        "placement-group-name",
        "placement-partition-number",
        "product-code",
        "product-code.type",
        "requester-id",
        "spot-instance-request-id",
        "usage-operation-update-time",
    ];

    fn values(&self, filter: &str) -> Vec<Cow<'_, str>> {
        match filter {
            "availability-zone" => one(&self.availability_zone),
            "availability-zone-id" => optional(self.availability_zone_id.as_deref()),
            "client-token" => optional(self.client_token.as_deref()),
            "ebs-optimized" | "enclave-options.enabled" | "hibernation-options.configured" => one(truth(false)),
            "instance-id" => one(self.instance_id.as_str()),
            "instance-state-code" => shown(&state::code(&self.state)),
            "instance-state-name" => one(&self.state),
            "instance-type" => one(&self.instance_type),
            "key-name" => optional(self.key_name.as_deref()),
            "launch-index" => shown(&self.ami_launch_index),
            "launch-time" => one(&self.launch_time),
            "monitoring-state" => one("disabled"),
            "owner-id" => one(&self.owner_id),
            "reason" => one(self.state_transition_reason()),
            "reservation-id" => one(self.reservation_id.as_str()),
            "state-reason-code" => optional(self.state_reason.as_ref().map(|reason| reason.code.as_str())),
            "state-reason-message" => optional(self.state_reason.as_ref().map(|reason| reason.message.as_str())),
            "tenancy" => one("default"),
            name => match name.split_once('.') {
                Some(("block-device-mapping", name)) => self.of_volumes(name),
                Some(("metadata-options", name)) => self.of_metadata(name),
                Some(("instance", "group-id" | "group-name")) => {
                    self.of_interface(name.trim_start_matches("instance."))
                }
                Some(("private-dns-name-options", name)) => self.of_host_name(name),
                _ => match name.strip_prefix(OF_INTERFACE) {
                    Some(name) => self.of_interface(name),
                    None => self.of_image(name),
                },
            },
        }
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }
}

impl Instance {
    /// What it has from its image; else what it has from its interface.
    fn of_image(&self, name: &str) -> Vec<Cow<'_, str>> {
        match name {
            "architecture" => one(&self.architecture),
            "boot-mode" => optional(self.boot_mode.as_deref()),
            "current-instance-boot-mode" => one(self.current_boot_mode()),
            "ena-support" => one(truth(self.ena_support)),
            "hypervisor" => one(super::HYPERVISOR),
            "image-id" => one(&self.image_id),
            "kernel-id" => optional(self.kernel_id.as_deref()),
            "platform" => optional(self.platform.as_deref()),
            "platform-details" => optional(self.platform_details.as_deref()),
            "ramdisk-id" => optional(self.ramdisk_id.as_deref()),
            "root-device-name" => one(&self.root_device_name),
            "root-device-type" => one(&self.root_device_type),
            "usage-operation" => one(self.usage_operation()),
            "virtualization-type" => one(&self.virtualization_type),
            "group-id" | "group-name" | "private-dns-name" | "private-ip-address" | "source-dest-check"
            | "subnet-id" | "vpc-id" => self.of_interface(name),
            _ => Vec::new(),
        }
    }

    fn of_interface(&self, name: &str) -> Vec<Cow<'_, str>> {
        let Some(interface) = &self.network_interface else { return Vec::new() };
        match name {
            "tag-key" => interface.tags.keys().map(Cow::from).collect(),
            "tag-value" => interface.tags.values().map(Cow::from).collect(),
            name => interface.values(name),
        }
    }

    fn of_volumes(&self, name: &str) -> Vec<Cow<'_, str>> {
        let all = self.block_device_mappings.iter();
        match name {
            "attach-time" => all.map(|at| Cow::from(&at.attach_time)).collect(),
            "delete-on-termination" => all.map(|at| truth(at.delete_on_termination)).collect(),
            "device-name" => all.map(|at| Cow::from(&at.device)).collect(),
            "status" => all.map(|at| Cow::from(&at.state)).collect(),
            "volume-id" => all.map(|at| Cow::from(at.volume_id.as_str())).collect(),
            _ => Vec::new(),
        }
    }

    fn of_metadata(&self, name: &str) -> Vec<Cow<'_, str>> {
        let options = &self.metadata_options;
        let on = |is_on: bool| one(if is_on { "enabled" } else { "disabled" });
        match name {
            "http-endpoint" | "http-protocol-ipv4" => on(options.endpoint),
            "http-protocol-ipv6" => on(options.ipv6),
            "http-put-response-hop-limit" => shown(&options.hop_limit),
            "http-tokens" => one(if options.tokens_required { "required" } else { "optional" }),
            "instance-metadata-tags" => on(options.tags),
            "state" => one("applied"),
            _ => Vec::new(),
        }
    }

    fn of_host_name(&self, name: &str) -> Vec<Cow<'_, str>> {
        match name {
            "hostname-type" => shown_if(self.network_interface.as_ref().map(|_| "ip-name")),
            "enable-resource-name-dns-a-record" | "enable-resource-name-dns-aaaa-record" => one(truth(false)),
            _ => Vec::new(),
        }
    }
}
