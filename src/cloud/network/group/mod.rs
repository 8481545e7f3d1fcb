//! Security groups: what instances may be sent and may send.
//!
//! The rules are kept, checked and told as EC2 does. They are not enforced: no network back end filters by them yet, so that
//! an instance can be reached by whatever its back end lets through.

mod change;
mod peer;
mod permission;
mod rule;

use std::borrow::Cow;
use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::Serialize;

pub use change::{DescriptionChange, Direction, RuleChange};
pub use peer::Peer;
pub use permission::{GroupPair, IpPermission, Protocol, Range, Traffic};
pub use rule::SecurityGroupRule;

use super::{default, new_id};
use crate::cloud::Cloud;
use crate::cloud::error::CloudError;
use crate::cloud::filter::values::{one, shown, shown_if};
use crate::cloud::filter::{Filter, Filtered, Filters};
use crate::cloud::home::Home;
use crate::cloud::id::{Id, Kind};
use crate::cloud::scope::Scope;
use crate::cloud::tag::{self, Tags};

/// The group that every VPC has, and that nobody deletes.
const DEFAULT: &str = "default";
/// Most groups of a VPC: EC2's quota of a region where nobody has asked for more.
const MAX_GROUPS: u32 = 2500;

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SecurityGroup {
    /// `sg-...`
    pub group_id: Id,
    /// Its name, once in a VPC.
    pub group_name: String,
    /// What its owner says of it.
    pub description: String,
    /// The VPC.
    pub vpc_id: Id,
    /// Who owns it.
    pub owner_id: String,
    /// What instances may be sent.
    pub ip_permissions: Vec<IpPermission>,
    /// What instances may send.
    pub ip_permissions_egress: Vec<IpPermission>,
    /// Its tags.
    pub tags: Tags,
    /// Its region.
    #[serde(skip)]
    pub region: String,
}

impl SecurityGroup {
    /// Its Amazon Resource Name.
    #[must_use]
    pub fn arn(&self) -> String {
        format!("arn:aws:ec2:{}:{}:security-group/{}", self.region, self.owner_id, self.group_id)
    }
}

/// Which security group is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRef {
    /// By its id.
    Id(String),
    /// By its name in the default VPC.
    Name(String),
}

/// A security group that is to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityGroupRequest {
    /// Its name.
    pub name: String,
    /// What its owner says of it; not empty.
    pub description: String,
    /// The VPC; the default one where not said.
    pub vpc: Option<String>,
    /// Its tags.
    pub tags: Tags,
}

/// Writes the group down that a VPC has from the beginning: its members may be sent everything by each other.
pub(super) fn insert_default(tx: &Transaction<'_>, home: &Home, vpc: &Id) -> Result<(), CloudError> {
    let group = insert(tx, home, vpc, DEFAULT, "default VPC security group")?;
    rule::insert(tx, home, &group, false, EVERYTHING, (&Peer::Group(group.clone()), None))?;
    Ok(())
}

const EVERYTHING: Traffic = Traffic { protocol: Protocol::All, from_port: -1, to_port: -1 };

/// Writes a group down, whose members may send everything.
fn insert(tx: &Transaction<'_>, home: &Home, vpc: &Id, name: &str, description: &str) -> Result<Id, CloudError> {
    let id = new_id(home, Kind::SecurityGroup)?;
    tx.execute("INSERT INTO security_groups VALUES (?1, ?2, ?3, ?4)", params![id, vpc, name, description])?;
    rule::insert(tx, home, &id, true, EVERYTHING, (&Peer::Ipv4("0.0.0.0/0".into()), None))?;
    Ok(id)
}

/// The default group of a VPC.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn default_of(db: &Connection, vpc: &Id) -> Result<Id, CloudError> {
    let select = "SELECT id FROM security_groups WHERE vpc = ?1 AND name = ?2";
    Ok(db.query_row(select, params![vpc, DEFAULT], |row| row.get(0))?)
}

/// The id of a group of the caller's.
///
/// # Errors
/// `InvalidGroup.NotFound`, `InvalidGroupId.Malformed`.
pub(super) fn find(db: &Connection, scope: &Scope, group: &GroupRef) -> Result<Id, CloudError> {
    let (column, given) = match group {
        GroupRef::Id(id) => {
            Id::parse(Kind::SecurityGroup, id)?;
            ("security_groups.id = ?3", id)
        }
        GroupRef::Name(name) => ("security_groups.name = ?3 AND is_default", name),
    };
    let select = format!(
        "SELECT security_groups.id FROM vpcs JOIN security_groups ON vpc = vpcs.id
         WHERE region = ?1 AND owner = ?2 AND {column}"
    );
    let found =
        db.query_row(&select, params![scope.region, scope.account.as_str(), given], |row| row.get(0)).optional()?;
    found.ok_or_else(|| not_found(given))
}

fn not_found(given: &str) -> CloudError {
    CloudError::Parameter {
        code: "InvalidGroup.NotFound",
        message: format!("The security group '{given}' does not exist"),
    }
}

fn check_name(name: &str) -> Result<(), CloudError> {
    let wrong = |message: &str| Err(CloudError::value(message));
    if name.is_empty() {
        let message = "The request must contain the parameter GroupName".to_owned();
        return Err(CloudError::Parameter { code: "MissingParameter", message });
    }
    if name == DEFAULT {
        return wrong("Cannot use reserved security group name: default");
    }
    if name.to_ascii_lowercase().starts_with(Kind::SecurityGroup.prefix()) {
        return wrong("Invalid security group name. Group names may not be in the format sg-*.");
    }
    if !permission::is_plain(name) || name.trim() != name {
        return wrong(
            "Invalid security group name. Valid names are strings less than 256 characters from the following set: \
             a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*",
        );
    }
    Ok(())
}

fn check_description(description: &str) -> Result<(), CloudError> {
    if description.is_empty() {
        let message = "The request must contain the parameter GroupDescription".to_owned();
        return Err(CloudError::Parameter { code: "MissingParameter", message });
    }
    if permission::is_plain(description) {
        return Ok(());
    }
    Err(CloudError::value(
        "Invalid security group description. Valid descriptions are strings less than 256 characters from the following \
         set: a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*",
    ))
}

impl Cloud {
    /// Security groups of the caller's that pass `filters` ("DescribeSecurityGroups"): of all, or of those with these ids and
    /// names, each of which has to be there. They are in the order of their names.
    ///
    /// # Errors
    /// `InvalidGroup.NotFound`, `InvalidGroupId.Malformed`; what [`Filters::parse`] says.
    pub fn describe_security_groups(
        &mut self,
        ids: &[String],
        names: &[String],
        filters: &[Filter],
    ) -> Result<Vec<SecurityGroup>, CloudError> {
        let filters = Filters::parse::<SecurityGroup>(filters)?;
        self.ensure_network()?;
        let scope = self.scope.clone();
        let mut found = self.catalogue.read(|tx| all(tx, &scope))?;
        for id in ids {
            Id::parse(Kind::SecurityGroup, id)?;
            if !found.iter().any(|group| group.group_id.as_str() == id) {
                return Err(not_found(id));
            }
        }
        if let Some(name) = names.iter().find(|name| !found.iter().any(|group| group.group_name == **name)) {
            return Err(not_found(name));
        }
        let is_asked_for = |group: &SecurityGroup| {
            ids.is_empty() && names.is_empty()
                || ids.iter().any(|id| id == group.group_id.as_str())
                || names.contains(&group.group_name)
        };
        found.retain(|group| is_asked_for(group) && filters.pass(group));
        Ok(found)
    }

    /// Makes a security group: nothing may be sent to its members, who may send everything.
    ///
    /// # Errors
    /// `InvalidGroup.Duplicate`, `InvalidVpcID.NotFound`, `InvalidParameterValue`, `MissingParameter`,
    /// `SecurityGroupLimitExceeded`, `TagLimitExceeded`.
    pub fn create_security_group(&mut self, request: &SecurityGroupRequest) -> Result<SecurityGroup, CloudError> {
        check_name(&request.name)?;
        check_description(&request.description)?;
        let (scope, home) = (self.scope.clone(), self.home.clone());
        self.catalogue.write(|tx| {
            let vpc = default::ensure(tx, &home, &scope)?;
            if let Some(asked) = request.vpc.as_deref().filter(|asked| *asked != vpc.as_str()) {
                Id::parse(Kind::Vpc, asked)?;
                return Err(CloudError::NotFound { kind: Kind::Vpc, id: asked.to_owned() });
            }
            let (count, is_taken): (u32, bool) = tx.query_row(
                "SELECT count(*), coalesce(max(name = ?2), 0) FROM security_groups WHERE vpc = ?1",
                params![vpc, request.name],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            if is_taken {
                return Err(CloudError::Parameter {
                    code: "InvalidGroup.Duplicate",
                    message: format!("The security group '{}' already exists for VPC '{vpc}'", request.name),
                });
            }
            if count >= MAX_GROUPS {
                let message = format!("The maximum number of security groups ({MAX_GROUPS}) has been reached");
                return Err(CloudError::Parameter { code: "SecurityGroupLimitExceeded", message });
            }
            let id = insert(tx, &home, &vpc, &request.name, &request.description)?;
            tag::add(tx, &id, &request.tags)?;
            let made = all(tx, &scope)?.into_iter().find(|group| group.group_id == id);
            made.ok_or_else(|| CloudError::Damaged(format!("security group {id} was not kept")))
        })
    }

    /// Deletes a security group that no interface has and no other group's rules name; gives its id.
    ///
    /// # Errors
    /// `InvalidGroup.NotFound`, `InvalidGroupId.Malformed`; `CannotDelete` for a default one; `DependencyViolation`.
    pub fn delete_security_group(&mut self, group: &GroupRef) -> Result<Id, CloudError> {
        let (scope, home) = (self.scope.clone(), self.home.clone());
        self.catalogue.write(|tx| {
            default::ensure(tx, &home, &scope)?;
            let id = find(tx, &scope, group)?;
            let (name, is_used): (String, bool) = tx.query_row(
                "SELECT name, EXISTS (SELECT 1 FROM interface_groups WHERE security_group = ?1)
                     OR EXISTS (SELECT 1 FROM security_group_rules WHERE peer = ?1 AND security_group <> ?1)
                 FROM security_groups WHERE id = ?1",
                [&id],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            if name == DEFAULT {
                return Err(CloudError::Parameter {
                    code: "CannotDelete",
                    message: format!("the specified group: \"{id}\" name: \"{name}\" cannot be deleted by a user"),
                });
            }
            if is_used {
                let message = format!("resource {id} has a dependent object");
                return Err(CloudError::Parameter { code: "DependencyViolation", message });
            }
            for rule in rule::of_group(tx, &id)? {
                rule::delete(tx, &rule.security_group_rule_id)?;
            }
            tag::remove_all(tx, &id)?;
            tx.execute("DELETE FROM security_groups WHERE id = ?1", [&id])?;
            Ok(id)
        })
    }
}

fn all(db: &Connection, scope: &Scope) -> Result<Vec<SecurityGroup>, CloudError> {
    let mut tags = tag::of_all(db, tag::Table::SecurityGroups, scope)?;
    let mut rules: HashMap<Id, Vec<SecurityGroupRule>> = HashMap::new();
    for rule in rule::all(db, scope)? {
        rules.entry(rule.group_id.clone()).or_default().push(rule);
    }
    let mut query = db.prepare_cached(
        "SELECT security_groups.id, name, description, vpc, owner, region FROM vpcs JOIN security_groups ON vpc = vpcs.id
         WHERE region = ?1 AND owner = ?2 ORDER BY name, security_groups.id",
    )?;
    let found = query.query_map([scope.region.as_str(), scope.account.as_str()], |row| {
        let group_id: Id = row.get(0)?;
        let rules = rules.remove(&group_id).unwrap_or_default();
        let tags = tags.remove(&group_id).unwrap_or_default();
        Ok(SecurityGroup {
            group_id,
            group_name: row.get(1)?,
            description: row.get(2)?,
            vpc_id: row.get(3)?,
            owner_id: row.get(4)?,
            region: row.get(5)?,
            ip_permissions: rule::permissions(rules.iter().filter(|rule| !rule.is_egress)),
            ip_permissions_egress: rule::permissions(rules.iter().filter(|rule| rule.is_egress)),
            tags,
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

impl Filtered for SecurityGroup {
    const FILTERS: &'static [&'static str] = &[
        "description",
        "egress.ip-permission.cidr",
        "egress.ip-permission.from-port",
        "egress.ip-permission.group-id",
        "egress.ip-permission.group-name",
        "egress.ip-permission.ipv6-cidr",
        "egress.ip-permission.prefix-list-id",
        "egress.ip-permission.protocol",
        "egress.ip-permission.to-port",
        "egress.ip-permission.user-id",
        "group-id",
        "group-name",
        "ip-permission.cidr",
        "ip-permission.from-port",
        "ip-permission.group-id",
        "ip-permission.group-name",
        "ip-permission.ipv6-cidr",
        "ip-permission.prefix-list-id",
        "ip-permission.protocol",
        "ip-permission.to-port",
        "ip-permission.user-id",
        "owner-id",
        "vpc-id",
    ];

    fn values(&self, filter: &str) -> Vec<Cow<'_, str>> {
        match filter {
            "description" => one(&self.description),
            "group-id" => one(self.group_id.as_str()),
            "group-name" => one(&self.group_name),
            "owner-id" => one(&self.owner_id),
            "vpc-id" => one(self.vpc_id.as_str()),
            name => {
                let (permissions, name) = match name.strip_prefix("egress.") {
                    Some(rest) => (&self.ip_permissions_egress, rest),
                    None => (&self.ip_permissions, name),
                };
                let name = name.strip_prefix("ip-permission.").unwrap_or_default();
                permissions.iter().flat_map(|permission| of_permission(permission, name)).collect()
            }
        }
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }
}

fn of_permission<'a>(permission: &'a IpPermission, name: &str) -> Vec<Cow<'a, str>> {
    let pairs = permission.user_id_group_pairs.iter();
    match name {
        "cidr" => permission.ip_ranges.iter().map(|range| Cow::from(&range.cidr)).collect(),
        "from-port" => shown_if(permission.from_port),
        "group-id" => pairs.filter_map(|pair| pair.group_id.as_deref().map(Cow::from)).collect(),
        "group-name" => pairs.filter_map(|pair| pair.group_name.as_deref().map(Cow::from)).collect(),
        "ipv6-cidr" => permission.ipv6_ranges.iter().map(|range| Cow::from(&range.cidr)).collect(),
        "protocol" => shown(&permission.ip_protocol),
        "to-port" => shown_if(permission.to_port),
        "user-id" => pairs.filter_map(|pair| pair.user_id.as_deref().map(Cow::from)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
