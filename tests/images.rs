//! `amiboot image` and `amiboot region` on a catalogue: what a person types, what programs read, and many at once.

mod support;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::pty::Pty;
use support::{Ended, Running, World, finish, names_in};

const ME: &str = "123456789012";
const YOU: &str = "222222222222";

/// A catalogue, and those who use it.
struct Lab {
    world: World,
}

impl Lab {
    fn new() -> Self {
        Self { world: World::new() }
    }

    fn amiboot(&self, words: &[&str]) -> Command {
        let mut command = self.world.amiboot();
        command.env("AMIBOOT_HOME", self.world.path("home")).env_remove("AWS_REGION").env_remove("AMIBOOT_OWNER");
        command.args(words);
        command
    }

    #[track_caller]
    fn run(&self, words: &[&str]) -> Ended {
        finish(&mut self.amiboot(words))
    }

    #[track_caller]
    fn json(&self, words: &[&str]) -> Value {
        let ended = finish(self.amiboot(words).arg("--json")).code(0);
        serde_json::from_str(&ended.stdout).unwrap()
    }

    /// A snapshot of a small disk.
    fn snapshot(&self) -> String {
        let disk = self.world.file("disk.raw", vec![7; 64 << 10]);
        let made = self.json(&["snapshot", "import", disk.to_str().unwrap(), "--format", "raw"]);
        made["snapshot_id"].as_str().unwrap().to_owned()
    }

    /// An image of a snapshot of its own; its id.
    fn image(&self, name: &str) -> String {
        let root = format!("/dev/sda1={}", self.snapshot());
        let hvm = ["--virtualization-type", "hvm", "--architecture", "x86_64"];
        let words = [["image", "register", "--name", name, "--bdm", &root].as_slice(), &hvm].concat();
        self.json(&words)["image_id"].as_str().unwrap().to_owned()
    }

    fn catalogue(&self) -> Connection {
        Connection::open(self.world.path("home").join("catalogue.sqlite")).unwrap()
    }

    /// What the catalogue says is there, and nothing else is.
    fn check(&self) {
        self.run(&["image", "ls"]).code(0);
        let db = self.catalogue();
        let texts = |query: &str| -> BTreeSet<String> {
            let mut query = db.prepare(query).unwrap();
            query.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
        };
        let used = texts(
            "SELECT json_extract(entry.value, '$.ebs.snapshot_id') FROM images, json_each(images.mapping) AS entry
             WHERE state NOT IN ('deregistered', 'failed')",
        );
        let there = texts("SELECT id FROM snapshots WHERE state = 'completed'");
        assert!(used.is_subset(&there), "{used:?} {there:?}");
        assert_eq!(texts("SELECT id FROM images WHERE state = 'pending' UNION SELECT id FROM operations").len(), 0);
        let needed = texts("SELECT DISTINCT layer FROM snapshots");
        assert_eq!(needed, texts("SELECT id FROM layers"));
        let files: BTreeSet<String> = names_in(&self.world.path("home").join("layers"))
            .iter()
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(files, needed);
        assert_eq!(names_in(&self.world.path("home").join("ops")), [""; 0].map(std::path::PathBuf::from));
    }
}

fn names(listing: &Value) -> Vec<&str> {
    listing.as_array().unwrap().iter().map(|image| image["name"].as_str().unwrap()).collect()
}

#[test]
fn a_life() {
    let lab = Lab::new();
    lab.run(&["image", "ls"]).code(0).says(&["there are no such images in us-east-1"]);
    assert_eq!(lab.json(&["image", "ls"]), json!([]));
    let id = lab.image("web 1");
    let short = &id[..10];
    lab.run(&["image", "ls"]).code(0).shows("web 1  available  x86_64  hvm   ebs   1 GiB");
    lab.run(&["image", "show", short]).code(0).shows("/dev/sda1 1 GiB, gp2, of snap-");
    assert_eq!(lab.json(&["image", "show", "web 1"])["image_id"], id.as_str());

    // Shared, it is there for another, who copies it to another region.
    lab.run(&["image", "show", &id, "--owner", YOU]).code(1).says(&["InvalidAMIID.NotFound"]);
    let shared = lab.json(&["image", "share", &id, "--account", YOU]);
    assert_eq!(shared, json!({"image_id": id, "owner_id": ME, "is_public": false, "accounts": [YOU]}));
    lab.run(&["image", "ls"]).code(0).shows("1 account");
    assert_eq!(names(&lab.json(&["image", "ls", "--owner", YOU, "--executable-by", "self"])), ["web 1"]);
    let copy = lab.json(&["image", "copy", "web 1", "--owner", YOU, "--to-region", "eu-west-1"]);
    assert_eq!((copy["name"].as_str(), copy["owner_id"].as_str()), (Some("web 1"), Some(YOU)));
    assert_eq!(copy["source_image_id"], id.as_str());
    lab.run(&["image", "share", &id, "--reset"]).code(0).shows("public  no");
    lab.run(&["image", "share", &id, "--public", "--reset"]).code(2);

    // Deregistered, it is none; the copy stays.
    lab.run(&["image", "protect", &id]).code(0);
    lab.run(&["image", "deregister", &id]).code(1).says(&["OperationNotPermitted", "protect", "--off"]);
    lab.run(&["image", "protect", &id, "--off"]).code(0);
    let gone = lab.json(&["image", "deregister", "web 1", "--delete-snapshots"]);
    assert_eq!(gone["image_id"], id.as_str());
    assert_eq!(gone["delete_snapshot_results"][0]["return_code"], "success");
    lab.run(&["image", "show", &id]).code(1).says(&["InvalidAMIID.Unavailable", "deregistered"]);
    assert_eq!(names(&lab.json(&["image", "ls", "--owner", YOU, "--region", "eu-west-1"])), ["web 1"]);
    lab.check();
}

#[test]
fn searches() {
    let lab = Lab::new();
    for name in ["web-1", "web-2", "db-1"] {
        lab.image(name);
    }
    lab.run(&["image", "tag", "web-2", "tier=front, left", "x=1"]).code(0);
    lab.run(&["image", "disable", "db-1"]).code(0);
    let ls = |words: &[&str]| names(&lab.json(&[&["image", "ls"], words].concat())).join(" ");
    for (words, found) in [
        ([].as_slice(), "web-1 web-2"),
        (&["--all", "--sort", "name"], "db-1 web-1 web-2"),
        (&["--state", "disabled"], "db-1"),
        (&["--sort", "name:desc"], "web-2 web-1"),
        (&["--limit", "1"], "web-1"),
        (&["--name", "*-2"], "web-2"),
        (&["--arch", "x86_64", "--platform", "linux"], "web-1 web-2"),
        (&["--arch", "i386"], ""),
        (&["--platform", "windows"], ""),
        (&["--owners", "self,amazon"], "web-1 web-2"),
        (&["--owners", YOU], ""),
        (&["--executable-by", "all"], ""),
        (&["--filter", "Name=name,Values=web-1,web-3"], "web-1"),
        (&["--filters", "name=web-*", "tag-key=x"], "web-2"),
        (&["--filter", r"tag:tier=front\, left"], "web-2"),
        (&["--filter", "name=web-*", "--filter", "virtualization-type=paravirtual"], ""),
    ] {
        assert_eq!(ls(words), found, "{words:?}");
    }
    for (words, said) in [
        (["--filter", "colour=red"], "The filter 'colour' is invalid"),
        (["--filter", "colour"], "NAME=VALUE"),
        (["--sort", "colour"], "nothing to sort by"),
        (["--owners", "Me"], "InvalidUserID.Malformed"),
        (["--executable-by", "me"], "InvalidAMIAttributeItemValue"),
        (["--region", "mars-1"], "there is no region"),
        (["--owner", "me"], "12 digits"),
    ] {
        lab.run(&[&["image", "ls"], words.as_slice()].concat()).code(2).says(&[said]);
    }
}

#[test]
fn changes() {
    let lab = Lab::new();
    let id = lab.image("web");
    lab.run(&["image", "describe", "web", "new words"]).code(0);
    lab.run(&["image", "tag", "web", "a=1", "b=2"]).code(0);
    lab.run(&["image", "tag", "web", "--remove", "a"]).code(0);
    lab.run(&["image", "tag", "web"]).code(2);
    lab.run(&["image", "deprecate", "web", "--at", "2020-01-01"]).code(2).says(&["in the future"]);
    lab.run(&["image", "deprecate", "web", "--at", "30d"]).code(0);
    let image = lab.json(&["image", "show", "web"]);
    assert_eq!((&image["description"], &image["tags"]), (&json!("new words"), &json!({"b": "2"})));
    assert!(image["deprecation_time"].is_string());
    assert_eq!(lab.json(&["image", "undeprecate", "web"])["deprecation_time"], Value::Null);
    assert_eq!(lab.json(&["image", "disable", "web"])["state"], "disabled");
    lab.run(&["image", "copy", "web", "--name", "copy"]).code(1).says(&["InvalidAMIID.Unavailable", "it is disabled"]);
    assert_eq!(lab.json(&["image", "enable", "web"])["state"], "available");

    let codes = lab.json(&["image", "product-code", "web", "--add", "abc1"]);
    assert_eq!(codes, json!([{"product_code_id": "abc1", "product_code_type": "marketplace"}]));
    lab.run(&["image", "share", "web", "--public"]).code(0);
    let you = ["--owner", YOU];
    let copy = [["image", "copy", &id, "--name", "mine"].as_slice(), &you].concat();
    lab.run(&copy).code(1).says(&["OptInRequired", "amiboot image subscribe abc1"]);
    lab.run(&[["image", "subscribe", "abc1"].as_slice(), &you].concat()).code(0);
    lab.run(&copy).code(2).says(&["InvalidRequest"]);
    lab.run(&[["image", "unsubscribe", "abc1"].as_slice(), &you].concat()).code(0);
    lab.run(&copy).code(1).says(&["OptInRequired"]);

    lab.run(&["image", "owner-alias", "amazon"]).code(0);
    lab.run(&[["image", "ls", "--owners", "amazon"].as_slice(), &you].concat()).code(0).shows("amazon");
    lab.run(&["image", "owner-alias", "amazon", "--remove"]).code(0);
    assert_eq!(lab.json(&["image", "ls", "--owners", "amazon"]), json!([]));
}

#[test]
fn registration_says_what_it_took() {
    let lab = Lab::new();
    let root = format!("/dev/sda1={}", lab.snapshot());
    let register = |more: &[&str]| lab.run(&[&["image", "register", "--name", "pv image"], more].concat());
    register(&["--bdm", "/dev/sda1=snap-00000000000000000"]).code(1).says(&["InvalidSnapshot.NotFound"]);
    register(&["--bdm", "/dev/sda1=disk.raw"]).code(2).says(&["InvalidBlockDeviceMapping", "snapshot import"]);
    register(&[]).code(2);
    register(&["--bdm", &root, "--bdm", "/dev/sdb=ephemeral0", "--tag", "a=b"])
        .code(0)
        .says(&["paravirtual and for i386"])
        .shows("pv image  available  i386  pv");
    register(&["--bdm", &root]).code(1).says(&["InvalidAMIName.Duplicate", "pv image", "deregister"]);
}

#[test]
fn a_table_fits_its_terminal() {
    let lab = Lab::new();
    let name = "a-name-that-is-as-long-as-those-of-amazon-are-2026-01-01-x86_64-ebs";
    lab.image(name);
    lab.run(&["image", "share", name, "--public"]).code(0);
    assert!(lab.run(&["image", "ls"]).code(0).shows(name).stdout.lines().all(|line| line.len() > 120));
    let mut pty = Pty::open();
    pty.resize(100, 24);
    let shown = pty.start(&mut lab.amiboot(&["image", "ls"])).end().code(0);
    let lines: Vec<&str> = shown.stdout.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    assert!(lines.iter().all(|line| line.chars().count() <= 100), "{lines:#?}");
    assert!(lines[0].ends_with("SHARED") && lines[1].contains("…"), "{lines:#?}");
}

#[test]
fn regions() {
    let lab = Lab::new();
    let regions = lab.json(&["region", "ls"]);
    assert_eq!(regions[0], json!({"region_name": "ap-northeast-1", "zones": 3}));
    lab.run(&["region", "zones", "--region", "eu-west-1"]).code(0).shows("eu-west-1c");
    lab.run(&["region", "zones", "--region", "lab-1"]).code(2).says(&["there is no region", "add-zone"]);
    lab.run(&["region", "add-zone", "lab-1-x", "--region", "lab-1", "--type", "outpost"]).code(2).says(&["first"]);
    let zone = lab.json(&["region", "add-zone", "lab-1a", "--region", "lab-1"]);
    assert_eq!(
        zone,
        json!({"zone_name": "lab-1a", "region_name": "lab-1", "zone_id": "lab-1a", "zone_type": "availability-zone",
            "parent_zone_name": null})
    );
    let outpost = lab.json(&["region", "add-zone", "lab-1-x", "--region", "lab-1", "--type", "outpost"]);
    assert_eq!(outpost["parent_zone_name"], "lab-1a");
    lab.run(&["image", "ls", "--region", "lab-1"]).code(0);
    assert_eq!(lab.json(&["region", "zones", "--region", "lab-1"]).as_array().unwrap().len(), 2);
    assert!(lab.json(&["region", "zones", "--all"]).as_array().unwrap().len() > 50);
}

#[test]
fn many_processes_at_one_image() {
    let lab = Lab::new();
    let id = lab.image("original");
    let start = |words: &[&str]| Running::start(&mut lab.amiboot(words));
    let copies: Vec<Running> =
        (0..4).map(|n| start(&["image", "copy", &id, "--name", &format!("copy {}", n % 2)])).collect();
    let gone: Vec<Running> = (0..2).map(|_| start(&["image", "deregister", &id, "--delete-snapshots"])).collect();
    let mut copied = 0;
    for ended in copies.into_iter().map(Running::end) {
        copied += u32::from(ended.code == Some(0));
        let said = |code: &str| ended.stderr.contains(code);
        assert!(
            ended.code == Some(0) || said("InvalidAMIName.Duplicate") || said("InvalidAMIID.Unavailable"),
            "{ended:#?}"
        );
    }
    let gone: Vec<Ended> = gone.into_iter().map(Running::end).collect();
    assert_eq!(gone.iter().filter(|ended| ended.code == Some(0)).count(), 1, "{gone:#?}");
    assert!(gone.iter().any(|ended| ended.stderr.contains("InvalidAMIID.Unavailable")), "{gone:#?}");
    assert_eq!(lab.json(&["image", "ls"]).as_array().unwrap().len(), copied as usize);
    lab.check();
}

#[test]
fn a_process_that_is_killed_leaves_nothing_half_done() {
    let lab = Lab::new();
    let mut latest = lab.image("image 0");
    // From its first instruction to after its end.
    for number in 1..=30u64 {
        let copying = number % 2 == 1;
        let name = format!("image {number}");
        let words = if copying {
            vec!["image", "copy", &latest, "--name", &name]
        } else {
            vec!["image", "deregister", &latest, "--delete-snapshots"]
        };
        let running = Running::start(&mut lab.amiboot(&words));
        std::thread::sleep(Duration::from_micros(number * 7919 % 60_000));
        running.signal(Signal::KILL);
        let ended = running.end();
        let done = ended.code == Some(0);
        lab.check();
        let images = lab.json(&["image", "ls"]);
        let found = names(&images).contains(&name.as_str());
        // What was acknowledged is so; what was not may be.
        assert!(!(done && copying) || found, "{ended:#?}");
        latest = match images.as_array().unwrap().last() {
            Some(image) => image["image_id"].as_str().unwrap().to_owned(),
            None => lab.image(&format!("again {number}")),
        };
    }
}
