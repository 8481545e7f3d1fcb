//! `amiboot image deregister`.

use clap::Args;

use crate::cli::scope::{ScopeArgs, told};
use crate::cli::{CliError, listing, output};
use crate::cloud::image::{DeleteReturnCode, Deregistered};

/// Makes an image none any more: nothing can be launched from it
///
/// Instances that were launched from it go on, and copies are not affected. Its snapshots stay, unless --delete-snapshots
/// says otherwise.
#[derive(Args)]
pub struct DeregisterArgs {
    #[command(flatten)]
    scope: ScopeArgs,

    /// The image: its id, the beginning of it, or its name
    image: String,

    /// Delete its snapshots, too, where no other image is made of them
    #[arg(long)]
    delete_snapshots: bool,

    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn deregister(args: &DeregisterArgs) -> Result<u8, CliError> {
    let mut cloud = args.scope.open()?;
    let id = cloud.resolve_image(&args.image).map_err(told)?;
    let done = cloud.deregister_image(id.as_str(), args.delete_snapshots).map_err(told)?;
    if args.json {
        listing::print_json(&done)?;
    } else {
        output::print(&describe(&done))?;
    }
    Ok(0)
}

fn describe(done: &Deregistered) -> String {
    let mut text = format!("{} deregistered\n", done.image_id);
    for result in &done.delete_snapshot_results {
        let what = match result.return_code {
            DeleteReturnCode::Success => "deleted",
            DeleteReturnCode::Skipped => "kept: another image is made of it",
            DeleteReturnCode::MissingPermissions => "kept: it is another account's",
        };
        text.push_str(&format!("{} {what}\n", result.snapshot_id));
    }
    text
}
