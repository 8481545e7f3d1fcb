//! The categories of instance metadata and of dynamic data, and user data: what is below a version.
//!
//! What an instance here never has is not there at all, as on an EC2 instance without it: `iam/` (no role), `spot/`,
//! `autoscaling/`, `managed-ssh-keys/` and `identity-credentials/` (nobody signs those here), IPv6 addresses.

use super::{BYTES, Directory, interface, names};
use crate::imds::document::{Document, Tag};

/// A version.
pub(super) fn version(document: &Document) -> Directory {
    let mut version = Directory::default();
    version.directory_as("dynamic", "dynamic", dynamic(document));
    version.directory_as("meta-data", "meta-data", metadata(document));
    if let Some(user_data) = document.decoded_user_data() {
        version.leaf("user-data", user_data, BYTES);
    }
    version
}

/// `dynamic/`.
fn dynamic(document: &Document) -> Directory {
    let mut dynamic = Directory::default();
    dynamic.directory("fws", one("instance-monitoring", "disabled"));
    if let Some(identity) = &document.identity {
        let mut directory = Directory::default();
        directory.text("document", &identity.document);
        directory.text("pkcs7", &identity.pkcs7);
        directory.text("rsa2048", &identity.rsa2048);
        directory.text("signature", &identity.signature);
        dynamic.directory("instance-identity", directory);
    }
    dynamic
}

/// `meta-data/`, in the order of its names.
fn metadata(document: &Document) -> Directory {
    let interface = &document.interface;
    let region = &document.placement.region;
    let private_name = names::private_name(interface.private_ipv4, region);
    let paravirtual = document.kernel_id.is_some();

    let mut data = Directory::default();
    data.text("ami-id", &document.image_id);
    data.text("ami-launch-index", document.launch_index.to_string());
    data.text("ami-manifest-path", "(unknown)");
    data.lines("ancestor-ami-ids", &document.ancestor_ami_ids);
    data.directory("block-device-mapping", block_devices(document));
    data.directory("events", events());
    data.directory("hibernation", one("configured", "false"));
    data.text("hostname", &private_name);
    data.text("instance-action", "none");
    data.text("instance-id", &document.instance_id);
    data.text("instance-life-cycle", "on-demand");
    data.text("instance-type", &document.instance_type);
    data.lines("kernel-id", &document.kernel_id);
    data.text("local-hostname", &private_name);
    data.text("local-ipv4", interface.private_ipv4.to_string());
    data.text("mac", &interface.mac);
    data.directory("metrics", one("vhostmd", r#"<?xml version="1.0" encoding="UTF-8"?>"#));
    data.directory("network", interface::network(document));
    data.directory("placement", placement(document));
    data.lines("product-codes", &document.product_codes);
    data.text("profile", if paravirtual { "default-paravirtual" } else { "default-hvm" });
    if let Some(public) = interface.public_ipv4 {
        data.text("public-hostname", names::public_name(public, region));
        data.text("public-ipv4", public.to_string());
    }
    if !document.public_keys.is_empty() {
        data.directory("public-keys", public_keys(document));
    }
    data.lines("ramdisk-id", &document.ramdisk_id);
    data.text("reservation-id", &document.reservation_id);
    data.lines("security-groups", interface.security_groups.iter().map(|group| &group.name));
    data.directory("services", services(region));
    data.text("system", if paravirtual { "xen" } else { "nitro" });
    if let Some(tags) = &document.tags {
        data.directory("tags", tree_of_tags(tags));
    }
    data
}

fn block_devices(document: &Document) -> Directory {
    let mut devices: Vec<_> = document.block_devices.iter().collect();
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    let mut directory = Directory::default();
    for device in devices {
        directory.text(&device.name, &device.device);
    }
    directory
}

fn events() -> Directory {
    let mut maintenance = Directory::default();
    maintenance.text("history", "[]");
    maintenance.text("scheduled", "[]");
    let mut events = Directory::default();
    events.directory("maintenance", maintenance);
    events
}

fn placement(document: &Document) -> Directory {
    let mut placement = Directory::default();
    placement.text("availability-zone", &document.placement.availability_zone);
    placement.text("availability-zone-id", &document.placement.availability_zone_id);
    placement.text("region", &document.placement.region);
    placement
}

fn services(region: &str) -> Directory {
    let mut services = Directory::default();
    services.text("domain", names::domain(region));
    services.text("partition", names::partition(region));
    services
}

/// Keys are listed as `0=name`, and found below their numbers. Their texts end with a line end: scripts append them to files.
fn public_keys(document: &Document) -> Directory {
    let mut keys = Directory::default();
    for (number, key) in document.public_keys.iter().enumerate() {
        let text = format!("{}\n", key.openssh.trim_end());
        keys.directory_as(&number.to_string(), &format!("{number}={}", key.name), one("openssh-key", &text));
    }
    keys
}

fn tree_of_tags(tags: &[Tag]) -> Directory {
    let mut tags: Vec<_> = tags.iter().filter(|tag| can_be_told(&tag.key)).collect();
    tags.sort_by(|a, b| a.key.cmp(&b.key));
    let mut instance = Directory::default();
    for tag in tags {
        instance.text(&tag.key, &tag.value);
    }
    let mut directory = Directory::default();
    directory.directory("instance", instance);
    directory
}

/// Whether EC2 allows a tag's key in instance metadata: letters, digits and `+-=.,_:@`, but not `.`, `..` or `_index`.
fn can_be_told(key: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+-=.,_:@".contains(c);
    key.chars().all(allowed) && !matches!(key, "" | "." | ".." | "_index")
}

fn one(name: &str, text: &str) -> Directory {
    let mut directory = Directory::default();
    directory.text(name, text);
    directory
}
