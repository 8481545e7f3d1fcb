//! EC2's actions: a room for each noun. A new action goes into the room of its noun: a function, and a line in the room's
//! table.

mod absent;
mod image;
mod instance;
mod interface;
mod key_pair;
mod mapping;
mod network;
mod parts;
mod place;
mod security_group;
mod snapshot;
mod tag;
mod task;
#[cfg(test)]
mod tests;
mod volume;

use super::call::Handler;

/// The namespace of answers.
pub const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";

/// The tables of all rooms.
pub const ROOMS: &[&[(&str, Handler)]] = &[
    absent::ACTIONS,
    image::ACTIONS,
    instance::ACTIONS,
    interface::ACTIONS,
    key_pair::ACTIONS,
    network::ACTIONS,
    place::ACTIONS,
    security_group::ACTIONS,
    snapshot::ACTIONS,
    tag::ACTIONS,
    task::ACTIONS,
    volume::ACTIONS,
];
