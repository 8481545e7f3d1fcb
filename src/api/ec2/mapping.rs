//! Block device mappings: EC2's and the domain's.

use crate::api::error::ApiError;
use crate::api::model::{BlockDeviceMapping, EbsBlockDevice};
use crate::cloud::mapping::{BlockDevice, Ebs, Target};

/// A mapping out of a request. What is not understood stays in it, and is refused by whoever ends the request.
pub fn read(mapping: &mut [BlockDeviceMapping]) -> Result<Vec<BlockDevice>, ApiError> {
    mapping.iter_mut().map(read_one).collect()
}

fn read_one(entry: &mut BlockDeviceMapping) -> Result<BlockDevice, ApiError> {
    let device_name = entry.device_name.take().filter(|name| !name.is_empty());
    let device_name = device_name.ok_or_else(|| ApiError::missing("BlockDeviceMapping.N.DeviceName"))?;
    let fail =
        |why: &str| ApiError::new("InvalidBlockDeviceMapping", format!("block device mapping of {device_name}: {why}"));
    let virtual_name = entry.virtual_name.take().filter(|name| !name.is_empty());
    // Any value says it, an empty one too.
    let target = match (entry.ebs.as_mut(), virtual_name, entry.no_device.take()) {
        (Some(ebs), None, None) => Target::Ebs(read_ebs(ebs, &fail)?),
        (None, Some(name), None) => {
            let number = name.strip_prefix("ephemeral").and_then(|number| number.parse().ok());
            Target::Ephemeral(number.ok_or_else(|| fail("the virtual name is not ephemeral0, ephemeral1, ..."))?)
        }
        (None, None, Some(_)) => Target::NoDevice,
        _ => return Err(fail("it has exactly one of Ebs, VirtualName and NoDevice")),
    };
    Ok(BlockDevice { device_name, target })
}

fn read_ebs(ebs: &mut EbsBlockDevice, fail: &dyn Fn(&str) -> ApiError) -> Result<Ebs, ApiError> {
    // Hosts have one place for all volumes, which is encrypted or not.
    ebs.kms_key_id = ebs.kms_key_id.take().filter(|_| ebs.encrypted == Some(true));
    Ok(Ebs {
        snapshot_id: ebs.snapshot_id.take().filter(|id| !id.is_empty()),
        volume_size: number(ebs.volume_size.take()).map_err(|()| fail("the size is negative"))?,
        volume_type: ebs.volume_type.take().filter(|kind| !kind.is_empty()),
        delete_on_termination: ebs.delete_on_termination.take(),
        iops: number(ebs.iops.take()).map_err(|()| fail("the IOPS are negative"))?,
        throughput: number(ebs.throughput.take()).map_err(|()| fail("the throughput is negative"))?,
    })
}

/// A number that is not negative. Some clients send 0 for what they do not know.
fn number(value: Option<i64>) -> Result<Option<u64>, ()> {
    match value {
        None | Some(0) => Ok(None),
        Some(value) => u64::try_from(value).map(Some).map_err(|_| ()),
    }
}

/// A mapping in an answer.
pub fn write(mapping: &[BlockDevice]) -> Vec<BlockDeviceMapping> {
    mapping.iter().map(write_one).collect()
}

fn write_one(entry: &BlockDevice) -> BlockDeviceMapping {
    let mut answer =
        BlockDeviceMapping { device_name: Some(entry.device_name.clone()), ..BlockDeviceMapping::default() };
    match &entry.target {
        Target::Ebs(ebs) => {
            answer.ebs = Some(EbsBlockDevice {
                snapshot_id: ebs.snapshot_id.clone(),
                volume_size: super::parts::count(ebs.volume_size),
                volume_type: Some(ebs.volume_type.clone().unwrap_or_else(|| "gp2".into())),
                delete_on_termination: Some(ebs.delete_on_termination.unwrap_or(true)),
                iops: super::parts::count(ebs.iops),
                throughput: super::parts::count(ebs.throughput),
                encrypted: Some(false),
                ..EbsBlockDevice::default()
            });
        }
        Target::Ephemeral(number) => answer.virtual_name = Some(format!("ephemeral{number}")),
        Target::NoDevice => answer.no_device = Some(String::new()),
    }
    answer
}
