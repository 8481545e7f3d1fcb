use proptest::prelude::*;

use super::*;
use crate::imds::document::Tag;
use crate::imds::testing::{document, documents};

/// What is at a path, as text.
fn at(tree: &Tree, path: &str) -> Option<String> {
    let segments: Vec<String> = path.split('/').filter(|segment| !segment.is_empty()).map(ToOwned::to_owned).collect();
    let found = tree.find(&segments, path.ends_with('/'))?;
    Some(String::from_utf8(found.content).unwrap())
}

#[test]
fn listings_are_ec2s() {
    let tree = Tree::new(&document());
    let interface = "/latest/meta-data/network/interfaces/macs/06:12:34:56:78:9a/";
    for (path, listing) in [
        ("/latest/", "dynamic\nmeta-data\nuser-data"),
        ("/2009-04-04/", "dynamic\nmeta-data\nuser-data"),
        ("/latest/dynamic/", "fws/\ninstance-identity/"),
        ("/latest/dynamic/fws/", "instance-monitoring"),
        ("/latest/dynamic/instance-identity/", "document\npkcs7\nrsa2048\nsignature"),
        (
            "/latest/meta-data/",
            "ami-id\nami-launch-index\nami-manifest-path\nblock-device-mapping/\nevents/\nhibernation/\nhostname\n\
             instance-action\ninstance-id\ninstance-life-cycle\ninstance-type\nlocal-hostname\nlocal-ipv4\nmac\nmetrics/\n\
             network/\nplacement/\nprofile\npublic-hostname\npublic-ipv4\npublic-keys/\nreservation-id\nsecurity-groups\n\
             services/\nsystem\ntags/",
        ),
        ("/latest/meta-data/block-device-mapping/", "ami\nebs1\nroot"),
        ("/latest/meta-data/events/", "maintenance/"),
        ("/latest/meta-data/events/maintenance/", "history\nscheduled"),
        ("/latest/meta-data/hibernation/", "configured"),
        ("/latest/meta-data/metrics/", "vhostmd"),
        ("/latest/meta-data/network/", "interfaces/"),
        ("/latest/meta-data/network/interfaces/", "macs/"),
        ("/latest/meta-data/network/interfaces/macs/", "06:12:34:56:78:9a/"),
        (
            interface,
            "device-number\ninterface-id\nipv4-associations/\nlocal-hostname\nlocal-ipv4s\nmac\nnetwork-card\nowner-id\n\
             public-hostname\npublic-ipv4s\nsecurity-group-ids\nsecurity-groups\nsubnet-id\nsubnet-ipv4-cidr-block\nvpc-id\n\
             vpc-ipv4-cidr-block\nvpc-ipv4-cidr-blocks",
        ),
        (&format!("{interface}ipv4-associations/"), "54.1.2.3"),
        ("/latest/meta-data/placement/", "availability-zone\navailability-zone-id\nregion"),
        ("/latest/meta-data/public-keys/", "0=first\n1=second"),
        ("/latest/meta-data/public-keys/1/", "openssh-key"),
        ("/latest/meta-data/services/", "domain\npartition"),
        ("/latest/meta-data/tags/", "instance/"),
        ("/latest/meta-data/tags/instance/", "Name\nempty\nrole"),
    ] {
        assert_eq!(at(&tree, path).as_deref(), Some(listing), "{path}");
        assert_eq!(at(&tree, path.trim_end_matches('/')).as_deref(), Some(listing), "{path} without slash");
    }
    let versions = at(&tree, "/").unwrap();
    assert!(versions.starts_with("1.0\n2007-01-19\n") && versions.ends_with("\n2024-04-11\nlatest"), "{versions}");
}

#[test]
fn leaves_say_what_the_document_does() {
    let tree = Tree::new(&document());
    for (path, text) in [
        ("ami-id", "ami-0123456789abcdef0"),
        ("ami-launch-index", "0"),
        ("ami-manifest-path", "(unknown)"),
        ("block-device-mapping/ami", "/dev/xvda"),
        ("block-device-mapping/ebs1", "sdf"),
        ("events/maintenance/history", "[]"),
        ("events/maintenance/scheduled", "[]"),
        ("hibernation/configured", "false"),
        ("hostname", "ip-172-31-5-9.eu-west-1.compute.internal"),
        ("instance-action", "none"),
        ("instance-id", "i-0123456789abcdef0"),
        ("instance-life-cycle", "on-demand"),
        ("instance-type", "t3.micro"),
        ("local-hostname", "ip-172-31-5-9.eu-west-1.compute.internal"),
        ("local-ipv4", "172.31.5.9"),
        ("mac", "06:12:34:56:78:9a"),
        ("metrics/vhostmd", r#"<?xml version="1.0" encoding="UTF-8"?>"#),
        ("network/interfaces/macs/06:12:34:56:78:9a/device-number", "0"),
        ("network/interfaces/macs/06:12:34:56:78:9a/interface-id", "eni-0123456789abcdef0"),
        ("network/interfaces/macs/06:12:34:56:78:9a/ipv4-associations/54.1.2.3", "172.31.5.9"),
        ("network/interfaces/macs/06:12:34:56:78:9a/owner-id", "123456789012"),
        ("network/interfaces/macs/06:12:34:56:78:9a/security-group-ids", "sg-00000000000000001\nsg-00000000000000002"),
        ("network/interfaces/macs/06:12:34:56:78:9a/subnet-id", "subnet-0123456789abcdef0"),
        ("network/interfaces/macs/06:12:34:56:78:9a/subnet-ipv4-cidr-block", "172.31.0.0/20"),
        ("network/interfaces/macs/06:12:34:56:78:9a/vpc-id", "vpc-0123456789abcdef0"),
        ("network/interfaces/macs/06:12:34:56:78:9a/vpc-ipv4-cidr-blocks", "172.31.0.0/16"),
        ("placement/availability-zone", "eu-west-1a"),
        ("placement/availability-zone-id", "euw1-az1"),
        ("placement/region", "eu-west-1"),
        ("profile", "default-hvm"),
        ("public-hostname", "ec2-54-1-2-3.eu-west-1.compute.amazonaws.com"),
        ("public-ipv4", "54.1.2.3"),
        ("public-keys/1/openssh-key", "ssh-ed25519 AAAAsecond second\n"),
        ("reservation-id", "r-0123456789abcdef0"),
        ("security-groups", "default\nweb servers"),
        ("services/domain", "amazonaws.com"),
        ("services/partition", "aws"),
        ("system", "nitro"),
        ("tags/instance/Name", "one"),
        ("tags/instance/empty", ""),
    ] {
        assert_eq!(at(&tree, &format!("/latest/meta-data/{path}")).as_deref(), Some(text), "{path}");
        assert_eq!(at(&tree, &format!("/latest/meta-data/{path}/")), None, "{path} with a slash");
        assert_eq!(at(&tree, &format!("/latest/meta-data/{path}/x")), None, "below {path}");
    }
    for (path, text) in [
        ("/latest/user-data", "#!/bin/sh\n"),
        ("/1.0/user-data", "#!/bin/sh\n"),
        ("/latest/dynamic/fws/instance-monitoring", "disabled"),
        ("/latest/dynamic/instance-identity/document", "{}"),
        ("/latest/dynamic/instance-identity/pkcs7", "cGtj"),
        ("/latest/dynamic/instance-identity/rsa2048", "cnNh"),
        ("/latest/dynamic/instance-identity/signature", "c2ln"),
    ] {
        assert_eq!(at(&tree, path).as_deref(), Some(text), "{path}");
    }
}

#[test]
fn a_paravirtual_instance_says_so() {
    let mut document = document();
    document.kernel_id = Some("aki-1".into());
    document.ramdisk_id = Some("ari-1".into());
    document.product_codes = vec!["one".into(), "two".into()];
    document.ancestor_ami_ids = vec!["ami-1".into()];
    let tree = Tree::new(&document);
    for (path, text) in [
        ("kernel-id", "aki-1"),
        ("ramdisk-id", "ari-1"),
        ("product-codes", "one\ntwo"),
        ("ancestor-ami-ids", "ami-1"),
        ("profile", "default-paravirtual"),
        ("system", "xen"),
    ] {
        assert_eq!(at(&tree, &format!("/latest/meta-data/{path}")).as_deref(), Some(text), "{path}");
    }
}

#[test]
fn what_an_instance_does_not_have_is_not_there() {
    let mut document = document();
    document.interface.public_ipv4 = None;
    document.public_keys.clear();
    document.user_data = None;
    document.tags = None;
    document.identity = None;
    let tree = Tree::new(&document);
    for path in [
        "/none",
        "/latest/none",
        "/latest/user-data",
        "/latest/api",
        "/latest/dynamic/instance-identity",
        "/latest/dynamic/instance-identity/document",
        "/latest/meta-data/autoscaling/target-lifecycle-state",
        "/latest/meta-data/iam",
        "/latest/meta-data/iam/security-credentials/",
        "/latest/meta-data/iam/info",
        "/latest/meta-data/ipv6",
        "/latest/meta-data/kernel-id",
        "/latest/meta-data/network/interfaces/macs/06:12:34:56:78:9a/ipv4-associations/",
        "/latest/meta-data/network/interfaces/macs/06:12:34:56:78:9a/ipv6s",
        "/latest/meta-data/network/interfaces/macs/06:12:34:56:78:9a/public-ipv4s",
        "/latest/meta-data/network/interfaces/macs/other/",
        "/latest/meta-data/product-codes",
        "/latest/meta-data/public-hostname",
        "/latest/meta-data/public-ipv4",
        "/latest/meta-data/public-keys/",
        "/latest/meta-data/public-keys/0/openssh-key",
        "/latest/meta-data/ramdisk-id",
        "/latest/meta-data/spot/instance-action",
        "/latest/meta-data/tags",
        "/latest/meta-data/tags/instance/",
        "/latest/meta-data/tags/instance/Name",
    ] {
        assert_eq!(at(&tree, path), None, "{path}");
    }
    assert_eq!(at(&tree, "/latest/").as_deref(), Some("dynamic\nmeta-data"));
    let listing = at(&tree, "/latest/meta-data/").unwrap();
    assert!(!listing.contains("public") && !listing.contains("tags"), "{listing}");
}

#[test]
fn tags_are_told_under_the_keys_that_ec2_allows() {
    let mut document = document();
    let keys = ["a", "A-1+b=c.d,e_f:g@h", "", ".", "..", "_index", "a b", "a/b", "é", "a\nb"];
    document.tags = Some(keys.iter().map(|key| Tag { key: (*key).into(), value: "x".into() }).collect());
    let tree = Tree::new(&document);
    assert_eq!(at(&tree, "/latest/meta-data/tags/instance").as_deref(), Some("A-1+b=c.d,e_f:g@h\na"));
    document.tags = Some(Vec::new());
    assert_eq!(at(&Tree::new(&document), "/latest/meta-data/tags/instance/").as_deref(), Some(""));
}

#[test]
fn user_data_are_bytes_as_they_were() {
    let mut document = document();
    let tree = |text: &str| {
        document.user_data = Some(text.into());
        Tree::new(&document).find(&["latest".into(), "user-data".into()], false)
    };
    let mut tree = tree;
    let found = tree("H4sI\nAP//").unwrap();
    assert_eq!((found.content.as_slice(), found.media_type), (&b"\x1f\x8b\x08\x00\xff\xff"[..], BYTES));
    assert_eq!(tree("no base64!"), None);
    assert_eq!(tree(""), None);
    assert_eq!(tree(&"AAAA".repeat(5461)).unwrap().content.len(), 16_383);
    assert_eq!(tree(&"AAAA".repeat(5462)), None, "longer than 16 KiB");
}

/// Asks for everything that is listed, as cloud-init does; how many leaves there are.
fn crawl(tree: &Tree, path: &str) -> usize {
    let listing = at(tree, path).unwrap_or_else(|| panic!("{path:?} is listed and not there"));
    let mut leaves = 0;
    for line in listing.split('\n').filter(|line| !line.is_empty()) {
        if line.ends_with('/') && !path.ends_with("/public-keys/") {
            leaves += crawl(tree, &format!("{path}{line}"));
            continue;
        }
        let name = match line.split_once('=') {
            Some((number, _)) if path.ends_with("/public-keys/") => format!("{number}/openssh-key"),
            _ => line.to_owned(),
        };
        assert!(at(tree, &format!("{path}{name}")).is_some(), "{path}{name} is listed and not there");
        leaves += 1;
    }
    leaves
}

proptest! {
    #[test]
    fn everything_that_is_listed_is_there(document in documents()) {
        let tree = Tree::new(&document);
        prop_assert!(crawl(&tree, "/latest/meta-data/") >= 20);
        crawl(&tree, "/2021-03-23/dynamic/");
        for name in at(&tree, "/latest/").unwrap().split('\n') {
            prop_assert!(tree.find(&["latest".into(), name.into()], false).is_some());
        }
        for version in at(&tree, "/").unwrap().split('\n') {
            let path = format!("/{version}/");
            prop_assert!(at(&tree, &path).is_some());
        }
    }
}
