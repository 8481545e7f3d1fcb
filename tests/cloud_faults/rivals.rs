//! Two commands at once that want opposite things of one resource: one wins, the other gets EC2's error, and what is there
//! fits together.

use crate::support::cloud::{CloudWorld, hash, path, text};
use crate::support::{Ended, Running};

/// How often each pair is tried.
const ROUNDS: u32 = 3;

/// Does two commands at once. Each succeeds, or is refused with one of the codes; one of them succeeds.
#[track_caller]
fn race(cloud: &CloudWorld, one: &[&str], other: &[&str], codes: &[&str]) -> (bool, bool) {
    let running = [one, other].map(|words| Running::start(&mut cloud.amiboot(words)));
    let [one, other] = running.map(Running::end);
    let succeeded = |ended: &Ended| {
        let is_refused = codes.iter().any(|code| ended.stderr.starts_with(&format!("error: {code}: ")));
        assert!(ended.code == Some(0) || matches!(ended.code, Some(1 | 2)) && is_refused, "{ended:#?}");
        ended.code == Some(0)
    };
    let done = (succeeded(&one), succeeded(&other));
    assert!(done.0 || done.1, "{one:#?} {other:#?}");
    cloud.check();
    done
}

const BUSY: [&str; 2] = ["IncorrectState", "IncorrectInstanceState"];

#[test]
fn starts_and_stops() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let instance = cloud.launch(&image, &[]);
    for _ in 0..ROUNDS {
        let (start, stop) = (["instance", "start", &instance], ["instance", "stop", "--force", &instance]);
        race(&cloud, &start, &stop, &BUSY);
        race(&cloud, &start, &start, &BUSY);
        race(&cloud, &stop, &["instance", "reboot", "--force", &instance], &BUSY);
        race(&cloud, &stop, &stop, &BUSY);
        assert_eq!(cloud.state(&instance), "stopped");
    }
    cloud.done(&["instance", "start", &instance]);
    cloud.type_on(&instance, b"abc", "ABC");
}

#[test]
fn attachments() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let [one, other] = [(); 2].map(|()| cloud.launch(&image, &[]));
    cloud.done(&["instance", "stop", "--force", &one, &other]);
    let [first, second] = [(); 2].map(|()| text(&cloud.json(&["volume", "create", "--size", "1"])["volume_id"]));
    for _ in 0..ROUNDS {
        // Two instances want one volume.
        let (a, b) = (["volume", "attach", &first, &one, "/dev/sdf"], ["volume", "attach", &first, &other, "/dev/sdf"]);
        let done = race(&cloud, &a, &b, &["VolumeInUse", "IncorrectState"]);
        assert!(done.0 != done.1);
        // It goes, and another comes to its place, or not.
        let winner = if done.0 { &one } else { &other };
        let detach = ["volume", "detach", &first];
        race(
            &cloud,
            &detach,
            &["volume", "attach", &second, winner, "/dev/sdf"],
            &["InvalidParameterValue", "IncorrectState"],
        );
        for volume in [&first, &second] {
            if cloud.query(&format!("SELECT state FROM volumes WHERE id = '{volume}'")) == ["in-use"] {
                cloud.done(&["volume", "detach", volume]);
            }
        }
        // Two volumes want one place.
        let (a, b) = (["volume", "attach", &first, &one, "/dev/sdg"], ["volume", "attach", &second, &one, "/dev/sdg"]);
        let done = race(&cloud, &a, &b, &["InvalidParameterValue", "IncorrectState"]);
        assert!(done.0 != done.1);
        let detach = ["volume", "detach", if done.0 { &first } else { &second }];
        race(&cloud, &detach, &detach, &["IncorrectState"]);
        // An instance starts while a volume comes: it has it from the start, or it is refused.
        let start = ["instance", "start", &one];
        let attach = ["volume", "attach", &first, &one, "/dev/sdh"];
        let (_, attached) =
            race(&cloud, &start, &attach, &["UnsupportedOperation", "IncorrectState", "IncorrectInstanceState"]);
        if cloud.state(&one) == "running" {
            let volumes = cloud.client(&one).status().unwrap().volumes;
            assert_eq!(volumes.iter().any(|volume| volume.id == first), attached, "{volumes:?}");
        }
        cloud.done(&["instance", "stop", "--force", &one]);
        if attached {
            cloud.done(&["volume", "detach", &first]);
        }
        // One deletes what the other attaches.
        let third = text(&cloud.json(&["volume", "create", "--size", "1"])["volume_id"]);
        let attach = ["volume", "attach", &third, &one, "/dev/sdh"];
        let codes = ["VolumeInUse", "InvalidVolume.NotFound", "IncorrectState"];
        let done = race(&cloud, &["volume", "delete", &third], &attach, &codes);
        assert!(done.0 != done.1);
        if done.1 {
            cloud.done(&["volume", "detach", &third]);
        }
    }
}

#[test]
fn launches_of_what_is_withdrawn() {
    let cloud = CloudWorld::new();
    let disk = cloud.disk("echo", "first");
    for round in 0..ROUNDS {
        let image = cloud.import(&disk, &format!("image {round}"));
        let snapshot = cloud.root_snapshot(&image);
        let run = ["instance", "run", &image, "--type", "t3.nano"];
        let deregister = ["image", "deregister", &image, "--delete-snapshots"];
        let done = race(&cloud, &run, &deregister, &["InvalidAMIID.Unavailable"]);
        assert!(done.1);
        cloud.refused("InvalidAMIID.Unavailable", &run);
        cloud.refused("InvalidSnapshot.NotFound", &["snapshot", "show", &snapshot]);
        if done.0 {
            let all = cloud.json(&["instance", "ls"]);
            let running = all.as_array().unwrap().iter().find(|one| one["state"] == "running").unwrap();
            let instance = text(&running["instance_id"]);
            cloud.type_on(&instance, b"abc", "ABC");
            cloud.done(&["instance", "terminate", "--force", &instance]);
        }
        // Copies of it, and volumes of its snapshot.
        let image = cloud.import(&disk, &format!("image {round} again"));
        let snapshot = cloud.root_snapshot(&image);
        let wanted = cloud.contents(&snapshot);
        let name = format!("copy {round}");
        let deregister = ["image", "deregister", &image, "--delete-snapshots"];
        let copy = ["image", "copy", &image, "--name", &name];
        if race(&cloud, &copy, &deregister, &["InvalidAMIID.Unavailable"]).0 {
            assert_eq!(cloud.contents(&cloud.root_snapshot(&name)), wanted);
        }
    }
}

#[test]
fn snapshots_that_are_deleted() {
    let cloud = CloudWorld::new();
    let volume = text(&cloud.json(&["volume", "create", "--size", "1"])["volume_id"]);
    for round in 0..ROUNDS {
        let all: Vec<(String, [u8; 32])> = (1..=4_u8)
            .map(|number| {
                let bytes = [number; 100_000];
                cloud.write(&volume, &[(u64::from(number) << 20, &bytes), (8 << 20, &bytes)]);
                let snapshot = text(&cloud.json(&["snapshot", "create", &volume])[0]["snapshot_id"]);
                let contents = cloud.contents(&snapshot);
                (snapshot, contents)
            })
            .collect();
        let kept = &all[3];
        // Neighbours go at once, and what lies on them is put together by two.
        race(&cloud, &["snapshot", "delete", &all[0].0], &["snapshot", "delete", &all[1].0], &[]);
        assert_eq!(cloud.contents(&kept.0), kept.1);
        // A volume of it is made, or not.
        let create = ["volume", "create", "--snapshot", &all[2].0, "--json"];
        let done = race(&cloud, &create, &["snapshot", "delete", &all[2].0], &["InvalidSnapshot.NotFound"]);
        assert!(done.1);
        if done.0 {
            let found = cloud.query(&format!("SELECT id FROM volumes WHERE snapshot = '{}'", all[2].0));
            assert_eq!(hash(&cloud.volume_disk(&found[0])), all[2].1, "{round}");
        }
        assert_eq!(cloud.contents(&kept.0), kept.1);
        // Both want to delete it.
        let delete = ["snapshot", "delete", &kept.0];
        let done = race(&cloud, &delete, &delete, &["InvalidSnapshot.NotFound"]);
        assert!(done.0 != done.1);
    }
}

#[test]
fn snapshots_of_what_starts_and_ends() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let wanted = cloud.contents(&cloud.root_snapshot(&image));
    let instance = cloud.launch(&image, &[]);
    let volume = cloud.volume_at(&instance, "/dev/sda1");
    let snapshot = ["snapshot", "create", &volume];
    for round in 0..ROUNDS {
        race(&cloud, &snapshot, &["instance", "stop", "--force", &instance], &BUSY);
        race(&cloud, &snapshot, &["instance", "start", &instance], &BUSY);
        race(&cloud, &snapshot, &snapshot, &BUSY);
        let name = format!("image {round}");
        race(&cloud, &["image", "create", &instance, "--name", &name, "--no-reboot"], &snapshot, &BUSY);
        cloud.done(&["instance", "start", &instance]);
    }
    // An image is made of what goes.
    let create = ["image", "create", &instance, "--name", "last", "--grace", "0s"];
    let (created, terminated) = race(&cloud, &create, &["instance", "terminate", "--force", &instance], &BUSY);
    assert_eq!(cloud.state(&instance), if terminated { "terminated" } else { "running" });
    assert_eq!(cloud.json(&["image", "ls", "--name", "last"]).as_array().unwrap().len(), usize::from(created));
    for snapshot in cloud.query("SELECT id FROM snapshots") {
        assert_eq!(cloud.contents(&snapshot), wanted);
    }
}

#[test]
fn imports_with_one_name() {
    let cloud = CloudWorld::new();
    let disk = cloud.disk("echo", "first");
    for round in 0..ROUNDS {
        let name = format!("image {round}");
        let import = ["image", "import", path(&disk), "--name", &name, "--architecture", "x86_64"];
        let done = race(&cloud, &import, &import, &["InvalidAMIName.Duplicate"]);
        assert!(done.0 != done.1);
        assert_eq!(cloud.json(&["image", "ls", "--name", &name]).as_array().unwrap().len(), 1);
    }
}

#[test]
fn launches_with_one_token() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    for round in 0..ROUNDS {
        let token = format!("token {round}");
        let run = ["instance", "run", &image, "--type", "t3.nano", "--client-token", &token];
        race(&cloud, &run, &run, &[]);
        let launched = cloud.query(&format!("SELECT id FROM instances WHERE client_token = '{token}'"));
        assert_eq!(launched.len(), 1);
        cloud.done(&["instance", "terminate", "--force", &launched[0]]);
    }
}
