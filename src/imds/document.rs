//! What an instance is told of itself.

use std::net::Ipv4Addr;

use base64ct::{Base64, Encoding};
use serde::{Deserialize, Serialize};

/// The longest user data, in bytes as the guest gets them.
pub const USER_DATA_MAX: usize = 16 << 10;

/// All that the metadata service knows of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// `i-` and 17 hexadecimal digits.
    pub instance_id: String,
    /// `ami-` and 17 hexadecimal digits.
    pub image_id: String,
    /// The instance's number among those launched together.
    pub launch_index: u32,
    /// Such as `t3.micro`.
    pub instance_type: String,
    /// `r-` and 17 hexadecimal digits.
    pub reservation_id: String,
    /// The owner: twelve digits.
    pub account_id: String,
    /// `x86_64` or `i386`.
    pub architecture: String,
    /// When it was launched, as in `2026-11-24T14:05:26Z`.
    pub launched: String,
    /// `aki-` and digits, of a PV instance that names its kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_id: Option<String>,
    /// `ari-` and digits, of a PV instance that names its ramdisk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramdisk_id: Option<String>,
    /// Images that its image was made of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestor_ami_ids: Vec<String>,
    /// Product codes of its image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub product_codes: Vec<String>,
    /// Where it is.
    pub placement: Placement,
    /// Its network interface.
    pub interface: Interface,
    /// Its volumes under their names of the mapping.
    pub block_devices: Vec<BlockDevice>,
    /// Keys that may log in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub public_keys: Vec<PublicKey>,
    /// User data, at most 16 KiB, as base64 here; nothing where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// Tags, where the instance is to see them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<Tag>>,
    /// The identity document with its signatures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// How the service answers.
    #[serde(default)]
    pub options: Options,
}

impl Document {
    /// The user data as the guest gets them: `None` where there are none, where what is there is no base64, and where they are
    /// longer than [`USER_DATA_MAX`]. Whoever takes them from a person has checked that.
    #[must_use]
    pub fn decoded_user_data(&self) -> Option<Vec<u8>> {
        let text: String = self.user_data.as_ref()?.split_ascii_whitespace().collect();
        Base64::decode_vec(&text).ok().filter(|bytes| !bytes.is_empty() && bytes.len() <= USER_DATA_MAX)
    }
}

/// Where an instance is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// Such as `us-east-1`.
    pub region: String,
    /// Such as `us-east-1a`.
    pub availability_zone: String,
    /// Such as `use1-az1`.
    pub availability_zone_id: String,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// `eni-` and 17 hexadecimal digits.
    pub id: String,
    /// Ethernet address, six pairs of digits with colons.
    pub mac: String,
    /// Private address.
    pub private_ipv4: Ipv4Addr,
    /// Public address, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_ipv4: Option<Ipv4Addr>,
    /// `subnet-` and 17 hexadecimal digits.
    pub subnet_id: String,
    /// Such as `172.31.0.0/20`.
    pub subnet_cidr: String,
    /// `vpc-` and 17 hexadecimal digits.
    pub vpc_id: String,
    /// Such as `172.31.0.0/16`.
    pub vpc_cidr: String,
    /// Its security groups.
    pub security_groups: Vec<SecurityGroup>,
}

/// A security group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroup {
    /// `sg-` and 17 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// A volume under its name of the mapping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockDevice {
    /// `ami`, `root`, `ebs1`, `ephemeral0`, ...
    pub name: String,
    /// Its device: `/dev/xvda` for the root, else without `/dev/`, as EC2 has them.
    pub device: String,
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicKey {
    /// The key pair's name.
    pub name: String,
    /// In the form of OpenSSH, in one line.
    pub openssh: String,
}

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// The identity document and its signatures, made by whoever has the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The document: JSON.
    pub document: String,
    /// Signature of the document with SHA-256, as base64.
    pub signature: String,
    /// PKCS7 of the document and its signature, as base64 without the PEM lines.
    pub pkcs7: String,
    /// The same with the certificate of 2048 bits.
    pub rsa2048: String,
}

/// How the service answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Whether it answers at all.
    pub endpoint: bool,
    /// Whether every request needs a token (version 2).
    pub tokens_required: bool,
    /// How many hops the answer with a token may make, 1 to 64.
    pub hop_limit: u8,
    /// Whether it answers at its IPv6 address too.
    pub ipv6: bool,
    /// Whether tags are told. Where they are not, `tags` is empty already; this is told back only.
    pub tags: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { endpoint: true, tokens_required: false, hop_limit: 1, ipv6: false, tags: false }
    }
}
