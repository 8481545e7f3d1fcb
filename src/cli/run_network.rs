//! The network of `amiboot run`: its machine is an instance that no catalogue knows.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};
use clap::Args;
use sha2::{Digest, Sha256};

use super::network::{MetadataArgs, NetworkArgs};
use super::output::note;
use super::scope::{ScopeArgs, told};
use super::{CliError, Usage, user_data};
use crate::cloud::home::Home;
use crate::cloud::key_pair::Public;
use crate::cloud::network::{DEFAULT_VPC, private_dns_name};
use crate::cloud::time;
use crate::imds::{BlockDevice, Document, Interface, Options, Placement, PublicKey, SecurityGroup, identity};
use crate::launch::network::{BackEnd, NetworkConfig};
use crate::net::QUEUE_PAIRS_MAX;
use crate::net::address::mac_of;
use crate::vmm::smbios::Identity;

/// The longest file of a public key, in bytes.
const KEY_MAX: u64 = 64 << 10;
/// The device of the root, as the guest is told.
const ROOT: &str = "/dev/xvda";

/// Options about the network of a machine in the foreground.
#[derive(Args)]
pub struct RunNetworkArgs {
    #[command(flatten)]
    network: NetworkArgs,

    /// Who may log in: a key pair of the catalogue, or a file with a public key
    #[arg(long, value_name = "NAME|FILE")]
    key: Option<String>,

    /// User data: a file, - for standard input; at most 16 KiB
    #[arg(long, value_name = "FILE")]
    user_data: Option<PathBuf>,

    #[command(flatten)]
    metadata: MetadataArgs,

    #[command(flatten)]
    scope: ScopeArgs,
}

impl RunNetworkArgs {
    /// Whether the guest gets its data on a disk.
    #[must_use]
    pub fn has_seed_disk(&self) -> bool {
        self.network.has_seed_disk()
    }

    /// The network of the machine with that identity; nothing where it is to have none.
    ///
    /// # Errors
    /// For what is none of a key, user data or an account; where there is no network and something needs one.
    pub fn config(&self, identity: &Identity, architecture: &str) -> Result<Option<NetworkConfig>, CliError> {
        let asked = self.network.back_end();
        let forwards = self.network.forwards();
        if asked == Some(BackEnd::None) {
            let needs = [("--key", self.key.is_some()), ("--user-data", self.user_data.is_some())];
            return match needs.iter().find(|(_, given)| *given) {
                Some((option, _)) => {
                    Err(Usage(format!("{option} needs a network: it is told by that; leave --net none out")).into())
                }
                None => Ok(None),
            };
        }
        let scope = self.scope.scope()?;
        let subnet = DEFAULT_VPC.part(20, 0).unwrap_or(DEFAULT_VPC);
        // As the instance's id: another at each run, so that nobody takes one for another.
        let digest = Sha256::digest(&identity.instance_id);
        let number = digest.iter().take(2).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        let room = subnet.size().saturating_sub(5).max(1);
        let address = subnet.address(4 + number % room).unwrap_or(Ipv4Addr::new(172, 31, 0, 4));
        let mac = mac_of(address);
        let host_name = private_dns_name(address, &scope.region);
        let digits: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let id = |prefix: &str| format!("{prefix}-0{digits}");
        let mut document = Document {
            instance_id: identity.instance_id.clone(),
            image_id: id("ami"),
            launch_index: 0,
            instance_type: identity.instance_type.clone(),
            reservation_id: id("r"),
            account_id: scope.account.to_string(),
            architecture: architecture.to_owned(),
            launched: time::format(time::now() / 1000 * 1000).replace(".000Z", "Z"),
            kernel_id: None,
            ramdisk_id: None,
            ancestor_ami_ids: Vec::new(),
            product_codes: Vec::new(),
            placement: Placement {
                availability_zone: format!("{}a", scope.region),
                availability_zone_id: String::new(),
                region: scope.region.clone(),
            },
            interface: Interface {
                id: id("eni"),
                mac: mac.to_string(),
                private_ipv4: address,
                public_ipv4: None,
                subnet_id: id("subnet"),
                subnet_cidr: subnet.to_string(),
                vpc_id: id("vpc"),
                vpc_cidr: DEFAULT_VPC.to_string(),
                security_groups: vec![SecurityGroup { id: id("sg"), name: "default".into() }],
            },
            block_devices: ["ami", "root"].map(|name| BlockDevice { name: name.into(), device: ROOT.into() }).to_vec(),
            public_keys: self.key()?.into_iter().collect(),
            user_data: self
                .user_data
                .as_deref()
                .map(user_data::read)
                .transpose()?
                .map(|data| Base64::encode_string(&data)),
            tags: None,
            identity: None,
            options: self.metadata.change().applied_to(Options::default()).map_err(told)?,
        };
        sign(&mut document);
        Ok(Some(NetworkConfig {
            outside_is_optional: asked.is_none() && forwards.is_empty(),
            back_end: asked.unwrap_or(BackEnd::User),
            mac,
            address,
            subnet,
            vpc: DEFAULT_VPC,
            host_name,
            queue_pairs: QUEUE_PAIRS_MAX,
            forwards,
            neighbours: None,
            metadata: Some(document),
        }))
    }

    fn key(&self) -> Result<Option<PublicKey>, CliError> {
        use std::io::Read;
        let Some(given) = &self.key else { return Ok(None) };
        let path = Path::new(given);
        if !path.is_file() {
            let pairs = self.scope.open()?.key_pairs(std::slice::from_ref(given)).map_err(told)?;
            return Ok(pairs
                .into_iter()
                .next()
                .map(|pair| PublicKey { name: pair.key_name, openssh: pair.public_key }));
        }
        let mut text = String::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(KEY_MAX).read_to_string(&mut text));
        read.map_err(|e| Usage(format!("--key {given}: {e}")))?;
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or("key").to_owned();
        let public = Public::parse(&text).map_err(|e| Usage(format!("--key {given}: {e}")))?;
        Ok(Some(PublicKey { openssh: public.openssh_for(&name), name }))
    }
}

/// Signs what the instance is with the person's key. Where there is none, and none can be made, it is not signed.
fn sign(document: &mut Document) {
    let signed = Home::of_person()
        .map_err(|e| e.to_string())
        .and_then(|home| identity::load_or_create(home.root()).map_err(|e| e.to_string()))
        .and_then(|signer| signer.sign(document).map_err(|e| e.to_string()));
    match signed {
        Ok(identity) => document.identity = Some(identity),
        Err(why) => note(&format!("the machine has no signed identity document: {why}")),
    }
}
