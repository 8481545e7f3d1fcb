//! What an instance writes to its console: kept in a file, and shown to who is attached.

pub mod backlog;
pub mod log;
