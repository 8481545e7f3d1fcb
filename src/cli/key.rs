//! `amiboot key`: key pairs, by which people log in to instances.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::filter::FilterArgs;
use super::listing::{self, TagArgs, minute};
use super::output::note;
use super::scope::{ScopeArgs, told};
use super::table::Column;
use super::{CliError, Usage};
use crate::cloud::key_pair::{KeyPair, KeyType};

/// The longest file of a public key, in bytes.
const FILE_MAX: u64 = 64 << 10;

/// The verbs of `amiboot key`.
#[derive(Subcommand)]
pub enum KeyCommand {
    Create(CreateArgs),
    Import(ImportArgs),
    /// Lists key pairs
    Ls(LsArgs),
    /// Forgets key pairs; instances that were launched with them keep them
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// Makes a key pair; the private half is written to a file, and kept nowhere else
///
/// `amiboot instance ssh` finds it where it is written without --output.
#[derive(Args)]
pub struct CreateArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Its name
    name: String,
    /// What kind: ed25519 or rsa
    #[arg(long = "type", value_name = "KIND", default_value = "ed25519", value_parser = key_type)]
    key_type: KeyType,
    /// Write the private half to this file, which must not be there yet
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    tags: TagArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Takes the public half of a key that you have: a file in the form of OpenSSH, SSH2 (RFC 4716) or PEM
#[derive(Args)]
pub struct ImportArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Its name
    name: String,
    /// The file, for example ~/.ssh/id_ed25519.pub
    file: PathBuf,
    #[command(flatten)]
    tags: TagArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `key ls`.
#[derive(Args)]
pub struct LsArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `key delete`.
#[derive(Args)]
pub struct DeleteArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Their names
    #[arg(required = true)]
    names: Vec<String>,
}

fn key_type(text: &str) -> Result<KeyType, String> {
    text.parse().map_err(|error: crate::cloud::CloudError| error.to_string())
}

pub(super) fn run(command: &KeyCommand) -> Result<u8, CliError> {
    match command {
        KeyCommand::Create(args) => create(args),
        KeyCommand::Import(args) => {
            use std::io::Read;
            let mut text = String::new();
            let read = std::fs::File::open(&args.file).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text));
            read.map_err(|e| Usage(format!("{}: {e}", args.file.display())))?;
            let imported = args.scope.open()?.import_key_pair(&args.name, &text, &args.tags.tags()).map_err(told)?;
            print(&[imported], args.json)
        }
        KeyCommand::Ls(args) => {
            let found = args.scope.open()?.describe_key_pairs(&[], &[], &args.filter.filters).map_err(told)?;
            print(&found, args.json)
        }
        KeyCommand::Delete(args) => {
            let mut cloud = args.scope.open()?;
            for name in &args.names {
                if cloud.delete_key_pair(name).map_err(told)?.is_none() {
                    note(&format!("there is no key pair {name}"));
                }
            }
            Ok(0)
        }
    }
}

fn create(args: &CreateArgs) -> Result<u8, CliError> {
    let mut cloud = args.scope.open()?;
    let (made, path) = cloud
        .create_key_pair_in_file(&args.name, args.key_type, &args.tags.tags(), args.output.as_deref())
        .map_err(told)?;
    if args.json {
        let mut value = serde_json::to_value(&made)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("key_file".into(), path.to_string_lossy().into());
        }
        listing::print_json(&value)?;
        return Ok(0);
    }
    print(&[made], false)?;
    note(&format!("the private half is in {}", path.display()));
    Ok(0)
}

fn print(pairs: &[KeyPair], json: bool) -> Result<u8, CliError> {
    let columns = [
        Column::new("NAME"),
        Column::new("TYPE"),
        Column::new("FINGERPRINT").cut(),
        Column::new("ID").dropped(),
        Column::new("CREATED").dropped(),
    ];
    listing::print(pairs, json, "there are no key pairs", &columns, |pair| {
        vec![
            pair.key_name.clone(),
            pair.key_type.to_string(),
            pair.key_fingerprint.clone(),
            pair.key_pair_id.to_string(),
            minute(&pair.create_time),
        ]
    })?;
    Ok(0)
}
