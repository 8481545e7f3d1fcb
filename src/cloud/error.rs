//! What can go wrong, each with EC2's error code, its message in EC2's words, and the mend.

use std::io;
use std::path::PathBuf;

use super::id::{Id, Kind};
use crate::disk;

/// Why something was not done.
///
/// The text is EC2's, where EC2 has one; [`CloudError::mend`] adds what a person can do about it.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// No identifier of this kind.
    #[error("Invalid id: \"{id}\" (expecting \"{}...\")", kind.prefix())]
    Malformed {
        /// What it should be of.
        kind: Kind,
        /// What was given.
        id: String,
    },
    /// Nothing has this identifier, or the caller may not see it.
    #[error("The {} ID '{id}' does not exist", kind.noun())]
    NotFound {
        /// What it would be of.
        kind: Kind,
        /// What was given.
        id: String,
    },
    /// The beginning of an id, or a name, that several have.
    #[error("'{given}' means more than one {}: {}", kind.noun(), found.join(", "))]
    Ambiguous {
        /// What it would be of.
        kind: Kind,
        /// What was given.
        given: String,
        /// Some that it could mean.
        found: Vec<String>,
    },
    /// An image that nothing can be launched from.
    #[error("The image ID '{id}' is not available: {why}")]
    ImageUnavailable {
        /// The image.
        id: Id,
        /// Its state, or what became of it.
        why: String,
    },
    /// A name that another image of the account has.
    #[error("AMI name {name} is already in use by AMI {image}")]
    NameInUse {
        /// The name.
        name: String,
        /// Who has it.
        image: Id,
    },
    /// No name for an image.
    #[error(
        "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, '(', ')', '.', '-', '/', \
         '_', ''', '@', '[', ']' and spaces"
    )]
    NameMalformed {
        /// What was given.
        name: String,
    },
    /// An account that is none, in a launch permission.
    #[error("Invalid attribute item value \"{value}\" for userId item type.")]
    AttributeItem {
        /// What was given.
        value: String,
    },
    /// A group that is none, in a launch permission.
    #[error("Invalid attribute item value \"{value}\" for userGroup item type.")]
    AttributeGroup {
        /// What was given.
        value: String,
    },
    /// Deregistration is protected against.
    #[error("The image '{id}' may not be deregistered. Disable its deregistration protection and try again.")]
    ImageProtected {
        /// The image.
        id: Id,
    },
    /// What nobody may do, or not to this resource.
    #[error("{0}")]
    NotPermitted(String),
    /// The instance is in no state for that.
    #[error("The instance '{id}' is not in a state from which it can be {verb}: it is {state}.")]
    InstanceState {
        /// The instance.
        id: Id,
        /// Its state.
        state: String,
        /// What was asked for, as in `stopped`.
        verb: &'static str,
    },
    /// Something else works on it; it can be done afterwards.
    #[error("{what}: it is {state}, and something else works on it; try again when that is done")]
    Busy {
        /// The instance or the volume.
        what: String,
        /// Its state.
        state: String,
    },
    /// Something else is in no state for that.
    #[error("{what}: {why}")]
    State {
        /// The resource.
        what: String,
        /// Its state, and what would be needed.
        why: String,
    },
    /// What these things cannot do.
    #[error("{0}")]
    Unsupported(String),
    /// Stopping is protected against.
    #[error("The instance '{id}' may not be stopped. Modify its 'disableApiStop' instance attribute and try again.")]
    StopProtected {
        /// The instance.
        id: Id,
    },
    /// Termination is protected against.
    #[error(
        "The instance '{id}' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again."
    )]
    Protected {
        /// The instance.
        id: Id,
    },
    /// A mapping that cannot be followed.
    #[error("{0}")]
    Mapping(String),
    /// A snapshot that images are made of.
    #[error("The snapshot {snapshot} is currently in use by {image}")]
    SnapshotInUse {
        /// The snapshot.
        snapshot: Id,
        /// One of them.
        image: Id,
    },
    /// A volume that an instance has.
    #[error("{volume} is already attached to an instance")]
    VolumeInUse {
        /// The volume.
        volume: Id,
        /// Which.
        instance: Id,
    },
    /// A volume that the instance does not have.
    #[error("The volume '{volume}' is not attached to instance '{instance}'.")]
    NotAttached {
        /// The volume.
        volume: Id,
        /// The instance.
        instance: String,
    },
    /// Volume and instance are in different zones.
    #[error("The volume '{volume}' is not in the same availability zone as instance '{instance}'")]
    ZoneMismatch {
        /// The volume.
        volume: Id,
        /// The instance.
        instance: Id,
    },
    /// Another code of a wrong parameter: `InvalidParameterValue`, `InvalidParameterCombination`, `MissingParameter`.
    #[error("{message}")]
    Parameter {
        /// EC2's code.
        code: &'static str,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// A paid image without a subscription.
    #[error(
        "In order to use this image you need to accept its terms and subscribe to it: product code {product_code} of \
         account {owner}"
    )]
    OptInRequired {
        /// The product.
        product_code: String,
        /// Who sells it.
        owner: String,
    },
    /// An image without launch permission.
    #[error("Not authorized for images: [{id}]")]
    NotAuthorizedForImage {
        /// The image.
        id: Id,
    },
    /// Not the owner's.
    #[error("You do not have permission to access {0}")]
    NotOwner(String),
    /// A token that was used with other parameters.
    #[error("Arguments on this idempotent request are inconsistent with arguments used in previous request(s).")]
    TokenMismatch,
    /// More instances than allowed.
    #[error("You have requested more instances ({asked}) than your current instance limit of {limit} allows.")]
    InstanceLimit {
        /// How many were asked for.
        asked: u32,
        /// How many there may be.
        limit: u32,
    },
    /// The machine did not come up.
    #[error("{0}")]
    Launch(String),
    /// A layer of the store.
    #[error(transparent)]
    Layer(#[from] disk::layered::LayerError),
    /// An instance-store bundle.
    #[error(transparent)]
    Bundle(#[from] crate::image::bundle::BundleError),
    /// A file that is to be imported.
    #[error(transparent)]
    Import(#[from] disk::foreign::import::ImportError),
    /// Something in the store is damaged or not there.
    #[error("{0}")]
    Damaged(String),
    /// The disk of a person's file.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] disk::foreign::OutputError),
    /// No room.
    #[error("{}: {need} bytes are needed and {have} are free", path.display())]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// How many bytes.
        need: u64,
        /// How many there are.
        have: u64,
    },
    /// The catalogue.
    #[error("the catalogue: {0}")]
    Catalogue(#[from] rusqlite::Error),
    /// The host refused something.
    #[error("{}: {what}: {cause}", path.display())]
    Host {
        /// The file or directory.
        path: PathBuf,
        /// What was to be done.
        what: &'static str,
        /// What the host said.
        cause: io::Error,
    },
}

impl CloudError {
    /// EC2's error code.
    #[must_use]
    pub fn code(&self) -> String {
        let code = match self {
            Self::Malformed { kind: Kind::SecurityGroup, .. } => "InvalidGroupId.Malformed",
            Self::Malformed { kind: Kind::Volume, .. } => "InvalidVolumeID.Malformed",
            Self::Malformed { kind: Kind::Snapshot, .. } => "InvalidSnapshotID.Malformed",
            Self::Malformed { kind: Kind::NetworkInterface, .. } => "InvalidNetworkInterfaceId.Malformed",
            Self::Malformed { kind, .. } => return format!("{}.Malformed", kind.code()),
            Self::NotFound { kind, .. } => return format!("{}.NotFound", kind.code()),
            Self::Ambiguous { .. } => "InvalidParameterValue",
            Self::ImageUnavailable { .. } => "InvalidAMIID.Unavailable",
            Self::NameInUse { .. } => "InvalidAMIName.Duplicate",
            Self::NameMalformed { .. } => "InvalidAMIName.Malformed",
            Self::AttributeItem { .. } | Self::AttributeGroup { .. } => "InvalidAMIAttributeItemValue",
            Self::ImageProtected { .. } | Self::NotPermitted(_) => "OperationNotPermitted",
            Self::InstanceState { .. } => "IncorrectInstanceState",
            Self::State { .. } | Self::Busy { .. } => "IncorrectState",
            Self::Unsupported(_) => "UnsupportedOperation",
            Self::Protected { .. } | Self::StopProtected { .. } => "OperationNotPermitted",
            Self::Mapping(_) => "InvalidBlockDeviceMapping",
            Self::SnapshotInUse { .. } => "InvalidSnapshot.InUse",
            Self::VolumeInUse { .. } => "VolumeInUse",
            Self::NotAttached { .. } => "InvalidAttachment.NotFound",
            Self::ZoneMismatch { .. } => "InvalidVolume.ZoneMismatch",
            Self::Parameter { code, .. } => code,
            Self::OptInRequired { .. } => "OptInRequired",
            Self::NotAuthorizedForImage { .. } => "AuthFailure",
            Self::NotOwner(_) => "UnauthorizedOperation",
            Self::TokenMismatch => "IdempotentParameterMismatch",
            Self::InstanceLimit { .. } => "InstanceLimitExceeded",
            Self::Launch(_) => "InsufficientInstanceCapacity",
            Self::NoSpace { .. } => "InsufficientVolumeCapacity",
            Self::Bundle(_) => "InvalidManifest",
            Self::Disk(_)
            | Self::Import(_)
            | Self::File(_)
            | Self::Layer(_)
            | Self::Damaged(_)
            | Self::Catalogue(_)
            | Self::Host { .. } => "InternalError",
        };
        code.to_owned()
    }

    /// What a person can do about it, where the message does not say so.
    #[must_use]
    pub fn mend(&self) -> Option<String> {
        let mend = match self {
            Self::Malformed { kind, .. } => format!("an id is {} and 17 hexadecimal digits", kind.prefix()),
            Self::NotFound { kind, .. } if kind.has_command() => {
                format!("see those there are: amiboot {} ls", kind.noun())
            }
            Self::Ambiguous { .. } => "give more of the id".into(),
            Self::NameInUse { .. } => "give another --name, or deregister that image".into(),
            Self::NameMalformed { name } => format!("{name:?} is none: give another --name"),
            Self::StopProtected { id } => format!("amiboot instance modify {id} --stop-protection off"),
            Self::AttributeItem { .. } => "an account has 12 digits, as in 123456789012".into(),
            Self::Protected { id } => format!("amiboot instance modify {id} --termination-protection off"),
            Self::AttributeGroup { .. } => "the only group is all".into(),
            Self::ImageProtected { id } => format!("amiboot image protect {id} --off"),
            Self::SnapshotInUse { image, .. } => format!("first: amiboot image deregister {image}"),
            Self::VolumeInUse { volume, .. } => format!("first: amiboot volume detach {volume}"),
            Self::OptInRequired { product_code, .. } => format!("amiboot image subscribe {product_code}"),
            Self::NotAuthorizedForImage { id } => format!("its owner can: amiboot image share {id} --account ACCOUNT"),
            Self::NoSpace { .. } => "make room, or set AMIBOOT_HOME to a directory in a larger file system".into(),
            _ => return None,
        };
        Some(mend)
    }

    /// `InvalidParameterValue`.
    #[must_use]
    pub fn value(message: impl Into<String>) -> Self {
        Self::Parameter { code: "InvalidParameterValue", message: message.into() }
    }

    /// `InvalidParameterCombination`.
    #[must_use]
    pub fn combination(message: impl Into<String>) -> Self {
        Self::Parameter { code: "InvalidParameterCombination", message: message.into() }
    }

    /// Turns what the host said into an error about `path`.
    pub fn host(path: impl Into<PathBuf>, what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Host { path: path.into(), what, cause }
    }
}
