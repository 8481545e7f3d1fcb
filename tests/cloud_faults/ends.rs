//! Machines, and commands at work on them, that are killed at chosen moments.

use std::process::Stdio;

use amiboot::disk::Disk;
use amiboot::monitor::protocol::State;
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::cloud::{CloudWorld, text, write};
use crate::support::{Running, wait_until};

/// The process that starts a machine and waits until it runs.
fn launcher(cloud: &CloudWorld) -> Option<i32> {
    let is_launcher = |words: &[String]| words.iter().any(|word| word == "--detach");
    cloud.processes().into_iter().find(|(_, words)| is_launcher(words)).map(|(pid, _)| pid)
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Runs a command, holds the start of the machine that it begins, kills the command, and looks what `seen` says then; lets
/// the start go on.
fn kill_at_start(cloud: &CloudWorld, arguments: &[&str], seen: impl Fn()) {
    let mut child = cloud.amiboot(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut held = None;
    wait_until("the machine's start", || {
        launcher(cloud).is_some_and(|pid| kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).is_ok())
    });
    while held.is_none() {
        held = launcher(cloud);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    seen();
    signal(held.unwrap(), Signal::CONT);
    cloud.check();
}

#[test]
fn a_launch_that_outlives_its_command_is_taken_back() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    kill_at_start(&cloud, &["instance", "run", &image, "--type", "t3.nano"], || {
        let all = cloud.json(&["instance", "ls"]);
        // It was either held before its process lived, or after.
        assert!(matches!(text(&all[0]["state"]).as_str(), "terminated" | "running"), "{all:#}");
    });
}

#[test]
fn a_start_that_outlives_its_command_is_taken_back() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let instance = cloud.launch(&image, &[]);
    cloud.done(&["instance", "stop", "--force", &instance]);
    kill_at_start(&cloud, &["instance", "start", &instance], || {
        assert!(matches!(cloud.state(&instance).as_str(), "stopped" | "running"));
    });
    if cloud.state(&instance) == "stopped" {
        cloud.done(&["instance", "start", &instance]);
    }
    cloud.type_on(&instance, b"abc", "ABC");
    cloud.check();
}

#[test]
fn a_guest_that_was_asked_to_end_for_a_while_is_started_again() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    // Its own end would be one for good.
    let instance = cloud.launch(&image, &["--shutdown-behavior", "terminate"]);
    for arguments in [
        &["image", "create", &instance, "--name", "second", "--grace", "1h"][..],
        &["instance", "reboot", &instance, "--grace", "1h"],
    ] {
        let mut child = cloud.amiboot(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("the guest is asked", || {
            cloud.client(&instance).status().is_ok_and(|status| status.state == State::Stopping)
        });
        let before = cloud.pid(&instance);
        child.kill().unwrap();
        child.wait().unwrap();
        // Whoever looks meanwhile sees no half-made image, and does not wait for the guest.
        assert_eq!(cloud.json(&["image", "ls"]).as_array().unwrap().len(), 1);
        assert_eq!(cloud.state(&instance), "running");
        cloud.refused("IncorrectState", &["instance", "stop", &instance]);
        // Nobody looks when it ends.
        cloud.switch_off(&instance);
        wait_until("its next machine", || {
            cloud.file_of(&instance, "control.sock").exists()
                && amiboot::monitor::client::Client::connect(&cloud.file_of(&instance, "control.sock"))
                    .and_then(|mut client| client.status())
                    .is_ok_and(|status| {
                        status.state == State::Running
                            && i64::from(status.pid) != i64::from(before.as_raw_nonzero().get())
                    })
        });
        cloud.check();
        cloud.type_on(&instance, b"abc", "ABC");
    }
}

#[test]
fn a_guest_that_was_to_be_asked_to_end_is_asked_by_the_next_command() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    for (state, asked, end) in [("stopping", "stop", "stopped"), ("shutting-down", "terminate", "terminated")] {
        let instance = cloud.launch(&image, &[]);
        // As a command leaves it that is killed before it has asked.
        let db = Connection::open(cloud.home().join("catalogue.sqlite")).unwrap();
        assert_eq!(db.execute("UPDATE instances SET state = ?1 WHERE id = ?2", [state, &instance]).unwrap(), 1);
        cloud.done(&["instance", "ls"]);
        assert_eq!(cloud.client(&instance).status().unwrap().state, State::Stopping, "{asked}");
        cloud.switch_off(&instance);
        cloud.check();
        assert_eq!(cloud.state_and_reason(&instance), (end.into(), "Client.UserInitiatedShutdown".into()));
    }
}

#[test]
fn layers_that_are_half_made_keep_nobody_from_working() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let instance = cloud.launch(&image, &[]);
    let volume = cloud.volume_at(&instance, "/dev/sda1");
    // As a snapshot leaves it that is killed while it makes the new layer: with no file, an empty one, or both.
    for (number, files) in [&[][..], &["data"], &["data", "map"]].into_iter().enumerate() {
        let db = Connection::open(cloud.home().join("catalogue.sqlite")).unwrap();
        db.execute_batch(&format!(
            "BEGIN;
             INSERT INTO operations VALUES ('op-{number}', 'create-snapshot', 0);
             INSERT INTO layers SELECT 'layer-{number}', size_gib << 30, 'making', layer, 'op-{number}' FROM volumes
                 WHERE id = '{volume}';
             INSERT INTO snapshots (id, region, owner, size_gib, volume, description, state, started, operation)
                 VALUES ('snap-{number}', 'us-east-1', '123456789012', 1, '{volume}', '', 'pending', 0, 'op-{number}');
             UPDATE volumes SET operation = 'op-{number}' WHERE id = '{volume}';
             UPDATE instances SET operation = 'op-{number}' WHERE id = '{instance}';
             COMMIT"
        ))
        .unwrap();
        for ending in files {
            std::fs::write(cloud.home().join(format!("layers/layer-{number}.{ending}")), "").unwrap();
        }
        cloud.check();
        assert_eq!(cloud.state(&instance), "running");
        cloud.done(&["snapshot", "create", &volume]);
    }
    cloud.check();
}

#[test]
fn a_start_that_fails_leaves_the_instance_stopped_with_the_reason() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let instance = cloud.launch(&image, &[]);
    // What stands where the machine's socket is to be keeps it from coming up.
    cloud.done(&["instance", "stop", "--force", &instance]);
    std::fs::create_dir_all(cloud.file_of(&instance, "control.sock/in-the-way")).unwrap();
    let said = cloud.refused("InsufficientInstanceCapacity", &["instance", "start", &instance]);
    assert!(said.contains("control.sock"), "{said}");
    cloud.check();
    assert_eq!(cloud.state_and_reason(&instance), ("stopped".into(), "Server.InternalError".into()));
    std::fs::remove_dir_all(cloud.file_of(&instance, "control.sock")).unwrap();
    cloud.done(&["instance", "start", &instance]);
    // The same of a reboot, which began with a machine that ran.
    let socket = cloud.file_of(&instance, "control.sock");
    let mut child = cloud
        .amiboot(&["instance", "reboot", &instance, "--grace", "1h"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the guest is asked", || {
        cloud.client(&instance).status().is_ok_and(|status| status.state == State::Stopping)
    });
    let mut console = cloud.client(&instance).attach(0).unwrap();
    std::fs::remove_file(&socket).unwrap();
    std::fs::create_dir_all(socket.join("in-the-way")).unwrap();
    std::io::Write::write_all(&mut console, b"q").unwrap();
    assert!(!child.wait().unwrap().success());
    cloud.check();
    assert_eq!(cloud.state_and_reason(&instance), ("stopped".into(), "Server.InternalError".into()));
}

#[test]
fn a_launch_of_which_one_does_not_come_up_leaves_none() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    // The second finds no place for its files, if that is taken in time.
    let launch = |token: &str| {
        let run = ["instance", "run", &image, "--type", "t3.nano", "--count", "3", "--client-token", token];
        let mut child = cloud.amiboot(&run).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let second = format!("SELECT id FROM instances WHERE launch_index = 1 AND client_token = '{token}'");
        wait_until("the launch is written down", || !cloud.query(&second).is_empty());
        let place = cloud.home().join("instances").join(cloud.query(&second).remove(0));
        let is_in_time = std::fs::write(&place, "in the way").is_ok();
        let has_failed = !child.wait().unwrap().success();
        assert_eq!(is_in_time, has_failed);
        if is_in_time {
            std::fs::remove_file(place).unwrap();
        } else {
            let all = cloud.query("SELECT id FROM instances");
            let words = ["instance", "terminate", "--force"].into_iter().chain(all.iter().map(String::as_str));
            cloud.done(&words.collect::<Vec<_>>());
            rusqlite::Connection::open(cloud.home().join("catalogue.sqlite"))
                .unwrap()
                .execute("UPDATE instances SET changed = 0", [])
                .unwrap();
        }
        is_in_time
    };
    assert!((0..20).any(|number| launch(&format!("token {number}"))));
    cloud.check();
    let all = cloud.json(&["instance", "ls"]);
    for instance in all.as_array().unwrap() {
        assert_eq!(
            (&instance["state"], &instance["state_reason"]["code"]),
            (&"terminated".into(), &"Server.InternalError".into())
        );
    }
    assert_eq!(all.as_array().unwrap().len(), 3);
    assert_eq!(cloud.query("SELECT id FROM layers").len(), 1);
}

/// What the child of the next test does: it writes numbered blocks to a volume for ever, and tells of each that was flushed.
#[test]
fn writes_to_a_volume() {
    let (Some(home), Some(volume)) = (std::env::var_os("AMIBOOT_HOME"), std::env::var("TEST_VOLUME").ok()) else {
        return;
    };
    let cloud = std::mem::ManuallyDrop::new(CloudWorld::at(home.as_ref()));
    let disk = cloud.volume_disk(&volume);
    for number in 0_u64.. {
        write(&disk, place(number), &block(number));
        disk.flush().unwrap();
        println!("flushed {number}");
    }
}

/// Places are all over the volume, and none is written twice.
fn place(number: u64) -> u64 {
    number * 7919 % 200_000 * 4096
}

fn block(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(512)
}

/// Stands for a machine whose guest writes and flushes: it writes through what a machine does, in a process of its own.
#[test]
fn what_was_flushed_outlives_the_process_that_wrote_it() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let instance = cloud.launch(&image, &["--bdm", "/dev/sdf=1G"]);
    cloud.done(&["instance", "stop", "--force", &instance]);
    let volume = cloud.volume_at(&instance, "/dev/sdf");
    let mut flushed = 0;
    for round in 0..5_u64 {
        let mut writer = std::process::Command::new(std::env::current_exe().unwrap());
        writer.args(["--exact", "ends::writes_to_a_volume", "--nocapture"]);
        // What it leaves, since it is killed, goes with this test.
        writer.env("AMIBOOT_HOME", cloud.home()).env("TEST_VOLUME", &volume).env("TMPDIR", cloud.world.scratch());
        let mut running = Running::start(&mut writer);
        running
            .wait_until("blocks", |shown| shown.matches("flushed").count() > usize::try_from(20 + round * 17).unwrap());
        running.signal(Signal::KILL);
        running.wait_for_exit();
        let shown = running.end().stdout;
        let told = shown.lines().filter_map(|line| line.strip_prefix("flushed ")?.parse::<u64>().ok()).max().unwrap();
        flushed = flushed.max(told);
        // A snapshot between: what was flushed before is in it.
        let snapshot = text(&cloud.json(&["snapshot", "create", &volume])[0]["snapshot_id"]);
        let (_, seen) = cloud.cloud().snapshot_disk(&snapshot).unwrap();
        for number in 0..=flushed {
            let mut back = vec![0; 4096];
            seen.read_exact_at(place(number), &mut back).unwrap();
            assert!(back == block(number), "round {round}: block {number} of {flushed}");
        }
        drop(seen);
        cloud.done(&["instance", "start", &instance]);
        cloud.type_on(&instance, b"abc", "ABC");
        cloud.kill_machine(&instance);
        cloud.check();
    }
}
