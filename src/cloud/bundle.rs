//! Instance-store bundles, into the catalogue and out of it, and the local EC2 key that opens those made for it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Cloud;
use super::error::CloudError;
use super::home::Home;
use super::image::{Image, ImageType};
use super::mapping::Target;
use crate::disk::foreign::Progress;
use crate::disk::output::{OutputError, write_private};
use crate::disk::{Disk, Raw};
use crate::image::bundle::{self, Description, DeviceMapping, Kind, PrivateKey, PublicKey, Recipients, Trust};

/// The longest key file, in bytes.
const KEY_MAX: u64 = 64 << 10;

/// How a bundle is opened.
#[derive(Clone, Debug, Default)]
pub struct BundleKeys {
    /// The file of the user's private key; the local EC2 key where not given.
    pub user_key: Option<PathBuf>,
    /// The file of the certificate, or public key, of who has to have signed it; the user's key where not given.
    pub signer: Option<PathBuf>,
    /// Takes it whoever has signed it, or nobody.
    pub unchecked: bool,
}

/// Whether a file is a bundle's manifest, by its name.
#[must_use]
pub fn is_manifest(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(".manifest.xml"))
}

/// Unpacks a bundle into a file without a name in the store; gives its disk and what is said of it.
///
/// # Errors
/// What is wrong with the bundle, its signature or the key.
pub(super) fn open(
    home: &Home,
    manifest: &Path,
    keys: &BundleKeys,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Arc<dyn Disk>, Description), CloudError> {
    let user = keys.user_key.as_deref().map(private_key).transpose()?;
    let trust = match (&keys.signer, &user) {
        _ if keys.unchecked => Trust::Unchecked,
        (Some(path), _) => Trust::SignedBy(public_key(path)?),
        (None, Some(user)) => Trust::SignedBy(user.public()),
        (None, None) => {
            return Err(CloudError::combination(format!(
                "{}: it is opened with the local EC2 key, and who has to have signed it is not said; give the signer's \
                 certificate, or the user's key, or take it unchecked",
                manifest.display()
            )));
        }
    };
    let key = user.map_or_else(|| ec2_key(home), Ok)?;
    let bundle = bundle::read(manifest, &key, &trust)?;
    let file = tempfile_in(home)?;
    bundle.unpack(&file, progress)?;
    let disk = Raw::new(file, true).map_err(CloudError::host(home.root(), "cannot read what was unpacked"))?;
    Ok((Arc::new(disk), bundle.description().clone()))
}

/// A file without a name, in the store's file system.
fn tempfile_in(home: &Home) -> Result<File, CloudError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open(home.root())
        .map_err(CloudError::host(home.root(), "cannot make a file to unpack into"))
}

fn read_key(path: &Path) -> Result<String, CloudError> {
    use std::io::Read;
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(KEY_MAX).read_to_string(&mut text));
    read.map_err(CloudError::host(path, "cannot read the key"))?;
    Ok(text)
}

fn private_key(path: &Path) -> Result<PrivateKey, CloudError> {
    PrivateKey::from_pem(&read_key(path)?).map_err(|e| CloudError::value(format!("{}: {e}", path.display())))
}

fn public_key(path: &Path) -> Result<PublicKey, CloudError> {
    PublicKey::from_pem(&read_key(path)?).map_err(|e| CloudError::value(format!("{}: {e}", path.display())))
}

/// The local EC2 key, made when it is first needed.
fn ec2_key(home: &Home) -> Result<PrivateKey, CloudError> {
    let path = home.root().join("ec2-key.pem");
    if !path.exists() {
        let key = PrivateKey::generate().map_err(|e| CloudError::Damaged(format!("cannot make the EC2 key: {e}")))?;
        let pem = key.to_pem().map_err(|e| CloudError::Damaged(format!("cannot write the EC2 key: {e}")))?;
        match write_private(&path, pem.as_bytes()) {
            // Whoever was first has made it.
            Ok(()) | Err(OutputError::Exists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    private_key(&path)
}

impl Cloud {
    /// The certificate of the local EC2 key, in PEM: bundles made for it open here without the user's key.
    ///
    /// # Errors
    /// What the host says.
    pub fn ec2_certificate(&self) -> Result<String, CloudError> {
        let certificate = ec2_key(&self.home)?.certificate("amiboot");
        certificate.map_err(|e| CloudError::Damaged(format!("cannot make the certificate: {e}")))
    }

    /// Writes the root of an image, or a kernel, as an instance-store bundle into a directory; gives its manifest.
    ///
    /// # Errors
    /// As for reading the image; what is wrong with the key; what the host says.
    pub fn export_bundle(
        &mut self,
        id: &str,
        user_key: &Path,
        dir: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<PathBuf, CloudError> {
        let user = private_key(user_key)?;
        let ec2 = ec2_key(&self.home)?.public();
        let (image, disk) = self.image_disk(id)?;
        let recipients = Recipients { user: &user, ec2: &ec2 };
        let written = bundle::write(disk.as_ref(), &describe(&image), recipients, dir, progress)?;
        Ok(written.manifest)
    }
}

fn describe(image: &Image) -> Description {
    let device = |name: &str| name.trim_start_matches("/dev/").to_owned();
    let root = image.root_device_name.as_deref().unwrap_or("/dev/sda1");
    let mut mapping = vec![
        DeviceMapping { virtual_name: "ami".into(), device: device(root) },
        DeviceMapping { virtual_name: "root".into(), device: root.to_owned() },
    ];
    mapping.extend(image.block_device_mappings.iter().filter_map(|entry| match entry.target {
        Target::Ephemeral(number) => {
            Some(DeviceMapping { virtual_name: format!("ephemeral{number}"), device: device(&entry.device_name) })
        }
        _ => None,
    }));
    // Files are called after it.
    let name: String =
        image.name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    Description {
        name: name.trim_start_matches(['.', '-']).to_owned(),
        user: image.owner_id.clone(),
        kind: match image.image_type {
            ImageType::Machine => Kind::Machine,
            ImageType::Kernel => Kind::Kernel,
            ImageType::Ramdisk => Kind::Ramdisk,
        },
        architecture: image.architecture.to_string(),
        block_device_mapping: mapping,
        kernel_id: image.kernel_id.as_ref().map(ToString::to_string),
        ramdisk_id: image.ramdisk_id.as_ref().map(ToString::to_string),
        product_codes: image.product_codes.iter().map(|code| code.product_code_id.clone()).collect(),
    }
}
