//! `amiboot image copy`.

use clap::Args;

use super::list::print_one;
use crate::cli::CliError;
use crate::cli::listing::tag;
use crate::cli::scope::{ScopeArgs, told};
use crate::cloud::image::CopyRequest;

/// Copies an image, also into another region
///
/// The copy takes no room, and nothing that is done to the original is seen in it. It is for its owner alone.
#[derive(Args)]
pub struct CopyArgs {
    #[command(flatten)]
    scope: ScopeArgs,

    /// The image: its id, the beginning of it, or its name
    image: String,

    /// The copy's name; that of the original where not given, for copies into another region
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// The region that it is copied to; its own where not given
    #[arg(long, value_name = "REGION")]
    to_region: Option<String>,

    /// What is said of the copy
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,

    /// Copy the tags, too
    #[arg(long)]
    copy_tags: bool,

    /// A tag of the copy (repeatable)
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<(String, String)>,

    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn copy(args: &CopyArgs) -> Result<u8, CliError> {
    let mut here = args.scope.open()?;
    let source = here.resolve_image(&args.image).map_err(told)?;
    let region = here.scope().region.clone();
    let name = match &args.name {
        Some(name) => name.clone(),
        None => here.launchable_image(source.as_str()).map_err(told)?.name,
    };
    let request = CopyRequest {
        source_image_id: source.to_string(),
        source_region: Some(region.clone()),
        name,
        description: args.description.clone(),
        copy_image_tags: args.copy_tags,
        tags: args.tags.iter().cloned().collect(),
        ..CopyRequest::default()
    };
    let mut there = args.scope.open_in(args.to_region.as_ref().unwrap_or(&region))?;
    print_one(&there.copy_image(&request).map_err(told)?, args.json)
}
