//! How far a bench has come.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output;
use crate::bench::plan::Step;
use crate::bench::record::Run;
use crate::bench::runner::Progress;
use crate::bench::svg::time;

/// A bar's look.
pub fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Progress: a bar on a terminal, else a line for each run.
pub struct Shown {
    bar: Option<ProgressBar>,
    steps: u64,
}

impl Shown {
    /// For so many runs.
    pub fn new(steps: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(steps);
            bar.set_style(style("{pos} of {len} {wide_bar} {msg} [{elapsed}, about {eta} left]"));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar, steps }
    }

    /// Shows it.
    pub fn tell(&self, progress: &Progress<'_>) {
        match progress {
            Progress::Begins(step) => {
                if let Some(bar) = &self.bar {
                    bar.set_message(name(step));
                }
            }
            Progress::Ended(run) => {
                let warm_up = if run.warm_up { ", warm-up" } else { "" };
                let line =
                    format!("{} of {}: {} {}{warm_up}: {}", run.number, self.steps, run.cache, run.mode, result(run));
                match &self.bar {
                    // What went wrong stays above the bar.
                    Some(bar) if run.failure.is_some() => bar.suspend(|| output::note(&line)),
                    Some(_) => {}
                    None => output::note(&line),
                }
                if let Some(bar) = &self.bar {
                    bar.inc(1);
                }
            }
            Progress::GivenUp(mode) => {
                let line = format!("{mode}: it failed from the beginning; the rest of its runs are left out");
                match &self.bar {
                    Some(bar) => bar.suspend(|| output::note(&line)),
                    None => output::note(&line),
                }
            }
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn name(step: &Step) -> String {
    format!("{} {}{}", step.cache, step.mode, if step.warm_up { ", warm-up" } else { "" })
}

fn result(run: &Run) -> String {
    match (&run.failure, run.ends()) {
        (Some(why), _) => format!("failed: {why}"),
        (None, Some(ends)) => time(ends.total()),
        (None, None) => "failed".into(),
    }
}
