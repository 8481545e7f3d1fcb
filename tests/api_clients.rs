//! EC2's API as the real clients see it: boto3 with every answer compared with its shape, the aws CLI, and what Terraform and
//! Packer were seen to send.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file of this project.
fn part(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a command to its end; gives its standard output.
#[track_caller]
fn run(command: &mut Command) -> String {
    let ended = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, said) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{command:?} ended with {}:\n{out}\n{said}", ended.status);
    out.into_owned()
}

/// Where the clients are.
#[track_caller]
fn clients() -> PathBuf {
    let place = run(&mut Command::new(part("tools/aws-clients")));
    PathBuf::from(place.trim())
}

/// Runs a script of `tools/api` with the clients' Python, if it is one, and the program.
#[track_caller]
fn check(script: &str) {
    let clients = clients();
    let python = clients.join("bin/python");
    let mut command = Command::new(if script.ends_with(".py") { python.as_path() } else { Path::new("bash") });
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .arg(part("tools/api").join(script))
        .arg(env!("CARGO_BIN_EXE_amiboot"))
        .env("PATH", format!("{}:{path}", clients.join("bin").display()))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    println!("{}", run(&mut command));
}

#[test]
fn boto3_finds_every_answer_as_its_shape_says() {
    check("strict.py");
}

#[test]
fn the_cli_does_what_a_person_does() {
    check("cli.sh");
}

#[test]
fn what_terraform_and_packer_send_is_answered_as_they_need_it() {
    check("recorded.py");
}
