//! Identifiers, as EC2 writes them: a prefix and 17 hexadecimal digits.

use std::fmt;
use std::io;

use serde::{Serialize, Serializer};

use super::error::CloudError;
use crate::disk::random_bytes;

/// What an identifier is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A machine image.
    Image,
    /// The kernel of PV images.
    KernelImage,
    /// The initial ramdisk of PV images.
    RamdiskImage,
    /// An instance.
    Instance,
    /// What launched some instances together.
    Reservation,
    /// A volume.
    Volume,
    /// A snapshot.
    Snapshot,
    /// A virtual private cloud: an account's network in a region.
    Vpc,
    /// A part of one, in one zone.
    Subnet,
    /// A security group.
    SecurityGroup,
    /// A rule of one.
    SecurityGroupRule,
    /// A network interface.
    NetworkInterface,
    /// A key pair.
    KeyPair,
    /// The import of an image.
    ImportImageTask,
    /// The import of a snapshot.
    ImportSnapshotTask,
    /// The export of an image.
    ExportImageTask,
    /// The storing of an image.
    StoreImageTask,
}

impl Kind {
    /// What ids begin with, the dash included.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Image => "ami-",
            Self::KernelImage => "aki-",
            Self::RamdiskImage => "ari-",
            Self::Instance => "i-",
            Self::Reservation => "r-",
            Self::Volume => "vol-",
            Self::Snapshot => "snap-",
            Self::Vpc => "vpc-",
            Self::Subnet => "subnet-",
            Self::SecurityGroup => "sg-",
            Self::SecurityGroupRule => "sgr-",
            Self::NetworkInterface => "eni-",
            Self::KeyPair => "key-",
            Self::ImportImageTask => "import-ami-",
            Self::ImportSnapshotTask => "import-snap-",
            Self::ExportImageTask => "export-ami-",
            Self::StoreImageTask => "store-ami-",
        }
    }

    /// What EC2's error codes call it, as in `InvalidAMIID.NotFound`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Image | Self::KernelImage | Self::RamdiskImage => "InvalidAMIID",
            Self::Instance => "InvalidInstanceID",
            Self::Reservation => "InvalidReservationID",
            Self::Volume => "InvalidVolume",
            Self::Snapshot => "InvalidSnapshot",
            Self::Vpc => "InvalidVpcID",
            Self::Subnet => "InvalidSubnetID",
            Self::SecurityGroup => "InvalidGroup",
            Self::SecurityGroupRule => "InvalidSecurityGroupRuleId",
            Self::NetworkInterface => "InvalidNetworkInterfaceID",
            Self::KeyPair => "InvalidKeyPair",
            Self::ImportImageTask | Self::ImportSnapshotTask => "InvalidConversionTaskId",
            Self::ExportImageTask => "InvalidExportTaskID",
            Self::StoreImageTask => "InvalidStoreImageTaskID",
        }
    }

    /// What EC2's messages call it.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            Self::Image | Self::KernelImage | Self::RamdiskImage => "image",
            Self::Instance => "instance",
            Self::Reservation => "reservation",
            Self::Volume => "volume",
            Self::Snapshot => "snapshot",
            Self::Vpc => "vpc",
            Self::Subnet => "subnet",
            Self::SecurityGroup => "security group",
            Self::SecurityGroupRule => "security group rule",
            Self::NetworkInterface => "network interface",
            Self::KeyPair => "key",
            Self::ImportImageTask | Self::ImportSnapshotTask => "import task",
            Self::ExportImageTask => "export task",
            Self::StoreImageTask => "store image task",
        }
    }

    /// Whether the command line has a noun for it, [`Kind::noun`].
    #[must_use]
    pub fn has_command(self) -> bool {
        matches!(
            self,
            Self::Image
                | Self::KernelImage
                | Self::RamdiskImage
                | Self::Instance
                | Self::Volume
                | Self::Snapshot
                | Self::KeyPair
        )
    }
}

/// An identifier.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(String);

impl Id {
    /// A new one, which nobody can guess. It begins with a 0, as all of EC2's do.
    ///
    /// # Errors
    /// Where the host gives no random numbers.
    pub fn new(kind: Kind) -> io::Result<Self> {
        let random = u128::from_le_bytes(random_bytes()?) & 0xffff_ffff_ffff_ffff;
        Ok(Self(format!("{}0{random:016x}", kind.prefix())))
    }

    /// A whole identifier of `kind`: the prefix and 8 or 17 hexadecimal digits.
    ///
    /// # Errors
    /// [`CloudError::Malformed`].
    pub fn parse(kind: Kind, text: &str) -> Result<Self, CloudError> {
        let digits = text.strip_prefix(kind.prefix()).unwrap_or_default();
        let is_hex = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_hex && matches!(digits.len(), 8 | 17) {
            return Ok(Self(text.to_owned()));
        }
        Err(CloudError::Malformed { kind, id: text.to_owned() })
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl rusqlite::ToSql for Id {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

impl rusqlite::types::FromSql for Id {
    fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
        String::column_result(value).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ec2s() {
        for kind in [Kind::Image, Kind::Instance, Kind::Volume, Kind::Snapshot, Kind::Reservation] {
            let id = Id::new(kind).unwrap();
            assert_eq!(Id::parse(kind, id.as_str()).unwrap(), id);
            assert_eq!(id.as_str().len(), kind.prefix().len() + 17);
            assert_ne!(id, Id::new(kind).unwrap());
        }
        assert!(Id::parse(Kind::Image, "ami-0123abcd").is_ok());
        for wrong in ["", "ami-", "ami-0123", "ami-0123ABCD", "i-0123abcd", "ami-0123abcd0", "ami-0123456789abcdef01"] {
            assert!(matches!(Id::parse(Kind::Image, wrong), Err(CloudError::Malformed { .. })), "{wrong}");
        }
    }
}
