//! `amiboot parameter`: names for values, mostly for images.

use clap::{Args, Subcommand};

use super::CliError;
use super::listing::{self, minute};
use super::scope::{ScopeArgs, told};
use super::table::Column;
use crate::cloud::parameter::{DataType, Parameter, ParameterRequest};

/// The verbs of `amiboot parameter`.
#[derive(Subcommand)]
pub enum ParameterCommand {
    Put(PutArgs),
    /// Lists parameters: one's own, and public ones
    Ls(LsArgs),
    /// Prints the values of parameters
    Get(GetArgs),
    /// Deletes parameters
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// Gives a name a value; all accounts see what is named below /aws/
///
/// For example /aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64 with the id of an image, which launches
/// then take as resolve:ssm:NAME.
#[derive(Args)]
pub struct PutArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// The name
    name: String,
    /// The value
    value: String,
    /// What the value is: text, or aws:ec2:image for the id of an image that has to be there
    #[arg(long, value_name = "TYPE", default_value = "text", value_parser = data_type)]
    data_type: DataType,
    /// What is said of it
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Give one that is there the new value
    #[arg(long)]
    overwrite: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `parameter ls`.
#[derive(Args)]
pub struct LsArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Those below this path
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Options of `parameter get`.
#[derive(Args)]
pub struct GetArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// All that is known of them, as JSON
    #[arg(long)]
    json: bool,
}

/// Options of `parameter delete`.
#[derive(Args)]
pub struct DeleteArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

fn data_type(text: &str) -> Result<DataType, String> {
    text.parse().map_err(|error: crate::cloud::CloudError| error.to_string())
}

fn columns() -> [Column; 5] {
    [
        Column::new("NAME"),
        Column::new("VALUE").cut(),
        Column::new("VERSION").right().dropped(),
        Column::new("TYPE").dropped(),
        Column::new("MODIFIED").dropped(),
    ]
}

fn row(parameter: &Parameter) -> Vec<String> {
    vec![
        parameter.name.clone(),
        parameter.value.clone(),
        parameter.version.to_string(),
        parameter.data_type.to_string(),
        minute(&parameter.last_modified_date),
    ]
}

pub(super) fn run(command: &ParameterCommand) -> Result<u8, CliError> {
    match command {
        ParameterCommand::Put(args) => {
            let request = ParameterRequest {
                name: args.name.clone(),
                value: args.value.clone(),
                data_type: args.data_type,
                description: args.description.clone(),
                overwrite: args.overwrite,
            };
            let put = args.scope.open()?.put_parameter(&request).map_err(told)?;
            listing::print_one(&put, args.json, &columns(), row)?;
        }
        ParameterCommand::Ls(args) => {
            let mut cloud = args.scope.open()?;
            let found = match &args.path {
                Some(path) => cloud.parameters_by_path(path, true),
                None => cloud.all_parameters(),
            };
            listing::print(&found.map_err(told)?, args.json, "there are no parameters", &columns(), row)?;
        }
        ParameterCommand::Get(args) => {
            let mut cloud = args.scope.open()?;
            let found = args.names.iter().map(|name| cloud.parameter(name)).collect::<Result<Vec<_>, _>>();
            let found = found.map_err(told)?;
            if args.json {
                listing::print_json(&found)?;
            } else {
                found.iter().try_for_each(|parameter| listing::print_text(&format!("{}\n", parameter.value)))?;
            }
        }
        ParameterCommand::Delete(args) => {
            let mut cloud = args.scope.open()?;
            args.names.iter().try_for_each(|name| cloud.delete_parameter(name)).map_err(told)?;
        }
    }
    Ok(0)
}
