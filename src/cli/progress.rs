//! How far something is: a bar on a terminal, a line now and then elsewhere. Where the work can be broken off, Ctrl-C does so
//! cleanly; else it ends the process, as ever.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::output::note;

/// Work that is shown.
pub struct Shown {
    what: String,
    bar: Option<ProgressBar>,
    /// Tenths that were told, where there is no terminal.
    told: u64,
    broken_off: Arc<AtomicBool>,
}

impl Shown {
    /// Begins to show `what`, which heeds the answers of [`Shown::at`]: from here on signals break it off.
    ///
    /// # Errors
    /// What the host says.
    pub fn breakable(what: &str, quiet: bool) -> io::Result<Self> {
        let shown = Self::begin(what, quiet);
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, shown.broken_off.clone())?;
        }
        Ok(shown)
    }

    /// Begins to show `what`, unless the person wants to be told nothing.
    pub fn begin(what: &str, quiet: bool) -> Self {
        let style = "{msg} {bar:30} {bytes:>10} of {total_bytes:<10} {eta:>4}";
        let bar = (!quiet && io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar.set_message(what.to_owned());
            bar
        });
        // With a bar, or nothing to be told, no lines.
        let told = if quiet || bar.is_some() { u64::MAX } else { 0 };
        Self { what: what.to_owned(), bar, told, broken_off: Arc::default() }
    }

    /// Shows how far it is; tells whether to go on.
    pub fn at(&mut self, done: u64, total: u64) -> ControlFlow<()> {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        } else {
            let tenth = done.saturating_mul(10).checked_div(total).unwrap_or(10);
            if self.told < tenth {
                self.told = tenth;
                let _ = writeln!(io::stderr(), "{} {}%", self.what, tenth * 10);
            }
        }
        if self.broken_off.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Takes the bar away.
    pub fn end(&self, has_failed: bool) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if has_failed && self.broken_off.load(Ordering::Relaxed) {
            note("broken off: nothing is left of it");
        }
    }
}
