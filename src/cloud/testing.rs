//! A catalogue for tests, with disks that hold something and instances that need no machine.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rusqlite::params;
use tempfile::TempDir;

use super::home::Home;
use super::image::{Architecture, Image, RegisterRequest, VirtualizationType};
use super::instance::Backend;
use super::mapping::{BlockDevice, Ebs, GIB, Target};
use super::tag::{self, Tags};
use super::{Cloud, CloudError, Id, Instance, Kind, RunRequest, Scope, Snapshot, network};

/// A catalogue of its own.
pub(super) struct World {
    dir: TempDir,
}

impl World {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn home(&self) -> Home {
        Home::at(&self.dir.path().join("home")).unwrap()
    }

    /// A process of its own, as far as the catalogue can tell. What it launches needs no machine.
    pub fn cloud(&self) -> Cloud {
        self.of(Scope::default())
    }

    pub fn of(&self, scope: Scope) -> Cloud {
        Cloud::open(self.home(), scope).unwrap().with_backend(Backend::Stub)
    }

    pub fn cloud_of(&self, account: &str) -> Cloud {
        self.of(Scope { account: account.parse().unwrap(), ..Scope::default() })
    }

    pub fn cloud_in(&self, region: &str) -> Cloud {
        self.of(Scope { region: region.into(), ..Scope::default() })
    }

    /// A raw disk of a GiB with these bytes in it.
    pub fn disk(&self, name: &str, pieces: &[(u64, &[u8])]) -> PathBuf {
        let path = self.dir.path().join(name);
        let file = File::create(&path).unwrap();
        file.set_len(GIB).unwrap();
        pieces.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
        path
    }

    /// A path for something that is to be made.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
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

/// What goes on, whatever it is told.
pub(super) fn goes_on(_: u64, _: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

impl Cloud {
    /// A snapshot of a GiB with these bytes in it.
    pub(super) fn test_snapshot(&mut self, world: &World, pieces: &[(u64, &[u8])]) -> Snapshot {
        let disk = world.disk("a disk", pieces);
        self.import_snapshot(&disk, None, "", &Tags::new(), &mut goes_on).unwrap()
    }

    /// An image with such a root.
    pub(super) fn test_image(&mut self, world: &World, name: &str) -> Image {
        let snapshot = self.test_snapshot(world, &[(0, b"root")]);
        let ebs = Ebs { snapshot_id: Some(snapshot.snapshot_id.to_string()), ..Ebs::default() };
        let root = BlockDevice { device_name: "/dev/sda1".into(), target: Target::Ebs(ebs) };
        self.register_image(&RegisterRequest {
            name: name.into(),
            architecture: Some(Architecture::X86_64),
            virtualization_type: Some(VirtualizationType::Hvm),
            root_device_name: Some("/dev/sda1".into()),
            block_device_mappings: vec![root],
            ..RegisterRequest::default()
        })
        .unwrap()
    }

    /// An instance of an image.
    pub(super) fn test_instance(&mut self, image: &Image) -> Instance {
        let request = RunRequest { image: image.image_id.to_string(), count: 1, ..RunRequest::default() };
        self.run_instances(&request).unwrap().instances.remove(0)
    }
}

/// The code of what went wrong.
pub(super) fn code<T>(done: Result<T, CloudError>) -> String {
    match done {
        Ok(_) => "it was done".into(),
        Err(error) => error.code(),
    }
}
