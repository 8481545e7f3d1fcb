//! Filters, tags, access keys and parameters, as a person has them on the command line.

mod support;

use serde_json::{Value, json};
use support::cloud::{CloudWorld, text};
use support::finish;

/// What a field of each thing of a listing says.
fn each(listing: &Value, field: &str) -> Vec<String> {
    listing.as_array().unwrap().iter().map(|one| text(&one[field])).collect()
}

#[test]
fn listings_take_the_filters_that_ec2_has() {
    let cloud = CloudWorld::new();
    cloud.image("echo", "first");
    let web = cloud.launch("first", &["--name", "web"]);
    let other = cloud.launch("first", &["--name", "other", "--zone", "us-east-1b"]);
    let ids = |filters: &[&str]| each(&cloud.json(&[&["instance", "ls"], filters].concat()), "instance_id");
    assert_eq!(ids(&["--filter", "tag:Name=w*"]), std::slice::from_ref(&web));
    assert_eq!(ids(&["--filter", "Name=availability-zone,Values=us-east-1b,us-east-1c"]), [other]);
    assert_eq!(ids(&["--filter", "instance-state-name=running", "group-name=default"]).len(), 2);
    assert_eq!(ids(&["--filter", "ip-address=*"]), [""; 0]);
    cloud.refused("InvalidParameterValue", &["instance", "ls", "--filter", "colour=red"]);
    let volumes = cloud.json(&["volume", "ls", "--filter", &format!("attachment.instance-id={web}")]);
    let volume = each(&volumes, "volume_id").remove(0);
    let snapshots = cloud.json(&["snapshot", "create", &volume, "--description", "of web"]);
    let found = cloud.json(&["snapshot", "ls", "--filter", "description=of *", &format!("volume-id={volume}")]);
    assert_eq!(each(&found, "snapshot_id"), each(&snapshots, "snapshot_id"));
    cloud.json(&["key", "create", "mine"]);
    assert_eq!(each(&cloud.json(&["key", "ls", "--filter", "key-type=ed25519"]), "key_name"), ["mine"]);
    assert_eq!(cloud.json(&["key", "ls", "--filter", "key-type=rsa"]), json!([]));
    cloud.done(&["instance", "terminate", "--force", "web", "other"]);
    // What is gone is in no network any more.
    assert_eq!(ids(&["--filter", "instance-state-name=terminated"]).len(), 2);
    assert_eq!(ids(&["--filter", "subnet-id=*"]), [""; 0]);
    cloud.check();
}

#[test]
fn an_access_key_is_told_once_in_words_that_a_shell_takes() {
    let cloud = CloudWorld::new();
    let ended = cloud.done(&["access-key", "create"]);
    let words: Vec<_> = ended.stdout.lines().map(|line| line.strip_prefix("export ").unwrap()).collect();
    let values: Vec<_> = words.iter().map(|word| word.split_once('=').unwrap()).collect();
    let names: Vec<_> = values.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"]);
    let (id, secret) = (values[0].1, values[1].1);
    assert_eq!((id.len(), secret.len(), values[2].1), (20, 40, "us-east-1"));
    assert!(ended.stdout.bytes().all(|b| b.is_ascii_alphanumeric() || b" =_+/-\n".contains(&b)), "{ended:?}");
    let theirs = cloud.json(&["access-key", "create", "--owner", "222222222222"]);
    assert_eq!(theirs["account"], "222222222222");
    let listed = finish(cloud.amiboot(&["access-key", "ls", "--all"]).arg("--json")).code(0);
    assert!(listed.stdout.contains(id) && !listed.stdout.contains(secret), "{listed:?}");
    let mine = || each(&cloud.json(&["access-key", "ls"]), "access_key_id");
    assert_eq!(mine(), [id]);
    cloud.refused("NoSuchEntity", &["access-key", "delete", "--owner", "222222222222", id]);
    cloud.done(&["access-key", "delete", id]);
    assert!(mine().is_empty());
}

#[test]
fn a_launch_takes_the_name_of_a_parameter_for_its_image() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64";
    let put = ["parameter", "put", name, &image, "--data-type", "aws:ec2:image"];
    assert_eq!(cloud.json(&put)["version"], 1);
    cloud.refused("ParameterAlreadyExists", &put);
    assert_eq!(cloud.json(&[&put[..], &["--overwrite"]].concat())["version"], 2);
    cloud.refused(
        "InvalidAMIID.NotFound",
        &["parameter", "put", "other", "ami-0123456789abcdef0", "--data-type", "aws:ec2:image"],
    );
    assert_eq!(cloud.done(&["parameter", "get", name]).stdout, format!("{image}\n"));
    assert_eq!(each(&cloud.json(&["parameter", "ls", "--path", "/aws/service"]), "name"), [name]);
    assert_eq!(each(&cloud.json(&["parameter", "ls", "--owner", "222222222222"]), "name"), [name]);
    let id = cloud.launch(&format!("resolve:ssm:{name}"), &[]);
    assert_eq!(cloud.instance(&id)["image_id"], image);
    cloud.done(&["instance", "terminate", "--force", &id]);
    cloud.done(&["parameter", "delete", name]);
    cloud.refused("ParameterNotFound", &["parameter", "get", name]);
}

#[test]
fn networks_have_tags_like_everything() {
    let cloud = CloudWorld::new();
    cloud.image("echo", "first");
    let id = cloud.launch("first", &[]);
    let interface = &cloud.instance(&id)["network_interface"];
    for field in ["network_interface_id", "subnet_id", "vpc_id"] {
        let resource = text(&interface[field]);
        cloud.done(&["tag", "set", &resource, "for=tests"]);
        assert!(cloud.done(&["tag", "ls", &resource]).stdout.contains("tests"), "{resource}");
    }
    let group = text(&interface["groups"][0]["group_id"]);
    cloud.done(&["tag", "set", &group, "for=tests"]);
    assert_eq!(cloud.instance(&id)["network_interface"]["tags"], json!({ "for": "tests" }));
    let ended = cloud.refused("InvalidGroup.NotFound", &["tag", "ls", "sg-00000001"]);
    assert!(!ended.contains("amiboot security"), "{ended}");
    cloud.done(&["instance", "terminate", "--force", &id]);
    let gone = text(&interface["network_interface_id"]);
    cloud.refused("InvalidNetworkInterfaceID.NotFound", &["tag", "ls", &gone]);
    cloud.check();
}
