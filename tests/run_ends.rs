//! How runs end: exit codes, and what is said.

mod support;

use rustix::process::Signal;
use support::{Running, World, finish, quoted};

#[test]
fn a_guest_that_switches_itself_off_ends_well() {
    let world = World::new();
    let ended = finish(&mut world.run("hello")).code(0);
    assert_eq!(ended.stdout, "hello from the guest\r\n");
    assert_eq!(ended.stderr, "");
    assert_eq!(world.leftovers(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_guest_that_resets_restarts() {
    let world = World::new();
    let running = Running::start(world.run("reset").args(["--timeout", "50s", "--grace", "10ms"]));
    running.wait_until("three starts", |shown| shown.matches("another start").count() >= 3);
    running.signal(Signal::TERM);
    // Nobody asked for --no-reboot: that it came between two starts does not make the signal's end a good one.
    running.end().code(1).says(&["ended by a signal"]);
}

#[test]
fn a_jump_to_the_reset_vector_restarts() {
    let world = World::new();
    finish(world.run("reset_vector").arg("--no-reboot")).code(0).says(&["the guest restarted (--no-reboot)"]);
    finish(world.run("reset_vector").args(["--until", "another start\\s+another start"])).code(0);
}

#[test]
fn a_guest_that_resets_is_not_started_again_where_it_is_not_to() {
    let world = World::new();
    let ended = finish(world.run("reset").arg("--no-reboot")).code(0).says(&["the guest restarted (--no-reboot)"]);
    assert_eq!(ended.stdout, "another start\r\n");
}

#[test]
fn the_pattern_ends_a_guest_that_would_run_on() {
    let world = World::new();
    let ended = finish(world.run("halt").args(["--until", "rea.y"])).code(0);
    assert!(ended.stdout.contains("rea"), "{ended:?}");
    assert_eq!(ended.stderr, "");
}

#[test]
fn a_pattern_is_found_over_the_ends_of_lines_and_starts() {
    let world = World::new();
    let pattern = r"start\r\nanother start\r\nanother";
    finish(world.run("reset").args(["--until", pattern])).code(0).shows("another start\r\nanother start");
}

#[test]
fn a_pattern_that_is_shown_last_is_seen_before_the_power_off() {
    let world = World::new();
    finish(world.run("hello").args(["--until", r"guest\r\n$"])).code(0);
}

#[test]
fn a_guest_that_goes_before_the_pattern_has_failed() {
    let world = World::new();
    finish(world.run("hello").args(["--until", "login:"]))
        .code(1)
        .shows("hello from the guest")
        .says(&["the guest ended before its console showed /login:/"]);
}

#[test]
fn the_time_is_up() {
    let world = World::new();
    finish(world.run("halt").args(["--timeout", "500ms", "--until", "login:"])).code(124).says(&[
        "500ms passed before its console showed /login:/",
        "the last lines of its console",
        "  ready",
    ]);
}

#[test]
fn time_without_end_is_no_limit() {
    let world = World::new();
    // More seconds than the clock can count.
    let ever = "18446744073709551615s";
    finish(world.run("hello").args(["--timeout", ever, "--grace", ever])).code(0);
    let running = Running::start(world.run("halt").args(["--grace", ever]));
    running.wait_for("ready");
    running.signal(Signal::TERM);
    running.wait_for_said("power button");
    running.signal(Signal::TERM);
    running.end().code(1);
}

#[test]
fn a_triple_fault_is_a_crash() {
    let world = World::new();
    finish(&mut world.run("triple")).code(125).shows("last words").says(&["triple fault", "  last words"]);
}

#[test]
fn a_panic_that_stands_still_is_a_crash() {
    let world = World::new();
    let ended = finish(&mut world.run("panic")).code(125).says(&["its kernel panicked", "  [    0.500100] CPU: 0"]);
    // All of it is shown, the end of its last line too.
    assert!(ended.stdout.ends_with("exitcode=0x00000100 ]---\r\n"), "{ended:?}");
    assert!(ended.stderr.contains("exitcode=0x00000100 ]---\n"), "{ended:?}");
}

#[test]
fn a_panic_that_resets_is_a_crash() {
    let world = World::new();
    for more in [&[][..], &["--no-reboot"]] {
        finish(world.run("panic_reset").args(more))
            .code(125)
            .shows("Rebooting in 1 seconds")
            .says(&["its kernel panicked", "VFS: Unable to mount root fs"]);
    }
}

#[test]
fn a_panic_without_a_word_is_a_crash() {
    let world = World::new();
    finish(&mut world.run("pvpanic")).code(125).says(&["its kernel panicked", "its console showed nothing"]);
}

#[test]
fn a_panic_before_the_pattern_is_a_crash_and_may_be_the_pattern() {
    let world = World::new();
    finish(world.run("panic").args(["--until", "login:"])).code(125).says(&["its kernel panicked"]);
    finish(world.run("panic").args(["--until", "not syncing"])).code(0);
    finish(world.run("triple").args(["--until", "login:"])).code(125).says(&["triple fault"]);
}

#[test]
fn restarts_leave_nothing_open() {
    let world = World::new();
    let mut run = world.run("reset");
    run.args(["--cpus", "2", "--until", "(?s)(another start.*){40}"]);
    // A few more descriptors than one machine takes.
    finish(&mut world.shell(&format!("ulimit -n 64; exec {}", quoted(&run)))).code(0);
}

#[test]
fn a_signal_presses_the_power_button_and_waits() {
    let world = World::new();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let running = Running::start(world.run("halt").args(["--grace", "200ms"]));
        running.wait_for("ready");
        running.signal(signal);
        running.end().code(1).says(&["power button pressed", "0.2 s", "ended by a signal"]);
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let world = World::new();
    let running = Running::start(world.run("halt").args(["--grace", "1h"]));
    running.wait_for("ready");
    running.signal(Signal::TERM);
    running.wait_for_said("power button pressed");
    running.signal(Signal::INT);
    running.end().code(1).says(&["ended by a signal"]);
}

#[test]
fn a_guest_that_answers_the_signal_with_a_power_off_ends_well() {
    let world = World::new();
    let mut running = Running::start(world.run("echo").args(["--grace", "1h"]).stdin(std::process::Stdio::piped()));
    running.wait_for("type");
    running.signal(Signal::TERM);
    running.wait_for_said("power button pressed");
    // This guest looks at no button; its person does.
    running.write(b"q");
    running.end().code(0);
}

#[test]
fn several_processors_start_and_end() {
    let world = World::new();
    finish(world.run("hello").args(["--cpus", "4"])).code(0).shows("hello");
    finish(world.run("halt").args(["--cpus", "4", "--until", "ready"])).code(0);
}

#[test]
fn words_that_are_off_are_told_from_what_fails() {
    let world = World::new();
    let disk = world.blank_disk();
    let cases: [(&[&str], &str); 10] = [
        (&["--memory", "lots"], "--memory"),
        (&["--memory", "99999999999T"], "--memory"),
        (&["--cpus", "two"], "--cpus"),
        (&["--cpus", "-1"], "-1"),
        (&["--until", "("], "--until"),
        (&["--until", "(((a{100}){100}){100}){100}"], "--until"),
        (&["--timeout", "soon"], "--timeout"),
        (&["--mode", "hypervisor"], "--mode"),
        (&["--format", "vmdk"], "--format"),
        (&["--no-such-option"], "--no-such-option"),
    ];
    for (words, named) in cases {
        finish(world.amiboot().arg("run").arg(&disk).args(words)).code(2).says(&[named]);
    }
    finish(world.amiboot().arg("run")).code(2).says(&["IMAGE"]);
    finish(&mut world.amiboot()).code(2).says(&["Usage"]);
    finish(world.amiboot().arg("fly")).code(2).says(&["fly"]);
    finish(world.amiboot().args(["run", "--help"])).code(0).shows("--boot-report");
}

#[test]
fn the_kernel_gets_the_command_line() {
    let world = World::new();
    finish(&mut world.run("cmdline")).code(0).shows("console=ttyS0|end");
    finish(world.run("cmdline").args(["--append", "one", "--append", " two  "]))
        .code(0)
        .shows("console=ttyS0 one two|end");
    finish(world.run("cmdline").args(["--cmdline", "own words", "--append", "more"]))
        .code(0)
        .shows("own words more|end");
    finish(world.run("cmdline").args(["--cmdline", ""])).code(0).shows("|end");
}

#[test]
fn an_interpreting_kvm_is_refused_unless_it_is_accepted() {
    let world = World::new();
    let is_hardware = amiboot::host::kvm::open().unwrap().kind != amiboot::host::kvm::KvmKind::Interpreting;
    for value in [None, Some(""), Some("0"), Some("false")] {
        let mut run = world.run("hello");
        match value {
            Some(value) => run.env("AMIBOOT_ACCEPT_INTERPRETING_KVM", value),
            None => run.env_remove("AMIBOOT_ACCEPT_INTERPRETING_KVM"),
        };
        let ended = finish(&mut run);
        if is_hardware {
            ended.code(0);
        } else {
            ended.code(1).says(&["/dev/kvm", "interprets", "tools/testbed"]);
        }
    }
    for value in ["1", "true", "yes"] {
        finish(world.run("hello").env("AMIBOOT_ACCEPT_INTERPRETING_KVM", value)).code(0);
    }
}
