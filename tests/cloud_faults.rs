//! The cloud's faults: commands killed at any moment, machines killed, disks full, two at once, damage.

mod support;

#[path = "cloud_faults/crashes.rs"]
mod crashes;
