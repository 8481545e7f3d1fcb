//! HVM machines with tiny firmware of our own: what a whole PC answers, to friend and foe.

mod support;

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use support::{World, finish, quoted};

#[test]
fn firmware_starts_at_the_reset_vector_and_its_debug_text_goes_to_a_file() {
    let world = World::new();
    let log = world.path("firmware.log");
    let ended = finish(world.run_rom("hello").arg("--firmware-log").arg(&log)).code(0);
    assert_eq!(ended.stdout, "hello from the ROM\r\n");
    assert_eq!(fs::read_to_string(log).unwrap(), "hello from the ROM\r\n");
    assert_eq!(world.leftovers(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_pc_is_reset_in_each_of_its_ways() {
    let world = World::new();
    for way in ["reset_keyboard", "reset_port_92", "reset_port_cf9"] {
        finish(&mut world.run_rom(way)).code(0).shows("start").says(&["the guest restarted"]);
    }
    finish(&mut world.run_rom("triple")).code(125).says(&["triple fault", "start"]);
}

#[test]
fn a_reset_starts_the_firmware_again() {
    let world = World::new();
    let mut command = world.amiboot();
    let rom = world.firmware("rom/reset_port_92", "reset.rom");
    command.arg("run").arg(world.blank_disk()).args(["--mode", "hvm", "--until", "(?s)start.*start.*start"]);
    finish(command.arg("--firmware").arg(rom)).code(0);
}

#[test]
fn the_clock_shows_the_hosts_time_in_utc() {
    let world = World::new();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 60;
    let before = now();
    let shown = finish(&mut world.run_rom("clock")).code(0).stdout;
    let after = now();
    let digits = |name: &str| {
        let line = shown.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {shown}"));
        line.trim().parse::<u64>().unwrap()
    };
    let (date, time) = (digits("date="), digits("time="));
    let minutes = days_since_1970(date / 10_000, date / 100 % 100, date % 100) * 1440 + time / 100 * 60 + time % 100;
    assert!((before..=after).contains(&minutes), "{minutes} is not in {before}..={after}: {shown}");
}

/// Of a date in the Gregorian calendar.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let lengths = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let years: u64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    let months: u64 = lengths.iter().take(usize::try_from(month).unwrap() - 1).sum();
    years + months + day - 1
}

/// ROM that is written to, configuration space out of range, registers moved over memory, DMA to nowhere, queues outside
/// memory, doorbells of queues that are not, every port read: what is shown is what hardware does, and the machine and the
/// monitor live on.
#[test]
fn a_hostile_firmware_gets_what_hardware_gives() {
    let world = World::new();
    let ended = finish(world.run_rom("hostile").args(["--disk", "nvme"])).code(0);
    let expected = [
        "rom_changed_by=00000000",
        "no_function=ffffffff",
        "no_bus=ffffffff",
        "not_enabled=ffffffff",
        "host_bridge=12378086",
        "over_the_end=0000ffff",
        "memory_under_bar=12345678",
        "written_under_bar=00000000",
        "rom_under_bar=00000000",
        "dma_nowhere=01000000",
        "dma_wrapping=01000000",
        "nvme_version=00010400",
        "nvme_status_after=00000000",
        "alive",
    ];
    assert_eq!(ended.stdout.lines().map(str::trim_end).collect::<Vec<_>>(), expected, "{ended:?}");
    ended.says(&["cannot be enabled with admin queues at 0x7ffffffffffff000"]);
}

#[test]
fn a_processor_that_waits_takes_no_time_of_the_hosts() {
    let world = World::new();
    let mut command = world.run_rom("halt");
    command.args(["--timeout", "3s"]);
    let script = format!("TIMEFORMAT='times %R %U %S'; time {}", quoted(&command));
    let ended = finish(&mut world.shell(&script)).code(124).shows("ready");
    let line = ended.stderr.lines().find_map(|line| line.strip_prefix("times ")).unwrap();
    let times: Vec<f64> = line.split(' ').map(|part| part.parse().unwrap()).collect();
    let [wall, user, system] = times[..] else { panic!("{line}") };
    // A processor that spins takes all of the time; a busy host makes the wall time longer, and no more.
    assert!(user + system < wall / 2.0, "{line}");
}
