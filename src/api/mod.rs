//! EC2's API over HTTP, on the same catalogue as the command line.

pub mod model;
pub mod wire;
