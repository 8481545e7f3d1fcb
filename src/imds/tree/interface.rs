//! `network/interfaces/macs/MAC/`.

use super::{Directory, names};
use crate::imds::document::Document;

/// `network/`.
pub(super) fn network(document: &Document) -> Directory {
    let mut macs = Directory::default();
    macs.directory(&document.interface.mac, interface(document));
    let mut interfaces = Directory::default();
    interfaces.directory("macs", macs);
    let mut network = Directory::default();
    network.directory("interfaces", interfaces);
    network
}

fn interface(document: &Document) -> Directory {
    let interface = &document.interface;
    let region = &document.placement.region;
    let private = interface.private_ipv4.to_string();
    let mut directory = Directory::default();
    directory.text("device-number", "0");
    directory.text("interface-id", &interface.id);
    if let Some(public) = interface.public_ipv4 {
        let mut associations = Directory::default();
        associations.text(&public.to_string(), &private);
        directory.directory("ipv4-associations", associations);
    }
    directory.text("local-hostname", names::private_name(interface.private_ipv4, region));
    directory.text("local-ipv4s", &private);
    directory.text("mac", &interface.mac);
    directory.text("network-card", "0");
    directory.text("owner-id", &document.account_id);
    if let Some(public) = interface.public_ipv4 {
        directory.text("public-hostname", names::public_name(public, region));
        directory.text("public-ipv4s", public.to_string());
    }
    directory.lines("security-group-ids", interface.security_groups.iter().map(|group| &group.id));
    directory.lines("security-groups", interface.security_groups.iter().map(|group| &group.name));
    directory.text("subnet-id", &interface.subnet_id);
    directory.text("subnet-ipv4-cidr-block", &interface.subnet_cidr);
    directory.text("vpc-id", &interface.vpc_id);
    directory.text("vpc-ipv4-cidr-block", &interface.vpc_cidr);
    directory.text("vpc-ipv4-cidr-blocks", &interface.vpc_cidr);
    directory
}
