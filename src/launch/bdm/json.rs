//! Entries in the JSON of the `aws` command line tool (`--block-device-mappings`).

use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::rules::{check, ephemeral};
use super::{BdmEntry, BdmError, BdmSource, DeviceName};

/// Most bytes of a file with a mapping; a mapping of all possible devices has far fewer.
const MAX_LEN: u64 = 1 << 20;

/// "BlockDeviceMapping" of the EC2 API.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Mapping {
    device_name: String,
    ebs: Option<Ebs>,
    virtual_name: Option<String>,
    /// The empty text, usually; any removes the device.
    no_device: Option<String>,
}

/// "EbsBlockDevice" of the EC2 API.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "PascalCase", default)]
struct Ebs {
    snapshot_id: Option<String>,
    /// GiB.
    volume_size: Option<u64>,
    volume_type: Option<String>,
    delete_on_termination: Option<bool>,
    iops: Option<u64>,
    throughput: Option<u64>,
    encrypted: Option<bool>,
    kms_key_id: Option<String>,
}

/// One mapping, or several.
#[derive(Deserialize)]
#[serde(transparent)]
struct Mappings(Vec<Mapping>);

/// Reads JSON from a file.
pub(super) fn read(path: &Path) -> Result<Vec<BdmEntry>, BdmError> {
    let failed = |source| BdmError::Read { path: path.into(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_LEN + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_LEN {
        return Err(failed(std::io::Error::other("it has more than 1 MiB, so it is none")));
    }
    parse(&text, &format!("@{}", path.display()))
}

/// Reads JSON: a list of mappings, or one alone.
pub(super) fn parse(text: &str, origin: &str) -> Result<Vec<BdmEntry>, BdmError> {
    let mappings = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map(|one| vec![one])
    } else {
        serde_json::from_str(text).map(|Mappings(all)| all)
    };
    let mappings = mappings.map_err(|source| BdmError::Json { origin: origin.to_owned(), source })?;
    mappings.into_iter().map(entry).collect()
}

fn entry(mapping: Mapping) -> Result<BdmEntry, BdmError> {
    let device: DeviceName = mapping.device_name.parse()?;
    let field = |field, why: &str| BdmError::Field { device: device.clone(), field, why: why.to_owned() };
    let sources = [mapping.ebs.is_some(), mapping.virtual_name.is_some(), mapping.no_device.is_some()];
    if sources.iter().filter(|given| **given).count() != 1 {
        return Err(field("Ebs, VirtualName, NoDevice", "give exactly one of them"));
    }
    let (source, ebs) = match (mapping.ebs, mapping.virtual_name) {
        (Some(ebs), _) => (ebs_source(&device, &ebs)?, ebs),
        (None, Some(name)) => {
            let number = name.strip_prefix("ephemeral").unwrap_or(&name);
            (BdmSource::Ephemeral(ephemeral(&device, "VirtualName", number)?), Ebs::default())
        }
        (None, None) => (BdmSource::Nothing, Ebs::default()),
    };
    let gib =
        |size: u64| size.checked_mul(1 << 30).ok_or_else(|| field("VolumeSize", "at most 65536 GiB are possible"));
    let entry = BdmEntry {
        source,
        size: ebs.volume_size.map(gib).transpose()?,
        delete_on_termination: ebs.delete_on_termination,
        read_only: false,
        persist: false,
        format: None,
        device,
    };
    check(&entry)?;
    Ok(entry)
}

/// The source that `Ebs` says, after a look at what it says besides.
///
/// The type of a volume says how EC2 keeps it, which has no meaning here; so it is only checked. What promises something that is
/// not kept here is refused.
fn ebs_source(device: &DeviceName, ebs: &Ebs) -> Result<BdmSource, BdmError> {
    const TYPES: [&str; 7] = ["standard", "gp2", "gp3", "io1", "io2", "st1", "sc1"];
    let fail = |field, why: &str| Err(BdmError::Field { device: device.clone(), field, why: why.to_owned() });
    if ebs.volume_type.as_ref().is_some_and(|kind| !TYPES.contains(&kind.as_str())) {
        return fail("VolumeType", "possible are standard, gp2, gp3, io1, io2, st1 and sc1 (without any effect here)");
    }
    if ebs.encrypted == Some(true) || ebs.kms_key_id.is_some() {
        return fail("Encrypted", "volumes are not encrypted here; leave out Encrypted and KmsKeyId");
    }
    if ebs.iops.is_some() || ebs.throughput.is_some() {
        return fail("Iops", "volumes are as fast as the host's disk; leave out Iops and Throughput");
    }
    Ok(ebs.snapshot_id.clone().map_or(BdmSource::Blank, BdmSource::Snapshot))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::launch::bdm::parse as parse_any;

    #[test]
    fn what_aws_users_write() {
        let entries = parse_any(
            r#"[{"DeviceName":"/dev/sdf","Ebs":{"VolumeSize":10,"VolumeType":"gp3","DeleteOnTermination":true,"Encrypted":false}},
                {"DeviceName":"/dev/xvdg","VirtualName":"ephemeral1"},
                {"DeviceName":"/dev/sdh","NoDevice":""}]"#,
        )
        .unwrap();
        let short: Vec<_> = ["sdf=10G,delete-on-termination=true", "xvdg=ephemeral1", "sdh=none"]
            .iter()
            .flat_map(|text| parse_any(text).unwrap())
            .collect();
        assert_eq!(entries, short);
        let alone = parse_any(r#"{"DeviceName":"sdf","Ebs":{"VolumeSize":1}}"#).unwrap();
        assert_eq!(alone, parse_any("/dev/sdf=1G").unwrap());
        assert_eq!(parse_any("[]").unwrap(), []);
    }

    #[test]
    fn a_file_of_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let argument = format!("@{}", file.path().display());
        std::fs::write(file.path(), "\n [{\"DeviceName\":\"/dev/sdf\",\"Ebs\":{\"VolumeSize\":1}}]\n").unwrap();
        assert_eq!(parse_any(&argument).unwrap(), parse_any("sdf=1G").unwrap());
        std::fs::write(file.path(), "[\n{]").unwrap();
        let error = parse_any(&argument).unwrap_err().to_string();
        assert!(error.contains(&argument) && error.contains("line 2"), "{error}");
        std::fs::write(file.path(), vec![b' '; (1 << 20) + 1]).unwrap();
        assert!(parse_any(&argument).unwrap_err().to_string().contains("1 MiB"));
        assert!(matches!(parse_any("@/no/such/file"), Err(BdmError::Read { .. })));
    }

    #[test]
    fn what_is_refused_and_why() {
        for (ebs, words) in [
            (r#""Ebs":{"VolumeSize":0}"#, "at least 512"),
            (r#""Ebs":{"VolumeSize":65537}"#, "at most 64T"),
            (r#""Ebs":{"VolumeSize":18446744073709551615}"#, "VolumeSize"),
            (r#""Ebs":{"VolumeSize":-1}"#, "JSON"),
            (r#""Ebs":{"VolumeSize":"10"}"#, "JSON"),
            (r#""Ebs":{"VolumeSize":1,"Size":2}"#, "unknown field `Size`"),
            (r#""Ebs":{"VolumeSize":1,"VolumeType":"fast"}"#, "VolumeType"),
            (r#""Ebs":{"VolumeSize":1,"Encrypted":true}"#, "Encrypted"),
            (r#""Ebs":{"VolumeSize":1,"KmsKeyId":"k"}"#, "KmsKeyId"),
            (r#""Ebs":{"VolumeSize":1,"Iops":100}"#, "Iops"),
            (r#""Ebs":{"VolumeSize":1},"NoDevice":"""#, "exactly one"),
            (r#""Ebs":{"VolumeSize":1},"VirtualName":"ephemeral0""#, "exactly one"),
            (r#""VirtualName":"ephemeral24""#, "ephemeral23"),
            (r#""VirtualName":"disk""#, "ephemeral23"),
            (r#""Device":"x""#, "unknown field `Device`"),
        ] {
            let text = format!(r#"[{{"DeviceName":"/dev/sdf",{ebs}}}]"#);
            let error = parse_any(&text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        for (text, words) in [
            (r#"[{"DeviceName":"/dev/sdf"}]"#, "exactly one"),
            (r#"[{"DeviceName":"/dev/nvme1n1","NoDevice":""}]"#, "device name"),
            (r#"[{"Ebs":{"VolumeSize":1}}]"#, "DeviceName"),
            ("[", "EOF"),
            ("{}", "DeviceName"),
            ("[1]", "JSON"),
        ] {
            let error = parse_any(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(tail in ".*", depth in 0usize..5000) {
            let _ = parse_any(&format!("[{tail}"));
            let _ = parse_any(&"[".repeat(depth));
            let _ = parse_any(&format!(r#"[{{"DeviceName":{tail:?}}}]"#));
        }
    }
}
