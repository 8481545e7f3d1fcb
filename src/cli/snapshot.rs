//! `amiboot snapshot`: what volumes were, for good.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::CliError;
use super::filter::FilterArgs;
use super::frozen;
use super::listing::{self, TagArgs, minute};
use super::progress::Shown;
use super::scope::{ScopeArgs, told};
use super::table::Column;
use crate::cloud::{Snapshot, SnapshotQuery};
use crate::disk::foreign::import::ImportFormat;

/// The verbs of `amiboot snapshot`.
#[derive(Subcommand)]
pub enum SnapshotCommand {
    /// Takes a snapshot of volumes, also while instances use them
    Create(CreateArgs),
    /// Makes a snapshot of a disk file
    Import(ImportArgs),
    /// Lists snapshots
    Ls(LsArgs),
    /// Shows a snapshot
    Show(ShowArgs),
    /// Copies a snapshot, also into another region
    Copy(CopyArgs),
    /// Lets other accounts make volumes of a snapshot
    Share(ShareArgs),
    /// Deletes snapshots
    Delete(DeleteArgs),
}

/// Options of `snapshot create`.
#[derive(Args)]
pub struct CreateArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The volumes
    #[arg(required = true)]
    volumes: Vec<String>,
    /// What is said of it
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    #[command(flatten)]
    tags: TagArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `snapshot import`.
#[derive(Args)]
pub struct ImportArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The disk file: raw, qcow2, VMDK, VHD or VHDX
    file: PathBuf,
    /// Its format; looked for in the file where not given
    #[arg(long, value_name = "FORMAT")]
    format: Option<ImportFormat>,
    /// What is said of it
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    #[command(flatten)]
    tags: TagArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `snapshot ls`.
#[derive(Args)]
pub struct LsArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// Those of other accounts, too, that one may make volumes of
    #[arg(long)]
    all: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `snapshot show`.
#[derive(Args)]
pub struct ShowArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The snapshot
    snapshot: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `snapshot copy`.
#[derive(Args)]
pub struct CopyArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The snapshot
    snapshot: String,
    /// The region that it is copied to; its own where not given
    #[arg(long, value_name = "REGION")]
    to_region: Option<String>,
    /// What is said of the copy
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `snapshot share`.
#[derive(Args)]
pub struct ShareArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The snapshot
    snapshot: String,
    /// An account that may make volumes of it, or all (repeatable)
    #[arg(long = "account", value_name = "ACCOUNT")]
    add: Vec<String>,
    /// An account that no longer may, or all (repeatable)
    #[arg(long = "revoke", value_name = "ACCOUNT")]
    remove: Vec<String>,
}

/// Options of `snapshot delete`.
#[derive(Args)]
pub struct DeleteArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The snapshots
    #[arg(required = true)]
    snapshots: Vec<String>,
}

const COLUMNS: [Column; 6] = [
    Column::new("SNAPSHOT"),
    Column::new("SIZE").right(),
    Column::new("STATE"),
    Column::new("VOLUME"),
    Column::new("STARTED"),
    Column::new("DESCRIPTION").cut().dropped(),
];

fn row(snapshot: &Snapshot) -> Vec<String> {
    vec![
        snapshot.snapshot_id.to_string(),
        format!("{} GiB", snapshot.volume_size),
        snapshot.state.clone(),
        snapshot.volume_id.clone().unwrap_or_default(),
        minute(&snapshot.start_time),
        snapshot.description.clone(),
    ]
}

fn show(snapshot: &Snapshot, json: bool) -> Result<(), CliError> {
    listing::print_one(snapshot, json, &COLUMNS, row)
}

pub(super) fn run(command: &SnapshotCommand) -> Result<u8, CliError> {
    match command {
        SnapshotCommand::Create(args) => {
            let tags = args.tags.tags();
            let taken = args.scope.open()?.create_snapshots(&args.volumes, &args.description, &tags).map_err(told)?;
            listing::print(&frozen::told(taken), args.json, "", &COLUMNS, row)?;
        }
        SnapshotCommand::Import(args) => {
            let mut cloud = args.scope.open()?;
            let tags = args.tags.tags();
            let mut shown = Shown::breakable("importing", args.json)?;
            let mut progress = |done, total| shown.at(done, total);
            let made = cloud.import_snapshot(&args.file, args.format, &args.description, &tags, &mut progress);
            shown.end(made.is_err());
            show(&made.map_err(told)?, args.json)?;
        }
        SnapshotCommand::Ls(args) => {
            let owners = if args.all { Vec::new() } else { vec!["self".to_owned()] };
            let query = SnapshotQuery { owners, filters: args.filter.filters.clone(), ..SnapshotQuery::default() };
            let found = args.scope.open()?.describe_snapshots(&query).map_err(told)?;
            listing::print(&found, args.json, "there are no snapshots", &COLUMNS, row)?;
        }
        SnapshotCommand::Show(args) => {
            let found = args.scope.open()?.snapshots(std::slice::from_ref(&args.snapshot), false).map_err(told)?;
            found.iter().try_for_each(|snapshot| show(snapshot, args.json))?;
        }
        SnapshotCommand::Copy(args) => {
            let here = args.scope.scope()?.region;
            let to = args.to_region.clone().unwrap_or_else(|| here.clone());
            let mut cloud = args.scope.open_in(&to)?;
            let copied = cloud.copy_snapshot(&here, &args.snapshot, args.description.as_deref(), &Default::default());
            show(&copied.map_err(told)?, args.json)?;
        }
        SnapshotCommand::Share(args) => {
            args.scope.open()?.share_snapshot(&args.snapshot, &args.add, &args.remove).map_err(told)?;
        }
        SnapshotCommand::Delete(args) => {
            let mut cloud = args.scope.open()?;
            args.snapshots.iter().try_for_each(|id| cloud.delete_snapshot(id)).map_err(told)?;
        }
    }
    Ok(0)
}
