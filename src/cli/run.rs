//! `amiboot run`: a disk's machine in the foreground.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};
use regex::bytes::{Regex, RegexBuilder};

use super::run_network::RunNetworkArgs;
use super::{CRASHED, CliError, FAILED, TIMED_OUT, Usage, output};
use crate::disk::size::parse_size;
use crate::disk::{Format, HostCache};
use crate::host::kvm;
use crate::launch::bdm::RootVolume;
use crate::launch::console;
use crate::launch::firmware::{FirmwareChoice, FirmwareOptions};
use crate::launch::network::{Network, Opening};
use crate::launch::plan::{BootOverrides, Booted, Protocol};
use crate::launch::report::BootReport;
use crate::launch::seed;
use crate::launch::session::{self, Ended, Limits, Outcome, SessionError};
use crate::launch::start::{self, ModeWish, Request, Start};
use crate::launch::volumes;
use crate::net::user::Notice;
use crate::vmm::boot::BootError;
use crate::vmm::builder::{BuildError, DiskInterface};
use crate::vmm::config::MachineConfig;
use crate::vmm::smbios::Identity;
use crate::vmm::timeline::{Mark, Timeline};

/// The compiled pattern of `--until` may take this much memory, in bytes.
const PATTERN_MAX: usize = 1 << 20;

/// What a guest is told of its instance type.
const INSTANCE_TYPE: &str = "t3.micro";

/// Which kind of guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// PV where a kernel that can be booted is found on the disk, else HVM
    Auto,
    /// Paravirtual: the image's own kernel, entered directly
    Pv,
    /// Firmware and the disk's own boot loader
    Hvm,
}

/// How the kernel is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProtocolChoice {
    /// PVH where the kernel has it, else the Linux boot protocol
    Auto,
    /// PVH
    Pvh,
    /// The unpacked kernel, by the Linux boot protocol
    Linux,
    /// The bzImage as it is: it unpacks itself
    Bzimage,
}

impl From<Mode> for ModeWish {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Auto => Self::Auto,
            Mode::Pv => Self::Pv,
            Mode::Hvm => Self::Hvm,
        }
    }
}

impl From<ProtocolChoice> for Protocol {
    fn from(choice: ProtocolChoice) -> Self {
        match choice {
            ProtocolChoice::Auto => Self::Auto,
            ProtocolChoice::Pvh => Self::Pvh,
            ProtocolChoice::Linux => Self::Linux,
            ProtocolChoice::Bzimage => Self::BzImage,
        }
    }
}

/// How an HVM guest sees its volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DiskChoice {
    /// virtio-blk
    Virtio,
    /// NVMe controllers with the identity of EC2's
    Nvme,
}

impl From<DiskChoice> for DiskInterface {
    fn from(choice: DiskChoice) -> Self {
        match choice {
            DiskChoice::Virtio => Self::Virtio,
            DiskChoice::Nvme => Self::Nvme,
        }
    }
}

/// What disks do with the host's page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CacheChoice {
    /// Use it: what was read before, by any run, is read from memory
    Host,
    /// Go past it: raw disks only, in file systems with direct I/O
    None,
}

impl From<CacheChoice> for HostCache {
    fn from(choice: CacheChoice) -> Self {
        match choice {
            CacheChoice::Host => Self::Used,
            CacheChoice::None => Self::Bypassed,
        }
    }
}

/// Boots a disk image in the foreground, its console on this terminal
///
/// The file is never changed unless --persist is given: writes go to a layer that is gone afterwards. On a terminal,
/// Ctrl-a x ends the machine and Ctrl-a h shows the keys. SIGINT and SIGTERM press the guest's power button first.
#[derive(Args)]
pub struct RunArgs {
    /// The disk image: a raw or qcow2 file, or a block device
    image: PathBuf,

    /// Which kind of guest; without it, options that only one kind has decide, and then the disk
    #[arg(long, value_enum, default_value = "auto")]
    mode: Mode,

    /// Firmware of an HVM guest: bios, uefi, or a file. Without it, what the disk can boot by: bios where it has boot
    /// code in its first sector, uefi where it only has a loader on an EFI system partition
    ///
    /// It is looked for in the directory that AMIBOOT_FIRMWARE_PATH names (bios-256k.bin, OVMF_CODE_4M.fd with
    /// OVMF_VARS_4M.fd, OVMF.fd), by QEMU's descriptors, and where distributions put it. The variables of a file
    /// named ...CODE... begin as ...VARS... in its directory; a file that holds them itself, such as OVMF.fd, keeps none.
    #[arg(long, value_name = "FIRMWARE")]
    firmware: Option<FirmwareChoice>,

    /// Keep the UEFI variables of an HVM guest in this file, made at the first run; they are gone after the run otherwise
    #[arg(long, value_name = "FILE")]
    uefi_vars: Option<PathBuf>,

    /// How an HVM guest sees its volumes: virtio where not given
    #[arg(long, value_enum)]
    disk: Option<DiskChoice>,

    /// Write what the firmware of an HVM guest says of its work to this file
    #[arg(long, value_name = "FILE")]
    firmware_log: Option<PathBuf>,

    /// Memory of the guest, for example 512M or 2G
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = memory_size)]
    memory: u64,

    /// Number of processors
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: u32,

    /// A volume, or a change of the root: DEVICE=SIZE|FILE|ephemeral0|none[,size=..][,read-only][,persist]
    /// [,format=raw|qcow2][,delete-on-termination=..], or the aws JSON form, inline or @FILE (repeatable)
    #[arg(long = "bdm", value_name = "MAPPING")]
    bdm: Vec<String>,

    /// Boot this kernel instead of the image's
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,

    /// Use this initrd instead of the image's
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,

    /// Use this kernel command line instead of the image's
    #[arg(long, value_name = "TEXT")]
    cmdline: Option<String>,

    /// Add this to the end of the kernel command line (repeatable)
    #[arg(long, value_name = "TEXT")]
    append: Vec<String>,

    /// Boot the entry with this number (from 0), id or title, instead of the image's default
    #[arg(long, value_name = "ENTRY")]
    entry: Option<String>,

    /// How the kernel is entered
    #[arg(long, value_enum, default_value = "auto")]
    protocol: ProtocolChoice,

    /// Format of the disk file; looked for in the file where not given
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    format: Option<Format>,

    /// Write to the disk file itself, and to the files of --bdm, instead of to throw-away layers
    #[arg(long)]
    persist: bool,

    /// What disks do with the host's page cache
    #[arg(long, value_enum, default_value = "host")]
    cache: CacheChoice,

    /// End with 0 as soon as the console shows this (a regular expression; the last 4 KiB are searched)
    #[arg(long, value_name = "REGEX", value_parser = pattern)]
    until: Option<Regex>,

    /// End with 0 as soon as the guest writes 123 to the boot-timer port, 0x508
    #[arg(long)]
    until_timer: bool,

    /// End with 124 after this time, for example 90s or 5m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,

    /// How long the guest has to switch itself off after SIGINT or SIGTERM
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    grace: Duration,

    /// End, with 0, when the guest restarts
    #[arg(long)]
    no_reboot: bool,

    /// Write the instants of the boot and the memory used to this file, as JSON
    #[arg(long, value_name = "FILE")]
    boot_report: Option<PathBuf>,

    #[command(flatten)]
    network: RunNetworkArgs,

    /// Run on a KVM that interprets guest kernel code too, for guests small enough for it
    #[arg(long, hide = true, env = "AMIBOOT_ACCEPT_INTERPRETING_KVM", value_parser = FalseyValueParser::new())]
    accept_interpreting_kvm: bool,
}

pub(super) fn memory_size(text: &str) -> Result<u64, String> {
    let size = parse_size(text).map_err(|e| e.to_string())?;
    // Whole pages: less than one more than asked for.
    size.checked_next_multiple_of(4096).ok_or_else(|| format!("{text} is too much"))
}

fn format(text: &str) -> Result<Format, String> {
    text.parse().map_err(|e: String| e)
}

pub(super) fn pattern(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text).size_limit(PATTERN_MAX).build().map_err(|e| e.to_string())
}

/// The first option given that only a PV guest has, and the first that only an HVM guest has.
fn options_of_one_kind(args: &RunArgs) -> (Option<&'static str>, Option<&'static str>) {
    let pv = [
        ("--kernel", args.kernel.is_some()),
        ("--initrd", args.initrd.is_some()),
        ("--cmdline", args.cmdline.is_some()),
        ("--append", !args.append.is_empty()),
        ("--entry", args.entry.is_some()),
        ("--protocol", args.protocol != ProtocolChoice::Auto),
    ];
    let hvm = [
        ("--firmware", args.firmware.is_some()),
        ("--uefi-vars", args.uefi_vars.is_some()),
        ("--disk", args.disk.is_some()),
        ("--firmware-log", args.firmware_log.is_some()),
    ];
    let first = |options: &[(&'static str, bool)]| options.iter().find(|(_, given)| *given).map(|(option, _)| *option);
    (first(&pv), first(&hvm))
}

/// Runs it; gives the exit code.
pub(super) fn run(args: &RunArgs, timeline: &Arc<Timeline>) -> Result<u8, CliError> {
    let (pv, hvm) = options_of_one_kind(args);
    let kind = start::decide(args.mode.into(), pv, hvm).map_err(|error| Usage(error.to_string()))?;
    let machine = MachineConfig { memory: args.memory, cpus: args.cpus };
    machine.check_minimum().map_err(|error| Usage(error.to_string()))?;
    if let Some(path) = &args.boot_report {
        BootReport::check_path(path)?;
    }
    // Opening files takes next to no time: who has named a wrong one reads of that, and not of KVM.
    let mut root = RootVolume::new(args.image.clone(), args.format, args.persist);
    root.cache = args.cache.into();
    let volumes = volumes::open(&root, &args.bdm).map_err(|error| match error.is_about_words() {
        true => CliError::from(Usage(error.to_string())),
        false => error.into(),
    })?;
    // Before the disk is looked through: nobody waits for a run that cannot be.
    let host = kvm::open()?;
    if !args.accept_interpreting_kvm {
        host.require_hardware()?;
    }
    volumes.hints().iter().for_each(|hint| output::note(hint));
    timeline.mark(Mark::ConfigurationRead);

    let overrides = BootOverrides {
        kernel: args.kernel.clone(),
        initrd: args.initrd.clone(),
        cmdline: args.cmdline.clone(),
        append: args.append.clone(),
        entry: args.entry.clone(),
        protocol: args.protocol.into(),
    };
    let identity = Identity::random(INSTANCE_TYPE)
        .map_err(|cause| format!("the host has no random numbers for the instance's UUID: {cause}"))?;
    let network = args.network.config(&identity, "x86_64")?;
    let mut disks = volumes.disks().to_vec();
    if args.network.has_seed_disk() {
        let document = network.as_ref().and_then(|network| network.metadata.as_ref());
        let document =
            document.ok_or_else(|| Usage("--cloud-init nocloud needs a network: leave --net none out".into()))?;
        disks.push(seed::disk(document).map_err(|cause| format!("the seed disk: {cause}"))?);
    }
    let network = network.map(|config| Network::begin(config, notice())).transpose();
    let network = network.map_err(|cause| format!("the network's thread: {cause}"))?;
    let options = FirmwareOptions {
        interface: args.disk.unwrap_or(DiskChoice::Virtio).into(),
        variables: args.uefi_vars.clone(),
        log: args.firmware_log.clone(),
        identity,
    };
    let mut start = Start::choose(&Request {
        kind,
        volumes: &volumes,
        overrides,
        firmware: args.firmware.clone(),
        options,
        timeline,
        say: output::note,
    })?;
    let limits = Limits {
        until: args.until.clone(),
        until_timer: args.until_timer,
        timeout: args.timeout,
        no_reboot: args.no_reboot,
        grace: args.grace,
    };
    let network = network.map(Opening::wait).transpose()?;
    if let Some(network) = &network {
        network.forwards().iter().for_each(|forward| output::note(&format!("port of the host: {forward}")));
    }
    let parts = (disks, network.as_ref().map(Network::card));
    let ended = session::run(&host, machine, parts, &limits, &mut || start.next_boot().map_err(Into::into), timeline)
        .map_err(|error| name_file(error, args, start.booted()))?;
    let code = exit_code(&ended.outcome);
    if let Some(path) = &args.boot_report {
        BootReport::new(&args.image, machine, start.booted(), &ended, code, timeline)
            .with_firmware(start.firmware_file().map(Into::into))
            .write(path)?;
    }
    tell(&ended, &limits);
    Ok(code)
}

/// Where the network tells what a person should know; the terminal may be raw by then.
fn notice() -> Notice {
    Arc::new(|line: &str| console::say(&format!("amiboot: {line}"), std::io::stdin().is_terminal()))
}

/// The machine knows open files only: says which one it is that cannot be loaded.
fn name_file(error: SessionError, args: &RunArgs, booted: Option<&Booted>) -> CliError {
    let SessionError::Build(BuildError::Boot(boot)) = &error else { return error.into() };
    let Some(booted) = booted else { return error.into() };
    let of_image = |what, name: &str| format!("{}: {what} {name}", args.image.display());
    let (file, mend) = match (boot, &args.kernel, &args.initrd) {
        (BootError::InitrdTooLarge { .. }, _, Some(initrd)) => (format!("--initrd {}", initrd.display()), ""),
        (BootError::InitrdTooLarge { .. }, _, None) => (of_image("initrd", &booted.initrds.join(", ")), ""),
        (BootError::CommandLineTooLong { .. } | BootError::BadCommandLine(_), ..) => {
            (of_image("kernel", &booted.kernel), "; give another with --cmdline, or other words with --append")
        }
        (_, Some(kernel), _) => (format!("--kernel {}", kernel.display()), ""),
        (_, None, _) => (of_image("kernel", &booted.kernel), ""),
    };
    format!("{file}: {boot}{mend}").into()
}

fn exit_code(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::PoweredOff | Outcome::Restarted | Outcome::UntilMatched | Outcome::Quit => 0,
        Outcome::UntilMissed | Outcome::Interrupted => FAILED,
        Outcome::TimedOut => TIMED_OUT,
        Outcome::Crashed(_) => CRASHED,
    }
}

/// Says on standard error how it ended, where that is not plain to see.
fn tell(ended: &Ended, limits: &Limits) {
    match &ended.outcome {
        Outcome::PoweredOff | Outcome::UntilMatched => {}
        Outcome::Restarted => output::note("the guest restarted (--no-reboot)"),
        Outcome::Quit => output::note("machine ended"),
        Outcome::UntilMissed => {
            output::note(&format!("the guest ended before {}", awaited(limits).unwrap_or_default()));
        }
        Outcome::TimedOut => {
            let timeout = limits.timeout.unwrap_or_default();
            let what = awaited(limits).map_or("and the guest still ran".into(), |what| format!("before {what}"));
            output::note(&format!("{} passed {what}", humantime::format_duration(timeout)));
            tell_last_lines(ended);
        }
        Outcome::Interrupted => output::note("ended by a signal; the guest had not switched itself off"),
        Outcome::Crashed(how) => {
            output::note(&format!("the guest crashed: {how}"));
            tell_last_lines(ended);
        }
    }
}

/// What was waited for, where anything was.
fn awaited(limits: &Limits) -> Option<String> {
    const TIMER: &str = "it wrote to the boot timer that its boot is done";
    match (&limits.until, limits.until_timer) {
        (Some(until), false) => Some(format!("its console showed /{until}/")),
        (Some(until), true) => Some(format!("its console showed /{until}/ or {TIMER}")),
        (None, true) => Some(TIMER.into()),
        (None, false) => None,
    }
}

fn tell_last_lines(ended: &Ended) {
    if ended.last_lines.is_empty() {
        output::note("its console showed nothing");
        return;
    }
    output::note("the last lines of its console:");
    for line in &ended.last_lines {
        output::note(&format!("  {line}"));
    }
}
