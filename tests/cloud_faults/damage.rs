//! Damaged catalogues and layers: what is wrong is named, and nothing else is affected.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::support::cloud::{CloudWorld, path, text};
use crate::support::finish;

/// A change to a file.
type Harm = fn(&Path);

fn truncate(file: &Path, len: impl FnOnce(u64) -> u64) {
    let file = File::options().write(true).open(file).unwrap();
    file.set_len(len(file.metadata().unwrap().len())).unwrap();
}

fn overwrite(file: &Path, at: impl FnOnce(u64) -> u64, len: usize) {
    let file = File::options().write(true).open(file).unwrap();
    file.write_all_at(&vec![0x5a; len], at(file.metadata().unwrap().len())).unwrap();
}

/// A file that is changed, and comes back when this is dropped.
struct Harmed {
    path: PathBuf,
    before: PathBuf,
}

impl Harmed {
    fn new(cloud: &CloudWorld, path: &Path, harm: Harm) -> Self {
        let before = cloud.world.path("before");
        // Holes stay holes.
        fs::rename(path, &before).unwrap();
        crate::support::disks::tool(
            "coreutils",
            "cp",
            &["--sparse=always", before.to_str().unwrap(), path.to_str().unwrap()],
        );
        harm(path);
        Self { path: path.into(), before }
    }
}

impl Drop for Harmed {
    fn drop(&mut self) {
        fs::rename(&self.before, &self.path).unwrap();
    }
}

#[test]
fn damage_to_the_catalogue_is_named() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let catalogue = cloud.home().join("catalogue.sqlite");
    let harms: [(&str, Harm); 5] = [
        ("its beginning", |file| overwrite(file, |_| 0, 100)),
        ("all but its beginning", |file| overwrite(file, |_| 100, 150_000)),
        ("its second half", |file| overwrite(file, |len| len / 2, 70_000)),
        ("it is cut off", |file| truncate(file, |len| len / 2)),
        ("it is empty", |file| truncate(file, |_| 0)),
    ];
    for (what, harm) in harms {
        let harmed = Harmed::new(&cloud, &catalogue, harm);
        for arguments in
            [&["image", "ls"][..], &["instance", "run", &image, "--type", "t3.nano"], &["image", "show", &image]]
        {
            let ended = finish(&mut cloud.amiboot(arguments)).code(1);
            assert!(ended.stderr.contains(path(&catalogue)) && ended.stderr.contains("damaged"), "{what}: {ended:#?}");
        }
        for ending in ["sqlite-wal", "sqlite-shm"] {
            // Of the damaged one.
            let _ = fs::remove_file(catalogue.with_extension(ending));
        }
        drop(harmed);
        assert_eq!(cloud.json(&["image", "ls"])[0]["image_id"], *image, "{what}");
    }
    cloud.check();
    // One that is gone is no new one.
    let aside = cloud.home().join("aside");
    fs::rename(&catalogue, &aside).unwrap();
    let ended = finish(&mut cloud.amiboot(&["image", "ls"])).code(1);
    assert!(ended.stderr.contains(path(&catalogue)), "{ended:#?}");
    fs::rename(&aside, &catalogue).unwrap();
    let instance = cloud.launch(&image, &[]);
    cloud.type_on(&instance, b"abc", "ABC");
}

#[test]
fn damage_to_a_layer_is_named_and_harms_no_other_image() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let other = cloud.image("echo", "second");
    let layer_of = |image: &str| {
        let snapshot = cloud.root_snapshot(image);
        cloud
            .home()
            .join("layers")
            .join(&cloud.query(&format!("SELECT layer FROM snapshots WHERE id = '{snapshot}'"))[0])
    };
    let stem = layer_of(&image);
    let harms: [(&str, &str, Harm); 8] = [
        ("map", "its header", |file| overwrite(file, |_| 20, 4)),
        ("map", "its magic", |file| overwrite(file, |_| 0, 4)),
        ("map", "its bitmap", |file| overwrite(file, |len| len - 100, 10)),
        ("map", "it is cut off", |file| truncate(file, |len| len - 512)),
        ("map", "it is empty", |file| truncate(file, |_| 0)),
        ("map", "it is missing", |file| fs::remove_file(file).unwrap()),
        ("data", "it is cut off", |file| truncate(file, |len| len / 2)),
        ("data", "it is missing", |file| fs::remove_file(file).unwrap()),
    ];
    let out = cloud.world.path("out.raw");
    for (ending, what, harm) in harms {
        let file = stem.with_extension(ending);
        let harmed = Harmed::new(&cloud, &file, harm);
        let run = ["instance", "run", &image, "--type", "t3.nano"];
        let said = cloud.refused("InsufficientInstanceCapacity", &run);
        assert!(said.contains(path(&file)), "{what}: {said}");
        let ended = finish(&mut cloud.amiboot(&["image", "export", &image, path(&out), "--format", "raw"])).code(1);
        assert!(ended.stderr.contains(path(&file)) && !out.exists(), "{what}: {ended:#?}");
        // The launch is over, and says why.
        let all = cloud.json(&["instance", "ls"]);
        let last = all.as_array().unwrap().last().unwrap();
        assert_eq!(last["state"], "terminated", "{what}");
        assert!(text(&last["state_reason"]["message"]).contains(path(&file)), "{what}: {last:#}");
        // The other image is as it was.
        let instance = cloud.launch(&other, &[]);
        cloud.wait_for_console(&instance, "type");
        cloud.done(&["instance", "terminate", "--force", &instance]);
        cloud.done(&["image", "export", &other, path(&out), "--format", "raw"]);
        fs::remove_file(&out).unwrap();
        drop(harmed);
        cloud.check();
    }
    let instance = cloud.launch(&image, &[]);
    cloud.type_on(&instance, b"abc", "ABC");
}

#[test]
fn what_is_damaged_can_be_deleted() {
    let cloud = CloudWorld::new();
    let volume = text(&cloud.json(&["volume", "create", "--size", "1"])["volume_id"]);
    let snapshots: Vec<String> =
        (0..3).map(|_| text(&cloud.json(&["snapshot", "create", &volume])[0]["snapshot_id"])).collect();
    let layer = &cloud.query(&format!("SELECT layer FROM snapshots WHERE id = '{}'", snapshots[1]))[0];
    overwrite(&cloud.home().join("layers").join(layer).with_extension("map"), |_| 20, 4);
    // What would be put together with it stays as it is.
    cloud.done(&["snapshot", "delete", &snapshots[0]]);
    cloud.done(&["snapshot", "delete", &snapshots[1]]);
    cloud.check();
    cloud.done(&["snapshot", "delete", &snapshots[2]]);
    cloud.done(&["volume", "delete", &volume]);
    cloud.check();
    assert_eq!(cloud.query("SELECT id FROM layers"), Vec::<String>::new());
}
