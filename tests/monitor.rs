//! An instance's own process: how it lives, and how it ends.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use amiboot::disk::layered::{LayerAccess, LayerFiles};
use amiboot::monitor::client::{Client, ClientError, Life, Reason, StartError, read_exit, start as client_start};
use amiboot::monitor::config::{FirmwareName, Mode, Pv, VolumeConfig, VolumeSource};
use amiboot::monitor::protocol::{FailureKind, State};
use rustix::process::Signal;
use support::instance::Instance;
use support::{PATIENCE, Running, finish, names_in, quoted, wait_until};

#[test]
fn a_guest_that_switches_itself_off_leaves_its_end_and_the_command_runs() {
    let mut instance = Instance::new("hello");
    let seen = instance.path("seen");
    // The command finds the end written, the lock free and the socket gone.
    let script = format!(
        "cp {exit} {seen}.new; test ! -e {socket} && mv {seen}.new {seen}",
        exit = instance.config.exit_file.display(),
        socket = instance.config.control_socket.display(),
        seen = seen.display(),
    );
    instance.config.on_exit = vec!["/bin/sh".into(), "-c".into(), script];
    finish(&mut instance.vmm()).code(0);
    assert_eq!(instance.log(), "hello from the guest\r\n");
    let exit = instance.exit().unwrap();
    assert_eq!(
        (&exit.reason, exit.starts, &exit.last_lines[..]),
        (&Reason::PoweredOff, 1, &["hello from the guest".to_owned()][..])
    );
    assert!(exit.began_ms > 0 && exit.ended_ms >= exit.began_ms);
    assert_eq!(instance.life(), Life::Dead);
    wait_until("the command", || seen.exists());
    assert_eq!(read_exit(&seen).unwrap(), Some(exit));
    assert!(matches!(Client::connect(&instance.config.control_socket), Err(ClientError::NotRunning { .. })));
    assert_eq!(instance.world.leftovers(), Vec::<PathBuf>::new());
    // What is kept of the console outlasts starts; the end is that of the last.
    instance.config.pv.kernel = Some(instance.world.guest("triple"));
    finish(&mut instance.vmm()).code(125);
    assert_eq!(instance.reason(), Reason::Crashed("triple fault".into()));
    assert!(instance.log().starts_with("hello from the guest\r\n") && instance.log().contains("last words"));
}

#[test]
fn a_process_in_the_background_is_known_to_run_and_tells_how_it_is() {
    let mut instance = Instance::new("halt");
    instance.config.volumes.push(VolumeConfig {
        device: "/dev/sdb".into(),
        id: "vol-0123456789abcdef1".into(),
        read_only: false,
        ephemeral: Some(0),
        source: VolumeSource::Blank { directory: instance.world.scratch(), size: 1 << 20 },
    });
    let detached = instance.detach();
    let pid = u32::try_from(detached.0.as_raw_nonzero().get()).unwrap();
    assert_eq!(instance.life(), Life::Alive { pid: Some(pid) });
    let mut client = instance.client();
    let status = client.status().unwrap();
    assert_eq!((status.pid, status.state, status.restarts), (pid, State::Running, 0));
    assert_eq!(status.kernel.unwrap().entry, "ELF, PVH");
    assert!(status.started_ms.unwrap() >= status.began_ms && status.resident.unwrap().monitor_bytes > 0);
    let volumes: Vec<_> = status.volumes.iter().map(|v| (v.device.as_str(), v.size, v.ephemeral)).collect();
    assert_eq!(volumes, [("/dev/sda1", 1 << 20, None), ("/dev/sdb", 1 << 20, Some(0))]);
    // Its session is its own.
    assert_eq!(rustix::process::getsid(Some(detached.0)).unwrap(), detached.0);
    instance.wait_for_log("ready");
    assert!(client.status().unwrap().console.written >= 7);
    assert_eq!(instance.exit(), None);
    client.quit().unwrap();
    client.wait_for_end().unwrap();
    assert_eq!((instance.life(), instance.reason()), (Life::Dead, Reason::Forced));
}

#[test]
fn a_library_s_call_starts_it_and_tells_why_not() {
    let mut instance = Instance::new("hello");
    // The program in the test's surroundings.
    let amiboot = instance.world.amiboot();
    let exports = amiboot.get_envs().filter_map(|(name, value)| {
        Some(format!("export {}='{}'\n", name.to_str().unwrap(), value?.to_str().unwrap()))
    });
    let script = format!("#!/bin/sh\n{}exec {} \"$@\"\n", exports.collect::<String>(), quoted(&amiboot));
    let program = instance.world.file("amiboot", script);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let log = instance.path("monitor.log");
    let start = |instance: &Instance| {
        drop(instance.vmm());
        client_start(&instance.file, &program, Some(&log))
    };
    // It may have ended before this looks at it: all it does is to say hello.
    let started = start(&instance).unwrap();
    wait_until("the end", || instance.exit().is_some());
    assert_eq!((instance.exit().unwrap().pid, instance.reason()), (started.pid, Reason::PoweredOff));
    instance.config.volumes[0].source =
        VolumeSource::File { path: "/nonexistent/disk".into(), format: None, throw_away: None };
    match start(&instance).unwrap_err() {
        StartError::Failed { code: Some(1), message } => {
            assert!(message.starts_with("volume vol-0123456789abcdef0 (/dev/sda1): /nonexistent/disk"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    instance.config.on_exit = vec!["/nonexistent/command".into()];
    instance.config.volumes[0].source = VolumeSource::File {
        path: instance.world.blank_disk(),
        format: None,
        throw_away: Some(instance.world.scratch()),
    };
    start(&instance).unwrap();
    wait_until("its log", || fs::read_to_string(&log).unwrap().contains("on_exit: /nonexistent/command"));
    let error = client_start(&instance.file, Path::new("/nonexistent/amiboot"), None).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/amiboot"), "{error}");
}

#[test]
fn who_starts_it_reads_why_it_does_not_run() {
    let mut instance = Instance::new("halt");
    instance.config.pv.kernel = Some("/nonexistent/kernel".into());
    finish(instance.vmm().arg("--detach")).code(1).says(&["/nonexistent/kernel"]);
    assert!(matches!(instance.reason(), Reason::Error(why) if why.contains("/nonexistent/kernel")));
    assert_eq!(instance.life(), Life::Dead);
    instance.config.cpus = 0;
    finish(instance.vmm().arg("--detach")).code(1).says(&["processor"]);
    instance.config.cpus = 1;
    instance.config.control_socket = "control.sock".into();
    finish(instance.vmm().arg("--detach")).code(1).says(&["control_socket", "absolute"]);
    let open = instance.world.path("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
    instance.config.control_socket = open.join("control.sock");
    finish(instance.vmm().arg("--detach")).code(1).says(&["chmod 700"]);
    instance.config = Instance::new("halt").config;
    let mut json = serde_json::to_value(&instance.config).unwrap();
    json["wings"] = 2.into();
    let broken = |text: &str, words: &[&str]| {
        let mut command = instance.vmm();
        fs::write(&instance.file, text).unwrap();
        finish(command.arg("--detach")).code(1).says(words);
    };
    broken(&json.to_string(), &["config.json", "wings"]);
    broken(&json.to_string().replace("\"version\":1", "\"version\":99"), &["version 99", "version 1"]);
    broken("{", &["config.json", "line 1"]);
    broken(&" ".repeat(2 << 20), &["config.json", "no configuration"]);
}

#[test]
fn a_second_process_is_refused_and_harms_nothing() {
    let instance = Instance::new("halt");
    let running = instance.start("ready");
    let pid = running.pid().as_raw_nonzero().get().to_string();
    finish(instance.vmm().arg("--detach")).code(1).says(&["has a process already", &pid]);
    finish(&mut instance.vmm()).code(1).says(&["has a process already"]);
    assert_eq!(instance.exit(), None);
    let mut client = instance.client();
    assert_eq!(client.status().unwrap().state, State::Running);
    client.force_stop().unwrap();
    running.end().code(0);
    assert_eq!(instance.reason(), Reason::Forced);
}

#[test]
fn a_killed_process_is_seen_as_dead_and_another_may_follow() {
    let instance = Instance::new("halt");
    let running = instance.start("ready");
    let client = instance.client();
    running.signal(Signal::KILL);
    client.wait_for_end().unwrap();
    drop(running);
    wait_until("the lock is free", || instance.life() == Life::Dead);
    assert_eq!(instance.exit(), None);
    // Its socket is there, and nobody behind it.
    assert!(instance.config.control_socket.exists());
    assert!(matches!(Client::connect(&instance.config.control_socket), Err(ClientError::NotRunning { .. })));
    let running = instance.start("ready");
    instance.client().quit().unwrap();
    running.end().code(0);
}

#[test]
fn one_that_does_not_answer_is_not_waited_for_without_end() {
    let instance = Instance::new("halt");
    let running = instance.start("ready");
    running.signal(Signal::STOP);
    let stopped = |thread: &PathBuf| fs::read_to_string(thread.join("stat")).unwrap().contains(") T ");
    let threads = PathBuf::from(format!("/proc/{}/task", running.pid().as_raw_nonzero()));
    wait_until("every thread stands still", || names_in(&threads).iter().all(stopped));
    let mut client = instance.client().with_patience(Duration::from_millis(20)).unwrap();
    assert!(matches!(client.status(), Err(ClientError::Silent { .. })));
    assert!(matches!(instance.life(), Life::Alive { pid: Some(_) }));
    running.signal(Signal::CONT);
    let mut client = instance.client().with_patience(PATIENCE).unwrap();
    client.quit().unwrap();
    client.wait_for_end().unwrap();
    running.end().code(0);
}

#[test]
fn resets_go_on_in_one_process() {
    let instance = Instance::new("halt");
    let running = instance.start("ready");
    let mut client = instance.client();
    for restarts in 1..=3 {
        client.reset().unwrap();
        instance.wait_for_log(&"ready\r\n".repeat(1 + restarts as usize));
        let status = client.status().unwrap();
        assert_eq!((status.restarts, status.state), (restarts, State::Running));
    }
    client.quit().unwrap();
    running.end().code(0);
    assert_eq!(instance.exit().unwrap().starts, 4);
}

#[test]
fn a_guest_that_resets_itself_starts_again_unless_it_is_not_to() {
    let mut instance = Instance::new("reset");
    let running = instance.start("another start\r\nanother start\r\nanother start");
    assert!(instance.client().status().unwrap().restarts > 0);
    // Asked to switch itself off, it resets itself instead.
    instance.client().stop(None).unwrap();
    running.end().code(0);
    assert_eq!(instance.reason(), Reason::ResetRefused);
    instance.config.restart = false;
    finish(&mut instance.vmm()).code(0);
    assert_eq!((instance.reason(), instance.exit().unwrap().starts), (Reason::ResetRefused, 1));
}

#[test]
fn a_guest_is_asked_first_and_ended_after_its_grace() {
    let instance = Instance::new("halt");
    for force_at_once in [true, false] {
        let running = instance.start("ready");
        let mut client = instance.client();
        client.press_power_button().unwrap();
        assert_eq!(client.status().unwrap().state, State::Running);
        client.stop(None).unwrap();
        assert_eq!(client.status().unwrap().state, State::Stopping);
        // It does not react: its grace is long.
        assert!(matches!(client.reset(), Err(ClientError::Refused(f)) if f.kind == FailureKind::State));
        if force_at_once {
            client.force_stop().unwrap();
        } else {
            client.stop(Some(Duration::from_millis(10))).unwrap();
        }
        client.wait_for_end().unwrap();
        assert_eq!((instance.life(), instance.reason()), (Life::Dead, Reason::Forced));
        running.end().code(0);
    }
    // A signal to the process is a stop, a second one ends it.
    let running = instance.start("ready");
    running.signal(Signal::TERM);
    wait_until("stopping", || instance.client().status().unwrap().state == State::Stopping);
    running.signal(Signal::TERM);
    running.end().code(0);
    assert_eq!(instance.reason(), Reason::Forced);
}

#[test]
fn a_crash_is_told() {
    for (guest, words) in [("triple", "triple fault"), ("panic", "panicked"), ("pvpanic", "panicked")] {
        let instance = Instance::new(guest);
        finish(&mut instance.vmm()).code(125).says(&[words]);
        assert!(matches!(instance.reason(), Reason::Crashed(how) if how.contains(words)), "{guest}");
    }
}

#[test]
fn a_path_longer_than_an_address_will_do() {
    let mut instance = Instance::new("halt");
    let deep = instance.path(&"d".repeat(150));
    fs::create_dir(&deep).unwrap();
    fs::set_permissions(&deep, fs::Permissions::from_mode(0o700)).unwrap();
    instance.config.control_socket = deep.join("control.sock");
    let running = instance.start("ready");
    instance.client().quit().unwrap();
    running.end().code(0);
    assert!(!instance.config.control_socket.exists());
}

#[test]
fn a_firmware_s_machine_lives_the_same_life() {
    let mut instance = Instance::new("halt");
    let rom = instance.world.firmware("rom/halt", "halt.rom");
    instance.config.pv = Pv::default();
    instance.config.mode = Mode::Hvm;
    instance.config.hvm.firmware = Some(FirmwareName(rom.display().to_string()));
    let running = Running::start(&mut instance.vmm());
    wait_until("it runs", || {
        Client::connect(&instance.config.control_socket).is_ok_and(|mut c| c.status().unwrap().starts() > 0)
    });
    let mut client = instance.client();
    let status = client.status().unwrap();
    assert_eq!((status.firmware.as_deref(), status.kernel), (Some(Path::new(&rom)), None));
    client.reset().unwrap();
    client.press_power_button().unwrap();
    client.quit().unwrap();
    running.end().code(0);
    assert_eq!(instance.exit().unwrap().starts, 2);
}

#[test]
fn a_volume_that_is_let_go_just_before_a_restart_is_gone() {
    for restart in [true, false] {
        let mut instance = Instance::new("halt");
        let rom = instance.world.firmware("rom/let_go_and_reset", "let-go.rom");
        instance.config.pv = Pv::default();
        instance.config.mode = Mode::Hvm;
        instance.config.hvm.firmware = Some(FirmwareName(rom.display().to_string()));
        instance.config.restart = restart;
        let stem = instance.path("layer");
        drop(LayerFiles::create(&stem, 1 << 20).unwrap());
        let volume = VolumeConfig {
            device: "/dev/sdf".into(),
            id: "vol-0123456789abcdef1".into(),
            read_only: false,
            ephemeral: None,
            source: VolumeSource::Layers { stems: vec![stem.clone()], size: 1 << 20 },
        };
        instance.config.volumes.push(volume.clone());
        let running = instance.start("ready");
        let (mut asking, id) = (instance.client(), volume.id.clone());
        let unplug = std::thread::spawn(move || asking.unplug(&id, false));
        wait_until("who waited is answered", || unplug.is_finished());
        unplug.join().unwrap().unwrap();
        if restart {
            wait_until("it runs again", || instance.client().status().unwrap().starts() == 2);
            let status = instance.client().status().unwrap();
            let ids: Vec<_> = status.volumes.iter().map(|volume| volume.id.as_str()).collect();
            assert_eq!(ids, [instance.config.volumes[0].id.as_str()]);
            // Nobody has its layer any more.
            LayerFiles::open(&stem, LayerAccess::Writable).map(drop).unwrap();
            instance.client().plug(volume).unwrap();
            instance.client().quit().unwrap();
        }
        running.end().code(0);
        let reason = if restart { Reason::Forced } else { Reason::ResetRefused };
        assert_eq!(instance.reason(), reason);
    }
}
