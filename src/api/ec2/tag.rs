//! Tags of anything.

use std::mem::take;

use super::parts::{filters, need, page};
use crate::api::call::{Asked, Call, actions};
use crate::api::error::ApiError;
use crate::api::model::{
    CreateTagsRequest, DeleteTagsRequest, DescribeTagsRequest, DescribeTagsResult, Done, TagDescription,
};
use crate::cloud;
use crate::cloud::tag::{Removal, Tags};

actions! {
    CreateTagsAction => create,
    DeleteTagsAction => delete,
    DescribeTagsAction => describe,
}

fn create(call: &mut Call<'_>, asked: &mut Asked<CreateTagsRequest>) -> Result<Done, ApiError> {
    let resources = resources(take(&mut asked.resources))?;
    let mut tags = Tags::new();
    for tag in take(&mut asked.tags) {
        let key = need(tag.key, "Tag.N.Key")?;
        if tags.insert(key.clone(), tag.value.unwrap_or_default()).is_some() {
            return Err(ApiError::value(format!("Duplicate tag key '{key}' specified.")));
        }
    }
    asked.end()?;
    if tags.is_empty() {
        return Err(ApiError::missing("Tag"));
    }
    call.cloud.tag_resources(&resources, &tags)?;
    Ok(Done)
}

fn resources(ids: Vec<String>) -> Result<Vec<String>, ApiError> {
    if ids.is_empty() { Err(ApiError::missing("ResourceId")) } else { Ok(ids) }
}

fn delete(call: &mut Call<'_>, asked: &mut Asked<DeleteTagsRequest>) -> Result<Done, ApiError> {
    let resources = resources(take(&mut asked.resources))?;
    let removal =
        |tag: crate::api::model::Tag| Ok::<_, ApiError>(Removal { key: need(tag.key, "Tag.N.Key")?, value: tag.value });
    let removals: Vec<Removal> = take(&mut asked.tags).into_iter().map(removal).collect::<Result<_, _>>()?;
    asked.end()?;
    call.cloud.untag_resources(&resources, &removals)?;
    Ok(Done)
}

fn describe(call: &mut Call<'_>, asked: &mut Asked<DescribeTagsRequest>) -> Result<DescribeTagsResult, ApiError> {
    let filters = filters(&mut asked.filters)?;
    let (max_results, token) = (asked.max_results.take(), asked.next_token.take());
    asked.end()?;
    let found = call.cloud.tag_descriptions(&filters)?;
    let key = |tag: &cloud::TagDescription| format!("{} {}", tag.resource_id, tag.key);
    let (found, next_token) = page(found, key, max_results, token, (5, 1000))?;
    let description = |tag: cloud::TagDescription| TagDescription {
        key: Some(tag.key),
        resource_id: Some(tag.resource_id.to_string()),
        resource_type: Some(tag.resource_type.to_owned()),
        value: Some(tag.value),
    };
    Ok(DescribeTagsResult { tags: found.into_iter().map(description).collect(), next_token })
}
