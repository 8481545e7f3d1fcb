//! The control socket: one thread that talks to all who are connected, and waits for none of them.

mod connection;
mod server;
pub mod socket;

pub use server::{Server, ServerError};
