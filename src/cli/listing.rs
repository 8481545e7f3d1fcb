//! Listings of the catalogue: a table for a person, or JSON for a program.

use clap::Args;
use serde::Serialize;

use super::output::{clean, note};
use super::scope::told;
use super::table::{self, Column};
use super::{CliError, Usage, output};
use crate::cloud::mapping::BlockDevice;
use crate::cloud::tag::Tags;
use crate::launch::bdm;

/// Prints things as JSON, or as a table of their rows; says so on standard error where there are none.
///
/// # Errors
/// What the host says.
pub fn print<T: Serialize>(
    things: &[T],
    json: bool,
    none: &str,
    columns: &[Column],
    row: impl Fn(&T) -> Vec<String>,
) -> Result<(), CliError> {
    if json {
        return print_json(things);
    }
    if things.is_empty() {
        note(none);
        return Ok(());
    }
    let rows: Vec<Vec<String>> = things.iter().map(row).collect();
    Ok(output::print(&table::render(columns, &rows))?)
}

/// Prints a thing as JSON.
///
/// # Errors
/// What the host says.
pub fn print_json<T: Serialize + ?Sized>(thing: &T) -> Result<(), CliError> {
    Ok(output::print_json(thing)?)
}

/// Prints a text as it is.
///
/// # Errors
/// What the host says.
pub fn print_text(text: &str) -> Result<(), CliError> {
    Ok(output::print(text)?)
}

/// Prints names and values below each other.
///
/// # Errors
/// What the host says.
pub fn print_facts(facts: &[(&str, String)]) -> Result<(), CliError> {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| {
        let value = clean(value);
        format!("{}{name:<width$}{:#}  {value}\n", output::DIM, output::DIM)
    };
    Ok(output::print(&facts.iter().filter(|(_, value)| !value.is_empty()).map(line).collect::<String>())?)
}

/// The day and minute of a time as EC2 writes it.
#[must_use]
pub fn minute(time: &str) -> String {
    time.get(..16).unwrap_or(time).replace('T', " ")
}

/// Prints one thing as JSON, or as a table of one row.
///
/// # Errors
/// What the host says.
pub fn print_one<T: Serialize>(
    thing: &T,
    json: bool,
    columns: &[Column],
    row: impl Fn(&T) -> Vec<String>,
) -> Result<(), CliError> {
    if json { print_json(thing) } else { print(std::slice::from_ref(thing), false, "", columns, row) }
}

/// Tags that what is made is given.
#[derive(Args, Clone, Debug)]
pub struct TagArgs {
    /// A tag (repeatable)
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<(String, String)>,
}

impl TagArgs {
    /// They by their keys; of a key that is there twice, the last.
    pub fn tags(&self) -> Tags {
        self.tags.iter().cloned().collect()
    }
}

/// Entries of a block device mapping as a person writes them.
///
/// # Errors
/// For one that is none, or that instances and images of the catalogue do not have.
pub fn mapping(texts: &[String]) -> Result<Vec<BlockDevice>, CliError> {
    let mut mapping = Vec::new();
    for text in texts {
        for entry in bdm::parse(text).map_err(|error| Usage(error.to_string()))? {
            mapping.push(BlockDevice::from_entry(&entry).map_err(told)?);
        }
    }
    Ok(mapping)
}

/// A tag as `KEY=VALUE`.
///
/// # Errors
/// Where there is no `=`.
pub fn tag(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?}: write a tag as KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}
