//! `amiboot image share`.

use clap::Args;

use crate::cli::CliError;
use crate::cli::listing;
use crate::cli::scope::{ScopeArgs, told};
use crate::cloud::image::{LaunchPermission, LaunchPermissions};

/// Says who may launch an image beside its owner, and changes that
#[derive(Args)]
pub struct ShareArgs {
    #[command(flatten)]
    scope: ScopeArgs,

    /// The image: its id, the beginning of it, or its name
    image: String,

    /// Accounts that may launch it (repeatable)
    #[arg(long = "account", value_name = "ACCOUNT", value_delimiter = ',')]
    accounts: Vec<String>,

    /// Everybody may launch it
    #[arg(long)]
    public: bool,

    /// Accounts that no longer may; all: not everybody any more (repeatable)
    #[arg(long, value_name = "ACCOUNT|all", value_delimiter = ',')]
    revoke: Vec<String>,

    /// Nobody but its owner may launch it
    #[arg(long, conflicts_with_all = ["accounts", "public", "revoke"])]
    reset: bool,

    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn share(args: &ShareArgs) -> Result<u8, CliError> {
    let who = |names: &[String]| names.iter().map(|name| name.parse()).collect::<Result<Vec<LaunchPermission>, _>>();
    let mut add = who(&args.accounts).map_err(told)?;
    add.extend(args.public.then_some(LaunchPermission::Everybody));
    let remove = who(&args.revoke).map_err(told)?;
    let mut cloud = args.scope.open()?;
    let id = cloud.resolve_image(&args.image).map_err(told)?;
    let done = if args.reset {
        cloud.unshare_image(id.as_str())
    } else if add.is_empty() && remove.is_empty() {
        cloud.launch_permissions(id.as_str())
    } else {
        cloud.share_image(id.as_str(), &add, &remove)
    };
    let permissions = done.map_err(told)?;
    if args.json {
        listing::print_json(&permissions)?;
    } else {
        listing::print_facts(&facts(&permissions))?;
    }
    Ok(0)
}

fn facts(permissions: &LaunchPermissions) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("image", permissions.image_id.to_string()),
        ("owner", permissions.owner_id.clone()),
        ("public", if permissions.is_public { "yes".into() } else { "no".into() }),
    ];
    facts.extend(permissions.accounts.iter().map(|account| ("account", account.clone())));
    facts
}
