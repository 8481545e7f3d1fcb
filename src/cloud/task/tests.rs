//! Tasks, and images that go to files and come back, through [`Cloud`] alone.

mod crash;

use std::os::unix::fs::FileExt;
use std::path::Path;

use super::*;
use crate::cloud::image::{Architecture, Image, ImageState, VirtualizationType};
use crate::cloud::mapping::{BlockDevice, Ebs, GIB, Target};
use crate::cloud::testing::{World, code};
use crate::cloud::{BLOCK, ImportRequest, RunRequest, Scope};
use crate::disk::foreign::export::ExportFormat;

fn import_of(path: &Path) -> ImportRequest {
    ImportRequest {
        path: path.to_owned(),
        architecture: Some(Architecture::X86_64),
        virtualization_type: Some(VirtualizationType::Hvm),
        ..ImportRequest::default()
    }
}

fn no_tags() -> Tags {
    Tags::new()
}

fn named(name: &str) -> Tags {
    Tags::from([("Name".to_owned(), name.to_owned())])
}

#[test]
fn an_image_is_imported_as_a_task() {
    let world = World::new();
    let mut cloud = world.cloud();
    let disk = world.disk("one.raw", &[(0, b"begin"), (GIB - 512, b"end")]);
    let mut told = Vec::new();
    let mut begun = |task: &Task| told.push(task.clone());
    let request = import_of(&disk);
    let done = cloud.import_image_task(&request, &named("task"), Some("t"), &mut begun).unwrap();
    assert_eq!((told[0].state, told[0].progress, &told[0].resource_id), (TaskState::Active, 0, &None));
    assert!(told[0].task_id.as_str().starts_with("import-ami-0"));
    assert_eq!((done.state, done.progress, &done.task_id), (TaskState::Completed, 100, &told[0].task_id));
    assert_eq!(done.tags, named("task"));
    let image = cloud.image(done.resource_id.as_deref().unwrap()).unwrap();
    assert_eq!((image.name.as_str(), image.state), (done.task_id.as_str(), ImageState::Available));
    // Again with the token: nothing more.
    let again = world.cloud().import_image_task(&request, &named("task"), Some("t"), &mut |_| {}).unwrap();
    assert_eq!(again, done);
    let other = world.cloud().import_image_task(&request, &no_tags(), Some("t"), &mut |_| {});
    assert_eq!(code(other), "IdempotentParameterMismatch");
    assert_eq!(world.cloud().tasks(TaskKind::ImportImage, &[]).unwrap(), std::slice::from_ref(&done));
    assert_eq!(world.cloud().tasks(TaskKind::ImportSnapshot, &[]).unwrap(), []);
    let mut elsewhere = world.of(Scope { region: "us-west-2".into(), ..Scope::default() });
    let id = [done.task_id.to_string()];
    assert_eq!(code(elsewhere.tasks(TaskKind::ImportImage, &id)), "InvalidConversionTaskId.NotFound");
    assert_eq!(code(cloud.tasks(TaskKind::ImportSnapshot, &id)), "InvalidConversionTaskId.Malformed");
}

#[test]
fn a_task_that_fails_says_why() {
    let world = World::new();
    let mut cloud = world.cloud();
    let missing = world.path("missing.raw");
    let mut told = 0;
    let failed =
        cloud.import_snapshot_task((&missing, None), "", (&no_tags(), &no_tags()), Some("t"), &mut |_| told += 1);
    assert!(failed.is_err());
    let task = cloud.tasks(TaskKind::ImportSnapshot, &[]).unwrap().remove(0);
    assert_eq!((task.state, told), (TaskState::Failed, 1));
    assert!(task.status_message.as_ref().unwrap().contains("missing.raw"), "{task:?}");
    // The same request is answered with what became of it.
    let again =
        cloud.import_snapshot_task((&missing, None), "", (&no_tags(), &no_tags()), Some("t"), &mut |_| told += 1);
    assert_eq!((again.unwrap(), told), (task, 2));
    assert_eq!(std::fs::read_dir(world.home().operations()).unwrap().count(), 0);
}

#[test]
fn an_import_that_is_broken_off_leaves_nothing() {
    let world = World::new();
    let mut cloud = world.cloud();
    // Data all over it, so that there are many steps.
    let pieces: Vec<(u64, &[u8])> = (0..256).map(|at| (at * (GIB / 256), &b"x"[..])).collect();
    let disk = world.disk("one.raw", &pieces);
    let mut other = world.cloud();
    let mut broken_off = Vec::new();
    let mut begun = |task: &Task| broken_off.push(other.cancel_import_task(task.task_id.as_str(), "enough").unwrap());
    cloud.import_image_task(&import_of(&disk), &no_tags(), None, &mut begun).unwrap_err();
    let tags = (&no_tags(), &no_tags());
    cloud.import_snapshot_task((&disk, None), "", tags, None, &mut begun).unwrap_err();
    for (task, kind) in broken_off.iter().zip([TaskKind::ImportImage, TaskKind::ImportSnapshot]) {
        assert_eq!((task.state, task.status_message.as_deref()), (TaskState::Cancelled, Some("enough")));
        assert_eq!(cloud.tasks(kind, &[task.task_id.to_string()]).unwrap(), std::slice::from_ref(task));
        assert_eq!(code(cloud.cancel_import_task(task.task_id.as_str(), "")), "IncorrectState");
    }
    assert_eq!(cloud.snapshots(&[], false).unwrap(), []);
    assert_eq!(std::fs::read_dir(world.home().layers()).unwrap().count(), 0);
    let unfinished = "SELECT count(*) FROM tasks WHERE operation IS NOT NULL";
    assert_eq!(cloud.catalogue.read(|tx| Ok(tx.query_row(unfinished, [], |row| row.get::<_, i64>(0))?)).unwrap(), 0);
    let id = "import-ami-00000000000000000";
    for (id, expected) in [(id, ".NotFound"), ("ami-1", ".Malformed"), ("", ".Malformed")] {
        assert_eq!(code(cloud.cancel_import_task(id, "")), format!("InvalidConversionTaskId{expected}"), "{id}");
    }
}

#[test]
fn a_snapshot_is_imported_as_a_task() {
    let world = World::new();
    let mut cloud = world.cloud();
    let disk = world.disk("one.raw", &[(BLOCK, b"here")]);
    let tags = (&no_tags(), &named("snap"));
    let done = cloud.import_snapshot_task((&disk, None), "", tags, None, &mut |_| {}).unwrap();
    let id = done.resource_id.clone().unwrap();
    let snapshot = cloud.snapshots(std::slice::from_ref(&id), true).unwrap().remove(0);
    assert!(snapshot.description.contains(done.task_id.as_str()) && snapshot.tags == named("snap"), "{snapshot:?}");
    assert_eq!(&cloud.snapshot_block(&id, 1).unwrap()[..4], b"here");
}

#[test]
fn a_task_that_was_cut_off_has_failed() {
    let world = World::new();
    let mut cloud = world.cloud();
    let disk = world.disk("one.raw", &[]);
    let tags = (&no_tags(), &no_tags());
    let done = cloud.import_snapshot_task((&disk, None), "", tags, Some("t"), &mut |_| {}).unwrap();
    let cut = |tx: &Transaction<'_>| {
        tx.execute("INSERT INTO operations VALUES ('op-1', 'import-snapshot', 0)", [])?;
        tx.execute("UPDATE tokens SET operation = 'op-1'", [])?;
        Ok(tx.execute("UPDATE tasks SET state = 'active', progress = 7, operation = 'op-1'", [])?)
    };
    cloud.catalogue.write(cut).unwrap();
    let mut cloud = world.cloud();
    let task = cloud.tasks(TaskKind::ImportSnapshot, &[]).unwrap().remove(0);
    assert_eq!((task.state, task.progress), (TaskState::Failed, 7));
    assert!(task.status_message.unwrap().contains("cut off"));
    let again = cloud.import_snapshot_task((&disk, None), "", tags, Some("t"), &mut |_| {}).unwrap();
    assert_ne!(again.task_id, done.task_id);
    // Those of long ago are not listed for ever.
    let age = "UPDATE tasks SET changed = 0 WHERE id = ?1";
    cloud.catalogue.write(|tx| Ok(tx.execute(age, [&done.task_id])?)).unwrap();
    let third = cloud.import_snapshot_task((&disk, None), "", tags, None, &mut |_| {}).unwrap();
    assert_eq!(cloud.tasks(TaskKind::ImportSnapshot, &[]).unwrap(), [again, third]);
}

#[test]
fn images_are_exported_to_directories_and_buckets() {
    let world = World::new();
    let mut cloud = world.cloud();
    let image = cloud.test_image(&world, "one");
    let request = |format, to| ExportRequest {
        image: image.image_id.to_string(),
        format,
        to,
        description: "out".into(),
        tags: Tags::new(),
        client_token: None,
    };
    let dir = world.path("");
    let done =
        cloud.export_image_task(&request(ExportFormat::Raw, ExportTo::Directory(dir.clone())), &mut |_| {}).unwrap();
    assert_eq!(Path::new(&done.path), dir.join(format!("{}.raw", done.task_id)));
    assert_eq!((done.resource_id.as_deref(), done.bucket), (Some(image.image_id.as_str()), None));
    let bytes = std::fs::File::open(&done.path).unwrap();
    let mut begin = [0; 4];
    bytes.read_exact_at(&mut begin, 0).unwrap();
    assert_eq!((&begin, bytes.metadata().unwrap().len()), (b"root", GIB));
    let to = ExportTo::Bucket { bucket: "my-exports".into(), prefix: "a/b-".into() };
    for format in [ExportFormat::Vmdk, ExportFormat::Vhd] {
        let done = cloud.export_image_task(&request(format, to.clone()), &mut |_| {}).unwrap();
        assert!(done.object_key.unwrap().starts_with("a/b-export-ami-0"));
        // It is what it says.
        let back =
            cloud.import_snapshot(Path::new(&done.path), None, "", &Tags::new(), &mut crate::cloud::testing::goes_on);
        assert_eq!(&cloud.snapshot_block(back.unwrap().snapshot_id.as_str(), 0).unwrap()[..4], b"root");
    }
    let out = ExportTo::Bucket { bucket: "my-exports".into(), prefix: "../".into() };
    assert_eq!(code(cloud.export_image_task(&request(ExportFormat::Raw, out), &mut |_| {})), "InvalidParameterValue");
    let nowhere = ExportTo::Directory(world.path("nowhere"));
    cloud.export_image_task(&request(ExportFormat::Raw, nowhere), &mut |_| {}).unwrap_err();
    let states: Vec<TaskState> =
        cloud.tasks(TaskKind::ExportImage, &[]).unwrap().iter().map(|task| task.state).collect();
    assert_eq!(states, [TaskState::Completed, TaskState::Completed, TaskState::Completed, TaskState::Failed]);
}

/// An image with a root and a further volume, and an instance-store volume.
fn rich_image(world: &World, cloud: &mut Cloud) -> Image {
    let image = cloud.test_image(world, "rich");
    let pieces: [(u64, &[u8]); 3] = [(0, b"data"), (BLOCK, b"more"), (GIB - 1, b"z")];
    let data = cloud.test_snapshot(world, &pieces).snapshot_id.to_string();
    cloud.tag_image(image.image_id.as_str(), &named("rich"), &[]).unwrap();
    let more = [
        BlockDevice {
            device_name: "/dev/sdf".into(),
            target: Target::Ebs(Ebs { snapshot_id: Some(data), volume_size: Some(3), ..Ebs::default() }),
        },
        BlockDevice { device_name: "/dev/sdb".into(), target: Target::Ephemeral(0) },
    ];
    let mapping = [image.block_device_mappings.as_slice(), &more].concat();
    let text = serde_json::to_string(&mapping).unwrap();
    let update = "UPDATE images SET mapping = ?2 WHERE id = ?1";
    cloud.catalogue.write(|tx| Ok(tx.execute(update, params![image.image_id, text])?)).unwrap();
    cloud.image(image.image_id.as_str()).unwrap()
}

#[test]
fn an_image_is_stored_and_restored() {
    let world = World::new();
    let mut cloud = world.cloud();
    let image = rich_image(&world, &mut cloud);
    let id = image.image_id.as_str();
    let done = cloud.store_image_task(id, "my-bucket", &no_tags(), &mut |_| {}).unwrap();
    assert_eq!((done.object_key, done.progress), (Some(format!("{id}.bin")), 100));
    assert_eq!(Path::new(&done.path), world.home().root().join(format!("store/my-bucket/{id}.bin")));
    // Again, over the one that is there; the last is told.
    let again = cloud.store_image_task(id, "my-bucket", &no_tags(), &mut |_| {}).unwrap();
    assert_eq!(cloud.store_image_tasks(&[id.to_owned()]).unwrap(), [again]);
    assert_eq!(cloud.store_image_tasks(&[]).unwrap().len(), 2);
    // Another program reads it.
    let listed = std::process::Command::new("tar").args(["-tf", &done.path]).output().unwrap();
    assert!(listed.status.success(), "{listed:?}");
    assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().count(), 5);
    // Its own is gone when it comes back, elsewhere.
    cloud.deregister_image(id, true).unwrap();
    let mut elsewhere = world.of(Scope { region: "us-west-2".into(), account: "222222222222".parse().unwrap() });
    let request = RestoreRequest {
        bucket: "my-bucket".into(),
        object_key: format!("{id}.bin"),
        name: "back".into(),
        tags: Tags::from([("a".to_owned(), "b".to_owned())]),
        snapshot_tags: named("part"),
    };
    let mut told = Vec::new();
    let back = elsewhere.restore_image(&request, &mut |image| told.push(image.clone())).unwrap();
    assert_eq!((told[0].state, &told[0].image_id), (ImageState::Pending, &back.image_id));
    assert_eq!(
        (back.state, back.name.as_str(), back.owner_id.as_str()),
        (ImageState::Available, "back", "222222222222")
    );
    assert_eq!((back.tags["Name"].as_str(), back.tags["a"].as_str()), ("rich", "b"));
    assert_eq!(back.block_device_mappings.len(), 3);
    assert_eq!((back.root_size(), back.block_device_mappings[1].ebs().unwrap().volume_size), (Some(1), Some(3)));
    let snapshots = back.snapshots();
    for id in &snapshots {
        let snapshot = elsewhere.snapshots(&[(*id).to_owned()], true).unwrap().remove(0);
        assert_eq!(snapshot.tags, named("part"));
    }
    assert_eq!(&elsewhere.snapshot_block(snapshots[0], 0).unwrap()[..4], b"root");
    assert_eq!(elsewhere.snapshot_blocks(snapshots[1], 0, 9).unwrap().blocks, [0, 1, 2047]);
    assert_eq!(&elsewhere.snapshot_block(snapshots[1], 1).unwrap()[..4], b"more");
    let launch = RunRequest { image: back.image_id.to_string(), count: 1, ..RunRequest::default() };
    elsewhere.run_instances(&launch).unwrap();
    assert_eq!(code(elsewhere.restore_image(&request, &mut |_| {})), "InvalidAMIName.Duplicate");
    let missing = RestoreRequest { object_key: "other.bin".into(), ..request };
    assert_eq!(code(elsewhere.restore_image(&missing, &mut |_| {})), "InvalidParameterValue");
    assert_eq!(elsewhere.check().unwrap(), [""; 0]);
}

#[test]
fn what_is_damaged_is_not_restored_and_leaves_nothing() {
    let world = World::new();
    let mut cloud = world.cloud();
    let image = cloud.test_image(&world, "one");
    let done = cloud.store_image_task(image.image_id.as_str(), "bucket", &no_tags(), &mut |_| {}).unwrap();
    let whole = std::fs::read(&done.path).unwrap();
    let request = |name: String| RestoreRequest {
        bucket: "bucket".into(),
        object_key: done.object_key.clone().unwrap(),
        name,
        ..RestoreRequest::default()
    };
    let layers = std::fs::read_dir(world.home().layers()).unwrap().count();
    // Where nothing is zero: headers, manifest, checksum, and one byte of the data.
    let places: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let mut state = 7u64;
    let mut step = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap()
    };
    let mut refused = 0;
    for round in 0..120 {
        let mut bytes = whole.clone();
        match round % 3 {
            0 => bytes.truncate(step() % whole.len()),
            _ => bytes[places[step() % places.len()]] ^= 1 << (step() % 8),
        }
        std::fs::write(&done.path, bytes).unwrap();
        match cloud.restore_image(&request(format!("round {round}")), &mut |_| {}) {
            Ok(made) => {
                // What is only said was changed, or the records behind the end are not there.
                cloud.deregister_image(made.image_id.as_str(), true).unwrap();
            }
            Err(error) => {
                assert!(!error.code().starts_with("Internal"), "{round}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 60, "{refused}");
    assert_eq!(std::fs::read_dir(world.home().layers()).unwrap().count(), layers);
    assert_eq!(cloud.check().unwrap(), [""; 0]);
    // A damaged block: the image was told of, and says why it is none.
    let mut bytes = whole.clone();
    let data = (0..whole.len()).step_by(512).find(|at| whole[*at..].starts_with(b"root")).unwrap();
    bytes[data] ^= 1;
    std::fs::write(&done.path, bytes).unwrap();
    let mut told = Vec::new();
    let failed = cloud.restore_image(&request("late".into()), &mut |image| told.push(image.image_id.clone()));
    assert_eq!(code(failed), "InvalidParameterValue");
    let image = cloud.image(told[0].as_str()).unwrap();
    assert_eq!(image.state, ImageState::Failed);
    assert!(image.state_reason.unwrap().message.contains("checksum"));
}

#[test]
fn what_could_not_be_restored_is_not_stored() {
    let world = World::new();
    let mut cloud = world.cloud();
    let image = cloud.test_image(&world, "one");
    let id = image.image_id.as_str();
    assert_eq!(code(cloud.store_image_task(id, "B", &no_tags(), &mut |_| {})), "InvalidParameterValue");
    let update = "UPDATE images SET root_device_type = 'instance-store' WHERE id = ?1";
    cloud.catalogue.write(|tx| Ok(tx.execute(update, [id])?)).unwrap();
    assert_eq!(code(cloud.store_image_task(id, "bucket", &no_tags(), &mut |_| {})), "UnsupportedOperation");
    assert_eq!(cloud.store_image_tasks(&[]).unwrap(), []);
    let mut other = world.of(Scope { account: "222222222222".parse().unwrap(), ..Scope::default() });
    assert_eq!(code(other.store_image_task(id, "bucket", &no_tags(), &mut |_| {})), "AuthFailure");
}
