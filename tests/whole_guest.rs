//! Whole guests: stock Debian kernels and systems, in the test machine (`tools/testbed`).
//!
//! `tools/test` runs these with `--features whole-guest`. Each test is one nested host; the tiny image's tasks (`do=...`)
//! are in `resources/guest/tiny-do`.

mod support;

#[path = "whole_guest/agent.rs"]
mod agent;
#[path = "whole_guest/api.rs"]
mod api;
#[path = "whole_guest/firmware.rs"]
mod firmware;
#[path = "whole_guest/full_disk.rs"]
mod full_disk;
#[path = "whole_guest/hotplug.rs"]
mod hotplug;
#[path = "whole_guest/hvm.rs"]
mod hvm;
#[path = "whole_guest/lifecycle.rs"]
mod lifecycle;
#[path = "whole_guest/ssh.rs"]
mod ssh;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::testbed::{Done, ami, run, run_with};

/// Boots the demonstration disk to its login prompt.
fn reaches_login(disk: &Path, name: &str, options: &str) -> Done {
    let script =
        format!("amiboot run $FILES/{name} {options} --until 'login:' --timeout 400s --boot-report $OUT/report.json");
    let done = run(&[(name, disk)], 500, &script);
    done.succeeded();
    done.shows("login:");
    let report = done.json("report.json");
    assert_eq!(report["outcome"], "until-matched");
    assert_eq!(report["starts"], 1);
    let names: Vec<&str> = report["events"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
    let at = |name| names.iter().position(|n| *n == name).unwrap_or_else(|| panic!("{name} is not among {names:?}"));
    assert!(at("kernel_ready") < at("first_instruction"));
    assert!(at("first_instruction") < at("first_console_byte"));
    assert!(at("init_started") < at("until_matched"));
    assert!(report["memory"]["guest_bytes"].as_u64().unwrap() > 0);
    assert!(report["memory"]["monitor_bytes"].as_u64().unwrap() > 0);
    done
}

#[test]
fn debian_on_gpt_reaches_login_on_one_processor() {
    reaches_login(&ami("debian-12"), "debian.raw", "--cpus 1");
}

#[test]
fn debian_in_a_qcow2_file_reaches_login_on_four_processors() {
    let raw = ami("debian-12");
    let dir = tempfile::tempdir().unwrap();
    let qcow2 = dir.path().join("debian.qcow2");
    let converted = Command::new("qemu-img").args(["convert", "-O", "qcow2"]).arg(&raw).arg(&qcow2).status();
    assert!(converted.expect("qemu-img (Debian package qemu-utils)").success());
    reaches_login(&qcow2, "debian.qcow2", "--cpus 4");
}

#[test]
fn debian_without_a_partition_table_reaches_login() {
    let done = reaches_login(&ami("debian-12-pv"), "pv.raw", "");
    let report = done.json("report.json");
    let origin = report["kernel"]["origin"].as_str().unwrap();
    assert!(origin.contains("menu.lst"), "{origin}");
}

#[test]
fn a_32_bit_debian_reaches_login() {
    let done = reaches_login(&ami("debian-12-i386"), "i386.raw", "");
    let report = done.json("report.json");
    assert!(report["kernel"]["version"].as_str().unwrap().contains("686"), "{report}");
}

fn tiny(script: &str) -> Done {
    tiny_with(&[], script)
}

/// Runs a script with the tiny image as `$FILES/tiny.raw`, and with `set -e`.
fn tiny_with(options: &[&str], script: &str) -> Done {
    let image = ami("tiny");
    // What ran and its exit code are shown.
    let functions = "boot() { t=$1; shift; amiboot run $FILES/tiny.raw --append \"do=$t\" --timeout 120s \"$@\"; \
                     echo \"$t: exit=$?\"; }; ";
    run_with(options, &[("tiny.raw", &image)], 400, &format!("{functions} {script}"))
}

/// The part of the text from a run's beginning to its exit code.
#[track_caller]
fn assert_exit(done: &Done, task: &str, code: i32) {
    done.shows(&format!("{task}: exit={code}"));
}

#[test]
fn every_processor_comes_up_by_each_protocol() {
    // Four processors that wait for one another take for ever on one emulated one.
    let done = tiny_with(
        &["--cpus", "2"],
        "for p in pvh linux bzimage; do boot cpus,poweroff --cpus 4 --memory 256M --protocol $p | sed \"s/^/$p /\"; done",
    );
    for protocol in ["pvh", "linux", "bzimage"] {
        done.shows(&format!("{protocol} tiny: cpus=4"));
        done.shows(&format!("{protocol} tiny: online=0-3"));
        for cpu in 0..4 {
            done.shows(&format!("{protocol} tiny: ran_on={cpu} {cpu}"));
        }
        done.shows(&format!("{protocol} cpus,poweroff: exit=0"));
    }
}

#[test]
fn volumes_follow_the_mapping_and_what_is_flushed_is_kept() {
    let done = tiny(
        "sha256sum $FILES/tiny.raw > before
         truncate -s 32M data.raw; truncate -s 8M ro.raw
         boot write-vdb,poweroff --bdm /dev/sdf=data.raw,persist --bdm /dev/sdg=ro.raw,read-only --bdm /dev/sdh=16M \
              --bdm sdi=ephemeral0,size=24M
         boot read-vdb,poweroff --bdm /dev/sdf=data.raw
         head -c 16777216 data.raw | sha256sum | cut -c1-64 | sed 's/^/on_the_host=/'
         sha256sum -c before && echo root_is_the_same",
    );
    done.shows("root_is_the_same");
    done.shows("exit=0");
    let digests: Vec<&str> = done
        .text
        .lines()
        .filter_map(|l| l.trim_end().split_once("digest=vdb ").map(|(_, d)| d).or(l.strip_prefix("on_the_host=")))
        .collect();
    assert_eq!(digests.len(), 3, "{}", done.text);
    assert!(digests.iter().all(|d| *d == digests[0]), "{digests:?}");
    let disk = |name: &str| {
        let start = format!("tiny: disk={name} ");
        let line =
            done.text.lines().find(|l| l.starts_with(&start)).unwrap_or_else(|| panic!("no {name}:\n{}", done.text));
        line.to_owned()
    };
    for (name, sectors, read_only) in [("vdb", 65536, 0), ("vdc", 16384, 1), ("vdd", 32768, 0), ("vde", 49152, 0)] {
        let line = disk(name);
        assert!(line.contains(&format!("sectors={sectors} read_only={read_only} ")), "{line}");
        let serial = line.split("serial=").nth(1).and_then(|s| s.split(' ').next()).unwrap();
        assert!(serial.len() == 20 && serial.starts_with("vol0"), "{line}");
    }
}

#[test]
fn what_a_guest_discards_is_free_again_in_the_file() {
    let done = tiny(
        "truncate -s 64M data.raw
         boot write-vdb,poweroff --bdm /dev/sdf=data.raw,persist >/dev/null
         echo \"blocks_before=$(stat -c %b data.raw)\"
         boot discard-vdb,poweroff --bdm /dev/sdf=data.raw,persist
         echo \"blocks_after=$(stat -c %b data.raw)\"
         head -c 33554432 data.raw | tr -d '\\000' | wc -c | sed 's/^/left=/'",
    );
    let number = |name: &str| {
        let line =
            done.text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_else(|| panic!("{name}:\n{}", done.text));
        line.trim().parse::<u64>().unwrap()
    };
    assert!(number("blocks_before=") >= (16 << 20) / 512);
    assert!(number("blocks_after=") < number("blocks_before=") / 2);
    assert_eq!(number("left="), 0);
}

#[test]
fn many_processes_read_back_what_they_wrote() {
    let done = tiny(
        "truncate -s 32M a.raw
         boot io,poweroff --cpus 2 --bdm /dev/sdf=a.raw,persist
         boot io,poweroff --cpus 2 --bdm /dev/sdf=a.raw",
    );
    assert_eq!(done.text.matches("tiny: io=vdb done").count(), 2, "{}", done.text);
    assert!(!done.text.contains("io error"), "{}", done.text);
}

#[test]
fn the_root_is_kept_only_with_persist() {
    let done = tiny(
        "boot write-root,poweroff
         boot read-root,poweroff | sed 's/^/after_a_plain_run /'
         boot write-root,poweroff --persist
         boot read-root,poweroff | sed 's/^/after_persist /'",
    );
    done.shows("after_a_plain_run tiny: written=none");
    let kept = done.text.lines().find(|l| l.starts_with("after_persist tiny: written=")).unwrap_or_default();
    assert!(!kept.contains("none") && kept.trim_end().len() > 64, "{}", done.text);
}

#[test]
fn a_layer_leaves_nothing_even_after_kill_9() {
    let done = tiny(
        "mkdir scratch; export TMPDIR=$PWD/scratch
         amiboot run $FILES/tiny.raw --append 'do=write-root,sleep' >console & pid=$!
         until grep -q 'tiny: written=' console; do kill -0 $pid || break; sleep 0.2; done
         echo \"names_while_running=$(ls -A scratch | wc -l)\"
         kill -9 $pid; wait $pid
         echo \"names_afterwards=$(ls -A scratch | wc -l)\"; grep written console",
    );
    done.shows("names_while_running=0");
    done.shows("names_afterwards=0");
    done.shows("tiny: written=");
}

#[test]
fn two_runs_of_one_file_at_once_are_fine_and_two_that_keep_it_are_refused() {
    let done = tiny(
        "amiboot run $FILES/tiny.raw --append do=sleep >one & one=$!
         amiboot run $FILES/tiny.raw --append do=sleep >two & two=$!
         for f in one two; do until grep -q 'tiny: ready' $f; do kill -0 $one $two || break; sleep 0.2; done; done
         grep -c 'tiny: ready' one two
         amiboot run $FILES/tiny.raw --persist --append do=poweroff; echo persist_beside_them=$?
         kill $one $two; kill $one $two; wait
         amiboot run $FILES/tiny.raw --persist --append do=sleep >three & three=$!
         until grep -q 'tiny: ready' three; do kill -0 $three || break; sleep 0.2; done
         amiboot run $FILES/tiny.raw --persist --append do=poweroff; echo second_persist=$?
         kill -9 $three; wait
         boot poweroff --persist",
    );
    done.shows("one:1");
    done.shows("two:1");
    done.shows("persist_beside_them=1");
    done.shows("second_persist=1");
    assert_exit(&done, "poweroff", 0);
}

#[test]
fn restarts_power_off_and_the_power_button() {
    let done = tiny(
        "amiboot run $FILES/tiny.raw --append do=reboot --timeout 200s >again & pid=$!
         until [ $(grep -c 'tiny: ready' again) -ge 2 ]; do kill -0 $pid || break; sleep 0.2; done
         grep -c 'tiny: ready' again | sed 's/^/starts=/'; kill $pid; kill $pid; wait $pid
         boot reboot --no-reboot
         amiboot run $FILES/tiny.raw --append do=wait-powerbutton,poweroff --grace 100s >button & pid=$!
         until grep -q 'waiting for the power button' button; do kill -0 $pid || break; sleep 0.2; done
         kill -TERM $pid; wait $pid; echo \"button: exit=$?\"; cat button",
    );
    let starts = done.text.lines().find_map(|l| l.strip_prefix("starts=")).unwrap_or("0");
    assert!(starts.parse::<u32>().unwrap() >= 2, "{}", done.text);
    assert_exit(&done, "reboot", 0);
    done.shows("power button pressed");
    assert_exit(&done, "button", 0);
}

#[test]
fn crashes_are_told_with_the_last_lines() {
    let done = tiny("boot panic; boot oops-init; boot triple; boot panic --append panic=-1 --no-reboot");
    done.shows("panic: exit=125");
    done.shows("oops-init: exit=125");
    done.shows("triple: exit=125");
    assert_eq!(done.text.matches("panic: exit=125").count(), 2, "{}", done.text);
    done.shows("its kernel panicked");
    done.shows("triple fault");
    done.shows("the last lines of its console");
}

#[test]
fn a_flood_that_nobody_reads_does_not_grow_the_monitor() {
    // The emulated host itself has been seen to stand still in this test with one processor.
    let done = tiny_with(
        &["--cpus", "2"],
        "mkfifo pipe; sleep 1000 <pipe & reader=$!
         amiboot run $FILES/tiny.raw --memory 128M --append do=flood-forever --timeout 40s \
             --boot-report $OUT/report.json >pipe
         echo \"flood: exit=$?\"; kill $reader",
    );
    assert_exit(&done, "flood", 124);
    let monitor = done.json("report.json")["memory"]["monitor_bytes"].as_u64().unwrap();
    assert!(monitor < 16 << 20, "{monitor} bytes");
}

#[test]
fn randomness_comes_from_the_host() {
    let done = tiny("boot rng,poweroff --cpus 1");
    done.shows("tiny: rng=virtio_rng");
    done.shows("tiny: random=");
}

#[test]
fn more_memory_than_fits_below_the_gap_is_all_there() {
    let done = tiny_with(&["--memory", "6144"], "boot poweroff --memory 5G");
    let kib = done.text.lines().find_map(|l| l.strip_prefix("tiny: memory_kib=")).unwrap_or_default();
    assert!(kib.trim().parse::<u64>().unwrap_or(0) > 4_800_000, "{}", done.text);
}

#[test]
fn the_second_boot_takes_the_kernel_from_the_cache() {
    let done = tiny("boot poweroff --boot-report $OUT/first.json; boot poweroff --boot-report $OUT/second.json");
    let ready = |name: &str| {
        let report = done.json(name);
        let event = report["events"].as_array().unwrap().iter().find(|e| e["name"] == "kernel_ready").unwrap().clone();
        (event["cpu_ms"].as_f64().unwrap(), report["kernel"].clone())
    };
    let (first, second) = (ready("first.json"), ready("second.json"));
    assert_eq!(first.1, second.1);
    // Not a matter of speed: unpacking 50 MB takes many times what finding it does, on any machine.
    assert!(second.0 < first.0 / 2.0, "{} ms after {} ms", second.0, first.0);
}

#[test]
fn unpartitioned_and_bls_disks_boot_too() {
    for name in ["tiny-pv", "tiny-bls"] {
        let image: PathBuf = ami(name);
        let done = run(
            &[("disk.raw", &image)],
            200,
            "amiboot run $FILES/disk.raw --append do=poweroff --timeout 120s; echo \"exit=$?\"",
        );
        done.shows("tiny: ready");
        done.shows("exit=0");
    }
}
