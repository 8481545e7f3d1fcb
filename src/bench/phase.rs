//! The phases of a boot: when each begins and ends, and what a boot report tells of that.
//!
//! A phase begins where the one before it ends; the first begins with the process. What marks an end stands in
//! [`Phase::ends_with`]. A phase whose end a guest does not show (a quiet kernel, say) is not told apart from the next one:
//! the two are one [`Span`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::vmm::devices::boot_timer;

/// A phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The monitor's own work.
    Monitor,
    /// An HVM guest's firmware.
    Firmware,
    /// An HVM guest's boot loader, and with it the kernel's own unpacking.
    BootLoader,
    /// The kernel.
    Kernel,
    /// The initrd.
    Init,
    /// The system, up to its login prompt.
    Login,
}

/// How many there are.
pub const PHASES: usize = 6;

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; PHASES] =
        [Self::Monitor, Self::Firmware, Self::BootLoader, Self::Kernel, Self::Init, Self::Login];

    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Monitor => "monitor start",
            Self::Firmware => "firmware",
            Self::BootLoader => "boot loader",
            Self::Kernel => "kernel",
            Self::Init => "init",
            Self::Login => "login",
        }
    }

    /// What marks its end.
    #[must_use]
    pub fn ends_with(self) -> &'static str {
        match self {
            Self::Monitor => "the first processor enters the guest",
            Self::Firmware => "the firmware enters the boot loader",
            Self::BootLoader => "the kernel's first sign of life",
            Self::Kernel => "the first process, mostly that of the initrd, runs",
            Self::Init => "the first process of the system itself runs",
            Self::Login => "the console matched --until, or the guest wrote 123 to the boot timer",
        }
    }

    /// Whether a paravirtual guest has it too.
    #[must_use]
    pub fn is_of_pv(self) -> bool {
        !matches!(self, Self::Firmware | Self::BootLoader)
    }

    /// The event of a boot report that marks its end, but for the last.
    fn event(self) -> &'static str {
        match self {
            Self::Monitor => "first_instruction",
            Self::Firmware => "boot_loader_started",
            Self::BootLoader => "kernel_started",
            Self::Kernel => "init_started",
            Self::Init => "system_started",
            Self::Login => "until_matched",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// An event of a boot report, as it is kept with a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its name there.
    pub name: String,
    /// What the guest wrote to the boot timer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<u8>,
    /// Milliseconds since the process started.
    pub wall_ms: f64,
    /// Milliseconds of processor time since then, the guest's included.
    pub cpu_ms: f64,
}

/// When each phase of one boot ended, in milliseconds since the process started; nothing where that was not to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Ends([Option<f64>; PHASES]);

impl Ends {
    /// Reads them out of the events of a report; nothing where the boot did not come to its end. An end that lies before
    /// that of an earlier phase, or after the last, is none: a guest may write anything to its console.
    #[must_use]
    pub fn of(events: &[Event], is_pv: bool) -> Option<Self> {
        let at = |name: &str| events.iter().find(|e| e.name == name).map(|e| e.wall_ms);
        let last = last_event(events)?.wall_ms;
        let mut ends = [None; PHASES];
        let mut before = 0.0;
        for (end, phase) in ends.iter_mut().zip(Phase::ALL) {
            let seen = match phase {
                Phase::Login => Some(last),
                _ if is_pv && !phase.is_of_pv() => None,
                _ => at(phase.event()),
            };
            if let Some(seen) = seen.filter(|seen| (before..=last).contains(seen)) {
                before = seen;
                *end = Some(seen);
            }
        }
        Some(Self(ends))
    }

    /// When a phase ended.
    #[must_use]
    pub fn end(&self, phase: Phase) -> Option<f64> {
        self.0.get(phase as usize).copied().flatten()
    }

    /// From the start of the process to the end of the last phase, in milliseconds.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.end(Phase::Login).unwrap_or(0.0)
    }

    /// How long a span took, in milliseconds; nothing where its bounds are not known.
    #[must_use]
    pub fn duration(&self, span: Span) -> Option<f64> {
        let begin = match span.after {
            Some(phase) => self.end(phase)?,
            None => 0.0,
        };
        Some(self.end(span.last)? - begin)
    }
}

/// The event that a boot ended with: the boot timer, which is exact, before what the console showed.
#[must_use]
pub fn last_event(events: &[Event]) -> Option<&Event> {
    let timer = events.iter().find(|e| e.name == "boot_timer" && e.value == Some(boot_timer::DONE));
    timer.or_else(|| events.iter().find(|e| e.name == Phase::Login.event()))
}

/// Phases that follow one another and are measured as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// It begins at the end of this one, or with the process.
    after: Option<Phase>,
    /// The first of its phases.
    pub first: Phase,
    /// The last of its phases.
    pub last: Phase,
}

impl Span {
    /// The names of its phases.
    #[must_use]
    pub fn name(self, is_pv: bool) -> String {
        let names: Vec<&str> = self.phases(is_pv).map(Phase::name).collect();
        names.join(" + ")
    }

    /// Its phases.
    pub fn phases(self, is_pv: bool) -> impl Iterator<Item = Phase> {
        Phase::ALL.into_iter().filter(move |p| (self.first..=self.last).contains(p) && (!is_pv || p.is_of_pv()))
    }
}

/// The spans that all of these boots show.
#[must_use]
pub fn spans<'a>(boots: impl IntoIterator<Item = &'a Ends>, is_pv: bool) -> Vec<Span> {
    let mut known = [true; PHASES];
    for ends in boots {
        for (known, phase) in known.iter_mut().zip(Phase::ALL) {
            *known &= ends.end(phase).is_some();
        }
    }
    let mut spans = Vec::new();
    let (mut after, mut first) = (None, None);
    for (phase, known) in Phase::ALL.into_iter().zip(known) {
        if is_pv && !phase.is_of_pv() {
            continue;
        }
        let begin = *first.get_or_insert(phase);
        if known {
            spans.push(Span { after, first: begin, last: phase });
            (after, first) = (Some(phase), None);
        }
    }
    spans
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vmm::timeline::Mark;

    pub fn event(name: &str, wall_ms: f64) -> Event {
        Event { name: name.into(), value: None, wall_ms, cpu_ms: wall_ms / 2.0 }
    }

    fn names(spans: &[Span], is_pv: bool) -> Vec<String> {
        spans.iter().map(|s| s.name(is_pv)).collect()
    }

    #[test]
    fn events_are_those_of_a_boot_report() {
        let marks = [
            Mark::FirstInstruction,
            Mark::BootLoaderStarted,
            Mark::KernelStarted,
            Mark::InitStarted,
            Mark::SystemStarted,
            Mark::UntilMatched,
        ];
        for (phase, mark) in Phase::ALL.into_iter().zip(marks) {
            assert_eq!(serde_json::to_value(mark).unwrap(), phase.event());
        }
        assert_eq!(serde_json::to_value(Mark::BootTimer).unwrap(), "boot_timer");
    }

    #[test]
    fn a_boot_that_shows_everything_has_all_phases() {
        let events = [
            event("first_instruction", 3.0),
            event("boot_loader_started", 100.0),
            event("kernel_started", 250.0),
            event("init_started", 700.0),
            event("system_started", 900.0),
            event("until_matched", 2000.0),
        ];
        let hvm = Ends::of(&events, false).unwrap();
        let all = spans([&hvm], false);
        assert_eq!(names(&all, false), ["monitor start", "firmware", "boot loader", "kernel", "init", "login"]);
        let durations: Vec<f64> = all.iter().map(|s| hvm.duration(*s).unwrap()).collect();
        assert_eq!(durations, [3.0, 97.0, 150.0, 450.0, 200.0, 1100.0]);
        // A paravirtual guest's kernel begins with the first instruction.
        let pv = Ends::of(&events, true).unwrap();
        let all = spans([&pv], true);
        assert_eq!(names(&all, true), ["monitor start", "kernel", "init", "login"]);
        assert_eq!(pv.duration(all[1]), Some(697.0));
    }

    #[test]
    fn what_is_not_shown_is_part_of_the_next() {
        let events =
            [event("first_instruction", 3.0), event("boot_loader_started", 100.0), event("until_matched", 900.0)];
        let quiet = Ends::of(&events, false).unwrap();
        let merged = spans([&quiet], false);
        assert_eq!(names(&merged, false), ["monitor start", "firmware", "boot loader + kernel + init + login"]);
        // One quiet boot among others is enough.
        let loud = [&events[..], &[event("kernel_started", 300.0), event("init_started", 500.0)]].concat();
        let loud = Ends::of(&loud, false).unwrap();
        assert_eq!(spans([&loud], false).len(), 5);
        assert_eq!(spans([&loud, &quiet], false), merged);
        assert_eq!(loud.duration(merged[2]), Some(800.0));
    }

    #[test]
    fn the_boot_timer_is_the_end_where_the_guest_wrote_it() {
        let timer = |value, wall_ms| Event { value: Some(value), ..event("boot_timer", wall_ms) };
        let events =
            [event("first_instruction", 3.0), timer(7, 50.0), timer(123, 800.0), event("until_matched", 900.0)];
        assert_eq!(Ends::of(&events, true).unwrap().total(), 800.0);
        assert_eq!(Ends::of(&events[..2], true), None, "another value ends nothing");
    }

    proptest! {
        /// Whatever a report says: no phase takes a negative time, and all phases together take the whole.
        #[test]
        fn spans_cover_the_boot(times in prop::collection::vec(prop::option::of(0.0..1e6f64), 5), last in 0.0..1e6f64, is_pv: bool) {
            let mut events: Vec<Event> = Phase::ALL.iter().zip(&times)
                .filter_map(|(phase, time)| time.map(|t| event(phase.event(), t))).collect();
            events.push(event("until_matched", last));
            let ends = Ends::of(&events, is_pv).unwrap();
            let spans = spans([&ends], is_pv);
            let durations: Vec<f64> = spans.iter().map(|s| ends.duration(*s).unwrap()).collect();
            prop_assert!(durations.iter().all(|d| *d >= 0.0));
            prop_assert!((durations.iter().sum::<f64>() - last).abs() < 1e-6);
            let covered = spans.iter().flat_map(|s| s.phases(is_pv)).collect::<Vec<_>>();
            let expected: Vec<_> = Phase::ALL.into_iter().filter(|p| !is_pv || p.is_of_pv()).collect();
            prop_assert_eq!(covered, expected);
        }
    }
}
