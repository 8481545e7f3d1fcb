//! `amiboot image register`.

use clap::Args;

use super::list::print_one;
use crate::cli::CliError;
use crate::cli::listing::{self, TagArgs};
use crate::cli::output::note;
use crate::cli::scope::{ScopeArgs, told};
use crate::cloud::image::{Architecture, BootMode, Platform, RegisterRequest, VirtualizationType};

/// Makes an image of snapshots
///
/// What is not said is as EC2 has it: a paravirtual image for i386.
#[derive(Args)]
pub struct RegisterArgs {
    #[command(flatten)]
    scope: ScopeArgs,

    /// The image's name: 3 to 128 characters
    #[arg(long, value_name = "NAME")]
    name: String,

    /// What is said of it
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,

    /// What its devices are made of, as in /dev/sda1=snap-... or /dev/sdf=10G (repeatable)
    #[arg(long = "bdm", value_name = "MAPPING", required = true)]
    bdm: Vec<String>,

    /// The root's device; the first of the mapping where not given
    #[arg(long, value_name = "DEVICE")]
    root_device: Option<String>,

    /// The processor: x86_64 or i386
    #[arg(long, visible_alias = "arch", value_name = "ARCHITECTURE")]
    architecture: Option<Architecture>,

    /// How its guests are started: hvm or paravirtual
    #[arg(long, value_name = "TYPE")]
    virtualization_type: Option<VirtualizationType>,

    /// The firmware of an HVM image: legacy-bios, uefi or uefi-preferred
    #[arg(long, value_name = "MODE")]
    boot_mode: Option<BootMode>,

    /// The system, where it is windows
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,

    /// The kernel image of a PV image
    #[arg(long, value_name = "AKI")]
    kernel: Option<String>,

    /// The ramdisk image that goes with it
    #[arg(long, value_name = "ARI")]
    ramdisk: Option<String>,

    /// It has a driver for EC2's network adapter
    #[arg(long)]
    ena_support: bool,

    /// v2.0 where its instances' metadata wants tokens
    #[arg(long, value_name = "VERSION")]
    imds_support: Option<String>,

    #[command(flatten)]
    tags: TagArgs,

    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn register(args: &RegisterArgs) -> Result<u8, CliError> {
    let mapping = listing::mapping(&args.bdm)?;
    let first = mapping.first().map(|entry| entry.device_name.clone());
    let request = RegisterRequest {
        name: args.name.clone(),
        description: args.description.clone(),
        architecture: args.architecture,
        virtualization_type: args.virtualization_type,
        boot_mode: args.boot_mode,
        platform: args.platform,
        root_device_name: args.root_device.clone().or(first),
        block_device_mappings: mapping,
        kernel_id: args.kernel.clone(),
        ramdisk_id: args.ramdisk.clone(),
        ena_support: args.ena_support,
        imds_support: args.imds_support.clone(),
        image_location: None,
        tags: args.tags.tags(),
    };
    let image = args.scope.open()?.register_image(&request).map_err(told)?;
    if args.architecture.is_none() || args.virtualization_type.is_none() {
        note(&format!(
            "the image is {} and for {}; say --virtualization-type and --architecture where it is not",
            image.virtualization_type, image.architecture
        ));
    }
    print_one(&image, args.json)
}
