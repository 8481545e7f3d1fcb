//! An instance as answers show it.

use super::super::parts::{moment, tags};
use super::metadata;
use crate::api::call::Call;
use crate::api::model::{
    CpuOptions, EbsInstanceBlockDevice, EnclaveOptions, GroupIdentifier, HibernationOptions, Instance,
    InstanceBlockDeviceMapping, InstanceMaintenanceOptions, InstanceNetworkInterface,
    InstanceNetworkInterfaceAttachment, InstancePrivateIpAddress, InstanceState, Monitoring, Placement,
    PrivateDnsNameOptionsResponse, Reservation, StateReason,
};
use crate::cloud::network::NetworkInterface;
use crate::cloud::{self, Attachment, instance_type};

/// A state with its number.
pub fn state(name: &str) -> InstanceState {
    let code = match name {
        "pending" => 0,
        "running" => 16,
        "shutting-down" => 32,
        "terminated" => 48,
        "stopping" => 64,
        _ => 80,
    };
    InstanceState { code: Some(code), name: Some(name.to_owned()) }
}

/// Instances in their reservations, in the order in which they come.
pub fn reservations(call: &Call<'_>, instances: &[cloud::Instance]) -> Vec<Reservation> {
    let mut reservations: Vec<Reservation> = Vec::new();
    for instance in instances {
        let id = instance.reservation_id.as_str();
        let at = reservations.iter().rposition(|have| have.reservation_id.as_deref() == Some(id));
        let Some(reservation) = at.and_then(|at| reservations.get_mut(at)) else {
            reservations.push(Reservation {
                reservation_id: Some(id.to_owned()),
                owner_id: Some(instance.owner_id.clone()),
                instances: vec![self::instance(call, instance)],
                ..Reservation::default()
            });
            continue;
        };
        reservation.instances.push(self::instance(call, instance));
    }
    reservations
}

/// An instance.
pub fn instance(call: &Call<'_>, of: &cloud::Instance) -> Instance {
    let some = |text: &str| Some(text.to_owned());
    let interface = of.network_interface.as_ref();
    let reason = of.state_reason.as_ref();
    let kind = instance_type::find(&of.instance_type).ok();
    let vcpus = of.machine.cpus.or(kind.map(|kind| kind.vcpus));
    Instance {
        instance_id: some(of.instance_id.as_str()),
        image_id: some(&of.image_id),
        instance_type: some(&of.instance_type),
        ami_launch_index: Some(of.ami_launch_index.into()),
        state: Some(state(&of.state)),
        state_reason: reason.map(|reason| StateReason { code: some(&reason.code), message: some(&reason.message) }),
        state_transition_reason: Some(of.state_transition_reason()),
        launch_time: moment(&of.launch_time),
        usage_operation_update_time: moment(&of.launch_time),
        placement: Some(Placement {
            availability_zone: some(&of.availability_zone),
            availability_zone_id: of.availability_zone_id.clone(),
            group_name: some(""),
            tenancy: some("default"),
            ..Placement::default()
        }),
        architecture: some(&of.architecture),
        virtualization_type: some(&of.virtualization_type),
        hypervisor: some("xen"),
        boot_mode: of.boot_mode.clone(),
        current_instance_boot_mode: (of.virtualization_type == "hvm").then(|| of.current_boot_mode().to_owned()),
        root_device_type: some(&of.root_device_type),
        root_device_name: some(&of.root_device_name),
        block_device_mappings: of.block_device_mappings.iter().map(mapping).collect(),
        kernel_id: of.kernel_id.clone(),
        ramdisk_id: of.ramdisk_id.clone(),
        key_name: of.key_name.clone(),
        client_token: Some(of.client_token.clone().unwrap_or_default()),
        // In lower case, as EC2 writes it, whatever its model says.
        platform: of.platform.clone(),
        platform_details: Some(of.platform_details.clone().unwrap_or_else(|| "Linux/UNIX".into())),
        usage_operation: some(of.usage_operation()),
        private_ip_address: interface.map(|interface| interface.private_ip_address.to_string()),
        private_dns_name: Some(interface.map(|interface| interface.private_dns_name.clone()).unwrap_or_default()),
        public_ip_address: call.public_address(of).map(|address| address.to_string()),
        public_dns_name: some(""),
        vpc_id: interface.map(|interface| interface.vpc_id.to_string()),
        subnet_id: interface.map(|interface| interface.subnet_id.to_string()),
        source_dest_check: interface.map(|_| true),
        security_groups: interface.map(groups).unwrap_or_default(),
        network_interfaces: interface.map(|interface| self::interface(of, interface)).into_iter().collect(),
        metadata_options: Some(metadata::answer(&of.metadata_options)),
        tags: tags(&of.tags),
        monitoring: Some(Monitoring { state: some("disabled"), ..Monitoring::default() }),
        ebs_optimized: Some(false),
        ena_support: Some(of.ena_support),
        cpu_options: vcpus.map(|vcpus| CpuOptions {
            core_count: Some(vcpus.into()),
            threads_per_core: Some(1),
            ..CpuOptions::default()
        }),
        hibernation_options: Some(HibernationOptions { configured: Some(false) }),
        enclave_options: Some(EnclaveOptions { enabled: Some(false) }),
        maintenance_options: Some(InstanceMaintenanceOptions {
            auto_recovery: some("default"),
            ..InstanceMaintenanceOptions::default()
        }),
        private_dns_name_options: interface.map(|_| PrivateDnsNameOptionsResponse {
            hostname_type: some("ip-name"),
            enable_resource_name_dns_a_record: Some(false),
            enable_resource_name_dns_aaaa_record: Some(false),
        }),
        ..Instance::default()
    }
}

/// A volume at its device.
pub fn mapping(of: &Attachment) -> InstanceBlockDeviceMapping {
    InstanceBlockDeviceMapping {
        device_name: Some(of.device.clone()),
        ebs: Some(EbsInstanceBlockDevice {
            attach_time: moment(&of.attach_time),
            delete_on_termination: Some(of.delete_on_termination),
            status: Some(of.state.clone()),
            volume_id: Some(of.volume_id.to_string()),
            ..EbsInstanceBlockDevice::default()
        }),
    }
}

/// The security groups of an interface.
pub fn groups(of: &NetworkInterface) -> Vec<GroupIdentifier> {
    let group = |group: &cloud::network::GroupIdentifier| GroupIdentifier {
        group_id: Some(group.group_id.to_string()),
        group_name: Some(group.group_name.clone()),
    };
    of.groups.iter().map(group).collect()
}

fn interface(instance: &cloud::Instance, of: &NetworkInterface) -> InstanceNetworkInterface {
    let some = |text: &str| Some(text.to_owned());
    let id = of.network_interface_id.to_string();
    InstanceNetworkInterface {
        attachment: Some(InstanceNetworkInterfaceAttachment {
            attach_time: moment(&of.attach_time),
            attachment_id: Some(id.replacen("eni-", "eni-attach-", 1)),
            delete_on_termination: Some(true),
            device_index: Some(0),
            network_card_index: Some(0),
            status: some("attached"),
            ..InstanceNetworkInterfaceAttachment::default()
        }),
        description: some(""),
        groups: groups(of),
        mac_address: Some(of.mac_address.to_string()),
        network_interface_id: Some(id),
        owner_id: Some(instance.owner_id.clone()),
        private_dns_name: Some(of.private_dns_name.clone()),
        private_ip_address: Some(of.private_ip_address.to_string()),
        private_ip_addresses: vec![InstancePrivateIpAddress {
            primary: Some(true),
            private_dns_name: Some(of.private_dns_name.clone()),
            private_ip_address: Some(of.private_ip_address.to_string()),
            ..InstancePrivateIpAddress::default()
        }],
        source_dest_check: Some(true),
        status: some("in-use"),
        subnet_id: Some(of.subnet_id.to_string()),
        vpc_id: Some(of.vpc_id.to_string()),
        interface_type: some("interface"),
        ..InstanceNetworkInterface::default()
    }
}
