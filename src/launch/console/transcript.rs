//! What the console has shown: what is looked for in it, and its last lines.

use std::collections::VecDeque;

use regex::bytes::Regex;

use crate::vmm::devices::debug_text;

/// How much of what was shown before is searched again with what is new, in bytes.
const WINDOW: usize = 4 << 10;
/// Lines kept for a report of a crash.
const LAST_LINES: usize = 25;
/// What is kept of one line, in bytes.
const LINE_MAX: usize = 1 << 10;

/// What was seen for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// The pattern of `--until`, or the boot timer where that is waited for.
    Until,
    /// A boot loader.
    BootLoader,
    /// Any sign of the kernel.
    Kernel,
    /// The kernel's banner.
    KernelBanner,
    /// The first process of the system, or of its initrd, runs.
    InitStarted,
    /// The first process of the system itself runs.
    SystemStarted,
    /// The first line of a kernel panic.
    Panic,
    /// The last line of a kernel panic, whole: the guest stands still.
    PanicEnd,
}

/// Follows the console's output. Memory is bounded whatever the guest writes.
#[derive(Debug, Default)]
pub struct Transcript {
    until: Option<Regex>,
    until_timer: bool,
    window: Vec<u8>,
    line: Vec<u8>,
    last_lines: VecDeque<Vec<u8>>,
    seen: Vec<Sight>,
}

impl Transcript {
    /// Looks for `until` as well, where given.
    #[must_use]
    pub fn new(until: Option<Regex>) -> Self {
        Self { until, ..Self::default() }
    }

    /// Waits for the boot timer as well.
    #[must_use]
    pub fn until_timer(mut self, yes: bool) -> Self {
        self.until_timer = yes;
        self
    }

    /// The guest wrote to the boot timer that its boot is done; gives what came in sight with it.
    pub fn boot_done(&mut self) -> Option<Sight> {
        (self.until_timer && see(&mut self.seen, Sight::Until)).then_some(Sight::Until)
    }

    /// Takes output; gives what came in sight with it.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Sight> {
        let known = self.seen.len();
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                b'\r' => {}
                _ if self.line.len() < LINE_MAX => self.line.push(*byte),
                _ => {}
            }
        }
        self.look_at_line();
        // Last, as the end of a boot comes after what was shown on the way to it.
        self.search(bytes);
        self.seen.get(known..).unwrap_or_default().to_vec()
    }

    fn search(&mut self, bytes: &[u8]) {
        let Some(until) = &self.until else { return };
        self.window.extend_from_slice(bytes);
        if until.is_match(&self.window) {
            see(&mut self.seen, Sight::Until);
        }
        let excess = self.window.len().saturating_sub(WINDOW);
        self.window.drain(..excess);
    }

    fn end_line(&mut self) {
        self.look_at_line();
        // Only now, so that the line is shown to its end.
        if without_timestamp(&self.line).starts_with(b"---[ end Kernel panic - not syncing") {
            see(&mut self.seen, Sight::PanicEnd);
        }
        if self.last_lines.len() == LAST_LINES {
            self.last_lines.pop_front();
        }
        self.last_lines.push_back(std::mem::take(&mut self.line));
    }

    fn look_at_line(&mut self) {
        let text = without_timestamp(&self.line);
        for (sight, is_it) in SIGHTS {
            if is_it(text) {
                see(&mut self.seen, *sight);
            }
        }
    }

    /// Whether the line shown last has not ended.
    #[must_use]
    pub fn is_inside_line(&self) -> bool {
        !self.line.is_empty()
    }

    /// The last lines, oldest first, with nothing in them that a terminal would act on.
    #[must_use]
    pub fn last_lines(&self) -> Vec<String> {
        let current = (!self.line.is_empty()).then_some(&self.line);
        let lines: Vec<String> = self.last_lines.iter().chain(current).map(|line| printable(line)).collect();
        let blank = lines.iter().take_while(|l| l.is_empty()).count();
        lines.into_iter().skip(blank).collect()
    }
}

type IsSight = fn(&[u8]) -> bool;

/// What each sight looks like in a line without its time stamp. The kernel's own lines stand at the beginning of a line,
/// so that a program that quotes one does not end the run.
const SIGHTS: &[(Sight, IsSight)] = &[
    (Sight::BootLoader, is_boot_loader),
    (Sight::Kernel, |line| is_banner(line) || EARLY_KERNEL.iter().any(|text| line.starts_with(text))),
    (Sight::KernelBanner, is_banner),
    (Sight::InitStarted, |line| {
        (line.starts_with(b"Run /") && find(line, b" as init process"))
            || (line.starts_with(b"systemd[1]: systemd ") && find(line, b" running in system mode"))
            || is_welcome(line)
            || is_other_init(line)
    }),
    // A systemd in an initrd welcomes too, but most say that it is one.
    (Sight::SystemStarted, |line| {
        (is_welcome(line) && !find(line, b"initramfs") && !find(line, b"Initramfs")) || is_other_init(line)
    }),
    (Sight::Panic, |line| line.starts_with(b"Kernel panic - not syncing")),
];

/// What a kernel's EFI stub, and its unpacker, say before the kernel itself does.
const EARLY_KERNEL: [&[u8]; 3] = [b"EFI stub: ", b"Decompressing Linux... ", b"early console in "];

fn is_banner(line: &[u8]) -> bool {
    line.starts_with(b"Linux version ")
}

/// OVMF names what it starts; of boot loaders, some name themselves.
fn is_boot_loader(line: &[u8]) -> bool {
    const NAMES: [&[u8]; 5] = [debug_text::UEFI, b"Welcome to GRUB!", b"GRUB loading", b"SYSLINUX ", b"EXTLINUX "];
    NAMES.iter().any(|name| find(line, name))
}

/// A system's welcome, to its exclamation mark: until that has come, it may be a boot loader's.
fn is_welcome(line: &[u8]) -> bool {
    const START: &[u8] = b"Welcome to ";
    let Some(at) = line.windows(START.len()).position(|w| w == START) else { return false };
    let name = line.get(at..).unwrap_or_default();
    name.contains(&b'!') && !find(name, b"GRUB")
}

/// The first processes of systems that have no systemd.
fn is_other_init(line: &[u8]) -> bool {
    (line.starts_with(b"INIT: version ") && find(line, b" booting")) || find(line, b"OpenRC ")
}

/// Whether it is new.
fn see(seen: &mut Vec<Sight>, sight: Sight) -> bool {
    let is_new = !seen.contains(&sight);
    if is_new {
        seen.push(sight);
    }
    is_new
}

fn find(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}

/// A kernel's line without `[    0.123456] `.
fn without_timestamp(line: &[u8]) -> &[u8] {
    let Some(rest) = line.strip_prefix(b"[") else { return line };
    let Some(end) = rest.iter().position(|b| *b == b']') else { return line };
    let (stamp, rest) = rest.split_at(end);
    if stamp.iter().all(|b| b.is_ascii_digit() || matches!(b, b' ' | b'.' | b'T' | b'C')) && !stamp.is_empty() {
        rest.strip_prefix(b"] ").unwrap_or(line)
    } else {
        line
    }
}

fn printable(line: &[u8]) -> String {
    String::from_utf8_lossy(line)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim_end()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(pattern: &str) -> Transcript {
        Transcript::new(Some(Regex::new(pattern).unwrap()))
    }

    #[test]
    fn a_pattern_split_over_writes_is_found_once() {
        let mut t = until("login: ?$");
        assert_eq!(t.feed(b"debian lo"), vec![]);
        assert_eq!(t.feed(b"gin:"), vec![Sight::Until]);
        assert_eq!(t.feed(b"login:"), vec![]);
    }

    #[test]
    fn the_pattern_comes_after_what_is_shown_before_it() {
        let sights = until("login:").feed(b"Linux version 6.1.0\r\nRun /init as init process\r\nlogin:");
        assert_eq!(sights, vec![Sight::Kernel, Sight::KernelBanner, Sight::InitStarted, Sight::Until]);
    }

    #[test]
    fn a_pattern_inside_one_large_write_is_found() {
        let mut t = until("needle");
        let mut bytes = vec![b'.'; 40_000];
        bytes[100..106].copy_from_slice(b"needle");
        assert_eq!(t.feed(&bytes), vec![Sight::Until]);
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut t = until("(?s)start.*end");
        t.feed(b"start");
        t.feed(&vec![b'.'; WINDOW]);
        assert_eq!(t.feed(b"end"), vec![]);
        assert!(t.window.len() <= WINDOW);
    }

    #[test]
    fn a_boot_is_followed_by_its_lines() {
        let mut t = Transcript::new(None);
        assert_eq!(t.feed(b"[    0.000000] Linux version 6.1.0 (x@y)\r\n"), vec![Sight::Kernel, Sight::KernelBanner]);
        assert_eq!(t.feed(b"[    0.9] Run /init as init process\r\n"), vec![Sight::InitStarted]);
        assert_eq!(t.feed(b"[    1.0] Kernel panic - not sync"), vec![]);
        assert_eq!(t.feed(b"ing: Attempted to kill init!\r\n"), vec![Sight::Panic]);
        assert_eq!(t.feed(b"[    1.1] ---[ end Kernel panic - not syncing: x ]---"), vec![]);
        assert_eq!(t.feed(b"\r\n"), vec![Sight::PanicEnd]);
        assert!(t.last_lines().iter().any(|l| l.contains("Attempted to kill init!")));
    }

    #[test]
    fn a_boot_loader_is_not_the_first_process() {
        let mut t = Transcript::new(None);
        // Whatever part of it has come, and with what between its words.
        assert_eq!(t.feed(b"\x1b[0;30;47mWelcome to "), vec![]);
        assert_eq!(t.feed(b"GRUB!\r\n"), vec![Sight::BootLoader]);
        assert_eq!(t.feed(b"Welcome to \x1b[05;12H\x1b[05;13HGRUB!\r\n"), vec![]);
        assert_eq!(t.feed(b"EFI stub: Loaded initrd from command line option\r\n"), vec![Sight::Kernel]);
        let initrd = b"Welcome to \x1b[0;34mFedora Linux 41 dracut-103 (Initramfs)\x1b[0m!\r\n";
        assert_eq!(t.feed(initrd), vec![Sight::InitStarted]);
        assert_eq!(t.feed(b"Welcome to \x1b[1mDebian GNU/Linux 12\x1b[0m!\r\n"), vec![Sight::SystemStarted]);
    }

    #[test]
    fn the_boot_timer_is_waited_for_only_where_asked() {
        assert_eq!(Transcript::new(None).boot_done(), None);
        let mut t = until("login:").until_timer(true);
        assert_eq!(t.boot_done(), Some(Sight::Until));
        assert_eq!(t.boot_done(), None);
        assert_eq!(t.feed(b"login:"), vec![]);
    }

    #[test]
    fn a_program_that_quotes_a_panic_does_not_cause_one() {
        let mut t = Transcript::new(None);
        assert_eq!(t.feed(b"log: Kernel panic - not syncing: old\n$ grep 'Kernel panic - not syncing' x\n"), vec![]);
    }

    #[test]
    fn memory_stays_bounded_and_lines_printable() {
        let mut t = until("never");
        for _ in 0..100 {
            t.feed(&vec![0x1b; 50_000]);
            t.feed(b"\n");
        }
        assert!(t.line.len() <= LINE_MAX && t.last_lines.len() <= LAST_LINES && t.window.len() <= WINDOW);
        assert!(t.last_lines().iter().all(|l| l.chars().all(|c| !c.is_control())));
    }
}
