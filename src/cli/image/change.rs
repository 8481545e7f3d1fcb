//! What an owner changes of an image: `tag`, `describe`, `disable`, `enable`, `deprecate`, `undeprecate`, `protect`.

use std::time::Duration;

use clap::Args;

use super::list::print_one;
use crate::cli::scope::{ScopeArgs, told};
use crate::cli::{CliError, Usage, listing};
use crate::cloud::image::Image;
use crate::cloud::{Cloud, CloudError, time};

/// Which image, and how to tell of it.
#[derive(Args)]
pub struct Which {
    #[command(flatten)]
    scope: ScopeArgs,

    /// The image: its id, the beginning of it, or its name
    image: String,

    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Which {
    fn change(&self, change: impl FnOnce(&mut Cloud, &str) -> Result<Image, CloudError>) -> Result<u8, CliError> {
        let mut cloud = self.scope.open()?;
        let id = cloud.resolve_image(&self.image).map_err(told)?;
        print_one(&change(&mut cloud, id.as_str()).map_err(told)?, self.json)
    }
}

/// Gives an image tags, and takes them away
#[derive(Args)]
pub struct TagArgs {
    #[command(flatten)]
    which: Which,

    /// Tags that it gets
    #[arg(value_name = "KEY=VALUE", value_parser = listing::tag, required_unless_present = "remove")]
    tags: Vec<(String, String)>,

    /// The key of a tag that goes (repeatable)
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
}

/// Says something else of an image
#[derive(Args)]
pub struct DescribeArgs {
    #[command(flatten)]
    which: Which,

    /// What is said of it: at most 255 characters
    text: String,
}

/// Allows no launches of an image for now; its launch permissions go for good
#[derive(Args)]
pub struct DisableArgs {
    #[command(flatten)]
    which: Which,
}

/// Allows launches of an image again
#[derive(Args)]
pub struct EnableArgs {
    #[command(flatten)]
    which: Which,
}

/// Hides an image from others' listings from a day on; whoever may launch it still can
#[derive(Args)]
pub struct DeprecateArgs {
    #[command(flatten)]
    which: Which,

    /// From when on, in UTC: 2030-01-31, 2030-01-31T12:00:00Z, or a time from now such as 30d
    #[arg(long, value_name = "WHEN")]
    at: String,
}

/// Shows an image in others' listings again
#[derive(Args)]
pub struct UndeprecateArgs {
    #[command(flatten)]
    which: Which,
}

/// Protects an image from deregistration
#[derive(Args)]
pub struct ProtectArgs {
    #[command(flatten)]
    which: Which,

    /// No longer
    #[arg(long)]
    off: bool,
}

pub(super) fn tag(args: &TagArgs) -> Result<u8, CliError> {
    let tags = args.tags.iter().cloned().collect();
    args.which.change(|cloud, id| cloud.tag_image(id, &tags, &args.remove))
}

pub(super) fn describe(args: &DescribeArgs) -> Result<u8, CliError> {
    args.which.change(|cloud, id| cloud.describe_image(id, &args.text))
}

pub(super) fn disable(args: &DisableArgs) -> Result<u8, CliError> {
    args.which.change(Cloud::disable_image)
}

pub(super) fn enable(args: &EnableArgs) -> Result<u8, CliError> {
    args.which.change(Cloud::enable_image)
}

pub(super) fn deprecate(args: &DeprecateArgs) -> Result<u8, CliError> {
    let at = instant(&args.at, time::now())?;
    args.which.change(|cloud, id| cloud.deprecate_image(id, Some(at)))
}

pub(super) fn undeprecate(args: &UndeprecateArgs) -> Result<u8, CliError> {
    args.which.change(|cloud, id| cloud.deprecate_image(id, None))
}

pub(super) fn protect(args: &ProtectArgs) -> Result<u8, CliError> {
    args.which.change(|cloud, id| cloud.protect_image(id, !args.off))
}

/// A day, an instant, or a time from now on.
fn instant(text: &str, now: i64) -> Result<i64, Usage> {
    let from_now = |time: Duration| i64::try_from(time.as_millis()).ok().and_then(|time| now.checked_add(time));
    time::parse(text).or_else(|| from_now(humantime::parse_duration(text).ok()?)).ok_or_else(|| {
        Usage(format!("{text:?} is no time: write 2030-01-31, 2030-01-31T12:00:00Z, or a time from now such as 30d"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants() {
        assert_eq!(instant("2026-01-01", 5).unwrap(), 1_767_225_600_000);
        assert_eq!(instant("2026-01-01T00:00:00Z", 5).unwrap(), 1_767_225_600_000);
        assert_eq!(instant("2s", 5).unwrap(), 2005);
        for wrong in ["", "soon", "-3d", "9999999999999999d"] {
            assert!(instant(wrong, 5).is_err(), "{wrong}");
        }
    }
}
