//! Listings of images.

use rusqlite::{Connection, ToSql};

use super::{Image, access, row};
use crate::cloud::error::CloudError;
use crate::cloud::filter::{Filter, Filters};
use crate::cloud::scope::{Account, Scope};
use crate::cloud::{Cloud, time};

/// Most images of one page.
const MAX_PAGE: usize = 1000;

/// Filters that the catalogue looks up itself where they have no wildcards, and its columns.
const COLUMNS_OF_FILTERS: [(&str, &str); 8] = [
    ("architecture", "architecture"),
    ("image-id", "id"),
    ("image-type", "image_type"),
    ("name", "name"),
    ("owner-id", "owner"),
    ("root-device-type", "root_device_type"),
    ("state", "state"),
    ("virtualization-type", "virtualization_type"),
];

/// Which images to list ("DescribeImages"). Of those that the caller may see: its own, those shared with it, public ones.
#[derive(Clone, Debug, Default)]
pub struct ImageQuery {
    /// These alone, each of which has to be there.
    pub ids: Vec<String>,
    /// Of any of these owners: `self`, an alias such as `amazon`, an account.
    pub owners: Vec<String>,
    /// With launch permission for any of these: `self` (and the caller's account) for those shared with the caller by name,
    /// `all` for public ones, another account for the caller's own that are shared with that.
    pub executable_by: Vec<String>,
    /// All of which have to match.
    pub filters: Vec<Filter>,
    /// Also others' images whose deprecation date has passed.
    pub include_deprecated: bool,
    /// Also the caller's own that are disabled.
    pub include_disabled: bool,
    /// How many to answer with at most: 1 to 1000; all where not said.
    pub max_results: Option<usize>,
    /// Where the last page ended.
    pub next_token: Option<String>,
}

/// Some images, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagePage {
    /// The images.
    pub images: Vec<Image>,
    /// Where the next page begins, if there is one.
    pub next_token: Option<String>,
}

impl Cloud {
    /// Images that the caller may see.
    ///
    /// # Errors
    /// For an id what [`Cloud::image`] says; `InvalidUserID.Malformed` for an owner that is none; `InvalidParameterValue` for
    /// filters and numbers that are none; `InvalidParameterCombination` for ids together with pages; `InvalidNextToken`.
    pub fn images(&mut self, query: &ImageQuery) -> Result<ImagePage, CloudError> {
        let scope = self.scope.clone();
        let filters = Filters::parse::<Image>(&query.filters)?;
        check_page(query)?;
        self.catalogue.read(|tx| {
            let condition = condition(tx, &scope, query, &filters)?;
            let values: Vec<&dyn ToSql> = condition.values.iter().map(|value| value as &dyn ToSql).collect();
            let mut images = row::select(tx, &scope.account, &condition.text, &values)?;
            for id in &query.ids {
                if !images.iter().any(|image| image.image_id.as_str() == id) {
                    // Says why it is not there, unless something else of the query leaves it out.
                    access::visible(tx, &scope, id)?;
                }
            }
            images.retain(|image| filters.pass(image));
            let more = query.max_results.is_some_and(|most| images.len() > most);
            images.truncate(query.max_results.unwrap_or(usize::MAX));
            let next_token = images.last().filter(|_| more).map(token);
            Ok(ImagePage { images, next_token })
        })
    }
}

fn check_page(query: &ImageQuery) -> Result<(), CloudError> {
    if !query.ids.is_empty() && (query.max_results.is_some() || query.next_token.is_some()) {
        return Err(CloudError::combination(
            "The parameter imageIds cannot be used with the parameters maxResults and nextToken",
        ));
    }
    if let Some(wrong) = query.max_results.filter(|most| !(1..=MAX_PAGE).contains(most)) {
        return Err(CloudError::value(format!("Value ({wrong}) for parameter maxResults is invalid: 1 to {MAX_PAGE}")));
    }
    Ok(())
}

/// Where a page ends: when its last image was made, and which it is.
fn token(last: &Image) -> String {
    format!("{:x}.{}", time::parse(&last.creation_date).unwrap_or_default(), last.image_id)
}

fn read_token(token: &str) -> Result<(i64, String), CloudError> {
    let parts = token.split_once('.').and_then(|(created, id)| {
        Some((i64::from_str_radix(created, 16).ok()?, access::parse_id(id).ok()?.to_string()))
    });
    parts.ok_or_else(|| CloudError::Parameter {
        code: "InvalidNextToken",
        message: format!("The token '{token}' is invalid: give the one that the last page ended with"),
    })
}

/// A condition and what its numbers stand for. The first value is the caller's account.
struct Condition {
    text: String,
    values: Vec<String>,
}

impl Condition {
    fn value(&mut self, value: impl Into<String>) -> String {
        self.values.push(value.into());
        format!("?{}", self.values.len())
    }

    fn list<V: Into<String>>(&mut self, values: impl IntoIterator<Item = V>) -> String {
        let numbers: Vec<String> = values.into_iter().map(|value| self.value(value)).collect();
        numbers.join(", ")
    }

    fn and(&mut self, text: &str) {
        self.text.push_str(" AND (");
        self.text.push_str(text);
        self.text.push(')');
    }
}

fn condition(db: &Connection, scope: &Scope, query: &ImageQuery, filters: &Filters) -> Result<Condition, CloudError> {
    let values = vec![scope.account.to_string(), scope.region.clone()];
    let mut condition = Condition { text: format!("region = ?2 AND {}", access::VISIBLE), values };
    if query.ids.is_empty() {
        if !query.include_deprecated {
            condition.and(&format!("owner = ?1 OR deprecated IS NULL OR deprecated > {}", time::now()));
        }
        if !query.include_disabled {
            condition.and("state <> 'disabled'");
        }
    } else {
        let ids = condition.list(&query.ids);
        condition.and(&format!("id IN ({ids})"));
    }
    if !query.owners.is_empty() {
        let owners = condition.list(owners(db, scope, &query.owners)?);
        condition.and(&format!("owner IN ({owners})"));
    }
    if !query.executable_by.is_empty() {
        let any = executable_by(&mut condition, scope, &query.executable_by)?;
        condition.and(&any);
    }
    if let Some(token) = &query.next_token {
        let (created, id) = read_token(token)?;
        let id = condition.value(id);
        condition.and(&format!("created > {created} OR created = {created} AND id > {id}"));
    }
    for (name, values) in filters.exact() {
        if let Some((_, column)) = COLUMNS_OF_FILTERS.iter().find(|(filter, _)| *filter == name) {
            let values = condition.list(values);
            condition.and(&format!("{column} IN ({values})"));
        }
    }
    Ok(condition)
}

/// The accounts that owners' names mean. An alias that no account has means none.
pub(in crate::cloud) fn owners(db: &Connection, scope: &Scope, names: &[String]) -> Result<Vec<String>, CloudError> {
    let mut accounts = Vec::new();
    let mut find = db.prepare_cached("SELECT account FROM owner_aliases WHERE alias = ?1")?;
    for name in names {
        match name.parse::<Account>() {
            Ok(account) => accounts.push(account.to_string()),
            Err(_) if name == "self" => accounts.push(scope.account.to_string()),
            Err(_) if is_alias(name) => {
                let found = find.query_map([name], |row| row.get(0))?;
                accounts.extend(found.collect::<Result<Vec<String>, _>>()?);
            }
            Err(_) => {
                let message =
                    format!("Invalid user id: \"{name}\"; an owner is self, an alias such as amazon, or 12 digits");
                return Err(CloudError::Parameter { code: "InvalidUserID.Malformed", message });
            }
        }
    }
    Ok(accounts)
}

/// Whether a name could be an alias of an account: letters and dashes, beginning with a letter.
fn is_alias(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn executable_by(condition: &mut Condition, scope: &Scope, names: &[String]) -> Result<String, CloudError> {
    let shared_with = |account: &str| {
        format!("EXISTS (SELECT 1 FROM launch_permissions WHERE image = images.id AND account = {account})")
    };
    let mut any = Vec::new();
    for name in names {
        any.push(match name.as_str() {
            "all" => "is_public".to_owned(),
            name if name == "self" || name == scope.account.as_str() => shared_with("?1"),
            name => {
                let account: Account =
                    name.parse().map_err(|_| CloudError::AttributeItem { value: name.to_owned() })?;
                // With whom others share is not the caller's to know.
                format!("owner = ?1 AND {}", shared_with(&condition.value(account.as_str())))
            }
        });
    }
    Ok(any.join(" OR "))
}

impl Cloud {
    /// Makes an account known to all by another name, as `amazon` is; or by that no longer.
    ///
    /// # Errors
    /// `InvalidParameterValue` for what is no alias.
    pub fn set_owner_alias(&mut self, alias: &str, account: Option<&Account>) -> Result<(), CloudError> {
        if !is_alias(alias) || alias == "self" || alias == "all" {
            let message = format!("Invalid owner alias '{alias}': lower case letters, digits and dashes");
            return Err(CloudError::value(message));
        }
        self.catalogue.write(|tx| {
            tx.execute("DELETE FROM owner_aliases WHERE alias = ?1", [alias])?;
            if let Some(account) = account {
                tx.execute("INSERT INTO owner_aliases (alias, account) VALUES (?1, ?2)", [alias, account.as_str()])?;
            }
            Ok(())
        })
    }
}
