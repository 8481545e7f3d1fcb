//! `amiboot doctor` on this host, whatever it is.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use amiboot::host::kvm;
use assert_cmd::cargo::cargo_bin;
use serde_json::Value;

fn amiboot(args: &[&str]) -> Output {
    Command::new(cargo_bin!("amiboot")).args(args).output().unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

fn finding<'a>(report: &'a Value, name: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap();
    findings.iter().find(|f| f["name"] == name).unwrap_or_else(|| panic!("no {name} in {report}"))
}

/// What a run would say about this host's KVM.
fn kvm_problem() -> Option<String> {
    kvm::open().and_then(|host| host.require_hardware()).err().map(|e| e.to_string())
}

#[test]
fn every_finding_has_its_fields() {
    let report = report(&amiboot(&["doctor", "--json"]));
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.len() >= 10);
    for finding in findings {
        let state = finding["state"].as_str().unwrap();
        assert!(["ok", "note", "warning", "problem"].contains(&state), "{finding}");
        assert!(finding["name"].as_str().unwrap().contains('.') && !finding["seen"].as_str().unwrap().is_empty());
        assert!(finding["figures"].is_object());
        let needs_mend = matches!(state, "warning" | "problem");
        assert!(!needs_mend || finding["mend"].as_str().is_some_and(|m| !m.is_empty()), "{finding}");
        if let Some(command) = finding["command"].as_str() {
            assert!(finding["mend"].as_str().unwrap().contains(&format!("`{command}`")), "{finding}");
        }
    }
    assert_eq!(finding(&report, "host.architecture")["state"], "ok");
    assert!(finding(&report, "host.memory")["figures"]["available_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn the_exit_code_and_the_summary_follow_the_findings() {
    let output = amiboot(&["doctor", "--json"]);
    let report = report(&output);
    let problems = report["findings"].as_array().unwrap().iter().filter(|f| f["state"] == "problem").count();
    assert_eq!(report["can_run"], problems == 0);
    assert_eq!(output.status.code(), Some(i32::from(problems > 0)));
    let start = if problems == 0 { "This host can run" } else { "This host cannot run" };
    assert!(report["summary"].as_str().unwrap().starts_with(start));

    let human = amiboot(&["doctor"]);
    assert_eq!(human.status.code(), output.status.code());
    let text = String::from_utf8(human.stdout).unwrap();
    assert!(!text.contains('\x1b'), "no colours in a pipe");
    assert!(text.lines().last().unwrap().starts_with(start), "{text}");
}

/// The finding of a KVM that cannot be used, and what `amiboot run` says at once, are the same words.
/// A disk with nothing on it that everybody may read: the run gets as far as KVM.
fn blank_disk() -> tempfile::NamedTempFile {
    use std::os::unix::fs::PermissionsExt;
    let disk = tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o644)).tempfile().unwrap();
    disk.as_file().set_len(1 << 20).unwrap();
    disk
}

#[test]
fn a_run_says_the_same_words() {
    let report = report(&amiboot(&["doctor", "--json"]));
    let Some(problem) = kvm_problem() else {
        assert_eq!(finding(&report, "kvm.device")["state"], "ok");
        assert_eq!(finding(&report, "kvm.hardware")["state"], "ok");
        return;
    };
    let words = |f: &Value| format!("{}. {}", f["seen"].as_str().unwrap(), f["mend"].as_str().unwrap_or_default());
    let all: Vec<String> = report["findings"].as_array().unwrap().iter().map(words).collect();
    assert!(all.contains(&problem), "{problem} is not in {all:#?}");
    assert_eq!(report["can_run"], false);

    let disk = blank_disk();
    let output = Command::new(cargo_bin!("amiboot"))
        .arg("run")
        .arg(disk.path())
        .env_remove("AMIBOOT_ACCEPT_INTERPRETING_KVM")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&problem), "{problem} is not in {said}");
}

#[test]
fn directories_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = Command::new(cargo_bin!("amiboot"))
        .args(["doctor", "--json"])
        .env("AMIBOOT_CACHE", &file)
        .env("TMPDIR", dir.path().join("none"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report = report(&output);
    for (name, path) in [("storage.cache", "file"), ("storage.scratch", "none")] {
        let finding = finding(&report, name);
        assert_eq!(finding["state"], "problem");
        assert!(finding["seen"].as_str().unwrap().contains(dir.path().join(path).to_str().unwrap()), "{finding}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// A copy that every user may execute: the build's own directory may be closed to them.
fn public_copy() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o755)).tempdir_in("/var/tmp").unwrap();
    let copy = dir.path().join("amiboot");
    std::fs::copy(cargo_bin!("amiboot"), &copy).unwrap();
    (dir, copy)
}

#[test]
fn a_user_who_may_not_is_told_which_group_to_join() {
    let device = Path::new(kvm::DEVICE);
    let closed = device.metadata().is_ok_and(|meta| meta.mode() & 0o006 != 0o006);
    let root = rustix::process::geteuid().is_root();
    let setpriv = Command::new("setpriv").arg("--version").output().is_ok();
    if !(closed && root && setpriv) {
        eprintln!("skipped: needs root, setpriv, and a {} that is closed to others", device.display());
        return;
    }
    let (dir, program) = public_copy();
    let nobody = |args: &[&str]| {
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args(args)
            .env("HOME", dir.path())
            .env_remove("TMPDIR")
            .env_remove("AMIBOOT_CACHE")
            .env_remove("XDG_CACHE_HOME")
            .output()
            .unwrap()
    };
    let output = nobody(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report = report(&output);
    let device = finding(&report, "kvm.device");
    assert_eq!(device["state"], "problem");
    assert_eq!(device["seen"], "/dev/kvm: this user may not open it");
    let command = device["command"].as_str().unwrap();
    assert!(command.contains("usermod -aG") || command.contains("newgrp"), "{command}");
    // Its home directory belongs to root.
    assert_eq!(finding(&report, "storage.cache")["state"], "problem");

    let disk = blank_disk();
    let run = nobody(&["run", disk.path().to_str().unwrap()]);
    let said = String::from_utf8(run.stderr).unwrap();
    assert!(said.contains("this user may not open it") && said.contains(command), "{said}");
}
