//! Each of EC2's error codes that the cloud has, provoked by the command line.

use crate::support::cloud::{CloudWorld, path, text};

const OTHER: &str = "210987654321";

#[test]
fn of_images() {
    let cloud = CloudWorld::new();
    let disk = cloud.disk("echo", "first");
    let image = cloud.import(&disk, "first");
    let import = |name| ["image", "import", path(&disk), "--name", name, "--architecture", "x86_64"];
    cloud.refused("InvalidAMIID.Malformed", &["image", "show", "ami-xyz"]);
    cloud.refused("InvalidAMIID.NotFound", &["image", "show", "ami-0123456789abcdef0"]);
    cloud.refused("InvalidAMIName.Duplicate", &import("first"));
    cloud.refused("InvalidAMIName.Malformed", &import("no"));
    cloud.refused("InvalidAMIName.Malformed", &import("no#way"));
    cloud.refused("InvalidAMIAttributeItemValue", &["image", "share", &image, "--account", "12"]);
    cloud.refused("InvalidParameterCombination", &["image", "share", &image, "--account", OTHER, "--revoke", OTHER]);
    cloud.refused("InvalidAMIID.NotFound", &["image", "show", &image, "--owner", OTHER]);
    cloud.refused("InvalidParameterValue", &["image", "ls", "--filter", "colour=red"]);
    cloud.refused("InvalidParameterValue", &["image", "ls", "--region", "mars-north-1"]);
    cloud.done(&["image", "protect", &image]);
    cloud.refused("OperationNotPermitted", &["image", "deregister", &image]);
    cloud.done(&["image", "protect", &image, "--off"]);
    cloud.done(&["image", "share", &image, "--public"]);
    cloud.refused("UnauthorizedOperation", &["image", "deregister", &image, "--owner", OTHER]);
    cloud.done(&["image", "product-code", &image, "--add", "abcdef"]);
    let run = ["instance", "run", &image, "--type", "t3.nano", "--owner", OTHER];
    cloud.refused("OptInRequired", &run);
    cloud.done(&["image", "subscribe", "abcdef", "--owner", OTHER]);
    cloud.done(&run);
    cloud.done(&["image", "share", &image, "--reset"]);
    cloud.refused("AuthFailure", &run);
    cloud.done(&["image", "disable", &image]);
    cloud.refused("InvalidAMIID.Unavailable", &["instance", "run", &image]);
    cloud.refused("IncorrectState", &["image", "share", &image, "--public"]);
    cloud.done(&["image", "deregister", &image]);
    cloud.refused("InvalidAMIID.Unavailable", &["instance", "run", &image]);
    cloud.check();
}

#[test]
fn of_instances() {
    let cloud = CloudWorld::new();
    let disk = cloud.disk("echo", "first");
    let image = cloud.import(&disk, "first");
    cloud.refused("InvalidInstanceID.Malformed", &["instance", "show", "i-xyz"]);
    cloud.refused("InvalidInstanceID.NotFound", &["instance", "show", "i-0123456789abcdef0"]);
    let run = |more: &[&'static str]| [&["instance", "run", image.as_str()], more].concat();
    cloud.refused("InvalidParameterValue", &run(&["--type", "t9.huge"]));
    cloud.refused("InvalidParameterValue", &run(&["--count", "0"]));
    cloud.refused("InstanceLimitExceeded", &run(&["--count", "101"]));
    cloud.refused("InvalidParameterValue", &run(&["--zone", "mars-north-1a"]));
    cloud.refused("InvalidParameterValue", &run(&["--shutdown-behavior", "explode"]));
    cloud.refused("InvalidBlockDeviceMapping", &run(&["--bdm", "/dev/sda1=none"]));
    cloud.refused("InvalidSnapshot.NotFound", &run(&["--bdm", "/dev/sdf=snap-0123456789abcdef0"]));
    let token = ["--type", "t3.nano", "--client-token", "once"];
    let instance = text(&cloud.json(&run(&token))[0]["instance_id"]);
    assert_eq!(cloud.json(&run(&token))[0]["instance_id"], *instance);
    cloud.refused("IdempotentParameterMismatch", &run(&[&token[..], &["--count", "2"]].concat()));
    cloud.done(&["instance", "modify", &instance, "--termination-protection", "on", "--stop-protection", "on"]);
    cloud.refused("OperationNotPermitted", &["instance", "terminate", &instance]);
    cloud.refused("OperationNotPermitted", &["instance", "stop", &instance]);
    cloud.refused("IncorrectInstanceState", &["instance", "modify", &instance, "--type", "t3.micro"]);
    assert_eq!(cloud.state(&instance), "running");
    cloud.done(&["instance", "modify", &instance, "--termination-protection", "off", "--stop-protection", "off"]);
    cloud.refused("InvalidInstanceID.NotFound", &["instance", "terminate", &instance, "--owner", OTHER]);
    // One that is none keeps all others from being asked.
    cloud
        .refused("InvalidInstanceID.NotFound", &["instance", "terminate", "--force", &instance, "i-0123456789abcdef0"]);
    assert_eq!(cloud.state(&instance), "running");
    cloud.done(&["instance", "terminate", "--force", &instance]);
    cloud.refused("IncorrectInstanceState", &["instance", "start", &instance]);
    cloud.refused("IncorrectInstanceState", &["instance", "stop", &instance]);
    cloud.refused("IncorrectInstanceState", &["instance", "reboot", &instance]);
    cloud.refused("IncorrectInstanceState", &["image", "create", &instance, "--name", "second"]);
    let store = ["image", "import", path(&disk), "--name", "store", "--architecture", "x86_64", "--instance-store"];
    let store = text(&cloud.json(&store)["image_id"]);
    let instance = cloud.launch(&store, &[]);
    cloud.refused("UnsupportedOperation", &["instance", "stop", &instance]);
    cloud.refused("UnsupportedOperation", &["image", "create", &instance, "--name", "second"]);
    cloud.refused("UnsupportedOperation", &["instance", "run", &store, "--shutdown-behavior", "stop"]);
    cloud.check();
}

#[test]
fn of_volumes_and_snapshots() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let snapshot = cloud.root_snapshot(&image);
    let instance = cloud.launch(&image, &["--zone", "us-east-1a"]);
    let root = cloud.volume_at(&instance, "/dev/sda1");
    cloud.refused("InvalidSnapshot.NotFound", &["snapshot", "show", "snap-0123456789abcdef0"]);
    cloud.refused("InvalidSnapshot.InUse", &["snapshot", "delete", &snapshot]);
    cloud.refused("InvalidVolume.NotFound", &["volume", "show", "vol-0123456789abcdef0"]);
    cloud.refused("MissingParameter", &["volume", "create"]);
    cloud.refused("InvalidParameterValue", &["volume", "create", "--size", "0"]);
    cloud.refused("InvalidParameterValue", &["volume", "create", "--size", "1", "--type", "gp99"]);
    let elsewhere = text(&cloud.json(&["volume", "create", "--size", "1", "--zone", "us-east-1b"])["volume_id"]);
    cloud.refused("InvalidVolume.ZoneMismatch", &["volume", "attach", &elsewhere, &instance, "/dev/sdf"]);
    cloud.refused("IncorrectState", &["volume", "detach", &elsewhere]);
    let volume = text(&cloud.json(&["volume", "create", "--size", "2", "--zone", "us-east-1a"])["volume_id"]);
    cloud.refused("InvalidParameterValue", &["volume", "grow", &volume, "--size", "1"]);
    cloud.refused("InvalidParameterValue", &["volume", "attach", &volume, &instance, "sdf"]);
    cloud.refused("InvalidParameterValue", &["volume", "attach", &volume, &instance, "/dev/sda1"]);
    cloud.refused("VolumeInUse", &["volume", "delete", &root]);
    cloud.refused("VolumeInUse", &["volume", "attach", &root, &instance, "/dev/sdf"]);
    cloud.refused("OperationNotPermitted", &["volume", "detach", &root]);
    // A machine that cannot take volumes while it runs says so, and nothing is left of it.
    cloud.refused("UnsupportedOperation", &["volume", "attach", &volume, &instance, "/dev/sdf"]);
    cloud.check();
    cloud.refused("InvalidSnapshot.NotFound", &["snapshot", "delete", &snapshot, "--owner", OTHER]);
    cloud.done(&["snapshot", "share", &snapshot, "--account", OTHER]);
    cloud.refused("UnauthorizedOperation", &["snapshot", "delete", &snapshot, "--owner", OTHER]);
    cloud.check();
}
