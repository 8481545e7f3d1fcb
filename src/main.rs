//! The `amiboot` command.

use std::process::ExitCode;
use std::sync::Arc;

use amiboot::vmm::timeline::Timeline;

fn main() -> ExitCode {
    // The first line: instants of a boot count from here.
    let timeline = Arc::new(Timeline::from_process_start());
    amiboot::cli::main(&timeline)
}
