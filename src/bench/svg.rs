//! A record as a picture: for each mode a bar of its phases' medians, with the spread of the whole.

use std::fmt::Write;

use super::phase::{PHASES, Phase, Span};
use super::record::{Cache, Mode, Record};
use super::summary::Group;

/// Width of the picture, in its own units, as all lengths here.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 100.0;
const RIGHT: f64 = 150.0;
const BAR: f64 = 30.0;
/// A bar, the words below it, and room.
const ROW: f64 = 80.0;
const HEADER: f64 = 84.0;
const BLOCK: f64 = 30.0;
const AXIS: f64 = 34.0;
const LEGEND: f64 = 40.0;

/// Colours that are told apart by eyes of every kind, and by their lightness alone.
const COLOURS: [&str; PHASES] = ["#3d3d3d", "#e69f00", "#cc79a7", "#0072b2", "#7cc4ee", "#009e73"];
/// Those of them on which text is dark.
const IS_LIGHT: [bool; PHASES] = [false, true, true, false, true, false];

/// How times are written: three digits or so.
#[must_use]
pub fn time(ms: f64) -> String {
    match ms {
        ms if ms < 9.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms if ms < 9_995.0 => format!("{:.2} s", ms / 1000.0),
        ms => format!("{:.1} s", ms / 1000.0),
    }
}

/// Draws it. `groups` are those of the record, and there is at least one.
#[must_use]
pub fn draw(record: &Record, groups: &[Group]) -> String {
    let longest = groups.iter().map(|g| g.total_ms.max).fold(1.0, f64::max);
    let step = tick(longest);
    // The axis ends at a tick.
    let end = (longest / step).ceil() * step;
    let caches: Vec<Cache> = Cache::ALL.into_iter().filter(|c| groups.iter().any(|g| g.cache == *c)).collect();
    #[allow(clippy::cast_precision_loss, reason = "six rows at the most")]
    let rows = HEADER + caches.len() as f64 * BLOCK + groups.len() as f64 * ROW;
    let height = rows + AXIS + LEGEND;
    let mut picture = Picture { text: String::new(), scale: (WIDTH - LEFT - RIGHT) / end };
    picture.begin(height, &title(record), groups);
    picture.header(record, groups);
    picture.axis(HEADER, rows, step, end);
    let mut y = HEADER;
    for cache in caches {
        picture.label(0.0, y + 20.0, "block", &format!("{cache}: {}", describe(cache)));
        y += BLOCK;
        let pv = groups.iter().find(|g| g.cache == cache && g.mode.is_pv()).map(|g| g.total_ms.median);
        for group in groups.iter().filter(|g| g.cache == cache) {
            picture.bar(group, pv, y);
            y += ROW;
        }
    }
    picture.legend(height - LEGEND, groups);
    picture.text.push_str("</g>\n</svg>\n");
    picture.text
}

fn describe(cache: Cache) -> &'static str {
    match cache {
        Cache::Cold => "the first boot of an image on a host",
        Cache::Warm => "a boot after others of the same image",
    }
}

fn title(record: &Record) -> String {
    let name = record.image.path.file_name().unwrap_or(record.image.path.as_os_str()).to_string_lossy();
    format!("Boot of {name}")
}

/// A distance of ticks, in milliseconds, so that there are five to twelve of them.
fn tick(longest: f64) -> f64 {
    let magnitude = 10f64.powf((longest / 5.0).log10().floor());
    let fits = [5.0, 2.0, 1.0].map(|m| m * magnitude).into_iter().find(|step| longest / step >= 5.0);
    fits.unwrap_or(magnitude)
}

/// Text as XML has it, without characters that XML has not.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// About how wide text of a size is, in the fonts that there are.
#[allow(clippy::cast_precision_loss, reason = "short text")]
fn width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.56
}

struct Picture {
    text: String,
    /// Units for a millisecond.
    scale: f64,
}

impl Picture {
    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _ = self.text.write_fmt(text);
        self.text.push('\n');
    }

    fn begin(&mut self, height: f64, title: &str, groups: &[Group]) {
        let full = height + 40.0;
        self.put(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{full}\" viewBox=\"0 0 {w} {full}\" \
             font-family=\"'DejaVu Sans',Verdana,Helvetica,Arial,sans-serif\" font-size=\"13\">",
            w = WIDTH + 40.0
        ));
        self.put(format_args!("<title>{}</title>", escape(title)));
        self.put(format_args!(
            "<style>text{{fill:#222}}.title{{font-size:20px;font-weight:bold}}.note{{font-size:12px;fill:#555}}\
             .block{{font-weight:bold}}.mode{{font-weight:bold;text-anchor:end}}.end{{text-anchor:end}}\
             .middle{{text-anchor:middle}}.in{{font-size:12px;text-anchor:middle}}.total{{font-size:15px;font-weight:bold}}\
             .tick{{font-size:11px;fill:#777;text-anchor:middle}}</style>"
        ));
        self.put(format_args!("<defs>"));
        let mut known: Vec<Span> = Vec::new();
        for (group, span) in groups.iter().flat_map(|g| g.spans.iter().map(move |s| (g, s.span))) {
            let phases: Vec<Phase> = span.phases(group.mode.is_pv()).collect();
            if phases.len() > 1 && !known.iter().any(|k| pattern(*k, group.mode) == pattern(span, group.mode)) {
                known.push(span);
                self.stripes(&pattern(span, group.mode), &phases);
            }
        }
        self.put(format_args!("</defs>"));
        self.put(format_args!("<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"));
        self.put(format_args!("<g transform=\"translate(20 20)\">"));
    }

    /// Phases that cannot be told apart are drawn in the colours of all of them.
    fn stripes(&mut self, id: &str, phases: &[Phase]) {
        const STRIPE: usize = 8;
        let size = phases.len() * STRIPE;
        self.put(format_args!(
            "<pattern id=\"{id}\" width=\"{size}\" height=\"{size}\" patternUnits=\"userSpaceOnUse\" \
             patternTransform=\"rotate(45)\">"
        ));
        for (index, phase) in phases.iter().enumerate() {
            let x = index * STRIPE;
            let colour = colour(*phase);
            self.put(format_args!("<rect x=\"{x}\" width=\"{STRIPE}\" height=\"{size}\" fill=\"{colour}\"/>"));
        }
        self.put(format_args!("</pattern>"));
    }

    fn label(&mut self, x: f64, y: f64, class: &str, text: &str) {
        self.put(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escape(text)));
    }

    fn header(&mut self, record: &Record, groups: &[Group]) {
        let host = &record.host;
        let nested = if host.is_virtual { ", itself a virtual machine" } else { "" };
        let (least, most) = groups
            .iter()
            .fold((usize::MAX, 0), |(least, most), g| (least.min(g.total_ms.count), most.max(g.total_ms.count)));
        let runs = match (least, most) {
            (1, 1) => "one run each".to_owned(),
            (least, most) if least == most => format!("medians of {most} runs each"),
            (least, most) => format!("medians of {least} to {most} runs"),
        };
        self.label(0.0, 18.0, "title", &title(record));
        let partial = if record.complete { "" } else { "; ended before all runs were made" };
        let started = record.started.get(..10).unwrap_or(&record.started);
        self.label(
            0.0,
            40.0,
            "note",
            &format!(
                "from process start to the end of the boot, {runs}{partial}; amiboot {}, {started}",
                record.amiboot
            ),
        );
        let model = if host.processor.is_empty() { "unknown processor" } else { &host.processor };
        self.label(0.0, 57.0, "note", &format!("host: {model}, Linux {}, KVM: {}{nested}", host.kernel, host.kvm));
    }

    fn axis(&mut self, top: f64, bottom: f64, step: f64, end: f64) {
        let mut at = 0.0;
        while at <= end + step / 2.0 {
            let x = LEFT + at * self.scale;
            self.put(format_args!(
                "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"#ddd\"/>",
                top + BLOCK - 6.0
            ));
            let text = if end < 2000.0 { format!("{at:.0} ms") } else { format!("{} s", at / 1000.0) };
            self.label(x, bottom + 16.0, "tick", &text);
            at += step;
        }
    }

    fn bar(&mut self, group: &Group, pv: Option<f64>, y: f64) {
        self.label(LEFT - 10.0, y + 20.0, "mode", group.mode.name());
        let is_pv = group.mode.is_pv();
        let mut x = LEFT;
        for figures in &group.spans {
            let (span, median) = (figures.span, figures.ms.median);
            let length = median * self.scale;
            let name = span.name(is_pv);
            let phases = span.phases(is_pv).count();
            let fill =
                if phases > 1 { format!("url(#{})", pattern(span, group.mode)) } else { colour(span.last).into() };
            self.put(format_args!(
                "<rect class=\"phase\" x=\"{x:.2}\" y=\"{y:.1}\" width=\"{length:.2}\" height=\"{BAR}\" fill=\"{fill}\">\
                 <title>{}: {}</title></rect>",
                escape(&name),
                time(median)
            ));
            self.inside(span, phases > 1, x, y, length, &time(median));
            x += length;
        }
        self.whiskers(group, y);
        let total = &group.total_ms;
        let right = LEFT + total.max * self.scale + 10.0;
        self.label(right, y + 16.0, "total", &time(total.median));
        let ratio = match pv {
            Some(pv) if !is_pv && pv > 0.0 => format!("{:.2} × pv", total.median / pv),
            _ => String::new(),
        };
        let failed = if group.failed > 0 { format!("{} failed", group.failed) } else { String::new() };
        let below = [ratio, failed].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
        self.label(right, y + 32.0, "note", &below);
        let parts: Vec<String> =
            group.spans.iter().map(|s| format!("{} {}", s.span.name(is_pv), time(s.ms.median))).collect();
        self.label(LEFT, y + BAR + 26.0, "note", &parts.join(" · "));
    }

    /// A duration inside its part of the bar, where there is room.
    fn inside(&mut self, span: Span, is_striped: bool, x: f64, y: f64, length: f64, text: &str) {
        let room = width(text, 12.0) + 8.0;
        if length < room {
            return;
        }
        let middle = x + length / 2.0;
        if is_striped {
            let left = middle - room / 2.0;
            self.put(format_args!(
                "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{room:.1}\" height=\"18\" rx=\"4\" fill=\"#fff\" \
                 fill-opacity=\"0.85\"/>",
                y + 6.0
            ));
        }
        let is_light = is_striped || IS_LIGHT.get(span.last as usize).copied().unwrap_or(true);
        let ink = if is_light { "#111" } else { "#fff" };
        self.put(format_args!(
            "<text x=\"{middle:.1}\" y=\"{:.1}\" class=\"in\" style=\"fill:{ink}\">{text}</text>",
            y + 19.5
        ));
    }

    /// From the quickest run to the slowest.
    fn whiskers(&mut self, group: &Group, y: f64) {
        if group.total_ms.count < 2 {
            return;
        }
        let (from, to) = (LEFT + group.total_ms.min * self.scale, LEFT + group.total_ms.max * self.scale);
        // Below the bar, clear of what stands in it.
        let (top, middle, bottom) = (y + BAR + 3.0, y + BAR + 7.0, y + BAR + 11.0);
        self.put(format_args!(
            "<path class=\"spread\" d=\"M{from:.1} {top}V{bottom}M{from:.1} {middle}H{to:.1}M{to:.1} {top}V{bottom}\" \
             stroke=\"#111\" stroke-width=\"1.5\" fill=\"none\"/>"
        ));
    }

    fn legend(&mut self, y: f64, groups: &[Group]) {
        let mut x = 0.0;
        let is_drawn = |phase: Phase| groups.iter().any(|g| g.span(phase).is_some());
        for phase in Phase::ALL.into_iter().filter(|p| is_drawn(*p)) {
            self.put(format_args!(
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"14\" height=\"14\" fill=\"{}\"/>",
                colour(phase)
            ));
            self.label(x + 20.0, y + 12.0, "legend", phase.name());
            x += 20.0 + width(phase.name(), 13.0) + 24.0;
        }
        let is_striped = groups.iter().any(|g| g.spans.iter().any(|s| s.span.phases(g.mode.is_pv()).count() > 1));
        let spread = groups.iter().any(|g| g.total_ms.count > 1);
        let mut notes = Vec::new();
        if is_striped {
            notes.push("striped: phases that this guest does not let be told apart");
        }
        if spread {
            notes.push("├─┤ quickest to slowest run");
        }
        self.label(0.0, y + 32.0, "note", &notes.join("; "));
    }
}

fn colour(phase: Phase) -> &'static str {
    COLOURS.get(phase as usize).copied().unwrap_or("#888")
}

/// The name of the stripes of a span.
fn pattern(span: Span, mode: Mode) -> String {
    let numbers: Vec<String> = span.phases(mode.is_pv()).map(|phase| (phase as usize).to_string()).collect();
    format!("phases-{}", numbers.join("-"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::record::tests::record;
    use super::*;

    /// Checks that elements are closed in order and that nothing stands where XML has no place for it.
    fn assert_well_formed(xml: &str) {
        let mut open = Vec::new();
        for piece in xml.split('<').skip(1) {
            let (tag, text) = piece.split_once('>').expect("a tag ends");
            assert!(tag.matches('"').count() % 2 == 0, "{tag}");
            let ok = |entity: &str| ["amp;", "lt;", "gt;", "quot;"].iter().any(|e| entity.starts_with(e));
            assert!(text.split('&').skip(1).chain(tag.split('&').skip(1)).all(ok), "{piece}");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "{tag}");
            } else if !tag.ends_with('/') {
                open.push(tag.split_whitespace().next().unwrap());
            }
        }
        assert!(open.is_empty(), "{open:?}");
        assert!(!xml.chars().any(|c| c.is_control() && c != '\n'));
    }

    #[test]
    fn every_mode_has_a_bar_of_its_phases() {
        let record = record(&Mode::ALL, 3, |mode, _, n| if mode.is_pv() { 900.0 } else { 1700.0 } + f64::from(n));
        let groups = Group::all(&record);
        let svg = draw(&record, &groups);
        assert_well_formed(&svg);
        let phases: usize = groups.iter().map(|g| g.spans.len()).sum();
        assert_eq!(svg.matches("class=\"phase\"").count(), phases);
        assert_eq!(svg.matches("class=\"spread\"").count(), 6);
        for text in ["Boot of debian-12.raw", "cold: ", "warm: ", "hvm-uefi", "firmware 153 ms", "1.89 × pv", "1.70 s"]
        {
            assert!(svg.contains(text), "{text}");
        }
        assert!(svg.contains("EPYC &lt;&amp;&gt;"));
        assert!(svg.contains("url(#phases-4-5)") && svg.contains("id=\"phases-4-5\""));
    }

    #[test]
    fn times_have_about_three_digits() {
        let cases = [(0.04, "0.0 ms"), (3.12, "3.1 ms"), (9.96, "10 ms"), (321.4, "321 ms"), (1234.0, "1.23 s")];
        for (ms, text) in cases.into_iter().chain([(43_449.0, "43.4 s")]) {
            assert_eq!(time(ms), text);
        }
    }

    proptest! {
        #[test]
        fn ticks_are_neither_few_nor_many(longest in 0.1..1e8f64) {
            let count = longest / tick(longest);
            prop_assert!((4.9..=12.6).contains(&count), "{}", count);
        }

        #[test]
        fn whatever_was_measured_is_drawn(pv in 0.0..1e7f64, hvm in 0.0..1e7f64, runs in 1u32..4, name: String) {
            let mut record = record(&[Mode::Pv, Mode::Hvm], runs, |m, _, _| if m.is_pv() { pv } else { hvm });
            record.image.path = name.into();
            record.runs[0].failure = Some("x".into());
            assert_well_formed(&draw(&record, &Group::all(&record)));
        }
    }
}
