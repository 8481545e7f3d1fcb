//! A disk becomes a running machine: volumes, boot entry, console, and the loop until it ends.

pub mod bdm;
pub mod cmdline;
pub mod console;
pub mod drive;
pub mod firmware;
pub mod network;
mod person;
pub mod plan;
pub mod report;
pub mod seed;
pub mod session;
pub mod signals;
pub mod start;
mod stdin;
pub mod variables;
pub mod volumes;
