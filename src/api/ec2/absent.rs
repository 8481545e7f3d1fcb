//! What there is none of here: clients look whether there is any, and are content with an empty list.

use crate::api::call::{Asked, Call, actions};
use crate::api::error::ApiError;
use crate::api::model::{
    DescribeAddressesRequest, DescribeAddressesResult, DescribeCapacityReservationsRequest,
    DescribeCapacityReservationsResult, DescribeFastSnapshotRestoresRequest, DescribeFastSnapshotRestoresResult,
    DescribeHostsRequest, DescribeHostsResult, DescribeInternetGatewaysRequest, DescribeInternetGatewaysResult,
    DescribeLaunchTemplatesRequest, DescribeLaunchTemplatesResult, DescribeLockedSnapshotsRequest,
    DescribeLockedSnapshotsResult, DescribeManagedPrefixListsRequest, DescribeManagedPrefixListsResult,
    DescribePlacementGroupsRequest, DescribePlacementGroupsResult, DescribePrefixListsRequest,
    DescribePrefixListsResult, DescribeReservedInstancesRequest, DescribeReservedInstancesResult,
    DescribeSnapshotTierStatusRequest, DescribeSnapshotTierStatusResult, DescribeSpotInstanceRequestsRequest,
    DescribeSpotInstanceRequestsResult, GetEbsEncryptionByDefaultRequest, GetEbsEncryptionByDefaultResult,
};

actions! {
    DescribeAddressesAction => addresses,
    DescribeCapacityReservationsAction => capacity_reservations,
    DescribeFastSnapshotRestoresAction => fast_snapshot_restores,
    DescribeHostsAction => hosts,
    DescribeInternetGatewaysAction => internet_gateways,
    DescribeLaunchTemplatesAction => launch_templates,
    DescribeLockedSnapshotsAction => locked_snapshots,
    DescribeManagedPrefixListsAction => managed_prefix_lists,
    DescribePlacementGroupsAction => placement_groups,
    DescribePrefixListsAction => prefix_lists,
    DescribeReservedInstancesAction => reserved_instances,
    DescribeSnapshotTierStatusAction => snapshot_tiers,
    DescribeSpotInstanceRequestsAction => spot_requests,
    GetEbsEncryptionByDefaultAction => encryption_by_default,
}

/// Listings of nothing: who asks for one by a name in one of these members is told that it is not there. All else that can
/// be asked for chooses from what there is.
macro_rules! none {
    ($($name:ident: $request:ty => $answer:ty $(, $names:ident is $code:literal)*;)*) => {
        $(fn $name(_: &mut Call<'_>, asked: &mut Asked<$request>) -> Result<$answer, ApiError> {
            $(if let Some(name) = asked.$names.first() {
                return Err(ApiError::new($code, format!("'{name}' does not exist")));
            })*
            **asked = <$request>::default();
            asked.end()?;
            Ok(<$answer>::default())
        })*
    };
}

none! {
    addresses: DescribeAddressesRequest => DescribeAddressesResult,
        allocation_ids is "InvalidAllocationID.NotFound", public_ips is "InvalidAddress.NotFound";
    capacity_reservations: DescribeCapacityReservationsRequest => DescribeCapacityReservationsResult,
        capacity_reservation_ids is "InvalidCapacityReservationId.NotFound";
    fast_snapshot_restores: DescribeFastSnapshotRestoresRequest => DescribeFastSnapshotRestoresResult;
    hosts: DescribeHostsRequest => DescribeHostsResult, host_ids is "InvalidHostID.NotFound";
    internet_gateways: DescribeInternetGatewaysRequest => DescribeInternetGatewaysResult,
        internet_gateway_ids is "InvalidInternetGatewayID.NotFound";
    launch_templates: DescribeLaunchTemplatesRequest => DescribeLaunchTemplatesResult,
        launch_template_ids is "InvalidLaunchTemplateId.NotFound",
        launch_template_names is "InvalidLaunchTemplateName.NotFoundException";
    locked_snapshots: DescribeLockedSnapshotsRequest => DescribeLockedSnapshotsResult;
    managed_prefix_lists: DescribeManagedPrefixListsRequest => DescribeManagedPrefixListsResult,
        prefix_list_ids is "InvalidPrefixListID.NotFound";
    placement_groups: DescribePlacementGroupsRequest => DescribePlacementGroupsResult,
        group_ids is "InvalidPlacementGroup.Unknown", group_names is "InvalidPlacementGroup.Unknown";
    prefix_lists: DescribePrefixListsRequest => DescribePrefixListsResult,
        prefix_list_ids is "InvalidPrefixListId.NotFound";
    reserved_instances: DescribeReservedInstancesRequest => DescribeReservedInstancesResult,
        reserved_instances_ids is "InvalidReservedInstancesId";
    snapshot_tiers: DescribeSnapshotTierStatusRequest => DescribeSnapshotTierStatusResult;
    spot_requests: DescribeSpotInstanceRequestsRequest => DescribeSpotInstanceRequestsResult,
        spot_instance_request_ids is "InvalidSpotInstanceRequestID.NotFound";
}

fn encryption_by_default(
    _: &mut Call<'_>,
    asked: &mut Asked<GetEbsEncryptionByDefaultRequest>,
) -> Result<GetEbsEncryptionByDefaultResult, ApiError> {
    asked.end()?;
    Ok(GetEbsEncryptionByDefaultResult { ebs_encryption_by_default: Some(false), sse_type: None })
}

#[cfg(test)]
mod tests {
    use super::ACTIONS;
    use crate::api::testing::World;

    #[test]
    fn nothing_is_listed_and_nothing_is_found_by_its_name() {
        let world = World::new();
        for (action, _) in ACTIONS {
            let answer = world.ask(action, &[]);
            assert_eq!((answer.status, answer.all("item").len()), (200, 0), "{action}");
        }
        assert_eq!(world.ask("GetEbsEncryptionByDefault", &[]).one("ebsEncryptionByDefault"), "false");
        let chosen = [("Filter.1.Name", "instance-id"), ("Filter.1.Value.1", "i-01234567")];
        assert_eq!(world.ask("DescribeAddresses", &chosen).status, 200);
        for (action, name, code) in [
            ("DescribeAddresses", "PublicIp.1", "InvalidAddress.NotFound"),
            ("DescribeHosts", "HostId.1", "InvalidHostID.NotFound"),
            ("DescribeLaunchTemplates", "LaunchTemplateName.1", "InvalidLaunchTemplateName.NotFoundException"),
            ("DescribePlacementGroups", "GroupName.1", "InvalidPlacementGroup.Unknown"),
        ] {
            assert_eq!(world.ask(action, &[(name, "x")]).code(), code);
        }
        assert_eq!(world.ask("DescribeHosts", &[("Colour", "red")]).code(), "UnknownParameter");
    }
}
