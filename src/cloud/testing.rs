//! A catalogue for tests, with disks that hold something and instances that need no machine.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::home::Home;
use super::image::{Architecture, Image, RegisterRequest, VirtualizationType};
use super::instance::Backend;
use super::mapping::{BlockDevice, Ebs, GIB, Target};
use super::tag::Tags;
use super::{Cloud, CloudError, Instance, RunRequest, Scope, Snapshot};

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
