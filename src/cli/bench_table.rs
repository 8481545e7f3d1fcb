//! What a bench prints: all figures, the medians at a glance, and how two records differ.

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::output::{DIM, HEADING, WARN, clean};
use crate::bench::phase::{Phase, Span};
use crate::bench::record::{Cache, Mode, Record, Run};
use crate::bench::stats::{LEVEL, Summary, Verdict};
use crate::bench::summary::{self, Difference, Group};
use crate::bench::svg::time;

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table
}

fn right(text: impl Into<String>) -> Cell {
    Cell::new(text.into()).set_alignment(CellAlignment::Right)
}

/// Bytes in MiB.
fn size(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}

/// All figures of a record, then the medians of all modes side by side.
pub fn describe(record: &Record, groups: &[Group]) -> String {
    let mut text = String::new();
    for cache in Cache::ALL {
        let of: Vec<&Group> = groups.iter().filter(|g| g.cache == cache).collect();
        if !of.is_empty() {
            text.push_str(&format!("{HEADING}{cache}{HEADING:#}\n{}\n\n", figures(&of)));
        }
    }
    text.push_str(&format!("{HEADING}medians{HEADING:#}\n{}\n", medians(record, groups)));
    if groups.iter().any(|g| g.spans.iter().any(|s| is_merged(g, s.span))) {
        text.push_str(&format!(
            "{DIM}↓ the guest does not show where this phase ends: it is part of the next{DIM:#}\n"
        ));
    }
    text.push_str(&failures(record));
    text
}

fn is_merged(group: &Group, span: Span) -> bool {
    span.phases(group.mode.is_pv()).count() > 1
}

fn figures(groups: &[&Group]) -> Table {
    let mut table = table();
    table.set_header(vec![
        Cell::new("mode"),
        Cell::new("phase"),
        right("min"),
        right("median"),
        right("p90"),
        right("max"),
    ]);
    for group in groups {
        let mut first = true;
        let mut row = |name: &str, summary: &Summary, show: &dyn Fn(f64) -> String| {
            let mode = if first { format!("{} ({})", group.mode, runs(summary.count)) } else { String::new() };
            first = false;
            let values = [summary.min, summary.median, summary.p90, summary.max].map(|v| right(show(v)));
            table.add_row([Cell::new(mode), Cell::new(name)].into_iter().chain(values).collect::<Vec<_>>());
        };
        for figures in &group.spans {
            row(&figures.span.name(group.mode.is_pv()), &figures.ms, &time);
        }
        row("total", &group.total_ms, &time);
        for (name, summary) in
            [("CPU to first instruction", &group.cpu_first_ms), ("CPU in all, guest included", &group.cpu_total_ms)]
        {
            summary.iter().for_each(|summary| row(name, summary, &time));
        }
        for (name, summary) in [("monitor memory", &group.monitor_bytes), ("guest memory resident", &group.guest_bytes)]
        {
            summary.iter().for_each(|summary| row(name, summary, &size));
        }
    }
    table
}

fn medians(record: &Record, groups: &[Group]) -> Table {
    let mut table = table();
    let heads = groups.iter().map(|g| right(format!("{} {}", g.cache, g.mode)));
    table.set_header(std::iter::once(Cell::new("phase")).chain(heads).collect::<Vec<_>>());
    let mut row = |name: &str, cell: &dyn Fn(&Group) -> String| {
        table
            .add_row(std::iter::once(Cell::new(name)).chain(groups.iter().map(|g| right(cell(g)))).collect::<Vec<_>>());
    };
    for phase in Phase::ALL {
        row(phase.name(), &|group| match group.span(phase) {
            None => "-".into(),
            Some(figures) if figures.span.last == phase => time(figures.ms.median),
            Some(_) => "↓".into(),
        });
    }
    row("total", &|group| time(group.total_ms.median));
    if groups.iter().any(|g| g.mode.is_pv()) {
        let against =
            |group: &Group| summary::against_pv(record, group.mode, group.cache).filter(|_| !group.mode.is_pv());
        row("times pv's", &|group| against(group).map_or("-".into(), |d| ratio(&d)));
        row("difference", &|group| against(group).map_or("-".into(), |d| verdict(d.verdict).into()));
    }
    table
}

fn runs(count: usize) -> String {
    if count == 1 { "1 run".into() } else { format!("{count} runs") }
}

fn ratio(difference: &Difference) -> String {
    difference.ratio.map_or("-".into(), |ratio| format!("{ratio:.2} ×"))
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Real => "real",
        Verdict::NotShown => "not shown",
        Verdict::CannotTell => "too few runs",
    }
}

/// What is meant by "real".
pub fn explain_verdicts() -> String {
    format!(
        "{DIM}difference: rank-sum test of Mann and Whitney, two-sided, level {LEVEL}; \"not shown\" is no proof that there \
         is none{DIM:#}\n"
    )
}

fn failures(record: &Record) -> String {
    let mut text = String::new();
    for cache in Cache::ALL {
        for mode in Mode::ALL {
            let failed: Vec<&Run> = record.failed(mode, cache).collect();
            if let Some(first) = failed.first() {
                let all = failed.len() + record.counting(mode, cache).count();
                let why = first.failure.as_deref().unwrap_or("it did not come to its end");
                let line = format!(
                    "{cache} {mode}: {} of {} failed and do not count; run {}: ",
                    failed.len(),
                    runs(all),
                    first.number
                );
                text.push_str(&format!("{WARN}{line}{WARN:#}{}\n", clean(why)));
            }
        }
    }
    text
}

/// How two records differ.
pub fn compare(a: &Record, b: &Record) -> String {
    let mut text = String::new();
    for (name, x, y) in differing(a, b) {
        text.push_str(&format!("{WARN}{name} differs:{WARN:#} A {}, B {}\n", clean(&x), clean(&y)));
    }
    let in_both: Vec<(Cache, Mode)> = a.groups().into_iter().filter(|group| b.groups().contains(group)).collect();
    for (cache, mode) in &in_both {
        let (of_a, of_b): (Vec<&Run>, Vec<&Run>) =
            (a.counting(*mode, *cache).collect(), b.counting(*mode, *cache).collect());
        text.push_str(&format!(
            "\n{HEADING}{cache} {mode}{HEADING:#} (A {}, B {})\n",
            runs(of_a.len()),
            runs(of_b.len())
        ));
        let mut table = table();
        table.set_header(vec![
            Cell::new("phase"),
            right("A median"),
            right("B median"),
            right("B / A"),
            Cell::new("difference"),
        ]);
        for difference in summary::differences(&of_a, &of_b, mode.is_pv()) {
            let show = |value| if difference.is_size { size(value) } else { time(value) };
            table.add_row(vec![
                Cell::new(&difference.name),
                right(show(difference.medians.0)),
                right(show(difference.medians.1)),
                right(ratio(&difference)),
                Cell::new(verdict(difference.verdict)),
            ]);
        }
        text.push_str(&format!("{table}\n"));
    }
    if in_both.is_empty() {
        text.push_str("The two have no mode with runs that count in common.\n");
    } else {
        text.push_str(&explain_verdicts());
    }
    text
}

/// What makes two records hard to compare.
fn differing(a: &Record, b: &Record) -> Vec<(String, String, String)> {
    let facts = |r: &Record| {
        [
            ("processor", r.host.processor.clone()),
            ("host kernel", r.host.kernel.clone()),
            ("KVM", r.host.kvm.clone()),
            ("amiboot", r.amiboot.clone()),
            ("image", r.image.sha256.clone().unwrap_or_else(|| r.image.path.display().to_string())),
        ]
        .map(|(name, fact)| (name.to_owned(), fact))
    };
    // Without the image's path, which may be another for the same image.
    let words = |r: &Record, mode| {
        let command = r.options.commands.iter().find(|c| c.mode == mode);
        command.map(|c| c.words.get(2..).unwrap_or_default().join(" "))
    };
    let of_modes =
        Mode::ALL.into_iter().filter_map(|mode| Some((format!("{mode}'s options"), words(a, mode)?, words(b, mode)?)));
    let of_host = facts(a).into_iter().zip(facts(b)).map(|((name, x), (_, y))| (name, x, y));
    of_host.chain(of_modes).filter(|(_, x, y)| x != y).collect()
}
