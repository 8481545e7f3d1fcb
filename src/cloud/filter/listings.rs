//! Listings of all kinds of resources, by the filters that EC2 has for them.

use super::{Filter, Filtered};
use crate::cloud::image::Image;
use crate::cloud::instance_type::InstanceType;
use crate::cloud::network::NetworkInterface;
use crate::cloud::testing::{World, code, new_instance, new_snapshot, new_volume};
use crate::cloud::zone::{Region, Zone};
use crate::cloud::{Cloud, Instance, Snapshot, SnapshotQuery, Volume, key_pair, volume};

fn filters(all: &[(&str, &str)]) -> Vec<Filter> {
    all.iter().map(|(name, value)| Filter::new(*name, [*value])).collect()
}

#[test]
fn names_are_there_once_and_are_not_those_of_tags() {
    fn check<R: Filtered>() {
        let mut names = R::FILTERS.to_vec();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
        assert!(!names.iter().any(|name| *name == "tag-key" || name.starts_with("tag:")));
    }
    check::<Image>();
    check::<Instance>();
    check::<InstanceType>();
    check::<key_pair::KeyPair>();
    check::<NetworkInterface>();
    check::<Region>();
    check::<Snapshot>();
    check::<Volume>();
    check::<Zone>();
}

fn count(cloud: &mut Cloud, name: &str, value: &str) -> usize {
    cloud.describe_instances(&[], &filters(&[(name, value)])).unwrap().len()
}

#[test]
fn instances_are_found_by_everything_that_they_have() {
    let world = World::new();
    let mut cloud = world.cloud();
    let one = new_instance(&mut cloud, "us-east-1a", &[("Name", "one")]);
    let other = new_instance(&mut cloud, "us-east-1b", &[("Name", "other"), ("x", "")]);
    let disk = new_volume(&mut cloud, "us-east-1a", &[]);
    cloud.catalogue.write(|tx| volume::attach(tx, &disk, &one, "/dev/sdf", false, "attached")).unwrap();
    let [first, _] = &cloud.instances(&[]).unwrap()[..] else { panic!() };
    let first = if first.instance_id == one { first.clone() } else { cloud.instances(&[]).unwrap()[1].clone() };
    // Listed alone or with others, it is the same.
    assert_eq!(cloud.instances(&[one.to_string()]).unwrap(), std::slice::from_ref(&first));
    let interface = first.network_interface.clone().unwrap();
    assert_eq!(first.availability_zone_id.as_deref(), Some("use1-az1"));
    let of_one = [
        ("availability-zone", "us-east-1a"),
        ("availability-zone-id", "use1-az1"),
        ("block-device-mapping.delete-on-termination", "false"),
        ("block-device-mapping.device-name", "/dev/sdf"),
        ("block-device-mapping.volume-id", disk.as_str()),
        ("instance-id", one.as_str()),
        ("network-interface.addresses.private-ip-address", &interface.private_ip_address.to_string()),
        ("network-interface.attachment.instance-id", one.as_str()),
        ("network-interface.availability-zone", "us-east-1a"),
        ("network-interface.mac-address", &interface.mac_address.to_string()),
        ("network-interface.network-interface-id", interface.network_interface_id.as_str()),
        ("private-dns-name", &interface.private_dns_name),
        ("private-ip-address", &interface.private_ip_address.to_string()),
        ("subnet-id", interface.subnet_id.as_str()),
        ("tag:Name", "one"),
    ];
    for (name, value) in of_one {
        let found = cloud.describe_instances(&[], &filters(&[(name, value)])).unwrap();
        assert_eq!(found.len(), 1, "{name}={value}");
        assert_eq!(found[0].instance_id, one, "{name}={value}");
    }
    let of_both = [
        ("architecture", "x86_64"),
        ("client-token", "token"),
        ("current-instance-boot-mode", "legacy-bios"),
        ("ebs-optimized", "false"),
        ("group-id", interface.groups[0].group_id.as_str()),
        ("group-name", "default"),
        ("hypervisor", "xen"),
        ("image-id", "ami-00000001"),
        ("instance-state-code", "80"),
        ("instance-state-name", "stopped"),
        ("instance-type", "t3.*"),
        ("instance.group-id", interface.groups[0].group_id.as_str()),
        ("instance.group-name", "default"),
        ("launch-index", "0"),
        ("launch-time", "1970-01-01T*"),
        ("metadata-options.http-endpoint", "enabled"),
        ("metadata-options.http-put-response-hop-limit", "1"),
        ("metadata-options.http-tokens", "optional"),
        ("monitoring-state", "disabled"),
        ("network-interface.group-name", "default"),
        ("owner-id", "123456789012"),
        ("reason", "User initiated (2026-01-01 00:00:00 GMT)"),
        ("reservation-id", "r-00000001"),
        ("root-device-name", "/dev/sda1"),
        ("root-device-type", "ebs"),
        ("state-reason-code", "Client.UserInitiatedShutdown"),
        ("tag-key", "Name"),
        ("tenancy", "default"),
        ("usage-operation", "RunInstances"),
        ("virtualization-type", "hvm"),
        ("vpc-id", interface.vpc_id.as_str()),
    ];
    for (name, value) in of_both {
        assert_eq!(count(&mut cloud, name, value), 2, "{name}={value}");
    }
    for (name, value) in [
        ("dns-name", "*"),
        ("ip-address", "*"),
        ("iam-instance-profile.arn", "*"),
        ("instance-lifecycle", "*"),
        ("kernel-id", "*"),
        ("key-name", "*"),
        ("network-interface.association.public-ip", "*"),
        ("network-interface.tag-key", "*"),
        ("platform", "*"),
        ("spot-instance-request-id", "*"),
    ] {
        assert_eq!(count(&mut cloud, name, value), 0, "{name}={value}");
    }
    let both = filters(&[("availability-zone", "us-east-1b"), ("tag:x", "")]);
    assert_eq!(cloud.describe_instances(&[], &both).unwrap()[0].instance_id, other);
    assert!(cloud.describe_instances(&[one.to_string()], &both).unwrap().is_empty());
    assert_eq!(code(cloud.describe_instances(&[], &filters(&[("state", "stopped")]))), "InvalidParameterValue");
    assert_eq!(code(cloud.describe_instances(&["i-00000001".into()], &both)), "InvalidInstanceID.NotFound");
}

#[test]
fn volumes_are_found_by_their_attachments() {
    let world = World::new();
    let mut cloud = world.cloud();
    let instance = new_instance(&mut cloud, "us-east-1a", &[]);
    let at = new_volume(&mut cloud, "us-east-1a", &[]);
    let free = new_volume(&mut cloud, "us-east-1b", &[("Name", "data")]);
    cloud.catalogue.write(|tx| volume::attach(tx, &at, &instance, "/dev/sdf", false, "attached")).unwrap();
    let mut found = |all: &[(&str, &str)]| -> Vec<_> {
        cloud.describe_volumes(&[], &filters(all)).unwrap().into_iter().map(|volume| volume.volume_id).collect()
    };
    assert_eq!(
        found(&[("attachment.device", "/dev/sdf"), ("attachment.instance-id", instance.as_str())]),
        std::slice::from_ref(&at)
    );
    assert_eq!(found(&[("attachment.status", "attached"), ("status", "in-use")]), std::slice::from_ref(&at));
    assert_eq!(found(&[("status", "available"), ("tag:Name", "d*")]), std::slice::from_ref(&free));
    assert_eq!(found(&[("availability-zone-id", "use1-az2"), ("size", "8")]), std::slice::from_ref(&free));
    assert_eq!(found(&[("encrypted", "false"), ("volume-type", "gp3")]).len(), 2);
    assert!(found(&[("snapshot-id", "*")]).is_empty());
    let alone = cloud.volumes(&[at.to_string()]).unwrap();
    assert!(cloud.volumes(&[]).unwrap().contains(&alone[0]));
}

#[test]
fn snapshots_are_found_by_whose_they_are_and_who_may_use_them() {
    let world = World::new();
    let (me, you) = ("123456789012", "222222222222");
    let (mut mine, mut yours) = (world.cloud(), world.cloud_of(you));
    let own = new_snapshot(&mut mine, "own", &[("Name", "own")]);
    let shared = new_snapshot(&mut yours, "shared", &[("Name", "theirs")]);
    let public = new_snapshot(&mut yours, "public", &[]);
    new_snapshot(&mut yours, "hidden", &[]);
    yours.share_snapshot(shared.as_str(), &[me.into()], &[]).unwrap();
    yours.share_snapshot(public.as_str(), &["all".into()], &[]).unwrap();
    let mut found = |owners: &[&str], restorable_by: &[&str], all: &[(&str, &str)]| -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let query = SnapshotQuery {
            owners: words(owners),
            restorable_by: words(restorable_by),
            filters: filters(all),
            ..SnapshotQuery::default()
        };
        let mut found: Vec<_> =
            mine.describe_snapshots(&query).unwrap().into_iter().map(|snapshot| snapshot.description).collect();
        found.sort_unstable();
        found
    };
    assert_eq!(found(&[], &[], &[]), ["own", "public", "shared"]);
    assert_eq!(found(&["self"], &[], &[]), ["own"]);
    assert_eq!(found(&[you], &[], &[]), ["public", "shared"]);
    assert_eq!(found(&["nobody"], &[], &[]), [""; 0]);
    assert_eq!(found(&[], &["self"], &[]), ["own", "shared"]);
    assert_eq!(found(&[], &["all"], &[]), ["public"]);
    assert_eq!(found(&[], &[you], &[]), [""; 0]);
    assert_eq!(found(&[], &[], &[("owner-id", you), ("description", "p*")]), ["public"]);
    // Others' tags are not to be seen.
    assert_eq!(found(&[], &[], &[("tag-key", "Name")]), ["own"]);
    assert!(mine.snapshots(&[shared.to_string()], false).unwrap()[0].tags.is_empty());
    assert_eq!(mine.snapshots(&[], true).unwrap()[0].snapshot_id, own);
    let query = SnapshotQuery { owners: vec!["NOBODY".into()], ..SnapshotQuery::default() };
    assert_eq!(code(mine.describe_snapshots(&query)), "InvalidUserID.Malformed");
}

#[test]
fn key_pairs_are_found_by_name_and_id() {
    let world = World::new();
    let mut cloud = world.cloud();
    let tags = crate::cloud::testing::all(&[("for", "tests")]);
    let made = cloud.create_key_pair("one", key_pair::KeyType::Ed25519, &tags).unwrap().pair;
    cloud.create_key_pair("two", key_pair::KeyType::Ed25519, &Default::default()).unwrap();
    let id = made.key_pair_id.to_string();
    for (names, ids, all, count) in [
        (vec![], vec![], vec![("key-name", "o*")], 1),
        (vec![], vec![], vec![("key-pair-id", id.as_str())], 1),
        (vec![], vec![], vec![("key-type", "ed25519")], 2),
        (vec![], vec![], vec![("tag:for", "tests"), ("fingerprint", made.key_fingerprint.as_str())], 1),
        (vec![], vec![id.clone()], vec![], 1),
        (vec!["two".to_owned()], vec![id.clone()], vec![], 2),
        (vec!["two".to_owned()], vec![], vec![("key-name", "one")], 0),
    ] {
        assert_eq!(cloud.describe_key_pairs(&names, &ids, &filters(&all)).unwrap().len(), count, "{names:?} {all:?}");
    }
    for id in ["two", "key-00000001"] {
        assert_eq!(code(cloud.describe_key_pairs(&[], &[id.into()], &[])), "InvalidKeyPair.NotFound");
    }
}

#[test]
fn regions_and_zones_are_found() {
    let world = World::new();
    let mut cloud = world.cloud();
    let found = cloud.describe_regions(&[], &filters(&[("endpoint", "*us-east*")])).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(cloud.describe_regions(&["us-west-1".into()], &[]).unwrap().len(), 1);
    assert_eq!(code(cloud.describe_regions(&["us-east-9".into()], &[])), "InvalidParameterValue");
    let mut zones = |names: &[&str], all: &[(&str, &str)], every: bool| {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        cloud.describe_zones(&names, &[], &filters(all), every).map(|zones| zones.len())
    };
    assert_eq!(zones(&[], &[], false).unwrap(), 6);
    assert_eq!(zones(&[], &[], true).unwrap(), 9);
    assert_eq!(zones(&[], &[("state", "available"), ("zone-id", "use1-az1")], false).unwrap(), 1);
    assert_eq!(zones(&["us-east-1-bos-1a"], &[("group-name", "us-east-1-bos-1")], false).unwrap(), 1);
    assert_eq!(code(zones(&["eu-west-1a"], &[], true)), "InvalidParameterValue");
    assert_eq!(cloud.describe_zones(&[], &["use1-az2".into()], &[], false).unwrap()[0].zone_name, "us-east-1b");
}
