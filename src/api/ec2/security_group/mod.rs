//! Security groups and their rules.

mod permission;
mod rule;

use std::mem::take;

use super::parts::{check_id, check_ids, filters, need, page, tags, tags_for, text};
use crate::api::call::{Asked, Call, actions};
use crate::api::error::ApiError;
use crate::api::model::{
    CreateSecurityGroupRequest, CreateSecurityGroupResult, DeleteSecurityGroupRequest, DeleteSecurityGroupResult,
    DescribeSecurityGroupsRequest, DescribeSecurityGroupsResult, SecurityGroup,
};
use crate::cloud::Kind;
use crate::cloud::network::group::{self, GroupRef, SecurityGroupRequest};

actions! {
    AuthorizeSecurityGroupEgressAction => rule::authorize_egress,
    AuthorizeSecurityGroupIngressAction => rule::authorize_ingress,
    CreateSecurityGroupAction => create,
    DeleteSecurityGroupAction => delete,
    DescribeSecurityGroupRulesAction => rule::describe,
    DescribeSecurityGroupsAction => describe,
    ModifySecurityGroupRulesAction => rule::modify,
    RevokeSecurityGroupEgressAction => rule::revoke_egress,
    RevokeSecurityGroupIngressAction => rule::revoke_ingress,
    UpdateSecurityGroupRuleDescriptionsEgressAction => rule::update_egress,
    UpdateSecurityGroupRuleDescriptionsIngressAction => rule::update_ingress,
}

/// Which group is meant.
fn group_of(id: Option<String>, name: Option<String>) -> Result<GroupRef, ApiError> {
    match (id.filter(|id| !id.is_empty()), name.filter(|name| !name.is_empty())) {
        (Some(id), _) => {
            check_id(Kind::SecurityGroup, &id)?;
            Ok(GroupRef::Id(id))
        }
        (None, Some(name)) => Ok(GroupRef::Name(name)),
        (None, None) => Err(ApiError::missing("GroupId")),
    }
}

fn create(
    call: &mut Call<'_>,
    asked: &mut Asked<CreateSecurityGroupRequest>,
) -> Result<CreateSecurityGroupResult, ApiError> {
    let request = SecurityGroupRequest {
        name: need(text(&mut asked.group_name), "GroupName")?,
        description: need(text(&mut asked.description), "GroupDescription")?,
        vpc: text(&mut asked.vpc_id),
        tags: tags_for("security-group", &mut asked.tag_specifications)?,
    };
    asked.end()?;
    let made = call.cloud.create_security_group(&request)?;
    Ok(CreateSecurityGroupResult {
        security_group_arn: Some(made.arn()),
        tags: tags(&made.tags),
        group_id: Some(made.group_id.to_string()),
    })
}

fn describe(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeSecurityGroupsRequest>,
) -> Result<DescribeSecurityGroupsResult, ApiError> {
    let (ids, names) = (take(&mut asked.group_ids), take(&mut asked.group_names));
    let filters = filters(&mut asked.filters)?;
    let (max_results, token) = (asked.max_results.take(), asked.next_token.take());
    asked.end()?;
    check_ids(|_| Kind::SecurityGroup, &ids)?;
    let found = call.cloud.describe_security_groups(&ids, &names, &filters)?;
    let (found, next_token) = page(found, |group| group.group_id.to_string(), max_results, token, (5, 1000))?;
    let answer = |of: group::SecurityGroup| SecurityGroup {
        security_group_arn: Some(of.arn()),
        group_id: Some(of.group_id.to_string()),
        group_name: Some(of.group_name),
        description: Some(of.description),
        vpc_id: Some(of.vpc_id.to_string()),
        owner_id: Some(of.owner_id),
        ip_permissions: of.ip_permissions.into_iter().map(permission::write).collect(),
        ip_permissions_egress: of.ip_permissions_egress.into_iter().map(permission::write).collect(),
        tags: tags(&of.tags),
    };
    Ok(DescribeSecurityGroupsResult { security_groups: found.into_iter().map(answer).collect(), next_token })
}

fn delete(
    call: &mut Call<'_>,
    asked: &mut Asked<DeleteSecurityGroupRequest>,
) -> Result<DeleteSecurityGroupResult, ApiError> {
    let group = group_of(asked.group_id.take(), asked.group_name.take())?;
    asked.end()?;
    let id = call.cloud.delete_security_group(&group)?;
    Ok(DeleteSecurityGroupResult { r#return: Some(true), group_id: Some(id.to_string()) })
}
