//! The instance metadata service: what it knows, and how it is asked for.
//!
//! It has no address of its own and opens nothing: whoever runs the machine gives the guest's connections to it and takes the
//! answers back ([`crate::net::StreamService`]), and tells it of changes.

pub mod document;

pub use document::{BlockDevice, Document, Identity, Interface, Options, Placement, PublicKey, SecurityGroup, Tag};
