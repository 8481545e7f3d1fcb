//! Rules of security groups.

use std::mem::take;

use super::super::parts::{check_ids, filters, need, page, tags, tags_for, text};
use super::group_of;
use super::permission::{self, Flat};
use crate::api::call::{Asked, Call};
use crate::api::error::ApiError;
use crate::api::model::{
    AuthorizeSecurityGroupEgressRequest, AuthorizeSecurityGroupEgressResult, AuthorizeSecurityGroupIngressRequest,
    AuthorizeSecurityGroupIngressResult, DescribeSecurityGroupRulesRequest, DescribeSecurityGroupRulesResult,
    ModifySecurityGroupRulesRequest, ModifySecurityGroupRulesResult, ReferencedSecurityGroup,
    RevokeSecurityGroupEgressRequest, RevokeSecurityGroupEgressResult, RevokeSecurityGroupIngressRequest,
    RevokeSecurityGroupIngressResult, RevokedSecurityGroupRule, SecurityGroupRule, SecurityGroupRuleDescription,
    SecurityGroupRuleRequest, UpdateSecurityGroupRuleDescriptionsEgressRequest,
    UpdateSecurityGroupRuleDescriptionsEgressResult, UpdateSecurityGroupRuleDescriptionsIngressRequest,
    UpdateSecurityGroupRuleDescriptionsIngressResult,
};
use crate::cloud::Kind;
use crate::cloud::network::group::{
    self, DescriptionChange, Direction, GroupPair, GroupRef, IpPermission, Peer, Protocol, Range, RuleChange,
};

/// A rule as answers show it.
fn answer(of: &group::SecurityGroupRule) -> SecurityGroupRule {
    let (ipv4, ipv6, peer) = match &of.peer {
        Peer::Ipv4(block) => (Some(block.clone()), None, None),
        Peer::Ipv6(block) => (None, Some(block.clone()), None),
        Peer::Group(id) => (None, None, Some(id.to_string())),
    };
    let has_ports = of.traffic.protocol != Protocol::All;
    SecurityGroupRule {
        security_group_rule_id: Some(of.security_group_rule_id.to_string()),
        group_id: Some(of.group_id.to_string()),
        group_owner_id: Some(of.group_owner_id.clone()),
        is_egress: Some(of.is_egress),
        ip_protocol: Some(of.traffic.protocol.to_string()),
        from_port: Some(if has_ports { of.traffic.from_port.into() } else { -1 }),
        to_port: Some(if has_ports { of.traffic.to_port.into() } else { -1 }),
        cidr_ipv4: ipv4,
        cidr_ipv6: ipv6,
        referenced_group_info: peer.map(|id| ReferencedSecurityGroup {
            group_id: Some(id),
            user_id: Some(of.group_owner_id.clone()),
            ..ReferencedSecurityGroup::default()
        }),
        description: of.description.clone(),
        tags: tags(&of.tags),
        ..SecurityGroupRule::default()
    }
}

fn revoked(of: &group::SecurityGroupRule) -> RevokedSecurityGroupRule {
    let rule = answer(of);
    RevokedSecurityGroupRule {
        security_group_rule_id: rule.security_group_rule_id,
        group_id: rule.group_id,
        is_egress: rule.is_egress,
        ip_protocol: rule.ip_protocol,
        from_port: rule.from_port,
        to_port: rule.to_port,
        cidr_ipv4: rule.cidr_ipv4,
        cidr_ipv6: rule.cidr_ipv6,
        referenced_group_id: rule.referenced_group_info.and_then(|group| group.group_id),
        description: rule.description,
        prefix_list_id: None,
    }
}

/// The four requests that name permissions differ in their names alone, and in what is there of the older form.
macro_rules! flat {
    ($asked:ident) => {
        Flat {
            protocol: text(&mut $asked.ip_protocol),
            from_port: $asked.from_port.take(),
            to_port: $asked.to_port.take(),
            cidr: text(&mut $asked.cidr_ip),
            group_name: text(&mut $asked.source_security_group_name),
            group_owner: text(&mut $asked.source_security_group_owner_id),
        }
    };
}

fn all(flat: Flat, mut permissions: Vec<IpPermission>) -> Result<Vec<IpPermission>, ApiError> {
    permissions.extend(flat.read()?);
    Ok(permissions)
}

pub fn authorize_ingress(
    call: &mut Call<'_>,
    asked: &mut Asked<AuthorizeSecurityGroupIngressRequest>,
) -> Result<AuthorizeSecurityGroupIngressResult, ApiError> {
    let group = group_of(asked.group_id.take(), asked.group_name.take())?;
    let permissions = all(flat!(asked), permission::read(&mut asked.ip_permissions)?)?;
    let tags = tags_for("security-group-rule", &mut asked.tag_specifications)?;
    asked.end()?;
    let rules = call.cloud.authorize_security_group(&group, Direction::Ingress, &permissions, &tags)?;
    let security_group_rules = rules.iter().map(answer).collect();
    Ok(AuthorizeSecurityGroupIngressResult { r#return: Some(true), security_group_rules })
}

pub fn authorize_egress(
    call: &mut Call<'_>,
    asked: &mut Asked<AuthorizeSecurityGroupEgressRequest>,
) -> Result<AuthorizeSecurityGroupEgressResult, ApiError> {
    let group = group_of(asked.group_id.take(), None)?;
    let permissions = all(flat!(asked), permission::read(&mut asked.ip_permissions)?)?;
    let tags = tags_for("security-group-rule", &mut asked.tag_specifications)?;
    asked.end()?;
    let rules = call.cloud.authorize_security_group(&group, Direction::Egress, &permissions, &tags)?;
    let security_group_rules = rules.iter().map(answer).collect();
    Ok(AuthorizeSecurityGroupEgressResult { r#return: Some(true), security_group_rules })
}

pub fn revoke_ingress(
    call: &mut Call<'_>,
    asked: &mut Asked<RevokeSecurityGroupIngressRequest>,
) -> Result<RevokeSecurityGroupIngressResult, ApiError> {
    let group = group_of(asked.group_id.take(), asked.group_name.take())?;
    let permissions = all(flat!(asked), permission::read(&mut asked.ip_permissions)?)?;
    let rules = take(&mut asked.security_group_rule_ids);
    asked.end()?;
    let gone = call.cloud.revoke_security_group(&group, Direction::Ingress, &permissions, &rules)?;
    Ok(RevokeSecurityGroupIngressResult {
        r#return: Some(true),
        unknown_ip_permissions: Vec::new(),
        revoked_security_group_rules: gone.iter().map(revoked).collect(),
    })
}

pub fn revoke_egress(
    call: &mut Call<'_>,
    asked: &mut Asked<RevokeSecurityGroupEgressRequest>,
) -> Result<RevokeSecurityGroupEgressResult, ApiError> {
    let group = group_of(asked.group_id.take(), None)?;
    let permissions = all(flat!(asked), permission::read(&mut asked.ip_permissions)?)?;
    let rules = take(&mut asked.security_group_rule_ids);
    asked.end()?;
    let gone = call.cloud.revoke_security_group(&group, Direction::Egress, &permissions, &rules)?;
    Ok(RevokeSecurityGroupEgressResult {
        r#return: Some(true),
        unknown_ip_permissions: Vec::new(),
        revoked_security_group_rules: gone.iter().map(revoked).collect(),
    })
}

pub fn describe(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeSecurityGroupRulesRequest>,
) -> Result<DescribeSecurityGroupRulesResult, ApiError> {
    let (ids, filters) = (take(&mut asked.security_group_rule_ids), filters(&mut asked.filters)?);
    let (max_results, token) = (asked.max_results.take(), asked.next_token.take());
    asked.end()?;
    check_ids(|_| Kind::SecurityGroupRule, &ids)?;
    let found = call.cloud.describe_security_group_rules(&ids, &filters)?;
    let key = |rule: &group::SecurityGroupRule| rule.security_group_rule_id.to_string();
    let (found, next_token) = page(found, key, max_results, token, (5, 1000))?;
    Ok(DescribeSecurityGroupRulesResult { security_group_rules: found.iter().map(answer).collect(), next_token })
}

pub fn modify(
    call: &mut Call<'_>,
    asked: &mut Asked<ModifySecurityGroupRulesRequest>,
) -> Result<ModifySecurityGroupRulesResult, ApiError> {
    let group = group_of(asked.group_id.take(), None)?;
    let mut changes = Vec::new();
    for update in &mut asked.security_group_rules {
        let rule = need(text(&mut update.security_group_rule_id), "SecurityGroupRule.N.SecurityGroupRuleId")?;
        let request = need(update.security_group_rule.as_mut(), "SecurityGroupRule.N.SecurityGroupRule")?;
        changes.push(RuleChange { rule, permission: with_one_peer(request)? });
    }
    asked.end()?;
    call.cloud.modify_security_group_rules(&group, &changes)?;
    Ok(ModifySecurityGroupRulesResult { r#return: Some(true) })
}

fn with_one_peer(request: &mut SecurityGroupRuleRequest) -> Result<IpPermission, ApiError> {
    let description = request.description.take();
    let flat = Flat {
        protocol: Some(need(text(&mut request.ip_protocol), "SecurityGroupRule.N.SecurityGroupRule.IpProtocol")?),
        from_port: request.from_port.take(),
        to_port: request.to_port.take(),
        cidr: None,
        group_name: None,
        group_owner: None,
    };
    let range = |cidr: Option<String>| cidr.map(|cidr| Range { cidr, description: description.clone() });
    let pair = |id: String| GroupPair { group_id: Some(id), description: description.clone(), ..GroupPair::default() };
    let mut permission = flat.read()?.unwrap_or_default();
    permission.ip_ranges = range(text(&mut request.cidr_ipv4)).into_iter().collect();
    permission.ipv6_ranges = range(text(&mut request.cidr_ipv6)).into_iter().collect();
    permission.user_id_group_pairs = text(&mut request.referenced_group_id).map(pair).into_iter().collect();
    Ok(permission)
}

fn descriptions(changes: &mut Vec<SecurityGroupRuleDescription>) -> Result<Vec<DescriptionChange>, ApiError> {
    let read = |change: SecurityGroupRuleDescription| {
        let rule = need(change.security_group_rule_id, "SecurityGroupRuleDescription.N.SecurityGroupRuleId")?;
        Ok(DescriptionChange { rule, description: change.description })
    };
    take(changes).into_iter().map(read).collect()
}

fn update(
    call: &mut Call<'_>,
    group: &GroupRef,
    direction: Direction,
    permissions: &[IpPermission],
    changes: &[DescriptionChange],
) -> Result<(), ApiError> {
    Ok(call.cloud.update_rule_descriptions(group, direction, permissions, changes)?)
}

pub fn update_ingress(
    call: &mut Call<'_>,
    asked: &mut Asked<UpdateSecurityGroupRuleDescriptionsIngressRequest>,
) -> Result<UpdateSecurityGroupRuleDescriptionsIngressResult, ApiError> {
    let group = group_of(asked.group_id.take(), asked.group_name.take())?;
    let permissions = permission::read(&mut asked.ip_permissions)?;
    let changes = descriptions(&mut asked.security_group_rule_descriptions)?;
    asked.end()?;
    update(call, &group, Direction::Ingress, &permissions, &changes)?;
    Ok(UpdateSecurityGroupRuleDescriptionsIngressResult { r#return: Some(true) })
}

pub fn update_egress(
    call: &mut Call<'_>,
    asked: &mut Asked<UpdateSecurityGroupRuleDescriptionsEgressRequest>,
) -> Result<UpdateSecurityGroupRuleDescriptionsEgressResult, ApiError> {
    let group = group_of(asked.group_id.take(), asked.group_name.take())?;
    let permissions = permission::read(&mut asked.ip_permissions)?;
    let changes = descriptions(&mut asked.security_group_rule_descriptions)?;
    asked.end()?;
    update(call, &group, Direction::Egress, &permissions, &changes)?;
    Ok(UpdateSecurityGroupRuleDescriptionsEgressResult { r#return: Some(true) })
}
