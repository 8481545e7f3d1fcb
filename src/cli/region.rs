//! `amiboot region`: regions and their zones.

use clap::{Args, Subcommand};

use super::scope::{ScopeArgs, told};
use super::table::Column;
use super::{CliError, listing};
use crate::cloud::zone::Zone;
use crate::cloud::{Cloud, Scope};

/// The verbs of `amiboot region`.
#[derive(Subcommand)]
pub enum RegionCommand {
    Ls(LsArgs),
    Zones(ZonesArgs),
    AddZone(AddZoneArgs),
}

/// Lists regions
#[derive(Args)]
pub struct LsArgs {
    #[command(flatten)]
    scope: ScopeArgs,

    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Lists the zones of the region
#[derive(Args)]
pub struct ZonesArgs {
    #[command(flatten)]
    scope: ScopeArgs,

    /// Of all regions
    #[arg(long)]
    all: bool,

    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Adds a zone to the region; the first zone of a new region makes it
#[derive(Args)]
pub struct AddZoneArgs {
    #[command(flatten)]
    scope: ScopeArgs,

    /// The zone's name, as in us-east-1a
    zone: String,

    /// Its id, as in use1-az1; its name where not given
    #[arg(long, value_name = "ID")]
    zone_id: Option<String>,

    /// What it is: availability-zone, local-zone, wavelength-zone or outpost
    #[arg(long = "type", value_name = "TYPE", default_value = "availability-zone")]
    zone_type: String,

    /// The availability zone that another kind of zone belongs to; the region's first where not given
    #[arg(long, value_name = "ZONE")]
    parent: Option<String>,

    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &RegionCommand) -> Result<u8, CliError> {
    match command {
        RegionCommand::Ls(args) => {
            let regions = open(&args.scope)?.regions().map_err(told)?;
            listing::print(
                &regions,
                args.json,
                "there are no regions",
                &["REGION", "ZONES"].map(Column::new),
                |region| vec![region.region_name.clone(), region.zones.to_string()],
            )?;
        }
        RegionCommand::Zones(args) => {
            let region = args.scope.scope()?.region;
            let zones = if args.all { open(&args.scope)?.zones(None) } else { args.scope.open()?.zones(Some(&region)) };
            listing::print(&zones.map_err(told)?, args.json, "there are no zones", &HEADER.map(Column::new), row)?;
        }
        RegionCommand::AddZone(args) => {
            let zone = Zone {
                zone_name: args.zone.clone(),
                region_name: args.scope.scope()?.region,
                zone_id: args.zone_id.clone().unwrap_or_else(|| args.zone.clone()),
                zone_type: args.zone_type.clone(),
                parent_zone_name: args.parent.clone(),
            };
            let added = open(&args.scope)?.add_zone(&zone).map_err(told)?;
            listing::print_one(&added, args.json, &HEADER.map(Column::new), row)?;
        }
    }
    Ok(0)
}

const HEADER: [&str; 5] = ["ZONE", "REGION", "ID", "TYPE", "PARENT"];

fn row(zone: &Zone) -> Vec<String> {
    vec![
        zone.zone_name.clone(),
        zone.region_name.clone(),
        zone.zone_id.clone(),
        zone.zone_type.clone(),
        zone.parent_zone_name.clone().unwrap_or_default(),
    ]
}

/// The catalogue in a region that there always is: the one that the options say may only be about to be.
fn open(scope: &ScopeArgs) -> Result<Cloud, CliError> {
    scope.open_in(&Scope::default().region)
}
