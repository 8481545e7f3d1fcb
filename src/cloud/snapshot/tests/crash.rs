//! Writers that are killed, and a file system that is full: what was acknowledged is there.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{block, put};
use crate::cloud::home::Home;
use crate::cloud::testing::World;
use crate::cloud::{Cloud, Scope, StartRequest};

/// Tells the child where the catalogue is, and which snapshot it is about.
const DIR: &str = "AMIBOOT_TEST_BLOCKS";
const SNAPSHOT: &str = "AMIBOOT_TEST_SNAPSHOT";

fn open(dir: &Path) -> Cloud {
    Cloud::open(Home::at(dir).unwrap(), Scope::default()).unwrap()
}

/// Where write `number` goes: blocks are written again and again.
fn place(number: u64) -> u32 {
    u32::try_from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59).unwrap()
}

#[test]
fn what_a_killed_writer_had_acknowledged_is_there() {
    let name = "cloud::snapshot::tests::crash::what_a_killed_writer_had_acknowledged_is_there";
    if let (Some(dir), Some(id)) = (std::env::var_os(DIR), std::env::var_os(SNAPSHOT)) {
        let (mut cloud, id) = (open(Path::new(&dir)), id.into_string().unwrap());
        let mut said = std::io::stdout().lock();
        for number in 0.. {
            put(&mut cloud, &id, place(number), &block(number)).unwrap();
            writeln!(said, "written {number}").unwrap();
        }
    }
    for round in 0..4 {
        let world = World::new();
        let mut cloud = world.cloud();
        let started = cloud.start_snapshot(&StartRequest { size: 1, ..StartRequest::default() }).unwrap();
        let id = started.snapshot_id.to_string();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .envs([(DIR, world.home().root().as_os_str()), (SNAPSHOT, id.as_ref())])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut written = lines
            .filter_map(|line| line.unwrap().rsplit_once("written ").map(|(_, number)| number.parse::<u64>().unwrap()));
        let enough = written.by_ref().nth(5 + 13 * round).expect("the child goes on");
        child.kill().unwrap();
        child.wait().unwrap();
        let last = written.last().unwrap_or(enough);
        drop(cloud);
        let mut cloud = open(world.home().root());
        // One that was not acknowledged may be there.
        let known = "SELECT count(*) FROM written_blocks WHERE snapshot = ?1";
        let count: u32 = cloud.catalogue.connection().query_row(known, [&id], |row| row.get(0)).unwrap();
        cloud.complete_snapshot(&id, count, None).unwrap();
        for index in 0..32 {
            let read = cloud.snapshot_block(&id, index).unwrap();
            let acknowledged = (0..=last).rev().find(|number| place(*number) == index);
            let is_next = place(last + 1) == index;
            match acknowledged {
                Some(number) => assert!(read == block(number) || is_next && read == block(last + 1), "{index}"),
                None => assert!(is_next || read.iter().all(|byte| *byte == 0), "{index}"),
            }
        }
        assert_eq!(cloud.check().unwrap(), [""; 0]);
    }
}

fn on_a_small_file_system(dir: &Path) {
    let mut cloud = open(&dir.join("small"));
    let started = cloud.start_snapshot(&StartRequest { size: 1, ..StartRequest::default() }).unwrap();
    let id = started.snapshot_id.to_string();
    let mut count = 0u32;
    let error = loop {
        match put(&mut cloud, &id, count * 3, &block(count.into())) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), "InsufficientVolumeCapacity", "{error}");
    assert!((8..64).contains(&count), "{count}");
    let done = cloud.complete_snapshot(&id, count, None).unwrap();
    assert_eq!(done.state, "completed");
    (0..count).for_each(|number| assert!(cloud.snapshot_block(&id, number * 3).unwrap() == block(number.into())));
    assert_eq!(cloud.check().unwrap(), [""; 0]);
    cloud.delete_snapshot(&id).unwrap();
    assert_eq!(std::fs::read_dir(dir.join("small/layers")).unwrap().count(), 0);
}

#[test]
fn a_full_file_system_refuses_a_block_and_keeps_the_others() {
    let name = "cloud::snapshot::tests::crash::a_full_file_system_refuses_a_block_and_keeps_the_others";
    if let Some(dir) = std::env::var_os(DIR) {
        return on_a_small_file_system(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("small")).unwrap();
    let script = "mount -t tmpfs -o size=24m tmpfs \"$AMIBOOT_TEST_BLOCKS/small\" || exit 77; exec \"$0\" \"$@\"";
    // As the user that one is, else as root of one's own.
    for wrapper in [&["--mount"][..], &["--user", "--map-root-user", "--mount"]] {
        let output = Command::new("unshare")
            .args(wrapper)
            .args(["sh".into(), "-c".into(), OsString::from(script)])
            .arg(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(DIR, dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return;
        }
        let prepared = output.status.code() != Some(77) && !said.contains("unshare failed");
        assert!(!prepared, "{said}\n{}", String::from_utf8_lossy(&output.stdout));
    }
    eprintln!("left out: this host lets nobody mount a small file system");
}
