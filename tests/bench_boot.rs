//! `amiboot bench boot`, with tiny guests.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::disks::text;
use support::{Ended, Running, World, finish, names_in, require_kvm};

/// A world with a disk that boots either way, and the words to measure it.
struct Bench {
    world: World,
    disk: PathBuf,
    rom: PathBuf,
}

impl Bench {
    fn new() -> Self {
        require_kvm();
        let world = World::new();
        let (disk, rom) = (world.pv_image("root.raw"), world.rom());
        Self { world, disk, rom }
    }

    fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = self.world.amiboot();
        command.args(["bench", "boot"]).arg(&self.disk);
        command.args(["--memory", "64M", "--until", r"\|end|login: ", "--timeout", "30s"]);
        command.args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Ended {
        finish(&mut self.command(words))
    }
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn modes_take_turns_and_every_run_is_kept() {
    let bench = Bench::new();
    let (json, svg) = (bench.world.path("boot.json"), bench.world.path("boot.svg"));
    let before = fs::read(&bench.disk).unwrap();
    let ended = bench.run(&[
        "--modes",
        "pv,hvm",
        "--runs",
        "2",
        "--firmware-bios",
        text(&bench.rom),
        "--append",
        "quiet",
        "--disk",
        "nvme",
        "--json",
        text(&json),
        "--svg",
        text(&svg),
    ]);
    let ended = ended.code(0).says(&["1 of 10: warm pv, warm-up: ", "10 of 10: warm hvm: "]);
    for text in
        ["medians", "firmware", "monitor memory", "kernel + init + login", "times pv's", "too few runs", "64 MiB"]
    {
        assert!(ended.stdout.contains(text), "{text}: {}", ended.stdout);
    }
    assert_eq!(fs::read(&bench.disk).unwrap(), before);
    assert_eq!(bench.world.leftovers(), Vec::<PathBuf>::new());
    // The person's own cache is not touched.
    assert!(names_in(&bench.world.cache()).is_empty());

    let record = read(&json);
    assert_eq!((&record["schema"], &record["complete"]), (&json!(1), &json!(true)));
    assert_eq!(record["image"]["bytes"], 8 << 20);
    assert_eq!(record["image"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(record["firmware"][0]["mode"], "hvm");
    assert_eq!(record["firmware"][0]["file"]["path"], text(&bench.rom));
    assert!(record["host"]["kernel"].as_str().is_some_and(|k| !k.is_empty()));
    assert!(record["options"]["cold_by"].as_str().unwrap().contains("posix_fadvise"));
    assert!(record["options"]["commands"][0]["words"].to_string().contains("quiet"));
    let runs = record["runs"].as_array().unwrap();
    let order: Vec<String> =
        runs.iter().map(|r| format!("{} {}", r["cache"].as_str().unwrap(), r["mode"].as_str().unwrap())).collect();
    let round = ["cold pv", "cold hvm", "warm pv", "warm hvm"];
    assert_eq!(order, [&["warm pv", "warm hvm"], &round[..], &round[..]].concat());
    assert!(runs.iter().all(|run| run["failure"].is_null() && run["monitor_bytes"].as_u64() > Some(0)), "{record:#}");
    let figures = record["figures"].as_array().unwrap();
    assert_eq!(figures.len(), 4);
    let phases = |figures: &Value| {
        figures["phases_ms"].as_array().unwrap().iter().map(|p| p["phases"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(phases(&figures[0]), [r#"["monitor"]"#, r#"["kernel","init","login"]"#]);
    // The firmware of the test writes its lines faster than the console is looked at, but for the first of them.
    assert_eq!(phases(&figures[1])[..2], [r#"["monitor"]"#, r#"["firmware"]"#]);

    let svg = fs::read_to_string(&svg).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains("Boot of root.raw"));
    assert!(svg.matches("class=\"phase\"").count() >= 8, "{svg}");
}

#[test]
fn one_state_of_the_caches_and_the_boot_timer() {
    let bench = Bench::new();
    let json = bench.world.path("boot.json");
    let mut command = bench.world.amiboot();
    command.args(["bench", "boot"]).arg(&bench.disk).args(["--modes", "hvm-bios", "--firmware-bios", text(&bench.rom)]);
    command.args(["--runs", "1", "--warm-up", "0", "--cache", "cold", "--until-timer", "--timeout", "30s"]);
    finish(command.args(["--json", text(&json), "--no-digest"])).code(0).shows("cold hvm");
    let record = read(&json);
    assert!(record["image"]["sha256"].is_null());
    let runs = record["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 1);
    assert!(runs[0]["events"].as_array().unwrap().iter().any(|e| e["name"] == "boot_timer" && e["value"] == 123));
}

#[test]
fn runs_that_fail_are_counted_and_not_averaged() {
    let bench = Bench::new();
    let json = bench.world.path("boot.json");
    let words = ["--modes", "pv,hvm", "--runs", "3", "--warm-up", "1", "--cache", "warm", "--json", text(&json)];
    // This firmware is none.
    let none = bench.world.file("none.rom", "x");
    let ended = bench.run(&[&words[..], &["--firmware-bios", text(&none)]].concat()).code(1);
    let ended = ended.says(&["warm hvm, warm-up: failed: --firmware", "the rest of its runs are left out"]);
    let ended = ended.shows("warm hvm: 1 of 1 run failed and do not count; run 4: --firmware");
    assert!(ended.stdout.contains("pv (3 runs)"), "{}", ended.stdout);
    let record = read(&json);
    assert_eq!(record["runs"].as_array().unwrap().len(), 6);
    assert_eq!(record["figures"].as_array().unwrap().len(), 1);

    // A boot that takes too long.
    let mut command = bench.world.amiboot();
    command.args(["bench", "boot"]).arg(&bench.disk).args(["--modes", "hvm", "--firmware-bios", text(&bench.rom)]);
    command.args(["--until", "never", "--timeout", "300ms", "--runs", "1", "--warm-up", "0", "--cache", "warm"]);
    let ended = finish(&mut command).code(1).says(&["failed: 300ms passed before its console showed /never/"]);
    ended.shows("no run came to its end");
}

#[test]
fn ctrl_c_shows_what_was_measured_so_far() {
    let bench = Bench::new();
    let (json, svg) = (bench.world.path("boot.json"), bench.world.path("boot.svg"));
    // The guest in firmware never comes to an end: the second run is the one that is ended.
    let mut command = bench.world.amiboot();
    command.args(["bench", "boot"]).arg(&bench.disk).args(["--modes", "pv,hvm", "--firmware-bios", text(&bench.rom)]);
    command.args(["--until", r"\|end", "--timeout", "50s", "--runs", "5", "--warm-up", "0", "--cache", "warm"]);
    let running = Running::start(command.args(["--json", text(&json), "--svg", text(&svg)]));
    running.wait_for_said("1 of 10: warm pv: ");
    running.signal(Signal::INT);
    let ended = running.end().code(130).shows("ended before all runs were made");
    assert!(ended.stdout.contains("pv (1 run)"), "{}", ended.stdout);
    let record = read(&json);
    assert_eq!((&record["complete"], record["runs"].as_array().unwrap().len()), (&json!(false), 1));
    assert!(fs::read_to_string(&svg).unwrap().contains("ended before all runs were made"));
    assert_eq!(bench.world.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn two_measurements_are_compared() {
    let bench = Bench::new();
    let (a, b) = (bench.world.path("a.json"), bench.world.path("b.json"));
    bench.run(&["--modes", "pv", "--runs", "5", "--cache", "warm", "--json", text(&a)]).code(0);
    // The same, but for what took twice as long.
    let mut record = read(&a);
    record["host"]["kernel"] = "5.10.0".into();
    for run in record["runs"].as_array_mut().unwrap() {
        for event in run["events"].as_array_mut().unwrap() {
            event["wall_ms"] = (event["wall_ms"].as_f64().unwrap() * 10.0).into();
        }
    }
    fs::write(&b, record.to_string()).unwrap();
    let compare =
        |a: &Path, b: &Path| finish(bench.world.amiboot().args(["bench", "boot", "--compare", text(a), text(b)]));
    let ended = compare(&a, &b).code(0);
    for part in
        ["warm pv", "10.00 ×", "real", "host kernel differs:", "5.10.0", "monitor memory", "1.00 ×", "not shown"]
    {
        assert!(ended.stdout.contains(part), "{part}: {}", ended.stdout);
    }
    fs::write(&b, record.to_string().replace("\"wall_ms\":", "\"wall_ms\":-")).unwrap();
    compare(&a, &b).code(1).says(&["b.json: runs[0].events[0].wall_ms: -", "is no time of a boot"]);
    fs::write(&b, "{}").unwrap();
    compare(&b, &a).code(1).says(&["b.json", "it is no file of `amiboot bench boot --json`"]);
    compare(&a, &bench.world.path("none.json")).code(1).says(&["none.json: No such file"]);
}

#[test]
fn wrong_words_are_named() {
    let bench = Bench::new();
    let missing = bench.world.path("missing.raw");
    for (words, code, said) in [
        (&["--modes", "xen"][..], 2, "--modes"),
        (&["--runs", "0"], 2, "--runs"),
        (&["--runs", "100000"], 2, "--runs"),
        (&["--until-timer"], 2, "--until-timer"),
        (&["--no-digest"], 2, "--json"),
        (&["--modes", "hvm", "--append", "x"], 1, "--append: none of --modes has that; add pv"),
        (&["--modes", "pv", "--disk", "nvme"], 1, "--disk: none of --modes has that; add hvm"),
        (&["--json", "/nonexistent/a.json"], 1, "--json /nonexistent/a.json: there is no directory"),
        (&["--svg", "/"], 1, "--svg /: it is a directory"),
        (&["--bdm", "nonsense", "--modes", "pv", "--runs", "1"], 1, "nonsense"),
    ] {
        let ended = bench.run(words).code(code);
        assert!(ended.stderr.contains(said), "{words:?}: {ended:?}");
    }
    let amiboot = |words: &[&str]| finish(bench.world.amiboot().args(["bench", "boot"]).args(words));
    amiboot(&[]).code(2).says(&["<IMAGE>"]);
    amiboot(&[text(&missing)]).code(1).says(&["missing.raw: No such file"]);
    let help = amiboot(&["--help"]).code(0).stdout;
    assert!(help.contains("boot loader") && help.contains("the firmware enters the boot loader"), "{help}");
}
