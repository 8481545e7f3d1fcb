use super::*;
use crate::cloud::key_pair::KeyType;
use crate::cloud::testing::{World, all, code, new_instance, new_snapshot, new_volume};

fn removal(key: &str, value: Option<&str>) -> Removal {
    Removal { key: key.into(), value: value.map(str::to_owned) }
}

fn found(cloud: &mut Cloud, filters: &[(&str, &str)]) -> Vec<(String, String, String)> {
    let filters: Vec<_> = filters.iter().map(|(name, value)| Filter::new(*name, [*value])).collect();
    let found = cloud.tag_descriptions(&filters).unwrap();
    found.into_iter().map(|tag| (tag.resource_type.to_owned(), tag.key, tag.value)).collect()
}

/// A resource of each kind but images, by their ids.
fn one_of_each(cloud: &mut Cloud) -> Vec<String> {
    let instance = new_instance(cloud, "us-east-1a", &[]);
    let interface = cloud.describe_network_interfaces(&[], &[]).unwrap().remove(0).network_interface_id;
    let key = cloud.create_key_pair("one", KeyType::Ed25519, &Tags::new()).unwrap().pair.key_pair_id;
    let all = [
        instance,
        interface,
        key,
        new_volume(cloud, "us-east-1a", &[]),
        new_snapshot(cloud, "", &[]),
        cloud.describe_vpcs(&[], &[]).unwrap().remove(0).vpc_id,
        cloud.describe_subnets(&[], &[]).unwrap().remove(0).subnet_id,
        cloud.describe_security_groups(&[], &[], &[]).unwrap().remove(0).group_id,
        cloud.describe_security_group_rules(&[], &[]).unwrap().remove(0).security_group_rule_id,
    ];
    all.iter().map(Id::to_string).collect()
}

#[test]
fn everything_has_tags() {
    let world = World::new();
    let mut cloud = world.cloud();
    let ids = one_of_each(&mut cloud);
    cloud.tag_resources(&ids, &all(&[("a", "1"), ("b", "")])).unwrap();
    let mut types: Vec<_> = found(&mut cloud, &[("key", "a")]).into_iter().map(|(kind, ..)| kind).collect();
    types.sort_unstable();
    assert_eq!(
        types,
        [
            "instance",
            "key-pair",
            "network-interface",
            "security-group",
            "security-group-rule",
            "snapshot",
            "subnet",
            "volume",
            "vpc"
        ]
    );
    // Each tells them where it is described.
    let tag = [Filter::new("tag:a", ["1"])];
    assert_eq!(cloud.describe_instances(&[], &tag).unwrap().len(), 1);
    assert_eq!(cloud.describe_volumes(&[], &tag).unwrap().len(), 1);
    assert_eq!(cloud.describe_key_pairs(&[], &[], &tag).unwrap().len(), 1);
    assert_eq!(cloud.describe_network_interfaces(&[], &tag).unwrap().len(), 1);
    assert_eq!(cloud.describe_vpcs(&[], &tag).unwrap().len(), 1);
    assert_eq!(cloud.describe_subnets(&[], &tag).unwrap().len(), 1);
    assert_eq!(cloud.describe_security_groups(&[], &[], &tag).unwrap().len(), 1);
    assert_eq!(cloud.describe_security_group_rules(&[], &tag).unwrap().len(), 1);
    assert_eq!(
        cloud.instances(&[]).unwrap()[0].network_interface.as_ref().unwrap().tags,
        all(&[("a", "1"), ("b", "")])
    );
    // Nobody else sees them, here or elsewhere.
    assert!(world.cloud_of("222222222222").tag_descriptions(&[]).unwrap().is_empty());
    assert!(world.cloud_in("eu-west-1").tag_descriptions(&[]).unwrap().is_empty());
    cloud.untag_resources(&ids, &[]).unwrap();
    assert!(cloud.tag_descriptions(&[]).unwrap().is_empty());
}

#[test]
fn a_tag_goes_where_its_value_is_the_one_that_is_said() {
    let world = World::new();
    let mut cloud = world.cloud();
    let volume = new_volume(&mut cloud, "us-east-1a", &[("a", "1"), ("b", ""), ("c", "3"), ("d", "")]).to_string();
    let ids = std::slice::from_ref(&volume);
    let left = |cloud: &mut Cloud| cloud.tags(&volume).unwrap().into_keys().collect::<String>();
    cloud.untag_resources(ids, &[removal("a", Some("")), removal("c", Some("4")), removal("x", None)]).unwrap();
    assert_eq!(left(&mut cloud), "abcd");
    cloud.untag_resources(ids, &[removal("a", Some("1")), removal("b", Some(""))]).unwrap();
    assert_eq!(left(&mut cloud), "cd");
    cloud.untag_resources(ids, &[removal("c", None)]).unwrap();
    assert_eq!(left(&mut cloud), "d");
    assert_eq!(
        code(cloud.untag_resources(ids, &[removal("d", None), removal("aws:x", None)])),
        "InvalidParameterValue"
    );
    assert_eq!(left(&mut cloud), "d");
    // No key at all is none, where a person says which.
    assert_eq!(cloud.delete_tags(&volume, &[]).unwrap().len(), 1);
}

#[test]
fn all_are_changed_or_none() {
    let world = World::new();
    let mut cloud = world.cloud();
    let volume = new_volume(&mut cloud, "us-east-1a", &[("Name", "data")]).to_string();
    let theirs = new_volume(&mut world.cloud_of("222222222222"), "us-east-1a", &[]).to_string();
    for (other, expected) in [
        ("vol-00000001", "InvalidVolume.NotFound"),
        (theirs.as_str(), "InvalidVolume.NotFound"),
        ("vol-1", "InvalidVolumeID.Malformed"),
        ("i-00000001", "InvalidInstanceID.NotFound"),
        ("ami-00000001", "InvalidAMIID.NotFound"),
        ("sgr-00000001", "InvalidSecurityGroupRuleId.NotFound"),
        ("sg-00000001", "InvalidGroup.NotFound"),
        ("data", "InvalidID"),
        ("", "InvalidID"),
    ] {
        let both = [volume.clone(), other.to_owned()];
        assert_eq!(code(cloud.tag_resources(&both, &all(&[("a", "1")]))), expected, "{other}");
        assert_eq!(code(cloud.untag_resources(&both, &[])), expected, "{other}");
    }
    assert_eq!(cloud.tags(&volume).unwrap(), all(&[("Name", "data")]));
    let mine = std::slice::from_ref(&volume);
    for (tags, expected) in [
        (all(&[]), "MissingParameter"),
        (all(&[("aws:x", "")]), "InvalidParameterValue"),
        (all(&[("a", ""), ("", "")]), "InvalidParameterValue"),
        ((0..50).map(|n| (n.to_string(), String::new())).collect(), "TagLimitExceeded"),
    ] {
        assert_eq!(code(cloud.tag_resources(mine, &tags)), expected);
    }
    assert_eq!(code(cloud.tag_resources(&[], &all(&[("a", "")]))), "MissingParameter");
    let many = vec![volume.clone(); MAX_RESOURCES + 1];
    assert_eq!(code(cloud.tag_resources(&many, &all(&[("a", "")]))), "InvalidParameterValue");
    assert_eq!(cloud.tags(&volume).unwrap().len(), 1);
    // An instance whose guest is told of its tags has such keys only as can be told.
    let instance = new_instance(&mut cloud, "us-east-1a", &[]).to_string();
    let told = crate::cloud::MetadataChange { tags: Some(true), ..Default::default() };
    cloud.modify_metadata_options(&instance, &told).unwrap();
    let both = [volume.clone(), instance];
    assert_eq!(code(cloud.tag_resources(&both, &all(&[("a b", "")]))), "InvalidParameterValue");
    cloud.tag_resources(&both, &all(&[("a", "")])).unwrap();
}

#[test]
fn tags_are_found_by_key_value_and_resource() {
    let world = World::new();
    let mut cloud = world.cloud();
    let volume = new_volume(&mut cloud, "us-east-1a", &[("Name", "data"), ("for", "tests")]);
    new_snapshot(&mut cloud, "", &[("Name", "data-1")]);
    let told = |kind: &str, key: &str, value: &str| (kind.to_owned(), key.to_owned(), value.to_owned());
    assert_eq!(found(&mut cloud, &[("resource-type", "snapshot")]), [told("snapshot", "Name", "data-1")]);
    assert_eq!(found(&mut cloud, &[("key", "Name"), ("value", "data*")]).len(), 2);
    assert_eq!(found(&mut cloud, &[("tag:Name", "data")]), [told("volume", "Name", "data")]);
    let of_volume = [("resource-id", volume.as_str())];
    assert_eq!(found(&mut cloud, &of_volume), [told("volume", "Name", "data"), told("volume", "for", "tests")]);
    assert_eq!(code(cloud.tag_descriptions(&[Filter::new("tag", ["x"])])), "InvalidParameterValue");
}

#[test]
fn a_person_names_a_resource_in_short() {
    let world = World::new();
    let mut cloud = world.cloud();
    let volume = new_volume(&mut cloud, "us-east-1a", &[]).to_string();
    let instance = new_instance(&mut cloud, "us-east-1a", &[("Name", "web")]);
    let vpc = cloud.describe_vpcs(&[], &[]).unwrap().remove(0).vpc_id.to_string();
    let tags = all(&[("a", "1")]);
    assert_eq!(cloud.create_tags(&volume[..10], &tags).unwrap(), tags);
    assert_eq!(cloud.create_tags(&vpc[..10], &tags).unwrap(), tags);
    assert_eq!(cloud.create_tags("web", &tags).unwrap().len(), 2);
    assert_eq!(cloud.delete_tags(instance.as_str(), &["Name".into()]).unwrap(), tags);
    assert_eq!(code(cloud.create_tags("none", &tags)), "InvalidAMIID.NotFound");
}
