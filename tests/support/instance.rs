//! An instance with a tiny guest, and its process.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use amiboot::monitor::client::{Client, Exit, Life, Reason, is_alive, read_exit, read_log};
use amiboot::monitor::config::{
    ConsoleLogConfig, Hvm, InstanceConfig, InstanceIdentity, Mode, Pv, VERSION, VolumeConfig, VolumeSource,
};
use amiboot::monitor::control::socket;
use rustix::process::{Pid, Signal, kill_process};

use super::{Running, World, finish, require_kvm, wait_until};

/// An instance's files, in a directory that only its user may enter.
pub struct Instance {
    pub config: InstanceConfig,
    pub file: PathBuf,
    pub world: World,
}

impl Instance {
    /// Of a tiny guest.
    pub fn new(guest: &str) -> Self {
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
            network: None,
            agent: false,
            seed_disk: false,
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

    pub fn path(&self, name: &str) -> PathBuf {
        self.world.path("home").join(name)
    }

    /// The command of its process, its configuration written.
    pub fn vmm(&self) -> std::process::Command {
        fs::write(&self.file, serde_json::to_vec_pretty(&self.config).unwrap()).unwrap();
        let mut command = self.world.amiboot();
        command.args(["vmm", "--config"]).arg(&self.file);
        command
    }

    /// Starts it in the foreground, and waits for what its guest says first.
    pub fn start(&self, first_words: &str) -> Running {
        // What an earlier start has left is not what is waited for.
        for name in ["console.log", "console.log.1"] {
            let _ = fs::remove_file(self.path(name));
        }
        let running = Running::start(&mut self.vmm());
        self.wait_for_log(first_words);
        running
    }

    /// Starts it in the background; gives its process, which is killed when that is dropped.
    pub fn detach(&self) -> Detached {
        let ended = finish(self.vmm().arg("--detach")).code(0);
        let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        Detached(Pid::from_raw(i32::try_from(report["started"]["pid"].as_u64().unwrap()).unwrap()).unwrap())
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.config.control_socket).unwrap()
    }

    /// A connection of whoever wants to do harm.
    pub fn stranger(&self) -> UnixStream {
        socket::connect(&self.config.control_socket).unwrap()
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&read_log(&self.config.console_log.path, u64::MAX).unwrap()).into_owned()
    }

    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        wait_until(text, || self.log().contains(text));
    }

    pub fn exit(&self) -> Option<Exit> {
        read_exit(&self.config.exit_file).unwrap()
    }

    pub fn reason(&self) -> Reason {
        self.exit().expect("there is an exit file").reason
    }

    pub fn life(&self) -> Life {
        is_alive(&self.config.alive_lock).unwrap()
    }
}

/// A process in the background.
pub struct Detached(pub Pid);

impl Drop for Detached {
    fn drop(&mut self) {
        // It has ended already, in a test that succeeds.
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// Reads until the text has come.
pub fn read_until(stream: &mut impl Read, text: &str) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&all).contains(text) {
        let len = stream.read(&mut buffer).unwrap();
        assert!(len > 0, "{text:?} did not come: {:?}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&buffer[..len]);
    }
    String::from_utf8(all).unwrap()
}
