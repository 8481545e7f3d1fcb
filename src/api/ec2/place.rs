//! Regions and zones.

use super::parts;
use crate::api::call::{Asked, Call, actions};
use crate::api::error::ApiError;
use crate::api::model::{DescribeRegionsRequest, DescribeRegionsResult, Region};

actions! {
    DescribeRegionsAction => describe_regions,
}

fn describe_regions(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeRegionsRequest>,
) -> Result<DescribeRegionsResult, ApiError> {
    let names = std::mem::take(&mut asked.region_names);
    let _filters = parts::filters(&mut asked.filters)?;
    asked.all_regions = None;
    asked.end()?;
    let regions = call.cloud.regions()?;
    let is_asked = |name: &str| names.is_empty() || names.iter().any(|asked| asked == name);
    let regions = regions.into_iter().filter(|region| is_asked(&region.region_name)).map(|region| Region {
        endpoint: Some(format!("ec2.{}.amazonaws.com", region.region_name)),
        region_name: Some(region.region_name),
        opt_in_status: Some("opt-in-not-required".into()),
        ..Region::default()
    });
    Ok(DescribeRegionsResult { regions: regions.collect() })
}
