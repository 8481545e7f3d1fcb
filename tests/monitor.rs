//! An instance's own process: how it lives, what it answers, and how it ends.

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use amiboot::monitor::client::{
    Client, ClientError, Exit, Life, Reason, StartError, is_alive, read_exit, read_log, start as client_start,
};
use amiboot::monitor::config::{
    ConsoleLogConfig, Hvm, InstanceConfig, InstanceIdentity, Mode, Pv, VERSION, VolumeConfig, VolumeSource,
};
use amiboot::monitor::control::socket;
use amiboot::monitor::protocol::{FailureKind, State};
use rustix::process::{Pid, Signal, kill_process};
use support::{Ended, PATIENCE, Running, World, finish, names_in, quoted, require_kvm, wait_until};

/// An instance's files, in a directory that only its user may enter.
struct Instance {
    config: InstanceConfig,
    file: PathBuf,
    world: World,
}

impl Instance {
    /// Of a tiny guest.
    fn new(guest: &str) -> Self {
        require_kvm();
        let world = World::new();
        let home = world.path("home");
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
        let volume = VolumeConfig {
            device: "/dev/sda1".into(),
            id: "vol-0123456789abcdef0".into(),
            read_only: false,
            ephemeral: None,
            source: VolumeSource::File { path: world.blank_disk(), format: None, throw_away: None },
        };
        let config = InstanceConfig {
            version: VERSION,
            id: "i-0123456789abcdef0".into(),
            memory: 32 << 20,
            cpus: 1,
            mode: Mode::Auto,
            hvm: Hvm::default(),
            pv: Pv { kernel: Some(world.guest(guest)), ..Pv::default() },
            identity: InstanceIdentity { uuid: uuid::Uuid::from_u128(7), instance_type: "t3.micro".into() },
            volumes: vec![volume],
            console_log: ConsoleLogConfig { path: home.join("console.log"), keep: 64 << 10 },
            control_socket: home.join("control.sock"),
            alive_lock: home.join("alive"),
            exit_file: home.join("exit.json"),
            on_exit: Vec::new(),
            grace_ms: 60_000,
            restart: true,
        };
        Self { config, file: home.join("config.json"), world }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.path("home").join(name)
    }

    /// The command of its process, its configuration written.
    fn vmm(&self) -> std::process::Command {
        fs::write(&self.file, serde_json::to_vec_pretty(&self.config).unwrap()).unwrap();
        let mut command = self.world.amiboot();
        command.args(["vmm", "--config"]).arg(&self.file);
        command
    }

    /// Starts it in the foreground, and waits for what its guest says first.
    fn start(&self, first_words: &str) -> Running {
        // What an earlier start has left is not what is waited for.
        for name in ["console.log", "console.log.1"] {
            let _ = fs::remove_file(self.path(name));
        }
        let running = Running::start(&mut self.vmm());
        self.wait_for_log(first_words);
        running
    }

    /// Starts it in the background; gives its process, which is killed when that is dropped.
    fn detach(&self) -> Detached {
        let ended = finish(self.vmm().arg("--detach")).code(0);
        let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        Detached(Pid::from_raw(i32::try_from(report["started"]["pid"].as_u64().unwrap()).unwrap()).unwrap())
    }

    fn client(&self) -> Client {
        Client::connect(&self.config.control_socket).unwrap()
    }

    /// A connection of whoever wants to do harm.
    fn stranger(&self) -> UnixStream {
        socket::connect(&self.config.control_socket).unwrap()
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&read_log(&self.config.console_log.path, u64::MAX).unwrap()).into_owned()
    }

    #[track_caller]
    fn wait_for_log(&self, text: &str) {
        wait_until(text, || self.log().contains(text));
    }

    fn exit(&self) -> Option<Exit> {
        read_exit(&self.config.exit_file).unwrap()
    }

    fn reason(&self) -> Reason {
        self.exit().expect("there is an exit file").reason
    }

    fn life(&self) -> Life {
        is_alive(&self.config.alive_lock).unwrap()
    }
}

/// A process in the background.
struct Detached(Pid);

impl Drop for Detached {
    fn drop(&mut self) {
        // It has ended already, in a test that succeeds.
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// Reads until the text has come.
fn read_until(stream: &mut impl Read, text: &str) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&all).contains(text) {
        let len = stream.read(&mut buffer).unwrap();
        assert!(len > 0, "{text:?} did not come: {:?}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&buffer[..len]);
    }
    String::from_utf8(all).unwrap()
}

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
fn the_console_is_shared() {
    let instance = Instance::new("echo");
    let running = instance.start("type\r\n");
    let mut one = instance.client().attach(1000).unwrap();
    let mut two = instance.client().attach(0).unwrap();
    assert!(read_until(&mut one, "type\r\n").ends_with("type\r\n"));
    wait_until("all are attached", || instance.client().status().unwrap().console.attached == 2);
    one.write_all(b"hello\n").unwrap();
    for console in [&mut one, &mut two] {
        assert_eq!(read_until(console, "HELLO\n"), "HELLO\n");
    }
    two.write_all(b"again\n").unwrap();
    for console in [&mut one, &mut two] {
        assert_eq!(read_until(console, "AGAIN\n"), "AGAIN\n");
    }
    drop(two);
    wait_until("one is attached", || instance.client().status().unwrap().console.attached == 1);
    // The guest's last words come before the end.
    one.write_all(b"bye\nq").unwrap();
    let mut rest = Vec::new();
    one.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"BYE\n"), "{:?}", String::from_utf8_lossy(&rest));
    running.end().code(0);
    assert_eq!(instance.reason(), Reason::PoweredOff);
    assert!(instance.log().ends_with("BYE\n"));
}

#[test]
fn one_who_reads_nothing_holds_nobody() {
    let instance = Instance::new("flood");
    let running = instance.start("dull");
    let mut stuck = instance.client().attach(0).unwrap();
    let mut quick = instance.client().attach(0).unwrap();
    // More than its socket and the backlog hold.
    let mut seen = 0;
    while seen < 700 << 10 {
        seen += quick.read(&mut [0; 8192]).unwrap();
    }
    let told = read_until(&mut stuck, "were not read in time]");
    assert!(told.contains("dull") && told.contains("[amiboot: "));
    // From there on it gets the newest.
    read_until(&mut stuck, "dull guest");
    instance.client().quit().unwrap();
    let mut rest = Vec::new();
    stuck.read_to_end(&mut rest).unwrap();
    running.end().code(0);
}

#[test]
fn a_flood_is_bounded_and_its_newest_is_kept() {
    let instance = Instance::new("flood");
    let running = instance.start("dull");
    let keep = instance.config.console_log.keep;
    let older = instance.path("console.log.1");
    let written = || instance.client().status().unwrap().console.written;
    wait_until("several turns", || written() > 5 * keep);
    // Read while it is written to, it is whole lines.
    for _ in 0..20 {
        let log = instance.log();
        assert!(log.len() as u64 >= keep && log.len() as u64 <= 2 * keep, "{}", log.len());
        let line = "all work and no play makes a dull guest\r\n";
        let whole = log.split_inclusive('\n').skip(1).filter(|l| l.ends_with('\n'));
        assert!(whole.into_iter().all(|l| l == line));
    }
    assert!(older.metadata().unwrap().len() <= keep);
    assert_eq!(older.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    instance.client().quit().unwrap();
    running.end().code(0);
}

#[test]
fn a_log_that_cannot_grow_costs_the_log_only() {
    let mut instance = Instance::new("flood");
    instance.config.console_log.keep = 1 << 20;
    // Files of this process end at 32 KiB, as if the disk were full.
    let running = Running::start(&mut instance.world.shell(&format!("ulimit -f 32; exec {}", quoted(&instance.vmm()))));
    wait_until("the log is full", || {
        let connected = Client::connect(&instance.config.control_socket);
        connected.is_ok_and(|mut client| client.status().unwrap().console.not_kept.is_some())
    });
    let mut client = instance.client();
    let before = client.status().unwrap().console;
    wait_until("the guest goes on", || instance.client().status().unwrap().console.written > before.written + 100_000);
    assert_eq!(instance.log().len(), 32 << 10);
    // Who is attached sees it all the same.
    let mut console = instance.client().attach(0).unwrap();
    read_until(&mut console, "dull guest");
    client.quit().unwrap();
    running.end().code(0);
    assert_eq!(instance.reason(), Reason::Forced);
}

/// The answer to what is sent raw, if there is one before the connection ends.
fn answer_to(stream: &UnixStream, bytes: &[u8]) -> Option<serde_json::Value> {
    let mut writer = stream;
    // It may have been closed before all of it was sent.
    let _ = writer.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut line = String::new();
    let _ = BufReader::new(stream).read_line(&mut line);
    (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
}

#[test]
fn what_is_no_request_is_answered_so() {
    let instance = Instance::new("halt");
    let running = instance.start("ready");
    let error = |bytes: &[u8]| answer_to(&instance.stranger(), bytes).unwrap()["error"].clone();
    for bytes in [
        &b"\n"[..],
        b"{}\n",
        b"nonsense\n",
        b"\xff\xfe\n",
        b"{\"request\":\"fly\"}\n",
        b"{\"request\":\"stop\",\"when\":1}\n",
        b"{\"request\":\"snapshot\",\"volumes\":[\"vol-1\"]}\n",
    ] {
        assert_eq!(error(bytes)["kind"], "bad-request", "{}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(error(&vec![b'x'; 1 << 20])["kind"], "bad-request");
    assert_eq!(error(&[vec![b' '; 70_000], b"\n".to_vec()].concat())["kind"], "bad-request");
    assert_eq!(error(&[vec![b'['; 60_000], b"\n".to_vec()].concat())["kind"], "bad-request");
    // Half a request and its end: nothing to answer.
    assert_eq!(answer_to(&instance.stranger(), b"{\"request\":\"quit\"}"), None);
    // Several at once are answered one after the other.
    let stream = instance.stranger();
    (&stream).write_all(&b"{\"request\":\"status\"}\n".repeat(50)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let answers: Vec<_> = BufReader::new(&stream).lines().map(Result::unwrap).collect();
    assert_eq!(answers.len(), 50);
    assert!(answers.iter().all(|line| line.starts_with("{\"ok\":")));
    // Open files that nobody asked for, too many, and of the wrong number.
    let null = File::open("/dev/null").unwrap();
    let open_files = || fs::read_dir(format!("/proc/{}/fd", running.pid().as_raw_nonzero())).unwrap().count();
    let before = open_files();
    for (request, count) in [
        (&b"{\"request\":\"status\"}\n"[..], 1),
        (b"{\"request\":\"snapshot\",\"volumes\":[\"vol-1\"]}\n", 3),
        (b"{\"request\":\"status\"}\n", 200),
        (b"half", 30),
    ] {
        let stream = instance.stranger();
        socket::send(&stream, request, &vec![null.as_fd(); count]).unwrap();
        let answer = answer_to(&stream, b"");
        assert!(request == b"half" || answer.unwrap()["error"]["kind"] == "bad-request");
    }
    wait_until("all of them are closed", || open_files() <= before);
    // What this machine cannot do.
    let mut client = instance.client();
    let refused = |done: Result<(), ClientError>| match done {
        Err(ClientError::Refused(failure)) => failure.kind,
        other => panic!("{other:?}"),
    };
    let volume = instance.config.volumes[0].clone();
    let files = [null.as_fd(), null.as_fd()];
    assert_eq!(refused(client.snapshot(&[(&volume.id, files)])), FailureKind::Unsupported);
    assert_eq!(refused(client.unplug(&volume.id, true)), FailureKind::State);
    assert_eq!(refused(client.resize(&volume.id, 1 << 30)), FailureKind::Unsupported);
    assert_eq!(refused(client.plug(volume.clone())), FailureKind::State);
    let another = VolumeConfig { device: "/dev/sdf".into(), id: "vol-0123456789abcdef9".into(), ..volume };
    assert_eq!(refused(client.plug(another.clone())), FailureKind::Unsupported);
    assert_eq!(refused(client.unplug(&another.id, true)), FailureKind::NotFound);
    assert_eq!(client.status().unwrap().state, State::Running);
    client.quit().unwrap();
    running.end().code(0);
}

#[test]
fn a_crowd_and_those_who_go_away_keep_nobody_out() {
    let instance = Instance::new("echo");
    let running = instance.start("type\r\n");
    let mut console = instance.client().attach(0).unwrap();
    let crowd: Vec<UnixStream> = (0..1000)
        .map(|i| {
            let mut stream = instance.stranger();
            match i % 4 {
                0 => {}
                // Half a request.
                1 => drop(stream.write_all(b"{\"request\":")),
                // A request whose answer is never read, and one that nobody waits for.
                2 => drop(stream.write_all(&b"{\"request\":\"status\"}\n".repeat(20))),
                _ => {
                    let _ = stream.write_all(b"{\"request\":\"reset\"}\n{\"request\":");
                    let _ = stream.shutdown(Shutdown::Both);
                }
            }
            stream
        })
        .collect();
    assert_eq!(instance.client().status().unwrap().id, instance.config.id);
    drop(crowd);
    // Who is attached has not been closed for any of them.
    console.write_all(b"still\n").unwrap();
    read_until(&mut console, "STILL\n");
    let mut client = instance.client();
    assert!(client.status().is_ok());
    client.quit().unwrap();
    running.end().code(0);
}

#[test]
fn what_is_typed_on_the_heels_of_the_request_is_typed_whole_and_consoles_are_bounded() {
    let instance = Instance::new("echo");
    let running = instance.start("type\r\n");
    let stream = instance.stranger();
    // More than waits for the guest at once.
    let typed = [vec![b'a'; 20_000], vec![b'\n']].concat();
    (&stream).write_all(&[b"{\"request\":\"attach-console\"}\n", &typed[..]].concat()).unwrap();
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "{\"ok\":null}\n");
    line.clear();
    reader.read_line(&mut line).unwrap();
    assert!(line.to_lowercase().as_bytes() == typed, "{} bytes: {:.40}...", line.len(), line);
    // Its input has ended, and the output goes on.
    stream.shutdown(Shutdown::Write).unwrap();
    let mut others: Vec<_> = (0..15).map(|_| instance.client().attach(0).unwrap()).collect();
    let refused = instance.client().attach(0).unwrap_err().to_string();
    assert!(refused.contains("16 are attached"), "{refused}");
    others[0].write_all(b"x\nq").unwrap();
    line.clear();
    reader.read_to_string(&mut line).unwrap();
    assert_eq!(line, "X\n");
    running.end().code(0);
}

/// Numbers that look random, from a seed (Marsaglia's xorshift).
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }
}

#[test]
fn garbage_ends_nothing_but_its_own_connection() {
    let instance = Instance::new("halt");
    let running = instance.start("ready");
    let requests: [&[u8]; 5] = [
        b"{\"request\":\"status\"}\n",
        b"{\"request\":\"attach-console\",\"replay\":100}\n",
        b"{\"request\":\"snapshot\",\"volumes\":[\"vol-0123456789abcdef0\"]}\n",
        b"{\"request\":\"unplug\",\"volume\":\"vol-0123456789abcdef0\",\"force\":true}\n",
        b"{\"request\":\"resize\",\"volume\":\"vol-0123456789abcdef0\",\"size\":1}\n",
    ];
    let null = File::open("/dev/null").unwrap();
    for seed in 1..300 {
        let mut seeded = Seeded(seed);
        let mut bytes = requests[seeded.below(requests.len())].repeat(1 + seeded.below(3));
        for _ in 0..seeded.below(4) {
            let at = seeded.below(bytes.len());
            match seeded.below(3) {
                0 => bytes[at] = u8::try_from(seeded.below(256)).unwrap(),
                1 => bytes.truncate(at + 1),
                _ => drop(bytes.remove(at)),
            }
            if bytes.is_empty() {
                break;
            }
        }
        let stream = instance.stranger();
        let files = vec![null.as_fd(); seeded.below(5)];
        // It may close the connection before it has all.
        let _ = socket::send(&stream, &bytes, &files);
        if seeded.below(2) == 0 {
            stream.shutdown(Shutdown::Write).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            let _ = (&stream).read(&mut [0; 100]);
        }
    }
    let status = instance.client().status().unwrap();
    assert_eq!((status.state, status.restarts), (State::Running, 0));
    instance.client().quit().unwrap();
    let Ended { stderr, .. } = running.end().code(0);
    assert!(!stderr.contains("panicked"), "{stderr}");
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
    instance.config.hvm.firmware = Some(amiboot::monitor::config::FirmwareName(rom.display().to_string()));
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
