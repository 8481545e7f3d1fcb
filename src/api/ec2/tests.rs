//! Every action, asked for in ways that no client would.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::api::call::is_action;
use crate::api::testing::{Answer, World};
use crate::image::testing::Random;

/// EC2's model, as `build.rs` reads it.
struct Model(Value);

/// Most levels of structures within structures.
const MAX_DEPTH: usize = 5;

impl Model {
    fn new() -> Self {
        Self(serde_json::from_str(include_str!("../../../resources/ec2/model.json")).unwrap())
    }

    fn actions(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.0["operations"].as_object().unwrap();
        all.iter().map(|(name, ends)| (name.as_str(), ends[0].as_str().unwrap()))
    }

    /// Parameters for members of a structure: each that the dice choose.
    fn fill(&self, structure: &str, path: &str, dice: &mut Dice<'_>, into: &mut BTreeMap<String, String>) {
        for (member, of) in self.0["structures"][structure].as_object().unwrap() {
            let (name, kind) = (of[0].as_str().unwrap(), &of[2]);
            // What is in one is chosen again.
            let is_structure = kind.as_str().is_some_and(|name| self.0["structures"].get(name).is_some());
            if dice.chooses(member) || is_structure && dice.random.below(3) == 0 {
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                self.put((member, kind), path, dice, into);
            }
        }
    }

    fn put(
        &self,
        (member, kind): (&str, &Value),
        path: String,
        dice: &mut Dice<'_>,
        into: &mut BTreeMap<String, String>,
    ) {
        match kind {
            Value::String(name) if self.0["structures"].get(name).is_some() => {
                if path.split('.').count() < MAX_DEPTH {
                    self.fill(name, &path, dice, into);
                }
            }
            Value::String(scalar) => drop(into.insert(path, dice.value(member, scalar))),
            _ => {
                for index in 1..=1 + dice.random.below(5) / 4 {
                    self.put((member, &kind[1]), format!("{path}.{index}"), dice, into);
                }
            }
        }
    }
}

/// What values are made with.
struct Dice<'a> {
    random: &'a mut Random,
    /// One of so many members is there that nothing fitting is known of.
    sparse: usize,
    /// One of so many values is anything.
    wild: usize,
    /// Names of what there is.
    known: &'a [String],
}

/// What fits members of such names: the beginnings of ids.
const IDS: [(&str, &str); 13] = [
    ("ImageId", "ami-"),
    ("InstanceId", "i-"),
    ("VolumeId", "vol-"),
    ("SnapshotId", "snap-"),
    ("SecurityGroupRuleId", "sgr-"),
    ("GroupId", "sg-"),
    ("Groups", "sg-"),
    ("SubnetId", "subnet-"),
    ("VpcId", "vpc-"),
    ("NetworkInterfaceId", "eni-"),
    ("ImportTaskId", "import-"),
    ("KeyPairId", "key-"),
    ("Resource", ""),
];

/// And words.
const FITTING: [(&str, &[&str]); 27] = [
    ("AvailabilityZone", &["us-east-1a"]),
    ("Size", &["1", "2"]),
    ("MinCount", &["1"]),
    ("MaxCount", &["1", "2"]),
    ("Device", &["/dev/sdf", "/dev/sdg", "/dev/xvda"]),
    ("DeviceName", &["/dev/sdf", "/dev/xvda"]),
    ("RootDeviceName", &["/dev/xvda"]),
    ("Bucket", &["bucket"]),
    ("S3Bucket", &["bucket"]),
    ("SourceRegion", &["us-east-1", "us-west-2"]),
    ("Architecture", &["x86_64"]),
    ("VirtualizationType", &["hvm"]),
    ("DiskImageFormat", &["RAW", "VMDK"]),
    ("GroupName", &["default", "a", "b"]),
    ("KeyName", &["a", "b"]),
    ("Name", &["a name", "another", "tag-key", "task-state", "state", "owner-id"]),
    ("Description", &["words", ""]),
    ("IpProtocol", &["tcp", "udp", "icmp", "-1", "6"]),
    ("FromPort", &["22", "0", "-1"]),
    ("ToPort", &["22", "65535", "-1"]),
    ("CidrIp", &["10.0.0.0/8", "0.0.0.0/0"]),
    ("VolumeType", &["gp3", "io2", "standard"]),
    ("DeprecateAt", &["2030-01-31T23:59:00Z"]),
    ("HttpTokens", &["required", "optional"]),
    ("ResourceType", &["image", "instance", "volume", "snapshot", "security-group", "import-image-task"]),
    ("UserId", &["222222222222"]),
    ("Attribute", &ATTRIBUTES),
];

const ATTRIBUTES: [&str; 13] = [
    "description",
    "launchPermission",
    "blockDeviceMapping",
    "bootMode",
    "userData",
    "instanceType",
    "disableApiTermination",
    "groupSet",
    "createVolumePermission",
    "autoEnableIO",
    "attachment",
    "enableDnsSupport",
    "rootDeviceName",
];

/// Those of the words that fit.
fn fitting(member: &str) -> Option<&'static [&'static str]> {
    let name = member.trim_end_matches('s');
    FITTING.iter().find(|(have, _)| *have == name || *have == member).map(|(_, words)| *words)
}

fn id_prefix(member: &str) -> Option<&'static str> {
    let name = if member == "Groups" { member } else { member.trim_end_matches('s') };
    IDS.iter().find(|(have, _)| name.ends_with(have)).map(|(_, prefix)| *prefix)
}

impl Dice<'_> {
    /// Of what may be needed most is there, of all else little. A request that is only to be tried ends early.
    fn chooses(&mut self, member: &str) -> bool {
        match member {
            "DryRun" => self.random.below(40) == 0,
            _ if id_prefix(member).is_some() || fitting(member).is_some() || member == "ObjectKey" => {
                self.random.below(5) != 0
            }
            _ => self.random.below(self.sparse) == 0,
        }
    }

    fn value(&mut self, member: &str, scalar: &str) -> String {
        // Where a number is asked for, little else gets far.
        let wild = if scalar == "string" { self.wild } else { self.wild * 8 };
        if self.random.below(wild) == 0 {
            let at = self.random.below(WORDS.len() + self.known.len() + 1);
            let known = self.known.get(at.wrapping_sub(WORDS.len())).cloned();
            return WORDS.get(at).map(|word| (*word).to_owned()).or(known).unwrap_or_else(|| "long ".repeat(1000));
        }
        let is_key = member == "ObjectKey";
        if let Some(prefix) = id_prefix(member).or(is_key.then_some("")) {
            let is_fit = |name: &&String| name.starts_with(prefix) && name.ends_with(".bin") == is_key;
            let fit: Vec<&String> = self.known.iter().filter(is_fit).collect();
            return fit.get(self.random.below(fit.len())).map_or_else(String::new, |name| (*name).clone());
        }
        let from: &[&str] = fitting(member).unwrap_or(match scalar {
            "integer" => &["0", "1", "2", "5", "8", "-1", "16384", "4294967296", "9223372036854775807"],
            "double" => &["0", "1.5", "-1", "1e308"],
            "boolean" => &["true", "false"],
            "timestamp" => &["2030-01-31T23:59:00Z", "1970-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"],
            _ => &WORDS,
        });
        from[self.random.below(from.len())].to_owned()
    }
}

/// Some that mean something somewhere, and some that never do.
const WORDS: [&str; 44] = [
    "",
    " ",
    "a",
    "self",
    "all",
    "*",
    "?",
    "%00",
    "..",
    "../../etc/passwd",
    "/",
    "/dev/sdf",
    "/dev/xvda",
    "ephemeral0",
    "file:///etc/passwd",
    "file:///",
    "s3://b/k",
    "<item>&amp;\"'",
    "\u{fffd}\u{1f980}",
    "-",
    "-1",
    "tag:a",
    "tag-key",
    "us-east-1",
    "us-east-1a",
    "us-west-2",
    "nowhere",
    "10.0.0.0/8",
    "::/0",
    "0.0.0.0/0",
    "172.31.0.5",
    "tcp",
    "-2",
    "gp3",
    "io2",
    "t3.micro",
    "x86_64",
    "enabled",
    "required",
    "groupSet",
    "launchPermission",
    "add",
    "resolve:ssm:/a",
    "i-0123456789abcdef0",
];

/// One of most kinds of things, and their names.
fn furnish(world: &World, name: &str) -> Vec<String> {
    let image = world.image(name);
    let launch = [("ImageId", image.as_str()), ("MinCount", "2"), ("MaxCount", "2"), ("ClientToken", name)];
    world.ask("RunInstances", &launch);
    world.ask("CreateKeyPair", &[("KeyName", "a")]);
    world.ask("CreateVolume", &[("Size", "1"), ("AvailabilityZone", "us-east-1a")]);
    world.ask("CreateStoreImageTask", &[("ImageId", &image), ("Bucket", "bucket")]);
    world.wait();
    let ids = [
        ("DescribeImages", "imageId"),
        ("DescribeInstances", "instanceId"),
        ("DescribeVolumes", "volumeId"),
        ("DescribeSnapshots", "snapshotId"),
        ("DescribeKeyPairs", "keyPairId"),
        ("DescribeSecurityGroups", "groupId"),
        ("DescribeSecurityGroupRules", "securityGroupRuleId"),
        ("DescribeNetworkInterfaces", "networkInterfaceId"),
        ("DescribeSubnets", "subnetId"),
        ("DescribeVpcs", "vpcId"),
        ("DescribeImportSnapshotTasks", "importTaskId"),
    ];
    let mut known: Vec<String> = ids.iter().flat_map(|(action, name)| world.ask(action, &[]).all(name)).collect();
    known.sort();
    known.dedup();
    assert!(known.len() > 12, "{known:?}");
    known.push("bucket".into());
    known.push(format!("{image}.bin"));
    known
}

/// An answer that EC2 could have given, too.
fn check(answer: &Answer, asked: &dyn std::fmt::Debug) {
    assert!(answer.status == 200 || (400..500).contains(&answer.status), "{asked:?}: {answer:?}");
    let mut xml = quick_xml::Reader::from_str(&answer.xml);
    loop {
        match xml.read_event() {
            Ok(quick_xml::events::Event::Eof) => break,
            Ok(_) => {}
            Err(error) => panic!("{asked:?}: {error}: {answer:?}"),
        }
    }
    if answer.status != 200 {
        let (code, message) = (answer.one("Code"), answer.one("Message"));
        assert!(!code.is_empty() && !message.is_empty(), "{asked:?}: {answer:?}");
        assert_eq!(Some(code), answer.error);
    }
}

#[test]
fn every_action_of_the_model_is_there() {
    let model = Model::new();
    let missing: Vec<&str> = model.actions().map(|(name, _)| name).filter(|name| !is_action(name)).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn an_action_without_its_parameters_is_done_or_says_what_it_needs() {
    let (world, model) = (World::new(), Model::new());
    for (action, _) in model.actions() {
        let answer = world.ask(action, &[]);
        check(&answer, &action);
        let expected = ["MissingParameter", "InvalidParameterCombination"];
        assert!(answer.error.as_deref().is_none_or(|code| expected.contains(&code)), "{action}: {answer:?}");
        assert_eq!(world.ask(action, &[("NoSuchThing.1", "x")]).code(), "UnknownParameter", "{action}");
    }
}

#[test]
fn whatever_is_in_a_request_the_answer_is_one_of_ec2s() {
    let (world, model) = (World::new(), Model::new());
    let mut known = Vec::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut done = 0;
    for round in 0..24 {
        // Much of it is gone by then.
        if round % 4 == 0 {
            known = furnish(&world, &format!("the image of round {round}"));
        }
        for (action, request) in model.actions() {
            let sparse = [2, 8, 32, 128][round % 4];
            let mut dice = Dice { random: &mut random, sparse, wild: [4, 16, 64][round % 3], known: &known };
            let mut parameters = BTreeMap::new();
            model.fill(request, "", &mut dice, &mut parameters);
            let asked: Vec<(&str, &str)> = parameters.iter().map(|(name, value)| (&**name, &**value)).collect();
            let answer = world.ask(action, &asked);
            check(&answer, &(action, &asked));
            done += usize::from(answer.status == 200);
        }
    }
    assert!(done > 300, "{done}");
    world.wait();
    check(&world.ask("DescribeInstances", &[]), &"in the end");
    assert_eq!(world.service.clouds().open(&crate::cloud::Scope::default()).unwrap().check().unwrap(), [""; 0]);
}

#[test]
fn a_damaged_form_is_one_of_ec2s_errors() {
    let (world, model) = (World::new(), Model::new());
    let known = furnish(&world, "an image");
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let actions: Vec<(&str, &str)> = model.actions().collect();
    for _ in 0..1500 {
        let (action, request) = actions[random.below(actions.len())];
        let mut parameters = BTreeMap::new();
        model.fill(request, "", &mut Dice { random: &mut random, sparse: 3, wild: 3, known: &known }, &mut parameters);
        let mut form = form_urlencoded::Serializer::new(format!("Action={action}&DryRun=true"));
        let mut form = form.extend_pairs(&parameters).finish().into_bytes();
        for _ in 0..1 + random.below(4) {
            let at = random.below(form.len());
            let odd = b"&=.%+1\0\xff;"[random.below(9)];
            match random.below(3) {
                0 => form[at] = odd,
                1 => form.insert(at, odd),
                _ => drop(form.remove(at)),
            }
        }
        check(&world.post(&form, Vec::new()), &String::from_utf8_lossy(&form));
    }
}
