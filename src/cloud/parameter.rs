//! Parameters: names for values, mostly for images (those of the Systems Manager's parameter store that clients ask for).
//!
//! A name below `/aws/` is seen by all accounts in the region, as EC2's own aliases of images are, and changed by the account
//! that made it. Other names are their account's own. Only the last version of a value is kept.

mod name;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use name::Reference;

use super::error::CloudError;
use super::id::{Id, Kind};
use super::scope::Scope;
use super::words::words;
use super::{Cloud, image, time};

/// Most bytes of a value: those of a standard parameter.
const MAX_VALUE: usize = 4096;
/// Most characters of a description.
const MAX_DESCRIPTION: usize = 1024;
/// Most parameters of an account in a region.
const MAX_PARAMETERS: u32 = 10_000;
/// What launches call an image by that a parameter names.
const RESOLVE: &str = "resolve:ssm:";

words! {
    /// What a value is.
    pub enum DataType as "DataType" {
        /// Any text.
        Text = "text",
        /// The id of an image that can be seen by whoever says so.
        Image = "aws:ec2:image",
    }
}

/// A parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// `String`: there are no others.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Its value.
    pub value: String,
    /// How often it was given a value.
    pub version: u64,
    /// When it was given this one.
    pub last_modified_date: String,
    /// What the value is.
    pub data_type: DataType,
    /// What its owner says of it.
    pub description: String,
    /// Its Amazon Resource Name; that of a public one names no account.
    pub arn: String,
    /// Who made it.
    pub owner_id: String,
}

/// A parameter that is to be given a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterRequest {
    /// Its name.
    pub name: String,
    /// The value.
    pub value: String,
    /// What that is.
    pub data_type: DataType,
    /// What its owner says of it; what it said before where not given.
    pub description: Option<String>,
    /// Whether one that is there gets the new value.
    pub overwrite: bool,
}

/// Parameters that were asked for, and names that mean none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The parameters, in the order of their names' asking.
    pub parameters: Vec<Parameter>,
    /// Names that mean none.
    pub invalid: Vec<String>,
}

impl Cloud {
    /// Gives a parameter a value; says which version of it that is.
    ///
    /// # Errors
    /// `ParameterAlreadyExists` for one that is there and is not to be overwritten; `AccessDeniedException` for a public one of
    /// another account's; `HierarchyLevelLimitExceededException`, `ParameterLimitExceeded`, `ValidationException`; what
    /// [`Cloud::image`] says for an image that is none.
    pub fn put_parameter(&mut self, request: &ParameterRequest) -> Result<Parameter, CloudError> {
        let ParameterRequest { name, value, data_type, description, overwrite } = request;
        name::check(name)?;
        check_value(value, description.as_deref().unwrap_or_default())?;
        let scope = self.scope.clone();
        self.catalogue.write(|tx| {
            if *data_type == DataType::Image {
                Id::parse(Kind::Image, value)?;
                image::visible(tx, &scope, value)?;
            }
            let before = find(tx, &scope, name)?;
            if let Some(other) = before.as_ref().filter(|other| other.owner_id != scope.account.as_str()) {
                let message = format!("{name} is account {}'s", other.owner_id);
                return Err(CloudError::Parameter { code: "AccessDeniedException", message });
            }
            if before.is_some() && !overwrite {
                let message = "The parameter already exists. To overwrite this value, set the overwrite option in the \
                               request to true."
                    .to_owned();
                return Err(CloudError::Parameter { code: "ParameterAlreadyExists", message });
            }
            if before.is_none() {
                check_count(tx, &scope)?;
            }
            tx.execute(
                "INSERT INTO parameters (region, owner, name, value, data_type, description, version, modified)
                 VALUES (?1, ?2, ?3, ?4, ?5, coalesce(?6, ''), 1, ?7)
                 ON CONFLICT (region, owner, name) DO UPDATE SET value = excluded.value, data_type = excluded.data_type,
                     description = coalesce(?6, description), version = version + 1, modified = excluded.modified",
                params![scope.region, scope.account.as_str(), name, value, data_type, description, time::now()],
            )?;
            find(tx, &scope, name)?.ok_or_else(|| not_found(name))
        })
    }

    /// A parameter, by its name, a name with a version as in `NAME:3`, or its Amazon Resource Name ("GetParameter").
    ///
    /// # Errors
    /// `ParameterNotFound`, `ParameterVersionNotFound`, `ValidationException`.
    pub fn parameter(&mut self, given: &str) -> Result<Parameter, CloudError> {
        let scope = self.scope.clone();
        self.catalogue.read(|tx| get(tx, &scope, given))
    }

    /// Parameters by such names ("GetParameters").
    ///
    /// # Errors
    /// `ValidationException` for what is no name.
    pub fn parameters(&mut self, names: &[String]) -> Result<Found, CloudError> {
        let scope = self.scope.clone();
        self.catalogue.read(|tx| {
            let mut found = Found::default();
            for name in names {
                match get(tx, &scope, name) {
                    Ok(parameter) => found.parameters.push(parameter),
                    Err(CloudError::Parameter { code: NOT_FOUND | NO_VERSION, .. }) => found.invalid.push(name.clone()),
                    Err(error) => return Err(error),
                }
            }
            Ok(found)
        })
    }

    /// Parameters below a path, as `/aws/service/images`: those of the next level, or of all ("GetParametersByPath"). Other
    /// accounts' public ones are below `/aws` only. They are in the order of their names.
    ///
    /// # Errors
    /// `ValidationException` for what is no path.
    pub fn parameters_by_path(&mut self, path: &str, recursive: bool) -> Result<Vec<Parameter>, CloudError> {
        let path = name::check_path(path)?;
        let scope = self.scope.clone();
        let below = format!("{path}/");
        let with_public = below.starts_with(name::PUBLIC);
        self.catalogue.read(|tx| {
            let mut query = tx.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM parameters WHERE region = ?1 AND (owner = ?2 OR ?3 AND {IS_PUBLIC})
                     AND substr(name, 1, length(?4)) = ?4 ORDER BY name"
            ))?;
            let found = query.query_map(params![scope.region, scope.account.as_str(), with_public, below], from_row)?;
            let mut found: Vec<Parameter> = found.collect::<Result<_, _>>()?;
            found.retain(|parameter| {
                let rest = parameter.name.strip_prefix(&below).unwrap_or_default();
                recursive || !rest.contains('/')
            });
            Ok(found)
        })
    }

    /// All parameters that the caller sees, in the order of their names: its own, and public ones.
    ///
    /// # Errors
    /// What the catalogue says.
    pub fn all_parameters(&mut self) -> Result<Vec<Parameter>, CloudError> {
        let scope = self.scope.clone();
        self.catalogue.read(|tx| {
            let mut query = tx.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM parameters WHERE region = ?1 AND (owner = ?2 OR {IS_PUBLIC}) ORDER BY name"
            ))?;
            let found = query.query_map([scope.region.as_str(), scope.account.as_str()], from_row)?;
            Ok(found.collect::<Result<_, _>>()?)
        })
    }

    /// Deletes a parameter of the caller's.
    ///
    /// # Errors
    /// `ParameterNotFound`.
    pub fn delete_parameter(&mut self, name: &str) -> Result<(), CloudError> {
        let scope = self.scope.clone();
        self.catalogue.write(|tx| {
            let delete = "DELETE FROM parameters WHERE region = ?1 AND owner = ?2 AND name = ?3";
            match tx.execute(delete, [&scope.region, scope.account.as_str(), name])? {
                0 => Err(not_found(name)),
                _ => Ok(()),
            }
        })
    }
}

/// The image that a launch means by `resolve:ssm:NAME`, if it is written so.
///
/// # Errors
/// `ParameterNotFound`, `ParameterVersionNotFound`; `InvalidAMIID.Malformed` for a value that is no image's id.
pub(super) fn image_of(db: &Connection, scope: &Scope, given: &str) -> Result<Option<Id>, CloudError> {
    let Some(name) = given.strip_prefix(RESOLVE) else { return Ok(None) };
    Id::parse(Kind::Image, &get(db, scope, name)?.value).map(Some)
}

fn check_value(value: &str, description: &str) -> Result<(), CloudError> {
    let wrong = |message: String| Err(CloudError::Parameter { code: "ValidationException", message });
    if value.is_empty() || value.len() > MAX_VALUE {
        return wrong(format!("a value has 1 to {MAX_VALUE} bytes, and this one has {}", value.len()));
    }
    if description.chars().count() > MAX_DESCRIPTION {
        return wrong(format!("a description has at most {MAX_DESCRIPTION} characters"));
    }
    Ok(())
}

fn check_count(db: &Connection, scope: &Scope) -> Result<(), CloudError> {
    let count: u32 = db.query_row(
        "SELECT count(*) FROM parameters WHERE region = ?1 AND owner = ?2",
        [&scope.region, scope.account.as_str()],
        |row| row.get(0),
    )?;
    if count < MAX_PARAMETERS {
        return Ok(());
    }
    let message = format!("You have reached the maximum number of parameters: {MAX_PARAMETERS}");
    Err(CloudError::Parameter { code: "ParameterLimitExceeded", message })
}

const NOT_FOUND: &str = "ParameterNotFound";
const NO_VERSION: &str = "ParameterVersionNotFound";
/// The condition that all accounts see a parameter; the catalogue has an index for it.
const IS_PUBLIC: &str = "substr(name, 1, 5) = '/aws/'";
const COLUMNS: &str = "name, value, version, modified, data_type, description, owner, region";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Parameter> {
    let (name, owner_id, region): (String, String, String) = (row.get(0)?, row.get(6)?, row.get(7)?);
    Ok(Parameter {
        arn: name::arn(&name, &region, &owner_id),
        name,
        kind: "String",
        value: row.get(1)?,
        version: u64::try_from(row.get::<_, i64>(2)?).unwrap_or_default(),
        last_modified_date: time::format(row.get(3)?),
        data_type: row.get(4)?,
        description: row.get(5)?,
        owner_id,
    })
}

fn get(db: &Connection, scope: &Scope, given: &str) -> Result<Parameter, CloudError> {
    let Reference { name, version } = Reference::parse(given, &scope.region)?;
    let found = find(db, scope, &name)?.ok_or_else(|| not_found(given))?;
    match version {
        Some(version) if version != found.version => Err(CloudError::Parameter {
            code: NO_VERSION,
            message: format!("Version {version} of parameter {name} is not kept: the last is {}", found.version),
        }),
        _ => Ok(found),
    }
}

/// A parameter that the caller sees.
fn find(db: &Connection, scope: &Scope, name: &str) -> Result<Option<Parameter>, CloudError> {
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM parameters WHERE region = ?1 AND name = ?3 AND (owner = ?2 OR {IS_PUBLIC})"
    ))?;
    Ok(query.query_row([&scope.region, scope.account.as_str(), name], from_row).optional()?)
}

fn not_found(name: &str) -> CloudError {
    CloudError::Parameter { code: NOT_FOUND, message: format!("Parameter {name} not found.") }
}

#[cfg(test)]
mod tests;
