//! The console: what goes in and comes out, whatever standard input and output are.

mod support;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use rustix::termios::{OptionalActions, tcsetattr};
use support::pty::{Pty, modes};
use support::{Running, World, finish, quoted, wait_until};

/// More than the monitor may take beside what it takes for a guest that says little, in bytes.
const GROWTH: u64 = 4 << 20;

#[test]
fn a_guest_gets_what_is_typed() {
    let world = World::new();
    let mut running = Running::start(world.run("echo").stdin(Stdio::piped()));
    running.wait_for("type");
    running.write(b"hello");
    running.wait_for("HELLO");
    running.write(b" again q");
    assert_eq!(running.end().code(0).stdout, "type\r\nHELLO AGAIN ");
}

#[test]
fn much_input_arrives_whole_and_in_order() {
    let world = World::new();
    let text: String = (0..2000).map(|n| format!("{n};")).collect();
    let input = world.file("input", format!("{text}q"));
    let ended = finish(world.run("echo").stdin(File::open(&input).unwrap())).code(0);
    assert_eq!(ended.stdout, format!("type\r\n{text}"));
}

#[test]
fn the_end_of_the_input_is_not_the_end_of_the_run() {
    let world = World::new();
    for input in ["", "abc"] {
        let mut run = world.run("echo");
        let mut running = Running::start(run.args(["--until", "never", "--grace", "1ms"]).stdin(Stdio::piped()));
        running.write(input.as_bytes());
        running.close_input();
        running.wait_for(&input.to_uppercase());
        running.wait_for("type");
        running.signal(Signal::TERM);
        running.end().code(1);
    }
}

/// As a shell starts `COMMAND <&- >&-`.
fn with_closed(mut command: Command, descriptors: &'static [i32]) -> Command {
    let close = move || {
        for fd in descriptors {
            // SAFETY: nothing in the child uses the descriptor before it executes the program.
            unsafe { libc::close(*fd) };
        }
        Ok(())
    };
    // SAFETY: close() may be called between fork and exec (signal-safety(7)).
    unsafe { command.pre_exec(close) };
    command
}

#[test]
fn closed_streams_do_no_harm() {
    let world = World::new();
    let ended = finish(&mut with_closed(world.run("hello"), &[0])).code(0);
    assert_eq!(ended.stdout, "hello from the guest\r\n");
    finish(&mut with_closed(world.run("hello"), &[1])).code(0);
    finish(&mut with_closed(world.run("triple"), &[2])).code(125);
    let until = |mut run: Command| {
        run.args(["--until", "ready"]);
        run
    };
    finish(&mut with_closed(until(world.run("halt")), &[0, 1, 2])).code(0);
    // What the program opened instead of them must not have got their numbers: nothing was written to a file.
    assert_eq!(fs::read(world.blank_disk()).unwrap(), vec![0; 1 << 20]);
}

#[test]
fn output_goes_to_a_file() {
    let world = World::new();
    let path = world.path("console.log");
    let mut run = world.run("hello");
    run.stdout(File::create(&path).unwrap());
    Running::start_as_it_is(&mut run).end().code(0);
    assert_eq!(fs::read_to_string(path).unwrap(), "hello from the guest\r\n");
}

#[test]
fn a_full_disk_does_not_end_the_run_and_is_told() {
    let world = World::new();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let mut run = world.run("triple");
    run.stdout(full()).stderr(Stdio::piped());
    let says = ["No space left on device", "the rest of the console is not shown", "triple fault", "  last words"];
    Running::start_as_it_is(&mut run).end().code(125).says(&says);
    let mut look = world.amiboot();
    look.args(["image", "inspect"]).arg(world.blank_disk()).stdout(full()).stderr(Stdio::piped());
    Running::start_as_it_is(&mut look).end().code(1).says(&["standard output", "No space left"]);
}

#[test]
fn a_flood_that_is_read_arrives_whole_and_in_little_memory() {
    let world = World::new();
    let running = Running::start(world.run("flood").args(["--grace", "1ms"]));
    let line = "all work and no play makes a dull guest\r\n";
    running.wait_for_bytes(4 << 10);
    let before = running.resident();
    running.wait_for_bytes(200 << 10);
    assert!(running.resident() < before + GROWTH, "{} bytes, before {before}", running.resident());
    running.signal(Signal::TERM);
    let ended = running.end().code(1);
    let whole = line.repeat(ended.stdout.len() / line.len() + 1);
    assert!(whole.starts_with(&ended.stdout));
}

/// A flood into a pipe that nobody reads, and both ends of that.
fn stuck_flood(world: &World, words: &[&str]) -> (Running, io::PipeReader, io::PipeWriter) {
    let (reader, writer) = io::pipe().unwrap();
    let mut run = world.run("flood");
    run.args(words).stdout(writer.try_clone().unwrap()).stderr(Stdio::piped());
    (Running::start_as_it_is(&mut run), reader, writer)
}

/// Waits until nothing more can be written.
fn wait_until_full(writer: &io::PipeWriter) {
    let now = Timespec::default();
    wait_until("a full pipe", || poll(&mut [PollFd::new(writer, PollFlags::OUT)], Some(&now)).unwrap() == 0);
}

#[test]
fn a_flood_that_nobody_reads_can_be_ended() {
    let world = World::new();
    let (running, reader, writer) = stuck_flood(&world, &["--grace", "10ms"]);
    wait_until_full(&writer);
    let before = running.resident();
    running.signal(Signal::TERM);
    running.wait_for_said("power button");
    assert!(running.resident() < before + GROWTH);
    running.end().code(1).says(&["ended by a signal"]);
    drop((reader, writer));

    let (running, reader, writer) = stuck_flood(&world, &["--timeout", "4s"]);
    running.end().code(124).says(&["4s passed", "dull guest"]);
    drop((reader, writer));
}

#[test]
fn a_reader_that_goes_away_does_not_end_the_run() {
    let world = World::new();
    let (running, reader, writer) = stuck_flood(&world, &["--grace", "10ms"]);
    wait_until_full(&writer);
    drop(reader);
    running.signal(Signal::TERM);
    running.end().code(1).says(&["ended by a signal"]);

    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut run = world.run("hello");
    run.stdout(writer).stderr(Stdio::piped());
    let ended = Running::start_as_it_is(&mut run).end().code(0);
    assert_eq!(ended.stderr, "");
}

#[test]
fn a_terminal_is_raw_while_the_guest_runs_and_restored_when_it_ends() {
    let world = World::new();
    let mut pty = Pty::open();
    let before = modes(&pty.settings());
    assert!(!pty.is_raw());
    let running = pty.start(&mut world.run("echo"));
    running.wait_for("type");
    assert!(pty.is_raw());
    pty.write(b"a\rb");
    running.wait_for("A\rB");
    // Ctrl-C is the guest's.
    pty.write(b"\x03c");
    running.wait_for("\x03C");
    pty.write(b"q");
    let ended = running.end().code(0);
    assert_eq!(modes(&pty.settings()), before);
    // Nothing was shown twice, as a terminal that echoes would.
    assert!(!ended.stdout.contains('a'), "{ended:?}");
}

#[test]
fn keys_of_the_monitor() {
    let world = World::new();
    let mut pty = Pty::open();
    let before = modes(&pty.settings());
    let running = pty.start(&mut world.run("echo"));
    running.wait_for("type");
    pty.write(b"\x01");
    pty.write(b"h");
    running.wait_for("Ctrl-a x");
    pty.write(b"\x01\x01z");
    running.wait_for("\x01Z");
    pty.write(b"\x01x");
    // On a line of its own, though the guest's has not ended.
    running.end().code(0).shows("\x01Z\r\namiboot: machine ended");
    assert_eq!(modes(&pty.settings()), before);
}

#[test]
fn a_terminal_is_restored_after_signals_crashes_and_the_pattern() {
    let world = World::new();
    for (guest, words, signal, code) in [
        ("halt", &["--grace", "10ms"][..], Some(Signal::TERM), 1),
        ("halt", &["--grace", "10ms"], Some(Signal::INT), 1),
        ("halt", &["--grace", "10ms"], Some(Signal::QUIT), 1),
        ("halt", &["--grace", "10ms"], Some(Signal::HUP), 1),
        ("halt", &["--until", "ready"], None, 0),
        ("halt", &["--timeout", "300ms"], None, 124),
        ("triple", &[], None, 125),
    ] {
        let mut pty = Pty::open();
        let before = modes(&pty.settings());
        let running = pty.start(world.run(guest).args(words));
        if let Some(signal) = signal {
            running.wait_for("ready");
            assert!(pty.is_raw());
            running.signal(signal);
        }
        let ended = running.end().code(code);
        assert_eq!(modes(&pty.settings()), before, "{ended:?}");
    }
}

#[test]
fn what_cannot_be_run_leaves_the_terminal_alone() {
    let world = World::new();
    let mut pty = Pty::open();
    let before = modes(&pty.settings());
    let running = pty.start(world.run("hello").args(["--cpus", "999"]));
    running.end().code(1).shows("--cpus");
    assert_eq!(modes(&pty.settings()), before);
}

#[test]
fn a_flood_on_a_terminal_that_shows_nothing_can_be_ended() {
    let world = World::new();
    let pty = Pty::open();
    let run = quoted(world.run("flood").args(["--timeout", "2s"]));
    let running = pty.start_unfollowed(&mut world.shell(&format!("exec {run} 2> /dev/null")));
    // Nobody reads: the kernel takes some, and then no more.
    running.end().code(124);
}

/// Whether a process is in a state (proc(5), the third field of `stat`).
fn is_in_state(running: &Running, state: char) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", running.pid().as_raw_nonzero())).unwrap();
    stat.rsplit(") ").next().unwrap().starts_with(state)
}

fn is_stopped(running: &Running) -> bool {
    is_in_state(running, 'T')
}

#[test]
fn a_report_that_nobody_reads_can_be_ended() {
    let world = World::new();
    let pipe = world.path("pipe");
    support::disks::tool("coreutils", "mkfifo", &[support::disks::text(&pipe)]);
    let running = Running::start(world.run("hello").arg("--boot-report").arg(&pipe));
    running.wait_for("hello from the guest");
    // The first may come while the guest still runs.
    wait_until("the end", || {
        running.signal(Signal::TERM);
        is_in_state(&running, 'Z')
    });
    assert_eq!(running.end().code, None);
}

#[test]
fn a_run_that_is_stopped_leaves_the_terminal_and_takes_it_again() {
    let world = World::new();
    let mut pty = Pty::open();
    let before = pty.settings();
    let running = pty.start(&mut world.run("echo"));
    running.wait_for("type");
    assert!(pty.is_raw());
    running.signal(Signal::TSTP);
    wait_until("the stop", || is_stopped(&running));
    assert_eq!(modes(&pty.settings()), modes(&before));
    running.signal(Signal::CONT);
    wait_until("a raw terminal", || pty.is_raw());

    // This one cannot be seen coming: the shell puts the terminal in order.
    running.signal(Signal::STOP);
    wait_until("the stop", || is_stopped(&running));
    tcsetattr(&pty.master, OptionalActions::Now, &before).unwrap();
    running.signal(Signal::CONT);
    wait_until("a raw terminal", || pty.is_raw());
    pty.write(b"aq");
    running.end().code(0).shows("A");
    assert_eq!(modes(&pty.settings()), modes(&before));
}

#[test]
fn a_limit_of_file_sizes_is_an_error_and_not_the_end() {
    let world = World::new();
    let run = quoted(&world.run("hello"));
    finish(&mut world.shell(&format!("ulimit -f 0; exec {run}"))).code(1).says(&["File too large"]);
}

#[test]
fn a_terminal_that_goes_away_ends_the_run() {
    let world = World::new();
    let pty = Pty::open();
    let running = pty.start_unfollowed(world.run("halt").args(["--grace", "50ms"]));
    let mut shown = Vec::new();
    while !shown.ends_with(b"ready") {
        let mut byte = [0];
        (&pty.master).read_exact(&mut byte).unwrap();
        shown.push(byte[0]);
    }
    assert!(pty.is_raw());
    // It closes the person's side: the kernel hangs up.
    drop(pty);
    running.end().code(1);
}

#[test]
fn a_job_in_the_background_does_not_take_what_is_typed() {
    let world = World::new();
    let mut pty = Pty::open();
    let before = modes(&pty.settings());
    // A shell with a job, which lets a line be typed before it reads, so that the job has the time to be tempted.
    let job = quoted(world.run("echo").args(["--timeout", "1s"]));
    let script = format!("set -m; {job} & wait $!; echo \"job ended $?\"; read line; echo \"shell read $line\"");
    let running = pty.start(&mut world.shell(&script));
    running.wait_for("type");
    assert!(!pty.is_raw());
    pty.write(b"abc\n");
    running.wait_for("job ended 124");
    running.wait_for("shell read abc");
    running.end().code(0);
    assert_eq!(modes(&pty.settings()), before);
}
