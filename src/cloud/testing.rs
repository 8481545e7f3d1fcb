//! Catalogues of unit tests: what they have in common.

use rusqlite::params;
use tempfile::TempDir;

use super::home::Home;
use super::tag::{self, Tags};
use super::{Cloud, CloudError, Id, Kind, Scope, network};

/// A catalogue of its own, seen by many.
pub(super) struct World {
    dir: TempDir,
}

impl World {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn home(&self) -> Home {
        Home::at(self.dir.path()).unwrap()
    }

    /// As a person who says nothing sees it.
    pub fn cloud(&self) -> Cloud {
        Cloud::open(self.home(), Scope::default()).unwrap()
    }

    pub fn cloud_of(&self, account: &str) -> Cloud {
        Cloud::open(self.home(), Scope { account: account.parse().unwrap(), ..Scope::default() }).unwrap()
    }

    pub fn cloud_in(&self, region: &str) -> Cloud {
        Cloud::open(self.home(), Scope { region: region.into(), ..Scope::default() }).unwrap()
    }
}

/// A stopped instance in a zone, with an interface in its default subnet.
pub(super) fn new_instance(cloud: &mut Cloud, zone: &str, tags: &[(&str, &str)]) -> Id {
    let (scope, home) = (cloud.scope.clone(), cloud.home.clone());
    let id = Id::new(Kind::Instance).unwrap();
    let done = cloud.catalogue.write(|tx| {
        tx.execute(
            "INSERT INTO instances (id, region, owner, zone, reservation, launch_index, image, instance_type, state, launched,
                 changed, architecture, virtualization_type, root_device_type, root_device_name, shutdown_behavior, options,
                 reason_code, reason, client_token)
             VALUES (?1, ?2, ?3, ?4, 'r-00000001', 0, 'ami-00000001', 't3.micro', 'stopped', 0, 1767225600000, 'x86_64', 'hvm',
                 'ebs', '/dev/sda1', 'stop', '{}', 'Client.UserInitiatedShutdown',
                 'Client.UserInitiatedShutdown: User initiated shutdown', 'token')",
            params![id, scope.region, scope.account.as_str(), zone],
        )?;
        tag::add(tx, &id, &all(tags))?;
        network::attach(tx, &home, &scope, &id, zone)
    });
    done.unwrap();
    id
}

/// An available volume of 8 GiB without a layer.
pub(super) fn new_volume(cloud: &mut Cloud, zone: &str, tags: &[(&str, &str)]) -> Id {
    let scope = cloud.scope.clone();
    let id = Id::new(Kind::Volume).unwrap();
    let done = cloud.catalogue.write(|tx| {
        tx.execute(
            "INSERT INTO volumes (id, region, owner, zone, size_gib, volume_type, state, created)
             VALUES (?1, ?2, ?3, ?4, 8, 'gp3', 'available', 0)",
            params![id, scope.region, scope.account.as_str(), zone],
        )?;
        tag::add(tx, &id, &all(tags))
    });
    done.unwrap();
    id
}

/// A completed snapshot of 8 GiB without a layer.
pub(super) fn new_snapshot(cloud: &mut Cloud, description: &str, tags: &[(&str, &str)]) -> Id {
    let scope = cloud.scope.clone();
    let id = Id::new(Kind::Snapshot).unwrap();
    let done = cloud.catalogue.write(|tx| {
        tx.execute(
            "INSERT INTO snapshots (id, region, owner, size_gib, description, state, started)
             VALUES (?1, ?2, ?3, 8, ?4, 'completed', 0)",
            params![id, scope.region, scope.account.as_str(), description],
        )?;
        tag::add(tx, &id, &all(tags))
    });
    done.unwrap();
    id
}

pub(super) fn all(tags: &[(&str, &str)]) -> Tags {
    tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The code of what went wrong.
pub(super) fn code<T>(done: Result<T, CloudError>) -> String {
    match done {
        Ok(_) => "it was done".into(),
        Err(error) => error.code(),
    }
}
