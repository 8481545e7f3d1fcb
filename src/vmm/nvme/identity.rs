//! How a controller presents itself: as a volume of EC2 does on Nitro.

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// PCI vendor: Amazon.
const AMAZON: u16 = 0x1d0f;

/// What Identify Controller and the PCI function say of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    model: &'static str,
    serial: String,
    firmware: &'static str,
    device_name: String,
    pci_device: u16,
}

impl Identity {
    /// An EBS volume. `volume_id` is `vol-` and hexadecimal digits: without the dash it is the serial number. The stock
    /// rules of udev make links called `device_name` (`/dev/sdf` or `sdf`, at most 32 bytes).
    #[must_use]
    pub fn ebs(volume_id: &str, device_name: &str) -> Self {
        Self {
            model: "Amazon Elastic Block Store",
            serial: printable(&volume_id.replace('-', ""), 20),
            firmware: "1.0",
            device_name: printable(device_name, 32),
            pci_device: 0x8061,
        }
    }

    /// An instance store volume, with its number. Its serial number is `AWS` and the digits of `volume_id`; its name says
    /// both what it is and where (`ephemeral0:sdb`).
    #[must_use]
    pub fn instance_store(number: u8, volume_id: &str, device_name: &str) -> Self {
        let digits = volume_id.trim_start_matches("vol").trim_start_matches('-');
        let place = device_name.trim_start_matches("/dev/");
        Self {
            model: "Amazon EC2 NVMe Instance Storage",
            serial: printable(&format!("AWS{digits}"), 20),
            firmware: "0",
            device_name: printable(&format!("ephemeral{number}:{place}"), 32),
            pci_device: 0xcd01,
        }
    }

    /// PCI vendor and device, also those of the subsystem.
    #[must_use]
    pub fn pci_ids(&self) -> (u16, u16) {
        (AMAZON, self.pci_device)
    }

    /// Serial number, at most 20 bytes.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Model, at most 40 bytes.
    #[must_use]
    pub fn model(&self) -> &str {
        self.model
    }

    pub(super) fn firmware(&self) -> &str {
        self.firmware
    }

    pub(super) fn device_name(&self) -> &str {
        &self.device_name
    }

    /// A UUID (version 8, RFC 9562) that is always the same for the same model and serial number.
    pub(super) fn uuid(&self) -> Uuid {
        let digest = Sha256::new().chain_update(self.model).chain_update([0]).chain_update(&self.serial).finalize();
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Uuid::from_bytes(bytes)
    }
}

/// The first `len` characters, those that are not printable ASCII as `?` (section 1.5).
fn printable(text: &str, len: usize) -> String {
    text.chars().take(len).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_id_fills_the_serial_number() {
        let identity = Identity::ebs("vol-0123456789abcdef0", "/dev/sdf");
        assert_eq!(identity.serial(), "vol0123456789abcdef0");
        assert_eq!(identity.serial().len(), 20);
        assert_eq!(identity.pci_ids(), (0x1d0f, 0x8061));
    }

    #[test]
    fn what_does_not_fit_or_print_is_cut_and_replaced() {
        let identity = Identity::ebs(&"é".repeat(30), "a\nb");
        assert_eq!(identity.serial(), "?".repeat(20));
        assert_eq!(identity.device_name(), "a?b");
    }

    #[test]
    fn instance_store_volumes_say_so() {
        for id in ["vol-0123456789abcdef0", "vol0123456789abcdef0"] {
            let identity = Identity::instance_store(3, id, "/dev/sdb");
            assert_eq!(identity.model(), "Amazon EC2 NVMe Instance Storage");
            assert_eq!(identity.serial(), "AWS0123456789abcdef0");
            assert_eq!(identity.device_name(), "ephemeral3:sdb");
            assert_eq!(identity.pci_ids(), (0x1d0f, 0xcd01));
        }
    }

    #[test]
    fn the_uuid_follows_the_serial_number() {
        let uuid = |id| Identity::ebs(id, "sdf").uuid();
        assert_eq!(uuid("vol-1"), Identity::ebs("vol-1", "sdg").uuid());
        assert_ne!(uuid("vol-1"), uuid("vol-2"));
        assert_eq!((uuid("vol-1").get_version_num(), uuid("vol-1").get_variant()), (8, uuid::Variant::RFC4122));
    }
}
