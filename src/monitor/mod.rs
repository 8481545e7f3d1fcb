//! An instance's own process: it runs the machine from its start to its end, through every restart, and answers to others.
//!
//! [`instance::run`] is its life. What it is told is [`config`]; that it lives is told by a lock ([`alive`]), how it ended by
//! a file ([`exit`]). Others talk to it over a socket ([`protocol`], [`control`]) by way of [`client`], and read what the
//! guest wrote to its console ([`console`]). Two threads beside the machine's: one drives the machine ([`caretaker`]), one
//! talks ([`control`]); what they share is the [`desk`]. A third one, for as long as it takes, waits for the guest's [`agent`].

mod agent;
pub mod alive;
mod caretaker;
mod changes;
pub mod client;
pub mod config;
pub mod console;
pub mod control;
mod desk;
pub mod detach;
pub mod exit;
pub mod instance;
pub mod protocol;
pub mod volumes;

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in milliseconds of Unix time.
fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
