//! `amiboot image import`, `create` and `export`: images out of disk files and instances, and into files.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::frozen;
use crate::cli::listing::{self, TagArgs};
use crate::cli::progress::Shown;
use crate::cli::scope::{ScopeArgs, told};
use crate::cli::{CliError, Usage, output};
use crate::cloud::image::{Architecture, BootMode, ImageType, Platform, VirtualizationType};
use crate::cloud::{BundleKeys, Cloud, CreateImageRequest, ImportRequest, StopRequest, is_manifest};
use crate::disk::foreign::Overwrite;
use crate::disk::foreign::export::{self, ExportFormat};
use crate::disk::foreign::import::ImportFormat;

/// Makes an image of a disk file
///
/// What the file is, and what the image is - processor, PV or HVM, boot mode, root device - is looked for in it where
/// options do not say. The file is not needed afterwards.
#[derive(Args)]
pub struct ImportArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The disk file: raw, qcow2, VMDK, VHD or VHDX; or the manifest of an instance-store bundle, NAME.manifest.xml
    file: PathBuf,
    /// The image's name: 3 to 128 characters
    #[arg(long, value_name = "NAME")]
    name: String,
    /// The file's format; looked for in it where not given
    #[arg(long, value_name = "FORMAT")]
    format: Option<ImportFormat>,
    /// What is said of the image
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// What it is: machine, kernel or ramdisk
    #[arg(long = "type", value_name = "TYPE", default_value = "machine")]
    image_type: ImageType,
    /// The processor: x86_64 or i386
    #[arg(long, value_name = "ARCHITECTURE")]
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
    /// The root's device, as in /dev/sda1
    #[arg(long, value_name = "DEVICE")]
    root_device: Option<String>,
    /// An instance-store image: its instances' root is lost with them
    #[arg(long)]
    instance_store: bool,
    /// The kernel image of a PV image
    #[arg(long, value_name = "AKI")]
    kernel: Option<String>,
    /// The ramdisk image that goes with it
    #[arg(long, value_name = "ARI")]
    ramdisk: Option<String>,
    /// The user's private key that a bundle is opened with, PEM; the local EC2 key where not given
    #[arg(long, value_name = "FILE")]
    user_key: Option<PathBuf>,
    /// The certificate, or public key, of who has to have signed a bundle; the user's key where not given
    #[arg(long, value_name = "FILE")]
    signer: Option<PathBuf>,
    /// Take a bundle whoever has signed it, or nobody
    #[arg(long, conflicts_with = "signer")]
    unchecked: bool,
    #[command(flatten)]
    tags: TagArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Makes an image of an instance
///
/// The guest is asked to switch itself off, snapshots of all its volumes are taken, and it is started again. With
/// --no-reboot it runs on: what it had flushed to its disks is in the image, and where the guest runs QEMU's agent, which
/// freezes its file systems meanwhile, all that was written to these.
#[derive(Args)]
pub struct CreateArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The instance: its id, the beginning of it, or its name
    instance: String,
    /// The image's name: 3 to 128 characters
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What is said of the image
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// Let the guest run meanwhile
    #[arg(long)]
    no_reboot: bool,
    /// How long the guest has to switch itself off
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "2m")]
    grace: Duration,
    /// An entry that changes the image's block device mapping (repeatable)
    #[arg(long = "bdm", value_name = "MAPPING")]
    bdm: Vec<String>,
    #[command(flatten)]
    tags: TagArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Writes an image's root volume to a file
#[derive(Args)]
pub struct ExportArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The image: its id, the beginning of it, or its name
    image: String,
    /// The file; of a bundle, the directory that it is put into
    file: PathBuf,
    /// Its format: raw, qcow2, vmdk (stream-optimized), vhd, or bundle
    #[arg(long, value_name = "FORMAT", default_value = "qcow2")]
    format: Exported,
    /// The private key of who makes the bundle, PEM: who signs it, and can open it beside the local EC2 key
    #[arg(long, value_name = "FILE")]
    user_key: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    overwrite: bool,
}

pub(super) fn import(args: &ImportArgs) -> Result<u8, CliError> {
    let mut cloud = args.scope.open()?;
    let request = ImportRequest {
        path: args.file.clone(),
        format: args.format,
        name: args.name.clone(),
        description: args.description.clone(),
        image_type: Some(args.image_type),
        architecture: args.architecture,
        virtualization_type: args.virtualization_type,
        boot_mode: args.boot_mode,
        platform: args.platform,
        root_device_name: args.root_device.clone(),
        instance_store: args.instance_store,
        kernel_id: args.kernel.clone(),
        ramdisk_id: args.ramdisk.clone(),
        bundle: is_manifest(&args.file).then(|| BundleKeys {
            user_key: args.user_key.clone(),
            signer: args.signer.clone(),
            unchecked: args.unchecked,
        }),
        tags: args.tags.tags(),
    };
    let mut shown = Shown::breakable("importing", args.json)?;
    let made = cloud.import_image(&request, &mut |done, total| shown.at(done, total));
    shown.end(made.is_err());
    super::list::print_one(&made.map_err(told)?, args.json)
}

pub(super) fn create(args: &CreateArgs) -> Result<u8, CliError> {
    let mapping = listing::mapping(&args.bdm)?;
    let request = CreateImageRequest {
        instance: args.instance.clone(),
        name: args.name.clone(),
        description: args.description.clone(),
        no_reboot: args.no_reboot,
        stop: StopRequest { force: false, grace: Some(args.grace) },
        mapping,
        snapshot_tags: None,
        tags: args.tags.tags(),
    };
    let taken = args.scope.open()?.create_image(&request).map_err(told)?;
    super::list::print_one(&frozen::told(taken), args.json)
}

pub(super) fn export(args: &ExportArgs) -> Result<u8, CliError> {
    let mut cloud = args.scope.open()?;
    let id = cloud.resolve_image(&args.image).map_err(told)?;
    let Exported::File(format) = args.format else { return export_bundle(&mut cloud, id.as_str(), args) };
    let (_, disk) = cloud.image_disk(id.as_str()).map_err(told)?;
    let overwrite = if args.overwrite { Overwrite::Replace } else { Overwrite::Refuse };
    let mut shown = Shown::begin("exporting", false);
    let mut progress = |at: crate::disk::foreign::Progress| {
        let _ = shown.at(at.done, at.total);
    };
    let written = export::write(disk.as_ref(), format, &args.file, overwrite, &mut progress);
    shown.end(written.is_err());
    let written = written?;
    let (bytes, size) = (crate::host::report::bytes(written.file_len), crate::host::report::bytes(written.disk_size));
    output::print(&format!("{}: {} of a disk of {size}\n", args.file.display(), bytes))?;
    Ok(0)
}

/// What an image is exported as.
#[derive(Clone, Copy, Debug)]
pub enum Exported {
    /// A disk file.
    File(ExportFormat),
    /// An instance-store bundle.
    Bundle,
}

impl std::str::FromStr for Exported {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "bundle" { Ok(Self::Bundle) } else { text.parse().map(Self::File) }
    }
}

fn export_bundle(cloud: &mut Cloud, id: &str, args: &ExportArgs) -> Result<u8, CliError> {
    let Some(key) = &args.user_key else {
        return Err(Usage("--format bundle: say who makes it: --user-key KEY.pem (openssl genrsa 2048)".into()).into());
    };
    let mut shown = Shown::begin("bundling", false);
    let mut progress = |at: crate::disk::foreign::Progress| {
        let _ = shown.at(at.done, at.total);
    };
    let written = cloud.export_bundle(id, key, &args.file, &mut progress);
    shown.end(written.is_err());
    output::print(&format!("{}\n", written.map_err(told)?.display()))?;
    Ok(0)
}
