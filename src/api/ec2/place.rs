//! Regions, zones, and what an account may have.

use std::mem::take;

use super::parts::filters;
use crate::api::call::{Asked, Call, actions};
use crate::api::error::ApiError;
use crate::api::model::{
    AccountAttribute, AccountAttributeValue, AvailabilityZone, DescribeAccountAttributesRequest,
    DescribeAccountAttributesResult, DescribeAvailabilityZonesRequest, DescribeAvailabilityZonesResult,
    DescribeRegionsRequest, DescribeRegionsResult, Region,
};
use crate::cloud::zone;

actions! {
    DescribeAccountAttributesAction => describe_account_attributes,
    DescribeAvailabilityZonesAction => describe_zones,
    DescribeRegionsAction => describe_regions,
}

fn describe_regions(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeRegionsRequest>,
) -> Result<DescribeRegionsResult, ApiError> {
    let (names, filters) = (take(&mut asked.region_names), filters(&mut asked.filters)?);
    // All can be used.
    asked.all_regions = None;
    asked.end()?;
    let region = |region: zone::Region| Region {
        endpoint: Some(region.endpoint()),
        region_name: Some(region.region_name),
        opt_in_status: Some("opt-in-not-required".into()),
        ..Region::default()
    };
    let found = call.cloud.describe_regions(&names, &filters)?;
    Ok(DescribeRegionsResult { regions: found.into_iter().map(region).collect() })
}

fn describe_zones(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeAvailabilityZonesRequest>,
) -> Result<DescribeAvailabilityZonesResult, ApiError> {
    let (names, ids) = (take(&mut asked.zone_names), take(&mut asked.zone_ids));
    let filters = filters(&mut asked.filters)?;
    let all = asked.all_availability_zones.take() == Some(true);
    asked.end()?;
    let zone = |zone: zone::Zone| AvailabilityZone {
        group_name: Some(zone.group_name().to_owned()),
        network_border_group: Some(zone.group_name().to_owned()),
        opt_in_status: Some(zone.opt_in_status().to_owned()),
        region_name: Some(zone.region_name),
        zone_name: Some(zone.zone_name),
        zone_id: Some(zone.zone_id),
        zone_type: Some(zone.zone_type),
        parent_zone_name: zone.parent_zone_name,
        state: Some("available".into()),
        ..AvailabilityZone::default()
    };
    let found = call.cloud.describe_zones(&names, &ids, &filters, all)?;
    Ok(DescribeAvailabilityZonesResult { availability_zones: found.into_iter().map(zone).collect() })
}

fn describe_account_attributes(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeAccountAttributesRequest>,
) -> Result<DescribeAccountAttributesResult, ApiError> {
    let names = take(&mut asked.attribute_names);
    asked.end()?;
    let default_vpc = call.cloud.describe_vpcs(&[], &[])?.into_iter().find(|vpc| vpc.is_default);
    let default_vpc = default_vpc.map_or_else(|| "none".to_owned(), |vpc| vpc.vpc_id.to_string());
    let all = [
        ("supported-platforms", "VPC"),
        ("default-vpc", default_vpc.as_str()),
        ("max-instances", "100"),
        ("vpc-max-security-groups-per-interface", "5"),
        ("max-elastic-ips", "0"),
        ("vpc-max-elastic-ips", "0"),
    ];
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|(have, _)| have == name)) {
        return Err(ApiError::value(format!("Value ({unknown}) for parameter attributeName is invalid.")));
    }
    let attribute = |(name, value): &(&str, &str)| AccountAttribute {
        attribute_name: Some((*name).to_owned()),
        attribute_values: vec![AccountAttributeValue { attribute_value: Some((*value).to_owned()) }],
    };
    let is_asked = |(name, _): &&(&str, &str)| names.is_empty() || names.iter().any(|asked| asked == name);
    Ok(DescribeAccountAttributesResult { account_attributes: all.iter().filter(is_asked).map(attribute).collect() })
}
