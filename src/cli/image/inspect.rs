//! `amiboot image inspect`: what a disk image is.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::cli::output::{BAD, DIM, GOOD, HEADING, clean};
use crate::cli::{CliError, output};
use crate::disk::{self, Access, Format, HostCache, Source};
use crate::host::report::bytes as size;
use crate::image::partition::TableKind;
use crate::image::{self, BootEntry, BootMode, Inspection, Partition};

/// Says what a disk is, without booting or mounting it
#[derive(Args)]
pub struct InspectArgs {
    /// The disk image: a raw or qcow2 file, or a block device
    file: PathBuf,

    /// As JSON
    #[arg(long)]
    json: bool,

    /// Format of the file; looked for in the file where not given
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    path: &'a Path,
    format: Format,
    #[serde(flatten)]
    inspection: &'a Inspection,
}

pub(super) fn inspect(args: &InspectArgs) -> Result<u8, CliError> {
    let source = Source {
        path: args.file.clone(),
        format: args.format,
        access: Access::Inspect,
        size: None,
        cache: HostCache::Used,
    };
    let opened = disk::open(&source)?;
    let image = image::inspect(opened.disk).map_err(|e| format!("{}: {e}", args.file.display()))?;
    let report = Report { path: &args.file, format: opened.format, inspection: image.inspection() };
    let text = if args.json {
        let mut json = serde_json::to_string_pretty(&report)?;
        json.push('\n');
        json
    } else {
        describe(&report)
    };
    output::print(&text)?;
    Ok(0)
}

fn describe(report: &Report<'_>) -> String {
    let inspection = report.inspection;
    let mut text = format!("{HEADING}{}{HEADING:#}\n", clean(&report.path.display().to_string()));
    let mut fact = |name: &str, value: String| text.push_str(&format!("  {DIM}{name:<13}{DIM:#} {value}\n"));
    fact("format", report.format.to_string());
    fact("virtual size", size(inspection.virtual_size));
    let id = inspection.disk_id.as_ref().map(|id| format!(" {}", clean(id))).unwrap_or_default();
    let table = match inspection.partition_table {
        TableKind::Gpt => "GPT",
        TableKind::Mbr => "MBR",
        TableKind::None if inspection.partitions.iter().any(|p| p.filesystem.is_some()) => {
            "none: one file system on the whole disk"
        }
        TableKind::None => "none",
    };
    fact("partitions", format!("{table}{id}"));
    let os = inspection.os.as_ref();
    let os_name = os.and_then(|os| os.pretty_name.as_deref().or(os.id.as_deref()));
    fact("system", os_name.map_or_else(|| "not recognized".into(), clean));
    let architecture = inspection.architecture.map_or_else(|| "not recognized".into(), |a| a.to_string());
    fact("architecture", architecture);
    text.push_str(&format!("\n{HEADING}Partitions{HEADING:#}\n"));
    inspection.partitions.iter().for_each(|found| text.push_str(&partition(found)));
    if inspection.partitions.is_empty() {
        text.push_str("  none\n");
    }
    text.push_str(&format!("\n{HEADING}Boot modes{HEADING:#}\n"));
    let modes = &inspection.boot_modes;
    for (name, mode) in [("pv", &modes.pv), ("hvm-bios", &modes.hvm_bios), ("hvm-uefi", &modes.hvm_uefi)] {
        text.push_str(&boot_mode(name, mode));
    }
    text.push_str(&format!("\n{HEADING}Boot entries{HEADING:#}\n"));
    if inspection.entries.is_empty() {
        text.push_str("  none\n");
    }
    for (number, entry) in inspection.entries.iter().enumerate() {
        text.push_str(&boot_entry(number, entry));
    }
    for note in &inspection.notes {
        text.push_str(&format!("\nnote: {}\n", clean(note)));
    }
    text
}

/// A partition in lines short enough for a narrow terminal: what it is and where, and what is on it.
fn partition(partition: &Partition) -> String {
    let slot = &partition.slot;
    let number = if slot.number == 0 { "disk".into() } else { slot.number.to_string() };
    let kind = slot.type_name.as_ref().or(slot.type_id.as_ref()).map(|kind| format!("{}, ", clean(kind)));
    let place = format!("{}{} at {}", kind.unwrap_or_default(), size(slot.size), size(slot.start));
    let mount = partition.mount_point.as_deref().map(|at| format!(", {HEADING}{}{HEADING:#}", clean(at)));
    let mut text = format!("  {number:<4} {place}{}\n", mount.unwrap_or_default());
    if let Some(fs) = &partition.filesystem {
        let named = |name: &str, value: &Option<String>| value.as_ref().map(|v| format!(", {name} {}", clean(v)));
        let names = [named("UUID", &fs.uuid), named("label", &fs.label)];
        text.push_str(&format!("       {}{}\n", clean(&fs.kind), names.into_iter().flatten().collect::<String>()));
        if let Some(why) = &fs.unsupported {
            text.push_str(&format!("       {BAD}unreadable{BAD:#}: {}\n", clean(why)));
        }
    }
    text
}

fn boot_mode(name: &str, mode: &BootMode) -> String {
    let (style, word) = if mode.possible { (GOOD, "yes") } else { (BAD, "no ") };
    format!("  {name:<9} {style}{word}{style:#}  {}\n", clean(&mode.reason))
}

fn boot_entry(number: usize, entry: &BootEntry) -> String {
    let mark = if entry.default { format!(" {GOOD}(default){GOOD:#}") } else { String::new() };
    let mut text = format!("  {number}  {}{mark}\n", clean(&entry.title));
    let mut fact = |name: &str, value: &str| text.push_str(&format!("     {DIM}{name:<8}{DIM:#} {}\n", clean(value)));
    let version = entry.kernel_info.as_ref().and_then(|info| info.version.as_ref());
    let short = version.and_then(|v| v.split(' ').next()).map(|v| format!(" ({v})")).unwrap_or_default();
    fact("kernel", &format!("{}{short}", entry.kernel));
    for initrd in &entry.initrds {
        fact("initrd", &initrd.to_string());
    }
    fact("cmdline", &entry.cmdline);
    fact("from", &format!("{}:{}", entry.source.path, entry.source.line));
    if let Some(problem) = &entry.problem {
        text.push_str(&format!("     {BAD}problem{BAD:#}  {}\n", clean(problem)));
    }
    text
}
