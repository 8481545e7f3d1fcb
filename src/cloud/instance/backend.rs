//! What instances run on.

use super::{Instance, state};
use crate::cloud::error::CloudError;
use crate::cloud::words::words;

words! {
    /// What an instance runs on.
    pub enum Backend as "back end" {
        /// A machine, in a process of its own.
        Machines = "machine",
        /// Nothing: it passes through its states in the catalogue alone, for those who try tools out.
        Stub = "stub",
    }
}

/// What a stub's console shows.
pub(super) const CONSOLE: &str = "This instance has no guest: it was launched with the stub back end.\r\n";

impl Instance {
    /// Whether there is a process that runs its machine, as far as the catalogue knows.
    #[must_use]
    pub fn has_machine(&self) -> bool {
        self.state == state::RUNNING && self.backend == Backend::Machines
    }

    /// Refuses what only a guest can do to an instance without one.
    ///
    /// # Errors
    /// `UnsupportedOperation`.
    pub(super) fn check_guest(&self, what: &str) -> Result<(), CloudError> {
        match self.backend {
            Backend::Machines => Ok(()),
            Backend::Stub => Err(CloudError::Unsupported(format!(
                "{}: it has no guest, since it was launched with the stub back end, so there is no {what}; launch one \
                 without that",
                self.instance_id
            ))),
        }
    }
}
