//! Commands that are killed with SIGKILL at random moments: what was acknowledged is there, nothing half made is seen, no
//! file is left.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::cloud::{CloudWorld, path, text};

/// Numbers that look random and are always the same.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % below
    }
}

/// A command that is killed again and again.
struct Victim<'a> {
    cloud: &'a CloudWorld,
    numbers: Numbers,
    usual: Duration,
}

impl<'a> Victim<'a> {
    /// `usual` does the command once, unharmed: how long it takes is measured.
    fn new(cloud: &'a CloudWorld, seed: u64, usual: impl FnOnce()) -> Self {
        let begin = Instant::now();
        usual();
        Self { cloud, numbers: Numbers(seed), usual: begin.elapsed() }
    }

    /// Runs a command and kills it somewhere on its way; true where it had succeeded before.
    fn kill(&mut self, arguments: &[&str]) -> bool {
        let mut command = self.cloud.amiboot(arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let micros = u64::try_from(self.usual.as_micros()).unwrap();
        std::thread::sleep(Duration::from_micros(self.numbers.next(micros * 11 / 10)));
        child.kill().unwrap();
        child.wait().unwrap().success()
    }
}

/// Images with this name.
fn images(cloud: &CloudWorld, name: &str, more: &[&str]) -> Vec<Value> {
    cloud.json(&[&["image", "ls", "--name", name], more].concat()).as_array().unwrap().clone()
}

/// An image that was to be made: whole or not there.
fn check_made(cloud: &CloudWorld, name: &str, acknowledged: bool, more: &[&str]) -> Option<Value> {
    let found = images(cloud, name, more);
    assert!(found.len() <= 1 && found.len() >= usize::from(acknowledged), "{acknowledged}: {found:#?}");
    let found = found.into_iter().next()?;
    assert_eq!(found["state"], "available", "{found:#}");
    Some(found)
}

/// Checks that an instance of the image starts.
fn check_boots(cloud: &CloudWorld, image: &str) {
    let instance = cloud.launch(image, &[]);
    cloud.wait_for_console(&instance, "type");
    cloud.done(&["instance", "terminate", "--force", &instance]);
}

#[test]
fn imports() {
    let cloud = CloudWorld::new();
    let disk = cloud.disk("echo", "first");
    let mut victim = Victim::new(&cloud, 1, || drop(cloud.import(&disk, "first")));
    let first = cloud.root_snapshot("first");
    let wanted = cloud.contents(&first);
    for round in 0..10 {
        let name = format!("import {round}");
        let arguments = ["image", "import", path(&disk), "--name", &name, "--architecture", "x86_64"];
        let acknowledged = victim.kill(&arguments);
        // The next command sees nothing half made, and is not disturbed.
        let made = check_made(&cloud, &name, acknowledged, &[]);
        cloud.check();
        match made {
            Some(image) => assert_eq!(cloud.contents(&cloud.root_snapshot(&text(&image["image_id"]))), wanted),
            None => drop(cloud.import(&disk, &name)),
        }
    }
    cloud.check();
    assert_eq!(cloud.contents(&first), wanted);
    check_boots(&cloud, "import 9");
}

#[test]
fn launches() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let mut victim = Victim::new(&cloud, 2, || drop(cloud.launch(&image, &[])));
    let before = cloud.json(&["instance", "ls"])[0]["instance_id"].clone();
    for _ in 0..10 {
        let acknowledged = victim.kill(&["instance", "run", &image, "--type", "t3.nano"]);
        let all = cloud.json(&["instance", "ls"]);
        for instance in all.as_array().unwrap() {
            let state = text(&instance["state"]);
            assert!(matches!(state.as_str(), "running" | "terminated"), "{instance:#}");
        }
        cloud.check();
        let all = cloud.json(&["instance", "ls"]);
        let running: Vec<&Value> = all.as_array().unwrap().iter().filter(|one| one["state"] == "running").collect();
        assert!(running.len() <= 2 && running.len() > usize::from(acknowledged), "{acknowledged}: {all:#}");
        for instance in running.into_iter().map(|one| &one["instance_id"]).filter(|id| **id != before) {
            let instance = text(instance);
            cloud.wait_for_console(&instance, "type");
            cloud.done(&["instance", "terminate", "--force", &instance]);
        }
    }
    cloud.check();
    assert_eq!(cloud.state(&text(&before)), "running");
    check_boots(&cloud, &image);
}

/// Kills the making of images of a running instance.
fn kill_create_image(cloud: &CloudWorld, seed: u64, rounds: u32, more: &[&str]) {
    let image = cloud.image("echo", "first");
    let wanted = cloud.contents(&cloud.root_snapshot(&image));
    let instance = cloud.launch(&image, &[]);
    fn words<'a>(instance: &'a str, name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["image", "create", instance, "--name", name], more].concat()
    }
    let mut victim = Victim::new(cloud, seed, || drop(cloud.done(&words(&instance, "usual", more))));
    for round in 0..rounds {
        let name = format!("create {round}");
        let acknowledged = victim.kill(&words(&instance, &name, more));
        let made = check_made(cloud, &name, acknowledged, &[]);
        // Whoever is to end the guest may be about to.
        cloud.check();
        assert_eq!(cloud.state(&instance), "running");
        match made {
            Some(image) => assert_eq!(cloud.contents(&cloud.root_snapshot(&text(&image["image_id"]))), wanted),
            None => drop(cloud.done(&words(&instance, &name, more))),
        }
    }
    cloud.check();
    assert_eq!(cloud.state(&instance), "running");
    cloud.type_on(&instance, b"xyzzy", "XYZZY");
    check_boots(cloud, &format!("create {}", rounds - 1));
}

#[test]
fn images_of_running_instances() {
    kill_create_image(&CloudWorld::new(), 3, 8, &["--no-reboot"]);
}

#[test]
fn images_of_instances_that_are_rebooted() {
    kill_create_image(&CloudWorld::new(), 4, 10, &["--grace", "50ms"]);
}

#[test]
fn copies() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let copy = |name: &'static str| ["image", "copy", "first", "--to-region", "us-west-2", "--name", name];
    let mut victim = Victim::new(&cloud, 5, || drop(cloud.done(&copy("usual"))));
    for name in ["copy 0", "copy 1", "copy 2", "copy 3", "copy 4", "copy 5"] {
        let acknowledged = victim.kill(&copy(name));
        if check_made(&cloud, name, acknowledged, &["--region", "us-west-2"]).is_none() {
            cloud.done(&copy(name));
        }
        cloud.check();
    }
    cloud.done(&["image", "deregister", &image, "--delete-snapshots"]);
    cloud.check();
    let instance = text(
        &cloud.json(&["instance", "run", "copy 5", "--type", "t3.nano", "--region", "us-west-2"])[0]["instance_id"],
    );
    cloud.wait_for_console(&instance, "type");
}

/// A volume at rest with five snapshots, each with something that the one before has not.
fn snapshots(cloud: &CloudWorld) -> Vec<(String, [u8; 32])> {
    let volume = text(&cloud.json(&["volume", "create", "--size", "1"])["volume_id"]);
    (0..5_u8)
        .map(|number| {
            let bytes = [number + 1; 300_000];
            cloud.write(&volume, &[(u64::from(number) << 20, &bytes), (64 << 20, &bytes[..50_000])]);
            let snapshot = text(&cloud.json(&["snapshot", "create", &volume])[0]["snapshot_id"]);
            let contents = cloud.contents(&snapshot);
            (snapshot, contents)
        })
        .collect()
}

#[test]
fn deletions_of_snapshots_in_the_middle() {
    let cloud = CloudWorld::new();
    let usual = snapshots(&cloud);
    let mut victim = Victim::new(&cloud, 6, || drop(cloud.done(&["snapshot", "delete", &usual[2].0])));
    for _ in 0..4 {
        let mut left = snapshots(&cloud);
        for at in [1, 2, 1] {
            let (deleted, _) = left.remove(at);
            let acknowledged = victim.kill(&["snapshot", "delete", &deleted]);
            let all = cloud.json(&["snapshot", "ls"]);
            let is_there = all.as_array().unwrap().iter().any(|one| one["snapshot_id"] == *deleted);
            assert!(!(acknowledged && is_there));
            cloud.check();
            for (snapshot, contents) in &left {
                assert_eq!(cloud.contents(snapshot), *contents);
            }
            if is_there {
                cloud.done(&["snapshot", "delete", &deleted]);
            }
        }
        for (snapshot, contents) in &left {
            assert_eq!(cloud.contents(snapshot), *contents);
        }
    }
    cloud.check();
}

#[test]
fn deregistrations_with_their_snapshots() {
    let cloud = CloudWorld::new();
    let disk = cloud.disk("echo", "first");
    let kept = cloud.import(&disk, "kept");
    let wanted = cloud.contents(&cloud.root_snapshot(&kept));
    let usual = cloud.import(&disk, "usual");
    let mut victim =
        Victim::new(&cloud, 7, || drop(cloud.done(&["image", "deregister", &usual, "--delete-snapshots"])));
    for round in 0..8 {
        let name = format!("image {round}");
        let image = cloud.import(&disk, &name);
        let snapshot = cloud.root_snapshot(&image);
        let acknowledged = victim.kill(&["image", "deregister", &image, "--delete-snapshots"]);
        // Both are there, or neither.
        let is_image_there = !images(&cloud, &name, &[]).is_empty();
        let all = cloud.json(&["snapshot", "ls"]);
        let is_snapshot_there = all.as_array().unwrap().iter().any(|one| one["snapshot_id"] == *snapshot);
        assert_eq!(is_image_there, is_snapshot_there);
        assert!(!(acknowledged && is_image_there));
        cloud.check();
        if is_image_there {
            assert_eq!(cloud.contents(&snapshot), wanted);
        }
    }
    assert_eq!(cloud.contents(&cloud.root_snapshot(&kept)), wanted);
    check_boots(&cloud, &kept);
}
