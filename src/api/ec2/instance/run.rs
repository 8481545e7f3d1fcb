//! Instances are launched.

use std::mem::take;

use base64ct::{Base64, Encoding};

use super::super::mapping;
use super::super::parts::{check_id, natural, need, only, tags_for_all, text};
use super::answer::reservations;
use super::metadata;
use crate::api::call::{Asked, Call};
use crate::api::error::ApiError;
use crate::api::model::{InstanceNetworkInterfaceSpecification, Reservation, RunInstancesRequest};
use crate::cloud::{Instance, InstanceChange, Kind, MachineOptions, RunRequest};

pub fn run(call: &mut Call<'_>, asked: &mut Asked<RunInstancesRequest>) -> Result<Reservation, ApiError> {
    let image = need(text(&mut asked.image_id), "ImageId")?;
    // A name, or the beginning of an id, is a person's way to say it.
    if !image.starts_with("resolve:ssm:") {
        check_id(Kind::Image, &image)?;
    }
    let most = natural(Some(need(asked.max_count.take(), "MaxCount")?), "MaxCount")?.unwrap_or(0);
    let least = natural(Some(need(asked.min_count.take(), "MinCount")?), "MinCount")?.unwrap_or(0);
    if least == 0 || most < least {
        return Err(ApiError::value(format!("Value ({least}..{most}) for the number of instances is invalid")));
    }
    let [tags, volume_tags, _] =
        tags_for_all(["instance", "volume", "network-interface"], &mut asked.tag_specifications)?;
    let mut request = RunRequest {
        image,
        // Between the least and the most there is nothing here that could be short.
        count: u32::try_from(most).unwrap_or(u32::MAX),
        instance_type: text(&mut asked.instance_type),
        mapping: mapping::read(&mut asked.block_device_mappings)?,
        key_name: text(&mut asked.key_name),
        user_data: user_data(text(&mut asked.user_data))?,
        metadata: asked.metadata_options.as_mut().map(metadata::read).transpose()?.unwrap_or_default(),
        shutdown_behavior: text(&mut asked.instance_initiated_shutdown_behavior),
        disable_api_termination: asked.disable_api_termination.take() == Some(true),
        client_token: text(&mut asked.client_token),
        subnet: text(&mut asked.subnet_id),
        security_groups: take(&mut asked.security_group_ids),
        security_group_names: take(&mut asked.security_groups),
        private_address: address(text(&mut asked.private_ip_address))?,
        tags,
        volume_tags,
        machine: MachineOptions::default(),
        zone: None,
    };
    if let Some(placement) = &mut asked.placement {
        request.zone = text(&mut placement.availability_zone);
        only(&mut placement.tenancy, "Placement.Tenancy", &["default"])?;
    }
    let mut interfaces = take(&mut asked.network_interfaces);
    if call.has_public_addresses() {
        // All instances have one.
        interfaces.iter_mut().for_each(|interface| interface.associate_public_ip_address = None);
    }
    read_interfaces(&mut request, &mut interfaces)?;
    asked.network_interfaces = interfaces;
    let disable_api_stop = asked.disable_api_stop.take();
    say_what_is_so(asked)?;
    asked.end()?;
    let instances: Vec<Instance> = call.begin(move |cloud, begun| {
        let launched = cloud.run_instances_with(&request, &mut |launched| begun(launched.instances.clone()))?;
        if disable_api_stop == Some(true) {
            let change = InstanceChange { disable_api_stop, ..InstanceChange::default() };
            for instance in &launched.instances {
                cloud.modify_instance(instance.instance_id.as_str(), &change)?;
            }
        }
        Ok(())
    })?;
    reservations(call, &instances).pop().ok_or_else(|| ApiError::new("InternalError", "nothing was launched"))
}

/// Members that ask for what all instances here have anyhow, or for what means nothing to them.
fn say_what_is_so(asked: &mut RunInstancesRequest) -> Result<(), ApiError> {
    // Volumes are as near as they can be.
    asked.ebs_optimized = None;
    if let Some(credits) = &mut asked.credit_specification {
        only(&mut credits.cpu_credits, "CreditSpecification.CpuCredits", &["standard", "unlimited"])?;
    }
    if let Some(options) = &mut asked.maintenance_options {
        only(&mut options.auto_recovery, "MaintenanceOptions.AutoRecovery", &["default", "disabled"])?;
    }
    if let Some(options) = &mut asked.private_dns_name_options {
        only(&mut options.hostname_type, "PrivateDnsNameOptions.HostnameType", &["ip-name"])?;
    }
    if let Some(options) = &mut asked.capacity_reservation_specification {
        let preference = &mut options.capacity_reservation_preference;
        only(preference, "CapacityReservationSpecification.CapacityReservationPreference", &["open", "none"])?;
    }
    Ok(())
}

fn user_data(data: Option<String>) -> Result<Option<Vec<u8>>, ApiError> {
    let Some(data) = data else { return Ok(None) };
    let bare: String = data.chars().filter(|char| !char.is_ascii_whitespace()).collect();
    let read = Base64::decode_vec(&bare);
    read.map(Some).map_err(|_| ApiError::new("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data."))
}

fn address(text: Option<String>) -> Result<Option<std::net::Ipv4Addr>, ApiError> {
    let wrong = |text: &str| ApiError::value(format!("Value ({text}) for parameter PrivateIpAddress is invalid."));
    text.map(|text| text.parse().map_err(|_| wrong(&text))).transpose()
}

/// An instance has one card, so there is at most one interface, and it is said there or in the request itself.
fn read_interfaces(
    request: &mut RunRequest,
    interfaces: &mut [InstanceNetworkInterfaceSpecification],
) -> Result<(), ApiError> {
    let [interface] = interfaces else {
        return match interfaces.len() {
            0 => Ok(()),
            count => {
                Err(ApiError::unsupported(format!("An instance has one network interface here; {count} are asked for")))
            }
        };
    };
    if !matches!(interface.device_index.take(), None | Some(0)) {
        return Err(ApiError::unsupported("An instance has one network interface here, whose device index is 0"));
    }
    if interface.network_card_index.take().is_some_and(|index| index != 0) {
        return Err(ApiError::unsupported("An instance has one network card here, whose index is 0"));
    }
    if interface.delete_on_termination.take() == Some(false) {
        return Err(ApiError::unsupported("A network interface goes with its instance here"));
    }
    only(&mut interface.interface_type, "NetworkInterface.1.InterfaceType", &["interface"])?;
    only(&mut interface.description, "NetworkInterface.1.Description", &[])?;
    if request.subnet.is_some() || !request.security_groups.is_empty() || !request.security_group_names.is_empty() {
        let message = "Network interfaces and an instance-level subnet ID or security groups may not be specified on the same request";
        return Err(ApiError::combination(message));
    }
    request.subnet = text(&mut interface.subnet_id);
    request.security_groups = take(&mut interface.groups);
    let single = address(text(&mut interface.private_ip_address))?;
    request.private_address = single.or(request.private_address);
    Ok(())
}
