//! What the tests of this room share.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::clock::Clock;
use super::document::{BlockDevice, Document, Identity, Interface, Options, Placement, PublicKey, SecurityGroup, Tag};

/// A clock that goes on when it is told to.
#[derive(Debug, Clone, Default)]
pub struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn elapsed(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_764_000_000) + self.elapsed()
    }
}

/// An instance with a bit of everything.
pub fn document() -> Document {
    let key = |name: &str| PublicKey { name: name.into(), openssh: format!("ssh-ed25519 AAAA{name} {name}") };
    let device = |name: &str, device: &str| BlockDevice { name: name.into(), device: device.into() };
    let tag = |key: &str, value: &str| Tag { key: key.into(), value: value.into() };
    Document {
        instance_id: "i-0123456789abcdef0".into(),
        image_id: "ami-0123456789abcdef0".into(),
        launch_index: 0,
        instance_type: "t3.micro".into(),
        reservation_id: "r-0123456789abcdef0".into(),
        account_id: "123456789012".into(),
        architecture: "x86_64".into(),
        launched: "2026-11-24T14:05:26Z".into(),
        kernel_id: None,
        ramdisk_id: None,
        ancestor_ami_ids: Vec::new(),
        product_codes: Vec::new(),
        placement: Placement {
            region: "eu-west-1".into(),
            availability_zone: "eu-west-1a".into(),
            availability_zone_id: "euw1-az1".into(),
        },
        interface: Interface {
            id: "eni-0123456789abcdef0".into(),
            mac: "06:12:34:56:78:9a".into(),
            private_ipv4: Ipv4Addr::new(172, 31, 5, 9),
            public_ipv4: Some(Ipv4Addr::new(54, 1, 2, 3)),
            subnet_id: "subnet-0123456789abcdef0".into(),
            subnet_cidr: "172.31.0.0/20".into(),
            vpc_id: "vpc-0123456789abcdef0".into(),
            vpc_cidr: "172.31.0.0/16".into(),
            security_groups: vec![
                SecurityGroup { id: "sg-00000000000000001".into(), name: "default".into() },
                SecurityGroup { id: "sg-00000000000000002".into(), name: "web servers".into() },
            ],
        },
        block_devices: vec![device("root", "/dev/xvda"), device("ami", "/dev/xvda"), device("ebs1", "sdf")],
        public_keys: vec![key("first"), key("second")],
        user_data: Some("IyEvYmluL3NoCg==".into()),
        tags: Some(vec![tag("role", "web"), tag("Name", "one"), tag("not told", "x"), tag("empty", "")]),
        identity: Some(Identity {
            document: "{}".into(),
            signature: "c2ln".into(),
            pkcs7: "cGtj".into(),
            rsa2048: "cnNh".into(),
        }),
        options: Options::default(),
    }
}

/// Documents with anything in them that a document can have.
pub fn documents() -> impl Strategy<Value = Document> {
    let text = || "\\PC{0,12}|[a-z0-9/=.%\n -]{0,12}";
    let pairs = move || proptest::collection::vec((text(), text()), 0..6);
    (
        (pairs(), pairs(), proptest::option::of(pairs())),
        proptest::option::of(any::<[u8; 4]>()),
        proptest::option::of("[a-z0-9+/=]{0,20}"),
        proptest::collection::vec(text(), 0..3),
        (text(), proptest::option::of(text()), any::<bool>(), any::<u32>()),
    )
        .prop_map(move |((devices, keys, tags), public, user_data, codes, (mac, kernel, identity, index))| {
            let mut document = document();
            document.block_devices = devices.into_iter().map(|(name, device)| BlockDevice { name, device }).collect();
            document.public_keys = keys.into_iter().map(|(name, openssh)| PublicKey { name, openssh }).collect();
            document.tags = tags.map(|tags| tags.into_iter().map(|(key, value)| Tag { key, value }).collect());
            document.interface.public_ipv4 = public.map(Ipv4Addr::from);
            document.user_data = user_data;
            document.ancestor_ami_ids.clone_from(&codes);
            document.product_codes = codes;
            document.interface.mac = mac;
            document.kernel_id = kernel;
            document.launch_index = index;
            document.identity = document.identity.filter(|_| identity);
            document
        })
}
