//! EC2's API over HTTP, on the same catalogue as the command line.
//!
//! A request comes in by [`server`], is read to its end, and given to the [`service`]: that finds out [who asks](auth), reads
//! the form by [`wire`] and hands it to the [action's](call) function in [`ec2`], which speaks to [`crate::cloud`]. Requests
//! and answers have the types of [`model`]. Instances are reached at [public] addresses.

pub mod auth;
pub mod background;
pub mod cache;
pub mod call;
pub mod clouds;
pub mod ebs;
pub mod ec2;
pub mod error;
pub mod metrics;
pub mod model;
pub mod public;
pub mod server;
pub mod service;
pub mod sigv4;
pub mod ssm;
pub mod sts;
pub mod wire;
