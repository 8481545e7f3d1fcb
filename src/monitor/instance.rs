//! The life of an instance's process, from its configuration to its end.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::agent::{self, Freezes};
use super::alive::{Alive, AliveError};
use super::caretaker::{Caretaker, WasForced};
use super::changes::Changes;
use super::config::{Hvm, InstanceConfig, Pv, VolumeConfig};
use super::console::log::ConsoleLog;
use super::control::{Server, ServerError};
use super::desk::Desk;
use super::exit::{Exit, ExitFileError, Reason};
use super::protocol::{ConsoleStatus, State, Status, VolumeStatus};
use super::{unix_ms, volumes};
use crate::host::kvm;
use crate::host::panics;
use crate::launch::console::pump::{Output, Pump};
use crate::launch::console::say;
use crate::launch::console::transcript::Transcript;
use crate::launch::firmware::FirmwareOptions;
use crate::launch::network::{BackEnd, Network, NetworkError, Opening};
use crate::launch::seed;
use crate::launch::session::{Ended, Limits, Machines, Outcome, SessionError};
use crate::launch::signals::EndSignals;
use crate::launch::start::{self, Request, Start, StartError};
use crate::launch::volumes::Volumes;
use crate::net::user::Notice;
use crate::vmm::builder::{DiskConfig, DiskInterface};
use crate::vmm::console::ConsoleBuffer;
use crate::vmm::timeline::{Mark, Timeline};
use crate::vmm::virtio::Log;
use crate::vmm::virtio::console::channel::Channel;

/// How much is said of trouble with the host at the most, in bytes.
const LOG_MAX: u64 = 1 << 20;

/// Why an instance could not begin, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// It has a process already.
    #[error(transparent)]
    Alive(#[from] AliveError),
    /// Whoever wanted it has gone away, and another has taken the start back.
    #[error("the start was taken back before the machine was made")]
    Withdrawn,
    /// How it ends could not be told.
    #[error("exit file {0}")]
    Exit(#[from] ExitFileError),
    /// KVM.
    #[error(transparent)]
    Kvm(#[from] kvm::KvmProblem),
    /// A volume.
    #[error(transparent)]
    Volume(#[from] volumes::VolumeError),
    /// There is nothing to start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ServerError),
    /// The console log.
    #[error("console log {}: {cause}", path.display())]
    ConsoleLog {
        /// The file.
        path: std::path::PathBuf,
        /// What the host said.
        cause: io::Error,
    },
    /// The machine.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Threads, events, signals.
    #[error("{what}: {cause}")]
    Host {
        /// What was being done.
        what: &'static str,
        /// What the host said.
        cause: io::Error,
    },
}

fn host(what: &'static str) -> impl Fn(io::Error) -> InstanceError {
    move |cause| InstanceError::Host { what, cause }
}

/// What a process is told beside its instance's configuration.
pub struct Surroundings {
    /// A KVM that interprets guest kernel code will do, for guests small enough for it.
    pub accept_interpreting_kvm: bool,
    /// Asked once the lock is held: whether whoever wanted this instance started has taken that back.
    pub is_withdrawn: Box<dyn Fn() -> bool>,
    /// Where instants are recorded.
    pub timeline: Arc<Timeline>,
    /// Called once the machine runs.
    pub started: Box<dyn FnOnce()>,
}

/// Runs an instance to its end. When this returns, the exit file is written, the lock is free, every connection is
/// closed, and the command of the configuration is started.
///
/// # Errors
/// [`InstanceError`] where it could not begin or not go on; the exit file says that too, unless another process has the
/// instance.
pub fn run(config: &InstanceConfig, surroundings: Surroundings) -> Result<Exit, InstanceError> {
    let alive = Alive::take(&config.alive_lock)?;
    if (surroundings.is_withdrawn)() {
        return Err(InstanceError::Withdrawn);
    }
    Exit::clear(&config.exit_file)?;
    Exit::reserve(&config.exit_file)?;
    let began_ms = unix_ms();
    let mut server = None;
    let lived = live(config, surroundings, began_ms, &mut server);
    let starts = server.as_ref().map_or(0, |server| server.close_desk().starts());
    let (reason, last_lines) = match &lived {
        Ok((ended, forced)) => (reason(&ended.outcome, *forced), ended.last_lines.clone()),
        Err(error) => (Reason::Error(error.to_string()), Vec::new()),
    };
    let exit = Exit { starts, last_lines, ..Exit::now(&config.id, reason, began_ms) };
    let written = exit.write(&config.exit_file);
    // From here on another process may have the instance; who waits for the end of this one's connections finds it so.
    drop(alive);
    server.into_iter().for_each(Server::end);
    if starts > 0 {
        start_command(&config.on_exit);
    }
    lived?;
    written?;
    Ok(exit)
}

fn reason(outcome: &Outcome, forced: WasForced) -> Reason {
    match outcome {
        Outcome::PoweredOff => Reason::PoweredOff,
        Outcome::Crashed(how) => Reason::Crashed(how.clone()),
        // It was asked to switch itself off, and reset itself instead.
        Outcome::Interrupted if !forced.0 => Reason::ResetRefused,
        Outcome::Restarted => Reason::ResetRefused,
        // Nothing is waited for on the console, and no time is set: only force is left.
        Outcome::Interrupted | Outcome::Quit | Outcome::UntilMatched | Outcome::UntilMissed | Outcome::TimedOut => {
            Reason::Forced
        }
    }
}

/// Starts a command that outlives this process and has none of its terminals.
fn start_command(command: &[String]) {
    let Some((program, arguments)) = command.split_first() else { return };
    let started = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    if let Err(e) = started {
        say(&format!("amiboot: on_exit: {program}: {e}"), false);
    }
}

/// The instance's life while it has volumes; they are closed when this returns.
fn live(
    config: &InstanceConfig,
    surroundings: Surroundings,
    began_ms: u64,
    server: &mut Option<Server>,
) -> Result<(Ended, WasForced), InstanceError> {
    let Surroundings { accept_interpreting_kvm, timeline, started, .. } = surroundings;
    let kvm = kvm::open()?;
    if !accept_interpreting_kvm {
        kvm.require_hardware()?;
    }
    let network = config.network.clone().filter(|network| network.back_end != BackEnd::None);
    let network = network.map(|config| Network::begin(config, notice())).transpose();
    let network = network.map_err(host("the network's thread"))?;
    let volumes::Opened { volumes, layered } = volumes::open(&config.volumes)?;
    timeline.mark(Mark::ConfigurationRead);
    let log = ConsoleLog::open(&config.console_log.path, config.console_log.keep);
    let log = log.map_err(|cause| InstanceError::ConsoleLog { path: config.console_log.path.clone(), cause })?;
    let desk = Arc::new(Desk::new(first_status(config, &volumes, began_ms)).map_err(host("events"))?);
    *server = Some(Server::start(&config.control_socket, desk.clone())?);
    let mut start = choose(config, &volumes, &timeline)?;
    let mut disks = volumes.into_disks();
    if config.seed_disk
        && let Some(document) = config.network.as_ref().and_then(|network| network.metadata.as_ref())
    {
        disks.push(seed::disk(document).map_err(host("the seed disk"))?);
    }
    let mut boot = || {
        let boot = start.next_boot()?;
        desk.note(|status| {
            status.kernel = start.booted().cloned();
            status.firmware = start.firmware_file().map(Into::into);
        });
        Ok(boot)
    };
    let first = boot().map_err(SessionError::Plan)?;
    let network = network.map(Opening::wait).transpose()?.map(Arc::new);
    if let Some(network) = &network {
        desk.note(|status| status.forwards = network.forwards().iter().map(ToString::to_string).collect());
    }
    let signals = EndSignals::catch().map_err(host("catching signals"))?;
    let panics = panics::watch().map_err(host("watching for panics"))?;
    let console = Arc::new(ConsoleBuffer::new(timeline.clone()));
    let output = Keeper { log, desk: desk.clone() };
    let pump = Pump::start(console.clone(), Transcript::new(None), output, timeline.clone());
    let pump = pump.map_err(host("the console"))?;
    let agent = config.agent.then(Channel::new).transpose().map_err(host("the agent's port"))?;
    let limits =
        Limits { until: None, until_timer: false, timeout: None, no_reboot: !config.restart, grace: config.grace() };
    let machines = Machines {
        kvm: &kvm,
        size: config.size(),
        disks,
        limits: &limits,
        timeline: &timeline,
        console: &console,
        pump: &pump,
        panics,
        deadline: None,
        log: logger(),
        network: network.as_deref().map(Network::card),
        agent: agent.clone(),
    };
    let freezes = agent.map(|channel| freezes(channel, &desk));
    let changes = Changes::new(config.volumes.clone(), layered);
    let mut caretaker = Caretaker::new(desk.clone(), signals, config.grace(), changes, network, freezes, started);
    let played = machines.play(first, &mut boot, &mut caretaker);
    let forced = caretaker.end();
    let shown = pump.finish().map_err(host("the console"))?;
    Ok((played.conclude(shown, &limits)?, forced))
}

/// Snapshots with the help of the agent at the other end of `channel`.
fn freezes(channel: Arc<Channel>, desk: &Arc<Desk>) -> Freezes {
    let desk = desk.clone();
    // An eventfd that is full is readable already.
    let wake = move || drop(desk.for_driver.write(1));
    Freezes::new(channel, agent::Limits::default(), Arc::new(wake))
}

/// The console's output on its way to the log and to those who are attached.
struct Keeper {
    log: ConsoleLog,
    desk: Arc<Desk>,
}

impl Output for Keeper {
    fn show(&mut self, bytes: &[u8]) {
        self.log.write(bytes);
        self.desk.show(bytes, self.log.lost().map(|(lost, cause)| (lost, cause.to_string())));
    }
}

fn choose(config: &InstanceConfig, volumes: &Volumes, timeline: &Arc<Timeline>) -> Result<Start, StartError> {
    let Hvm { firmware, uefi_vars, firmware_log, disk } = &config.hvm;
    let Pv { kernel, initrd, cmdline, append, entry } = &config.pv;
    let first = |options: &[(&'static str, bool)]| options.iter().find(|(_, given)| *given).map(|(name, _)| *name);
    let pv = first(&[
        ("pv.kernel", kernel.is_some()),
        ("pv.initrd", initrd.is_some()),
        ("pv.cmdline", cmdline.is_some()),
        ("pv.append", !append.is_empty()),
        ("pv.entry", entry.is_some()),
    ]);
    let hvm = first(&[
        ("hvm.firmware", firmware.is_some()),
        ("hvm.uefi_vars", uefi_vars.is_some()),
        ("hvm.firmware_log", firmware_log.is_some()),
        ("hvm.disk", disk.is_some()),
    ]);
    let kind = start::decide(config.mode.into(), pv, hvm)?;
    let options = FirmwareOptions {
        interface: disk.map_or(DiskInterface::Virtio, Into::into),
        variables: uefi_vars.clone(),
        log: firmware_log.clone(),
        identity: config.smbios(),
    };
    Start::choose(&Request {
        kind,
        volumes,
        overrides: config.pv.overrides(),
        firmware: firmware.as_ref().map(super::config::FirmwareName::choice),
        options,
        timeline,
        say: |line| say(&format!("amiboot: {line}"), false),
    })
}

fn first_status(config: &InstanceConfig, volumes: &Volumes, began_ms: u64) -> Status {
    let volume = |(config, disk): (&VolumeConfig, &DiskConfig)| VolumeStatus {
        id: config.id.clone(),
        device: config.device.clone(),
        size: disk.disk.size(),
        read_only: disk.disk.is_read_only(),
        ephemeral: config.ephemeral,
    };
    Status {
        id: config.id.clone(),
        state: State::Starting,
        pid: std::process::id(),
        program: env!("CARGO_PKG_VERSION").into(),
        began_ms,
        started_ms: None,
        restarts: 0,
        panicked: false,
        memory: config.memory,
        cpus: config.cpus,
        kernel: None,
        firmware: None,
        volumes: config.volumes.iter().zip(volumes.disks()).map(volume).collect(),
        console: ConsoleStatus::default(),
        resident: None,
        forwards: Vec::new(),
    }
}

/// Where devices tell of trouble with the host; a guest can make them tell without end.
fn logger() -> Log {
    let said = AtomicU64::new(0);
    Arc::new(move |line: &str| {
        if said.fetch_add(line.len() as u64, Ordering::Relaxed) < LOG_MAX {
            say(&format!("amiboot: {line}"), false);
        }
    })
}

/// Where the network tells what a person should know.
fn notice() -> Notice {
    Arc::new(|line: &str| say(&format!("amiboot: {line}"), false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_was_taken_back_begins_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let config = InstanceConfig {
            version: crate::monitor::config::VERSION,
            id: "i-0123456789abcdef0".into(),
            memory: 32 << 20,
            cpus: 1,
            mode: crate::monitor::config::Mode::Auto,
            hvm: Hvm::default(),
            pv: Pv::default(),
            identity: crate::monitor::config::InstanceIdentity {
                uuid: uuid::Uuid::from_u128(7),
                instance_type: "t3.micro".into(),
            },
            volumes: Vec::new(),
            network: None,
            seed_disk: false,
            agent: false,
            console_log: crate::monitor::config::ConsoleLogConfig { path: path("console.log"), keep: 64 << 10 },
            control_socket: path("control.sock"),
            alive_lock: path("alive"),
            exit_file: path("exit.json"),
            on_exit: vec!["/bin/false".into()],
            grace_ms: 60_000,
            restart: true,
        };
        std::fs::write(path("exit.json"), "of the one before").unwrap();
        let surroundings = Surroundings {
            accept_interpreting_kvm: true,
            // Who asks has the lock: nobody takes the start back after that.
            is_withdrawn: Box::new({
                let lock = path("alive");
                move || {
                    matches!(crate::monitor::client::is_alive(&lock), Ok(crate::monitor::client::Life::Alive { .. }))
                }
            }),
            timeline: Arc::new(Timeline::from_process_start()),
            started: Box::new(|| unreachable!("there is no machine")),
        };
        assert!(matches!(run(&config, surroundings), Err(InstanceError::Withdrawn)));
        assert_eq!(std::fs::read(path("exit.json")).unwrap(), b"of the one before");
        assert!(!path("console.log").exists() && !path("control.sock").exists());
        let life = crate::monitor::client::is_alive(&path("alive")).unwrap();
        assert_eq!(life, crate::monitor::client::Life::Dead);
    }
}
