//! What many actions have in common: tags, filters, pages.

use crate::api::error::ApiError;
use crate::api::model::{Filter, Tag, TagSpecification};
use crate::api::wire::Timestamp;
use crate::cloud::tag::Tags;
use crate::cloud::{Id, Kind, filter, time};

/// Filters of a request.
pub fn filters(filters: &mut Vec<Filter>) -> Result<Vec<filter::Filter>, ApiError> {
    let read = |filter: Filter| {
        let name = filter.name.ok_or_else(|| ApiError::missing("Filter.N.Name"))?;
        Ok(filter::Filter { name, values: filter.values })
    };
    std::mem::take(filters).into_iter().map(read).collect()
}

/// Takes the filters out that are of none but this listing's own names, as of what a status says.
pub fn own_filters(filters: &mut Vec<filter::Filter>, names: &[&str]) -> Vec<filter::Filter> {
    filters.extract_if(.., |filter| names.contains(&filter.name.as_str())).collect()
}

/// Whether what has these values, each under a filter's name, passes.
pub fn passes(filters: &[filter::Filter], values: &[(&str, &str)]) -> bool {
    filters.iter().all(|filter| {
        let own = values.iter().filter(|(name, _)| *name == filter.name);
        let is_asked = |value: &str| filter.values.iter().any(|asked| filter::Pattern::new(asked).matches(value));
        own.into_iter().any(|(_, value)| is_asked(value))
    })
}

/// Tags of an answer.
pub fn tags(tags: &Tags) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag { key: Some(key.clone()), value: Some(value.clone()) }).collect()
}

/// The tags that a request has for a kind of resource. It may have none for other kinds.
pub fn tags_for(kind: &str, specifications: &mut Vec<TagSpecification>) -> Result<Tags, ApiError> {
    let [tags] = tags_for_all([kind], specifications)?;
    Ok(tags)
}

/// The same for several kinds.
pub fn tags_for_all<const N: usize>(
    kinds: [&str; N],
    specifications: &mut Vec<TagSpecification>,
) -> Result<[Tags; N], ApiError> {
    let mut all = [const { Tags::new() }; N];
    for specification in std::mem::take(specifications) {
        let kind = specification.resource_type.ok_or_else(|| ApiError::missing("TagSpecification.N.ResourceType"))?;
        let at = kinds.iter().position(|have| *have == kind);
        let Some(at) = at else {
            let message = format!("'{kind}' is not a valid taggable resource type for this operation.");
            return Err(ApiError::value(message));
        };
        for tag in specification.tags {
            let key = tag.key.ok_or_else(|| ApiError::missing("TagSpecification.N.Tag.M.Key"))?;
            if all[at].insert(key.clone(), tag.value.unwrap_or_default()).is_some() {
                return Err(ApiError::value(format!("Duplicate tag key '{key}' specified.")));
            }
        }
    }
    Ok(all)
}

/// An id as the API takes it: whole, and of its kind. (Persons may give the beginning of one, or a name.)
///
/// # Errors
/// `.Malformed` of the kind.
pub fn check_id(kind: Kind, id: &str) -> Result<(), ApiError> {
    Id::parse(kind, id)?;
    Ok(())
}

/// The same of several, each of its own kind.
///
/// # Errors
/// As [`check_id`].
pub fn check_ids(kind: impl Fn(&str) -> Kind, ids: &[String]) -> Result<(), ApiError> {
    ids.iter().try_for_each(|id| check_id(kind(id), id))
}

/// A number of an answer.
pub fn count(value: Option<u64>) -> Option<i64> {
    value.and_then(|value| i64::try_from(value).ok())
}

/// A number of a request that cannot be negative.
pub fn natural(value: Option<i64>, parameter: &str) -> Result<Option<u64>, ApiError> {
    let wrong =
        |value: i64| ApiError::value(format!("Value ({value}) for parameter {parameter} is invalid. It is negative."));
    value.map(|value| u64::try_from(value).map_err(|_| wrong(value))).transpose()
}

/// A time as the domain writes it.
pub fn moment(text: &str) -> Option<Timestamp> {
    time::parse(text).map(Timestamp)
}

/// A text that says something: an empty one is as good as none.
pub fn text(value: &mut Option<String>) -> Option<String> {
    value.take().filter(|text| !text.is_empty())
}

/// A member that only says what is so anyhow.
///
/// # Errors
/// `UnsupportedOperation` where it says something else.
pub fn only(value: &mut Option<String>, parameter: &str, possible: &[&str]) -> Result<(), ApiError> {
    match text(value) {
        Some(value) if !possible.contains(&value.as_str()) => {
            Err(ApiError::unsupported(format!("The value {value} of the parameter {parameter} is not supported")))
        }
        _ => Ok(()),
    }
}

/// Ids together with pages, which EC2 refuses.
pub fn check_page(ids: &[String], max_results: Option<i64>, what: &str) -> Result<(), ApiError> {
    if !ids.is_empty() && max_results.is_some() {
        let message = format!("The parameter {what} cannot be used with the parameter maxResults");
        return Err(ApiError::combination(message));
    }
    Ok(())
}

/// A required member.
pub fn need<T>(value: Option<T>, parameter: &str) -> Result<T, ApiError> {
    value.ok_or_else(|| ApiError::missing(parameter))
}

/// One page of a listing that is sorted by `key`, and the token of the next.
///
/// A token is the key of the last that was told, so that pages stay right when things come and go between them.
pub fn page<T>(
    items: Vec<T>,
    key: impl Fn(&T) -> String,
    max_results: Option<i64>,
    token: Option<String>,
    (least, most): (i64, i64),
) -> Result<(Vec<T>, Option<String>), ApiError> {
    use base64ct::{Base64UrlUnpadded, Encoding};

    let after = match token.filter(|token| !token.is_empty()) {
        None => None,
        Some(token) => {
            let read = Base64UrlUnpadded::decode_vec(&token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            Some(read.ok_or_else(|| ApiError::value("The token 'NextToken' is invalid"))?)
        }
    };
    let most_now = match max_results {
        None => usize::MAX,
        Some(count) if (least..=most).contains(&count) => usize::try_from(count).unwrap_or(usize::MAX),
        Some(count) => {
            let why = format!("Expecting a value between {least} and {most}.");
            return Err(ApiError::value(format!("Value ( {count} ) for parameter maxResults is invalid. {why}")));
        }
    };
    let mut keyed: Vec<(String, T)> = items.into_iter().map(|item| (key(&item), item)).collect();
    keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut rest = keyed.into_iter().filter(|(key, _)| after.as_ref().is_none_or(|after| key > after));
    let told: Vec<(String, T)> = rest.by_ref().take(most_now).collect();
    let next = match (told.last(), rest.next()) {
        (Some((last, _)), Some(_)) => Some(Base64UrlUnpadded::encode_string(last.as_bytes())),
        _ => None,
    };
    Ok((told.into_iter().map(|(_, item)| item).collect(), next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_end_where_the_next_begins() {
        let items = || vec![3, 1, 2, 5, 4];
        let key = |item: &i32| item.to_string();
        let (first, token) = page(items(), key, Some(2), None, (1, 10)).unwrap();
        let (second, token) = page(items(), key, Some(2), token, (1, 10)).unwrap();
        // One that was told goes meanwhile.
        let (third, end) = page(vec![1, 3, 5], key, Some(2), token, (1, 10)).unwrap();
        assert_eq!((first, second, third, end), (vec![1, 2], vec![3, 4], vec![5], None));
        assert_eq!(page(items(), key, None, None, (1, 10)).unwrap(), (vec![1, 2, 3, 4, 5], None));
        for (count, token) in [(Some(0), None), (Some(11), None), (None, Some("?"))] {
            let error = page(items(), key, count, token.map(str::to_owned), (1, 10)).unwrap_err();
            assert_eq!(error.code, "InvalidParameterValue");
        }
    }
}
