//! The command line: one file per noun, and the only place that prints.

mod access_key;
mod bench;
mod bench_progress;
mod bench_table;
mod console;
mod doctor;
mod filter;
mod frozen;
mod host_keys;
mod image;
mod instance;
mod key;
mod listing;
mod network;
mod output;
mod parameter;
mod progress;
mod region;
mod run;
mod run_network;
mod scope;
mod serve;
mod snapshot;
mod table;
mod tag;
mod user_data;
mod vmm;
mod volume;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::host::open_files;
use crate::launch::signals;
use crate::vmm::timeline::Timeline;

/// It failed.
const FAILED: u8 = 1;
/// The words of the call are off; clap ends with it, too.
const USAGE: u8 = 2;
/// Ctrl-C ended a measurement: as a shell tells of SIGINT.
const INTERRUPTED: u8 = 130;
/// `--timeout` ended the run.
const TIMED_OUT: u8 = 124;
/// The guest crashed.
const CRASHED: u8 = 125;

/// Boots Amazon-Machine-Image-style disk images as virtual machines on this host's KVM.
#[derive(Parser)]
#[command(
    name = "amiboot",
    version,
    max_term_width = 100,
    after_help = "\
Exit codes: 0 done; 1 it failed; 2 the words of the call are off; `run` also: 124 on --timeout, 125 where the guest \
crashed (kernel panic, triple fault); `bench` also: 130 after Ctrl-C."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(Box<run::RunArgs>),
    /// Disk images, and images that machines are launched from
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Machines made of images, in the background
    #[command(subcommand)]
    Instance(instance::InstanceCommand),
    /// Disks that instances have
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// What volumes were, for good
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Key pairs, by which people log in to instances
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Access keys, which requests to the API are signed with
    #[command(subcommand)]
    AccessKey(access_key::AccessKeyCommand),
    /// Names for values, mostly for images, that all accounts or one's own see
    #[command(subcommand)]
    Parameter(parameter::ParameterCommand),
    /// Names and values that a person gives to resources
    #[command(subcommand)]
    Tag(tag::TagCommand),
    /// Regions and their zones
    #[command(subcommand)]
    Region(region::RegionCommand),
    Serve(serve::ServeArgs),
    /// Measures
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    Doctor(doctor::DoctorArgs),
    #[command(hide = true)]
    Vmm(vmm::VmmArgs),
}

/// An error for the person: one line, then what caused it.
type CliError = Box<dyn std::error::Error + Send + Sync>;

/// What is wrong with the words of a call, whatever the files and the host are like.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Does what the command line says.
pub fn main(timeline: &Arc<Timeline>) -> ExitCode {
    signals::outlive_file_size_limit();
    open_files::allow_all();
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(&args, timeline),
        Command::Image(command) => image::run(&command),
        Command::Bench(command) => bench::run(&command),
        Command::Doctor(args) => doctor::run(&args),
        Command::Instance(command) => instance::run(&command),
        Command::Volume(command) => volume::run(&command),
        Command::Snapshot(command) => snapshot::run(&command),
        Command::Key(command) => key::run(&command),
        Command::AccessKey(command) => access_key::run(&command),
        Command::Parameter(command) => parameter::run(&command),
        Command::Tag(command) => tag::run(&command),
        Command::Region(command) => region::run(&command),
        Command::Serve(args) => args.run().map(|()| 0),
        Command::Vmm(args) => vmm::run(&args, timeline),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::error(error.as_ref());
            ExitCode::from(if error.is::<Usage>() { USAGE } else { FAILED })
        }
    }
}
