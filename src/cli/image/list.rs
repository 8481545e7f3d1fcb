//! `amiboot image ls` and `show`.

use std::borrow::Cow;

use clap::Args;

use super::sort::Sort;
use crate::cli::filter;
use crate::cli::listing::{self, minute};
use crate::cli::output::note;
use crate::cli::scope::{ScopeArgs, told};
use crate::cli::table::{self, Column};
use crate::cli::{CliError, output};
use crate::cloud::filter::Filter;
use crate::cloud::image::{Image, ImageQuery, RootDeviceType, VirtualizationType};

/// Lists images: one's own, those shared with one, and public ones
#[derive(Args)]
pub struct LsArgs {
    #[command(flatten)]
    scope: ScopeArgs,

    /// Those of these owners: self, an alias such as amazon, or accounts
    #[arg(long, value_name = "OWNER", value_delimiter = ',')]
    owners: Vec<String>,

    /// Those that these may launch: self (shared by name), all (public), or an account that one's own are shared with
    #[arg(long, value_name = "WHO", value_delimiter = ',')]
    executable_by: Vec<String>,

    /// Those with a name like this: * is anything, ? one character or none
    #[arg(long, value_name = "GLOB")]
    name: Option<String>,

    /// Those in these states: available, pending, failed, disabled
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    state: Vec<String>,

    /// Those for a processor: x86_64 or i386
    #[arg(long, visible_alias = "architecture", value_name = "ARCHITECTURE", value_delimiter = ',')]
    arch: Vec<String>,

    /// Those of a system: linux or windows
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<PlatformName>,

    /// Those started in this way: hvm or paravirtual
    #[arg(long, value_name = "TYPE")]
    virtualization_type: Option<VirtualizationType>,

    /// Those with such a root: ebs or instance-store
    #[arg(long, value_name = "TYPE")]
    root_device_type: Option<RootDeviceType>,

    /// Any filter of DescribeImages, as in tag:Name=web-* or Name=state,Values=available,pending (repeatable; all have to
    /// match, and of each one value)
    #[arg(long, visible_alias = "filters", value_name = "FILTER", num_args = 1.., value_parser = filter::parse)]
    filter: Vec<Filter>,

    /// In the order of id, name, state, architecture, type, root, size, created or owner, as in created:desc
    #[arg(long, value_name = "FIELD[:desc]", default_value = "created")]
    sort: Sort,

    /// The first N of these
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Others' images that are deprecated, too, and one's own that are disabled
    #[arg(long)]
    all: bool,

    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Shows an image
#[derive(Args)]
pub struct ShowArgs {
    #[command(flatten)]
    scope: ScopeArgs,

    /// The image: its id, the beginning of it, or its name
    image: String,

    /// As JSON
    #[arg(long)]
    json: bool,
}

/// A system, as a person says it.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum PlatformName {
    Linux,
    Windows,
}

impl LsArgs {
    fn query(&self) -> ImageQuery {
        let mut filters = self.filter.clone();
        let mut add = |name: &str, values: Vec<String>| {
            if !values.is_empty() {
                filters.push(Filter::new(name, values));
            }
        };
        add("name", self.name.iter().cloned().collect());
        add("state", self.state.clone());
        add("architecture", self.arch.clone());
        add("virtualization-type", self.virtualization_type.iter().map(ToString::to_string).collect());
        add("root-device-type", self.root_device_type.iter().map(ToString::to_string).collect());
        match self.platform {
            Some(PlatformName::Windows) => add("platform", vec!["windows".into()]),
            Some(PlatformName::Linux) => add("platform-details", vec!["Linux/UNIX".into()]),
            None => {}
        }
        // Who asks for a state wants to see it.
        let include_disabled = self.all || self.state.iter().any(|state| state == "disabled");
        ImageQuery {
            owners: self.owners.clone(),
            executable_by: self.executable_by.clone(),
            filters,
            include_deprecated: self.all,
            include_disabled,
            ..ImageQuery::default()
        }
    }
}

pub(super) fn ls(args: &LsArgs) -> Result<u8, CliError> {
    let mut cloud = args.scope.open()?;
    let mut images = cloud.images(&args.query()).map_err(told)?.images;
    args.sort.apply(&mut images);
    images.truncate(args.limit.unwrap_or(usize::MAX));
    if args.json {
        listing::print_json(&images)?;
    } else if images.is_empty() {
        let region = &cloud.scope().region;
        note(&format!("there are no such images in {region}; to make one: amiboot image import FILE --name NAME"));
    } else {
        print_table(&images, cloud.scope().account.as_str())?;
    }
    Ok(0)
}

pub(super) fn show(args: &ShowArgs) -> Result<u8, CliError> {
    let mut cloud = args.scope.open()?;
    let id = cloud.resolve_image(&args.image).map_err(told)?;
    let image = cloud.image(id.as_str()).map_err(told)?;
    if args.json {
        listing::print_json(&image)?;
    } else {
        listing::print_facts(&facts(&image, cloud.scope().account.as_str()))?;
    }
    Ok(0)
}

/// Prints what became of an image.
///
/// # Errors
/// What the host says.
pub(super) fn print_one(image: &Image, json: bool) -> Result<u8, CliError> {
    if json {
        listing::print_json(image)?;
    } else {
        print_table(std::slice::from_ref(image), &image.owner_id)?;
    }
    Ok(0)
}

const COLUMNS: [Column; 10] = [
    Column::new("IMAGE"),
    Column::new("NAME").cut(),
    Column::new("STATE"),
    Column::new("ARCH"),
    Column::new("TYPE"),
    Column::new("ROOT"),
    Column::new("SIZE").right(),
    Column::new("CREATED").dropped(),
    Column::new("SHARED").dropped(),
    Column::new("OWNER").dropped(),
];

fn print_table(images: &[Image], me: &str) -> Result<(), CliError> {
    let rows: Vec<Vec<Cow<'_, str>>> = images.iter().map(|image| row(image, me)).collect();
    Ok(output::print(&table::render(&COLUMNS, &rows))?)
}

fn row<'a>(image: &'a Image, me: &str) -> Vec<Cow<'a, str>> {
    vec![
        image.image_id.as_str().into(),
        image.name.as_str().into(),
        image.state.as_str().into(),
        image.architecture.as_str().into(),
        short_type(image.virtualization_type).into(),
        short_root(image.root_device_type).into(),
        image.root_size().map(|gib| format!("{gib} GiB")).unwrap_or_default().into(),
        image.creation_date.get(..10).unwrap_or_default().into(),
        shared(image),
        if image.owner_id == me { "".into() } else { owner(image).into() },
    ]
}

fn short_type(kind: VirtualizationType) -> &'static str {
    match kind {
        VirtualizationType::Hvm => "hvm",
        VirtualizationType::Paravirtual => "pv",
    }
}

fn short_root(kind: RootDeviceType) -> &'static str {
    match kind {
        RootDeviceType::Ebs => "ebs",
        RootDeviceType::InstanceStore => "store",
    }
}

/// Who may launch it, for short.
fn shared(image: &Image) -> Cow<'static, str> {
    match (image.is_public, image.shared_with) {
        (true, _) => "public".into(),
        (false, 0) => "".into(),
        (false, 1) => "1 account".into(),
        (false, many) => format!("{many} accounts").into(),
    }
}

fn owner(image: &Image) -> &str {
    image.image_owner_alias.as_ref().unwrap_or(&image.owner_id)
}

fn facts(image: &Image, me: &str) -> Vec<(&'static str, String)> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let is_own = image.owner_id == me;
    let alias = image.image_owner_alias.as_ref().map(|alias| format!(" ({alias})")).unwrap_or_default();
    let mut facts = vec![
        ("image", image.image_id.to_string()),
        ("name", image.name.clone()),
        ("description", image.description.clone()),
        ("state", image.state.to_string()),
        ("reason", image.state_reason.as_ref().map(|reason| reason.message.clone()).unwrap_or_default()),
        ("owner", format!("{}{alias}", image.owner_id)),
        ("shared", if is_own && shared(image).is_empty() { "no".into() } else { shared(image).into_owned() }),
        ("created", minute(&image.creation_date)),
        ("deprecated from", image.deprecation_time.as_deref().map(minute).unwrap_or_default()),
        ("protected", if image.deregistration_protection == "disabled" { String::new() } else { "yes".into() }),
        ("type", format!("{}, {}, {}", image.image_type, image.virtualization_type, image.architecture)),
        ("boot mode", image.boot_mode.map(|mode| mode.to_string()).unwrap_or_default()),
        ("platform", image.platform_details.clone()),
        ("kernel", image.kernel_id.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("ramdisk", image.ramdisk_id.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("location", image.image_location.clone()),
        ("metadata", text(&image.imds_support)),
        ("root", format!("{} {}", image.root_device_type, text(&image.root_device_name)).trim_end().to_owned()),
    ];
    facts.extend(image.block_device_mappings.iter().map(|entry| ("device", device(entry))));
    facts.push(("copy of", source(image)));
    facts.push(("made of", text(&image.source_instance_id)));
    facts.extend(
        image
            .product_codes
            .iter()
            .map(|code| ("product", format!("{} ({})", code.product_code_id, code.product_code_type))),
    );
    facts.extend(image.tags.iter().map(|(key, value)| ("tag", format!("{key}={value}"))));
    facts
}

/// An entry of the mapping, as it is written on the command line.
fn device(entry: &crate::cloud::mapping::BlockDevice) -> String {
    use crate::cloud::mapping::Target;
    let name = &entry.device_name;
    match &entry.target {
        Target::NoDevice => format!("{name} none"),
        Target::Ephemeral(number) => format!("{name} ephemeral{number}"),
        Target::Ebs(ebs) => {
            let parts = [
                ebs.volume_size.map(|size| format!("{size} GiB")),
                ebs.volume_type.clone(),
                ebs.snapshot_id.as_ref().map(|id| format!("of {id}")),
                (ebs.delete_on_termination == Some(false)).then(|| "kept after termination".to_owned()),
            ];
            format!("{name} {}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
        }
    }
}

fn source(image: &Image) -> String {
    let Some(id) = &image.source_image_id else { return String::new() };
    let region = image.source_image_region.as_ref().map(|region| format!(" in {region}")).unwrap_or_default();
    format!("{id}{region}")
}
