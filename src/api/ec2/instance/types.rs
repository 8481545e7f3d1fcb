//! Instance types.

use std::mem::take;

use super::super::parts::{page, text};
use crate::api::call::{Asked, Call};
use crate::api::error::ApiError;
use crate::api::model::{
    DescribeInstanceTypeOfferingsRequest, DescribeInstanceTypeOfferingsResult, DescribeInstanceTypesRequest,
    DescribeInstanceTypesResult, DiskInfo, EbsInfo, Filter, InstanceStorageInfo, InstanceTypeInfo,
    InstanceTypeOffering, MemoryInfo, NetworkCardInfo, NetworkInfo, PlacementGroupInfo, ProcessorInfo, VCpuInfo,
};
use crate::cloud::instance_type::{self, InstanceType};

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub fn describe(
    _call: &mut Call<'_>,
    asked: &mut Asked<DescribeInstanceTypesRequest>,
) -> Result<DescribeInstanceTypesResult, ApiError> {
    let names = take(&mut asked.instance_types);
    let filters = super::super::parts::filters(&mut asked.filters)?;
    let (max_results, token) = (asked.max_results.take(), asked.next_token.take());
    // All types are in all regions.
    asked.include_unsupported_in_region = None;
    asked.end()?;
    let found = instance_type::describe(&names, &filters)?;
    let (found, next_token) = page(found, |kind| kind.name.to_owned(), max_results, token, (5, 100))?;
    Ok(DescribeInstanceTypesResult { instance_types: found.into_iter().map(info).collect(), next_token })
}

fn info(kind: &InstanceType) -> InstanceTypeInfo {
    let text = |text: &str| Some(text.to_owned());
    let vcpus = i64::from(kind.vcpus);
    let disk_gb = i64::try_from(kind.disk_gb).unwrap_or(i64::MAX);
    let disks = i64::from(kind.disks);
    InstanceTypeInfo {
        instance_type: text(kind.name),
        current_generation: Some(kind.is_current_generation()),
        free_tier_eligible: Some(kind.is_free_tier()),
        supported_usage_classes: words(&["on-demand"]),
        supported_root_device_types: words(kind.root_device_types()),
        supported_virtualization_types: words(kind.virtualization_types()),
        bare_metal: Some(false),
        hypervisor: text(kind.hypervisor()),
        processor_info: Some(ProcessorInfo {
            supported_architectures: words(kind.architectures()),
            ..ProcessorInfo::default()
        }),
        v_cpu_info: Some(VCpuInfo {
            default_v_cpus: Some(vcpus),
            default_cores: Some(vcpus),
            default_threads_per_core: Some(1),
            ..VCpuInfo::default()
        }),
        memory_info: Some(MemoryInfo { size_in_mi_b: i64::try_from(kind.memory_mib).ok() }),
        instance_storage_supported: Some(kind.disks > 0),
        instance_storage_info: (kind.disks > 0).then(|| InstanceStorageInfo {
            total_size_in_gb: Some(disk_gb.saturating_mul(disks)),
            disks: vec![DiskInfo { size_in_gb: Some(disk_gb), count: Some(disks), r#type: text("ssd") }],
            nvme_support: text(if kind.nitro { "required" } else { "unsupported" }),
            encryption_support: text("unsupported"),
        }),
        ebs_info: Some(EbsInfo {
            ebs_optimized_support: text("default"),
            encryption_support: text("unsupported"),
            nvme_support: text(if kind.nitro { "required" } else { "unsupported" }),
            ..EbsInfo::default()
        }),
        network_info: Some(NetworkInfo {
            network_performance: text("Up to 5 Gigabit"),
            maximum_network_interfaces: Some(1),
            maximum_network_cards: Some(1),
            default_network_card_index: Some(0),
            network_cards: vec![NetworkCardInfo {
                network_card_index: Some(0),
                network_performance: text("Up to 5 Gigabit"),
                maximum_network_interfaces: Some(1),
                ..NetworkCardInfo::default()
            }],
            ipv4_addresses_per_interface: Some(1),
            ipv6_addresses_per_interface: Some(0),
            ipv6_supported: Some(false),
            ena_support: text(if kind.nitro { "required" } else { "unsupported" }),
            efa_supported: Some(false),
            ..NetworkInfo::default()
        }),
        placement_group_info: Some(PlacementGroupInfo::default()),
        hibernation_supported: Some(false),
        burstable_performance_supported: Some(kind.is_burstable()),
        dedicated_hosts_supported: Some(false),
        auto_recovery_supported: Some(false),
        supported_boot_modes: words(kind.boot_modes()),
        nitro_enclaves_support: text("unsupported"),
        nitro_tpm_support: text("unsupported"),
        ..InstanceTypeInfo::default()
    }
}

pub fn offerings(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeInstanceTypeOfferingsRequest>,
) -> Result<DescribeInstanceTypeOfferingsResult, ApiError> {
    let location_type = text(&mut asked.location_type).unwrap_or_else(|| "region".into());
    let (max_results, token) = (asked.max_results.take(), asked.next_token.take());
    let filters = take(&mut asked.filters);
    asked.end()?;
    let region = call.cloud.scope().region.clone();
    // Those that clients see when they list zones.
    let zones = call.cloud.describe_zones(&[], &[], &[], false)?;
    let locations: Vec<String> = match location_type.as_str() {
        "region" => vec![region],
        "availability-zone" => zones.into_iter().map(|zone| zone.zone_name).collect(),
        "availability-zone-id" => zones.into_iter().map(|zone| zone.zone_id).collect(),
        other => return Err(ApiError::value(format!("Value ({other}) for parameter locationType is invalid."))),
    };
    let mut found = Vec::new();
    for kind in instance_type::TYPES {
        for location in &locations {
            if passes(&filters, kind.name, location)? {
                found.push((kind.name, location.clone()));
            }
        }
    }
    let key = |(name, location): &(&str, String)| format!("{name} {location}");
    let (found, next_token) = page(found, key, max_results, token, (5, 1000))?;
    let offering = |(name, location): (&str, String)| InstanceTypeOffering {
        instance_type: Some(name.to_owned()),
        location_type: Some(location_type.clone()),
        location: Some(location),
    };
    Ok(DescribeInstanceTypeOfferingsResult {
        instance_type_offerings: found.into_iter().map(offering).collect(),
        next_token,
    })
}

fn passes(filters: &[Filter], kind: &str, location: &str) -> Result<bool, ApiError> {
    for filter in filters {
        let value = match filter.name.as_deref() {
            Some("instance-type") => kind,
            Some("location") => location,
            other => return Err(ApiError::value(format!("The filter '{}' is invalid", other.unwrap_or_default()))),
        };
        if !filter.values.iter().any(|pattern| crate::cloud::filter::Pattern::new(pattern).matches(value)) {
            return Ok(false);
        }
    }
    Ok(true)
}
