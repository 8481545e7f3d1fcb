//! Filters of listings, as all of EC2's `Describe...` calls have them.
//!
//! A filter is a name and some values. A resource passes where, for every filter, one of its values of that name matches
//! one of the filter's. `tag:KEY` and `tag-key` work alike for all kinds of resources; the other names are each kind's own.

mod pattern;
pub(super) mod values;

use std::borrow::Cow;

pub use pattern::Pattern;

use super::error::CloudError;
use super::tag::Tags;

/// Most filters of one call.
const MAX_FILTERS: usize = 50;
/// Most values of one filter.
const MAX_VALUES: usize = 200;
/// Most characters of a value.
const MAX_LENGTH: usize = 255;

/// A kind of resource that can be looked for.
pub trait Filtered {
    /// Names of filters, those of tags left out.
    const FILTERS: &'static [&'static str];

    /// What this one has for a name of [`Filtered::FILTERS`]: nothing, one value or several. Numbers are decimal, truth is
    /// `true` or `false`, times are as [`super::time::format`] writes them.
    fn values(&self, filter: &str) -> Vec<Cow<'_, str>>;

    /// Its tags, as far as the caller may see them.
    fn tags(&self) -> &Tags;
}

/// A filter as a caller writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Its name, as in `architecture` or `tag:Name`.
    pub name: String,
    /// Values, any of which is enough.
    pub values: Vec<String>,
}

impl Filter {
    /// A filter of these values.
    pub fn new<V: Into<String>>(name: impl Into<String>, values: impl IntoIterator<Item = V>) -> Self {
        Self { name: name.into(), values: values.into_iter().map(Into::into).collect() }
    }
}

/// Filters of one kind of resource, all of which have to match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(Vec<(String, Vec<Pattern>)>);

impl Filters {
    /// Checks filters for resources of the kind `R`.
    ///
    /// # Errors
    /// `InvalidParameterValue` for a name that they do not have, `FilterLimitExceeded`.
    pub fn parse<R: Filtered>(filters: &[Filter]) -> Result<Self, CloudError> {
        if filters.len() > MAX_FILTERS {
            return Err(too_many(format!("a call may have {MAX_FILTERS} filters; this one has {}", filters.len())));
        }
        filters.iter().map(parse::<R>).collect::<Result<_, _>>().map(Self)
    }

    /// Whether `resource` passes.
    #[must_use]
    pub fn pass<R: Filtered>(&self, resource: &R) -> bool {
        self.0.iter().all(|(name, patterns)| {
            let any = |value: &str| patterns.iter().any(|pattern| pattern.matches(value));
            match name.strip_prefix("tag:") {
                Some(key) => resource.tags().get(key).is_some_and(|value| any(value)),
                None if name == "tag-key" => resource.tags().keys().any(|key| any(key)),
                None => resource.values(name).iter().any(|value| any(value)),
            }
        })
    }

    /// The values of each filter without wildcards, for those who can look them up faster.
    pub fn exact(&self) -> impl Iterator<Item = (&str, Vec<&str>)> {
        self.0.iter().filter_map(|(name, patterns)| {
            let values = patterns.iter().map(Pattern::exact).collect::<Option<Vec<_>>>()?;
            Some((name.as_str(), values))
        })
    }
}

fn parse<R: Filtered>(filter: &Filter) -> Result<(String, Vec<Pattern>), CloudError> {
    let Filter { name, values } = filter;
    let of_tags = name == "tag-key" || name.strip_prefix("tag:").is_some_and(|key| !key.is_empty());
    if !of_tags && !R::FILTERS.contains(&name.as_str()) {
        return Err(CloudError::value(format!("The filter '{name}' is invalid")));
    }
    if values.is_empty() {
        let message = format!("The request must contain a value for the filter '{name}'");
        return Err(CloudError::Parameter { code: "MissingParameter", message });
    }
    if values.len() > MAX_VALUES {
        return Err(too_many(format!("the filter '{name}' has {} values; it may have {MAX_VALUES}", values.len())));
    }
    if let Some(long) = values.iter().find(|value| value.chars().count() > MAX_LENGTH) {
        let message =
            format!("the filter '{name}': a value may have {MAX_LENGTH} characters; one has {}", long.chars().count());
        return Err(CloudError::value(message));
    }
    Ok((name.clone(), values.iter().map(|value| Pattern::new(value)).collect()))
}

fn too_many(message: String) -> CloudError {
    CloudError::Parameter { code: "FilterLimitExceeded", message }
}

#[cfg(test)]
mod listings;

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing {
        colours: Vec<&'static str>,
        tags: Tags,
    }

    impl Filtered for Thing {
        const FILTERS: &'static [&'static str] = &["colour", "size"];

        fn values(&self, filter: &str) -> Vec<Cow<'_, str>> {
            match filter {
                "colour" => self.colours.iter().map(|colour| Cow::from(*colour)).collect(),
                "size" => vec![Cow::from(self.colours.len().to_string())],
                _ => Vec::new(),
            }
        }

        fn tags(&self) -> &Tags {
            &self.tags
        }
    }

    fn thing() -> Thing {
        Thing { colours: vec!["red", "blue"], tags: Tags::from([("Name".into(), "web-1".into())]) }
    }

    fn passes(filters: &[(&str, &[&str])]) -> bool {
        let filters: Vec<_> = filters.iter().map(|(name, values)| Filter::new(*name, values.iter().copied())).collect();
        Filters::parse::<Thing>(&filters).unwrap().pass(&thing())
    }

    #[test]
    fn values_or_names_and() {
        assert!(passes(&[]));
        assert!(passes(&[("colour", &["green", "blue"])]));
        assert!(passes(&[("colour", &["blue"]), ("size", &["2"])]));
        assert!(!passes(&[("colour", &["blue"]), ("size", &["3"])]));
        assert!(passes(&[("colour", &["red"]), ("colour", &["blue"])]));
        assert!(!passes(&[("colour", &["RED"])]));
        assert!(passes(&[("colour", &["r*d"])]));
    }

    #[test]
    fn tags_of_all_kinds() {
        assert!(passes(&[("tag:Name", &["web-*"])]));
        assert!(!passes(&[("tag:name", &["web-*"])]));
        assert!(!passes(&[("tag:Other", &["*"])]));
        assert!(passes(&[("tag-key", &["Other", "Name"])]));
        assert!(!passes(&[("tag-key", &["web-1"])]));
    }

    #[test]
    fn what_is_no_filter() {
        let code = |filters: &[Filter]| Filters::parse::<Thing>(filters).map_err(|error| error.code());
        let error = Filters::parse::<Thing>(&[Filter::new("color", ["red"])]).unwrap_err();
        assert_eq!(
            (error.code().as_str(), error.to_string().as_str()),
            ("InvalidParameterValue", "The filter 'color' is invalid")
        );
        for wrong in ["", "tag:", "Colour", "tag"] {
            assert_eq!(code(&[Filter::new(wrong, ["red"])]), Err("InvalidParameterValue".into()), "{wrong}");
        }
        assert_eq!(code(&[Filter::new("colour", [""; 0])]), Err("MissingParameter".into()));
        assert_eq!(code(&[Filter::new("colour", ["x"; 201])]), Err("FilterLimitExceeded".into()));
        assert_eq!(code(&vec![Filter::new("colour", ["x"]); 51]), Err("FilterLimitExceeded".into()));
        assert_eq!(code(&[Filter::new("colour", ["x".repeat(256)])]), Err("InvalidParameterValue".into()));
        assert!(code(&[Filter::new("colour", ["é".repeat(255)])]).is_ok());
    }

    #[test]
    fn exact_values_can_be_looked_up() {
        let filters = [Filter::new("colour", ["red", r"\*"]), Filter::new("size", ["2", "3*"])];
        let filters = Filters::parse::<Thing>(&filters).unwrap();
        assert_eq!(filters.exact().collect::<Vec<_>>(), [("colour", vec!["red", "*"])]);
    }
}
