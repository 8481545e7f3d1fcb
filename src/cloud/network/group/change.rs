//! Rules of security groups given, taken away and changed.

use std::collections::HashSet;

use rusqlite::{Connection, Transaction, params};

use super::peer::Peer;
use super::permission::{self, IpPermission, Named, Traffic, Wanted};
use super::rule::{self, SecurityGroupRule};
use super::{GroupRef, find, not_found};
use crate::cloud::Cloud;
use crate::cloud::error::CloudError;
use crate::cloud::home::Home;
use crate::cloud::id::{Id, Kind};
use crate::cloud::network::default;
use crate::cloud::scope::Scope;
use crate::cloud::tag::{self, Tags};

/// Most rules of a group in one direction, for IPv4 and IPv6 each: EC2's quota where nobody has asked for more.
const MAX_RULES: usize = 60;

/// What rules are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What is sent to instances.
    Ingress,
    /// What instances send.
    Egress,
}

impl Direction {
    fn is_egress(self) -> bool {
        self == Self::Egress
    }
}

/// What a rule is to be from now on ("ModifySecurityGroupRules").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleChange {
    /// The rule, by its id.
    pub rule: String,
    /// What it is to be: with one peer.
    pub permission: IpPermission,
}

/// What is to be said of a rule from now on ("UpdateSecurityGroupRuleDescriptions...").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescriptionChange {
    /// The rule, by its id.
    pub rule: String,
    /// What is said of it.
    pub description: Option<String>,
}

/// A rule that is wanted, with its peer found.
struct Found {
    traffic: Traffic,
    peer: Peer,
    description: Option<String>,
}

impl Found {
    fn is_like(&self, rule: &SecurityGroupRule) -> bool {
        rule.traffic == self.traffic && rule.peer == self.peer
    }
}

impl Cloud {
    /// Gives a group rules, all or none; each gets the tags. Gives the rules.
    ///
    /// # Errors
    /// `InvalidGroup.NotFound`, `InvalidPermission.Duplicate`, `RulesPerSecurityGroupLimitExceeded`, `InvalidParameterValue`,
    /// `MissingParameter`, `UnsupportedOperation` for prefix lists, `TagLimitExceeded`.
    pub fn authorize_security_group(
        &mut self,
        group: &GroupRef,
        direction: Direction,
        permissions: &[IpPermission],
        tags: &Tags,
    ) -> Result<Vec<SecurityGroupRule>, CloudError> {
        let wanted = permission::parse(permissions)?;
        self.change_rules(group, |tx, home, scope, group| {
            let there = rule::of_group(tx, group)?;
            let mut made = HashSet::new();
            for found in resolve(tx, scope, &wanted)? {
                let mut same = there.iter().filter(|rule| rule.is_egress == direction.is_egress());
                if same.any(|rule| found.is_like(rule)) {
                    return Err(duplicate(&found));
                }
                let told = (&found.peer, found.description.as_deref());
                let id = rule::insert(tx, home, group, direction.is_egress(), found.traffic, told)?;
                tag::add(tx, &id, tags)?;
                made.insert(id);
            }
            let mut now = rule::of_group(tx, group)?;
            check_count(&now, direction)?;
            now.retain(|rule| made.contains(&rule.security_group_rule_id));
            Ok(now)
        })
    }

    /// Takes rules away from a group, those that permissions say and those with these ids, all or none. Gives what is gone.
    /// What permissions say of descriptions does not matter.
    ///
    /// # Errors
    /// `InvalidGroup.NotFound`, `InvalidPermission.NotFound`, `InvalidSecurityGroupRuleId.NotFound`, `.Malformed`,
    /// `InvalidParameterValue`, `MissingParameter`.
    pub fn revoke_security_group(
        &mut self,
        group: &GroupRef,
        direction: Direction,
        permissions: &[IpPermission],
        rules: &[String],
    ) -> Result<Vec<SecurityGroupRule>, CloudError> {
        let wanted = match permissions {
            [] if !rules.is_empty() => Vec::new(),
            permissions => permission::parse(permissions)?,
        };
        self.change_rules(group, |tx, _, scope, group| {
            let there = rule::of_group(tx, group)?;
            let mut gone = Vec::new();
            for rule in named(&there, direction, &resolve(tx, scope, &wanted)?)? {
                gone.push(rule.clone());
            }
            for id in rules {
                let rule = by_id(&there, Some(direction), id)?;
                if !gone.contains(rule) {
                    gone.push(rule.clone());
                }
            }
            gone.iter().try_for_each(|rule| rule::delete(tx, &rule.security_group_rule_id))?;
            Ok(gone)
        })
    }

    /// Changes rules of a group, all or none; they keep their ids, directions and tags.
    ///
    /// # Errors
    /// `InvalidGroup.NotFound`, `InvalidSecurityGroupRuleId.NotFound`, `.Malformed`, `InvalidPermission.Duplicate`,
    /// `InvalidParameterValue`, `MissingParameter`, `UnsupportedOperation` for prefix lists.
    pub fn modify_security_group_rules(
        &mut self,
        group: &GroupRef,
        changes: &[RuleChange],
    ) -> Result<Vec<SecurityGroupRule>, CloudError> {
        self.change_rules(group, |tx, _, scope, group| {
            for change in changes {
                let there = rule::of_group(tx, group)?;
                let rule = by_id(&there, None, &change.rule)?;
                let wanted = permission::parse(std::slice::from_ref(&change.permission))?;
                let found = resolve(tx, scope, &wanted)?;
                let [found] = found.as_slice() else {
                    return Err(CloudError::combination(format!("{}: a rule has one source or target", change.rule)));
                };
                let mut others = there.iter().filter(|other| other.is_egress == rule.is_egress && *other != rule);
                if others.any(|other| found.is_like(other)) {
                    return Err(duplicate(found));
                }
                tx.execute(
                    "UPDATE security_group_rules SET protocol = ?2, from_port = ?3, to_port = ?4, peer = ?5,
                         description = ?6 WHERE id = ?1",
                    params![
                        rule.security_group_rule_id,
                        found.traffic.protocol.to_string(),
                        found.traffic.from_port,
                        found.traffic.to_port,
                        found.peer,
                        found.description
                    ],
                )?;
            }
            let now = rule::of_group(tx, group)?;
            check_count(&now, Direction::Ingress)?;
            check_count(&now, Direction::Egress)?;
            Ok(now
                .into_iter()
                .filter(|rule| changes.iter().any(|c| c.rule == rule.security_group_rule_id.as_str()))
                .collect())
        })
    }

    /// Changes what is said of rules, those that permissions say and those with these ids.
    ///
    /// # Errors
    /// As [`Cloud::revoke_security_group`].
    pub fn update_rule_descriptions(
        &mut self,
        group: &GroupRef,
        direction: Direction,
        permissions: &[IpPermission],
        changes: &[DescriptionChange],
    ) -> Result<(), CloudError> {
        let wanted = match permissions {
            [] if !changes.is_empty() => Vec::new(),
            permissions => permission::parse(permissions)?,
        };
        changes
            .iter()
            .filter_map(|change| change.description.as_deref())
            .try_for_each(permission::check_description)?;
        self.change_rules(group, |tx, _, scope, group| {
            let there = rule::of_group(tx, group)?;
            let found = resolve(tx, scope, &wanted)?;
            let update = "UPDATE security_group_rules SET description = nullif(?2, '') WHERE id = ?1";
            for (rule, found) in named(&there, direction, &found)?.into_iter().zip(&found) {
                tx.execute(update, params![rule.security_group_rule_id, found.description])?;
            }
            for change in changes {
                let rule = by_id(&there, Some(direction), &change.rule)?;
                tx.execute(update, params![rule.security_group_rule_id, change.description])?;
            }
            Ok(())
        })
    }

    fn change_rules<T>(
        &mut self,
        group: &GroupRef,
        change: impl FnOnce(&Transaction<'_>, &Home, &Scope, &Id) -> Result<T, CloudError>,
    ) -> Result<T, CloudError> {
        let (scope, home) = (self.scope.clone(), self.home.clone());
        self.catalogue.write(|tx| {
            default::ensure(tx, &home, &scope)?;
            let group = find(tx, &scope, group)?;
            change(tx, &home, &scope, &group)
        })
    }
}

/// Finds the groups that rules name.
fn resolve(db: &Connection, scope: &Scope, wanted: &[Wanted]) -> Result<Vec<Found>, CloudError> {
    let mut all: Vec<Found> = Vec::new();
    for Wanted { traffic, peer, description } in wanted {
        let peer = match peer {
            Named::Block(peer) => peer.clone(),
            Named::Group { id, name, owner } => {
                let given = id.as_ref().or(name.as_ref()).map(String::as_str).unwrap_or_default();
                // There is no way to another account's VPC.
                if owner.as_deref().is_some_and(|owner| owner != scope.account.as_str()) {
                    return Err(not_found(given));
                }
                let group = if id.is_some() { GroupRef::Id(given.into()) } else { GroupRef::Name(given.into()) };
                Peer::Group(find(db, scope, &group)?)
            }
        };
        let found = Found { traffic: *traffic, peer, description: description.clone() };
        // The same group by its id and by its name.
        if all.iter().any(|other| other.traffic == found.traffic && other.peer == found.peer) {
            return Err(CloudError::value("The same permission must not appear multiple times"));
        }
        all.push(found);
    }
    Ok(all)
}

/// The rules that permissions say, in their order.
fn named<'a>(
    there: &'a [SecurityGroupRule],
    direction: Direction,
    wanted: &[Found],
) -> Result<Vec<&'a SecurityGroupRule>, CloudError> {
    let one = |found: &Found| {
        let mut rules = there.iter().filter(|rule| rule.is_egress == direction.is_egress());
        rules.find(|rule| found.is_like(rule)).ok_or_else(|| CloudError::Parameter {
            code: "InvalidPermission.NotFound",
            message: format!("The specified rule does not exist in this security group: {}", in_words(found)),
        })
    };
    wanted.iter().map(one).collect()
}

fn by_id<'a>(
    there: &'a [SecurityGroupRule],
    direction: Option<Direction>,
    id: &str,
) -> Result<&'a SecurityGroupRule, CloudError> {
    Id::parse(Kind::SecurityGroupRule, id)?;
    let is_it = |rule: &&SecurityGroupRule| {
        rule.security_group_rule_id.as_str() == id
            && direction.is_none_or(|direction| rule.is_egress == direction.is_egress())
    };
    there.iter().find(is_it).ok_or_else(|| CloudError::NotFound { kind: Kind::SecurityGroupRule, id: id.to_owned() })
}

fn check_count(rules: &[SecurityGroupRule], direction: Direction) -> Result<(), CloudError> {
    let count = |is_other: fn(&Peer) -> bool| {
        rules.iter().filter(|rule| rule.is_egress == direction.is_egress() && !is_other(&rule.peer)).count()
    };
    let ipv4 = count(|peer| matches!(peer, Peer::Ipv6(_)));
    let ipv6 = count(|peer| matches!(peer, Peer::Ipv4(_)));
    if ipv4.max(ipv6) <= MAX_RULES {
        return Ok(());
    }
    Err(CloudError::Parameter {
        code: "RulesPerSecurityGroupLimitExceeded",
        message: format!("The maximum number of rules per security group ({MAX_RULES}) has been reached."),
    })
}

fn duplicate(found: &Found) -> CloudError {
    CloudError::Parameter {
        code: "InvalidPermission.Duplicate",
        message: format!("the specified rule \"{}\" already exists", in_words(found)),
    }
}

/// A rule as EC2's messages tell it.
fn in_words(found: &Found) -> String {
    let Traffic { protocol, from_port, to_port } = found.traffic;
    let ports = match protocol.has_ports() {
        true => format!("from port: {from_port}, to port: {to_port}, "),
        false => String::new(),
    };
    format!("peer: {}, {}, {ports}ALLOW", found.peer, protocol.to_string().to_uppercase())
}
