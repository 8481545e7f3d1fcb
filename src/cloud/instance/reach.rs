//! What is asked of an instance's process: its console, its guest's ports, how it is, new layers for its volumes.

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

use super::backend::{self, Backend};
use super::machine::Files;
use super::truth::is_alive;
use super::{Instance, own};
use crate::cloud::Cloud;
use crate::cloud::error::CloudError;
use crate::cloud::id::Id;
use crate::imds::Document;
use crate::monitor::client::{self, Client, ClientError, Console};
use crate::monitor::protocol::FileSystems;

impl Cloud {
    /// The console of a running instance, at first up to `replay` bytes of what was written before.
    ///
    /// # Errors
    /// `IncorrectInstanceState`; `UnsupportedOperation` where there is no guest.
    pub fn attach_console(&mut self, id: &str, replay: u64) -> Result<(Instance, Console), CloudError> {
        let scope = self.scope.clone();
        let instance = self.catalogue.read(|tx| own(tx, &scope, id))?;
        instance.check_guest("console to be attached to")?;
        let files = Files::of(&self.home, instance.instance_id.as_str());
        match Client::connect(&files.socket()).and_then(|client| client.attach(replay)) {
            Ok(console) => Ok((instance, console)),
            Err(ClientError::NotRunning { .. } | ClientError::Ended) => {
                let (id, state) = (instance.instance_id, instance.state);
                Err(CloudError::InstanceState { id, state, verb: "attached to" })
            }
            Err(error) => Err(monitor(&instance.instance_id, &error)),
        }
    }

    /// The newest of what an instance has written to its console, whether it runs or not; nothing before it has.
    ///
    /// # Errors
    /// `InvalidInstanceID.NotFound`; what the host says.
    pub fn console_output(&mut self, id: &str, max: u64) -> Result<(Instance, Vec<u8>), CloudError> {
        let scope = self.scope.clone();
        let instance = self.catalogue.read(|tx| own(tx, &scope, id))?;
        if instance.backend == Backend::Stub {
            let text = backend::CONSOLE.as_bytes();
            let cut = text.len().saturating_sub(usize::try_from(max).unwrap_or(usize::MAX));
            return Ok((instance, text.get(cut..).unwrap_or_default().to_vec()));
        }
        let path = Files::of(&self.home, instance.instance_id.as_str()).console();
        match client::read_log(&path, max) {
            Ok(output) => Ok((instance, output)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok((instance, Vec::new())),
            Err(e) => Err(CloudError::host(&path, "cannot read the console's output")(e)),
        }
    }

    /// What the process of a running instance says of it; nothing of one without a process.
    ///
    /// # Errors
    /// `InvalidInstanceID.NotFound`; what the process answers.
    pub fn machine_status(&mut self, id: &str) -> Result<Option<crate::monitor::protocol::Status>, CloudError> {
        let scope = self.scope.clone();
        let instance = self.catalogue.read(|tx| own(tx, &scope, id))?;
        let files = Files::of(&self.home, instance.instance_id.as_str());
        match Client::connect(&files.socket()).and_then(|mut client| client.status()) {
            Ok(status) => Ok(Some(status)),
            Err(ClientError::NotRunning { .. } | ClientError::Ended) => Ok(None),
            Err(error) => Err(monitor(&instance.instance_id, &error)),
        }
    }

    /// Has the process of a running machine put new layers on volumes: for each its id, and the layer's data and map. The
    /// guest's agent, where there is one, freezes the file systems meanwhile; tells what they were.
    ///
    /// # Errors
    /// What the process says.
    pub(in crate::cloud) fn ask_for_snapshots(
        &self,
        id: &Id,
        volumes: &[(&str, [BorrowedFd<'_>; 2])],
    ) -> Result<FileSystems, CloudError> {
        let socket = Files::of(&self.home, id.as_str()).socket();
        let asked = Client::connect(&socket).and_then(|mut client| client.snapshot(volumes, true));
        asked.map_err(|error| monitor(id, &error))
    }

    /// A connection to a TCP port of a running instance's guest; it is closed where the guest does not take it.
    ///
    /// # Errors
    /// `IncorrectInstanceState`; `UnsupportedOperation` where there is no guest; what the process says.
    pub fn dial(&mut self, id: &str, port: u16) -> Result<(Instance, UnixStream), CloudError> {
        let scope = self.scope.clone();
        let instance = self.catalogue.read(|tx| own(tx, &scope, id))?;
        instance.check_guest("port to connect to")?;
        let files = Files::of(&self.home, instance.instance_id.as_str());
        match Client::connect(&files.socket()).and_then(|mut client| client.dial(port)) {
            Ok(stream) => Ok((instance, stream)),
            Err(ClientError::NotRunning { .. } | ClientError::Ended) => {
                let (id, state) = (instance.instance_id, instance.state);
                Err(CloudError::InstanceState { id, state, verb: "connected to" })
            }
            Err(error) => Err(monitor(&instance.instance_id, &error)),
        }
    }

    /// Where the ssh keys of an instance's guest are kept.
    #[must_use]
    pub fn known_hosts_file(&self, id: &Id) -> std::path::PathBuf {
        Files::of(&self.home, id.as_str()).dir().join("known_hosts")
    }

    /// Has the process of an instance tell its guest this of itself; nothing where none runs.
    pub(in crate::cloud) fn ask_for_metadata(&self, id: &Id, document: Document) -> Result<(), CloudError> {
        let socket = Files::of(&self.home, id.as_str()).socket();
        match Client::connect(&socket).and_then(|mut client| client.tell_metadata(document)) {
            Ok(()) | Err(ClientError::NotRunning { .. } | ClientError::Ended) => Ok(()),
            Err(error) => Err(monitor(id, &error)),
        }
    }

    /// Whether the process of an instance lives.
    pub(in crate::cloud) fn runs(&self, id: &Id) -> Result<bool, CloudError> {
        is_alive(&Files::of(&self.home, id.as_str()))
    }
}

/// What an instance's process said.
pub(in crate::cloud) fn monitor(id: &Id, error: &ClientError) -> CloudError {
    use crate::monitor::protocol::FailureKind;
    match error {
        ClientError::Refused(failure) if failure.kind == FailureKind::Unsupported => {
            CloudError::Unsupported(format!("{id}: {failure}"))
        }
        other => CloudError::State { what: id.to_string(), why: other.to_string() },
    }
}
