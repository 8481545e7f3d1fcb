//! What images do, through [`Cloud`] alone.

mod copies;
mod launching;
mod listing;
mod registering;
mod withdrawing;

use tempfile::TempDir;

use super::new::NewImage;
use super::{Architecture, BootMode, Image, ImageType, RegisterRequest, RootDeviceType, VirtualizationType};
use crate::cloud::home::Home;
use crate::cloud::mapping::{BlockDevice, Ebs, Target};
use crate::cloud::{Cloud, CloudError, Id, Kind, Scope, layer};

const ME: &str = "123456789012";
const YOU: &str = "222222222222";
const THEY: &str = "333333333333";

/// A catalogue of its own, seen by many.
struct World {
    dir: TempDir,
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn home(&self) -> Home {
        Home::at(self.dir.path()).unwrap()
    }

    fn cloud(&self, account: &str) -> Cloud {
        self.cloud_in("us-east-1", account)
    }

    fn cloud_in(&self, region: &str, account: &str) -> Cloud {
        let scope = Scope { region: region.into(), account: account.parse().unwrap() };
        Cloud::open(self.home(), scope).unwrap()
    }

    /// The files of a layer that are there.
    fn files(&self, layer: &str) -> usize {
        let stem = self.home().layer(layer);
        ["data", "map"].into_iter().filter(|ending| stem.with_extension(ending).exists()).count()
    }
}

/// A sealed layer, with files.
fn new_layer(cloud: &mut Cloud) -> String {
    let id = layer::new_id(&cloud.home).unwrap();
    for ending in ["data", "map"] {
        std::fs::write(cloud.home.layer(&id).with_extension(ending), "").unwrap();
    }
    let insert = "INSERT INTO layers (id, size, state) VALUES (?1, 8589934592, 'sealed')";
    cloud.catalogue.write(|tx| Ok(tx.execute(insert, [&id])?)).unwrap();
    id
}

/// A snapshot of 8 GiB, and its layer.
fn new_snapshot(cloud: &mut Cloud) -> (Id, String) {
    let layer = new_layer(cloud);
    let id = Id::new(Kind::Snapshot).unwrap();
    let insert = "INSERT INTO snapshots (id, region, owner, layer, size_gib, description, state, started)
         VALUES (?1, ?2, ?3, ?4, 8, '', 'completed', 0)";
    let Scope { region, account } = cloud.scope.clone();
    cloud.catalogue.write(|tx| Ok(tx.execute(insert, (&id, region, account.as_str(), &layer))?)).unwrap();
    (id, layer)
}

/// Whatever SQL says.
fn sql(cloud: &mut Cloud, text: &str, id: &Id) {
    assert_eq!(cloud.catalogue.write(|tx| Ok(tx.execute(text, [id])?)).unwrap(), 1);
}

fn ebs(device: &str, snapshot: Option<&Id>, size: Option<u64>) -> BlockDevice {
    let ebs = Ebs { snapshot_id: snapshot.map(ToString::to_string), volume_size: size, ..Ebs::default() };
    BlockDevice { device_name: device.into(), target: Target::Ebs(ebs) }
}

/// What makes an HVM image of `snapshot`.
fn request(name: &str, snapshot: &Id) -> RegisterRequest {
    RegisterRequest {
        name: name.into(),
        architecture: Some(Architecture::X86_64),
        virtualization_type: Some(VirtualizationType::Hvm),
        root_device_name: Some("/dev/sda1".into()),
        block_device_mappings: vec![ebs("/dev/sda1", Some(snapshot), None)],
        ..RegisterRequest::default()
    }
}

fn register(cloud: &mut Cloud, name: &str) -> Image {
    let (snapshot, _) = new_snapshot(cloud);
    cloud.register_image(&request(name, &snapshot)).unwrap()
}

/// A kernel or ramdisk image, as import makes them.
fn register_part(cloud: &mut Cloud, name: &str, image_type: ImageType) -> (Image, String) {
    let layer = new_layer(cloud);
    let new = NewImage {
        image_type,
        template: Some(layer.clone()),
        location: Some("boot/kernel.manifest.xml".into()),
        ..NewImage::new(name, Architecture::X86_64, VirtualizationType::Paravirtual, RootDeviceType::InstanceStore)
    };
    let scope = cloud.scope.clone();
    let id = cloud.catalogue.write(|tx| new.insert(tx, &scope, None)).unwrap();
    (cloud.image(id.as_str()).unwrap(), layer)
}

/// The code of what went wrong.
fn code<T>(done: Result<T, CloudError>) -> String {
    match done {
        Ok(_) => "it was done".into(),
        Err(error) => error.code(),
    }
}

/// Who is meant, for short.
fn who(text: &str) -> Vec<super::LaunchPermission> {
    vec![text.parse().unwrap()]
}

#[test]
fn a_world_is_seen_alike_by_all() {
    let world = World::new();
    let image = register(&mut world.cloud(ME), "one");
    assert_eq!(world.cloud(ME).image(image.image_id.as_str()).unwrap(), image);
    assert_eq!(image.boot_mode, None::<BootMode>);
}
