//! The cloud's faults: commands killed at any moment, machines killed, disks full, two at once, damage, refusals.

mod support;

#[path = "cloud_faults/crashes.rs"]
mod crashes;
#[path = "cloud_faults/damage.rs"]
mod damage;
#[path = "cloud_faults/ends.rs"]
mod ends;
#[path = "cloud_faults/errors.rs"]
mod errors;
#[path = "cloud_faults/full.rs"]
mod full;
#[path = "cloud_faults/rivals.rs"]
mod rivals;
