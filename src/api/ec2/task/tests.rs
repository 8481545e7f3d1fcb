//! Imports, exports and stored images, as a client sees them.

use crate::api::testing::{Answer, World};

fn import<'a>(url: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[("Architecture", "x86_64"), ("DiskContainer.1.Url", url)], more].concat()
}

#[test]
fn an_image_is_imported_and_said_to_be_under_way_until_it_is_there() {
    let world = World::new();
    let url = world.disk("one disk.raw", 3).replace(' ', "%20");
    let more = [
        ("DiskContainer.1.Format", "RAW"),
        ("DiskContainer.1.DeviceName", "/dev/sda1"),
        ("Description", "brought"),
        ("Platform", "Linux"),
        ("LicenseType", "BYOL"),
        ("RoleName", "vmimport"),
        ("ClientData.Comment", "from afar"),
        ("ClientToken", "once"),
        ("TagSpecification.1.ResourceType", "import-image-task"),
        ("TagSpecification.1.Tag.1.Key", "a"),
        ("TagSpecification.1.Tag.1.Value", "b"),
    ];
    let begun = world.ask("ImportImage", &import(&url, &more));
    let task = begun.one("importTaskId");
    assert!(task.starts_with("import-ami-0"));
    world.wait();
    // The same again is the same.
    assert_eq!(world.ask("ImportImage", &import(&url, &more)).one("importTaskId"), task);
    assert_eq!(
        world.ask("ImportImage", &import(&url, &[("ClientToken", "once")])).code(),
        "IdempotentParameterMismatch"
    );
    let done = world.ask("DescribeImportImageTasks", &[("ImportTaskId.1", &task)]);
    assert_eq!(done.all("status"), ["completed", "completed"]);
    assert_eq!((done.one("platform"), done.one("format")), ("Linux".into(), "RAW".into()));
    assert_eq!((done.one("description"), done.one("key")), ("brought".into(), "a".into()));
    assert_eq!((done.one("url"), done.all("progress")), (url, vec![]));
    let image = world.ask("DescribeImages", &[("ImageId.1", &done.one("imageId"))]);
    assert_eq!((image.one("imageState"), image.one("name")), ("available".into(), task));
    assert_eq!((image.one("rootDeviceName"), image.one("snapshotId")), ("/dev/sda1".into(), done.one("snapshotId")));
    for (filters, count) in [("completed", 1), ("active", 0), ("c*", 1)] {
        let found =
            world.ask("DescribeImportImageTasks", &[("Filters.1.Name", "task-state"), ("Filters.1.Value.1", filters)]);
        assert_eq!(found.all("importTaskId").len(), count, "{filters}");
    }
    let wrong = [("Filters.1.Name", "colour"), ("Filters.1.Value.1", "red")];
    assert_eq!(world.ask("DescribeImportImageTasks", &wrong).code(), "InvalidParameterValue");
    let elsewhere = world.ask_as("222222222222", "us-east-1", "DescribeImportImageTasks", &[]);
    assert_eq!((elsewhere.status, elsewhere.all("importTaskId").len()), (200, 0));
}

#[test]
fn an_import_that_fails_says_why() {
    let world = World::new();
    std::fs::write(world.path("in/none"), b"this is no disk").unwrap();
    let url = format!("file://{}", world.path("in/none").display());
    let task = world.ask("ImportImage", &import(&url, &[])).one("importTaskId");
    let other = world.ask("ImportSnapshot", &[("DiskContainer.Url", &url)]).one("importTaskId");
    world.wait();
    let failed = world.ask("DescribeImportImageTasks", &[]);
    assert_eq!((failed.one("importTaskId"), failed.all("status")), (task.clone(), vec!["deleted".into(); 2]));
    assert!(failed.one("statusMessage").contains("in/none"), "{failed:?}");
    let failed = world.ask("DescribeImportSnapshotTasks", &[]);
    assert_eq!((failed.one("importTaskId"), failed.one("status")), (other.clone(), "error".into()));
    for task in [&task, &other] {
        assert_eq!(world.ask("CancelImportTask", &[("ImportTaskId", task)]).code(), "IncorrectState");
    }
    assert_eq!(
        world.ask("CancelImportTask", &[("ImportTaskId", "import-ami-0123456789abcdef0")]).code(),
        "InvalidConversionTaskId.NotFound"
    );
}

#[test]
fn a_snapshot_is_imported() {
    let world = World::new();
    let url = world.disk("disk", 2);
    let parameters = [
        ("DiskContainer.Url", url.as_str()),
        ("DiskContainer.Description", "a disk"),
        ("TagSpecification.1.ResourceType", "import-snapshot-task"),
        ("TagSpecification.1.Tag.1.Key", "a"),
    ];
    let task = world.ask("ImportSnapshot", &parameters).one("importTaskId");
    world.wait();
    let done = world.ask("DescribeImportSnapshotTasks", &[("ImportTaskId.1", &task)]);
    assert_eq!((done.one("status"), done.one("key"), done.one("url")), ("completed".into(), "a".into(), url));
    let snapshot = world.ask("DescribeSnapshots", &[("SnapshotId.1", &done.one("snapshotId"))]);
    assert_eq!((snapshot.one("status"), snapshot.one("description")), ("completed".into(), "a disk".into()));
}

#[test]
fn files_are_imported_only_from_where_their_owner_says() {
    let (world, closed) = (World::new(), World::without_imports());
    std::fs::write(world.path("secret"), vec![1; 1 << 20]).unwrap();
    let url = format!("file://{}", world.path("secret").display());
    let climbing = format!("file://{}", world.path("in/../secret").display());
    let image = |world: &World, url: &str| world.ask("ImportImage", &import(url, &[]));
    let snapshot = |world: &World, url: &str| world.ask("ImportSnapshot", &[("DiskContainer.Url", url)]);
    for ask in [&image as &dyn Fn(&World, &str) -> Answer, &snapshot] {
        for url in [url.as_str(), climbing.as_str(), "file:///etc/shadow", "file:///no/such", "disk", ""] {
            let expected = if url.is_empty() { "MissingParameter" } else { "InvalidParameterValue" };
            assert_eq!(ask(&world, url).code(), expected, "{url}");
        }
        for url in ["s3://bucket/key", "https://host/disk.vmdk"] {
            assert_eq!(ask(&world, url).code(), "UnsupportedOperation", "{url}");
        }
        let refused = ask(&closed, &closed.disk("disk", 1));
        assert_eq!(refused.code(), "UnsupportedOperation");
        assert!(refused.one("Message").contains("--import-from"), "{refused:?}");
    }
    let bucket = [("DiskContainer.1.UserBucket.S3Bucket", "b"), ("DiskContainer.1.UserBucket.S3Key", "k")];
    let refused = world.ask("ImportImage", &bucket);
    assert_eq!(refused.code(), "UnsupportedOperation");
    assert!(refused.one("Message").contains("file:///"), "{refused:?}");
    assert_eq!(world.ask("DescribeImportImageTasks", &[]).all("item").len(), 0);
    assert_eq!(world.ask("DescribeImportSnapshotTasks", &[]).all("item").len(), 0);
}

#[test]
fn what_an_import_cannot_do_is_refused() {
    let world = World::new();
    let url = world.disk("disk", 1);
    for (more, expected) in [
        (("DiskContainer.2.Url", url.as_str()), "UnsupportedOperation"),
        (("DiskContainer.1.SnapshotId", "snap-01234567"), "UnsupportedOperation"),
        (("DiskContainer.1.Format", "OVA"), "InvalidParameterValue"),
        (("Encrypted", "true"), "UnsupportedOperation"),
        (("LicenseType", "AWS"), "UnsupportedOperation"),
        (("Platform", "Solaris"), "InvalidParameterValue"),
        (("TagSpecification.1.ResourceType", "image"), "InvalidParameterValue"),
    ] {
        assert_eq!(world.ask("ImportImage", &import(&url, &[more])).code(), expected, "{more:?}");
    }
    assert_eq!(world.ask("ImportImage", &[]).code(), "MissingParameter");
    assert_eq!(world.ask("ImportSnapshot", &[]).code(), "MissingParameter");
}

#[test]
fn an_image_is_exported_into_a_bucket_and_comes_back_from_there() {
    let world = World::new();
    let image = world.image("one");
    let parameters = [
        ("ImageId", image.as_str()),
        ("DiskImageFormat", "VMDK"),
        ("S3ExportLocation.S3Bucket", "my-exports"),
        ("S3ExportLocation.S3Prefix", "deep/"),
        ("RoleName", "vmimport"),
        ("TagSpecification.1.ResourceType", "export-image-task"),
        ("TagSpecification.1.Tag.1.Key", "a"),
    ];
    let begun = world.ask("ExportImage", &parameters);
    let task = begun.one("exportImageTaskId");
    assert_eq!((begun.one("s3Bucket"), begun.one("s3Prefix")), ("my-exports".into(), "deep/".into()));
    world.wait();
    let done = world.ask("DescribeExportImageTasks", &[("ExportImageTaskId.1", &task)]);
    assert_eq!(
        (done.one("status"), done.one("imageId"), done.one("key")),
        ("completed".into(), image.clone(), "a".into())
    );
    assert!(world.home().buckets().join(format!("my-exports/deep/{task}.vmdk")).is_file());
    for (name, value) in [("S3ExportLocation.S3Prefix", "../"), ("DiskImageFormat", "OVA"), ("ImageId", "ami-1")] {
        let mut wrong = parameters.to_vec();
        wrong.iter_mut().filter(|(have, _)| *have == name).for_each(|(_, have)| *have = value);
        assert!(world.ask("ExportImage", &wrong).code().starts_with("Invalid"), "{name}");
    }
    assert_eq!(world.ask("ExportImage", &parameters[..2]).code(), "MissingParameter");
}

#[test]
fn an_image_is_stored_and_restored_elsewhere() {
    let world = World::new();
    let image = world.image("one");
    let parameters =
        [("ImageId", image.as_str()), ("Bucket", "bucket"), ("S3ObjectTag.1.Key", "a"), ("S3ObjectTag.1.Value", "b")];
    let key = world.ask("CreateStoreImageTask", &parameters).one("objectKey");
    assert_eq!(key, format!("{image}.bin"));
    world.wait();
    let done = world.ask("DescribeStoreImageTasks", &[("ImageId.1", &image)]);
    assert_eq!((done.one("storeTaskState"), done.one("progressPercentage")), ("Completed".into(), "100".into()));
    assert_eq!((done.one("amiId"), done.one("s3objectKey")), (image.clone(), key.clone()));
    for (name, value, count) in [("task-state", "Completed", 1), ("task-state", "Failed", 0), ("bucket", "buck*", 1)] {
        let found = world.ask("DescribeStoreImageTasks", &[("Filter.1.Name", name), ("Filter.1.Value.1", value)]);
        assert_eq!(found.all("amiId").len(), count, "{name} {value}");
    }
    let both = [("ImageId.1", image.as_str()), ("MaxResults", "5")];
    assert_eq!(world.ask("DescribeStoreImageTasks", &both).code(), "InvalidParameterCombination");
    let restore = [
        ("Bucket", "bucket"),
        ("ObjectKey", key.as_str()),
        ("Name", "back"),
        ("TagSpecification.1.ResourceType", "snapshot"),
        ("TagSpecification.1.Tag.1.Key", "part"),
    ];
    let elsewhere = |action: &str, parameters: &[_]| world.ask_as("222222222222", "us-west-2", action, parameters);
    let back = elsewhere("CreateRestoreImageTask", &restore).one("imageId");
    world.wait();
    let found = elsewhere("DescribeImages", &[("ImageId.1", &back)]);
    assert_eq!((found.one("imageState"), found.one("name")), ("available".into(), "back".into()));
    let snapshot = elsewhere("DescribeSnapshots", &[("SnapshotId.1", &found.one("snapshotId"))]);
    assert_eq!(snapshot.one("key"), "part");
    for (bucket, key) in [("bucket", "other.bin"), ("other", &key), ("..", &key), ("bucket", "../catalogue.sqlite")] {
        let wrong = [("Bucket", bucket), ("ObjectKey", key)];
        assert_eq!(world.ask("CreateRestoreImageTask", &wrong).code(), "InvalidParameterValue", "{bucket} {key}");
    }
}

#[test]
fn what_only_is_to_be_tried_is_not_done() {
    let world = World::new();
    let url = world.disk("disk", 1);
    let answer = world.ask("ImportImage", &import(&url, &[("DryRun", "true")]));
    assert_eq!((answer.status, answer.code().as_str()), (412, "DryRunOperation"));
    assert_eq!(world.ask("DescribeImportImageTasks", &[]).all("item").len(), 0);
}
