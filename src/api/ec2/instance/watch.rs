//! How instances can be looked at beside their console's output.

use std::mem::take;

use super::super::parts::{check_ids, need, text};
use crate::api::call::{Asked, Call};
use crate::api::error::ApiError;
use crate::api::model::{
    GetConsoleScreenshotRequest, GetConsoleScreenshotResult, GetPasswordDataRequest, GetPasswordDataResult,
    InstanceMonitoring, MonitorInstancesRequest, MonitorInstancesResult, Monitoring, UnmonitorInstancesRequest,
    UnmonitorInstancesResult,
};
use crate::api::wire::Timestamp;
use crate::cloud::{Kind, time};

/// The password of a Windows guest's administrator. Nobody here reads it off the console, so that it is always as on EC2
/// before the guest has told it: empty.
pub fn password(
    call: &mut Call<'_>,
    asked: &mut Asked<GetPasswordDataRequest>,
) -> Result<GetPasswordDataResult, ApiError> {
    let id = need(text(&mut asked.instance_id), "InstanceId")?;
    asked.end()?;
    Ok(GetPasswordDataResult {
        instance_id: Some(call.instance(&id)?.instance_id.to_string()),
        password_data: Some(String::new()),
        timestamp: Some(Timestamp(time::now())),
    })
}

pub fn screenshot(
    call: &mut Call<'_>,
    asked: &mut Asked<GetConsoleScreenshotRequest>,
) -> Result<GetConsoleScreenshotResult, ApiError> {
    let id = need(text(&mut asked.instance_id), "InstanceId")?;
    asked.wake_up = None;
    asked.end()?;
    let id = call.instance(&id)?.instance_id;
    Err(ApiError::unsupported(format!("The instance {id} has no screen; GetConsoleOutput has its serial console")))
}

fn some(call: &mut Call<'_>, ids: &[String]) -> Result<(), ApiError> {
    check_ids(|_| Kind::Instance, ids)?;
    if ids.is_empty() {
        return Err(ApiError::missing("InstanceId"));
    }
    call.cloud.describe_instances(ids, &[])?;
    Ok(())
}

/// Nobody collects what instances measure.
pub fn monitor(
    call: &mut Call<'_>,
    asked: &mut Asked<MonitorInstancesRequest>,
) -> Result<MonitorInstancesResult, ApiError> {
    some(call, &take(&mut asked.instance_ids))?;
    asked.end()?;
    Err(ApiError::unsupported("Detailed monitoring is not supported"))
}

/// It is always off.
pub fn unmonitor(
    call: &mut Call<'_>,
    asked: &mut Asked<UnmonitorInstancesRequest>,
) -> Result<UnmonitorInstancesResult, ApiError> {
    let ids = take(&mut asked.instance_ids);
    some(call, &ids)?;
    asked.end()?;
    let off = |id| InstanceMonitoring {
        instance_id: Some(id),
        monitoring: Some(Monitoring { state: Some("disabled".into()), ..Monitoring::default() }),
    };
    Ok(UnmonitorInstancesResult { instance_monitorings: ids.into_iter().map(off).collect() })
}
