//! The files of a run: never changed unless they are to be, locked while they are, and nothing left behind.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rustix::process::Signal;
use support::disks::{text, tool};
use support::{Running, World, finish, names_in};

const NOTHING: Vec<PathBuf> = Vec::new();

#[test]
fn a_run_changes_no_file() {
    let world = World::new();
    let raw = world.pv_image("root.raw");
    let qcow2 = world.qcow2_of(&raw, "root.qcow2");
    let data = world.qcow2_of(&world.blank_disk(), "data.qcow2");
    let before = world.contents();
    for disk in [&raw, &qcow2] {
        let volumes = [format!("/dev/sdf={}", text(&data)), "/dev/sdg=1G".into(), "/dev/sdh=ephemeral0".into()];
        let mapping = volumes.iter().flat_map(|volume| ["--bdm", volume]);
        let ended = finish(world.amiboot().arg("run").arg(disk).args(mapping)).code(0);
        assert_eq!(ended.stdout, "root=/dev/vda ro console=ttyS0|end\r\n");
    }
    assert_eq!(world.contents(), before);
    assert_eq!(world.leftovers(), NOTHING);
}

#[test]
fn a_file_that_only_its_owner_may_write_can_be_run() {
    let world = World::new();
    let disk = world.pv_image("root.raw");
    fs::set_permissions(&disk, fs::Permissions::from_mode(0o444)).unwrap();
    finish(world.amiboot().arg("run").arg(&disk)).code(0);
}

#[test]
fn nothing_is_left_of_a_run_that_is_killed() {
    let world = World::new();
    let mut run = world.run("halt");
    let before = world.contents();
    let mut running = Running::start(run.args(["--bdm", "/dev/sdf=1G"]));
    running.wait_for("ready");
    // The layers have no names even now.
    assert_eq!(world.leftovers(), NOTHING);
    running.signal(Signal::KILL);
    assert_eq!(running.wait_for_exit().code(), None);
    assert_eq!(world.contents(), before);
    assert_eq!(world.leftovers(), NOTHING);
    // No lock is left either.
    finish(world.run("hello").arg("--persist")).code(0);
}

#[test]
fn two_runs_of_one_file_at_once() {
    let world = World::new();
    let first = Running::start(&mut world.run("halt"));
    first.wait_for("ready");
    finish(&mut world.run("hello")).code(0).shows("hello from the guest");
    drop(first);
}

#[test]
fn many_runs_share_a_cache() {
    let world = World::new();
    let disk = world.pv_image("root.raw");
    let run = || Running::start(world.amiboot().arg("run").arg(&disk));
    let runs: Vec<Running> = (0..8).map(|_| run()).collect();
    for run in runs {
        run.end().code(0).shows("|end");
    }
    assert_eq!(names_in(&world.cache().join("blobs")).len(), 1);
    assert_eq!(world.leftovers(), NOTHING);
}

#[test]
fn the_cache_is_in_the_users_cache_directory() {
    let world = World::new();
    let home = world.path("home");
    let mut run = world.run("hello");
    run.env_remove("AMIBOOT_CACHE").env_remove("XDG_CACHE_HOME").env("HOME", &home);
    finish(&mut run).code(0);
    assert_eq!(names_in(&home.join(".cache/amiboot/blobs")).len(), 1);
    finish(run.env("XDG_CACHE_HOME", world.path("xdg"))).code(0);
    assert_eq!(names_in(&world.path("xdg/amiboot/blobs")).len(), 1);
}

#[test]
fn one_run_at_a_time_writes_to_a_file() {
    let world = World::new();
    let disk = world.blank_disk();
    let writer = Running::start(world.run("halt").arg("--persist"));
    writer.wait_for("ready");
    let pid = writer.pid().as_raw_nonzero().to_string();
    let who = format!("process {pid} (amiboot) is writing to this file");
    finish(world.run("hello").arg("--persist")).code(1).says(&[text(&disk), &who, "wait until it ends"]);
    finish(&mut world.run("hello")).code(1).says(&[text(&disk), &who, "use a copy"]);
    let other = world.file("other.raw", vec![0; 4096]);
    let volume = format!("/dev/sdf={}", text(&disk));
    let mut run = world.amiboot();
    finish(run.arg("run").arg(&other).args(["--bdm", &volume])).code(1).says(&["/dev/sdf", text(&disk), &who]);
    // To look takes no lock.
    finish(world.amiboot().args(["image", "inspect"]).arg(&disk)).code(0);
    drop(writer);
    finish(world.run("hello").arg("--persist")).code(0);
    assert_eq!(world.leftovers(), NOTHING);
}

#[test]
fn nobody_writes_to_a_file_that_is_in_use() {
    let world = World::new();
    let disk = world.blank_disk();
    let reader = Running::start(&mut world.run("halt"));
    reader.wait_for("ready");
    let who = format!("process {} (amiboot) is using this file", reader.pid().as_raw_nonzero());
    finish(world.run("hello").arg("--persist")).code(1).says(&[text(&disk), &who, "leave out --persist"]);
    drop(reader);
}

#[test]
fn persist_covers_the_files_of_the_mapping() {
    let world = World::new();
    let data = world.file("data.raw", vec![0; 4096]);
    let volume = format!("/dev/sdf={}", text(&data));
    let writer = Running::start(world.run("halt").args(["--persist", "--bdm", &volume]));
    writer.wait_for("ready");
    finish(world.amiboot().arg("run").arg(&data)).code(1).says(&[text(&data), "is writing to this file"]);
    drop(writer);
    // Read-only stays read-only, and can be shared.
    let read_only = format!("{volume},read-only");
    let reader = Running::start(world.run("halt").args(["--persist", "--bdm", &read_only]));
    reader.wait_for("ready");
    let other = world.file("other.raw", vec![0; 4096]);
    finish(
        world
            .amiboot()
            .arg("run")
            .arg(other)
            .args(["--kernel", text(&world.path("halt"))])
            .args(["--bdm", &read_only, "--until", "ready"]),
    )
    .code(0);
    drop(reader);
}

#[test]
fn one_file_behind_two_volumes() {
    let world = World::new();
    let disk = world.blank_disk();
    let link = world.path("link.raw");
    std::os::unix::fs::symlink(&disk, &link).unwrap();
    let volume = format!("/dev/sdf={}", text(&link));
    finish(world.run("hello").args(["--bdm", &volume])).code(0);
    for words in [vec!["--persist", "--bdm", &volume], vec!["--bdm", &format!("{volume},persist")]] {
        finish(world.run("hello").args(words)).code(1).says(&[
            text(&link),
            "both volume /dev/sda1 and volume /dev/sdf",
            "--persist",
        ]);
    }
}

#[test]
fn a_qcow2_that_is_kept_stays_whole() {
    let world = World::new();
    let disk = world.qcow2_of(&world.pv_image("root.raw"), "root.qcow2");
    finish(world.amiboot().arg("run").arg(&disk).arg("--persist")).code(0).shows("|end");
    let kernel = world.guest("halt");
    let killed = Running::start(world.amiboot().arg("run").arg(&disk).arg("--persist").arg("--kernel").arg(kernel));
    killed.wait_for("ready");
    drop(killed);
    tool("qemu-utils", "qemu-img", &["check", "-q", text(&disk)]);
    finish(world.amiboot().arg("run").arg(&disk).arg("--persist")).code(0).shows("|end");
}
