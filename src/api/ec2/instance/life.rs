//! Instances start, stop, and go.

use std::mem::take;

use super::super::parts::check_ids;
use super::answer::state;
use crate::api::call::{Asked, Call, patiently};
use crate::api::error::ApiError;
use crate::api::model::{
    Done, InstanceStateChange, RebootInstancesRequest, StartInstancesRequest, StartInstancesResult,
    StopInstancesRequest, StopInstancesResult, TerminateInstancesRequest, TerminateInstancesResult,
};
use crate::cloud::{Kind, StateChange, StopRequest};

fn some(ids: Vec<String>) -> Result<Vec<String>, ApiError> {
    check_ids(|_| Kind::Instance, &ids)?;
    if ids.is_empty() { Err(ApiError::missing("InstanceId")) } else { Ok(ids) }
}

fn changes(changes: Vec<StateChange>) -> Vec<InstanceStateChange> {
    let change = |change: StateChange| InstanceStateChange {
        instance_id: Some(change.instance_id.to_string()),
        previous_state: Some(state(&change.previous_state)),
        current_state: Some(state(&change.current_state)),
    };
    changes.into_iter().map(change).collect()
}

pub fn start(call: &mut Call<'_>, asked: &mut Asked<StartInstancesRequest>) -> Result<StartInstancesResult, ApiError> {
    let ids = some(take(&mut asked.instance_ids))?;
    asked.end()?;
    Ok(StartInstancesResult {
        starting_instances: changes(patiently(call.cloud, |cloud| cloud.start_instances(&ids))?),
    })
}

pub fn stop(call: &mut Call<'_>, asked: &mut Asked<StopInstancesRequest>) -> Result<StopInstancesResult, ApiError> {
    let ids = some(take(&mut asked.instance_ids))?;
    let request = how(asked.force.take(), asked.skip_os_shutdown.take());
    asked.end()?;
    Ok(StopInstancesResult {
        stopping_instances: changes(patiently(call.cloud, |cloud| cloud.stop_instances(&ids, request))?),
    })
}

pub fn terminate(
    call: &mut Call<'_>,
    asked: &mut Asked<TerminateInstancesRequest>,
) -> Result<TerminateInstancesResult, ApiError> {
    let ids = some(take(&mut asked.instance_ids))?;
    let request = how(asked.force.take(), asked.skip_os_shutdown.take());
    asked.end()?;
    Ok(TerminateInstancesResult {
        terminating_instances: changes(patiently(call.cloud, |cloud| cloud.terminate_instances(&ids, request))?),
    })
}

/// Whether the guest is to be left out of it.
fn how(force: Option<bool>, skip_os_shutdown: Option<bool>) -> StopRequest {
    StopRequest { force: force == Some(true) || skip_os_shutdown == Some(true), grace: None }
}

pub fn reboot(call: &mut Call<'_>, asked: &mut Asked<RebootInstancesRequest>) -> Result<Done, ApiError> {
    let ids = some(take(&mut asked.instance_ids))?;
    asked.end()?;
    call.begin(move |cloud, begun| {
        patiently(cloud, |cloud| cloud.reboot_instances_with(&ids, StopRequest::default(), &mut |_| begun(Done)))
    })
}
