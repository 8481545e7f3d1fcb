//! Instances as they are.

use std::mem::take;

use base64ct::{Base64, Encoding};

use super::super::parts::{check_id, check_ids, check_page, filters, need, own_filters, page, passes};
use super::answer::{reservations, state};
use crate::api::call::{Asked, Call};
use crate::api::error::ApiError;
use crate::api::model::{
    DescribeInstanceCreditSpecificationsRequest, DescribeInstanceCreditSpecificationsResult,
    DescribeInstanceStatusRequest, DescribeInstanceStatusResult, DescribeInstancesRequest, DescribeInstancesResult,
    GetConsoleOutputRequest, GetConsoleOutputResult, GetInstanceUefiDataRequest, GetInstanceUefiDataResult,
    InstanceCreditSpecification, InstanceStatus, InstanceStatusDetails, InstanceStatusSummary,
};
use crate::api::wire::Timestamp;
use crate::cloud::{CloudError, Instance, Kind, time};

/// What EC2 gives of a console's output, in bytes.
const CONSOLE: u64 = 64 << 10;

/// The order of pages: that of launches.
fn order(instance: &Instance) -> String {
    let Instance { launch_time, reservation_id, ami_launch_index, .. } = instance;
    format!("{launch_time} {reservation_id} {ami_launch_index:08}")
}

pub fn describe(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeInstancesRequest>,
) -> Result<DescribeInstancesResult, ApiError> {
    let (ids, filters) = (take(&mut asked.instance_ids), filters(&mut asked.filters)?);
    let (max_results, token) = (asked.max_results.take(), asked.next_token.take());
    asked.include_managed_resources = None;
    asked.end()?;
    check_ids(|_| Kind::Instance, &ids)?;
    check_page(&ids, max_results, "instancesSet")?;
    let found = call.cloud.describe_instances(&ids, &filters)?;
    let (found, next_token) = page(found, order, max_results, token, (5, 1000))?;
    Ok(DescribeInstancesResult { reservations: reservations(call, &found), next_token })
}

pub fn status(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeInstanceStatusRequest>,
) -> Result<DescribeInstanceStatusResult, ApiError> {
    let (ids, mut filters) = (take(&mut asked.instance_ids), filters(&mut asked.filters)?);
    let of_status = own_filters(&mut filters, &STATUS_FILTERS);
    let (max_results, token) = (asked.max_results.take(), asked.next_token.take());
    let all = asked.include_all_instances.take() == Some(true);
    asked.include_managed_resources = None;
    asked.end()?;
    check_ids(|_| Kind::Instance, &ids)?;
    check_page(&ids, max_results, "instancesSet")?;
    let mut found = call.cloud.describe_instances(&ids, &filters)?;
    found.retain(|instance| all || instance.state == "running");
    found.retain(|instance| passes(&of_status, &status_values(instance)));
    let (found, next_token) = page(found, order, max_results, token, (5, 1000))?;
    Ok(DescribeInstanceStatusResult { instance_statuses: found.iter().map(status_of).collect(), next_token })
}

/// Filters of what a status says. There are no events.
const STATUS_FILTERS: [&str; 12] = [
    "attached-ebs-status.status",
    "event.code",
    "event.description",
    "event.instance-event-id",
    "event.not-after",
    "event.not-before",
    "event.not-before-deadline",
    "instance-status.reachability",
    "instance-status.status",
    "operator.managed",
    "system-status.reachability",
    "system-status.status",
];

fn status_values(instance: &Instance) -> [(&'static str, &'static str); 4] {
    let runs = instance.state == "running";
    let (status, reachability) = if runs { ("ok", "passed") } else { ("not-applicable", "") };
    [
        ("instance-status.reachability", reachability),
        ("instance-status.status", status),
        ("system-status.reachability", reachability),
        ("system-status.status", status),
    ]
}

/// A machine that runs is well: its process would have ended it otherwise.
fn status_of(instance: &Instance) -> InstanceStatus {
    let runs = instance.state == "running";
    let word = |word: &str| Some(word.to_owned());
    let summary = InstanceStatusSummary {
        status: word(if runs { "ok" } else { "not-applicable" }),
        details: runs
            .then(|| InstanceStatusDetails { name: word("reachability"), status: word("passed"), impaired_since: None })
            .into_iter()
            .collect(),
    };
    InstanceStatus {
        availability_zone: Some(instance.availability_zone.clone()),
        availability_zone_id: instance.availability_zone_id.clone(),
        instance_id: Some(instance.instance_id.to_string()),
        instance_state: Some(state(&instance.state)),
        instance_status: Some(summary.clone()),
        system_status: Some(summary),
        ..InstanceStatus::default()
    }
}

pub fn console_output(
    call: &mut Call<'_>,
    asked: &mut Asked<GetConsoleOutputRequest>,
) -> Result<GetConsoleOutputResult, ApiError> {
    let id = need(asked.instance_id.take(), "InstanceId")?;
    // It is always the latest.
    asked.latest = None;
    asked.end()?;
    check_id(Kind::Instance, &id)?;
    let (instance, output) = call.cloud.console_output(&id, CONSOLE)?;
    Ok(GetConsoleOutputResult {
        instance_id: Some(instance.instance_id.to_string()),
        timestamp: Some(Timestamp(time::now())),
        output: Some(Base64::encode_string(&output)),
    })
}

pub fn uefi_data(
    call: &mut Call<'_>,
    asked: &mut Asked<GetInstanceUefiDataRequest>,
) -> Result<GetInstanceUefiDataResult, ApiError> {
    let id = need(asked.instance_id.take(), "InstanceId")?;
    asked.end()?;
    // Clients ask for images, too, and are content with this error.
    if id.starts_with(Kind::Image.prefix()) {
        return Err(CloudError::NotFound { kind: Kind::Instance, id }.into());
    }
    let id = call.instance(&id)?.instance_id;
    Err(ApiError::unsupported(format!("The UEFI variables of {id} cannot be read in EC2's form")))
}

pub fn credit_specifications(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeInstanceCreditSpecificationsRequest>,
) -> Result<DescribeInstanceCreditSpecificationsResult, ApiError> {
    let (ids, filters) = (take(&mut asked.instance_ids), filters(&mut asked.filters)?);
    let (max_results, token) = (asked.max_results.take(), asked.next_token.take());
    asked.end()?;
    check_ids(|_| Kind::Instance, &ids)?;
    check_page(&ids, max_results, "instancesSet")?;
    let mut found = call.cloud.describe_instances(&ids, &filters)?;
    found.retain(|instance| instance.instance_type.starts_with('t'));
    let (found, next_token) = page(found, order, max_results, token, (5, 1000))?;
    let specification = |instance: &Instance| InstanceCreditSpecification {
        instance_id: Some(instance.instance_id.to_string()),
        cpu_credits: Some(if instance.instance_type.starts_with("t2.") { "standard" } else { "unlimited" }.into()),
    };
    let instance_credit_specifications = found.iter().map(specification).collect();
    Ok(DescribeInstanceCreditSpecificationsResult { instance_credit_specifications, next_token })
}
