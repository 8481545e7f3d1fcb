//! EC2's requests and answers, as its service model has them: `build.rs` makes them out of `resources/ec2/model.json`.
//!
//! An action `X` is the type `XAction`. To get one that is not here, add its name to `resources/ec2/actions.txt` and run
//! `tools/ec2-model`.

#![allow(clippy::too_many_lines, clippy::struct_excessive_bools)]

use super::wire::parameters::{Fields, FromParameters, Left, WireError, join};
use super::wire::xml::{ToXml, Xml};
use super::wire::{Blob, Timestamp};

/// An action of the API.
pub trait Action {
    /// Its name.
    const NAME: &'static str;
    /// What is asked.
    type Request: FromParameters + Left;
    /// What is answered.
    type Answer: ToXml;

    /// Whether the caller only wants to know whether it would work; the request forgets it.
    fn take_dry_run(request: &mut Self::Request) -> bool;
}

/// The answer of actions that have nothing to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done;

impl ToXml for Done {
    fn write(&self, xml: &mut Xml) {
        xml.member("return", Some(&true));
    }
}

include!(concat!(env!("OUT_DIR"), "/ec2.rs"));
