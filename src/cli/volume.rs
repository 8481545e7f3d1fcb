//! `amiboot volume`: disks that instances have.

use clap::{Args, Subcommand};

use super::CliError;
use super::filter::FilterArgs;
use super::listing::{self, TagArgs, minute};
use super::scope::{ScopeArgs, told};
use super::table::Column;
use crate::cloud::{Volume, VolumeRequest};

/// The verbs of `amiboot volume`.
#[derive(Subcommand)]
pub enum VolumeCommand {
    /// Makes a volume, empty or of a snapshot
    Create(CreateArgs),
    /// Lists volumes
    Ls(LsArgs),
    /// Shows a volume
    Show(ShowArgs),
    /// Attaches a volume to an instance, also to one that runs
    Attach(AttachArgs),
    /// Takes a volume from its instance
    Detach(DetachArgs),
    /// Makes a volume larger, also while an instance uses it
    Grow(GrowArgs),
    /// Deletes volumes that no instance has
    Delete(DeleteArgs),
}

/// Options of `volume create`.
#[derive(Args)]
pub struct CreateArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Its size in GiB; that of the snapshot where not given
    #[arg(long, value_name = "GIB")]
    size: Option<u64>,
    /// The snapshot that it is made of
    #[arg(long, value_name = "SNAPSHOT")]
    snapshot: Option<String>,
    /// Its zone; the region's first where not given
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Its type: gp2, gp3, io1, io2, st1, sc1, standard
    #[arg(long = "type", value_name = "TYPE")]
    volume_type: Option<String>,
    #[command(flatten)]
    tags: TagArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `volume ls`.
#[derive(Args)]
pub struct LsArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `volume show`.
#[derive(Args)]
pub struct ShowArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The volume
    volume: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `volume attach`.
#[derive(Args)]
pub struct AttachArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The volume
    volume: String,
    /// The instance
    instance: String,
    /// The device, as in /dev/sdf
    device: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `volume detach`.
#[derive(Args)]
pub struct DetachArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The volume
    volume: String,
    /// The instance that it is to be at
    #[arg(long, value_name = "INSTANCE")]
    instance: Option<String>,
    /// Without asking the guest
    #[arg(long)]
    force: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `volume grow`.
#[derive(Args)]
pub struct GrowArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The volume
    volume: String,
    /// Its new size in GiB
    #[arg(long, value_name = "GIB")]
    size: u64,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `volume delete`.
#[derive(Args)]
pub struct DeleteArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The volumes
    #[arg(required = true)]
    volumes: Vec<String>,
}

const COLUMNS: [Column; 8] = [
    Column::new("VOLUME"),
    Column::new("SIZE").right(),
    Column::new("STATE"),
    Column::new("TYPE").dropped(),
    Column::new("INSTANCE"),
    Column::new("DEVICE"),
    Column::new("SNAPSHOT").dropped(),
    Column::new("CREATED").dropped(),
];

fn row(volume: &Volume) -> Vec<String> {
    let at = volume.attachments.first();
    vec![
        volume.volume_id.to_string(),
        format!("{} GiB", volume.size),
        volume.state.clone(),
        volume.volume_type.clone(),
        at.map(|at| at.instance_id.to_string()).unwrap_or_default(),
        at.map(|at| at.device.clone()).unwrap_or_default(),
        volume.snapshot_id.clone().unwrap_or_default(),
        minute(&volume.create_time),
    ]
}

fn show(volume: &Volume, json: bool) -> Result<(), CliError> {
    listing::print_one(volume, json, &COLUMNS, row)
}

pub(super) fn run(command: &VolumeCommand) -> Result<u8, CliError> {
    match command {
        VolumeCommand::Create(args) => {
            let request = VolumeRequest {
                size: args.size,
                snapshot_id: args.snapshot.clone(),
                zone: args.zone.clone(),
                volume_type: args.volume_type.clone(),
                tags: args.tags.tags(),
                ..VolumeRequest::default()
            };
            show(&args.scope.open()?.create_volume(&request).map_err(told)?, args.json)?;
        }
        VolumeCommand::Ls(args) => {
            let volumes = args.scope.open()?.describe_volumes(&[], &args.filter.filters).map_err(told)?;
            listing::print(&volumes, args.json, "there are no volumes", &COLUMNS, row)?;
        }
        VolumeCommand::Show(args) => {
            let volumes = args.scope.open()?.volumes(std::slice::from_ref(&args.volume)).map_err(told)?;
            volumes.iter().try_for_each(|volume| show(volume, args.json))?;
        }
        VolumeCommand::Attach(args) => {
            let at = args.scope.open()?.attach_volume(&args.volume, &args.instance, &args.device).map_err(told)?;
            print_attachment(&at, args.json)?;
        }
        VolumeCommand::Detach(args) => {
            let mut cloud = args.scope.open()?;
            let at = cloud.detach_volume(&args.volume, args.instance.as_deref(), args.force).map_err(told)?;
            print_attachment(&at, args.json)?;
        }
        VolumeCommand::Grow(args) => {
            show(&args.scope.open()?.grow_volume(&args.volume, args.size).map_err(told)?, args.json)?;
        }
        VolumeCommand::Delete(args) => {
            let mut cloud = args.scope.open()?;
            args.volumes.iter().try_for_each(|id| cloud.delete_volume(id)).map_err(told)?;
        }
    }
    Ok(0)
}

fn print_attachment(at: &crate::cloud::Attachment, json: bool) -> Result<(), CliError> {
    let columns = ["VOLUME", "INSTANCE", "DEVICE", "STATE"].map(Column::new);
    listing::print_one(at, json, &columns, |at| {
        vec![at.volume_id.to_string(), at.instance_id.to_string(), at.device.clone(), at.state.clone()]
    })
}
