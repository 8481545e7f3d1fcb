//! `--boot-report`, and what it shows of the cache.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::disks::text;
use support::{Running, World, finish, names_in, wait_until};

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn names(report: &Value) -> Vec<&str> {
    report["events"].as_array().unwrap().iter().map(|event| event["name"].as_str().unwrap()).collect()
}

#[test]
fn what_happened_in_order_and_the_memory_it_took() {
    let world = World::new();
    let path = world.path("report.json");
    finish(world.run("hello").args(["--memory", "64M", "--cpus", "2", "--boot-report", text(&path)])).code(0);
    let report = read(&path);
    assert_eq!(report["mode"], "pv");
    assert_eq!(report["image"], text(&world.path("blank.raw")));
    assert_eq!(report["machine"]["memory"], 64 << 20);
    assert_eq!(report["machine"]["cpus"], 2);
    assert_eq!(report["kernel"]["kernel"], text(&world.path("hello")));
    assert_eq!(report["kernel"]["cmdline"], "console=ttyS0");
    assert_eq!(report["outcome"], "powered-off");
    assert_eq!(report["exit_code"], 0);
    assert_eq!(report["starts"], 1);
    let expected = [
        "configuration_read",
        "image_inspected",
        "kernel_ready",
        "vm_created",
        "memory_ready",
        "devices_ready",
        "first_instruction",
        "first_console_byte",
        "power_off",
    ];
    assert_eq!(names(&report), expected);
    for clock in ["wall_ms", "cpu_ms"] {
        let times: Vec<f64> = report["events"].as_array().unwrap().iter().map(|e| e[clock].as_f64().unwrap()).collect();
        assert!(times[0] > 0.0 && times.is_sorted(), "{clock}: {times:?}");
    }
    assert!(
        report["events"].as_array().unwrap().iter().all(|e| e["what"].as_str().is_some_and(|what| what.len() > 10))
    );
    let memory = |field: &str| report["memory"][field].as_u64().unwrap();
    assert!((4096..64 << 20).contains(&memory("guest_bytes")), "{report:#}");
    // What a debug build takes; the release build's is measured by the benchmark.
    assert!((100 << 10..32 << 20).contains(&memory("monitor_bytes")), "{report:#}");
}

#[test]
fn what_a_linux_guest_shows_is_followed() {
    let world = World::new();
    let path = world.path("report.json");
    finish(world.run("linux").args(["--until", "login: $", "--boot-report", text(&path)])).code(0);
    let report = read(&path);
    assert_eq!(report["outcome"], "until-matched");
    let seen = names(&report);
    let tail: Vec<&str> = seen.iter().copied().skip_while(|name| *name != "first_console_byte").collect();
    assert_eq!(tail.len(), 5, "{seen:?}");
    for name in ["kernel_started", "kernel_banner", "init_started", "until_matched"] {
        assert!(tail.contains(&name), "{seen:?}");
    }
}

#[test]
fn every_end_is_reported() {
    let world = World::new();
    let path = world.path("report.json");
    for (guest, words, code, outcome) in [
        ("triple", &[][..], 125, "crashed"),
        ("panic_reset", &[], 125, "crashed"),
        ("halt", &["--timeout", "100ms"], 124, "timed-out"),
        ("hello", &["--until", "login"], 1, "until-missed"),
        ("reset", &["--no-reboot"], 0, "restarted"),
    ] {
        finish(world.run(guest).args(words).args(["--boot-report", text(&path)])).code(code);
        let report = read(&path);
        assert_eq!(report["outcome"], outcome);
        assert_eq!(report["exit_code"], code);
    }
    assert!(names_in(&world.path("")).iter().all(|path| !text(path).contains(".amiboot-report")));
}

#[test]
fn starts_are_counted() {
    let world = World::new();
    let path = world.path("report.json");
    let three = r"(?s)another start.*another start.*another start";
    let running = Running::start(world.run("reset").args(["--until", three, "--boot-report", text(&path)]));
    running.end().code(0);
    assert_eq!(read(&path)["starts"], 3);
}

#[test]
fn a_report_replaces_a_file_and_goes_through_a_pipe() {
    let world = World::new();
    let path = world.file("report.json", "what was there before".repeat(1000));
    finish(world.run("hello").args(["--boot-report", text(&path)])).code(0);
    assert_eq!(read(&path)["exit_code"], 0);
    let ended = finish(world.run("hello").args(["--boot-report", "/dev/stdout"])).code(0);
    let json = ended.stdout.strip_prefix("hello from the guest\r\n").unwrap();
    assert_eq!(serde_json::from_str::<Value>(json).unwrap()["outcome"], "powered-off");
}

#[test]
fn the_second_boot_of_an_unchanged_disk_looks_nothing_up_again() {
    let world = World::new();
    let (disk, path) = (world.pv_image("root.raw"), world.path("report.json"));
    let boot = || {
        finish(world.amiboot().arg("run").arg(&disk).args(["--boot-report", text(&path)])).code(0).shows("|end");
        read(&path)
    };
    let (blobs, index) = (world.cache().join("blobs"), world.cache().join("index"));
    let kept = || names_in(&index).first().map(|entry| fs::read_to_string(entry).unwrap()).unwrap_or_default();
    // A disk that has just been written is not trusted to show the next change by its times.
    let boot_until_kept = || {
        wait_until("an entry in the cache", || {
            boot();
            kept().contains("Tiny")
        });
    };
    let first = boot();
    assert_eq!(first["kernel"]["title"], "Tiny");
    assert_eq!(first["kernel"]["kernel"], "/boot/vmlinuz");
    boot_until_kept();
    let second = boot();
    assert_eq!(second["kernel"], first["kernel"]);
    assert_eq!(names(&second), names(&first));
    assert_eq!((names_in(&blobs).len(), names_in(&index).len()), (1, 1));

    // What is kept is what is taken: a mark in it is seen.
    let entry = &names_in(&index)[0];
    fs::write(entry, kept().replace("Tiny", "Kept")).unwrap();
    assert_eq!(boot()["kernel"]["title"], "Kept");

    // A disk that has been written to is looked at again.
    support::disks::patch(&disk, 0, &[0]);
    assert_eq!(boot()["kernel"]["title"], "Tiny");

    // Damage in the cache costs a look, no more.
    boot_until_kept();
    names_in(&index).iter().for_each(|entry| fs::write(entry, "{").unwrap());
    assert_eq!(boot()["kernel"], first["kernel"]);
    names_in(&blobs).iter().for_each(|blob| fs::remove_file(blob).unwrap());
    assert_eq!(boot()["kernel"], first["kernel"]);
}

#[test]
fn other_wishes_are_not_answered_from_the_cache() {
    let world = World::new();
    let disk = world.pv_image("root.raw");
    let boot = |words: &[&str]| finish(world.amiboot().arg("run").arg(&disk).args(words)).code(0).stdout;
    assert_eq!(boot(&[]), "root=/dev/vda ro console=ttyS0|end\r\n");
    assert_eq!(boot(&["--append", "single"]), "root=/dev/vda ro console=ttyS0 single|end\r\n");
    assert_eq!(boot(&["--cmdline", "a b"]), "a b|end\r\n");
    assert_eq!(boot(&[]), "root=/dev/vda ro console=ttyS0|end\r\n");
    let hello = world.guest("hello");
    assert_eq!(boot(&["--kernel", text(&hello)]), "hello from the guest\r\n");
    // Another kernel in the same place.
    fs::copy(world.guest("cmdline"), &hello).unwrap();
    assert_eq!(boot(&["--kernel", text(&hello)]), "root=/dev/vda ro console=ttyS0|end\r\n");
}

#[test]
fn the_report_as_a_table() {
    let world = World::new();
    let path = world.path("report.json");
    finish(world.run("hello").args(["--boot-report", text(&path)])).code(0);
    let show = |words: &[&str]| {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/show-report"));
        finish(command.args(words))
    };
    let kernel = format!("kernel       {} (ELF, PVH)", text(&world.path("hello")));
    show(&[text(&path)]).code(0).shows("first processor enters the guest").shows(&kernel);
    show(&["--help"]).code(0).shows("Usage: tools/show-report FILE");
    show(&[]).code(2).says(&["--help"]);
    let other = world.file("other.json", "{}");
    show(&[text(&other)]).code(1).says(&[text(&other), "no boot report"]);
    show(&["gone.json"]).code(1).says(&["gone.json", "No such file"]);
}

#[test]
fn the_boot_timer_is_in_the_report_and_can_end_the_run() {
    let world = World::new();
    let path = world.path("report.json");
    finish(world.run("timer").args(["--until-timer", "--boot-report", text(&path)])).code(0).shows("about to be done");
    let report = read(&path);
    assert_eq!(report["outcome"], "until-matched");
    let events = report["events"].as_array().unwrap();
    let values: Vec<u64> = events.iter().filter_map(|event| event["value"].as_u64()).collect();
    assert_eq!(values, [1, 123]);
    let timer: Vec<&Value> = events.iter().filter(|event| event["name"] == "boot_timer").collect();
    assert_eq!(timer.len(), 2);
    assert!(timer[0]["wall_ms"].as_f64() <= timer[1]["wall_ms"].as_f64());

    // A guest that does not write to it.
    let ended = finish(world.run("hello").args(["--until-timer"])).code(1);
    ended.says(&["the guest ended before it wrote to the boot timer"]);
    let ended = finish(world.run("timer").args(["--until", "never", "--timeout", "300ms"])).code(124);
    ended.says(&["before its console showed /never/"]);
}

#[test]
fn an_hvm_guest_shows_its_firmware_and_its_boot_loader() {
    let world = World::new();
    support::require_kvm();
    let (path, rom) = (world.path("report.json"), world.rom());
    let mut command = world.amiboot();
    command.arg("run").arg(world.blank_disk()).args(["--mode", "hvm", "--firmware", text(&rom)]);
    finish(command.args(["--until", "login: ", "--until-timer", "--boot-report", text(&path)])).code(0);
    let report = read(&path);
    assert_eq!((&report["mode"], &report["firmware"]), (&"hvm".into(), &text(&rom).into()));
    let seen = names(&report);
    let at = |name| seen.iter().position(|n| *n == name).unwrap_or_else(|| panic!("{name}: {seen:?}"));
    let order =
        ["first_instruction", "firmware_started", "boot_loader_started", "first_console_byte", "kernel_started"];
    assert!(order.map(at).is_sorted(), "{seen:?}");
    assert!(at("kernel_started") < at("until_matched"));
}
