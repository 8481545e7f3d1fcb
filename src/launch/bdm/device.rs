//! Names of devices, as EC2 has them.

use std::fmt;
use std::str::FromStr;

use super::BdmError;

/// The name that a device has in a block device mapping, with its `/dev/`.
///
/// Possible are `/dev/sd[a-z]`, `/dev/sd[a-z][1-15]`, `/dev/xvd[a-z]` and `/dev/xvd[b-d][a-z]`. What the guest calls the
/// device is its own affair.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceName(String);

impl DeviceName {
    /// `/dev/sda1`: the root device of most images.
    pub fn root() -> Self {
        Self("/dev/sda1".to_owned())
    }

    /// The name with its `/dev/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The letters that tell disks apart: `a` for `/dev/sda`, `/dev/sda1` and `/dev/xvda`.
    pub(super) fn letters(&self) -> &str {
        let name = self.0.trim_start_matches("/dev/");
        let name = name.strip_prefix("sd").or_else(|| name.strip_prefix("xvd")).unwrap_or(name);
        name.trim_end_matches(|c: char| c.is_ascii_digit())
    }
}

impl FromStr for DeviceName {
    type Err = BdmError;

    fn from_str(text: &str) -> Result<Self, BdmError> {
        let short = text.strip_prefix("/dev/").unwrap_or(text);
        let possible = if let Some(rest) = short.strip_prefix("sd") {
            matches!(rest.as_bytes(), [b'a'..=b'z'] | [b'a'..=b'z', b'1'..=b'9'] | [b'a'..=b'z', b'1', b'0'..=b'5'])
        } else if let Some(rest) = short.strip_prefix("xvd") {
            matches!(rest.as_bytes(), [b'a'..=b'z'] | [b'b'..=b'd', b'a'..=b'z'])
        } else {
            false
        };
        if possible { Ok(Self(format!("/dev/{short}"))) } else { Err(BdmError::DeviceName { name: text.to_owned() }) }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_ec2_takes() {
        for name in ["sda", "/dev/sda1", "sdz15", "sdf10", "xvda", "/dev/xvdz", "xvdba", "xvddz"] {
            let device: DeviceName = name.parse().unwrap();
            assert_eq!(device.as_str(), format!("/dev/{}", name.trim_start_matches("/dev/")));
        }
        assert_eq!("sdf".parse::<DeviceName>().unwrap(), "/dev/sdf".parse().unwrap());
    }

    #[test]
    fn other_names_are_refused() {
        for name in [
            "",
            "/dev/",
            "sd",
            "sdA",
            "sda0",
            "sda16",
            "sda01",
            "sda100",
            "sdaa",
            "xvd",
            "xvda1",
            "xvdea",
            "xvdaa",
            "xvdbaa",
            "vda",
            "nvme0n1",
            "/dev/nvme1n1",
            "dev/sda",
            "//dev/sda",
            "/dev//sda",
            "/dev//dev/sda",
            "/dev/sda ",
            " sda",
            "hda",
            "sd\u{e4}",
        ] {
            let error = name.parse::<DeviceName>().unwrap_err().to_string();
            assert!(error.contains(&format!("{name:?}")) && error.contains("/dev/sdf"), "{error}");
        }
    }

    #[test]
    fn letters_tell_disks_apart() {
        for (name, letters) in [("sda", "a"), ("sda1", "a"), ("xvda", "a"), ("sdf15", "f"), ("xvdba", "ba")] {
            assert_eq!(name.parse::<DeviceName>().unwrap().letters(), letters);
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_is_its_own_name(text in "(/dev/)?(sd|xvd|[a-z]{1,3})[a-z]{0,2}[0-9]{0,3}") {
            if let Ok(device) = text.parse::<DeviceName>() {
                prop_assert_eq!(device.to_string().parse::<DeviceName>().unwrap(), device);
            }
        }
    }
}
