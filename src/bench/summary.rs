//! What the runs of a record come to, and how two records differ.

use serde::Serialize;

use super::phase::{Ends, Phase, Span, spans};
use super::record::{Cache, Mode, Record, Run};
use super::stats::{self, Summary, Verdict};

/// A span of phases over the runs of one mode.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanFigures {
    /// Which.
    pub span: Span,
    /// How long it took, in milliseconds.
    pub ms: Summary,
}

/// The runs of one mode and state of the caches that count.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Of these runs.
    pub mode: Mode,
    /// And this state.
    pub cache: Cache,
    /// How many went wrong.
    pub failed: usize,
    /// Phases, in their order.
    pub spans: Vec<SpanFigures>,
    /// From process start to the end of the last phase, in milliseconds.
    pub total_ms: Summary,
    /// Processor time up to the first instruction, in milliseconds.
    pub cpu_first_ms: Option<Summary>,
    /// Processor time up to the end, guest execution included, in milliseconds.
    pub cpu_total_ms: Option<Summary>,
    /// Memory of the monitor beside the guest's, in bytes.
    pub monitor_bytes: Option<Summary>,
    /// Memory of the guest that was resident, in bytes.
    pub guest_bytes: Option<Summary>,
}

impl Group {
    /// What the runs come to; nothing where none counts.
    #[must_use]
    pub fn of(record: &Record, mode: Mode, cache: Cache) -> Option<Self> {
        let runs: Vec<&Run> = record.counting(mode, cache).collect();
        let ends: Vec<Ends> = runs.iter().filter_map(|run| run.ends()).collect();
        let spans = spans(&ends, mode.is_pv())
            .into_iter()
            .filter_map(|span| Summary::of(&durations(&ends, span)).map(|ms| SpanFigures { span, ms }));
        let over = |figure: &dyn Fn(&Run) -> Option<f64>| {
            Summary::of(&runs.iter().filter_map(|run| figure(run)).collect::<Vec<_>>())
        };
        Some(Self {
            mode,
            cache,
            failed: record.failed(mode, cache).count(),
            spans: spans.collect(),
            total_ms: Summary::of(&ends.iter().map(Ends::total).collect::<Vec<_>>())?,
            cpu_first_ms: over(&Run::cpu_to_first_instruction),
            cpu_total_ms: over(&Run::cpu_total),
            monitor_bytes: over(&|run| bytes(run.monitor_bytes)),
            guest_bytes: over(&|run| bytes(run.guest_bytes)),
        })
    }

    /// All groups of a record, cold ones first.
    #[must_use]
    pub fn all(record: &Record) -> Vec<Self> {
        record.groups().into_iter().filter_map(|(cache, mode)| Self::of(record, mode, cache)).collect()
    }

    /// The span that a phase is part of.
    #[must_use]
    pub fn span(&self, phase: Phase) -> Option<&SpanFigures> {
        self.spans.iter().find(|figures| figures.span.phases(self.mode.is_pv()).any(|p| p == phase))
    }
}

#[allow(clippy::cast_precision_loss, reason = "exact up to 8 PiB")]
fn bytes(bytes: Option<u64>) -> Option<f64> {
    bytes.map(|b| b as f64)
}

fn durations(ends: &[Ends], span: Span) -> Vec<f64> {
    ends.iter().filter_map(|ends| ends.duration(span)).collect()
}

/// How one figure of a record stands to the same of another.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Its name.
    pub name: String,
    /// Medians, in milliseconds or bytes.
    pub medians: (f64, f64),
    /// The second median over the first; nothing where the first is zero.
    pub ratio: Option<f64>,
    /// Whether the difference is real.
    pub verdict: Verdict,
    /// A size in bytes, and no time.
    pub is_size: bool,
}

impl Difference {
    /// Nothing where one of them has no values.
    fn of(name: impl Into<String>, a: &[f64], b: &[f64], is_size: bool) -> Option<Self> {
        let medians = (Summary::of(a)?.median, Summary::of(b)?.median);
        let ratio = (medians.0 > 0.0).then(|| medians.1 / medians.0);
        Some(Self { name: name.into(), medians, ratio, verdict: stats::compare(a, b), is_size })
    }
}

/// The differences between two sets of runs of one mode: each phase that both show, then the whole, processor time and
/// memory.
#[must_use]
pub fn differences(a: &[&Run], b: &[&Run], is_pv: bool) -> Vec<Difference> {
    let ends = |runs: &[&Run]| runs.iter().filter_map(|run| run.ends()).collect::<Vec<_>>();
    let (a_ends, b_ends) = (ends(a), ends(b));
    let common = spans(a_ends.iter().chain(&b_ends), is_pv);
    let phases = common.into_iter().filter_map(|span| {
        Difference::of(span.name(is_pv), &durations(&a_ends, span), &durations(&b_ends, span), false)
    });
    let figure = |name: &str, figure: &dyn Fn(&Run) -> Option<f64>, is_size| {
        let of = |runs: &[&Run]| runs.iter().filter_map(|run| figure(run)).collect::<Vec<_>>();
        Difference::of(name, &of(a), &of(b), is_size)
    };
    let rest = [
        figure("total", &|run| run.ends().map(|e| e.total()), false),
        figure("CPU to first instruction", &Run::cpu_to_first_instruction, false),
        figure("CPU in all", &Run::cpu_total, false),
        figure("monitor memory", &|run| bytes(run.monitor_bytes), true),
    ];
    phases.chain(rest.into_iter().flatten()).collect()
}

/// How a mode's whole boot stands to the paravirtual one's, both of one state of the caches.
#[must_use]
pub fn against_pv(record: &Record, mode: Mode, cache: Cache) -> Option<Difference> {
    let totals = |mode| record.counting(mode, cache).filter_map(Run::ends).map(|e| e.total()).collect::<Vec<_>>();
    Difference::of("total", &totals(Mode::Pv), &totals(mode), false)
}

/// The figures as they stand in the file beside the runs; a reader may work them out anew.
#[derive(Debug, Serialize)]
pub struct Figures {
    mode: Mode,
    cache: Cache,
    runs: usize,
    failed: usize,
    phases_ms: Vec<PhaseFigures>,
    total_ms: Summary,
    cpu_to_first_instruction_ms: Option<Summary>,
    cpu_total_ms: Option<Summary>,
    monitor_bytes: Option<Summary>,
    guest_bytes: Option<Summary>,
}

#[derive(Debug, Serialize)]
struct PhaseFigures {
    /// More than one where they cannot be told apart.
    phases: Vec<Phase>,
    #[serde(flatten)]
    ms: Summary,
}

impl From<&Group> for Figures {
    fn from(group: &Group) -> Self {
        let phases = |s: &SpanFigures| PhaseFigures { phases: s.span.phases(group.mode.is_pv()).collect(), ms: s.ms };
        Self {
            mode: group.mode,
            cache: group.cache,
            runs: group.total_ms.count,
            failed: group.failed,
            phases_ms: group.spans.iter().map(phases).collect(),
            total_ms: group.total_ms,
            cpu_to_first_instruction_ms: group.cpu_first_ms,
            cpu_total_ms: group.cpu_total_ms,
            monitor_bytes: group.monitor_bytes,
            guest_bytes: group.guest_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn a_group_has_its_phases_and_its_whole() {
        let record =
            record(&[Mode::Pv, Mode::Hvm], 5, |mode, _, n| if mode.is_pv() { 1000.0 } else { 2000.0 } + f64::from(n));
        let groups = Group::all(&record);
        let names: Vec<_> = groups.iter().map(|g| (g.cache, g.mode)).collect();
        let (cold, warm) = (Cache::Cold, Cache::Warm);
        assert_eq!(names, [(cold, Mode::Pv), (cold, Mode::Hvm), (warm, Mode::Pv), (warm, Mode::Hvm)]);
        let hvm = &groups[1];
        let spans: Vec<_> = hvm.spans.iter().map(|s| s.span.name(false)).collect();
        // This record does not tell an initrd from a system.
        assert_eq!(spans, ["monitor start", "firmware", "boot loader", "kernel", "init + login"]);
        assert_eq!((hvm.total_ms.min, hvm.total_ms.median, hvm.total_ms.max), (2000.0, 2002.0, 2004.0));
        assert_eq!(hvm.span(Phase::Init), hvm.span(Phase::Login));
        assert_eq!(groups[0].span(Phase::Firmware), None);
        let ratio = against_pv(&record, Mode::Hvm, warm).unwrap();
        assert_eq!((ratio.ratio, ratio.verdict), (Some(2002.0 / 1002.0), Verdict::Real));
        let json = serde_json::to_value(Figures::from(hvm)).unwrap();
        assert_eq!(json["phases_ms"][4]["phases"], serde_json::json!(["init", "login"]));
        assert_eq!(json["phases_ms"][0]["count"], 5);
    }

    #[test]
    fn records_are_compared_by_what_both_show() {
        let of = |total: f64| record(&[Mode::Pv], 6, move |_, _, n| total + f64::from(n));
        let (a, mut b) = (of(1000.0), of(500.0));
        for run in &mut b.runs {
            run.events.retain(|e| e.name != "init_started");
        }
        let runs = |record| Record::counting(record, Mode::Pv, Cache::Warm).collect::<Vec<_>>();
        let all = differences(&runs(&a), &runs(&b), true);
        let names: Vec<_> = all.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "monitor start",
                "kernel + init + login",
                "total",
                "CPU to first instruction",
                "CPU in all",
                "monitor memory"
            ]
        );
        let total = &all[2];
        assert_eq!(total.verdict, Verdict::Real);
        assert!((total.ratio.unwrap() - 502.5 / 1002.5).abs() < 1e-9);
        let memory = all.last().unwrap();
        assert_eq!((memory.ratio, memory.verdict, memory.is_size), (Some(1.0), Verdict::NotShown, true));
        assert!(differences(&[], &runs(&b), true).is_empty());
    }
}
