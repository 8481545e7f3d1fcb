//! Tasks whose process is killed at any moment: nothing half made stays, and each task says what became of it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::*;
use crate::cloud::home::Home;
use crate::cloud::testing::goes_on;

/// Tells the child where the catalogue is, the disk that it imports, and the image that it stores.
const DIR: &str = "AMIBOOT_TEST_TASKS";
const DISK: &str = "AMIBOOT_TEST_DISK";
const IMAGE: &str = "AMIBOOT_TEST_IMAGE";

fn open(dir: &Path) -> Cloud {
    Cloud::open(Home::at(dir).unwrap(), Scope::default()).unwrap()
}

/// Does one task after the other, and says how far each is, until it is killed.
fn work_until_killed(dir: &Path, disk: &Path, image: &str) {
    let mut cloud = open(dir);
    let say = |what: &str| writeln!(std::io::stdout().lock(), "{what}").unwrap();
    for number in 0.. {
        let mut begun = |_: &Task| say("step");
        cloud.store_image_task(image, "bucket", &no_tags(), &mut begun).unwrap();
        cloud.import_snapshot_task((disk, None), "", (&no_tags(), &no_tags()), None, &mut begun).unwrap();
        let request = ExportRequest {
            image: image.into(),
            format: ExportFormat::Raw,
            to: ExportTo::Bucket { bucket: "bucket".into(), prefix: String::new() },
            description: String::new(),
            tags: Tags::new(),
            client_token: None,
        };
        cloud.export_image_task(&request, &mut begun).unwrap();
        let request = RestoreRequest {
            bucket: "bucket".into(),
            object_key: format!("{image}.bin"),
            // One that was killed before may have left its image, whole.
            name: format!("again {} {number}", std::process::id()),
            ..RestoreRequest::default()
        };
        let back = cloud.restore_image(&request, &mut |_| say("step")).unwrap();
        cloud.deregister_image(back.image_id.as_str(), true).unwrap();
        say("step");
    }
}

fn names(dir: &Path) -> BTreeSet<PathBuf> {
    let all = std::fs::read_dir(dir).into_iter().flatten();
    all.map(|entry| PathBuf::from(entry.unwrap().file_name())).collect()
}

#[test]
fn tasks_that_are_killed_leave_nothing_half_made() {
    let name = "cloud::task::tests::crash::tasks_that_are_killed_leave_nothing_half_made";
    let set = [DIR, DISK, IMAGE].map(std::env::var_os);
    if let [Some(dir), Some(disk), Some(image)] = set {
        return work_until_killed(Path::new(&dir), Path::new(&disk), image.to_str().unwrap());
    }
    let world = World::new();
    let image = world.cloud().test_image(&world, "one").image_id.to_string();
    let disk = world.disk("disk.raw", &[(0, b"a"), (BLOCK * 5, b"b")]);
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .envs([(DIR, world.home().root()), (DISK, &disk), (IMAGE, Path::new(&image))])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut steps = lines.filter(|line| line.as_ref().is_ok_and(|line| line.contains("step")));
        steps.nth(round % 7).expect("the child goes on").unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let mut cloud = open(world.home().root());
        for kind in TaskKind::ALL {
            for task in cloud.tasks(*kind, &[]).unwrap() {
                assert_ne!(task.state, TaskState::Active, "{task:?}");
                let is_done = task.state == TaskState::Completed;
                assert_eq!((is_done, is_done), (task.progress == 100, task.status_message.is_none()), "{task:?}");
                let is_there = Path::new(&task.path).exists();
                assert!(is_there || !is_done, "{task:?}");
            }
        }
        assert_eq!(cloud.check().unwrap(), [""; 0]);
        let db = cloud.catalogue.connection();
        let count = |query: &str| db.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(count("SELECT count(*) FROM images WHERE state = 'pending'"), 0);
        assert_eq!(count("SELECT count(*) FROM snapshots WHERE state = 'pending'"), 0);
        assert_eq!(count("SELECT count(*) FROM operations"), 0);
        let mut layers = db.prepare("SELECT id FROM layers").unwrap();
        let layers = layers.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap);
        let wanted: BTreeSet<PathBuf> =
            layers.flat_map(|id| ["data", "map"].map(|ending| PathBuf::from(format!("{id}.{ending}")))).collect();
        assert_eq!(names(&world.home().layers()), wanted);
        assert_eq!(names(&world.home().operations()), BTreeSet::new());
    }
    // What was stored last is whole.
    let mut cloud = world.cloud();
    let stored = names(&world.home().root().join("store/bucket"));
    assert!(stored.iter().all(|name| ["bin", "raw"].map(Some).contains(&name.extension().and_then(|e| e.to_str()))));
    let request = RestoreRequest {
        bucket: "bucket".into(),
        object_key: format!("{image}.bin"),
        name: "last".into(),
        ..RestoreRequest::default()
    };
    let back = cloud.restore_image(&request, &mut |_| {}).unwrap();
    assert_eq!(&cloud.snapshot_block(back.snapshots()[0], 0).unwrap()[..4], b"root");
    cloud.import_snapshot(&disk, None, "", &Tags::new(), &mut goes_on).unwrap();
}
