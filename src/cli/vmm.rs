//! `amiboot vmm`: an instance's own process, which other commands start.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::{CRASHED, CliError, FAILED, USAGE, output};
use crate::monitor::config::InstanceConfig;
use crate::monitor::detach::{self, DetachError, Report};
use crate::monitor::exit::{Exit, Reason};
use crate::monitor::instance::{self, Surroundings};
use crate::vmm::timeline::Timeline;

/// Runs the machine of an instance, as a file says
///
/// Other commands start it. It keeps the console's output in a file, answers on a control socket, holds a lock for as long
/// as it lives, and writes how it ended to a file; the configuration says where. With --detach it goes on in the
/// background, and this command ends with 0 as soon as the machine runs.
#[derive(Args)]
pub struct VmmArgs {
    /// The instance's configuration, JSON
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Go on in the background once the machine runs
    #[arg(long)]
    detach: bool,

    /// With --detach: where the process says what it has to say
    #[arg(long, value_name = "FILE", requires = "detach")]
    log: Option<PathBuf>,

    /// Tell on standard output that the machine runs, or why not
    #[arg(long, hide = true, conflicts_with = "detach")]
    reporting: bool,

    /// Run on a KVM that interprets guest kernel code too, for guests small enough for it
    #[arg(long, hide = true, env = "AMIBOOT_ACCEPT_INTERPRETING_KVM", value_parser = FalseyValueParser::new())]
    accept_interpreting_kvm: bool,
}

/// Runs it; gives the exit code.
pub(super) fn run(args: &VmmArgs, timeline: &Arc<Timeline>) -> Result<u8, CliError> {
    if args.detach {
        return start(args);
    }
    if args.reporting {
        detach::leave_session();
    }
    let lived = live(args, timeline);
    if let (true, Err(error)) = (args.reporting, &lived) {
        // One that has told already that it runs has nobody who would read this.
        detach::report(&Report::Failed { code: FAILED, error: error.to_string() });
    }
    lived
}

fn start(args: &VmmArgs) -> Result<u8, CliError> {
    // Its faults are told by this process, as those of words.
    InstanceConfig::read(&args.config)?;
    let program = std::env::current_exe()?;
    let config = std::path::absolute(&args.config)?;
    match detach::detach(&program, &config, args.log.as_deref()) {
        Ok(pid) => {
            let line = serde_json::to_string(&Report::Started { pid })?;
            output::print(&format!("{line}\n"))?;
            Ok(0)
        }
        Err(DetachError::Failed { code, error }) if code != FAILED && code != USAGE => {
            output::note(&error);
            Ok(code)
        }
        Err(error) => Err(error.into()),
    }
}

fn live(args: &VmmArgs, timeline: &Arc<Timeline>) -> Result<u8, CliError> {
    // Opened before it is read: one that was replaced meanwhile is another's.
    let file = File::open(&args.config);
    let config = InstanceConfig::read(&args.config)?;
    let is_withdrawn = move || file.as_ref().is_ok_and(|file| file.metadata().is_ok_and(|meta| meta.nlink() == 0));
    let is_reporting = args.reporting;
    let surroundings = Surroundings {
        is_withdrawn: Box::new(is_withdrawn),
        accept_interpreting_kvm: args.accept_interpreting_kvm,
        timeline: timeline.clone(),
        started: Box::new(move || {
            if is_reporting {
                detach::report(&Report::Started { pid: std::process::id() });
            }
        }),
    };
    let exit = instance::run(&config, surroundings)?;
    tell(&exit);
    Ok(if matches!(exit.reason, Reason::Crashed(_)) { CRASHED } else { 0 })
}

fn tell(exit: &Exit) {
    match &exit.reason {
        Reason::PoweredOff => {}
        Reason::ResetRefused => output::note("the guest reset itself, and is not started again"),
        Reason::Forced => output::note("machine ended"),
        Reason::Crashed(how) => output::note(&format!("the guest crashed: {how}")),
        Reason::Error(why) => output::note(why),
    }
}
