//! `amiboot access-key`: who may ask the API, and for which account.

use clap::{Args, Subcommand};
use serde_json::json;

use super::CliError;
use super::listing::{self, minute};
use super::output::note;
use super::scope::{ScopeArgs, told};
use super::table::Column;
use crate::cloud::access_key::{AccessKey, AccessKeys};
use crate::cloud::home::Home;

/// The verbs of `amiboot access-key`.
#[derive(Subcommand)]
pub enum AccessKeyCommand {
    Create(CreateArgs),
    /// Lists access keys, without their secrets
    Ls(LsArgs),
    /// Deletes access keys: nothing that they sign is taken any more
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// Makes an access key for an account, and prints its secret, this once
///
/// What is printed is for a shell: eval "$(amiboot access-key create)" makes this shell's programs use it.
#[derive(Args)]
pub struct CreateArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `access-key ls`.
#[derive(Args)]
pub struct LsArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Those of all accounts
    #[arg(long)]
    all: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `access-key delete`.
#[derive(Args)]
pub struct DeleteArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Their ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

fn open() -> Result<AccessKeys, CliError> {
    AccessKeys::open(&Home::of_person().map_err(told)?).map_err(told)
}

pub(super) fn run(command: &AccessKeyCommand) -> Result<u8, CliError> {
    match command {
        AccessKeyCommand::Create(args) => create(args)?,
        AccessKeyCommand::Ls(args) => {
            let account = args.scope.scope()?.account;
            let found = open()?.list((!args.all).then_some(&account)).map_err(told)?;
            let columns = ["ID", "ACCOUNT", "CREATED", "EXPIRES"].map(Column::new);
            listing::print(&found, args.json, "there are no access keys", &columns, |key: &AccessKey| {
                vec![
                    key.access_key_id.clone(),
                    key.account.to_string(),
                    minute(&key.create_date),
                    key.expiration.as_deref().map(minute).unwrap_or_default(),
                ]
            })?;
        }
        AccessKeyCommand::Delete(args) => {
            let account = args.scope.scope()?.account;
            let mut keys = open()?;
            args.ids.iter().try_for_each(|id| keys.delete(&account, id)).map_err(told)?;
        }
    }
    Ok(0)
}

fn create(args: &CreateArgs) -> Result<(), CliError> {
    let scope = args.scope.scope()?;
    let made = open()?.create(&scope.account).map_err(told)?;
    let (id, secret) = (&made.key.access_key_id, made.secret.as_str());
    if args.json {
        return listing::print_json(&json!({
            "access_key_id": id,
            "secret_access_key": secret,
            "account": scope.account,
            "create_date": made.key.create_date,
        }));
    }
    // Each client takes the region from this variable; some from no other.
    listing::print_text(&format!(
        "export AWS_ACCESS_KEY_ID={id}\nexport AWS_SECRET_ACCESS_KEY={secret}\nexport AWS_DEFAULT_REGION={}\n",
        scope.region
    ))?;
    note("the secret is not shown again");
    Ok(())
}
