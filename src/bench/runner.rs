//! The runs, one after the other.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use super::child::{self, Done};
use super::page_cache::ColdBy;
use super::phase::Event;
use super::plan::{Plan, Step};
use super::record::{Cache, Mode, Run};
use super::work_dir::WorkDir;
use crate::launch::signals::EndSignals;

/// A run has its own time limit; this long after it, it hangs.
const HANG: Duration = Duration::from_secs(30);
/// A report is smaller, in bytes.
const REPORT_MAX: u64 = 1 << 20;
/// A mode that failed this often in a row, and never succeeded, is given up.
const FAILURES_MAX: usize = 2;
/// How `amiboot run` says that what was waited for came.
const GOOD: &str = "until-matched";

/// The runs could not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// A run's process.
    #[error("{}: {cause}", program.display())]
    Child {
        /// The program.
        program: PathBuf,
        /// What the host said.
        cause: io::Error,
    },
    /// The caches could not be made cold.
    #[error("the page cache cannot be made cold: {0}")]
    Cold(io::Error),
    /// A directory.
    #[error("{}: {cause}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the host said.
        cause: io::Error,
    },
}

/// What is told while it runs.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A run begins.
    Begins(&'a Step),
    /// A run has ended.
    Ended(&'a Run),
    /// The rest of a mode's runs are left out.
    GivenUp(Mode),
}

/// All that was run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Every run that came to an end.
    pub runs: Vec<Run>,
    /// The guest's kernel, as a paravirtual run told it.
    pub guest_kernel: Option<String>,
    /// Firmware that runs said they used.
    pub firmware: Vec<(Mode, PathBuf)>,
    /// A signal ended it.
    pub interrupted: bool,
}

/// Makes the runs.
#[derive(Debug)]
pub struct Runner<'a> {
    /// What.
    pub plan: &'a Plan,
    /// This program.
    pub program: PathBuf,
    /// How the page cache is made cold.
    pub cold_by: ColdBy,
    /// Where files are put.
    pub work: &'a WorkDir,
}

impl Runner<'_> {
    /// Makes all runs, or those until a signal comes.
    ///
    /// # Errors
    /// [`RunnerError`]: not where a guest or a run fails, which is noted with the run.
    pub fn run(&self, signals: &mut EndSignals, tell: &mut dyn FnMut(&Progress<'_>)) -> Result<Outcome, RunnerError> {
        let mut outcome = Outcome::default();
        let mut given_up = Vec::new();
        for step in self.plan.steps() {
            if given_up.contains(&step.mode) {
                continue;
            }
            tell(&Progress::Begins(&step));
            let (done, report) = self.one(&step, &outcome.firmware, signals)?;
            outcome.interrupted = done.interrupted;
            if done.interrupted && done.code != Some(0) {
                break;
            }
            if let Some(path) = report.as_ref().and_then(|r| r.firmware.clone())
                && !outcome.firmware.contains(&(step.mode, path.clone()))
            {
                outcome.firmware.push((step.mode, path));
            }
            if let Some(kernel) = report.as_ref().and_then(|r| r.kernel.as_ref()) {
                outcome.guest_kernel.clone_from(&kernel.version);
            }
            let run = judge(&step, &done, report);
            tell(&Progress::Ended(&run));
            outcome.runs.push(run);
            if outcome.interrupted {
                break;
            }
            if is_hopeless(&outcome.runs, step.mode) {
                given_up.push(step.mode);
                tell(&Progress::GivenUp(step.mode));
            }
        }
        Ok(outcome)
    }

    fn one(
        &self,
        step: &Step,
        firmware: &[(Mode, PathBuf)],
        signals: &mut EndSignals,
    ) -> Result<(Done, Option<Report>), RunnerError> {
        let directory = |path: &Path| {
            let path = path.to_owned();
            move |cause| RunnerError::Directory { path, cause }
        };
        let cache = self.work.path(match step.cache {
            Cache::Cold => "cold",
            Cache::Warm => "warm",
        });
        if step.cache == Cache::Cold {
            if cache.exists() {
                fs::remove_dir_all(&cache).map_err(directory(&cache))?;
            }
            let own = firmware.iter().filter(|(mode, _)| *mode == step.mode).map(|(_, path)| path.as_path());
            let given = [&self.plan.bios, &self.plan.uefi].map(Path::new);
            let files = [self.plan.image.as_path()].into_iter().chain(given).chain(own);
            self.cold_by.drop_pages(files).map_err(RunnerError::Cold)?;
        }
        fs::create_dir_all(&cache).map_err(directory(&cache))?;
        let path = self.work.path("report.json");
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(directory(&path)(e)),
            _ => {}
        }
        let mut command = Command::new(&self.program);
        command.args(self.plan.command(step.mode)).arg("--boot-report").arg(&path).env("AMIBOOT_CACHE", &cache);
        let done = child::run(&mut command, signals, self.plan.timeout.saturating_add(HANG))
            .map_err(|cause| RunnerError::Child { program: self.program.clone(), cause })?;
        Ok((done, Report::read(&path)))
    }
}

/// Whether a mode has failed from the beginning.
fn is_hopeless(runs: &[Run], mode: Mode) -> bool {
    let mut own = runs.iter().filter(|run| run.mode == mode).peekable();
    own.peek().is_some() && own.clone().all(|run| run.failure.is_some()) && own.count() >= FAILURES_MAX
}

/// What a boot report holds that is of use here.
#[derive(Debug, Deserialize)]
struct Report {
    outcome: String,
    events: Vec<Event>,
    memory: Option<Memory>,
    #[serde(default)]
    firmware: Option<PathBuf>,
    #[serde(default)]
    kernel: Option<Kernel>,
}

#[derive(Debug, Deserialize)]
struct Kernel {
    version: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Memory {
    guest_bytes: u64,
    monitor_bytes: u64,
}

impl Report {
    /// Nothing where there is none, or not a whole one.
    fn read(path: &Path) -> Option<Self> {
        let mut text = Vec::new();
        File::open(path).ok()?.take(REPORT_MAX).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

fn judge(step: &Step, done: &Done, report: Option<Report>) -> Run {
    let Step { number, mode, cache, warm_up } = *step;
    let mut run = Run {
        number,
        mode,
        cache,
        warm_up,
        outcome: "failed".into(),
        failure: None,
        events: Vec::new(),
        guest_bytes: None,
        monitor_bytes: None,
    };
    if let Some(report) = report {
        run.outcome = report.outcome;
        run.events = report.events;
        run.guest_bytes = report.memory.as_ref().map(|m| m.guest_bytes);
        run.monitor_bytes = report.memory.as_ref().map(|m| m.monitor_bytes);
    }
    if done.hung {
        run.failure = Some("it did not end in time and was killed".into());
    } else if done.code != Some(0) || run.outcome != GOOD {
        run.failure = Some(reason(done));
    } else if run.ends().is_none() {
        run.failure = Some("its boot report lacks the boot's end".into());
    }
    run
}

/// Why a run failed, in a line, out of what it said.
fn reason(done: &Done) -> String {
    const LINES: &str = "the last lines of its console:";
    const NONE: &str = "its console showed nothing";
    const LENGTH: usize = 300;
    let lines: Vec<&str> = done.said.lines().map(|line| line.strip_prefix("amiboot: ").unwrap_or(line)).collect();
    let last =
        |lines: &[&str]| lines.iter().rev().map(|line| line.trim()).find(|line| !line.is_empty()).map(str::to_owned);
    let text = if let Some(error) = lines.iter().rev().find_map(|line| line.strip_prefix("error: ")) {
        error.to_owned()
    } else if let Some(at) = lines.iter().position(|line| *line == LINES || *line == NONE) {
        let (before, after) = lines.split_at(at);
        let what = last(before).unwrap_or_default();
        match last(after).filter(|line| line != LINES && line != NONE) {
            Some(line) => format!("{what}; its console's last line: {line}"),
            None => format!("{what}; its console showed nothing"),
        }
    } else {
        last(&lines).unwrap_or_else(|| match done.code {
            Some(code) => format!("it ended with {code} and said nothing"),
            None => "a signal ended it".into(),
        })
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use super::super::phase::tests::event;
    use super::super::record::tests::run;
    use super::*;

    const STEP: Step = Step { number: 3, mode: Mode::Pv, cache: Cache::Warm, warm_up: false };

    fn done(code: i32, said: &str) -> Done {
        Done { code: Some(code), said: said.into(), interrupted: false, hung: false }
    }

    fn report(outcome: &str, events: Vec<Event>) -> Option<Report> {
        let memory = Some(Memory { guest_bytes: 7, monitor_bytes: 8 });
        Some(Report { outcome: outcome.into(), events, memory, firmware: None, kernel: None })
    }

    #[test]
    fn only_a_boot_that_came_to_its_end_counts() {
        let end = || vec![event("first_instruction", 1.0), event("until_matched", 9.0)];
        let good = judge(&STEP, &done(0, ""), report(GOOD, end()));
        assert!(good.counts() && good.monitor_bytes == Some(8) && good.number == 3);
        let failure = |code, said: &str, report| {
            let run = judge(&STEP, &done(code, said), report);
            assert!(!run.counts());
            run.failure.unwrap()
        };
        assert_eq!(failure(1, "error: disk.raw: No such file\n", None), "disk.raw: No such file");
        assert_eq!(failure(0, "", report("powered-off", end())), "it ended with 0 and said nothing");
        assert_eq!(failure(0, "", report(GOOD, end()[..1].to_vec())), "its boot report lacks the boot's end");
        let said = "amiboot: 5s passed before its console showed /login:/\namiboot: the last lines of its console:\n\
                    amiboot:   GRUB loading...\namiboot:   \x1b[2Jerror: no such partition.\n";
        let expected =
            "5s passed before its console showed /login:/; its console's last line:  [2Jerror: no such partition.";
        assert_eq!(failure(124, said, report("timed-out", Vec::new())), expected);
        let said = "amiboot: the guest crashed: triple fault\namiboot: its console showed nothing\n";
        assert_eq!(failure(125, said, None), "the guest crashed: triple fault; its console showed nothing");
        let hung = judge(&STEP, &Done { hung: true, ..done(0, "") }, report(GOOD, end()));
        assert!(hung.failure.unwrap().contains("killed"));
    }

    #[test]
    fn a_mode_that_never_succeeds_is_given_up() {
        let of = |mode, failed: bool| {
            let mut run = run(1, mode, Cache::Warm, 1.0);
            run.failure = failed.then(|| "why".into());
            run
        };
        let runs = [of(Mode::Pv, false), of(Mode::Hvm, true), of(Mode::Pv, true), of(Mode::Pv, true)];
        assert!(!is_hopeless(&runs, Mode::Pv) && !is_hopeless(&runs, Mode::Hvm) && !is_hopeless(&runs, Mode::HvmUefi));
        assert!(is_hopeless(&[of(Mode::Hvm, true), of(Mode::Hvm, true)], Mode::Hvm));
    }

    #[test]
    fn a_report_that_is_not_whole_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report");
        for text in ["", "{", "[]", r#"{"outcome": 7}"#] {
            fs::write(&path, text).unwrap();
            assert!(Report::read(&path).is_none());
        }
        fs::write(&path, r#"{"outcome": "x", "events": [], "memory": null, "more": 1}"#).unwrap();
        assert!(Report::read(&path).is_some());
        assert!(Report::read(&dir.path().join("none")).is_none());
    }
}
