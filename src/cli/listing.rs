//! Listings of the catalogue: a table for a person, or JSON for a program.

use serde::Serialize;

use super::output::{clean, note};
use super::table::{self, Column};
use super::{CliError, output};

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

/// Tags as `KEY=VALUE`.
///
/// # Errors
/// Where there is no `=`.
pub fn tag(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?}: write a tag as KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}
