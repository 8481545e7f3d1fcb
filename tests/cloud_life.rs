//! The life of images and instances, as a person has it on the command line: each state and why, and what is left of what.

mod support;

use std::fs;

use serde_json::Value;
use support::cloud::{CloudWorld, OWNER, path, text};
use support::{finish, wait_until};

const OTHER: &str = "210987654321";
/// Another region.
const FAR: &str = "us-west-2";

/// EC2's codes of why an instance is in its state.
const BY_USER: &str = "Client.UserInitiatedShutdown";
const BY_GUEST: &str = "Client.InstanceInitiatedShutdown";
const BY_FATE: &str = "Server.InternalError";

fn ids(all: &Value, key: &str) -> Vec<String> {
    all.as_array().unwrap().iter().map(|one| text(&one[key])).collect()
}

#[test]
fn from_a_disk_to_an_instance_and_back() {
    let cloud = CloudWorld::new();
    let disk = cloud.disk("echo", "first");
    let image = cloud.import(&disk, "first");
    // The file is not needed any more.
    fs::remove_file(disk).unwrap();
    let shown = cloud.json(&["image", "show", "first"]);
    assert_eq!(shown["image_id"], *image);
    assert_eq!(
        (&shown["state"], &shown["virtualization_type"], &shown["root_device_type"], &shown["root_device_name"]),
        (&"available".into(), &"paravirtual".into(), &"ebs".into(), &"/dev/sda1".into())
    );
    let run = ["instance", "run", "first", "--type", "t3.nano", "--name", "web", "--tag", "stage=test"];
    let launched = cloud.json(&run);
    let instance = text(&launched[0]["instance_id"]);
    assert_eq!((&launched[0]["state"], &launched[0]["state_reason"]), (&"running".into(), &Value::Null));
    assert_eq!(launched[0]["tags"], serde_json::json!({"Name": "web", "stage": "test"}));
    cloud.type_on(&instance, b"hello", "HELLO");
    let log = cloud.done(&["instance", "console", "web", "--log"]).shows("type").shows("HELLO");
    assert!(log.stderr.is_empty());
    // Its name and the beginning of its id mean it, too.
    assert_eq!(cloud.state("web"), "running");
    assert_eq!(cloud.state(&instance[..10]), "running");
    let volume = cloud.volume_at(&instance, "/dev/sda1");
    let pid = cloud.pid(&instance);
    let stopped = cloud.json(&["instance", "stop", "--grace", "0s", "web"]);
    assert_eq!((&stopped[0]["state"], &stopped[0]["state_reason"]["code"]), (&"stopped".into(), &BY_USER.into()));
    cloud.check();
    // The output so far is there while it is stopped; the volume is, too.
    cloud.done(&["instance", "console", "web", "--log"]).shows("HELLO");
    assert_eq!(cloud.volume_at(&instance, "/dev/sda1"), volume);
    let started = cloud.json(&["instance", "start", "web"]);
    assert_eq!((&started[0]["state"], &started[0]["state_reason"]), (&"running".into(), &Value::Null));
    assert_ne!(cloud.pid(&instance), pid);
    let pid = cloud.pid(&instance);
    cloud.done(&["instance", "reboot", "--grace", "0s", "web"]);
    assert_eq!(cloud.state_and_reason(&instance), ("running".into(), String::new()));
    assert_ne!(cloud.pid(&instance), pid);
    assert_eq!(cloud.volume_at(&instance, "/dev/sda1"), volume);
    cloud.type_on(&instance, b"again", "AGAIN");
    let terminated = cloud.json(&["instance", "terminate", "--force", "web"]);
    assert_eq!(
        (&terminated[0]["state"], &terminated[0]["state_reason"]["code"]),
        (&"terminated".into(), &BY_USER.into())
    );
    // Its volume went with it, and its name means nothing any more.
    cloud.refused("InvalidVolume.NotFound", &["volume", "show", &volume]);
    cloud.refused("InvalidInstanceID.NotFound", &["instance", "show", "web"]);
    cloud.check();
    assert_eq!(cloud.query("SELECT id FROM layers").len(), 1);
}

#[test]
fn guests_that_switch_themselves_off() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let stops = cloud.launch(&image, &[]);
    let goes = cloud.launch(&image, &["--shutdown-behavior", "terminate"]);
    let changed = cloud.launch(&image, &[]);
    cloud.done(&["instance", "modify", &changed, "--shutdown-behavior", "terminate"]);
    for instance in [&stops, &goes, &changed] {
        cloud.switch_off(instance);
    }
    cloud.check();
    assert_eq!(cloud.state_and_reason(&stops), ("stopped".into(), BY_GUEST.into()));
    assert_eq!(cloud.state_and_reason(&goes), ("terminated".into(), BY_GUEST.into()));
    assert_eq!(cloud.state_and_reason(&changed), ("terminated".into(), BY_GUEST.into()));
    assert_eq!(cloud.json(&["volume", "ls"]).as_array().unwrap().len(), 1);
    cloud.done(&["instance", "start", &stops]);
    cloud.type_on(&stops, b"abc", "ABC");
    // One that ends at once has run all the same; nobody has to look for that to be noted.
    let brief = cloud.image("hello", "brief");
    let instance = cloud.launch(&brief, &["--shutdown-behavior", "terminate"]);
    let ended = format!("SELECT state FROM instances WHERE id = '{instance}'");
    wait_until("its end is noted", || cloud.query(&ended) == ["terminated"]);
    cloud.done(&["instance", "console", &instance, "--log"]).shows("hello from the guest");
    // A crash is none's wish: the volume stays.
    let crashes = cloud.image("triple", "crashes");
    let instance = cloud.launch(&crashes, &["--shutdown-behavior", "terminate"]);
    cloud.check();
    assert_eq!(cloud.state_and_reason(&instance), ("stopped".into(), BY_FATE.into()));
    assert!(text(&cloud.instance(&instance)["state_reason"]["message"]).contains("triple fault"));
}

#[test]
fn machines_that_are_killed_and_hosts_that_go_down() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let one = cloud.launch(&image, &["--shutdown-behavior", "terminate", "--bdm", "/dev/sdf=1G"]);
    let other = cloud.launch(&image, &[]);
    cloud.kill_machine(&one);
    // The next command sees it, and what it had is there.
    assert_eq!(cloud.state_and_reason(&one), ("stopped".into(), BY_FATE.into()));
    assert!(text(&cloud.instance(&one)["state_reason"]["message"]).contains("killed"));
    assert_eq!(cloud.state(&other), "running");
    cloud.check();
    cloud.done(&["instance", "start", &one]);
    cloud.type_on(&one, b"abc", "ABC");
    // The host goes down: all processes at once.
    let store = [
        "image",
        "import",
        path(&cloud.disk("echo", "store")),
        "--name",
        "store",
        "--architecture",
        "x86_64",
        "--instance-store",
    ]
    .map(ToOwned::to_owned);
    let store = text(&cloud.json(&store.each_ref().map(String::as_str))["image_id"]);
    let lost = cloud.launch(&store, &[]);
    for instance in [&one, &other, &lost] {
        cloud.kill_machine(instance);
    }
    assert_eq!(cloud.state_and_reason(&one), ("stopped".into(), BY_FATE.into()));
    assert_eq!(cloud.state_and_reason(&other), ("stopped".into(), BY_FATE.into()));
    // An instance-store root is lost with its machine.
    assert_eq!(cloud.state_and_reason(&lost), ("terminated".into(), BY_FATE.into()));
    cloud.check();
    let started = cloud.json(&["instance", "start", &one, &other]);
    assert_eq!(ids(&started, "state"), ["running", "running"]);
    // One that is killed while it is to stop has stopped.
    cloud.done(&["instance", "stop", "--no-wait", "--grace", "1h", &one]);
    assert_eq!(cloud.state_and_reason(&one), ("stopping".into(), BY_USER.into()));
    cloud.refused("IncorrectInstanceState", &["instance", "start", &one]);
    cloud.kill_machine(&one);
    assert_eq!(cloud.state_and_reason(&one), ("stopped".into(), BY_USER.into()));
    cloud.done(&["instance", "terminate", "--no-wait", "--grace", "1h", &other]);
    assert_eq!(cloud.state_and_reason(&other), ("shutting-down".into(), BY_USER.into()));
    cloud.kill_machine(&other);
    assert_eq!(cloud.state_and_reason(&other), ("terminated".into(), BY_USER.into()));
    cloud.check();
}

#[test]
fn protection() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let one = cloud.launch(&image, &["--termination-protection"]);
    let other = cloud.launch(&image, &[]);
    let said = cloud.refused("OperationNotPermitted", &["instance", "terminate", "--force", &other, &one]);
    assert!(said.contains("disableApiTermination") && said.contains("--termination-protection off"), "{said}");
    // None of them was ended; the guest's own power-off is not protected against.
    assert_eq!((cloud.state(&one), cloud.state(&other)), ("running".into(), "running".into()));
    cloud.done(&["instance", "modify", &one, "--shutdown-behavior", "terminate"]);
    cloud.switch_off(&one);
    cloud.check();
    assert_eq!(cloud.state(&one), "terminated");
    cloud.done(&["instance", "modify", &other, "--stop-protection", "on"]);
    cloud.refused("OperationNotPermitted", &["instance", "stop", "--force", &other]);
    cloud.done(&["instance", "terminate", "--force", &other]);
    cloud.check();
}

#[test]
fn instance_store_images() {
    let cloud = CloudWorld::new();
    let disk = cloud.disk("echo", "first");
    let import = ["image", "import", path(&disk), "--name", "first", "--architecture", "x86_64", "--instance-store"];
    let image = cloud.json(&import);
    assert_eq!(
        (&image["root_device_type"], &image["block_device_mappings"]),
        (&"instance-store".into(), &Value::Array(Vec::new()))
    );
    let image = text(&image["image_id"]);
    let [one, other] = [(); 2].map(|()| cloud.launch(&image, &[]));
    assert_eq!(cloud.instance(&one)["instance_initiated_shutdown_behavior"], "terminate");
    // They run on when their image goes, and so does their template.
    cloud.done(&["image", "deregister", &image]);
    cloud.refused("InvalidAMIID.Unavailable", &["instance", "run", &image]);
    cloud.done(&["instance", "reboot", "--force", &one]);
    cloud.type_on(&one, b"abc", "ABC");
    cloud.check();
    cloud.switch_off(&one);
    cloud.done(&["instance", "terminate", "--force", &other]);
    cloud.check();
    assert_eq!(cloud.state_and_reason(&one), ("terminated".into(), BY_GUEST.into()));
    assert_eq!(cloud.query("SELECT id FROM layers"), Vec::<String>::new());
}

#[test]
fn many_at_once_share_what_they_are_made_of() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let run = ["instance", "run", &image, "--type", "t3.nano", "--count", "4", "--client-token", "four"];
    let launched = cloud.json(&run);
    let instances = ids(&launched, "instance_id");
    let indices: Vec<u64> =
        launched.as_array().unwrap().iter().map(|one| one["ami_launch_index"].as_u64().unwrap()).collect();
    assert_eq!(indices, [0, 1, 2, 3]);
    assert!(ids(&launched, "reservation_id").windows(2).all(|pair| pair[0] == pair[1]));
    for instance in &instances {
        cloud.type_on(instance, b"abc", "ABC");
    }
    // The same request again launches nothing; another with its token is refused.
    assert_eq!(ids(&cloud.json(&run), "instance_id"), instances);
    cloud.refused("IdempotentParameterMismatch", &[&run[..], &["--name", "five"]].concat());
    cloud.check();
    assert_eq!(cloud.query("SELECT id FROM layers").len(), 5);
    let words: Vec<&str> =
        ["instance", "terminate", "--force"].into_iter().chain(instances.iter().map(String::as_str)).collect();
    assert_eq!(ids(&cloud.json(&words), "state"), ["terminated"; 4]);
    cloud.check();
    assert_eq!(cloud.query("SELECT id FROM layers").len(), 1);
}

#[test]
fn volumes_come_grow_and_go() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let made = cloud.json(&["volume", "create", "--size", "1"]);
    assert_eq!((&made["state"], &made["size"], &made["volume_type"]), (&"available".into(), &1.into(), &"gp2".into()));
    let volume = text(&made["volume_id"]);
    cloud.write(&volume, &[(4096, b"kept")]);
    let instance = cloud.launch(&image, &["--bdm", "/dev/sdf=2G,delete-on-termination=false", "--bdm", "/dev/sdg=1G"]);
    let (stays, goes) = (cloud.volume_at(&instance, "/dev/sdf"), cloud.volume_at(&instance, "/dev/sdg"));
    cloud.done(&["instance", "stop", "--force", &instance]);
    let attached = cloud.json(&["volume", "attach", &volume, &instance, "/dev/sdh"]);
    assert_eq!((&attached["state"], &attached["delete_on_termination"]), (&"attached".into(), &false.into()));
    let grown = cloud.json(&["volume", "grow", &volume, "--size", "3"]);
    assert_eq!((&grown["size"], &grown["state"]), (&3.into(), &"in-use".into()));
    cloud.done(&["instance", "start", &instance]);
    let mut volumes = cloud.client(&instance).status().unwrap().volumes;
    volumes.sort_by(|a, b| a.device.cmp(&b.device));
    let sizes: Vec<(&str, u64)> = volumes.iter().map(|volume| (volume.device.as_str(), volume.size >> 30)).collect();
    assert_eq!(sizes, [("/dev/sda1", 1), ("/dev/sdf", 2), ("/dev/sdg", 1), ("/dev/sdh", 3)]);
    // A PV machine takes and gives none while it runs, and says so.
    cloud.refused("UnsupportedOperation", &["volume", "detach", &volume]);
    cloud.check();
    cloud.done(&["instance", "stop", "--force", &instance]);
    let detached = cloud.json(&["volume", "detach", &volume, "--instance", &instance]);
    assert_eq!(detached["state"], "detached");
    assert_eq!(cloud.json(&["volume", "show", &volume])["state"], "available");
    let mut back = [0; 4];
    amiboot::disk::Disk::read_exact_at(&cloud.volume_disk(&volume), 4096, &mut back).unwrap();
    assert_eq!(&back, b"kept");
    cloud.wait_until_free(&volume);
    cloud.done(&["instance", "start", &instance]);
    cloud.done(&["instance", "terminate", "--force", &instance]);
    cloud.refused("InvalidVolume.NotFound", &["volume", "show", &goes]);
    assert_eq!(cloud.json(&["volume", "show", &stays])["state"], "available");
    cloud.done(&["volume", "delete", &stays, &volume]);
    cloud.check();
    assert_eq!(cloud.json(&["volume", "ls"]).as_array().unwrap().len(), 0);
}

#[test]
fn snapshots_outlive_each_other() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let root = cloud.contents(&cloud.root_snapshot(&image));
    let instance = cloud.launch(&image, &["--bdm", "/dev/sdf=1G"]);
    // Of both volumes of a running machine, named in any order.
    let (first, second) = (cloud.volume_at(&instance, "/dev/sda1"), cloud.volume_at(&instance, "/dev/sdf"));
    let other = cloud.launch(&image, &[]);
    let third = cloud.volume_at(&other, "/dev/sda1");
    cloud.refused("InvalidParameterValue", &["snapshot", "create", &first, &first]);
    let taken = cloud.json(&["snapshot", "create", &first, &third, &second, "--description", "all"]);
    assert_eq!(ids(&taken, "state"), ["completed"; 3]);
    assert_eq!(ids(&taken, "volume_id"), [first.clone(), third, second.clone()]);
    assert_eq!(cloud.contents(&ids(&taken, "snapshot_id")[0]), root);
    assert_eq!(cloud.contents(&ids(&taken, "snapshot_id")[1]), root);
    cloud.type_on(&instance, b"abc", "ABC");
    cloud.check();
    cloud.done(&["instance", "terminate", "--force", &other]);
    // A chain of some, with what each has of its own and what the next hides.
    cloud.done(&["instance", "stop", "--force", &instance]);
    let mut chain: Vec<(String, [u8; 32])> = (1..=6_u8)
        .map(|number| {
            let bytes = [number; 70_000];
            cloud.write(&second, &[(u64::from(number) << 20, &bytes), (16 << 20, &bytes), (1 << 20, &bytes[..5000])]);
            let snapshot = text(&cloud.json(&["snapshot", "create", &second])[0]["snapshot_id"]);
            let contents = cloud.contents(&snapshot);
            (snapshot, contents)
        })
        .collect();
    let copy = text(&cloud.json(&["snapshot", "copy", &chain[2].0, "--to-region", FAR])["snapshot_id"]);
    let of_copy = chain[2].1;
    let volume = text(&cloud.json(&["volume", "create", "--snapshot", &chain[3].0])["volume_id"]);
    let of_volume = chain[3].1;
    for at in [2, 0, 2, 1] {
        let (snapshot, _) = chain.remove(at);
        cloud.done(&["snapshot", "delete", &snapshot]);
        cloud.check();
        for (snapshot, contents) in &chain {
            assert_eq!(cloud.contents(snapshot), *contents);
        }
    }
    assert_eq!(support::cloud::hash(&cloud.volume_disk(&volume)), of_volume);
    let copied = cloud.json(&["volume", "create", "--snapshot", &copy, "--region", FAR]);
    assert_eq!(support::cloud::hash(&cloud.volume_disk(&text(&copied["volume_id"]))), of_copy);
    cloud.done(&["instance", "start", &instance]);
    cloud.type_on(&instance, b"abc", "ABC");
    cloud.check();
}

#[test]
fn images_of_instances() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let instance = cloud.launch(&image, &["--bdm", "/dev/sdf=1G"]);
    let second = cloud.volume_at(&instance, "/dev/sdf");
    let pid = cloud.pid(&instance);
    // Without a pause: the machine is the same.
    let made = cloud.json(&[
        "image",
        "create",
        &instance,
        "--name",
        "live",
        "--no-reboot",
        "--description",
        "lives",
        "--tag",
        "a=b",
    ]);
    assert_eq!(
        (&made["state"], &made["source_instance_id"], &made["description"]),
        (&"available".into(), &instance.as_str().into(), &"lives".into())
    );
    assert_eq!(ids(&made["block_device_mappings"], "device_name"), ["/dev/sda1", "/dev/sdf"]);
    assert_eq!(cloud.pid(&instance), pid);
    cloud.type_on(&instance, b"abc", "ABC");
    // With one: it is started again, whatever its own end would mean.
    cloud.done(&["instance", "modify", &instance, "--shutdown-behavior", "terminate"]);
    cloud.done(&["image", "create", &instance, "--name", "paused", "--grace", "0s"]);
    assert_eq!(cloud.state_and_reason(&instance), ("running".into(), String::new()));
    assert_ne!(cloud.pid(&instance), pid);
    cloud.type_on(&instance, b"abc", "ABC");
    // Of a stopped one, which stays so; a volume is left out.
    cloud.done(&["instance", "stop", "--force", &instance]);
    cloud.write(&second, &[(1 << 20, b"in the last one")]);
    let made = cloud.json(&["image", "create", &instance, "--name", "stopped", "--bdm", "/dev/sdf=none"]);
    assert_eq!(ids(&made["block_device_mappings"], "device_name"), ["/dev/sda1"]);
    let made = cloud.json(&["image", "create", &instance, "--name", "whole"]);
    assert_eq!(cloud.state(&instance), "stopped");
    let data = text(&made["block_device_mappings"][1]["ebs"]["snapshot_id"]);
    let mut back = [0; 15];
    cloud.cloud().snapshot_disk(&data).unwrap().1.read_exact_at(1 << 20, &mut back).unwrap();
    assert_eq!(&back, b"in the last one");
    cloud.check();
    // They are whole by themselves.
    cloud.done(&["instance", "terminate", "--force", &instance]);
    cloud.done(&["image", "deregister", &image, "--delete-snapshots"]);
    for name in ["live", "paused", "stopped", "whole"] {
        let instance = cloud.launch(name, &[]);
        cloud.type_on(&instance, b"abc", "ABC");
        cloud.done(&["instance", "terminate", "--force", &instance]);
        cloud.check();
    }
}

#[test]
fn images_are_copied_shared_and_withdrawn() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let wanted = cloud.contents(&cloud.root_snapshot(&image));
    let runs = cloud.launch(&image, &[]);
    // Into another region, where nothing else is.
    let copy = text(&cloud.json(&["image", "copy", "first", "--name", "far", "--to-region", FAR])["image_id"]);
    assert_eq!(cloud.json(&["image", "ls", "--region", FAR])[0]["image_id"], *copy);
    cloud.refused("InvalidAMIID.NotFound", &["image", "show", &image, "--region", FAR]);
    // Another account sees and launches what is shared with it, as its own.
    cloud.refused("InvalidAMIID.NotFound", &["image", "show", &image, "--owner", OTHER]);
    cloud.done(&["image", "share", &image, "--account", OTHER]);
    let launched = cloud.json(&["instance", "run", &image, "--type", "t3.nano", "--owner", OTHER]);
    let shared = text(&launched[0]["instance_id"]);
    assert_eq!(launched[0]["owner_id"], OTHER);
    cloud.type_on(&shared, b"abc", "ABC");
    assert_eq!(cloud.json(&["instance", "ls", "--owner", OTHER]).as_array().unwrap().len(), 1);
    cloud.refused("InvalidInstanceID.NotFound", &["instance", "show", &shared, "--owner", OWNER]);
    cloud.refused("UnauthorizedOperation", &["image", "deregister", &image, "--owner", OTHER]);
    // Its own image of it does not hang on the other's.
    cloud.done(&["image", "create", &shared, "--name", "own", "--no-reboot", "--owner", OTHER]);
    cloud.done(&["image", "share", &image, "--revoke", OTHER]);
    cloud.refused("AuthFailure", &["instance", "run", &image, "--owner", OTHER]);
    // It is withdrawn: what runs runs on, also over a stop, and nothing new is launched.
    cloud.done(&["image", "deregister", &image, "--delete-snapshots"]);
    cloud.refused("InvalidAMIID.Unavailable", &["instance", "run", &image]);
    assert_eq!(cloud.json(&["image", "ls"]).as_array().unwrap().len(), 0);
    cloud.type_on(&runs, b"abc", "ABC");
    cloud.done(&["instance", "stop", "--force", &runs]);
    cloud.done(&["instance", "start", &runs]);
    cloud.type_on(&runs, b"abc", "ABC");
    cloud.type_on(&shared, b"abc", "ABC");
    cloud.check();
    let far = text(&cloud.json(&["instance", "run", "far", "--type", "t3.nano", "--region", FAR])[0]["instance_id"]);
    cloud.type_on(&far, b"abc", "ABC");
    let own = cloud.json(&["instance", "run", "own", "--type", "t3.nano", "--owner", OTHER]);
    cloud.type_on(&text(&own[0]["instance_id"]), b"abc", "ABC");
    let far_snapshot =
        cloud.query(&format!("SELECT json_extract(mapping, '$[0].ebs.snapshot_id') FROM images WHERE id = '{copy}'"));
    let copied = cloud.json(&["volume", "create", "--snapshot", &far_snapshot[0], "--region", FAR]);
    assert_eq!(support::cloud::hash(&cloud.volume_disk(&text(&copied["volume_id"]))), wanted);
    cloud.check();
    // The name is free again.
    cloud.image("echo", "first");
}

#[test]
fn disks_come_out_as_they_went_in() {
    let cloud = CloudWorld::new();
    let disk = cloud.disk("echo", "first");
    let image = cloud.import(&disk, "first");
    let wanted = cloud.contents(&cloud.root_snapshot(&image));
    for format in ["raw", "qcow2", "vmdk", "vhd"] {
        let file = cloud.world.path(&format!("out.{format}"));
        cloud.done(&["image", "export", &image, path(&file), "--format", format]);
        let again = cloud.import(&file, format);
        assert_eq!(cloud.contents(&cloud.root_snapshot(&again)), wanted, "{format}");
        // What is there is not written over.
        let said = finish(&mut cloud.amiboot(&["image", "export", &image, path(&file), "--format", format])).code(1);
        assert!(said.stderr.contains(path(&file)), "{said:#?}");
    }
    let instance = cloud.launch("vmdk", &[]);
    cloud.type_on(&instance, b"abc", "ABC");
    cloud.check();
}

#[test]
fn a_name_is_enough_to_stop_and_to_terminate() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    cloud.launch(&image, &["--name", "web"]);
    for verb in ["stop", "terminate"] {
        let ended = finish(&mut cloud.amiboot(&["instance", verb, "--force", "web", "--json"]));
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}

#[test]
fn an_image_of_an_instance_names_nobody_elses_snapshot() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let instance = cloud.launch(&image, &[]);
    let private = cloud.root_snapshot(&image);
    let other = "210987654321";
    cloud.done(&["image", "share", &image, "--account", other]);
    let run = ["instance", "run", &image, "--type", "t3.nano", "--owner", other];
    let theirs = text(&cloud.json(&run)[0]["instance_id"]);
    let entry = format!("/dev/sdf={private}");
    let create = ["image", "create", &theirs, "--name", "theirs", "--no-reboot", "--owner", other, "--bdm", &entry];
    cloud.refused("InvalidSnapshot.NotFound", &create);
    let create = ["image", "create", &instance, "--name", "own", "--no-reboot", "--bdm", &entry];
    cloud.refused("InvalidBlockDeviceMapping", &[&create[..], &["--bdm", &entry]].concat());
    cloud.refused(
        "InvalidBlockDeviceMapping",
        &[&create[..], &["--bdm", "/dev/sdg=snap-0123456789abcdef0,size=1M"]].concat(),
    );
    let made = cloud.json(&create);
    let found = made["block_device_mappings"].as_array().unwrap();
    assert!(found.iter().any(|entry| entry["ebs"]["snapshot_id"] == *private && entry["device_name"] == "/dev/sdf"));
    cloud.check();
}

#[test]
fn a_kernel_image_stays_as_long_as_an_instance_starts_from_it() {
    let cloud = CloudWorld::new();
    let disk = cloud.disk("echo", "first");
    let kernel = cloud.world.guest("echo");
    let import = ["image", "import", path(&kernel), "--name", "a kernel", "--type", "kernel"];
    let kernel_id = text(&cloud.json(&import)["image_id"]);
    let import =
        ["image", "import", path(&disk), "--name", "a pv image", "--architecture", "x86_64", "--kernel", &kernel_id];
    let image = text(&cloud.json(&import)["image_id"]);
    let instance = cloud.launch(&image, &[]);
    cloud.done(&["image", "deregister", &kernel_id]);
    cloud.done(&["instance", "stop", "--force", &instance]);
    cloud.done(&["instance", "start", &instance]);
    cloud.check();
    cloud.done(&["instance", "terminate", "--force", &instance]);
    cloud.done(&["image", "deregister", &image, "--delete-snapshots"]);
    cloud.check();
    assert_eq!(cloud.query("SELECT id FROM layers"), [""; 0]);
}

#[test]
fn a_root_goes_and_comes_back_while_its_instance_is_stopped() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let instance = cloud.launch(&image, &["--bdm", "/dev/sdf=1G"]);
    cloud.done(&["instance", "stop", "--force", &instance]);
    let root = cloud.volume_at(&instance, "/dev/sda1");
    cloud.done(&["volume", "detach", &root]);
    // Nothing else is taken for the root.
    cloud.refused("IncorrectState", &["instance", "start", &instance]);
    cloud.done(&["volume", "attach", &root, &instance, "/dev/sda1"]);
    cloud.done(&["instance", "start", &instance]);
    cloud.check();
}

#[test]
fn an_instances_own_volume_has_its_device_for_itself() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let ephemeral = ["--bdm", "/dev/sdb=ephemeral0", "--memory", "512M", "--cpus", "1"];
    let instance = text(
        &cloud.json(&[&["instance", "run", &image, "--type", "c5d.large"], &ephemeral[..]].concat())[0]["instance_id"],
    );
    cloud.done(&["instance", "stop", "--force", &instance]);
    let volume = text(&cloud.json(&["volume", "create", "--size", "1"])["volume_id"]);
    cloud.refused("InvalidParameterValue", &["volume", "attach", &volume, &instance, "/dev/sdb"]);
    cloud.done(&["instance", "start", &instance]);
    cloud.check();
}
