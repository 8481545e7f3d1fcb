//! The instance metadata service: what it knows, and how it is asked for.
//!
//! It has no address of its own and opens nothing (but for [`load_or_create`], which keeps a key in a file): whoever runs the machine gives the guest's connections to it and takes the
//! answers back ([`crate::net::StreamService`]), and tells it of changes ([`Service::reconfigure`]). What it answers depends on
//! its [`Document`], its requests and its [`Clock`] alone.
//!
//! A request's way: bytes become requests (`http`), a token lets them in or not (`token`), and the path is looked up among
//! all that is told (`tree`).

pub mod clock;
pub mod document;
mod http;
pub mod identity;
pub mod service;
#[cfg(test)]
pub(crate) mod testing;
mod token;
mod tree;

pub use clock::Clock;
pub use document::{BlockDevice, Document, Identity, Interface, Options, Placement, PublicKey, SecurityGroup, Tag};
pub use identity::{Signer, SignerError, generate_certificate, load_or_create};
pub use service::{Counters, Service};
