//! What resources answer a filter with: small helpers for [`super::Filtered::values`].

use std::borrow::Cow;

/// One value.
pub fn one<'a>(value: impl Into<Cow<'a, str>>) -> Vec<Cow<'a, str>> {
    vec![value.into()]
}

/// One value, or none.
pub fn optional(value: Option<&str>) -> Vec<Cow<'_, str>> {
    value.map(Cow::from).into_iter().collect()
}

/// One value that is made for it: a number, an id, an address.
pub fn shown<'a>(value: &impl ToString) -> Vec<Cow<'a, str>> {
    one(value.to_string())
}

/// The same, or none.
pub fn shown_if<'a>(value: Option<impl ToString>) -> Vec<Cow<'a, str>> {
    value.map(|value| value.to_string().into()).into_iter().collect()
}

/// As EC2 writes whether something is so.
pub fn truth(is_so: bool) -> Cow<'static, str> {
    Cow::from(if is_so { "true" } else { "false" })
}
