"""What there is none of: lists that clients look into, and that are empty."""

from .serving import dry, equal, refused
from .shapes import need

LISTS = {
    "describe_addresses": "Addresses", "describe_capacity_reservations": "CapacityReservations",
    "describe_fast_snapshot_restores": "FastSnapshotRestores", "describe_hosts": "Hosts",
    "describe_internet_gateways": "InternetGateways", "describe_launch_templates": "LaunchTemplates",
    "describe_locked_snapshots": "Snapshots", "describe_managed_prefix_lists": "PrefixLists",
    "describe_placement_groups": "PlacementGroups", "describe_prefix_lists": "PrefixLists",
    "describe_reserved_instances": "ReservedInstances", "describe_snapshot_tier_status": "SnapshotTierStatuses",
    "describe_spot_instance_requests": "SpotInstanceRequests",
}


def nothing(world):
    ec2 = world.client(world.account())
    for action, key in LISTS.items():
        equal(getattr(ec2, action)()[key], [], action)
    dry(ec2.describe_addresses)
    need(ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"] is False, "encryption by default")
    refused("InvalidAllocationID.NotFound", ec2.describe_addresses, AllocationIds=["eipalloc-0123456789abcdef0"])
    refused("InvalidPlacementGroup.Unknown", ec2.describe_placement_groups, GroupNames=["none"])


CHECKS = [nothing]
