//! Rules of security groups: one protocol, one peer, one direction each.

use std::borrow::Cow;
use std::collections::HashMap;

use rusqlite::{Connection, Row, Transaction, params};
use serde::Serialize;

use super::peer::Peer;
use super::permission::{GroupPair, IpPermission, Range, Traffic};
use crate::cloud::Cloud;
use crate::cloud::error::CloudError;
use crate::cloud::filter::values::one;
use crate::cloud::filter::{Filter, Filtered, Filters};
use crate::cloud::home::Home;
use crate::cloud::id::{Id, Kind};
use crate::cloud::network::{keep_asked_for, new_id};
use crate::cloud::scope::Scope;
use crate::cloud::tag::{self, Tags};

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SecurityGroupRule {
    /// `sgr-...`
    pub security_group_rule_id: Id,
    /// Its group.
    pub group_id: Id,
    /// Whose that is.
    pub group_owner_id: String,
    /// Whether it is about what instances send, or else about what is sent to them.
    pub is_egress: bool,
    /// The protocol and its ports.
    #[serde(skip)]
    pub traffic: Traffic,
    /// Who is at the other end.
    pub peer: Peer,
    /// The name of the group at the other end, where one is.
    #[serde(skip)]
    pub peer_name: Option<String>,
    /// What is said of it.
    pub description: Option<String>,
    /// Its tags.
    pub tags: Tags,
}

/// Rules with the groups around them; `peers` is the group at the other end.
const SELECT: &str = "SELECT rules.id, rules.security_group, vpcs.owner, is_egress, protocol, from_port, to_port, peer,
        rules.description, peers.name
    FROM vpcs JOIN security_groups ON security_groups.vpc = vpcs.id
    JOIN security_group_rules AS rules ON rules.security_group = security_groups.id
    LEFT JOIN security_groups AS peers ON peers.id = peer";

fn from_row(row: &Row<'_>) -> rusqlite::Result<SecurityGroupRule> {
    Ok(SecurityGroupRule {
        security_group_rule_id: row.get(0)?,
        group_id: row.get(1)?,
        group_owner_id: row.get(2)?,
        is_egress: row.get(3)?,
        traffic: Traffic { protocol: row.get(4)?, from_port: row.get(5)?, to_port: row.get(6)? },
        peer: row.get(7)?,
        description: row.get(8)?,
        peer_name: row.get(9)?,
        tags: Tags::new(),
    })
}

/// All rules of the caller's groups, the oldest first.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn all(db: &Connection, scope: &Scope) -> Result<Vec<SecurityGroupRule>, CloudError> {
    let mut query =
        db.prepare_cached(&format!("{SELECT} WHERE vpcs.region = ?1 AND vpcs.owner = ?2 ORDER BY rules.rowid"))?;
    let found = query.query_map([scope.region.as_str(), scope.account.as_str()], from_row)?;
    let mut found: Vec<SecurityGroupRule> = found.collect::<Result<_, _>>()?;
    let mut tags = tag::of_all(db, tag::Table::SecurityGroupRules, scope)?;
    for rule in &mut found {
        rule.tags = tags.remove(&rule.security_group_rule_id).unwrap_or_default();
    }
    Ok(found)
}

/// The rules of a group.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn of_group(db: &Connection, group: &Id) -> Result<Vec<SecurityGroupRule>, CloudError> {
    let mut query = db.prepare_cached(&format!("{SELECT} WHERE rules.security_group = ?1 ORDER BY rules.rowid"))?;
    let mut found: Vec<SecurityGroupRule> = query.query_map([group], from_row)?.collect::<Result<_, _>>()?;
    for rule in &mut found {
        rule.tags = tag::of(db, &rule.security_group_rule_id)?;
    }
    Ok(found)
}

/// Writes a rule down; gives its id.
///
/// # Errors
/// What the catalogue or the host says.
pub(super) fn insert(
    tx: &Transaction<'_>,
    home: &Home,
    group: &Id,
    is_egress: bool,
    traffic: Traffic,
    (peer, description): (&Peer, Option<&str>),
) -> Result<Id, CloudError> {
    let id = new_id(home, Kind::SecurityGroupRule)?;
    tx.execute(
        "INSERT INTO security_group_rules VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            id,
            group,
            is_egress,
            traffic.protocol.to_string(),
            traffic.from_port,
            traffic.to_port,
            peer,
            description
        ],
    )?;
    Ok(id)
}

/// Takes a rule away.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn delete(tx: &Transaction<'_>, id: &Id) -> Result<(), CloudError> {
    tag::remove_all(tx, id)?;
    tx.execute("DELETE FROM security_group_rules WHERE id = ?1", [id])?;
    Ok(())
}

/// Rules put together as EC2 tells them of a group: one entry for each protocol with its ports.
pub(super) fn permissions<'a>(rules: impl Iterator<Item = &'a SecurityGroupRule>) -> Vec<IpPermission> {
    let mut all: Vec<IpPermission> = Vec::new();
    let mut places: HashMap<Traffic, usize> = HashMap::new();
    for rule in rules {
        let place = *places.entry(rule.traffic).or_insert_with(|| {
            let ports = rule.traffic.protocol.has_ports();
            all.push(IpPermission {
                ip_protocol: rule.traffic.protocol.to_string(),
                from_port: ports.then_some(rule.traffic.from_port),
                to_port: ports.then_some(rule.traffic.to_port),
                ..IpPermission::default()
            });
            all.len() - 1
        });
        let Some(permission) = all.get_mut(place) else { continue };
        let range = |cidr: &String| Range { cidr: cidr.clone(), description: rule.description.clone() };
        match &rule.peer {
            Peer::Ipv4(block) => permission.ip_ranges.push(range(block)),
            Peer::Ipv6(block) => permission.ipv6_ranges.push(range(block)),
            Peer::Group(id) => permission.user_id_group_pairs.push(GroupPair {
                group_id: Some(id.to_string()),
                group_name: rule.peer_name.clone(),
                user_id: Some(rule.group_owner_id.clone()),
                description: rule.description.clone(),
            }),
        }
    }
    all
}

impl Cloud {
    /// Rules of the caller's security groups that pass `filters` ("DescribeSecurityGroupRules"): of all, or of those of `ids`,
    /// each of which has to be there. The oldest come first.
    ///
    /// # Errors
    /// `InvalidSecurityGroupRuleId.NotFound`, `.Malformed`; what [`Filters::parse`] says.
    pub fn describe_security_group_rules(
        &mut self,
        ids: &[String],
        filters: &[Filter],
    ) -> Result<Vec<SecurityGroupRule>, CloudError> {
        let filters = Filters::parse::<SecurityGroupRule>(filters)?;
        self.ensure_network()?;
        let scope = self.scope.clone();
        let mut found = self.catalogue.read(|tx| all(tx, &scope))?;
        keep_asked_for(&mut found, Kind::SecurityGroupRule, ids, |rule| &rule.security_group_rule_id)?;
        found.retain(|rule| filters.pass(rule));
        Ok(found)
    }
}

impl Filtered for SecurityGroupRule {
    const FILTERS: &'static [&'static str] = &["group-id", "security-group-rule-id"];

    fn values(&self, filter: &str) -> Vec<Cow<'_, str>> {
        match filter {
            "group-id" => one(self.group_id.as_str()),
            "security-group-rule-id" => one(self.security_group_rule_id.as_str()),
            _ => Vec::new(),
        }
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }
}
