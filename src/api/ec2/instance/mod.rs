//! Instances.

mod answer;
mod attribute;
mod life;
mod list;
mod metadata;
mod run;
mod types;

use crate::api::call::actions;

actions! {
    DescribeInstanceAttributeAction => attribute::describe,
    DescribeInstanceCreditSpecificationsAction => list::credit_specifications,
    DescribeInstanceStatusAction => list::status,
    DescribeInstanceTypeOfferingsAction => types::offerings,
    DescribeInstanceTypesAction => types::describe,
    DescribeInstancesAction => list::describe,
    GetConsoleOutputAction => list::console_output,
    GetInstanceUefiDataAction => list::uefi_data,
    ModifyInstanceAttributeAction => attribute::modify,
    ModifyInstanceMetadataOptionsAction => metadata::modify,
    RebootInstancesAction => life::reboot,
    ResetInstanceAttributeAction => attribute::reset,
    RunInstancesAction => run::run,
    StartInstancesAction => life::start,
    StopInstancesAction => life::stop,
    TerminateInstancesAction => life::terminate,
}
