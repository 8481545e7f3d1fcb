//! Options about a machine's network and its metadata service.

use clap::{Args, ValueEnum};

use crate::cloud::MetadataChange;
use crate::launch::network::BackEnd;

/// Options about a machine's network.
#[derive(Args, Clone, Debug)]
pub struct NetworkArgs {
    /// The network: user (the host's, without privileges; by passt), isolated (metadata service and neighbours only), tap=NAME,
    /// bridge=NAME or none. Without it: user, or isolated where passt is not installed
    #[arg(long, value_name = "NETWORK", env = "AMIBOOT_NET")]
    net: Option<BackEnd>,

    /// A port of the host that leads to one of the guest, as 8080:80 or 0.0.0.0:5353:53/udp; host port 0 is any that is free
    /// (repeatable)
    #[arg(short = 'p', long = "publish", value_name = "HOST:GUEST")]
    publish: Vec<crate::net::user::Forward>,

    /// Where the guest's cloud-init finds its data: the metadata service, or, for images that look nowhere else, a disk
    #[arg(long, value_name = "SOURCE", value_enum, default_value = "ec2")]
    cloud_init: Source,
}

/// Where cloud-init finds its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Source {
    /// The metadata service
    Ec2,
    /// A disk made at each start (cloud-init's NoCloud)
    Nocloud,
}

impl NetworkArgs {
    /// The network that was asked for.
    #[must_use]
    pub fn back_end(&self) -> Option<BackEnd> {
        self.net.clone()
    }

    /// The ports, as they are written down.
    #[must_use]
    pub fn forwards(&self) -> Vec<String> {
        self.publish.iter().map(ToString::to_string).collect()
    }

    /// Whether the guest gets its data on a disk.
    #[must_use]
    pub fn has_seed_disk(&self) -> bool {
        self.cloud_init == Source::Nocloud
    }
}

/// Whether requests need a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Tokens {
    /// Requests without a token are answered too (version 1)
    Optional,
    /// Every request needs one (version 2)
    Required,
}

/// Whether something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    /// It is
    Enabled,
    /// It is not
    Disabled,
}

/// Options about a machine's metadata service, as EC2 calls them.
#[derive(Args, Clone, Debug)]
pub struct MetadataArgs {
    /// Whether the metadata service needs a token with every request; what the image says where not given, else optional
    #[arg(long, value_enum, value_name = "TOKENS")]
    http_tokens: Option<Tokens>,

    /// Whether the metadata service answers at all
    #[arg(long, value_enum, value_name = "SWITCH")]
    http_endpoint: Option<Switch>,

    /// How many hops an answer with a token may make: 1 to 64
    #[arg(long, value_name = "HOPS")]
    http_put_response_hop_limit: Option<u8>,

    /// Whether the metadata service answers at fd00:ec2::254 too; heeded at the next start
    #[arg(long, value_enum, value_name = "SWITCH")]
    http_protocol_ipv6: Option<Switch>,

    /// Whether the metadata service tells the instance's tags
    #[arg(long, value_enum, value_name = "SWITCH")]
    instance_metadata_tags: Option<Switch>,
}

impl MetadataArgs {
    /// What they change.
    #[must_use]
    pub fn change(&self) -> MetadataChange {
        let is_enabled = |switch: Option<Switch>| switch.map(|switch| switch == Switch::Enabled);
        MetadataChange {
            endpoint: is_enabled(self.http_endpoint),
            tokens_required: self.http_tokens.map(|tokens| tokens == Tokens::Required),
            hop_limit: self.http_put_response_hop_limit,
            ipv6: is_enabled(self.http_protocol_ipv6),
            tags: is_enabled(self.instance_metadata_tags),
        }
    }
}
