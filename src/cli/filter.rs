//! Filters as a person writes them: `Name=NAME,Values=A,B` as the aws command has it, or short `NAME=A,B`.

use clap::Args;

use crate::cloud::filter::Filter;

/// Filters of a listing.
#[derive(Args, Clone, Debug)]
pub struct FilterArgs {
    /// Any filter that EC2 has for these, as in tag:Name=web-* or Name=availability-zone,Values=us-east-1a,us-east-1b
    /// (repeatable; all have to match, and of each one value)
    #[arg(long = "filter", visible_alias = "filters", value_name = "FILTER", num_args = 1.., value_parser = parse)]
    pub filters: Vec<Filter>,
}

/// Reads a filter. `\,` is a comma within a value.
///
/// # Errors
/// For what has no name or no value.
pub fn parse(text: &str) -> Result<Filter, String> {
    let fail = || format!("{text:?}: write a filter as NAME=VALUE,VALUE or Name=NAME,Values=VALUE,VALUE");
    let (name, values) = match text.strip_prefix("Name=") {
        Some(long) => long.split_once(",Values=").ok_or_else(fail)?,
        None => text.split_once('=').ok_or_else(fail)?,
    };
    if name.is_empty() {
        return Err(fail());
    }
    Ok(Filter::new(name, split(values)))
}

/// The values between commas. All other backslashes are the filter's own.
pub fn split(text: &str) -> Vec<String> {
    let mut values = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let value = values.last_mut();
        match (character, value) {
            ('\\', Some(value)) => match characters.next() {
                Some(',') => value.push(','),
                Some(other) => value.extend(['\\', other]),
                None => value.push('\\'),
            },
            (',', _) => values.push(String::new()),
            (other, Some(value)) => value.push(other),
            (_, None) => {}
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms() {
        for text in ["state=available,pending", "Name=state,Values=available,pending"] {
            assert_eq!(parse(text), Ok(Filter::new("state", ["available", "pending"])), "{text}");
        }
        for (text, name, values) in [
            ("tag:Name=a=b", "tag:Name", vec!["a=b"]),
            ("name=", "name", vec![""]),
            (r"name=a\,b,c", "name", vec!["a,b", "c"]),
            (r"name=a\*\\,c\", "name", vec![r"a\*\\", r"c\"]),
            ("Name=tag:a,Values=x", "tag:a", vec!["x"]),
            ("Name=name,Values=", "name", vec![""]),
        ] {
            assert_eq!(parse(text), Ok(Filter::new(name, values)), "{text}");
        }
        for wrong in ["", "state", "=x", "Name=state", "Name=,Values=x", "Name=state,values=x"] {
            assert!(parse(wrong).unwrap_err().contains("NAME=VALUE"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn values_come_back(values in prop::collection::vec("[a-z*? ]{0,5}", 1..5)) {
            prop_assert_eq!(split(&values.join(",")), values);
        }
    }
}
