//! `amiboot doctor`: what this host can do, what is missing, and the command that mends it.

use std::collections::BTreeMap;

use anstyle::Style;
use clap::Args;
use serde::Serialize;

use super::output::{BAD, DIM, GOOD, HEADING, WARN, clean};
use super::scope::told;
use super::{CliError, FAILED, listing, output};
use crate::cloud::home::Home;
use crate::cloud::{Cloud, Scope};
use crate::host::checks::{self, Host};
use crate::host::report::{Finding, Group, State};
use crate::launch::plan::cache_dir;
use crate::launch::volumes::scratch_dir;

/// Tells what this host can do, what is missing, and the command that mends it
///
/// Changes nothing. Exits with 0 where guests can run, though there may be warnings, else with 1.
#[derive(Args)]
pub struct DoctorArgs {
    /// As JSON
    #[arg(long)]
    json: bool,

    /// Look through the catalogue and the files of all volumes and snapshots for damage, instead of at the host
    #[arg(long)]
    catalogue: bool,
}

/// Looks through the catalogue; gives the exit code.
fn check_catalogue(json: bool) -> Result<u8, CliError> {
    let mut cloud = Cloud::open(Home::of_person().map_err(told)?, Scope::default()).map_err(told)?;
    let damage = cloud.check().map_err(told)?;
    if json {
        listing::print_json(&serde_json::json!({ "damage": damage }))?;
    } else if damage.is_empty() {
        output::print(&format!("{GOOD}ok{GOOD:#} the catalogue and its layers are whole\n"))?;
    } else {
        let line = |line: &String| format!("{BAD}damaged{BAD:#} {}\n", clean(line));
        output::print(&damage.iter().map(line).collect::<String>())?;
    }
    Ok(if damage.is_empty() { 0 } else { FAILED })
}

/// Looks at the host; gives the exit code.
pub(super) fn run(args: &DoctorArgs) -> Result<u8, CliError> {
    if args.catalogue {
        return check_catalogue(args.json);
    }
    let findings = Host::this(cache_dir(), scratch_dir()).examine();
    let text = if args.json { json(&findings)? } else { describe(&findings) };
    output::print(&text)?;
    Ok(if checks::can_run(&findings) { 0 } else { FAILED })
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    can_run: bool,
    summary: String,
    findings: Vec<JsonFinding<'a>>,
}

#[derive(Serialize)]
struct JsonFinding<'a> {
    /// Group and name, with a point between them.
    name: String,
    state: State,
    seen: &'a str,
    /// The sentence that says what to do, or null.
    mend: Option<&'a str>,
    /// The command in it, or null.
    command: Option<&'a str>,
    figures: &'a BTreeMap<&'static str, u64>,
}

fn json(findings: &[Finding]) -> Result<String, serde_json::Error> {
    let report = Report {
        can_run: checks::can_run(findings),
        summary: checks::summary(findings),
        findings: findings.iter().map(json_finding).collect(),
    };
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}

fn json_finding(finding: &Finding) -> JsonFinding<'_> {
    let mend = finding.mend.as_ref();
    JsonFinding {
        name: format!("{}.{}", finding.group.name(), finding.name),
        state: finding.state,
        seen: &finding.seen,
        mend: mend.map(|m| m.text.as_str()),
        command: mend.and_then(|m| m.command.as_deref()),
        figures: &finding.figures,
    }
}

fn describe(findings: &[Finding]) -> String {
    let width = findings.iter().map(|f| f.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    let mut group = None;
    for finding in findings {
        let title = title(finding.group);
        if group.replace(title) != Some(title) {
            text.push_str(&format!("{HEADING}{title}{HEADING:#}\n"));
        }
        let (style, mark) = mark(finding.state);
        let seen = clean(&finding.seen);
        text.push_str(&format!("  {style}{mark}{style:#} {:<width$}  {seen}\n", finding.name));
        if let Some(mend) = &finding.mend {
            text.push_str(&format!("    {DIM}mend:{DIM:#} {}\n", clean(&mend.text)));
        }
    }
    let style = if checks::can_run(findings) { GOOD } else { BAD };
    text.push_str(&format!("\n{style}{}{style:#}\n", clean(&checks::summary(findings))));
    text
}

fn title(group: Group) -> &'static str {
    match group {
        Group::Host => "Host",
        Group::Kvm => "KVM",
        Group::Storage => "Storage",
        Group::Firmware | Group::Tools => "Firmware and tools",
    }
}

fn mark(state: State) -> (Style, char) {
    match state {
        State::Ok => (GOOD, '✓'),
        State::Note => (DIM, '-'),
        State::Warning => (WARN, '!'),
        State::Problem => (BAD, '✗'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::report::Mend;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::ok(Group::Host, "memory", "8 GiB").with("available_bytes", 8 << 30),
            Finding::problem(Group::Kvm, "device", "gone\x1b[2J", Mend::run("Load it", "modprobe kvm")),
            Finding::note(Group::Firmware, "ovmf", "not found", None),
            Finding::warning(Group::Tools, "odd", "odd", Mend::tell("Look.")),
        ]
    }

    #[test]
    fn people_get_an_aligned_list() {
        let text = anstream::adapter::strip_str(&describe(&findings())).to_string();
        let expected = "\
Host
  ✓ memory  8 GiB
KVM
  ✗ device  gone\u{fffd}[2J
    mend: Load it: `modprobe kvm`.
Firmware and tools
  - ovmf    not found
  ! odd     odd
    mend: Look.

This host cannot run amiboot guests: gone\u{fffd}[2J.
";
        assert_eq!(text, expected);
    }

    #[test]
    fn programs_get_stable_names() {
        let value: serde_json::Value = serde_json::from_str(&json(&findings()).unwrap()).unwrap();
        assert_eq!(value["can_run"], false);
        assert_eq!(value["findings"][0]["name"], "host.memory");
        assert_eq!(value["findings"][0]["figures"]["available_bytes"], 8u64 << 30);
        assert_eq!(value["findings"][0]["mend"], serde_json::Value::Null);
        assert_eq!(value["findings"][1]["state"], "problem");
        assert_eq!(value["findings"][1]["command"], "modprobe kvm");
        assert_eq!(value["findings"][2]["name"], "firmware.ovmf");
    }
}
