//! `amiboot tag`: tags of resources that are there already.

use clap::{Args, Subcommand};

use super::CliError;
use super::listing;
use super::scope::{ScopeArgs, told};

/// The verbs of `amiboot tag`.
#[derive(Subcommand)]
pub enum TagCommand {
    /// Gives a resource tags; a key that it has gets the new value
    Set(SetArgs),
    /// Takes tags away from a resource
    Rm(RemoveArgs),
    /// Lists the tags of a resource
    Ls(LsArgs),
}

/// Options of `tag set`.
#[derive(Args)]
pub struct SetArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The resource: an id, or the name of an instance or image
    resource: String,
    /// Tags that it gets
    #[arg(value_name = "KEY=VALUE", value_parser = listing::tag, required = true)]
    tags: Vec<(String, String)>,
}

/// Options of `tag rm`.
#[derive(Args)]
pub struct RemoveArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The resource: an id, or the name of an instance or image
    resource: String,
    /// Keys of tags that go
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
}

/// Options of `tag ls`.
#[derive(Args)]
pub struct LsArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The resource: an id, or the name of an instance or image
    resource: String,
}

pub(super) fn run(command: &TagCommand) -> Result<u8, CliError> {
    let (scope, resource) = match command {
        TagCommand::Set(args) => (&args.scope, &args.resource),
        TagCommand::Rm(args) => (&args.scope, &args.resource),
        TagCommand::Ls(args) => (&args.scope, &args.resource),
    };
    let mut cloud = scope.open()?;
    let tags = match command {
        TagCommand::Set(args) => cloud.create_tags(resource, &args.tags.iter().cloned().collect()),
        TagCommand::Rm(args) => cloud.delete_tags(resource, &args.keys),
        TagCommand::Ls(_) => cloud.tags(resource),
    };
    listing::print_json(&tags.map_err(told)?).map(|()| 0)
}
