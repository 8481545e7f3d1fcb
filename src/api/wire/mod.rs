//! EC2's query protocol: parameters out of a form, answers as XML.
//!
//! Parameters are named by their path, as `BlockDeviceMapping.1.Ebs.VolumeSize`; lists count from 1. An answer is an element
//! named after its action, with `item`s for lists.

pub mod parameters;
pub mod xml;

/// A moment: milliseconds since 1970-01-01 UTC. On the wire as ISO 8601, in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

/// Bytes; on the wire in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);
