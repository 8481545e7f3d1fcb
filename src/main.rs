//! The `amiboot` command.

fn main() {}
