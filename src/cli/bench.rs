//! `amiboot bench`: boots measured.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand, ValueEnum};
use indicatif::ProgressBar;
use regex::bytes::Regex;
use serde::Serialize;

use super::bench_progress::{Shown, style};
use super::run::{DiskChoice, memory_size, pattern};
use super::{CliError, FAILED, INTERRUPTED, bench_table, output};
use crate::bench::page_cache::ColdBy;
use crate::bench::phase::Phase;
use crate::bench::plan::Plan;
use crate::bench::record::{
    Cache, CommandFacts, FileFacts, FirmwareFacts, HostFacts, KIND, Mode, Options, Record, SCHEMA,
};
use crate::bench::runner::Runner;
use crate::bench::summary::{Figures, Group};
use crate::bench::svg;
use crate::bench::work_dir::WorkDir;
use crate::host::files;
use crate::launch::signals::EndSignals;
use crate::launch::volumes::scratch_dir;

/// The verbs of `amiboot bench`.
#[derive(Subcommand)]
pub enum BenchCommand {
    Boot(Box<BootArgs>),
}

/// How a guest is booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeChoice {
    /// Paravirtual
    Pv,
    /// By SeaBIOS and the disk's own boot loader
    #[value(alias = "hvm-bios")]
    Hvm,
    /// By OVMF and the disk's own boot loader
    HvmUefi,
}

/// What the host remembers of earlier runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CacheChoice {
    /// No unpacked kernel, and the files not in memory
    Cold,
    /// As after a run
    Warm,
}

impl From<ModeChoice> for Mode {
    fn from(choice: ModeChoice) -> Self {
        match choice {
            ModeChoice::Pv => Self::Pv,
            ModeChoice::Hvm => Self::Hvm,
            ModeChoice::HvmUefi => Self::HvmUefi,
        }
    }
}

impl From<CacheChoice> for Cache {
    fn from(choice: CacheChoice) -> Self {
        match choice {
            CacheChoice::Cold => Self::Cold,
            CacheChoice::Warm => Self::Warm,
        }
    }
}

/// Boots an image many times, each way in turn, and tells how long each phase took; or compares two such measurements
///
/// Every run is a process of its own; the image is not changed. Ctrl-C ends it and shows what was measured so far.
#[derive(Args)]
#[command(after_help = phases_help())]
pub struct BootArgs {
    /// The disk image: a raw or qcow2 file, or a block device
    #[arg(required_unless_present = "compare")]
    image: Option<PathBuf>,

    /// Ways to boot it, which take turns
    #[arg(long, value_enum, value_delimiter = ',', default_value = "pv,hvm")]
    modes: Vec<ModeChoice>,

    /// Runs of each mode and each state of the caches
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,

    /// Runs of each mode before, which do not count
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100))]
    warm_up: u32,

    /// What the host is to remember of earlier runs
    #[arg(long, value_enum, value_delimiter = ',', default_value = "cold,warm")]
    cache: Vec<CacheChoice>,

    /// For cold runs, drop the host's whole page cache, not only the files of the run (root only)
    #[arg(long)]
    drop_host_caches: bool,

    /// A boot ends when the console shows this (a regular expression)
    #[arg(long, value_name = "REGEX", default_value = "login:", value_parser = pattern)]
    until: Regex,

    /// A boot ends when the guest writes 123 to the boot-timer port, 0x508, whatever its console shows
    #[arg(long, conflicts_with = "until")]
    until_timer: bool,

    /// A boot that takes longer than this has failed
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// Memory of the guest, for example 512M or 2G
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = memory_size)]
    memory: u64,

    /// Number of processors
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: u32,

    /// A volume, or a change of the root, as in `amiboot run` (repeatable)
    #[arg(long = "bdm", value_name = "MAPPING")]
    bdm: Vec<String>,

    /// How HVM guests see their volumes
    #[arg(long, value_enum, default_value = "virtio")]
    disk: DiskChoice,

    /// Add this to the end of a PV guest's kernel command line (repeatable)
    #[arg(long, value_name = "TEXT")]
    append: Vec<String>,

    /// Use this file as the firmware of mode hvm
    #[arg(long, value_name = "FILE")]
    firmware_bios: Option<PathBuf>,

    /// Use this file as the firmware of mode hvm-uefi
    #[arg(long, value_name = "FILE")]
    firmware_uefi: Option<PathBuf>,

    /// Write every run, and what is needed to measure again, to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// With --json, leave out the image's SHA-256, which takes a while
    #[arg(long, requires = "json")]
    no_digest: bool,

    /// Draw the medians to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Compare two files of --json instead: how B stands to A
    #[arg(long, num_args = 2, value_names = ["A.json", "B.json"], conflicts_with_all = ["image", "json", "svg"])]
    compare: Option<Vec<PathBuf>>,
}

fn phases_help() -> String {
    let mut text = "Phases, each from the end of the one before; the first begins with the process:\n".to_owned();
    for phase in Phase::ALL {
        let only = if phase.is_of_pv() { "" } else { " (hvm only)" };
        text.push_str(&format!("  {:<13}  until {}{only}\n", phase.name(), phase.ends_with()));
    }
    text.push_str(
        "A phase whose end a guest does not show is told together with the next one.\n\n\
         Exit codes: 0 every mode has runs that count; 1 it failed, or a mode has none; 2 the words of the call are off; \
         130 after Ctrl-C.",
    );
    text
}

pub(super) fn run(command: &BenchCommand) -> Result<u8, CliError> {
    let BenchCommand::Boot(args) = command;
    if let Some([a, b]) = args.compare.as_deref() {
        output::print(&bench_table::compare(&Record::read(a)?, &Record::read(b)?))?;
        return Ok(0);
    }
    let image = args.image.as_deref().ok_or("no image was given")?;
    measure(args, image)
}

fn measure(args: &BootArgs, image: &Path) -> Result<u8, CliError> {
    for (option, path) in [("--json", &args.json), ("--svg", &args.svg)] {
        if let Some(path) = path {
            files::check_path(path).map_err(|e| format!("{option} {}: {e}", path.display()))?;
        }
    }
    let plan = plan(args, image)?;
    let cold_by = if args.drop_host_caches { ColdBy::WholeHost } else { ColdBy::Files };
    cold_by.check().map_err(|e| format!("--drop-host-caches: {e}; only root may, and not in every container"))?;
    let scratch = scratch_dir();
    let work = WorkDir::new(&scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
    let program = std::env::current_exe().map_err(|e| format!("this program's own file: {e}"))?;
    let mut signals = EndSignals::catch().map_err(|e| format!("catching signals: {e}"))?;
    let started = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();

    let mut facts = FileFacts::of(image).map_err(|e| format!("{}: {e}", image.display()))?;
    if args.json.is_some() && !args.no_digest && !digest(&mut facts, &mut signals)? {
        return Ok(INTERRUPTED);
    }
    let steps = u64::try_from(plan.steps().len()).unwrap_or(u64::MAX);
    let shown = Shown::new(steps);
    let runner = Runner { plan: &plan, program, cold_by, work: &work };
    let outcome = runner.run(&mut signals, &mut |progress| shown.tell(progress));
    shown.end();
    let outcome = outcome?;
    let firmware = outcome.firmware.into_iter().filter_map(|(mode, path)| {
        let mut file = FileFacts::of(&path).ok()?;
        // It was there a moment ago; without a digest its path still stands.
        let _ = file.digest(|_| true);
        Some(FirmwareFacts { mode, file })
    });
    let record = Record {
        schema: SCHEMA,
        kind: KIND.into(),
        amiboot: env!("CARGO_PKG_VERSION").into(),
        started,
        complete: !outcome.interrupted,
        host: HostFacts::read(),
        image: facts,
        guest_kernel: outcome.guest_kernel,
        firmware: firmware.collect(),
        options: options(&plan, cold_by),
        runs: outcome.runs,
    };
    publish(args, &record)?;
    let missing = plan.caches.iter().any(|c| plan.modes.iter().any(|m| record.counting(*m, *c).next().is_none()));
    Ok(match (outcome.interrupted, missing) {
        (true, _) => INTERRUPTED,
        (false, true) => FAILED,
        (false, false) => 0,
    })
}

fn plan(args: &BootArgs, image: &Path) -> Result<Plan, CliError> {
    let mut modes: Vec<Mode> = Vec::new();
    for mode in args.modes.iter().map(|m| Mode::from(*m)) {
        if !modes.contains(&mode) {
            modes.push(mode);
        }
    }
    let mut caches: Vec<Cache> = args.cache.iter().map(|c| Cache::from(*c)).collect();
    caches.sort_unstable();
    caches.dedup();
    let has = |mode| modes.contains(&mode);
    let wasted = [
        ("--append", !args.append.is_empty() && !has(Mode::Pv), "pv"),
        ("--disk", args.disk != DiskChoice::Virtio && modes.iter().all(|m| m.is_pv()), "hvm"),
        ("--firmware-bios", args.firmware_bios.is_some() && !has(Mode::Hvm), "hvm"),
        ("--firmware-uefi", args.firmware_uefi.is_some() && !has(Mode::HvmUefi), "hvm-uefi"),
    ];
    if let Some((option, _, mode)) = wasted.iter().find(|(_, is_wasted, _)| *is_wasted) {
        return Err(format!("{option}: none of --modes has that; add {mode}").into());
    }
    let pair = |name: &str, value: String| [name.to_owned(), value];
    let mut words = Vec::new();
    words.extend(pair("--memory", format!("{}B", args.memory)));
    words.extend(pair("--cpus", args.cpus.to_string()));
    words.extend(args.bdm.iter().flat_map(|mapping| pair("--bdm", mapping.clone())));
    if args.until_timer {
        words.push("--until-timer".into());
    } else {
        words.extend(pair("--until", args.until.to_string()));
    }
    let disk = args.disk.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
    let firmware = |file: &Option<PathBuf>, name: &str| file.as_ref().map_or(name.into(), |f| f.display().to_string());
    Ok(Plan {
        image: image.into(),
        modes,
        caches,
        runs: args.runs,
        warm_up: args.warm_up,
        words,
        pv_words: args.append.iter().flat_map(|text| pair("--append", text.clone())).collect(),
        hvm_words: pair("--disk", disk).into(),
        bios: firmware(&args.firmware_bios, "bios"),
        uefi: firmware(&args.firmware_uefi, "uefi"),
        timeout: args.timeout,
    })
}

fn options(plan: &Plan, cold_by: ColdBy) -> Options {
    Options {
        modes: plan.modes.clone(),
        caches: plan.caches.clone(),
        runs: plan.runs,
        warm_up: plan.warm_up,
        cold_by: cold_by.describe().into(),
        commands: plan.modes.iter().map(|m| CommandFacts { mode: *m, words: plan.command(*m) }).collect(),
    }
}

/// Takes the image's digest; false where a signal came.
fn digest(facts: &mut FileFacts, signals: &mut EndSignals) -> Result<bool, CliError> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(facts.bytes) } else { ProgressBar::hidden() };
    bar.set_style(style("{msg} {wide_bar} {bytes} of {total_bytes}"));
    bar.set_message("the image's digest");
    let path = facts.path.clone();
    let mut interrupted = false;
    facts
        .digest(|done| {
            bar.set_position(done);
            interrupted |= signals.taken() > 0;
            !interrupted
        })
        .map_err(|e| format!("{}: {e}", path.display()))?;
    bar.finish_and_clear();
    Ok(!interrupted)
}

/// The file of `--json`: the record, and what its runs come to.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    record: &'a Record,
    figures: Vec<Figures>,
}

/// Prints the tables and writes the files.
fn publish(args: &BootArgs, record: &Record) -> Result<(), CliError> {
    let groups = Group::all(record);
    let mut text = String::new();
    let name = output::clean(&record.image.path.display().to_string());
    if groups.is_empty() {
        text.push_str(&format!("{name}: no run came to its end\n"));
    } else {
        let memory = args.memory >> 20;
        text.push_str(&format!("{name}: {} CPU, {memory} MiB; on {}\n\n", args.cpus, output::clean(&host(record))));
        text.push_str(&bench_table::describe(record, &groups));
        if groups.iter().any(|g| !g.mode.is_pv()) && groups.iter().any(|g| g.mode.is_pv()) {
            text.push_str(&bench_table::explain_verdicts());
        }
    }
    if !record.complete {
        text.push_str("ended before all runs were made\n");
    }
    output::print(&text)?;
    if let Some(path) = &args.json {
        let written = Written { record, figures: groups.iter().map(Figures::from).collect() };
        let mut json = serde_json::to_vec_pretty(&written)?;
        json.push(b'\n');
        files::replace(path, &json).map_err(|e| format!("--json {}: {e}", path.display()))?;
    }
    if let Some(path) = &args.svg {
        if groups.is_empty() {
            output::note("--svg: there is nothing to draw");
        } else {
            let picture = svg::draw(record, &groups);
            files::replace(path, picture.as_bytes()).map_err(|e| format!("--svg {}: {e}", path.display()))?;
        }
    }
    Ok(())
}

fn host(record: &Record) -> String {
    let host = &record.host;
    let nested = if host.is_virtual { ", itself a virtual machine" } else { "" };
    let model = if host.processor.is_empty() { "an unknown processor" } else { &host.processor };
    format!("{model}, Linux {}, KVM {}{nested}", host.kernel, host.kvm)
}
