//! The volumes of a machine that keeps what it was started with.

use std::io;

use super::{DiskConfig, Ejections, PlugError, Volumes};

/// Tells the driver of a volume that its disk has another size.
pub type Resized = Box<dyn Fn() + Send + Sync>;

/// Volumes that neither come nor go.
pub struct FixedVolumes {
    volumes: Vec<(DiskConfig, Resized)>,
    ejections: Ejections,
}

impl FixedVolumes {
    /// In the order of their devices.
    ///
    /// # Errors
    /// What the host said when it could not make an event.
    pub fn new(volumes: Vec<(DiskConfig, Resized)>) -> io::Result<Self> {
        Ok(Self { volumes, ejections: Ejections::new()? })
    }

    fn find(&self, name: &str) -> Result<&(DiskConfig, Resized), PlugError> {
        self.volumes.iter().find(|(disk, _)| disk.is_named(name)).ok_or_else(|| PlugError::None(name.into()))
    }
}

impl Volumes for FixedVolumes {
    fn disks(&self) -> Vec<DiskConfig> {
        self.volumes.iter().map(|(disk, _)| disk.clone()).collect()
    }

    fn is_fixed(&self) -> bool {
        true
    }

    fn plug(&self, disk: DiskConfig) -> Result<(), PlugError> {
        Err(PlugError::Paravirtual(disk.serial))
    }

    fn unplug(&self, name: &str) -> Result<(), PlugError> {
        let (disk, _) = self.find(name)?;
        Err(PlugError::Paravirtual(disk.serial.clone()))
    }

    fn remove(&self, name: &str) -> Result<(), PlugError> {
        self.unplug(name)
    }

    fn resized(&self, name: &str) -> Result<u64, PlugError> {
        let (disk, resized) = self.find(name)?;
        resized();
        Ok(disk.disk.size())
    }

    fn ejections(&self) -> &Ejections {
        &self.ejections
    }

    fn settle(&self) {}
}
