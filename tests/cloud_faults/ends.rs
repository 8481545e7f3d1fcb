//! Machines, and commands at work on them, that are killed at chosen moments.

use std::process::Stdio;

use amiboot::monitor::protocol::State;
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::cloud::{CloudWorld, text};
use crate::support::wait_until;

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
