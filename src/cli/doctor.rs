//! `amiboot doctor`: what this host can do, what is missing, and the command that mends it.

use clap::Args;

use super::CliError;

/// Tells what this host can do, what is missing, and the command that mends it
#[derive(Args)]
pub struct DoctorArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(_args: &DoctorArgs) -> Result<u8, CliError> {
    Ok(0)
}
