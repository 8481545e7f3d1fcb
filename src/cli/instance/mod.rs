//! `amiboot instance`: machines made of images, in the background.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

mod ssh;

use super::filter::FilterArgs;
use super::listing::{self, TagArgs, minute};
use super::network::{MetadataArgs, NetworkArgs};
use super::output::note;
use super::scope::{ScopeArgs, told};
use super::table::Column;
use super::{CliError, Usage, console, user_data};
use crate::cloud::home::Home;
use crate::cloud::instance_type::{self, InstanceType};
use crate::cloud::{Cloud, Instance, InstanceChange, MachineOptions, RunRequest, StateChange, StopRequest};
use crate::disk::size::parse_size;
use crate::imds::Options;

/// The verbs of `amiboot instance`.
#[derive(Subcommand)]
pub enum InstanceCommand {
    /// Launches instances of an image, in the background
    Run(Box<RunArgs>),
    /// Lists instances
    Ls(LsArgs),
    /// Shows an instance
    Show(ShowArgs),
    /// Stops instances: the guest's power button, then, after a while, by force
    Stop(StopArgs),
    /// Starts stopped instances, with the volumes that they have
    Start(StartArgs),
    /// Switches the guests of instances off and on again
    Reboot(StopArgs),
    /// Ends instances for good; volumes that go with them are deleted
    Terminate(StopArgs),
    /// The console of an instance: attaches to it, or shows its output so far
    Console(ConsoleArgs),
    /// Changes attributes of an instance
    Modify(ModifyArgs),
    Ssh(ssh::SshArgs),
    #[command(hide = true)]
    Connect(ssh::ConnectArgs),
    /// Prints the certificate that identity documents of instances are signed with, in PEM
    Certificate(CertificateArgs),
    /// Lists instance types
    Types(TypesArgs),
    /// Brings the catalogue to the truth after an instance's machine has ended
    #[command(hide = true)]
    Settle(SettleArgs),
}

/// Options of `instance run`.
#[derive(Args)]
pub struct RunArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The image: its id, the beginning of it, or its name
    image: String,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: u32,
    /// Their type; see `amiboot instance types`
    #[arg(long = "type", value_name = "TYPE")]
    instance_type: Option<String>,
    /// An entry that changes the image's block device mapping: DEVICE=SNAPSHOT|SIZE|ephemeralN|none
    /// [,size=..][,delete-on-termination=..], or the aws JSON form, inline or @FILE (repeatable)
    #[arg(long = "bdm", value_name = "MAPPING")]
    bdm: Vec<String>,
    /// Their name: the tag Name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    tags: TagArgs,
    /// Their zone; the region's first where not given
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// What it means when a guest switches itself off: stop or terminate
    #[arg(long, value_name = "BEHAVIOR")]
    shutdown_behavior: Option<String>,
    /// Protect them against termination
    #[arg(long)]
    termination_protection: bool,
    /// A launch with a token that was used before answers what that one launched
    #[arg(long, value_name = "TOKEN")]
    client_token: Option<String>,
    /// How HVM guests see their volumes: virtio or nvme; what the instance type has where not given
    #[arg(long, value_name = "KIND", value_parser = ["virtio", "nvme"])]
    disk: Option<String>,
    /// Firmware of HVM guests: bios, uefi or a file; the image's boot mode where not given
    #[arg(long, value_name = "FIRMWARE")]
    firmware: Option<String>,
    /// Memory instead of the type's, for example 512M
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<u64>,
    /// Processors instead of the type's
    #[arg(long, value_name = "N")]
    cpus: Option<u32>,
    /// Add this to the end of a PV guest's kernel command line (repeatable)
    #[arg(long, value_name = "TEXT")]
    append: Vec<String>,
    #[command(flatten)]
    network: NetworkArgs,
    /// The key pair that may log in; see `amiboot key create`
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    /// User data: a file, - for standard input; at most 16 KiB
    #[arg(long, value_name = "FILE")]
    user_data: Option<PathBuf>,
    #[command(flatten)]
    metadata: MetadataArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `instance ls`.
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

/// Options of `instance show`.
#[derive(Args)]
pub struct ShowArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The instance: its id, the beginning of it, or its name
    instance: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `instance start`.
#[derive(Args)]
pub struct StartArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The instances: their ids, the beginnings of them, or their names
    #[arg(required = true)]
    instances: Vec<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `instance stop`, `reboot` and `terminate`.
#[derive(Args)]
pub struct StopArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The instances: their ids, the beginnings of them, or their names
    #[arg(required = true)]
    instances: Vec<String>,
    /// Without asking the guest
    #[arg(long)]
    force: bool,
    /// How long the guest has to switch itself off
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "2m")]
    grace: Duration,
    /// Do not wait until it is done
    #[arg(long)]
    no_wait: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl StopArgs {
    fn request(&self) -> StopRequest {
        StopRequest { force: self.force, grace: Some(self.grace) }
    }
}

/// Options of `instance console`.
#[derive(Args)]
pub struct ConsoleArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The instance: its id, the beginning of it, or its name
    instance: String,
    /// Show the output so far, also of an instance that has ended
    #[arg(long)]
    log: bool,
    /// Type this and a line's end, and leave (repeatable)
    #[arg(long, value_name = "TEXT", conflicts_with = "log")]
    send: Vec<String>,
}

/// Options of `instance modify`.
#[derive(Args)]
pub struct ModifyArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The instance: its id, the beginning of it, or its name
    instance: String,
    /// Protection against termination: on or off
    #[arg(long, value_name = "ON|OFF", value_parser = on_off)]
    termination_protection: Option<bool>,
    /// Protection against being stopped: on or off
    #[arg(long, value_name = "ON|OFF", value_parser = on_off)]
    stop_protection: Option<bool>,
    /// What it means when the guest switches itself off: stop or terminate
    #[arg(long, value_name = "BEHAVIOR")]
    shutdown_behavior: Option<String>,
    /// Its type, while it is stopped
    #[arg(long = "type", value_name = "TYPE")]
    instance_type: Option<String>,
    /// Its user data, while it is stopped: a file, - for standard input; at most 16 KiB
    #[arg(long, value_name = "FILE")]
    user_data: Option<PathBuf>,
    #[command(flatten)]
    metadata: MetadataArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `instance certificate`.
#[derive(Args)]
pub struct CertificateArgs {
    #[command(flatten)]
    scope: ScopeArgs,
}

/// Options of `instance types`.
#[derive(Args)]
pub struct TypesArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `instance settle`.
#[derive(Args)]
pub struct SettleArgs {
    /// The directory of the catalogue
    #[arg(long)]
    home: PathBuf,
    /// The instance
    instance: String,
}

fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(format!("{other:?}: say on or off")),
    }
}

pub(super) fn run(command: &InstanceCommand) -> Result<u8, CliError> {
    match command {
        InstanceCommand::Run(args) => launch(args),
        InstanceCommand::Ls(args) => {
            let found = args.scope.open()?.describe_instances(&[], &args.filter.filters).map_err(told)?;
            print(&found, args.json)
        }
        InstanceCommand::Show(args) => show(args),
        InstanceCommand::Stop(args) => {
            let mut cloud = args.scope.open()?;
            let asked = cloud.stop_instances(&args.instances, args.request()).map_err(told)?;
            finish(&mut cloud, args, &asked)
        }
        InstanceCommand::Terminate(args) => {
            let mut cloud = args.scope.open()?;
            let asked = cloud.terminate_instances(&args.instances, args.request()).map_err(told)?;
            finish(&mut cloud, args, &asked)
        }
        InstanceCommand::Reboot(args) => {
            let mut cloud = args.scope.open()?;
            cloud.reboot_instances(&args.instances, args.request()).map_err(told)?;
            print(&cloud.instances(&args.instances).map_err(told)?, args.json)
        }
        InstanceCommand::Start(args) => {
            let mut cloud = args.scope.open()?;
            cloud.start_instances(&args.instances).map_err(told)?;
            print(&cloud.instances(&args.instances).map_err(told)?, args.json)
        }
        InstanceCommand::Console(args) => {
            let mut cloud = args.scope.open()?;
            if args.log {
                let (_, output) = cloud.console_output(&args.instance, u64::MAX).map_err(told)?;
                return console::print_log(&output).map(|()| 0);
            }
            let replay = if args.send.is_empty() { console::REPLAY } else { 0 };
            let (instance, attached) = cloud.attach_console(&args.instance, replay).map_err(told)?;
            drop(cloud);
            if !args.send.is_empty() {
                return console::send_lines(attached, &args.send).map(|()| 0);
            }
            console::attend(attached, instance.instance_id.as_str())
        }
        InstanceCommand::Modify(args) => {
            let change = InstanceChange {
                disable_api_termination: args.termination_protection,
                disable_api_stop: args.stop_protection,
                shutdown_behavior: args.shutdown_behavior.clone(),
                instance_type: args.instance_type.clone(),
                user_data: args.user_data.as_deref().map(user_data::read).transpose()?,
                security_groups: None,
            };
            let mut cloud = args.scope.open()?;
            let mut changed = cloud.modify_instance(&args.instance, &change).map_err(told)?;
            let metadata = args.metadata.change();
            if !metadata.is_empty() {
                changed = cloud.modify_metadata_options(&args.instance, &metadata).map_err(told)?;
            }
            print(&[changed], args.json)
        }
        InstanceCommand::Ssh(args) => ssh::run(args),
        InstanceCommand::Connect(args) => ssh::connect(args),
        InstanceCommand::Certificate(args) => {
            let certificate = args.scope.open()?.identity_certificate().map_err(told)?;
            listing::print_text(&certificate).map(|()| 0)
        }
        InstanceCommand::Types(args) => types(args.json),
        InstanceCommand::Settle(args) => {
            let home = Home::at(&args.home).map_err(told)?;
            // To open it is to bring it to the truth; of which instance is only for whoever reads the process's name.
            let _ = &args.instance;
            Cloud::open(home, crate::cloud::Scope::default()).map_err(told)?;
            Ok(0)
        }
    }
}

/// Firmware as it is kept: a file by its whole path, since later starts may be from another directory.
fn firmware(given: &str) -> Result<String, CliError> {
    if matches!(given, "bios" | "uefi") {
        return Ok(given.to_owned());
    }
    let path = std::path::absolute(given)?;
    path.to_str().map(str::to_owned).ok_or_else(|| Usage(format!("--firmware {given}: its path is no text")).into())
}

fn launch(args: &RunArgs) -> Result<u8, CliError> {
    let mapping = listing::mapping(&args.bdm)?;
    let mut tags: crate::cloud::tag::Tags = args.tags.tags();
    if let Some(name) = &args.name {
        tags.insert("Name".into(), name.clone());
    }
    let request = RunRequest {
        image: args.image.clone(),
        count: args.count,
        instance_type: args.instance_type.clone(),
        mapping,
        zone: args.zone.clone(),
        shutdown_behavior: args.shutdown_behavior.clone(),
        disable_api_termination: args.termination_protection,
        client_token: args.client_token.clone(),
        tags,
        machine: MachineOptions {
            disk: args.disk.clone(),
            firmware: args.firmware.as_deref().map(firmware).transpose()?,
            memory: args.memory,
            cpus: args.cpus,
            append: args.append.clone(),
            net: args.network.back_end(),
            forwards: args.network.forwards(),
            seed_disk: args.network.has_seed_disk(),
        },
        key_name: args.key.clone(),
        user_data: args.user_data.as_deref().map(user_data::read).transpose()?,
        metadata: args.metadata.change(),
        ..RunRequest::default()
    };
    let launched = args.scope.open()?.run_instances(&request).map_err(told)?;
    launched.hints.iter().for_each(|hint| note(hint));
    print(&launched.instances, args.json)
}

/// Waits until what was asked for is done, unless the person does not want to, and shows what came of it.
fn finish(cloud: &mut Cloud, args: &StopArgs, asked: &[StateChange]) -> Result<u8, CliError> {
    // By their ids: what was terminated has no name any more.
    let ids: Vec<String> = asked.iter().map(|change| change.instance_id.to_string()).collect();
    let mut found = cloud.instances(&ids).map_err(told)?;
    if !args.no_wait {
        for instance in &mut found {
            if matches!(instance.state.as_str(), "stopping" | "shutting-down") {
                *instance = cloud.wait_for_end(&instance.instance_id).map_err(told)?;
            }
        }
    }
    print(&found, args.json)
}

fn print(instances: &[Instance], json: bool) -> Result<u8, CliError> {
    let columns = [
        Column::new("INSTANCE"),
        Column::new("NAME").cut(),
        Column::new("STATE"),
        Column::new("TYPE"),
        Column::new("IMAGE").dropped(),
        Column::new("MODE"),
        Column::new("ADDRESS").dropped(),
        Column::new("LAUNCHED").dropped(),
        Column::new("WHY").cut().dropped(),
    ];
    listing::print(instances, json, "there are no instances", &columns, |instance| {
        vec![
            instance.instance_id.to_string(),
            instance.name().unwrap_or_default().to_owned(),
            instance.state.clone(),
            instance.instance_type.clone(),
            instance.image_id.clone(),
            mode(instance).to_owned(),
            instance.network_interface.as_ref().map(|at| at.private_ip_address.to_string()).unwrap_or_default(),
            minute(&instance.launch_time),
            instance.state_reason.as_ref().map(|reason| reason.message.clone()).unwrap_or_default(),
        ]
    })?;
    Ok(0)
}

/// How the metadata service answers, in words.
fn metadata(options: &Options) -> String {
    if !options.endpoint {
        return "switched off".into();
    }
    let mut words = vec![if options.tokens_required { "tokens required" } else { "tokens optional" }.to_owned()];
    words.push(format!("{} hop{}", options.hop_limit, if options.hop_limit == 1 { "" } else { "s" }));
    words.extend(options.ipv6.then(|| "IPv6".to_owned()));
    words.extend(options.tags.then(|| "tags".to_owned()));
    words.join(", ")
}

fn mode(instance: &Instance) -> &'static str {
    if instance.virtualization_type == "paravirtual" { "pv" } else { "hvm" }
}

fn show(args: &ShowArgs) -> Result<u8, CliError> {
    let mut cloud = args.scope.open()?;
    let found = cloud.instances(std::slice::from_ref(&args.instance)).map_err(told)?;
    for instance in &found {
        let status = cloud.machine_status(instance.instance_id.as_str()).map_err(told)?;
        if args.json {
            let mut value = serde_json::to_value(instance)?;
            if let Some(object) = value.as_object_mut() {
                object.insert("machine_status".into(), serde_json::to_value(&status)?);
            }
            listing::print_json(&value)?;
            continue;
        }
        let reason = instance.state_reason.as_ref().map(|reason| reason.message.clone());
        let tags: Vec<String> = instance.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let address = instance.network_interface.as_ref();
        let mut facts = vec![
            ("instance", instance.instance_id.to_string()),
            ("state", instance.state.clone()),
            ("why", reason.unwrap_or_default()),
            ("type", instance.instance_type.clone()),
            ("image", instance.image_id.clone()),
            ("mode", mode(instance).to_owned()),
            ("zone", instance.availability_zone.clone()),
            ("launched", minute(&instance.launch_time)),
            ("root", format!("{} ({})", instance.root_device_name, instance.root_device_type)),
            ("address", address.map(|at| at.private_ip_address.to_string()).unwrap_or_default()),
            ("host name", address.map(|at| at.private_dns_name.clone()).unwrap_or_default()),
            ("mac", address.map(|at| at.mac_address.to_string()).unwrap_or_default()),
            ("ports", status.as_ref().map(|status| status.forwards.join(" ")).unwrap_or_default()),
            ("key", instance.key_name.clone().unwrap_or_default()),
            ("metadata", metadata(&instance.metadata_options)),
            ("on power-off", instance.instance_initiated_shutdown_behavior.clone()),
            ("process", status.as_ref().map(|status| status.pid.to_string()).unwrap_or_default()),
            ("restarts", status.as_ref().map(|status| status.restarts.to_string()).unwrap_or_default()),
            ("tags", tags.join(" ")),
        ];
        facts.extend(instance.block_device_mappings.iter().map(|at| {
            let goes = if at.delete_on_termination { ", goes with the instance" } else { "" };
            ("volume", format!("{} {}{goes}", at.device, at.volume_id))
        }));
        listing::print_facts(&facts)?;
    }
    Ok(0)
}

fn types(json: bool) -> Result<u8, CliError> {
    let columns = [
        Column::new("TYPE"),
        Column::new("PROCESSORS").right(),
        Column::new("MEMORY").right(),
        Column::new("INSTANCE STORE").right(),
    ];
    listing::print(instance_type::TYPES, json, "", &columns, |kind: &InstanceType| {
        let store = if kind.disks == 0 { String::new() } else { format!("{} x {} GB", kind.disks, kind.disk_gb) };
        vec![kind.name.to_owned(), kind.vcpus.to_string(), format!("{} MiB", kind.memory_mib), store]
    })?;
    Ok(0)
}
