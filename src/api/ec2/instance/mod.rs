//! Instances.

mod answer;
mod attribute;
mod life;
mod list;
mod metadata;
mod run;
mod types;
mod watch;

use crate::api::call::actions;

actions! {
    DescribeInstanceAttributeAction => attribute::describe,
    DescribeInstanceCreditSpecificationsAction => list::credit_specifications,
    DescribeInstanceStatusAction => list::status,
    DescribeInstanceTypeOfferingsAction => types::offerings,
    DescribeInstanceTypesAction => types::describe,
    DescribeInstancesAction => list::describe,
    GetConsoleOutputAction => list::console_output,
    GetConsoleScreenshotAction => watch::screenshot,
    GetInstanceUefiDataAction => list::uefi_data,
    GetPasswordDataAction => watch::password,
    ModifyInstanceAttributeAction => attribute::modify,
    ModifyInstanceMetadataOptionsAction => metadata::modify,
    MonitorInstancesAction => watch::monitor,
    RebootInstancesAction => life::reboot,
    ResetInstanceAttributeAction => attribute::reset,
    RunInstancesAction => run::run,
    StartInstancesAction => life::start,
    StopInstancesAction => life::stop,
    TerminateInstancesAction => life::terminate,
    UnmonitorInstancesAction => watch::unmonitor,
}
